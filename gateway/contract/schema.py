"""A model's inference contract, as the other rooms read it.

Law: an instance is valid. Only `load` makes one from a file, and it refuses everything that
`weir check` refuses. Durations are float seconds, sizes int bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from gateway.config.keep import KeepRule

__all__ = [
    "Action",
    "Contract",
    "Cost",
    "DriftRule",
    "Indicator",
    "KeepRule",
    "MetricRule",
    "ProvenanceRequirement",
    "ProvenanceRule",
    "ResourceRule",
    "Role",
    "SamplingRule",
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
class Slo:
    """One objective. Units: window and threshold in seconds, objective a share in (0, 1)."""

    name: str
    indicator: Indicator
    objective: float
    window: float
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRule:
    """How drift is judged.

    Units: tolerance is a distance of PSI below which nothing is alarmed; false_alarms_per_s is the
    budget of false alarms of one signal.
    """

    baseline: Path | Literal["learn"] = "learn"
    tolerance: float = 0.1
    false_alarms_per_s: float = 1 / (30 * 86_400)


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
    """What inferences may cost. Units: both numbers in `currency`."""

    currency: str
    per_inference: float
    budget_per_month: float | None = None


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
    digest: str
    source: str
