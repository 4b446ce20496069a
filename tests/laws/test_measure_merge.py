"""Law: the merge of two sites' states counts what one gateway would have counted."""

from typing import Any

import numpy as np
import pytest

from gateway.batch import Batch
from gateway.errors import CorruptDataError
from gateway.measure import Measure, MeasureSettings, Snapshot, merge
from gateway.measure.state import State
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, contract, latency, plan

PLAN = plan()
SETTINGS = MeasureSettings(baseline_events=800)


def site(seed: int, version: str, seconds: int = 60) -> list[Batch]:
    rng = np.random.default_rng(seed)
    fleet = Fleet(PLAN, size=60, devices=3, seed=seed, version=version)
    return [
        fleet.batch(START_NS + second * SECOND_NS, rng.beta(8, 2, 60), failed=rng.random(60) < 0.01)
        for second in range(seconds)
    ]


def measured(*groups: list[Batch]) -> Measure:
    measure = Measure(PLAN, SETTINGS)
    for one in sorted((one for group in groups for one in group), key=lambda one: one.arrival_ns):
        measure.observe(one)
    return measure


def restored(state: State) -> Measure:
    measure = Measure(PLAN, SETTINGS)
    measure.restore(state)
    return measure


def counts(view: Snapshot) -> dict[str, Any]:
    """Everything that is a count, by name."""
    found: dict[str, Any] = {"slos": view.slos, "counters": view.counters}
    for each in view.series:
        found[f"{each.model} {each.version}"] = (
            each.ok,
            each.failed,
            each.cold_starts,
            each.latency.cumulative,
            each.latency.sum_s,
            each.latency.all_time_s,
            {signal.signal: signal.counts for signal in each.signals},
        )
    devices = view.devices
    for at, name in enumerate(devices.names):
        found[f"device {name}"] = (
            int(devices.spans[at]),
            int(devices.bytes[at]),
            int(devices.last_event_ns[at]),
            int(devices.last_arrival_ns[at]),
            int(devices.least_delay_ns[at]),
        )
    return found


def test_the_merge_counts_what_one_gateway_would_have_counted() -> None:
    one, two = site(1, "1.0"), site(2, "1.0") + site(3, "2.0", seconds=40)
    central = measured(one, two)
    merged = merge(measured(one).state(), measured(two).state())
    assert counts(restored(merged).snapshot()) == counts(central.snapshot())


def test_the_merge_does_not_depend_on_the_order() -> None:
    states = [
        measured(site(seed, version)).state() for seed, version in ((1, "1"), (2, "2"), (3, "1"))
    ]
    one = merge(merge(states[0], states[1]), states[2])
    two = merge(states[2], merge(states[1], states[0]))
    assert counts(restored(one).snapshot()) == counts(restored(two).snapshot())


def test_merging_with_nothing_changes_no_count() -> None:
    measure = measured(site(1, "1.0"))
    merged = merge(measure.state(), Measure(PLAN, SETTINGS).state())
    assert counts(restored(merged).snapshot()) == counts(measure.snapshot())


def test_a_baseline_that_only_one_site_has_stays() -> None:
    known = measured(site(1, "1.0"))
    unknown = measured(site(2, "1.0", seconds=5))
    merged = restored(merge(unknown.state(), known.state()))
    digests = [
        [
            signal.drift and signal.drift.baseline_digest
            for signal in view.signals
            if any(signal.counts)
        ]
        for view in (known.snapshot().series[0], merged.snapshot().series[0])
    ]
    assert digests[0] == digests[1]
    assert all(digests[0])


def test_baselines_that_differ_are_not_merged() -> None:
    merged = restored(merge(measured(site(1, "1")).state(), measured(site(2, "1")).state()))
    confidence = merged.snapshot().series[0].signals[0]
    assert confidence.drift is None


def test_a_merged_state_goes_on() -> None:
    merged = restored(merge(measured(site(1, "1")).state(), measured(site(2, "1")).state()))
    before = merged.snapshot().series[0].ok + merged.snapshot().series[0].failed
    for one in site(4, "1", seconds=120)[60:]:
        merged.observe(one)
    series = merged.snapshot().series[0]
    assert series.ok + series.failed == before + 3_600
    assert all(signal.drift is not None for signal in series.signals if any(signal.counts))


def test_states_of_other_edges_are_refused() -> None:
    other = Measure(plan(contract(slos=(latency(0.2),))), SETTINGS)
    with pytest.raises(CorruptDataError, match="edges"):
        merge(Measure(PLAN, SETTINGS).state(), other.state())
