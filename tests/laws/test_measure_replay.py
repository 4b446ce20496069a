"""Law: the state of measure depends on the sequence of batches alone."""

import numpy as np
import pytest

from gateway.batch import Anomaly, Batch
from gateway.measure import Measure, MeasureSettings
from gateway.measure.state import State
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, plan

PLAN = plan()
SETTINGS = MeasureSettings(baseline_events=800, drift_quiet_s=60, slo_quiet_s=30)


def story(seed: int, size: int = 60) -> list[Batch]:
    """Batches with pauses, drift, failures, late and early events."""
    rng = np.random.default_rng(seed)
    fleet = Fleet(PLAN, size=size, devices=4, seed=seed)
    newer = Fleet(PLAN, size=size, devices=4, seed=seed + 1, version="2.0")
    now_ns = START_NS
    batches = []
    for step in range(160):
        now_ns += int(rng.choice([1, 2, 5, 17, 130, 700], p=[0.5, 0.2, 0.15, 0.1, 0.04, 0.01]))
        now_ns += 0
        is_bad = 70 <= step < 110
        confidence = rng.beta(3, 4, size) if is_bad else rng.beta(8, 2, size)
        failed = rng.random(size) < (0.3 if is_bad else 0.002)
        source = newer if step > 120 else fleet
        arrival_ns = START_NS + (now_ns - START_NS) * SECOND_NS
        one = source.batch(arrival_ns, confidence, failed=failed)
        shift = rng.choice([0, 0, 0, -400, 90, 4_000], size) * SECOND_NS
        one.spans["end_ns"] = (one.spans["end_ns"].astype(np.int64) + shift).astype(np.uint64)
        one.spans["start_ns"] = one.spans["end_ns"] - np.uint64(1_000_000)
        batches.append(one)
    return batches


def same(one: State, two: State) -> None:
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert np.array_equal(array, two[name]), name
        assert array.dtype == two[name].dtype, name


def run(measure: Measure, batches: list[Batch]) -> list[Anomaly]:
    return [anomaly for one in batches for anomaly in measure.observe(one).anomalies]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_idle_steps_change_nothing_in_the_end(seed: int) -> None:
    batches = story(seed)
    rng = np.random.default_rng(seed)
    plain, idle = Measure(PLAN, SETTINGS), Measure(PLAN, SETTINGS)
    told = run(plain, batches)
    told_idle: list[Anomaly] = []
    for one, after in zip(batches, [*batches[1:], None], strict=True):
        told_idle += idle.observe(one).anomalies
        if after is not None:
            pause = after.arrival_ns - one.arrival_ns
            for share in np.sort(rng.random(3)):
                told_idle += idle.advance(one.arrival_ns + int(share * pause))
    same(plain.state(), idle.state())
    assert told == told_idle
    assert told


@pytest.mark.parametrize("stop", [1, 35, 75, 90, 125])
def test_a_restart_in_the_middle_changes_nothing(stop: int) -> None:
    batches = story(4)
    plain, before, after = (Measure(PLAN, SETTINGS) for _ in range(3))
    told = run(plain, batches)
    told_before = run(before, batches[:stop])
    after.restore(before.state())
    same(before.state(), after.state())
    assert told == told_before + run(after, batches[stop:])
    same(plain.state(), after.state())


def test_a_state_is_a_copy() -> None:
    batches = story(5)
    measure, other = Measure(PLAN, SETTINGS), Measure(PLAN, SETTINGS)
    run(measure, batches[:80])
    run(other, batches[:80])
    state = measure.state()
    run(measure, batches[80:])
    same(state, other.state())


def test_a_state_holds_plain_numbers_only() -> None:
    measure = Measure(PLAN, SETTINGS)
    run(measure, story(6))
    assert all(array.dtype.kind in "iufb" for array in measure.state().values())


def test_counts_do_not_depend_on_the_order_of_batches() -> None:
    batches = story(7)[:60]
    counts = []
    for seed in (0, 1, 2):
        order = np.arange(60) if seed == 0 else np.random.default_rng(seed).permutation(60)
        measure = Measure(PLAN, SETTINGS)
        # Time does not go back, so all of them count as if they had come with the last one.
        measure.advance(max(one.arrival_ns for one in batches))
        for index in order.tolist():
            measure.observe(batches[index])
        view = measure.snapshot()
        devices = dict(zip(view.devices.names, view.devices.spans.tolist(), strict=True))
        series = {(each.version, each.ok, each.failed) for each in view.series}
        signals = {each.signal: each.counts for each in view.series[0].signals}
        counts.append((devices, series, signals, view.slos))
    assert counts[0] == counts[1] == counts[2]
