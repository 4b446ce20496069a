"""Baselines that are too small for their tolerance, and the budget that all detectors share."""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest

from gateway.batch import Anomaly, AnomalyKind
from gateway.contract.plan import Plan
from gateway.contract.schema import Action, DriftRule, ResourceRule
from gateway.measure import FalseAlarms, Measure, MeasureSettings, merge
from gateway.measure.drift.collect import BLOCKS_MAX
from gateway.measure.drift.streams import (
    CANDIDATE_PATIENCE_BASELINES,
    PATIENCE_BASELINES,
    REFUSALS_MAX,
)
from gateway.measure.snapshot import BaselineState, SignalView
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    VALUES,
    Fleet,
    classed,
    contract,
    plan,
    signals,
)

SIZE: Final = 120
LEAST: Final = 200


def tolerant(tolerance: float, **changes: Any) -> Plan:
    rule = DriftRule(tolerance=tolerance, conditional_classes=0)
    return plan(contract(drift=rule, **changes))


class Site:
    """Sends a batch each second."""

    def __init__(
        self, the_plan: Plan, *, size: int = SIZE, fleet: Fleet | None = None, **settings: Any
    ) -> None:
        self.measure = Measure(the_plan, MeasureSettings(**{"baseline_events": LEAST, **settings}))
        self.fleet = fleet or Fleet(the_plan, size=size)
        self.size = size
        self._rng = np.random.default_rng(3)
        self.now_ns = START_NS
        self.drifts: list[Anomaly] = []

    def run(self, seconds: int, a: float = 8, b: float = 2, rows: int = -1) -> None:
        for _ in range(seconds):
            self.now_ns += SECOND_NS
            confidence = self._rng.beta(8, 2, self.size)
            moved = self.size if rows < 0 else rows
            confidence[:moved] = self._rng.beta(a, b, moved)
            brightness = self._rng.beta(2, 2, self.size)
            one = self.fleet.batch(self.now_ns, confidence, brightness=brightness)
            told = self.measure.observe(one).anomalies
            self.drifts += [each for each in told if each.kind is AnomalyKind.DRIFT]

    def view(self, name: str = "confidence") -> SignalView:
        (series,) = self.measure.snapshot().series
        return next(each for each in series.signals if each.signal == name)


def test_a_signal_learns_until_its_baseline_is_large_enough() -> None:
    site = Site(tolerant(0.25))
    site.run(4)
    view = site.view()
    assert view.state is BaselineState.COLLECTING
    assert view.wanted > view.collected > LEAST
    site.run(26)
    drift = site.view().drift
    assert drift is not None
    assert drift.is_calibrated
    assert LEAST < drift.baseline_events < LEAST * PATIENCE_BASELINES


def test_a_site_that_sets_nothing_ends_up_calibrated() -> None:
    site = Site(plan(contract(drift=DriftRule())), size=2_000, baseline_events=4_000)
    site.run(12)
    for name in ("confidence", "brightness", "class"):
        drift = site.view(name).drift
        assert drift is not None, name
        assert drift.is_calibrated, name
        assert drift.baseline_events <= 22_000


