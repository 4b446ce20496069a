"""The contract file as types: every key with its meaning, range and default.

Law: only structure is checked here; what keys mean together is in `laws`. Root keys that must be
written are optional to the type, so that one missing key does not hide the other findings.
"""

from datetime import date
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from gateway.config.knobs import Duration, Kind, ModelName, Section, Size
from gateway.config.rules import FindingRule
from gateway.config.site import Knob, describe
from gateway.config.units import DAY, MINUTE, SECOND, TIB, parse_date, parse_rate
from gateway.config.validate import fault, nearest, show
from gateway.contract.schema import Action, Indicator

REQUIRED: Final = ("contract", "model", "match", "owner", "purpose", "expires")
# Specified, and not available yet: they are recognised so that the message is a clear one.
LATER_ACTIONS: Final = ("mask", "generalize", "shift", "template")
ACTIONS: Final = tuple(action.value for action in Action)
SLOS_MAX: Final = 16
INDICATORS: Final = tuple(indicator.value for indicator in Indicator)


def _action(value: Any) -> Any:
    """Read an action; tell apart what is unknown from what is not available yet."""
    if isinstance(value, Action):
        return value
    word = next(iter(value), None) if isinstance(value, dict) and len(value) == 1 else value
    if word in LATER_ACTIONS:
        message = f"the action {word!r} is not available yet"
        raise fault(FindingRule.NOT_AVAILABLE, message, "write token or drop")
    if isinstance(value, str) and value in ACTIONS:
        return Action(value)
    advice = nearest(str(word), ACTIONS, what="write one of")
    raise fault(FindingRule.UNKNOWN_VALUE, f"{show(value)} is no action", advice)


def _indicator(value: Any) -> Any:
    """Pass the name of an indicator; for another one name the nearest, and all."""
    if isinstance(value, str) and value in INDICATORS:
        return value
    near = nearest(str(value), INDICATORS)
    every = f"possible are: {', '.join(INDICATORS)}"
    advice = f"{near} {every}" if near.startswith("did you mean") else every
    raise fault(FindingRule.UNKNOWN_VALUE, f"{show(value)} is no indicator", advice)


def _date(value: Any) -> Any:
    return parse_date(value) if isinstance(value, str) else value


def _rate(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, str):
        return parse_rate(value)
    if info.context:
        raise ValueError("write a number per period, such as 1/30d")
    return value


ActionField = Annotated[Action, BeforeValidator(_action), Kind("action", "token")]
DateField = Annotated[date, BeforeValidator(_date), Kind("date", "2027-12-31")]
RateField = Annotated[float, BeforeValidator(_rate), Kind("rate", "1/30d")]
IndicatorField = Annotated[
    Literal[
        "success",
        "latency",
        "cold_start",
        "freshness",
        "deployment",
        "label_lag",
        "integrity",
        "bandwidth",
    ],
    BeforeValidator(_indicator),
]
SloName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"), Kind("name", "latency")]
Text = Annotated[str, Field(max_length=512)]


class SignalForm(Section):
    """One attribute of an inference span."""

    attribute: str = Field(
        max_length=256, description="attribute key of the span, such as edgeai.inference.class"
    )
    type: Literal["double", "int", "bool", "enum", "string"] = Field(
        description="type of the attribute: double, int, bool, enum or string"
    )
    role: Literal["confidence", "prediction", "feature", "outcome", "identifier", "text"] = Field(
        description="what the signal means: confidence, prediction, feature, outcome, "
        "identifier or text"
    )
    range: tuple[float, float] | None = Field(
        default=None, description="lowest and highest value of a number, such as [0, 1]"
    )
    values: tuple[Text, ...] = Field(
        default=(), max_length=256, description="closed set of values of an enum"
    )
    export: ActionField = Field(
        default=Action.DROP, description="what leaves the site: pass, token or drop"
    )
    site: ActionField = Field(
        default=Action.PASS, description="what is stored at the site: pass, token or drop"
    )


class ResourceForm(Section):
    """One resource attribute."""

    export: ActionField = Field(
        default=Action.DROP, description="what leaves the site: pass, token or drop"
    )
    site: ActionField = Field(
        default=Action.PASS, description="what is stored at the site: pass, token or drop"
    )


class MetricForm(Section):
    """One metric that leaves."""

    unit: str = Field(
        default="", max_length=64, description="unit of the metric in UCUM, such as ms or By"
    )


class AlertForm(Section):
    """One pair of windows of an objective's own alerts."""

    long: Duration = Field(ge=MINUTE, le=90 * DAY, description="window that must burn")
    short: Duration = Field(
        ge=10 * SECOND, le=90 * DAY, description="window inside it that must still burn"
    )
    factor: float = Field(
        gt=0.0, le=1e6, description="burn rate above which both fire, in budgets per period"
    )
    severity: Literal["page", "ticket"] = Field(description="page or ticket")


class SloForm(Section):
    """One objective."""

    name: SloName = Field(description="name of the objective")
    indicator: IndicatorField = Field(description="what counts as good")
    objective: float | None = Field(
        default=None,
        description="share of good events, above 0 and below 1; integrity and bandwidth have none",
    )
    window: Duration = Field(
        default=30 * DAY, ge=DAY, le=90 * DAY, description="period of the objective"
    )
    threshold: Duration | None = Field(
        default=None,
        gt=0.0,
        le=30 * DAY,
        description="longest good duration of latency, age of freshness (5m if not written), "
        "or wait of label_lag (24h)",
    )
    allowance: Size | None = Field(
        default=None, ge=1, le=1024 * TIB, description="bytes that may leave in each window"
    )
    alerts: tuple[AlertForm, ...] = Field(
        default=(), max_length=8, description="own pairs of windows instead of the standard ones"
    )
    page: bool = Field(
        default=True, description="whether own alerts page; false allows tickets alone"
    )


