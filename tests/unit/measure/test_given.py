"""Measure with baselines from files: in place of learning, never changed by what it judges."""

from pathlib import Path

import numpy as np
import pytest

from gateway.batch import Anomaly, AnomalyKind
from gateway.contract.plan import Plan
from gateway.contract.schema import BaselineFile, DriftRule, SignalType
from gateway.errors import InvalidConfigError
from gateway.measure import Measure, MeasureSettings
from gateway.measure.drift.baseline import freeze
from gateway.measure.drift.files import Calibration, Reference, References, write
from gateway.measure.drift.grid import Grid, GridKind, bins_of_numbers
from gateway.measure.snapshot import BaselineState, SignalView
from gateway.measure.state import Int64, State
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, contract, plan

SCORE = Grid(kind=GridKind.LOGIT)


def file(
    events: int = 40_000, seed: int = 5, version: str = "1.0", right: float | None = None
) -> BaselineFile:
    """A file with the confidence of one version, as the fleet below sends it.

    With `right` all of its events were labelled, and this share of each bin was right.
    """
    rng = np.random.default_rng(seed)
    none = np.zeros(events // 8, dtype=np.bool_)
    blocks = np.array(
        [
            np.bincount(
                bins_of_numbers(SCORE, rng.beta(8, 2, events // 8), none), minlength=SCORE.width
            )
            for _ in range(8)
        ]
    )
    item = Reference(
        version=version,
        signal="confidence",
        type=SignalType.DOUBLE,
        window_ns=None,
        blocks=blocks,
        baseline=freeze(SCORE, blocks.sum(axis=0), list(blocks)),
        calibration=None if right is None else calibrated(blocks.sum(axis=0), right),
    )
    text = write(References(model="damage-net", creator="test", items=(item,)))
    return BaselineFile(path=Path("baselines/damage-net.json"), content=text.encode())


def calibrated(labelled: Int64, right: float) -> Calibration:
    return Calibration(labelled=labelled, correct=np.floor(labelled * right).astype(np.int64))


def plan_with(baseline: BaselineFile) -> Plan:
    return plan(contract(drift=DriftRule(baseline=baseline)))


class Site:
    """Sends a batch of 80 inferences each second."""

    def __init__(self, the_plan: Plan, *, version: str = "1.0", seed: int = 1) -> None:
        self.measure = Measure(the_plan, MeasureSettings(drift_quiet_s=60, baseline_events=800))
        self._fleet = Fleet(the_plan, size=80, version=version)
        self._rng = np.random.default_rng(seed)
        self.now_ns = START_NS
        self.drifts: list[Anomaly] = []

    def run(self, seconds: int, a: float = 8, b: float = 2) -> None:
        for _ in range(seconds):
            self.now_ns += SECOND_NS
            batch = self._fleet.batch(
                self.now_ns, self._rng.beta(a, b, 80), brightness=self._rng.beta(2, 2, 80)
            )
            told = self.measure.observe(batch).anomalies
            self.drifts += [each for each in told if each.kind is AnomalyKind.DRIFT]

    def view(self, name: str = "confidence") -> SignalView:
        (series,) = self.measure.snapshot().series
        return next(each for each in series.signals if each.signal == name)


def digest(view: SignalView) -> str:
    assert view.drift is not None
    return view.drift.baseline_digest


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[key], second[key]) for key in first
    )


def test_a_signal_of_a_file_is_judged_from_its_first_event_on() -> None:
    site = Site(plan_with(file()))
    site.run(1)
    assert site.view().state is BaselineState.FROZEN
    assert site.view("brightness").state is BaselineState.COLLECTING


def test_clean_traffic_does_not_alarm_and_drifted_traffic_does() -> None:
    site = Site(plan_with(file()))
    site.run(600)
    assert site.drifts == []
    before = digest(site.view())
    site.run(120, a=4, b=3)
    assert [(each.subject, each.version) for each in site.drifts] == [("confidence", "1.0")]
    # Neither what alarmed nor the peace before it has become part of the baseline.
    assert digest(site.view()) == before
    assert site.view().candidate is None
    assert site.view().is_from_file
    assert not site.view("brightness").is_from_file


def test_a_version_that_the_file_does_not_name_learns() -> None:
    site = Site(plan_with(file()), version="2.0")
    site.run(1)
    assert site.view().state is BaselineState.COLLECTING


def test_a_baseline_that_is_too_small_never_alarms() -> None:
    site = Site(plan_with(file(events=2_000)))
    site.run(200, a=4, b=3)
    assert site.drifts == []
    view = site.view()
    assert view.drift is not None
    assert view.drift.psi_debiased > 0.1
    assert not view.drift.is_calibrated


def test_evidence_goes_on_after_a_restart_with_the_same_file() -> None:
    whole, first = Site(plan_with(file())), Site(plan_with(file()))
    whole.run(40, a=7.6, b=2.2)
    first.run(20, a=7.6, b=2.2)
    second = Site(plan_with(file()))
    second.measure.restore(first.measure.state())
    assert same(second.measure.state(), first.measure.state())
    first.measure = second.measure
    first.run(20, a=7.6, b=2.2)
    assert same(first.measure.state(), whole.measure.state())


def test_another_file_takes_over_and_starts_without_evidence() -> None:
    site = Site(plan_with(file()))
    site.run(30, a=7.6, b=2.2)
    number = site.measure.streams.number_of("damage-net", "1.0", "confidence")
    assert number is not None
    assert site.measure.streams.bank.ticks[number] > 0
    other = Measure(plan_with(file(seed=6)), MeasureSettings())
    other.restore(site.measure.state())
    assert other.streams.baselines[number].digest != digest(site.view())
    assert other.streams.bank.ticks[number] == 0
    assert other.streams.counts(number).sum() == site.measure.streams.counts(number).sum()


def test_a_file_takes_over_from_what_was_learned() -> None:
    learning = Site(plan())
    learning.run(30)
    learned = digest(learning.view())
    number = learning.measure.streams.number_of("damage-net", "1.0", "confidence")
    assert number is not None
    given = Measure(plan_with(file()), MeasureSettings())
    given.restore(learning.measure.state())
    assert given.streams.baselines[number].digest != learned
    assert number not in given.streams.collections


def test_a_file_that_does_not_fit_is_refused_at_the_start() -> None:
    with pytest.raises(InvalidConfigError, match="not of 'triage-net'"):
        Measure(plan(contract("triage-net", drift=DriftRule(baseline=file()))), MeasureSettings())
