"""Counts of the last minutes: naive recounts in any order, merged from any number of parts."""

import numpy as np
import pytest

from gateway.measure.devices.minutes import AHEAD, Minutes, merge
from tests.unit.measure.build import SECOND_NS, START_NS

MINUTE_NS = 60 * SECOND_NS
NAMES = ("a", "b", "")
WINDOW = 10


def drawn(seed: int, events: int = 3_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    event_ns = START_NS + rng.integers(-20 * 60, 2 * 60, events) * SECOND_NS
    odd = rng.random(events) < 0.02
    event_ns[odd] = rng.choice([0, -(10**18), 4 * 10**18], int(odd.sum()))
    return rng.integers(0, 3, events), rng.integers(0, 2, events), event_ns


def recount(row: np.ndarray, column: np.ndarray, event_ns: np.ndarray) -> np.ndarray:
    found = np.zeros((3, 2), dtype=np.int64)
    head = START_NS // MINUTE_NS
    for each in zip(row.tolist(), column.tolist(), event_ns.tolist(), strict=True):
        if each[2] // MINUTE_NS > head - WINDOW:
            found[each[0], each[1]] += 1
    return found


def test_the_window_is_that_of_a_recount_in_any_order_and_any_parts(seed: int) -> None:
    row, column, event_ns = drawn(seed)
    expected = recount(row, column, event_ns)
    rng = np.random.default_rng(seed)
    for parts in (1, 4):
        order = rng.permutation(len(row))
        states = []
        for some in np.array_split(order, parts):
            one = Minutes(NAMES, WINDOW, 2)
            one.turn(START_NS)
            one.add(row[some], column[some], event_ns[some])
            states.append(one.state())
        total = states[0]
        for state in states[1:]:
            total = merge(total, state)
        joined = Minutes(NAMES, WINDOW, 2)
        joined.restore(total)
        assert np.array_equal(joined.recent(), expected)
        assert joined.ever.sum() == len(row)


def test_minutes_leave_the_window_one_by_one(seed: int) -> None:
    row, column, event_ns = drawn(seed)
    one = Minutes(NAMES, WINDOW, 2)
    one.turn(START_NS)
    one.add(row, column, event_ns)
    ahead = event_ns // MINUTE_NS > START_NS // MINUTE_NS + AHEAD
    event_ns[ahead] = START_NS + AHEAD * MINUTE_NS
    for minute in range(WINDOW + AHEAD + 2):
        head = START_NS // MINUTE_NS + minute
        one.turn(START_NS + minute * MINUTE_NS)
        kept = event_ns // MINUTE_NS > head - WINDOW
        expected = np.zeros((3, 2), dtype=np.int64)
        np.add.at(expected, (row[kept], column[kept]), 1)
        assert np.array_equal(one.recent(), expected)


def test_the_oldest_minute_with_a_count_is_found() -> None:
    one = Minutes(NAMES, WINDOW, 2)
    one.turn(START_NS)
    assert one.oldest_ns(0, (0, 1)) == 0
    times = START_NS - np.array([8, 3, 5]) * MINUTE_NS
    one.add(np.array([0, 0, 1]), np.array([0, 1, 1]), times)
    assert one.oldest_ns(0, (0, 1)) == START_NS - 8 * MINUTE_NS
    assert one.oldest_ns(0, (1,)) == START_NS - 3 * MINUTE_NS
    assert one.oldest_ns(2, (0, 1)) == 0


@pytest.mark.parametrize("jump_minutes", [WINDOW + AHEAD, 10_000])
def test_a_long_jump_empties_the_window(jump_minutes: int) -> None:
    one = Minutes(NAMES, WINDOW, 2)
    one.turn(START_NS)
    one.add(np.array([0]), np.array([0]), np.array([START_NS]))
    one.turn(START_NS + jump_minutes * MINUTE_NS)
    assert not one.recent().any()
    assert one.ever[0, 0] == 1


def test_names_that_are_not_counted_any_more_are_left_out() -> None:
    one, other = Minutes(NAMES, WINDOW, 2), Minutes(("", "b", "c"), WINDOW, 2)
    one.turn(START_NS)
    one.add(np.array([0, 1, 2]), np.array([0, 1, 0]), np.full(3, START_NS))
    other.restore(one.state())
    assert other.recent().tolist() == [[1, 0], [0, 1], [0, 0]]
