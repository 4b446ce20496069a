"""What the API may ask of rollouts and labels, as plain data.

Law: as in `sources`: field names are the JSON names, `_ns` is Unix nanoseconds, `_s` seconds,
`_ratio` 0 to 1 unless said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpend:
    """What a rollout has spent of one objective.

    Units: allocation_ratio and spent_ratio are parts of the period's error budget, the latter may
    be above 1; excess_events are bad events that the control would not have had. `confident` says
    that a control ran beside most of it.
    """

    slo: str
    allocation_ratio: float
    spent_ratio: float
    rollout_bad: int
    rollout_events: int
    control_bad: int
    control_events: int
    excess_events: float
    confident: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStatus:
    """One rollout: planned, active, warned, halted or ended.

    `succeeded` and `failed` are devices, `devices` is how many were planned.
    """

    id: str
    model: str
    version: str
    previous: str
    kind: str
    state: str
    outcome: str
    start_ns: int
    end_ns: int | None
    deadline_s: int | None
    devices: int | None
    succeeded: int
    failed: int
    spends: tuple[RolloutSpend, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRollouts:
    """How often a model was deployed and retrained in the last 30 days.

    Units: succeeded and failed are devices, success_ratio is None without any.
    """

    model: str
    succeeded: int
    failed: int
    success_ratio: float | None
    retrained: int
    versions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutsStatus:
    """All rollouts, the newest first; `refused` counts what was declared and not used."""

    rollouts: tuple[RolloutStatus, ...]
    models: tuple[ModelRollouts, ...]
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPage:
    """A page of rollouts, the newest first, with the figures of all models."""

    items: tuple[RolloutStatus, ...]
    total: int
    models: tuple[ModelRollouts, ...]
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutDeclared:
    """What was declared of a rollout is on disk; `state` is where it is, or will be in a moment."""

    id: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselinePromoted:
    """A promotion is on disk; `state` is frozen, or candidate for a moment."""

    id: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsDeclared:
    """How many labels are on disk."""

    labels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesDismissed:
    """How many dismissals are on disk."""

    devices: int


class Declarations(Protocol):
    """Rollouts as they are known, and the way in for what people declare.

    `unknown` lists the names that no device has.

    `declare` takes a log request and returns when it is durable.
    Raises: RequestError when the intake refuses it.
    """

    def models(self) -> Sequence[str]: ...
    def unknown(self, devices: Sequence[str]) -> Sequence[str]: ...
    def rollouts(self) -> RolloutsStatus: ...
    async def declare(self, body: bytes) -> None: ...
