"""What log records may declare: rollouts, labels, violations, loads, dismissals, batch jobs.

Law: nouns only; `events` reads and writes them. Units: at_ns Unix nanoseconds; `device` is who said
it, empty for an anonymous sender that names no device.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

Scalar = str | int | float | bool


class RolloutKind(StrEnum):
    """Why a version is rolled out."""

    DEPLOY = "deploy"
    RETRAIN = "retrain"


class RolloutOutcome(StrEnum):
    """How a rollout ended."""

    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStart:
    """A version begins to replace another.

    `previous` is the control's version, empty where any other version is. Units: allocation is a
    share of the period's error budget in (0, 1]; deadline_s seconds from the start; devices is
    how many are planned.
    """

    at_ns: int
    device: str = ""
    rollout: str
    model: str
    version: str
    previous: str = ""
    allocation: float | None = None
    deadline_s: int | None = None
    devices: int | None = None
    kind: RolloutKind = RolloutKind.DEPLOY


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutEnd:
    """A rollout is over."""

    at_ns: int
    device: str = ""
    rollout: str
    outcome: RolloutOutcome = RolloutOutcome.COMPLETED


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOutcome:
    """One device of a rollout has the new version for good, or has failed to get it."""

    at_ns: int
    device: str
    rollout: str
    succeeded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The truth about one trace. Shape: trace_id 16 bytes, not all zero."""

    at_ns: int
    device: str = ""
    trace_id: bytes
    value: Scalar
    model: str = ""

    @property
    def halves(self) -> tuple[int, int]:
        """The trace id as the two columns of a batch hold it."""
        return int.from_bytes(self.trace_id[:8]), int.from_bytes(self.trace_id[8:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A model was not what it claimed to be; `error` says what was violated."""

    at_ns: int
    device: str = ""
    model: str
    version: str = ""
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoad:
    """A device loaded a model; `error` is empty when it could."""

    at_ns: int
    device: str = ""
    model: str
    version: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """A person has seen an anomaly."""

    at_ns: int
    device: str = ""
    anomaly: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A person makes a candidate the baseline of its signal."""

    at_ns: int
    device: str = ""
    baseline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismissal:
    """A device was taken out of service: nobody waits for it until it is heard again."""

    at_ns: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJob:
    """What a job that ran inferences in bulk has cost. Units: cost in `currency`."""

    at_ns: int
    device: str = ""
    job: str
    model: str
    version: str = ""
    cost: float
    currency: str
    inferences: int
    duration_s: float


Event = (
    RolloutStart
    | RolloutEnd
    | DeviceOutcome
    | Label
    | Violation
    | ModelLoad
    | Acknowledgement
    | Promotion
    | Dismissal
    | BatchJob
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What one parcel declares, in the order of its records, and what of it could not be used.

    Units: unreadable is records by `Unreadable`.
    """

    starts: tuple[RolloutStart, ...] = ()
    ends: tuple[RolloutEnd, ...] = ()
    outcomes: tuple[DeviceOutcome, ...] = ()
    labels: tuple[Label, ...] = ()
    violations: tuple[Violation, ...] = ()
    loads: tuple[ModelLoad, ...] = ()
    acknowledgements: tuple[Acknowledgement, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    dismissals: tuple[Dismissal, ...] = ()
    jobs: tuple[BatchJob, ...] = ()
    unreadable: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def __bool__(self) -> bool:
        return self != NOTHING

    def __iter__(self) -> Iterator[Event]:
        yield from self.starts
        yield from self.ends
        yield from self.outcomes
        yield from self.labels
        yield from self.violations
        yield from self.loads
        yield from self.acknowledgements
        yield from self.promotions
        yield from self.dismissals
        yield from self.jobs


NOTHING: Final = Events()
