"""What is known of hours survives a restart, a change of contracts and a merge, or is refused."""

import numpy as np
import pytest

from gateway.contract.schema import DriftRule, Season
from gateway.errors import CorruptDataError
from gateway.measure import Measure
from gateway.measure.drift import seasons
from gateway.measure.drift.attribution import maybe_attribution
from gateway.measure.drift.baseline import baseline_id, freeze
from gateway.measure.drift.promote import maybe_promote
from gateway.measure.drift.seasonal import HOUR_NS
from gateway.measure.drift.state import merge, save
from gateway.measure.state import State, pack_json, unpack_json
from tests.unit.measure.build import contract, plan
from tests.unit.measure.drift.stand import (
    SETTINGS,
    SIZE,
    Stand,
    same,
    seasonal,
)
from tests.unit.measure.drift.test_inclusion import HALF, NONE
from tests.unit.measure.drift.test_inclusion import SETTINGS as SAMPLED
from tests.unit.measure.drift.test_inclusion import Site as Sampled


def test_what_was_learned_without_a_season_is_learned_anew_with_one() -> None:
    plain = Stand(seasonal(Season.NONE))
    plain.run(80, lambda _: (8, 2))
    assert sorted(plain.streams.baselines) == [0, 1, 2]
    state = save(plain.streams)
    stand = Stand(seasonal(), restored=state)
    assert not stand.streams.baselines
    assert sorted(stand.streams.seasons.rhythms) == [0, 1, 2]
    assert stand.streams.counts(0).sum() == 80 * SIZE
    back = Stand(seasonal(Season.NONE), restored=save(stand.streams))
    assert not back.streams.seasons.rhythms
    assert sorted(back.streams.collections) == [0, 1, 2]
    back.run(13, lambda _: (8, 2))
    assert not back.streams.baselines
    back.run(70, lambda _: (8, 2))
    assert sorted(back.streams.baselines) == [0, 1, 2]
    assert back.streams.baselines[0].events >= SETTINGS.baseline_events


def test_a_state_from_before_there_were_seasons_is_read() -> None:
    plain = Stand(seasonal(Season.NONE))
    plain.run(80, lambda _: (8, 2))
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


def test_a_candidate_that_was_collected_without_a_season_begins_anew(week: State) -> None:
    plain = Stand(seasonal(Season.NONE), restored=week)
    plain.streams.collect(0)
    plain.run(3)
    stand = Stand(seasonal(), restored=save(plain.streams))
    assert sorted(stand.streams.baselines) == [0, 1, 2]
    assert sorted(stand.streams.seasons.rhythms) == [0]
    lane = stand.streams.lanes[stand.streams.items[0].lane]
    assert lane.seen[0] == 0


def test_weights_that_come_late_mix_up_no_tables_and_no_turns() -> None:
    site = Sampled(seasonal())
    for version in ("1.0", "2.0"):
        site.run(3, [NONE], version=version)
    for _ in range(3):
        site.now_ns += HOUR_NS // 4
        site.run(2, [HALF], version="1.0")
        site.run(1, [HALF], version="2.0")
        site.run(1, [HALF], version="3.0")
    state = site.measure.state()
    again = Measure(site.plan, SAMPLED)
    again.restore(state)
    assert same(again.state(), state)
    one, two = site.measure.streams, again.streams
    # The weights of 1.0 were opened before the signals of 3.0, and after them in the restart.
    assert [each.key for each in one.items] != [each.key for each in two.items]
    tables = [
        {each.items[number].key: rhythm.table for number, rhythm in each.seasons.rhythms.items()}
        for each in (one, two)
    ]
    assert same(*({str(key): table for key, table in each.items()} for each in tables))
    turns = [
        [each.items[number].key for number in each.seasons.in_turn(each.seasons.rhythms)]
        for each in (one, two)
    ]
    assert turns[0] == turns[1]


def test_what_was_put_into_the_shadow_without_a_season_cannot_come_back_into_one(
    week: State,
) -> None:
    plain = Stand(seasonal(Season.NONE), restored=week)
    streams = plain.streams
    learned, counts = streams.baselines[0], streams.counts(0)
    streams.candidates[0] = other = freeze(streams.grid(0), counts, [counts])
    key = streams.items[0].key
    for each in (other, learned):
        assert maybe_promote(streams, baseline_id(*key, each.digest), plain.now_ns) == 0
    assert streams.baselines[0] is learned
    assert streams.shadows.maybe_of(0) is not None
    stand = Stand(seasonal(), restored=save(streams))
    assert stand.streams.baselines[0].digest == learned.digest
    assert stand.streams.shadows.maybe_of(0) is None
    assert maybe_promote(stand.streams, baseline_id(*key, other.digest), stand.now_ns) is None
    stand.run(3)


def test_a_rhythm_is_no_change_that_lies_in_classes(week: State) -> None:
    rule = DriftRule(season=Season.HOUR_OF_WEEK, conditional_classes=1)
    stand = Stand(plan(contract(drift=rule, slos=())), restored=week)
    streams = stand.streams
    apart = streams.number_of("damage-net", "1.0", "confidence|ok")
    assert apart is not None
    # All events of the stand are of this class.
    streams.stop_collecting(apart)
    streams.adopt(apart, streams.baselines[0])
    stand.run(24 * 4)
    found = []
    for _ in range(24):
        stand.run(4)
        split = maybe_attribution(streams, 0)
        assert split is not None
        found.append(abs(split.given_class))
    assert max(found) < 0.02, found
    stand.run(8, lambda _: (2, 8))
    split = maybe_attribution(streams, 0)
    assert split is not None
    assert split.given_class > 0.1
