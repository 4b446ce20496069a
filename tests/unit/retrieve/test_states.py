"""The table of steps against a copy written from the description of the states."""

from itertools import product

import pytest

from gateway.errors import ConflictError
from gateway.retrieve.states import FINAL, OPEN, State, state_of_dive, step

ALLOWED = {
    ("queued", "delivered"),
    ("queued", "expired"),
    ("queued", "refused"),
    ("delivered", "pinned"),
    ("delivered", "refused"),
    ("delivered", "queued"),
    ("pinned", "streaming"),
    ("pinned", "complete"),
    ("pinned", "partial"),
    ("streaming", "complete"),
    ("streaming", "partial"),
    ("streaming", "pinned"),
}


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_only_the_described_steps_are_taken(before: State, after: State) -> None:
    if (before.value, after.value) in ALLOWED:
        assert step(before, after) is after
    else:
        with pytest.raises(ConflictError):
            step(before, after)


def test_final_states_are_those_without_a_step() -> None:
    assert {State.COMPLETE, State.PARTIAL, State.EXPIRED, State.REFUSED} == FINAL
    assert set(State) == OPEN | FINAL


@pytest.mark.parametrize(
    ("commands", "unplaced", "state"),
    [
        ([], False, State.REFUSED),
        ([State.COMPLETE, State.COMPLETE], False, State.COMPLETE),
        ([State.COMPLETE], True, State.PARTIAL),
        ([State.COMPLETE, State.EXPIRED], False, State.PARTIAL),
        ([State.EXPIRED, State.EXPIRED], False, State.EXPIRED),
        ([State.EXPIRED, State.REFUSED], False, State.EXPIRED),
        ([State.REFUSED], True, State.REFUSED),
        ([State.PARTIAL, State.QUEUED], False, State.QUEUED),
        ([State.QUEUED, State.STREAMING, State.PINNED], False, State.STREAMING),
    ],
)
def test_a_dive_is_what_its_commands_are(
    commands: list[State], unplaced: bool, state: State
) -> None:
    assert state_of_dive(commands, unplaced=unplaced) is state
