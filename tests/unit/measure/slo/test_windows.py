"""Rings against a recount of all events."""

import numpy as np
import pytest

from gateway.contract.slo import RESOLUTIONS, Resolution
from gateway.measure.slo.windows import Ring, merge, moved, rings_for
from gateway.measure.state import Int64

BOTH = [(0, 0), (1, 1)]


def ring(slos: int = 1, windows_s: tuple[int, ...] = (300, 1800, 21_600)) -> Ring:
    return Ring(Resolution(slot_s=60, window_s_max=21_600), windows_s, slos)


def recount(slots: Int64, bad: Int64, head: int, span: int) -> list[int]:
    inside = (slots <= head) & (slots > head - span)
    return [int((inside & (bad == 0)).sum()), int((inside & (bad == 1)).sum())]


def ones(places: Int64) -> Int64:
    return np.ones(len(places), dtype=np.int64)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sums_equal_a_recount_with_late_and_shuffled_events(seed: int) -> None:
    rng = np.random.default_rng(seed)
    the_ring = ring()
    the_ring.advance(1_000)
    slots: list[int] = []
    bads: list[int] = []
    head = 1_000
    for _ in range(400):
        head += int(rng.choice([0, 0, 1, 1, 2, 40], p=[0.3, 0.2, 0.2, 0.2, 0.08, 0.02]))
        the_ring.advance(head)
        size = int(rng.integers(1, 8))
        late = np.minimum(rng.geometric(0.03, size) - 1, 500)
        slot, bad = head - late, rng.integers(0, 2, size)
        the_ring.add(slot, bad, ones(bad))
        the_ring.put(np.array([[0, 1]]))
        slots.append(head)
        bads.append(1)
        held = late < the_ring.length
        slots += slot[held].tolist()
        bads += bad[held].tolist()
        for at, window_s in enumerate(the_ring.windows_s):
            expected = recount(np.array(slots), np.array(bads), head, window_s // 60)
            assert the_ring.sums[at, 0].tolist() == expected


def test_the_order_of_events_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    slots = 1_000 - rng.integers(0, 400, 500)
    one, two = ring(), ring()
    for each, order in ((one, slots), (two, rng.permutation(slots))):
        each.advance(1_000)
        for slot in order:
            each.add(np.array([slot, slot]), np.array([0, 1]), np.array([1, 1]))
    assert np.array_equal(one.sums, two.sums)
    assert np.array_equal(one.cells, two.cells)


def test_a_jump_clears_the_ring() -> None:
    the_ring = ring()
    the_ring.advance(1_000)
    the_ring.put(np.array([[3, 7]]))
    the_ring.advance(10**9)
    assert not the_ring.cells.any()
    assert not the_ring.sums.any()


def test_the_head_never_goes_back() -> None:
    the_ring = ring()
    the_ring.advance(1_000)
    the_ring.advance(900)
    assert the_ring.head == 1_000


def test_windows_go_to_the_finest_ring_that_holds_them() -> None:
    windows = [120, 300, 900, 1800, 21_600, 86_400, 259_200, 604_800, 2_592_000]
    placed = {each.slot_s: each.windows_s for each in rings_for(windows, 1)}
    assert placed == {
        10: (120, 300, 900),
        60: (1800, 21_600),
        300: (86_400, 259_200),
        3600: (604_800, 2_592_000),
    }
    assert [each.slot_s for each in RESOLUTIONS] == list(placed)


def test_history_is_in_order_of_time() -> None:
    the_ring = ring()
    the_ring.advance(1_000)
    the_ring.add(np.array([998, 998, 1_000, 1_000]), np.array([0, 1, 0, 1]), np.arange(1, 5))
    starts, cells = the_ring.history(300, 0)
    assert (starts // 60_000_000_000).tolist() == [996, 997, 998, 999, 1_000]
    assert cells.tolist() == [[0, 0], [0, 0], [1, 2], [0, 0], [3, 4]]


def filled(seed: int, head: int) -> Ring:
    rng = np.random.default_rng(seed)
    the_ring = ring(slos=2)
    the_ring.advance(head)
    slots = head - rng.integers(0, 300, 50)
    the_ring.add(slots, rng.integers(0, 4, 50), rng.integers(1, 5, 50))
    return the_ring


def test_the_state_comes_back_exactly() -> None:
    the_ring = filled(1, 5_000)
    other = ring(slos=2)
    other.restore(the_ring.state(), BOTH)
    assert np.array_equal(other.cells, the_ring.cells)
    assert np.array_equal(other.sums, the_ring.sums)


@pytest.mark.parametrize("longest_s", [1800, 43_200])
def test_a_ring_of_another_length_takes_the_state(longest_s: int) -> None:
    the_ring = filled(1, 5_000)
    other = Ring(Resolution(slot_s=60, window_s_max=43_200), (300, longest_s), 2)
    other.restore(the_ring.state(), BOTH)
    assert np.array_equal(other.sums[0], the_ring.sums[0])
    assert np.array_equal(other.sums[1], the_ring.sums[1 if longest_s == 1800 else 2])


@pytest.mark.parametrize("second_head", [5_000, 5_007, 4_900, 9_000])
def test_merging_adds_what_both_would_show_at_the_later_head(second_head: int) -> None:
    one, two = filled(1, 5_000), filled(2, second_head)
    later = max(5_000, second_head)
    joined = ring(slos=2)
    joined.restore(merge(moved(one.state(), later), moved(two.state(), later), [0, 1]), BOTH)
    one.advance(later)
    two.advance(later)
    assert np.array_equal(joined.sums, one.sums + two.sums)