class DriftForm(Section):
    """How drift is judged."""

    baseline: str = Field(
        default="learn",
        max_length=512,
        description="learn, or file: and the path of a baseline beside this contract",
    )
    tolerance: float = Field(
        default=0.1, gt=0.0, le=2.0, description="root of the PSI up to which nothing is alarmed"
    )
    false_alarms: RateField = Field(
        default=1 / (30 * DAY),
        ge=1 / (3650 * DAY),
        le=1 / MINUTE,
        description="false alarms of one signal that are accepted",
    )
    accumulator: Literal["shiryaev-roberts", "cusum"] = Field(
        default="shiryaev-roberts",
        description="how evidence adds up: cusum is slower and alarms less often than the budget",
    )
    season: Literal["none", "hour-of-week"] = Field(
        default="none", description="rhythm of the signals: each hour has a reference of its own"
    )
    rate_tolerance: float | None = Field(
        default=None, gt=0.0, lt=1.0, description="change of the event rate that does not matter"
    )
    conditional_classes: int = Field(
        default=8,
        ge=0,
        le=20,
        description="first classes whose own confidence is judged, 0 for none",
    )


class SamplingForm(Section):
    """What of this model is exported."""

    keep: tuple[str, ...] = Field(
        default=(), max_length=64, description="rules of traces that are always exported"
    )
    rate: float | None = Field(
        default=None, ge=0.0, le=1.0, description="share of the other traces, 0 to 1"
    )
    bytes_per_second: Size | None = Field(
        default=None, ge=1, le=TIB, description="budget of exported bytes per second"
    )


class ProvenanceForm(Section):
    """Which proof of origin the model owes."""

    require: Literal["none", "signed", "verified"] = Field(
        default="none", description="none, signed or verified"
    )


class CostForm(Section):
    """What inferences may cost."""

    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code, such as USD")
    per_inference: float = Field(ge=0.0, le=1e6, description="cost of one inference")
    budget_per_month: float | None = Field(
        default=None, ge=0.0, le=1e12, description="cost of a month that is accepted"
    )
    feature: str | None = Field(
        default=None,
        max_length=256,
        description="attribute key of the span that names what an inference was for",
    )
    features: tuple[Text, ...] = Field(
        default=(),
        max_length=64,
        description='closed set of values of feature; any other value counts as "other"',
    )


class LabelForm(Section):
    """How ground truth is joined."""

    signal: str = Field(
        max_length=64, description="signal with the role prediction that labels are compared with"
    )
    within: Duration = Field(
        default=DAY,
        ge=MINUTE,
        le=30 * DAY,
        description="how long after its inference a label is waited for",
    )
    expect: float = Field(
        default=0.0, ge=0.0, le=1.0, description="share of the traces that owe a label, 0 to 1"
    )


class RolloutForm(Section):
    """What a rollout may spend."""

    allocation: float = Field(
        default=0.25,
        gt=0.0,
        le=1.0,
        description="share of the period's error budget that a rollout may spend, above 0 up to 1",
    )


class ContractForm(Section):
    """The whole contract file."""

    contract: Literal[1] | None = Field(default=None, description="version of this format: 1")
    model: ModelName | None = Field(default=None, description="name of the model")
    match: dict[str, Text] = Field(
        default_factory=dict,
        max_length=8,
        description="attributes of the spans that are inferences of this model, such as "
        "{edgeai.model.name: damage-net}",
    )
    owner: Text | None = Field(
        default=None, description="who answers for this model, such as vision@example.com"
    )
    purpose: Text | None = Field(default=None, description="what the telemetry is used for")
    expires: DateField | None = Field(
        default=None, description="last day on which this contract holds"
    )
    span_names: tuple[Text, ...] = Field(
        default=(), max_length=256, description='span names that leave; any other leaves as "other"'
    )
    event_names: tuple[Text, ...] = Field(
        default=(),
        max_length=256,
        description='event names of log records that leave; any other leaves as "other"',
    )
    metrics: dict[str, MetricForm] = Field(
        default_factory=dict,
        max_length=256,
        description="metrics that leave, by name, with the attributes that signals declare",
    )
    signals: dict[str, SignalForm] = Field(
        default_factory=dict, max_length=64, description="declared attributes of inference spans"
    )
    resource: dict[str, ResourceForm] = Field(
        default_factory=dict, max_length=64, description="declared resource attributes"
    )
    slos: tuple[SloForm, ...] = Field(default=(), max_length=SLOS_MAX, description="objectives")
    drift: DriftForm = Field(default=DriftForm(), description="how drift is judged")
    sampling: SamplingForm = Field(
        default=SamplingForm(), description="what of this model is exported"
    )
    provenance: ProvenanceForm = Field(
        default=ProvenanceForm(), description="which proof of origin the model owes"
    )
    cost: CostForm | None = Field(default=None, description="what inferences may cost")
    labels: LabelForm | None = Field(default=None, description="how ground truth is joined")
    rollouts: RolloutForm = Field(default=RolloutForm(), description="what a rollout may spend")


def describe_contract() -> list[Knob]:
    """List every key of a contract with type, range, default and meaning."""
    return [
        knob._replace(default="required") if knob.path in REQUIRED else knob
        for knob in describe(ContractForm)
    ]
