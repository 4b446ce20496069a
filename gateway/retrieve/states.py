"""The states of a command and of a dive, and the only steps between them.

Law: a final state is never left; a later wish is a new request. Everything that is not in
`STEPS` raises.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from gateway.errors import ConflictError


class State(StrEnum):
    """Where a command, or a whole dive, is."""

    QUEUED = "queued"  # durable, not yet confirmed by the device
    DELIVERED = "delivered"  # the device confirmed the request id
    PINNED = "pinned"  # the manifest is here
    STREAMING = "streaming"  # the first chunk is durable
    COMPLETE = "complete"  # everything that matches is here, proven
    PARTIAL = "partial"  # something is missing, and it is said what and why
    EXPIRED = "expired"  # time ran out before any data moved
    REFUSED = "refused"  # policy of the gateway or of the device


STEPS: Final[Mapping[State, frozenset[State]]] = {
    State.QUEUED: frozenset({State.DELIVERED, State.EXPIRED, State.REFUSED}),
    State.DELIVERED: frozenset({State.PINNED, State.REFUSED, State.QUEUED}),
    State.PINNED: frozenset({State.STREAMING, State.COMPLETE, State.PARTIAL}),
    State.STREAMING: frozenset({State.COMPLETE, State.PARTIAL, State.PINNED}),
    State.COMPLETE: frozenset(),
    State.PARTIAL: frozenset(),
    State.EXPIRED: frozenset(),
    State.REFUSED: frozenset(),
}

FINAL: Final = frozenset(state for state, steps in STEPS.items() if not steps)
OPEN: Final = frozenset(STEPS) - FINAL

# From least to most advanced; an open dive is as far as its most advanced open command.
_PROGRESS: Final = (State.QUEUED, State.DELIVERED, State.PINNED, State.STREAMING)


def step(before: State, after: State) -> State:
    """Take one step.

    Raises ConflictError when the table does not allow it.
    """
    if after not in STEPS[before]:
        raise ConflictError(f"a {before} command cannot become {after}")
    return after


def state_of_dive(commands: Collection[State], *, unplaced: bool) -> State:
    """Derive a dive's state from its commands; without any it is refused.

    `unplaced` is whether something was asked for that no command could ask a device.
    """
    if not commands:
        return State.REFUSED
    still_open = [state for state in commands if state in OPEN]
    if still_open:
        return max(still_open, key=_PROGRESS.index)
    if set(commands) == {State.COMPLETE}:
        return State.PARTIAL if unplaced else State.COMPLETE
    if len(set(commands)) == 1:
        return next(iter(commands))
    if State.COMPLETE in commands or State.PARTIAL in commands:
        return State.PARTIAL
    return State.EXPIRED
