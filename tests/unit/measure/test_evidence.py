"""Which rows are kept and which traces are picked."""

import numpy as np
import pytest

from gateway.measure.evidence import Ring, Sample, spread, thinned


def sample(traces: list[int], devices: list[int]) -> Sample:
    size = len(traces)
    return Sample(
        ids=np.array([[0, trace] for trace in traces], dtype=np.uint64).reshape(size, 2),
        device=np.array(devices, dtype=np.int64),
        event_ns=np.arange(size, dtype=np.int64),
        duration_ns=np.zeros(size, dtype=np.int64),
        failed=np.zeros(size, dtype=np.bool_),
        bins=np.zeros((size, 1), dtype=np.int16),
        inclusion=np.full(size, -1, dtype=np.int16),
    )


@pytest.mark.parametrize("seed", [0, 1, 7, 1_000_003])
def test_as_many_rows_as_asked_for_are_chosen_of_each_series(seed: int) -> None:
    rng = np.random.default_rng(1)
    for series in (
        rng.integers(0, 5, 200),
        np.zeros(50, dtype=np.int64),
        np.array([3], dtype=np.int64),
        rng.integers(0, 70_000, 300),
        np.repeat([1, 2, 3], [8, 9, 7]),
    ):
        chosen, rank = thinned(series, int(series.max()) + 1, 8, seed)
        assert len(set(chosen.tolist())) == len(chosen)
        for each in set(series.tolist()):
            mine = series[chosen] == each
            assert rank[mine].tolist() == list(range(min(8, int((series == each).sum()))))
            assert (np.diff(chosen[mine]) > 0).all()


def test_rows_are_chosen_from_the_whole_batch() -> None:
    chosen, _ = thinned(np.zeros(1_000, dtype=np.int64), 1, 10, 3)
    assert np.diff(chosen).tolist() == [100] * 9


def test_no_period_in_the_rows_hides_a_device_for_good() -> None:
    seen = {
        int(row) % 2
        for seed in range(40)
        for row in thinned(np.zeros(64, dtype=np.int64), 1, 32, seed)[0]
    }
    assert seen == {0, 1}


def test_no_rows_are_chosen_of_none() -> None:
    assert thinned(np.zeros(0, dtype=np.int64), 1, 8, 1)[0].tolist() == []


def test_a_ring_holds_the_newest_rows_in_order() -> None:
    ring = Ring(4, 1)
    ring.reserve(2)
    for trace in range(1, 8):
        ring.add(np.array([1]), np.array([0]), sample([trace], [0]))
    assert ring.newest(1).ids[:, 1].tolist() == [7, 6, 5, 4]
    assert ring.newest(0).ids.shape == (0, 2)


def test_a_ring_takes_several_rows_of_a_series_at_once() -> None:
    ring = Ring(4, 1)
    ring.reserve(2)
    series = np.array([0, 1, 0])
    ring.add(series, np.array([0, 0, 1]), sample([1, 2, 3], [0, 0, 0]))
    assert ring.newest(0).ids[:, 1].tolist() == [3, 1]
    assert ring.newest(1).ids[:, 1].tolist() == [2]


def test_the_state_of_a_ring_comes_back() -> None:
    ring, other = Ring(4, 1), Ring(4, 1)
    ring.reserve(1)
    for trace in range(1, 7):
        ring.add(np.array([0]), np.array([0]), sample([trace], [0]))
    other.restore(ring.state(1))
    assert other.newest(0).ids.tolist() == ring.newest(0).ids.tolist()
    assert all(np.array_equal(array, other.state(1)[name]) for name, array in ring.state(1).items())


def test_bins_of_another_number_of_signals_are_forgotten() -> None:
    ring, other = Ring(4, 1), Ring(4, 2)
    ring.reserve(1)
    ring.add(np.array([0]), np.array([0]), sample([1], [0]))
    other.restore(ring.state(1))
    assert (other.newest(0).bins == -1).all()


def test_traces_are_distinct_and_spread_over_devices() -> None:
    rows = sample([1, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 2])
    chosen = spread(rows, 4)
    assert rows.ids[chosen, 1].tolist() == [1, 4, 5, 2]


def test_no_more_traces_than_asked_for() -> None:
    rows = sample(list(range(1, 101)), [0] * 100)
    assert spread(rows).tolist() == list(range(32))
