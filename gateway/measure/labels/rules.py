"""What labels are made of: their fates, the rules by which they are joined, what falls due.

Law: nouns, and how a contract's rule is compiled to one. Nothing here changes.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from gateway.contract.plan import Plan
from gateway.contract.schema import Contract, Indicator, LabelRule
from gateway.measure.drift.lanes import Lane
from gateway.measure.labels.classes import Classes, classes_of
from gateway.measure.labels.predictions import RANGE
from gateway.measure.labels.scores import maybe_confidence
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Int64
from gateway.tables import Bool

# Upper edges of the lags that are counted, the rest above them.
LAG_EDGES_S: Final = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400, 2 * 86_400)


class Fate(StrEnum):
    """What became of a label."""

    COUNTED = "counted"  # compared with its prediction
    DUPLICATE = "duplicate"  # the trace has this very label
    CHANGED = "changed"  # replaced the label that the trace had
    NO_PREDICTION = "no_prediction"  # the inference said nothing that it could be compared with
    UNKNOWN_CLASS = "unknown_class"  # it is no class of the contract's prediction
    UNKNOWN_TRACE = "unknown_trace"  # nobody has seen its trace for a day
    NO_CONTRACT = "no_contract"  # no contract with labels, or none of the model that it names
    AMBIGUOUS = "ambiguous"  # it names no model, and its trace has inferences of several
    SAMPLED_OUT = "sampled_out"  # its trace was left out for want of room
    WAITING_FULL = "waiting_full"  # pushed out by newer ones before its trace came


class Told(Protocol):
    """A label as it was declared. `halves` are the words of the trace id, `model` may be empty."""

    @property
    def halves(self) -> tuple[int, int]: ...
    @property
    def value(self) -> str | float | bool: ...
    @property
    def model(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How one contract's labels are joined.

    Units: ends_ns are the deadlines after an inference, ascending, the last one that of the
    contract itself, and slos the objectives that each one is of; expected is the least randomness
    of a trace that owes a label; confidence is where it is counted how sure the model was.
    """

    contract: int
    model: str
    classes: Classes
    confidence: Lane | None
    ends_ns: tuple[int, ...]
    slos: tuple[tuple[str, ...], ...]
    expected: int

    @property
    def within_ns(self) -> int:
        """How long a label is waited for."""
        return self.ends_ns[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Labels that fell due for some objectives of a contract, by their names.

    Shape: event_ns and bad (labels,). Units: event_ns are the deadlines.
    """

    contract: int
    slos: tuple[str, ...]
    event_ns: Int64
    bad: Bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A prediction whose truth has come, for the first time or anew.

    `score` is its confidence, see `scores`; `was_right` is what the label that it had before said,
    None for none.
    """

    group: int
    contract: int
    score: int
    is_right: bool
    was_right: bool | None
    arrival_ns: int


@dataclass(slots=True, kw_only=True)
class Lag:
    """How late the labels of one contract were: by edge, and good and bad ones that were due."""

    lags: list[int]
    good: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A label that was told by itself."""

    halves: tuple[int, int]
    value: str | float | bool
    model: str


def rule_of(plan: Plan, index: int, contract: Contract, labels: LabelRule) -> Rule:
    """Compile how a contract's labels are joined."""
    signal = contract.signals[labels.signal]
    within_ns = round(labels.within * SECOND_NS)
    slos: dict[int, list[str]] = {within_ns: []}
    for slo in contract.slos:
        if slo.indicator is Indicator.LABEL_LAG:
            # Nothing is known of later labels, so a contract with a longer one is refused.
            end_ns = within_ns if slo.threshold is None else round(slo.threshold * SECOND_NS)
            slos.setdefault(min(end_ns, within_ns), []).append(slo.name)
    return Rule(
        contract=index,
        model=contract.model,
        classes=classes_of(contract, signal, plan.slot_of[signal.attribute]),
        confidence=maybe_confidence(contract, plan),
        ends_ns=tuple(sorted(slos)),
        slos=tuple(tuple(slos[end_ns]) for end_ns in sorted(slos)),
        expected=threshold_of(labels.expect),
    )


def threshold_of(share: float) -> int:
    """Return the least randomness of the traces of a share; none has RANGE.

    Source: OpenTelemetry, "TraceState: Probability Sampling".
    """
    threshold = round((1 - share) * RANGE)
    if threshold == RANGE and share > 0:
        # 1 - share has no room for a share that is this small.
        return RANGE - max(1, round(share * RANGE))
    return threshold