def test_a_learned_baseline_that_is_too_small_never_alarms() -> None:
    site = Site(tolerant(0.05))
    site.run(LEAST * PATIENCE_BASELINES // SIZE + 3)
    before = site.view()
    assert before.state is BaselineState.FROZEN
    site.run(60, 4, 3)
    view = site.view()
    assert view.drift is not None
    assert not view.drift.is_calibrated
    assert view.drift.psi_debiased_low > 0.1
    assert site.drifts == []
    # It is not left alone: a candidate is collected, for a longer time.
    number = site.measure.streams.number_of("damage-net", "1.0", "confidence")
    assert number in site.measure.streams.collections
    assert view.wanted == LEAST * CANDIDATE_PATIENCE_BASELINES
    assert site.measure.snapshot().drifts.reported == ()


def test_blocks_are_bounded_and_add_up() -> None:
    site = Site(tolerant(0.05), baseline_events=1_000)
    streams = site.measure.streams
    for _ in range(100):
        site.run(1)
        for number, collection in streams.collections.items():
            assert len(collection.blocks) < BLOCKS_MAX
            if collection.blocks and number not in streams.baselines:
                assert collection.refusals == 0
                total = np.sum(collection.blocks, axis=0)
                assert np.array_equal(total, collection.last)
                assert total.sum() <= streams.counts(number).sum()


def test_what_a_rough_start_taught_is_thrown_away() -> None:
    site = Site(tolerant(0.3), baseline_events=1_000)
    for _ in range(5):
        site.run(1, 2, 8)
        site.run(1, 20, 1)
    assert site.view().state is BaselineState.COLLECTING
    number = site.measure.streams.number_of("damage-net", "1.0", "confidence")
    assert number is not None
    site.run(30)
    drift = site.view().drift
    assert drift is not None
    assert drift.is_calibrated
    assert drift.phi < 2
    site.run(60)
    assert site.drifts == []


def test_a_rough_signal_is_frozen_in_the_end() -> None:
    site = Site(tolerant(0.3))
    rng = np.random.default_rng(8)
    for _ in range((PATIENCE_BASELINES + 4 * REFUSALS_MAX) * LEAST // SIZE):
        site.run(1, *rng.uniform(1, 12, 2).tolist())
    drift = site.view().drift
    assert drift is not None
    assert not drift.is_calibrated


def test_an_older_state_with_a_small_baseline_collects_a_candidate() -> None:
    site = Site(tolerant(0.05))
    site.run(LEAST * PATIENCE_BASELINES // SIZE + 3)
    streams = site.measure.streams
    for number in list(streams.collections):
        lane = streams.lanes[streams.items[number].lane]
        del streams.collections[number]
        lane.collecting -= 1
    state = site.measure.state()
    del state["streams/detectors"], state["streams/bank/lasting"]
    other = Site(tolerant(0.05))
    other.measure.restore(state)
    assert set(other.measure.streams.collections) == set(other.measure.streams.baselines)
    assert other.measure.streams.budget.detectors == len(other.measure.streams.baselines)
    other.now_ns = site.now_ns
    other.run(10)
    assert other.view().collected == 10 * SIZE


def bounds(measure: Measure) -> list[float]:
    numbers = np.array(sorted(measure.streams.baselines), dtype=np.int64)
    return [round(each, 9) for each in measure.streams.bank.log_bound(numbers).tolist()]


def test_every_bound_grows_with_the_detectors_of_a_site() -> None:
    site = Site(tolerant(0.25), false_alarms=FalseAlarms.SITE)
    log_a = float(np.log(259_200))
    seen = set()
    for _ in range(40):
        site.run(1)
        streams = site.measure.streams
        running = len(streams.baselines)
        assert streams.budget.detectors == running
        assert bounds(site.measure) == [round(log_a + np.log(max(running, 1)), 9)] * running
        seen.add(running)
    assert max(seen) == 3
    assert len(seen) > 2


@pytest.mark.parametrize("per", list(FalseAlarms))
def test_the_count_of_detectors_outlives_restarts_and_contracts(per: FalseAlarms) -> None:
    site = Site(tolerant(0.25), false_alarms=per)
    site.run(40)
    whole = contract(drift=DriftRule(tolerance=0.25))
    fewer = plan(contract(drift=whole.drift, signals={"confidence": whole.signals["confidence"]}))
    shared = MeasureSettings(false_alarms=FalseAlarms.SITE)
    other, third, again = (Measure(fewer, shared) for _ in range(3))
    other.restore(site.measure.state())
    assert len(other.streams.baselines) == 1
    assert other.streams.budget.detectors == 3
    assert bounds(other) == [round(float(np.log(259_200 * 3)), 9)]
    assert other.snapshot().drifts.detectors == 3
    for total in (merge(other.state(), third.state()), merge(third.state(), other.state())):
        assert total["streams/detectors"].tolist() == [3]
    again.restore(total)
    assert again.streams.budget.detectors == 3


def test_an_alarm_says_whose_budget_is_in_force() -> None:
    for per in FalseAlarms:
        site = Site(tolerant(0.25), false_alarms=per)
        site.run(40)
        site.run(60, 4, 3)
        (anomaly,) = site.drifts
        numbers = anomaly.numbers
        is_site = per is FalseAlarms.SITE
        assert numbers["budget_is_site"] == is_site
        assert numbers["detectors"] == 3
        assert numbers["false_alarms_per_30d"] == pytest.approx(1)
        assert numbers["baseline_is_large_enough"] == 1
        expected = np.log(259_200) + (np.log(3) if is_site else 0)
        assert numbers["log_evidence_bound"] == pytest.approx(expected)
        words = "all 3 drift detectors of the site together" if is_site else "this signal"
        assert f"false alarms allowed: 1 in 30 days for {words}" in anomaly.summary


def test_an_alarm_tells_the_bins_that_changed_most() -> None:
    site = Site(tolerant(0.25))
    site.run(40)
    site.run(60, 4, 3)
    (anomaly,) = site.drifts
    parts = [
        (name.partition(":")[2], value)
        for name, value in anomaly.numbers.items()
        if name.startswith("psi_of:")
    ]
    assert len(parts) == 5
    assert [value for _, value in parts] == sorted((value for _, value in parts), reverse=True)
    for words, value in parts:
        expected = anomaly.numbers[f"expected_of:{words}"]
        current = anomaly.numbers[f"current_of:{words}"]
        assert value == pytest.approx((current - expected) * np.log(current / expected))
    assert 0.5 * anomaly.numbers["psi"] < sum(value for _, value in parts)
    assert sum(value for _, value in parts) <= anomaly.numbers["psi"]


def told_outside(anomaly: Anomaly) -> str:
    """Write what of an anomaly leaves the site: all but evidence."""
    return str(replace(anomaly, evidence=()))


@pytest.mark.parametrize("export", list(Action))
def test_bins_of_a_number_leave_only_as_far_as_the_contract_exports_it(export: Action) -> None:
    listed = {name: replace(each, export=export) for name, each in signals().items()}
    site = Site(tolerant(0.25, signals=listed))
    site.run(40)
    site.run(60, 4, 3)
    (anomaly,) = site.drifts
    reasons = {each.reason for each in anomaly.evidence}
    words = {each.rpartition(" of the baseline lies in ")[2] for each in reasons}
    assert words
    outside = told_outside(anomaly)
    assert any(each in outside for each in words) is (export is Action.PASS)
    assert any("_of:" in each for each in anomaly.numbers) is (export is Action.PASS)
    assert " (dominant change: " in anomaly.summary
    assert anomaly.numbers["psi"] > 0.1


@pytest.mark.parametrize("export", list(Action))
def test_classes_leave_only_as_far_as_the_contract_exports_them(export: Action) -> None:
    listed = signals()
    listed["class"] = replace(listed["class"], export=export)
    the_plan = plan(contract(signals=listed))
    measure, fleet = Measure(the_plan, MeasureSettings()), Fleet(the_plan, size=400)
    rng = np.random.default_rng(5)
    told: list[Anomaly] = []
    for second in range(1, 121):
        shares = (0.6, 0.3, 0.1, 0.0) if second <= 60 else (0.3, 0.6, 0.1, 0.0)
        codes = rng.choice(4, 400, p=shares)
        # The torn are sure at first and less later, and come with the cracked.
        law = (8, 2) if second <= 60 else (4, 3)
        scores = np.where(codes == 1, rng.beta(*law, 400), rng.beta(8, 2, 400))
        one = fleet.batch(START_NS + second * SECOND_NS, scores)
        told += measure.observe(classed(one, the_plan, codes)).anomalies
    drifts = [each for each in told if each.kind is AnomalyKind.DRIFT]
    assert "class" in {each.subject for each in drifts}
    assert any(each.subject.startswith("confidence") for each in drifts)
    outside = "".join(told_outside(each) for each in drifts)
    reasons = "".join(row.reason for each in drifts for row in each.evidence)
    assert "cracked" in reasons
    is_told = export is Action.PASS
    for word in VALUES:
        assert word not in outside or is_told
    assert ("cracked" in outside) is is_told
    (moved,) = [each for each in drifts if each.subject == "class"]
    assert ("dominant change: more of a class" in moved.summary) is not is_told


@pytest.mark.parametrize("export", [Action.PASS, Action.TOKEN, None])
def test_a_cohort_is_told_as_far_as_the_contract_allows(export: Action | None) -> None:
    rules = {} if export is None else {"edgeai.accelerator.type": ResourceRule(export=export)}
    the_plan = tolerant(0.25, resource=rules)
    kinds = [{"edgeai.accelerator.type": "npu" if at < 6 else "gpu"} for at in range(12)]
    site = Site(the_plan, fleet=Fleet(the_plan, size=SIZE, devices=12, resources=kinds))
    site.run(40)
    site.run(60, 3, 4, rows=SIZE // 2)
    (anomaly,) = site.drifts
    assert anomaly.numbers["devices_carrying"] == 6
    words = "only devices with accelerator npu"
    assert all(words in each.reason for each in anomaly.evidence)
    assert (words in anomaly.summary) is (export is Action.PASS)


def test_drifted_signals_are_reported_while_they_drift() -> None:
    site = Site(tolerant(0.25), drift_tick_s=1.0, drift_quiet_s=60)
    site.run(40)
    assert site.measure.snapshot().drifts.reported == ()
    site.run(90, 3, 4)
    (listed,) = site.measure.snapshot().drifts.reported
    assert (listed.model, listed.signal) == ("damage-net", "confidence")
    # At least K H / (alpha k), with H = 30 days in ticks of a second.
    assert listed.log_evidence >= np.log(3 * 30 * 86_400 / 0.1)
    site.run(1_200)
    assert site.measure.snapshot().drifts.reported == ()
