"""Blocks of recent ticks: nothing is lost, ages double, times are found again."""

import numpy as np
import pytest

from gateway.measure.drift.recent import BLOCKS, Recent
from gateway.measure.state import Int64

PLACES = 3
START_NS = 1_900_000_000_000_000_000
TICK_NS = 10_000_000_000


def empty(rows: int) -> Recent:
    recent = Recent(
        counts=np.zeros((rows, BLOCKS, PLACES), dtype=np.int32),
        end_ns=np.zeros((rows, BLOCKS + 1), dtype=np.int64),
        ticks=np.zeros((rows, BLOCKS), dtype=np.uint8),
    )
    recent.end_ns[:, 0] = START_NS
    return recent


def filled(ticks: int) -> tuple[Recent, Int64]:
    recent = empty(2)
    counts = np.random.default_rng(1).integers(0, 9, (ticks, 2, PLACES))
    for number in range(1, ticks + 1):
        end = np.full(2, START_NS + number * TICK_NS)
        recent.add(np.arange(2), counts[number - 1], end, np.full(2, number))
    return recent, counts


@pytest.mark.parametrize("ticks", [1, 2, 3, 7, 16, 31, 32, 33, 63, 64, 100, 257])
def test_blocks_are_the_newest_ticks_and_ages_double(ticks: int) -> None:
    recent, counts = filled(ticks)
    held = recent.ticks[0].tolist()
    assert held[0] == 1
    total = sum(held)
    assert total == ticks if ticks < 2 ** (BLOCKS - 1) else 32 <= total <= 63
    at = ticks
    for block, size in enumerate(held):
        assert size in (2**block, 2 ** max(block - 1, 0)) or at == size or not size
        assert np.array_equal(recent.counts[1, block], counts[at - size : at, 1].sum(axis=0))
        assert size == 0 or recent.end_ns[0, block] == START_NS + at * TICK_NS
        at -= size


def test_a_window_is_met_to_half_of_its_length_and_to_a_fifth_on_average() -> None:
    off = []
    for ticks in range(1, 200):
        recent, counts = filled(ticks)
        known = int(recent.ticks[0].sum())
        after = np.cumsum(counts[::-1, 0], axis=0)
        for age in range(1, min(known, 32) + 1):
            found = recent.since(0, START_NS + (ticks - age) * TICK_NS)
            same = 1 + np.flatnonzero((after == found).all(axis=1))
            off.append(np.abs(same - age).min() / age)
            assert age > 1 or off[-1] == 0
    assert max(off) <= 0.5
    assert np.mean(off) <= 0.2


def test_times_of_even_ticks_are_found_again() -> None:
    recent, _ = filled(50)
    for age in range(int(recent.ticks[0].sum()) + 1):
        assert recent.time_ns(0, age) == START_NS + (50 - age) * TICK_NS
    oldest = START_NS + (50 - int(recent.ticks[0].sum())) * TICK_NS
    assert recent.time_ns(0, 10_000) == oldest


def test_rows_with_different_ages_do_not_mix() -> None:
    recent = empty(2)
    for number in range(1, 41):
        rows = np.arange(2) if number % 2 else np.array([1])
        numbers = np.array([(number + 1) // 2, number]) if number % 2 else np.array([number])
        end = np.full(len(rows), START_NS + number)
        counts = np.stack([np.full(PLACES, 1 + row) for row in rows])
        recent.add(rows, counts, end, numbers)
    assert recent.ticks.sum(axis=1).tolist() == [20, 40]
    assert recent.counts.sum(axis=(1, 2)).tolist() == [20 * PLACES, 40 * 2 * PLACES]


def test_the_first_tick_counts_where_its_begin_is_unknown() -> None:
    recent = empty(1)
    recent.end_ns[:] = 0
    recent.add(np.array([0]), np.ones((1, PLACES), dtype=np.int64), np.array([9]), np.array([1]))
    assert recent.since(0, 8).tolist() == [1] * PLACES
    assert recent.since(0, 9).tolist() == [0] * PLACES
