"""Streams with a rhythm: learned by the hour, judged by the hour, and the same after a restart."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from gateway.batch import Anomaly, AnomalyKind
from gateway.contract.plan import Plan
from gateway.contract.schema import DriftRule, Season
from gateway.measure import Measure, MeasureSettings
from gateway.measure.drift import seasons, state
from gateway.measure.drift.hours import WEEK_NS
from gateway.measure.drift.seasonal import HOUR_NS, HOURS
from gateway.measure.drift.seasons import LATE_NS
from gateway.measure.snapshot import BaselineState, SignalView
from gateway.measure.state import State, part, prefixed
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, contract, plan

SIZE = 300
STEP_NS = 900 * SECOND_NS
Law = Callable[[float], tuple[float, float]]


def rhythm(turn: float) -> tuple[float, float]:
    """A law that swings over the day; `turn` counts days."""
    swing = np.sin(2 * np.pi * turn)
    return 8 - 2.0 * swing, 2 + 1.0 * swing


def worse(turn: float) -> tuple[float, float]:
    """The same rhythm with a change on top."""
    a, b = rhythm(turn)
    return a - 2.5, b + 1.5


def seasonal(season: Season = Season.HOUR_OF_WEEK) -> Plan:
    return plan(contract(drift=DriftRule(season=season), slos=()))


class Site:
    """Sends a batch every quarter of an hour, 1,200 inferences each hour."""

    def __init__(self, the_plan: Plan, *, seed: int = 1, restored: State | None = None) -> None:
        self.plan = the_plan
        self.measure = fresh(the_plan)
        if restored is not None:
            self.measure.restore(restored)
        self.fleet = Fleet(the_plan, size=SIZE, seed=seed)
        self.rng = np.random.default_rng(seed)
        self.now_ns = max(START_NS, self.measure.now_ns)
        self.told: list[Anomaly] = []
        self.idle = False

    def run(self, batches: int, law: Law = rhythm, *, step_ns: int = STEP_NS) -> None:
        for _ in range(batches):
            self.now_ns += step_ns
            if self.idle:
                for back_ns in range(step_ns - SECOND_NS, 0, -60 * SECOND_NS):
                    self.hear(self.measure.advance(self.now_ns - back_ns))
            a, b = law(self.now_ns / (24 * HOUR_NS))
            batch = self.fleet.batch(
                self.now_ns, self.rng.beta(a, b, SIZE), brightness=self.rng.beta(2, 2, SIZE)
            )
            self.hear(self.measure.observe(batch).anomalies)

    def hear(self, told: Iterable[Anomaly]) -> None:
        self.told += [each for each in told if each.kind is AnomalyKind.DRIFT]

    def view(self, name: str = "confidence") -> SignalView:
        (series,) = self.measure.snapshot().series
        return next(each for each in series.signals if each.signal == name)

    def number(self, name: str = "confidence") -> int:
        found = self.measure.streams.number_of("damage-net", "1.0", name)
        assert found is not None
        return found


def fresh(the_plan: Plan) -> Measure:
    return Measure(the_plan, MeasureSettings(drift_quiet_s=3_600, baseline_events=4_000))


@pytest.fixture(scope="module")
def learned() -> State:
    """A site that has seen a whole week and frozen its baselines."""
    site = Site(seasonal())
    site.run(7 * 24 * 4 - 3)
    assert site.view().state is BaselineState.COLLECTING
    site.run(8)
    assert site.view().state is BaselineState.FROZEN
    assert site.told == []
    return site.measure.state()


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[key], second[key]) for key in first
    )


def test_a_week_is_learned_by_the_hour(learned: State) -> None:
    site = Site(seasonal(), restored=learned)
    streams = site.measure.streams
    baseline = streams.baselines[site.number()]
    assert baseline.hours is not None
    assert baseline.hours.shape == (HOURS, baseline.bins)
    assert np.array_equal(
        baseline.hours.sum(axis=0), baseline.coarse(baseline.counts)[: baseline.bins]
    )
    # Every hour was heard for a whole hour, the first one also for its end.
    assert (baseline.hours.sum(axis=1) >= 4 * SIZE).all()
    assert not baseline.unsteady
    assert baseline.phi < 1.2
    assert not streams.seasons.rhythms
    # Without hours the rhythm would be overdispersion, or drift.
    plain = Site(seasonal(Season.NONE))
    plain.run(2 * 24 * 4)
    phi = max(each.phi for each in plain.measure.streams.baselines.values())
    assert plain.told or phi > 5


def test_the_rhythm_does_not_alarm_where_the_week_would_at_once(learned: State) -> None:
    site = Site(seasonal(), seed=2, restored=learned)
    site.run(7 * 24 * 4)
    assert site.told == []
    week = Site(seasonal(Season.NONE), seed=2, restored=learned)
    week.run(8)
    assert [each.subject for each in week.told] == ["confidence"]


def test_a_change_on_top_of_the_rhythm_is_found_and_told_in_its_hour(learned: State) -> None:
    site = Site(seasonal(), seed=3, restored=learned)
    site.run(20)
    assert site.told == []
    site.run(12, worse)
    (anomaly,) = site.told
    numbers = anomaly.numbers
    assert anomaly.subject == "confidence"
    assert numbers["psi_debiased_low"] > 0.1
    assert numbers["relative_drift_index"] > 3
    assert numbers["delta"] > 0.2
    view = site.view().drift
    assert view is not None
    assert view.relative_index > 3
    # It ends while the rhythm goes on.
    site.run(24 * 4)
    assert site.told[1].resolved_ns is not None
    assert site.told[1].id == anomaly.id
    assert len(site.told) == 2


def test_the_index_has_no_rhythm_in_it(learned: State) -> None:
    site = Site(seasonal(), seed=4, restored=learned)
    found: list[float] = []
    by_week: list[float] = []
    for _ in range(24):
        site.run(4)
        view = site.view().drift
        assert view is not None
        found.append(view.psi_debiased)
        shares = site.measure.streams.baselines[site.number()].shares
        q, p = np.array(view.current) + 1e-4, np.array(shares)
        by_week.append(float(((q - p) * np.log(q / p)).sum()))
    assert np.quantile(found, 0.9) < 0.1
    assert np.quantile(by_week, 0.9) > 0.2


@pytest.mark.parametrize("batches", [1, 3, 40])
def test_a_restart_in_the_midst_of_an_hour_changes_nothing(learned: State, batches: int) -> None:
    whole = Site(seasonal(), seed=5, restored=learned)
    whole.run(batches, step_ns=340 * SECOND_NS)
    parted = Site(seasonal(), seed=5, restored=whole.measure.state())
    parted.fleet, parted.rng = Fleet(whole.plan, size=SIZE, seed=9), np.random.default_rng(9)
    whole.fleet, whole.rng = Fleet(whole.plan, size=SIZE, seed=9), np.random.default_rng(9)
    parted.run(20, worse, step_ns=340 * SECOND_NS)
    whole.run(20, worse, step_ns=340 * SECOND_NS)
    assert same(parted.measure.state(), whole.measure.state())


def test_a_restart_while_the_week_is_learned_changes_nothing() -> None:
    whole = Site(seasonal())
    whole.run(35, step_ns=500 * SECOND_NS)
    parted = Site(seasonal(), restored=whole.measure.state())
    parted.fleet, parted.rng = Fleet(whole.plan, size=SIZE, seed=9), np.random.default_rng(9)
    whole.fleet, whole.rng = Fleet(whole.plan, size=SIZE, seed=9), np.random.default_rng(9)
    for site in (parted, whole):
        site.run(20, step_ns=500 * SECOND_NS)
    assert same(parted.measure.state(), whole.measure.state())
    table = whole.measure.streams.seasons.rhythms[whole.number()].table
    assert table.any(axis=(1, 2)).sum() == 8


def test_idle_steps_change_nothing(learned: State) -> None:
    busy, idle = (Site(seasonal(), seed=6, restored=learned) for _ in range(2))
    idle.idle = True
    for site in (busy, idle):
        site.run(30, step_ns=400 * SECOND_NS)
        site.run(3, worse, step_ns=5 * HOUR_NS + 7 * SECOND_NS)
        site.run(20, worse, step_ns=400 * SECOND_NS)
    assert busy.told
    first, second = (part("streams", each.measure.state()) for each in (busy, idle))
    # How far time was looked at is all that may differ.
    assert same(first, second)
    assert busy.told == idle.told
