"""Counters of the process: edges, copies and restarts."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tally import ACK_EDGES_S, GROUP_EDGES, Distribution, Tally
from gateway.vitals import STAGES


@given(values=st.lists(st.floats(0, 10, allow_nan=False), max_size=50))
def test_distribution_counts_as_numpy_does(values: list[float]) -> None:
    edges = (0.5, 1.0, 2.0, 5.0)
    distribution = Distribution(edges)
    for value in values:
        distribution.add(value)
    # Prometheus buckets are closed above: le="1" holds 1.
    places = np.digitize(values, edges, right=True)
    assert distribution.counts == np.bincount(places, minlength=len(edges) + 1).tolist()
    assert distribution.sum == pytest.approx(sum(values))


@pytest.mark.parametrize("edges", [ACK_EDGES_S, GROUP_EDGES])
def test_edges_rise(edges: tuple[float, ...]) -> None:
    assert list(edges) == sorted(set(edges))


def filled() -> Tally:
    tally = Tally()
    for number, stage in enumerate(STAGES):
        tally.bytes[stage] += 100 + number
    tally.ack_s.add(0.004)
    tally.ack_s.add(99.0)
    tally.group_spans.add(64)
    return tally


def test_everything_comes_back_after_a_restart() -> None:
    before = filled()
    after = Tally()
    after.restore(json.loads(json.dumps(before.state())))
    assert after.state() == before.state()
    assert after.ack_s.counts[-1] == 1


def test_state_is_a_copy() -> None:
    tally = filled()
    state = tally.state()
    text = json.dumps(state)
    tally.bytes["wire"] += 1
    tally.ack_s.add(0.1)
    assert json.dumps(state) == text


def test_histogram_with_other_edges_starts_anew() -> None:
    before = Distribution((1.0, 2.0))
    before.add(1.5)
    after = Distribution((1.0, 3.0))
    after.restore(before.state())
    assert after.counts == [0, 0, 0]
    assert after.sum == 0.0


def test_stage_that_is_new_since_the_checkpoint_starts_at_zero() -> None:
    state = filled().state()
    del state["bytes"]["forward"]
    after = Tally()
    after.restore(state)
    assert after.bytes["forward"] == 0
    assert set(after.bytes) == set(STAGES)
