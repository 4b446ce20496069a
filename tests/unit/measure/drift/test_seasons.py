"""Streams with a rhythm: learned by the hour, judged by the hour, and what is late."""

from pathlib import Path

import numpy as np
import pytest

from gateway.contract.schema import BaselineFile, DriftRule, Season, SignalType
from gateway.measure.drift.baseline import baseline_id
from gateway.measure.drift.compared import compare
from gateway.measure.drift.files import Reference, References, write
from gateway.measure.drift.hours import PARTS, WEEK_NS
from gateway.measure.drift.promote import maybe_promote
from gateway.measure.drift.seasonal import HOUR_NS, HOURS
from gateway.measure.drift.seasons import LATE_NS
from gateway.measure.drift.state import save
from gateway.measure.drift.streams import REFUSALS_MAX
from gateway.measure.driftviews import BinWords, drift_views
from gateway.measure.state import State
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, contract, plan
from tests.unit.measure.drift.stand import (
    SCORE_BIN,
    SETTINGS,
    SIZE,
    Site,
    Stand,
    same,
    seasonal,
    worse,
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
    shown = drift_views(streams, compare(streams, [0]), BinWords().keep(streams), ())[0]
    assert shown is not None
    assert shown.baseline_hours == HOURS
    assert not streams.seasons.rhythms
    # Without hours the rhythm is drift, or so rough that it is not learned.
    plain = Stand(seasonal(Season.NONE))
    plain.run(24 * 4)
    assert plain.alarms or 0 not in plain.streams.baselines


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
        view = drift_views(
            stand.streams, compare(stand.streams, [0]), BinWords().keep(stand.streams), ()
        )[0]
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


def test_a_new_version_inherits_the_hours_and_collects_its_own(week: State) -> None:
    streams = Stand(seasonal(), restored=week).streams
    streams.open_series(1, 0, "damage-net", "2.0")
    number = streams.number_of("damage-net", "2.0", "confidence")
    assert number == 3
    assert number in streams.inherited
    assert streams.baselines[number].hours is streams.baselines[0].hours
    assert streams.bank.delta[number] == streams.bank.delta[0] > 0.2
    assert sorted(streams.seasons.rhythms) == [3, 4, 5]


def test_a_candidate_is_promoted_with_its_hours(week: State) -> None:
    stand = Stand(seasonal(), restored=week)
    streams, old = stand.streams, stand.streams.baselines[0]
    streams.collect(0)
    table = streams.seasons.rhythms[0].table
    assert old.hours is not None
    table[:, :, SCORE_BIN] = 30
    table[:, :, SCORE_BIN + 20] = 50
    streams.seasons.rhythms[0].first = streams.tick - WEEK_NS // SETTINGS.drift_tick_ns - 100
    streams.seasons.is_due = True
    assert streams.learn() == [0]
    assert streams.baselines[0] is old
    candidate = streams.candidates[0]
    wanted = baseline_id("damage-net", "1.0", "confidence", candidate.digest)
    again = Stand(seasonal(), restored=save(streams))
    assert maybe_promote(again.streams, wanted, again.now_ns) == 0
    found = again.streams.baselines[0].hours
    assert found is not None
    assert (found.sum(axis=1) == 160).all()
    assert 0 in again.streams.seasons.judged
    shadow = again.streams.shadows.maybe_of(0)
    assert shadow is not None
    assert shadow.baseline.hours is not None
    assert np.array_equal(shadow.baseline.hours, old.hours)


def test_a_baseline_in_the_shadow_is_judged_by_the_hour_too(week: State) -> None:
    stand = Stand(seasonal(), restored=week)
    baseline = stand.streams.baselines[0]
    stand.streams.adopt(0, baseline)
    stand.streams.shade(0, baseline, stand.now_ns + WEEK_NS)
    stand.run(30)
    stand = Stand(seasonal(), restored=save(stand.streams), seed=2)
    stand.run(100)
    streams = stand.streams
    shadow = streams.shadows.maybe_of(0)
    assert shadow is not None
    assert shadow.alarms == 0
    ours, theirs = streams.bank, streams.shadows.bank
    for name in ("log_m", "ewma", "evidence"):
        assert np.array_equal(getattr(ours, name)[0], getattr(theirs, name)[shadow.slot]), name
    stand.run(60, worse)
    assert shadow.alarms >= 1


def test_a_week_that_was_not_steady_is_learned_again(week: State) -> None:
    streams = Stand(seasonal(), restored=week).streams
    rng = np.random.default_rng(1)
    pairs = rng.multinomial(2_000, [0.5, 0.5], (HOURS, PARTS))
    # In ten hours the second part is of another law.
    pairs[30:40, 1] = rng.multinomial(2_000, [0.02, 0.98], 10)
    for refusals in range(REFUSALS_MAX + 1):
        streams.collect(0)
        rhythm_of = streams.seasons.rhythms[0]
        rhythm_of.table[:, :, [SCORE_BIN, SCORE_BIN + 20]] = pairs
        rhythm_of.first = 0
        streams.seasons.is_due = True
        assert streams.collections[0].refusals == refusals
        frozen = streams.learn()
    assert frozen == [0]
    assert streams.candidates[0].unsteady


def test_hours_of_a_file_judge_from_the_first_event_on(week: State) -> None:
    learned_by = Stand(seasonal(), restored=week).streams.baselines[0]
    part_of = learned_by.counts // 4
    item = Reference(
        version="1.0",
        signal="confidence",
        type=SignalType.DOUBLE,
        window_ns=(START_NS, START_NS + WEEK_NS),
        blocks=np.array([part_of, part_of, part_of, learned_by.counts - 3 * part_of]),
        baseline=learned_by,
    )
    text = write(References(model="damage-net", creator="test", items=(item,)))
    file = BaselineFile(path=Path("damage-net.json"), content=text.encode())
    rule = DriftRule(season=Season.HOUR_OF_WEEK, baseline=file)
    stand = Stand(plan(contract(drift=rule, slos=())), seed=7)
    assert sorted(stand.streams.seasons.judged) == [0]
    stand.run(24 * 4)
    assert stand.alarms == []
    assert stand.streams.bank.ticks[0] == 24 * 4 - 1
    stand.run(12, worse)
    assert stand.alarms[0] == "confidence"
    assert 0 not in stand.streams.collections


def test_late_events_reach_the_counts_alone(learned: State) -> None:
    late, quiet = (Site(seasonal(), seed=8, restored=learned) for _ in range(2))
    for site in (late, quiet):
        site.run(8)
    number, streams = late.number(), late.measure.streams
    before = streams.counts(number).sum()
    batch = late.fleet.batch(
        late.now_ns, late.rng.beta(2, 6, SIZE), brightness=late.rng.beta(2, 2, SIZE)
    )
    batch.spans["end_ns"] = late.now_ns - LATE_NS - 1
    batch.spans["start_ns"] = batch.spans["end_ns"]
    late.measure.observe(batch)
    assert streams.counts(number).sum() == before + SIZE
    assert streams.lanes[streams.items[number].lane].open[streams.items[number].row].sum() == SIZE
    assert late.measure.snapshot().counters.drift_late == SIZE
    late.measure.streams.turn(late.now_ns + SECOND_NS * 10)
    quiet.measure.streams.turn(late.now_ns + SECOND_NS * 10)
    # The tick that closes next holds what came in time alone.
    row = np.array([number])
    ours, theirs = streams.bank.state(row), quiet.measure.streams.bank.state(row)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


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
