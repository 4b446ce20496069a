"""What is put in the stage is taken out once, at its own slot."""

import numpy as np
import pytest

from gateway.measure.slo.stage import Stage
from gateway.measure.state import Int64

AHEAD = 18
HEAD = 190_000_000
# Two SLOs see the first of two contracts, the last one sees none.
SEES = np.array([0, 0, 2])


def stage(head: int = HEAD) -> Stage:
    the_stage = Stage(SEES, 2, AHEAD)
    the_stage.take_to(head)
    return the_stage


def put(the_stage: Stage, *slots: int) -> None:
    """Put in two inferences of each contract, of which the second SLO has one bad, and a tick."""
    for slot in slots:
        the_stage.see(np.full(4, slot), np.array([0, 0, 1, 1]))
        the_stage.mark(np.array([slot, slot]), np.array([1, 3]))
        the_stage.count(np.array([slot]), np.array([2]), np.array([True]))


EXPECTED = [[2, 0], [1, 1], [0, 1]]


def taken(found: tuple[Int64, Int64]) -> dict[int, list[list[int]]]:
    return dict(zip(found[0].tolist(), found[1].tolist(), strict=True))


def test_late_slots_are_taken_once() -> None:
    the_stage = stage()
    slots = (the_stage.oldest, HEAD - 3, HEAD)
    put(the_stage, *slots)
    assert taken(the_stage.take_late()) == dict.fromkeys(slots, EXPECTED)
    assert taken(the_stage.take_late()) == {}
    assert not the_stage.waiting().any()


def test_what_waits_is_taken_when_the_head_passes_it() -> None:
    the_stage = stage()
    put(the_stage, HEAD + 1, HEAD + 3, the_stage.newest)
    assert the_stage.newest == HEAD + AHEAD
    assert taken(the_stage.take_late()) == {}
    waiting = the_stage.waiting().tolist()
    assert [at for at, each in enumerate(waiting) if each == EXPECTED] == [0, 2, AHEAD - 1]
    assert taken(the_stage.take_to(HEAD + 2)) == {HEAD + 1: EXPECTED}
    assert taken(the_stage.take_to(HEAD + 3)) == {HEAD + 3: EXPECTED}
    assert taken(the_stage.take_late()) == {}


@pytest.mark.parametrize("steps", [AHEAD, 1000, 10**7])
def test_a_jump_passes_everything_that_waits(steps: int) -> None:
    the_stage = stage()
    slots = (HEAD + 1, HEAD + AHEAD)
    put(the_stage, *slots)
    assert taken(the_stage.take_to(HEAD + steps)) == dict.fromkeys(slots, EXPECTED)
    assert not the_stage.waiting().any()


def test_what_waited_comes_back() -> None:
    the_stage, other = stage(), Stage(SEES, 2, AHEAD)
    put(the_stage, HEAD + 2)
    other.restore(HEAD, the_stage.waiting(), [(0, 0), (1, 1), (2, 2)])
    assert np.array_equal(other.waiting(), the_stage.waiting())
    assert taken(other.take_to(HEAD + 5)) == {HEAD + 2: EXPECTED}
