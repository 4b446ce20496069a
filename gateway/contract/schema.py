"""A model's inference contract, as the other rooms read it.

Law: an instance is valid. Only `load` makes one from a file, and it refuses everything that
`weir check` refuses. Durations are float seconds, sizes int bytes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from gateway.batch import Severity
from gateway.config.keep import KeepRule

__all__ = [
    "Accumulator",
    "Action",
    "BaselineFile",
    "BurnWindow",
    "Contract",
    "Cost",
    "DriftRule",
    "Indicator",
    "KeepRule",
    "LabelRule",
    "MetricRule",
    "ProvenanceRequirement",
    "ProvenanceRule",
    "ResourceRule",
    "Role",
    "RolloutRule",
    "SamplingRule",
    "Season",
    "Signal",
    "SignalType",
    "Slo",
]


class Action(StrEnum):
    """What happens to a field on its way to an audience, weakest first."""

    PASS = "pass"  # noqa: S105  an action, not a password
    TOKEN = "token"  # noqa: S105
    DROP = "drop"


class SignalType(StrEnum):
    """Type of the attribute that carries a signal."""

    DOUBLE = "double"
    INT = "int"
    BOOL = "bool"
    ENUM = "enum"
    STRING = "string"


NUMERIC: Final = frozenset({SignalType.DOUBLE, SignalType.INT})


# Resource attributes of which one must leave with a metric, so that each device keeps its series.
STREAM_KEYS: Final = frozenset(
    {"device.id", "service.instance.id", "host.id", "host.name", "k8s.pod.uid"}
)


class Role(StrEnum):
    """What a signal means for the measurements and for privacy."""

    CONFIDENCE = "confidence"  # probability that the model gives its own answer
    PREDICTION = "prediction"  # the answer
    FEATURE = "feature"  # an input, or a quantity computed from it
    OUTCOME = "outcome"  # whether the inference did its job
    IDENTIFIER = "identifier"  # names a person, account or thing
    TEXT = "text"  # free text


class Indicator(StrEnum):
    """What an SLO counts as good."""

    SUCCESS = "success"  # the inference did not fail
    LATENCY = "latency"  # the inference took no longer than the threshold
    COLD_START = "cold_start"  # the inference did not have to load its model first
    FRESHNESS = "freshness"  # a device, each minute: heard within the threshold
    DEPLOYMENT = "deployment"  # a device of a rollout: ended up with the new version
    LABEL_LAG = "label_lag"  # a label that is due: came within the threshold
    INTEGRITY = "integrity"  # zero tolerance: nothing was violated
    BANDWIDTH = "bandwidth"  # bytes that leave, within the allowance of the window


class Accumulator(StrEnum):
    """How evidence of drift adds up over ticks.

    Shiryaev-Roberts spends its budget and is the faster one. CUSUM alarms several times less often
    than its budget and finds changes up to a quarter later: for many quiet streams.
    """

    SHIRYAEV_ROBERTS = "shiryaev-roberts"
    CUSUM = "cusum"


class Season(StrEnum):
    """What rhythm the signals of a model have, beside none."""

    NONE = "none"
    HOUR_OF_WEEK = "hour-of-week"


class ProvenanceRequirement(StrEnum):
    """What a model must show before it counts as known."""

    NONE = "none"
    SIGNED = "signed"
    VERIFIED = "verified"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One declared attribute of an inference span.

    Units: range is (lowest, highest), both included. `values` is the closed set of an enum.
    """

    name: str
    attribute: str
    type: SignalType
    role: Role
    range: tuple[float, float] | None = None
    values: tuple[str, ...] = ()
    export: Action = Action.DROP
    site: Action = Action.PASS


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRule:
    """What happens to one resource attribute."""

    export: Action = Action.DROP
    site: Action = Action.PASS


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRule:
    """One metric that leaves, with the unit that its points must have."""

    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnWindow:
    """One pair of windows. Units: seconds. It fires when the burn rate of both is above factor."""

    long_s: float
    short_s: float
    factor: float
    severity: Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """One objective.

    Units: window and threshold in seconds; objective a share in (0, 1), 1 for integrity, where
    nothing may go wrong, and for bandwidth, which has an allowance instead, in bytes for each
    window. `pairs` are its own window pairs; empty means the table of its indicator.
    """

    name: str
    indicator: Indicator
    objective: float
    window: float
    threshold: float | None = None
    allowance: int | None = None
    pairs: tuple[BurnWindow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineFile:
    """A file of baselines as it was when the contract was loaded."""

    path: Path
    content: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """Sha256 hex of the content."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRule:
    """How drift is judged.

    Units: tolerance is the root of a PSI below which nothing is alarmed; false_alarms_per_s is the
    budget of false alarms of one signal; rate_tolerance is the relative change of the event rate
    below which nothing is alarmed, None when the rate is not judged; conditional_classes is how
    many classes have a confidence of their own judged, the first ones that the contract lists.
    """

    baseline: BaselineFile | Literal["learn"] = "learn"
    tolerance: float = 0.1
    false_alarms_per_s: float = 1 / (30 * 86_400)
    accumulator: Accumulator = Accumulator.SHIRYAEV_ROBERTS
    season: Season = Season.NONE
    rate_tolerance: float | None = None
    conditional_classes: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRule:
    """What of this model is exported. None means what the site says.

    Units: rate is a share in [0, 1].
    """

    keep: tuple[KeepRule, ...] = ()
    rate: float | None = None
    bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenanceRule:
    """Which proof of origin the model owes."""

    require: ProvenanceRequirement = ProvenanceRequirement.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What inferences may cost. Units: both numbers in `currency`.

    `feature` is the span attribute that names what an inference was for, `features` its closed set
    of values; any other value counts as "other".
    """

    currency: str
    per_inference: float
    budget_per_month: float | None = None
    feature: str | None = None
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """How ground truth is joined.

    `signal` names the prediction that a label is compared with. Units: `within` seconds from the
    inference to its label; `expect` the share of traces, in [0, 1], that owe one.
    """

    signal: str
    within: float = 86_400.0
    expect: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRule:
    """How much of the error budget a rollout may spend, if it does not say so itself.

    Units: allocation is a share of the period's budget in (0, 1].
    """

    allocation: float = 0.25


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One model's contract.

    `digest` is the sha256 hex of the canonical form, see `form.digest`; `source` is the path of
    the file as it was given, for messages only.
    """

    model: str
    match: Mapping[str, str]
    owner: str
    purpose: str
    expires: date
    span_names: tuple[str, ...] = ()
    event_names: tuple[str, ...] = ()  # of log records
    metrics: Mapping[str, MetricRule] = field(default_factory=_empty)
    signals: Mapping[str, Signal]
    resource: Mapping[str, ResourceRule] = field(default_factory=_empty)
    slos: tuple[Slo, ...] = ()
    drift: DriftRule = DriftRule()
    sampling: SamplingRule = SamplingRule()
    provenance: ProvenanceRule = ProvenanceRule()
    cost: Cost | None = None
    labels: LabelRule | None = None
    rollouts: RolloutRule = RolloutRule()
    digest: str
    source: str
