"""Baselines as the API lists them, every state with its id, and what is said of all detectors."""

from collections.abc import Sequence

import numpy as np

from gateway.api.drifts import BaselineState
from gateway.api.measurements import measured as samples_of
from gateway.api.sources import (
    Weights,
)
from gateway.contract.schema import DriftRule
from gateway.measure import FalseAlarms, Measure, MeasureSettings
from gateway.measured import measured
from gateway.otlp.events import Promotion
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, contract, declared, plan
from tests.unit.measure.drift.test_inclusion import stated
from tests.unit.measure.test_given import file, plan_with


class Site:
    """Sends a batch of 80 inferences each second, and shows what is known of the confidence."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self._fleet = Fleet(measure.plan, size=80)
        self._rng = np.random.default_rng(9)
        self.now_ns = START_NS

    def run(self, seconds: int, a: float, b: float) -> None:
        for _ in range(seconds):
            self.now_ns += SECOND_NS
            self.measure.observe(self._fleet.batch(self.now_ns, self._rng.beta(a, b, 80)))

    def shown(self) -> Sequence[BaselineState]:
        found = measured(
            self.measure.snapshot(),
            now_ns=self.now_ns,
            contracts=self.measure.plan.contracts,
            token=str,
        )
        (drift,) = [each for each in found.drift if each.signal == "confidence"]
        rows = [each for each in found.baselines if each.signal == "confidence"]
        assert drift.baseline == (rows[0].id or rows[0].state)
        assert drift.superseded == rows[-1].superseded
        return rows


def states(rows: Sequence[BaselineState]) -> list[str]:
    return [each.state for each in rows]


def test_a_baseline_goes_from_collecting_to_superseded() -> None:
    site = Site(Measure(plan(), MeasureSettings()))
    site.run(10, 8, 2)
    (row,) = site.shown()
    assert (row.state, row.id, row.events, row.calibrated) == ("collecting", "", 800, None)
    site.run(60, 8, 2)
    (first,) = site.shown()
    # A block of 500 is full with the seventh batch of 80, and there are eight.
    assert (first.state, first.source, first.events) == ("frozen", "site", 8 * 560)
    assert (first.calibrated, first.hours, first.labelled) == (True, 0, 0)
    site.run(120, 4, 3)
    rows = site.shown()
    assert states(rows) == ["frozen", "candidate"]
    assert rows[0] == first
    made = Promotion(at_ns=site.now_ns, baseline=rows[1].id)
    site.measure.hear(declared(site.now_ns, made))
    after = site.shown()
    assert states(after) == ["frozen", "superseded"]
    assert [each.id for each in after] == [rows[1].id, first.id]
    assert after[0].superseded is None
    quiet = after[1].superseded
    assert quiet is not None
    assert (quiet.id, quiet.events, quiet.alarms) == (first.id, first.events, 0)
    assert (quiet.log_evidence, quiet.last_alarm_ns) == (0, None)
    assert quiet.until_ns == site.now_ns + 7 * 86_400 * SECOND_NS
    site.run(60, 4, 3)
    loud = site.shown()[1].superseded
    assert loud is not None
    assert loud.alarms > 0
    assert loud.last_alarm_ns is not None
    site.now_ns += 7 * 86_400 * SECOND_NS
    site.run(1, 4, 3)
    (_, over) = site.shown()
    assert (over.id, over.state, over.superseded) == (first.id, "superseded", None)


def test_signals_with_the_same_counts_have_ids_of_their_own() -> None:
    site = Site(Measure(plan(), MeasureSettings()))
    site.run(60, 8, 2)
    found = measured(site.measure.snapshot(), now_ns=0, contracts=(), token=str).baselines
    assert len({each.id for each in found}) == len(found) == 4
    # Classes that have not come yet are no baselines.
    assert {each.signal for each in found} == {"confidence", "class", "brightness", "confidence|ok"}


def test_the_change_of_a_confidence_is_split_and_told_with_it_alone() -> None:
    site = Site(Measure(plan(), MeasureSettings()))
    site.run(70, 8, 2)
    site.run(60, 4, 3)
    found = measured(site.measure.snapshot(), now_ns=0, contracts=(), token=str).drift
    split = {each.signal: each.attribution for each in found if each.attribution}
    assert split.keys() == {"confidence"}
    assert abs(split["confidence"]["class"]) < 0.01
    assert split["confidence"]["confidence_given_class"] > 0.1


def test_weights_of_samplers_are_shown_with_their_model() -> None:
    measure = Measure(plan(), MeasureSettings())
    fleet = Fleet(measure.plan, size=80)

    def weights(states: list[str]) -> Weights | None:
        measure.observe(stated(fleet.batch(START_NS, np.full(80, 0.5)), states))
        found = measured(measure.snapshot(), now_ns=0, contracts=(), token=str)
        return found.series[0].weights

    assert weights([""]) is None
    assert weights(["ot=th:8"]) == Weights(mean=2.0, effective_inferences=80.0)


def test_a_baseline_from_a_file_says_so() -> None:
    site = Site(Measure(plan_with(file()), MeasureSettings()))
    site.run(1, 8, 2)
    (row,) = site.shown()
    assert (row.state, row.source, row.events, row.calibrated) == ("frozen", "file", 40_000, True)
    assert (row.hours, row.labelled) == (0, 0)
    site = Site(Measure(plan_with(file(right=0.7)), MeasureSettings()))
    site.run(1, 8, 2)
    assert [each.labelled for each in site.shown()] == [40_000]


def test_the_report_and_what_never_alarms_are_shown_and_counted() -> None:
    settings = MeasureSettings(baseline_events=200, false_alarms=FalseAlarms.SITE)
    small = plan(contract(drift=DriftRule(tolerance=0.05)))
    for the_plan, calibrated in ((plan(), True), (small, False)):
        site = Site(Measure(the_plan, settings))
        site.run(60, 8, 2)
        site.run(90, 3, 4)
        found = measured(site.measure.snapshot(), now_ns=0, contracts=(), token=str)
        (drift,) = [each for each in found.drift if each.signal == "confidence"]
        assert (drift.calibrated, drift.alarm) == (calibrated, calibrated)
        assert drift.psi_debiased is not None
        assert drift.psi_debiased_low is not None
        assert drift.psi_debiased_high is not None
        assert 0.1 < drift.psi_debiased_low < drift.psi_debiased < drift.psi_debiased_high
        assert (found.budget.per, found.budget.detectors) == ("site", 4)
        listed = [(each.version, each.signal) for each in found.reported.signals]
        drifted = ["confidence", "confidence|ok"] if calibrated else []
        assert sorted(listed) == [("1.0", each) for each in drifted]
        assert found.reported.promise == (
            "at most 10 % of these are expected to be false, over a patience of 30 days"
        )
        told = {
            (each.name, each.labels.get("signal", each.labels.get("budget"))): each.value
            for each in samples_of(found)
        }
        assert told["weir_drift_uncalibrated", "confidence"] == (not calibrated)
        assert told["weir_drift_reported", "confidence"] == calibrated
        assert told["weir_drift_reported", "brightness"] == 0
        assert told["weir_drift_detectors", "site"] == 4
