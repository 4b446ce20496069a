"""Streams and sites with a rhythm, for the tests of seasons."""

from collections.abc import Callable, Iterable

import numpy as np

from gateway.batch import Anomaly, AnomalyKind
from gateway.contract.plan import Plan
from gateway.contract.schema import DriftRule, Season
from gateway.measure import Measure, MeasureSettings
from gateway.measure.drift.seasonal import HOUR_NS
from gateway.measure.drift.state import load
from gateway.measure.drift.streams import Streams
from gateway.measure.snapshot import SignalView
from gateway.measure.state import State
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, contract, plan

SETTINGS = MeasureSettings(drift_quiet_s=3_600, baseline_events=4_000)
SIZE = 300
SCORE_BIN = 60  # somewhere inside the grid of a confidence
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
    return plan(contract(drift=DriftRule(season=season, conditional_classes=0), slos=()))


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

    def run(self, batches: int, law: Law = rhythm, *, step_ns: int = STEP_NS) -> None:
        for _ in range(batches):
            self.now_ns += step_ns
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
    return Measure(the_plan, SETTINGS)


class Stand:
    """Drives the streams of one series alone, which is faster over weeks."""

    def __init__(self, the_plan: Plan, *, seed: int = 1, restored: State | None = None) -> None:
        self.streams = Streams(the_plan, SETTINGS)
        self.streams.open_series(0, 0, "damage-net", "1.0", learn=restored is None)
        if restored is not None:
            load(self.streams, restored)
        self.fleet = Fleet(the_plan, size=SIZE, seed=seed)
        self.rng = np.random.default_rng(seed)
        self.now_ns = max(START_NS, self.streams.tick * SETTINGS.drift_tick_ns)
        self.alarms: list[str] = []
        self.idle = False
        self.thin = SIZE

    def turn(self, now_ns: int) -> None:
        found = self.streams.turn(now_ns)
        self.alarms += [self.streams.items[each.row].signal for each in found]

    def run(self, batches: int, law: Law = rhythm, *, step_ns: int = STEP_NS) -> None:
        for _ in range(batches):
            if self.idle:
                for idle_ns in range(0, step_ns, 7 * SECOND_NS):
                    self.turn(self.now_ns + idle_ns)
            self.now_ns += step_ns
            self.turn(self.now_ns)
            a, b = law(self.now_ns / (24 * HOUR_NS))
            batch = self.fleet.batch(
                self.now_ns, self.rng.beta(a, b, SIZE), brightness=self.rng.beta(2, 2, SIZE)
            )
            rows = None if self.thin == SIZE else np.arange(self.thin)
            self.streams.add(batch, rows, np.zeros(self.thin, dtype=np.int64))
            self.streams.learn()


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[key], second[key]) for key in first
    )
