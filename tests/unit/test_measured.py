"""Baselines as the API lists them: every state that a signal's baselines can be in, with its id."""

from collections.abc import Sequence

import numpy as np

from gateway.api.sources import BaselineState, Weights
from gateway.measure import Measure, MeasureSettings
from gateway.measured import measured
from gateway.otlp.events import Promotion
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, declared, plan
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
            baseline_events=4_000,
        )
        (drift,) = [each for each in found.drift if each.signal == "confidence"]
        rows = [each for each in found.baselines if each.signal == "confidence"]
        assert drift.baseline == (rows[0].id or rows[0].state)
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
    assert first.calibrated is False
    site.run(120, 4, 3)
    rows = site.shown()
    assert states(rows) == ["frozen", "candidate"]
    assert rows[0] == first
    made = Promotion(at_ns=site.now_ns, baseline=rows[1].id)
    site.measure.hear(declared(site.now_ns, made))
    after = site.shown()
    assert states(after) == ["frozen", "superseded"]
    assert [each.id for each in after] == [rows[1].id, first.id]


def test_signals_with_the_same_counts_have_ids_of_their_own() -> None:
    site = Site(Measure(plan(), MeasureSettings()))
    site.run(60, 8, 2)
    found = measured(
        site.measure.snapshot(), now_ns=0, contracts=(), token=str, baseline_events=4_000
    ).baselines
    assert len({each.id for each in found}) == len(found) == 4
    # Classes that have not come yet are no baselines.
    assert {each.signal for each in found} == {"confidence", "class", "brightness", "confidence|ok"}


def test_the_change_of_a_confidence_is_split_and_told_with_it_alone() -> None:
    site = Site(Measure(plan(), MeasureSettings()))
    site.run(70, 8, 2)
    site.run(60, 4, 3)
    found = measured(
        site.measure.snapshot(), now_ns=0, contracts=(), token=str, baseline_events=4_000
    ).drift
    split = {each.signal: each.attribution for each in found if each.attribution}
    assert split.keys() == {"confidence"}
    assert abs(split["confidence"]["class"]) < 0.01
    assert split["confidence"]["confidence_given_class"] > 0.1


def test_weights_of_samplers_are_shown_with_their_model() -> None:
    measure = Measure(plan(), MeasureSettings())
    fleet = Fleet(measure.plan, size=80)

    def weights(states: list[str]) -> Weights | None:
        measure.observe(stated(fleet.batch(START_NS, np.full(80, 0.5)), states))
        found = measured(
            measure.snapshot(), now_ns=0, contracts=(), token=str, baseline_events=4_000
        )
        return found.series[0].weights

    assert weights([""]) is None
    assert weights(["ot=th:8"]) == Weights(mean=2.0, effective_inferences=80.0)


def test_a_baseline_from_a_file_says_so() -> None:
    site = Site(Measure(plan_with(file()), MeasureSettings()))
    site.run(1, 8, 2)
    (row,) = site.shown()
    assert (row.state, row.source, row.events, row.calibrated) == ("frozen", "file", 40_000, True)
