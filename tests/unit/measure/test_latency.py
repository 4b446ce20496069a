"""Latency: exact buckets, bounded quantile error, restore and merge."""

import numpy as np
import pytest

from gateway.measure.latency import GAMMA, GENERATION_NS, Latency, merge, quantiles_s
from gateway.measure.state import Int64
from tests.unit.measure.build import START_NS, contract, latency, plan


def filled(durations: Int64, threshold: float = 0.123) -> Latency:
    histogram = Latency(plan(contract(slos=(latency(threshold),))))
    histogram.reserve(1)
    histogram.turn(START_NS)
    histogram.add(np.zeros(len(durations), dtype=np.int64), durations)
    return histogram


def lognormal(seed: int, size: int = 5_000) -> Int64:
    return np.random.default_rng(seed).lognormal(17, 1.5, size).astype(np.int64)


def test_a_bucket_counts_exactly_what_is_not_above_its_edge() -> None:
    durations = np.concatenate((lognormal(1), [5_000_000, 123_000_000, 123_000_001, 0]))
    histogram = filled(durations)
    for edge, count in zip(histogram.edges_ns, np.cumsum(histogram.histogram[0]), strict=False):
        assert count == (durations <= edge).sum()
    assert 123_000_000 in histogram.edges_ns
    assert int(histogram.sum_ns[0]) == int(durations.sum())


def test_quantiles_are_within_the_stated_error() -> None:
    durations = lognormal(2)
    found = quantiles_s(filled(durations).recent(0))
    for share, value in zip((0.5, 0.95, 0.99), found, strict=True):
        exact = np.sort(durations)[int(np.ceil(share * len(durations))) - 1] / 1e9
        assert exact / GAMMA <= value <= exact * GAMMA


def test_there_are_no_quantiles_of_nothing() -> None:
    assert quantiles_s(np.zeros(4, dtype=np.int64)) == ()


def test_recent_quantiles_forget_and_all_time_ones_do_not() -> None:
    histogram = filled(np.full(10, 1_000_000))
    for step in range(1, 4):
        histogram.turn(START_NS + step * GENERATION_NS)
        assert histogram.recent(0).sum() == (10 if step < 2 else 0)
        assert histogram.all_time(0).sum() == 10


def test_a_pause_of_many_generations_empties_the_recent_ones() -> None:
    histogram = filled(np.full(10, 1_000_000))
    histogram.turn(START_NS + 10 * GENERATION_NS)
    assert histogram.recent(0).sum() == 0
    assert histogram.all_time(0).sum() == 10


@pytest.mark.parametrize("threshold", [0.123, 0.05, 0.2])
def test_restored_counts_are_exact_at_edges_that_both_plans_have(threshold: float) -> None:
    durations = lognormal(3)
    state = filled(durations).state(1)
    other = Latency(plan(contract(slos=(latency(threshold),))))
    other.restore(state)
    cumulative = np.cumsum(other.histogram[0])
    assert cumulative[-1] == len(durations)
    for edge, count in zip(other.edges_ns, cumulative, strict=False):
        if edge in state["edges_ns"]:
            assert count == (durations <= edge).sum()


def test_merging_adds() -> None:
    one, two = lognormal(4), lognormal(5)
    both = filled(np.concatenate((one, two))).state(1)
    total = merge(filled(one).state(1), filled(two).state(1), [0])
    for name in ("histogram", "sum_ns", "fine"):
        assert np.array_equal(total[name], both[name])


def test_merging_aligns_generations() -> None:
    late = filled(lognormal(5))
    late.turn(START_NS + 5 * GENERATION_NS)
    total = merge(filled(lognormal(4)).state(1), late.state(1), [0])
    assert total["fine"].sum() == 0
    assert total["older"].sum() == 10_000


def test_exemplars_keep_the_newest_of_each_bucket() -> None:
    histogram = filled(np.array([1], dtype=np.int64))
    ids = np.array([[1, 2], [3, 4]], dtype=np.uint64)
    bucket = np.array([2, 2])
    histogram.show(np.zeros(2, dtype=np.int64), bucket, ids, np.array([7, 8]))
    assert histogram.exemplar_id[0, 2].tolist() == [3, 4]
    assert histogram.exemplar_ns[0, 2] == 8
    assert histogram.exemplar_ns[0, 3] == -1
