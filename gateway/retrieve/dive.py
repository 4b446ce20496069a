"""The nouns of retrieval: a dive asks, one command per device fetches.

Law: everything here is frozen data as it is in the table; what is missing is derived from it, and
whatever a dive did not get is named with a reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.batch import AnomalyId, DiveId, Json
from gateway.retrieve.states import FINAL, State, state_of_dive

MANUAL: Final = "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiveRequest:
    """A wish for full traces.

    `kind` is the trigger class that daily budgets count. Without evidence, `device` and the time
    window select. Units: None takes the site's default; from_ns and to_ns Unix nanoseconds by the
    device's clock; not_after_s seconds from now.
    """

    reason: str
    kind: str = MANUAL
    requested_by: str = ""
    anomaly_id: AnomalyId | None = None
    trace_ids: tuple[str, ...] = ()
    device: str | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    max_bytes: int | None = None
    not_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which traces of one device are meant: by id, or by time of writing."""

    trace_ids: tuple[str, ...] = ()
    from_ns: int | None = None
    to_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """One thing that a dive did not get; trace_id is None when it is a device's whole answer."""

    device: str
    trace_id: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One trace of a manifest. `whole` is False when a part of it may be evicted."""

    trace_id: str
    bytes: int
    digest: str
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted:
    """A range that the device says is gone. Units: Unix nanoseconds by its clock."""

    from_ns: int
    to_ns: int
    count: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a device pinned. `digest` is the SHA-256 of the text that it sent."""

    traces: tuple[Listed, ...]
    absent: tuple[Missing, ...]
    evicted: tuple[Evicted, ...]
    bytes: int
    horizon_ns: int | None
    complete: bool
    merkle_root: str
    digest: str
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One device's part of one or more dives.

    Units: times in Unix nanoseconds by the gateway's clock. next_trace counts the manifest's
    traces that are here.
    """

    request_id: str
    home: DiveId  # names the directory of its chunks
    device: str
    kind: str
    selector: Selector
    priority: int
    max_bytes: int
    not_after_ns: int
    created_ns: int
    changed_ns: int
    state: State = State.QUEUED
    reason: str = ""
    attempts: int = 0
    lease_until_ns: int = 0
    manifest: Manifest | None = None
    next_chunk: int = 0
    next_trace: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dive:
    """One question and how far its answer is."""

    id: DiveId
    kind: str
    reason: str
    requested_by: str
    anomaly_id: AnomalyId | None
    created_ns: int
    changed_ns: int
    not_after_ns: int
    max_bytes: int
    refusal: str  # why no command was made, else empty
    unplaced: tuple[Missing, ...]  # asked for and in no command
    commands: tuple[Command, ...]

    @property
    def state(self) -> State:
        """The state that follows from the commands and from what could not be asked."""
        states = [command.state for command in self.commands]
        return state_of_dive(states, unplaced=bool(self.unplaced))

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Everything that a final command did not bring."""
        return self.unplaced + tuple(
            entry
            for command in self.commands
            if command.state in FINAL
            for entry in missing_of(command)
        )


def missing_of(command: Command) -> tuple[Missing, ...]:
    """Name what a final command did not bring and why."""
    device = command.device
    if command.state is State.COMPLETE:
        return tuple(_not_recorded(command))
    manifest = command.manifest
    if manifest is None:
        ids: Sequence[str | None] = command.selector.trace_ids or (None,)
        return tuple(
            Missing(device=device, trace_id=trace_id, reason=command.reason) for trace_id in ids
        )
    unsent = manifest.traces[command.next_trace :]
    found = [
        *manifest.absent,
        *(Missing(device=device, trace_id=one.trace_id, reason=command.reason) for one in unsent),
        *(
            Missing(device=device, trace_id=one.trace_id, reason="evicted")
            for one in manifest.traces[: command.next_trace]
            if not one.whole
        ),
    ]
    if not found:
        found = [Missing(device=device, trace_id=None, reason=command.reason)]
    return tuple(found)


def _not_recorded(command: Command) -> Sequence[Missing]:
    return command.manifest.absent if command.manifest is not None else ()


def manifest_json(manifest: Manifest) -> Mapping[str, Json]:
    """Describe a manifest for the API."""
    return {
        "matched": len(manifest.traces),
        "bytes": manifest.bytes,
        "complete": manifest.complete,
        "verdict": manifest.verdict,
        "merkle_root": manifest.merkle_root,
        "digest": manifest.digest,
        "horizon_ns": manifest.horizon_ns,
        "evicted": [
            {"from_ns": row.from_ns, "to_ns": row.to_ns, "count": row.count, "reason": row.reason}
            for row in manifest.evicted
        ],
    }
