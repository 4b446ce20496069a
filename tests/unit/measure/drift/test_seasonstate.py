"""What is known of hours survives a restart, a change of contracts and a merge, or is refused."""

import numpy as np
import pytest

from gateway.contract.schema import Season
from gateway.errors import CorruptDataError
from gateway.measure.drift import seasons
from gateway.measure.drift.state import merge, save
from gateway.measure.state import State, pack_json, unpack_json
from tests.unit.measure.drift.stand import (
    SETTINGS,
    SIZE,
    Stand,
    seasonal,
)


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
