"""Streams with a rhythm: learned by the hour, judged by the hour, and the same after a restart."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from gateway.batch import Anomaly, AnomalyKind
from gateway.contract.plan import Plan
from gateway.contract.schema import DriftRule, Season
from gateway.errors import CorruptDataError
from gateway.measure import Measure, MeasureSettings
from gateway.measure.drift import seasons
from gateway.measure.drift.hours import WEEK_NS
from gateway.measure.drift.seasonal import HOUR_NS, HOURS
from gateway.measure.drift.seasons import LATE_NS
from gateway.measure.drift.state import load, merge, save
from gateway.measure.drift.streams import Streams
from gateway.measure.snapshot import SignalView
from gateway.measure.state import State, pack_json, prefixed, unpack_json
from gateway.measure.views import signal_view
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, contract, plan

SETTINGS = MeasureSettings(drift_quiet_s=3_600, baseline_events=4_000)
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


@pytest.fixture(scope="module")
def week() -> State:
    """Streams that have seen a whole week and frozen their baselines."""
    stand = Stand(seasonal())
    stand.run(7 * 24 * 4 - 3)
    assert not stand.streams.baselines
    stand.run(8)
    assert len(stand.streams.baselines) == 3
    return save(stand.streams)


@pytest.fixture(scope="module")
def learned(week: State) -> State:
    """A site that has seen that week."""
    site = Site(seasonal())
    site.now_ns += WEEK_NS + 2 * HOUR_NS
    site.run(1)
    return site.measure.state() | prefixed("streams", week)


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[key], second[key]) for key in first
    )


def test_a_week_is_learned_by_the_hour(week: State) -> None:
    streams = Stand(seasonal(), restored=week).streams
    baseline = streams.baselines[0]
    assert baseline.hours is not None
    assert baseline.hours.shape == (HOURS, baseline.bins)
    assert np.array_equal(
        baseline.hours.sum(axis=0), baseline.coarse(baseline.counts)[: baseline.bins]
    )
    # Every hour was heard for a whole hour.
    assert (baseline.hours.sum(axis=1) >= 4 * SIZE).all()
    assert not baseline.unsteady
    assert baseline.phi < 1.2
    assert not streams.seasons.rhythms
    # Without hours the rhythm is overdispersion, or drift.
    plain = Stand(seasonal(Season.NONE))
    plain.run(24 * 4)
    assert plain.alarms or plain.streams.baselines[0].phi > 5


def test_the_rhythm_does_not_alarm_where_the_week_would_at_once(week: State) -> None:
    stand = Stand(seasonal(), seed=2, restored=week)
    stand.run(7 * 24 * 4)
    assert stand.alarms == []
    plain = Stand(seasonal(Season.NONE), seed=2, restored=week)
    plain.run(8)
    assert plain.alarms[0] == "confidence"


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


def test_the_index_has_no_rhythm_in_it(week: State) -> None:
    stand = Stand(seasonal(), seed=4, restored=week)
    shares = stand.streams.baselines[0].shares
    found: list[float] = []
    by_week: list[float] = []
    for _ in range(24):
        stand.run(4)
        view = signal_view(stand.streams, 0, is_alarmed=False).drift
        assert view is not None
        found.append(view.psi_debiased)
        q = np.array(view.current) + 1e-4
        by_week.append(float(((q - shares) * np.log(q / shares)).sum()))
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


def test_idle_steps_change_nothing(week: State) -> None:
    busy, idle = (Stand(seasonal(), seed=6, restored=week) for _ in range(2))
    idle.idle = True
    for stand in (busy, idle):
        stand.run(8, step_ns=400 * SECOND_NS)
        # Few enough that their tick is held open, over the change of an hour too.
        stand.thin = 7
        stand.run(12, worse, step_ns=1_100 * SECOND_NS)
        stand.thin = SIZE
        stand.run(2, worse, step_ns=5 * HOUR_NS + 7 * SECOND_NS)
        stand.run(8, worse, step_ns=400 * SECOND_NS)
    assert busy.alarms
    assert busy.alarms == idle.alarms
    assert same(save(busy.streams), save(idle.streams))


def test_a_held_tick_ends_with_its_hour(week: State) -> None:
    stand = Stand(seasonal(), restored=week)
    hour_ns = (stand.now_ns // HOUR_NS + 1) * HOUR_NS
    stand.thin = 7
    stand.run(1, step_ns=hour_ns - 40 * SECOND_NS - stand.now_ns)
    bank = stand.streams.bank
    ticks = int(bank.ticks[0])
    stand.turn(hour_ns - 10 * SECOND_NS)
    delta = float(bank.delta[0])
    assert bank.ticks[0] == ticks
    stand.turn(hour_ns + 100 * SECOND_NS)
    assert bank.ticks[0] == ticks + 1
    assert bank.recent[0, 0].sum() == 7
    assert bank.recent_ns[0, 0] == hour_ns
    assert bank.delta[0] != delta


def test_late_events_reach_counts_and_index_but_no_alarm(learned: State) -> None:
    late, quiet = (Site(seasonal(), seed=8, restored=learned) for _ in range(2))
    for site in (late, quiet):
        site.run(8)
    number, streams = late.number(), late.measure.streams
    before = streams.counts(number).sum()
    evidence = streams.bank.log_m[number].copy()
    shown = late.view().drift
    batch = late.fleet.batch(
        late.now_ns, late.rng.beta(2, 6, SIZE), brightness=late.rng.beta(2, 2, SIZE)
    )
    batch.spans["end_ns"] = late.now_ns - LATE_NS - 1
    batch.spans["start_ns"] = batch.spans["end_ns"]
    late.measure.observe(batch)
    assert streams.counts(number).sum() == before + SIZE
    assert streams.lanes[streams.items[number].lane].open[streams.items[number].row].sum() == SIZE
    assert late.measure.snapshot().counters.drift_late == SIZE
    now = late.view().drift
    assert shown is not None
    assert now is not None
    assert now.window_events > shown.window_events
    assert now.psi > shown.psi + 0.05
    late.measure.streams.turn(late.now_ns + SECOND_NS * 10)
    quiet.measure.streams.turn(late.now_ns + SECOND_NS * 10)
    # The tick that closes next holds what came in time alone.
    fixed = slice(0, 10)
    assert np.array_equal(
        streams.bank.log_m[number, fixed], quiet.measure.streams.bank.log_m[number, fixed]
    )
    assert not np.array_equal(streams.bank.log_m[number], evidence)


def test_a_late_event_of_the_same_hour_law_does_not_move_the_index(learned: State) -> None:
    site = Site(seasonal(), seed=8, restored=learned)
    site.run(8)
    shown = site.view().drift
    for back in range(2, 14):
        at_ns = site.now_ns - back * HOUR_NS
        a, b = rhythm(at_ns / (24 * HOUR_NS))
        batch = site.fleet.batch(site.now_ns, site.rng.beta(a, b, SIZE))
        batch.spans["start_ns"] = batch.spans["end_ns"] = at_ns
        site.measure.observe(batch)
    now = site.view().drift
    assert shown is not None
    assert now is not None
    assert now.window_events > 1.5 * shown.window_events
    assert now.psi_debiased < shown.psi_debiased + 0.05


def test_late_events_are_not_learned_and_without_a_season_none_is_late() -> None:
    for season, late in ((Season.HOUR_OF_WEEK, SIZE), (Season.NONE, 0)):
        site = Site(seasonal(season))
        site.run(2)
        batch = site.fleet.batch(site.now_ns, site.rng.beta(1, 9, SIZE))
        batch.spans["start_ns"] = batch.spans["end_ns"] = site.now_ns - LATE_NS - 1
        site.measure.observe(batch)
        site.run(1)
        assert site.measure.snapshot().counters.drift_late == late
        streams = site.measure.streams
        assert streams.counts(site.number()).sum() == 4 * SIZE
        if late:
            rhythm_of = streams.seasons.rhythms[site.number()]
            assert rhythm_of.table.sum() == 2 * SIZE


def test_what_was_learned_without_a_season_is_learned_anew_with_one() -> None:
    plain = Stand(seasonal(Season.NONE))
    plain.run(20, lambda _: (8, 2))
    assert plain.streams.baselines
    state = save(plain.streams)
    stand = Stand(seasonal(), restored=state)
    assert not stand.streams.baselines
    assert sorted(stand.streams.seasons.rhythms) == [0, 1, 2]
    assert stand.streams.counts(0).sum() == 20 * SIZE
    back = Stand(seasonal(Season.NONE), restored=save(stand.streams))
    assert not back.streams.seasons.rhythms
    assert sorted(back.streams.collections) == [0, 1, 2]
    back.run(20, lambda _: (8, 2))
    assert sorted(back.streams.baselines) == [0, 1, 2]


def test_a_state_from_before_there_were_seasons_is_read() -> None:
    plain = Stand(seasonal(Season.NONE))
    plain.run(20, lambda _: (8, 2))
    state = save(plain.streams)
    old = {key: value for key, value in state.items() if not key.startswith("seasons/")}
    items = unpack_json(old["items"])
    for item in items:
        item["baseline"] = item["baseline"] and item["baseline"][:3]
    found = Stand(seasonal(Season.NONE), restored=old | {"items": pack_json(items)})
    assert found.streams.baselines[0].digest == plain.streams.baselines[0].digest
    assert found.streams.baselines[0].noise == 0


def test_damaged_hours_are_refused(week: State) -> None:
    for key, value in (
        ("seasons/hours", week["seasons/hours"][:-1]),
        ("seasons/hours", week["seasons/hours"] + np.uint32(1)),
    ):
        with pytest.raises(CorruptDataError):
            Stand(seasonal(), restored=week | {key: value})


def test_two_sites_with_the_same_hours_keep_them_when_they_are_added(week: State) -> None:
    both = merge(week, week)
    stand = Stand(seasonal(), restored=both)
    one = Stand(seasonal(), restored=week)
    assert stand.streams.baselines[0].digest == one.streams.baselines[0].digest
    assert np.array_equal(stand.streams.counts(0), 2 * one.streams.counts(0))


def test_a_stream_without_room_waits_until_another_has_learned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    width = 130 * 168 * 2 * 4
    monkeypatch.setattr(seasons, "TABLE_BYTES_MAX", width + 1)
    stand = Stand(seasonal())
    # The grids of class and brightness are as wide or narrower.
    assert (sorted(stand.streams.seasons.rhythms), sorted(stand.streams.seasons.waiting)) == (
        [0],
        [1, 2],
    )
    again = Stand(seasonal(), restored=save(stand.streams))
    assert sorted(again.streams.seasons.waiting) == [1, 2]
    again.run(7 * 24 * 4 + 6)
    assert sorted(again.streams.baselines) == [0]
    assert 1 in again.streams.seasons.rhythms
