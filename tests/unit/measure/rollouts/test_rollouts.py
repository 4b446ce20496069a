"""Whom an inference charges, what is told of it, and that no rollout pays for another."""

from typing import Any

import numpy as np
import pytest

from gateway.batch import AnomalyKind, Severity
from gateway.measure.rollouts import rollouts as module
from gateway.measure.rollouts.rollout import STRATA_MAX, RolloutState
from gateway.measure.state import Array
from gateway.otlp.declared import (
    DeviceOutcome,
    Events,
    RolloutEnd,
    RolloutOutcome,
    RolloutStart,
)
from tests.unit.measure.build import DAY_S, SECOND_NS, START_NS
from tests.unit.measure.rollouts.rolling import HOUR_NS, MINUTE_NS, MODEL, Kind, Site


def test_nothing_is_looked_at_while_nothing_is_rolled_out() -> None:
    site = Site()
    assert not site.rollouts.is_counting
    nothing: Any = None
    site.rollouts.add(
        nothing,
        nothing,
        contract=nothing,
        series=nothing,
        event_ns=nothing,
        failed=nothing,
        duration_ns=nothing,
        cold=nothing,
    )


def _naive(site: Site, starts: list[RolloutStart], end_ns: int, rows: list[Any]) -> Array:
    """Count by the words of the law. Shape: (rollouts, objectives, 4)."""
    counts = np.zeros((len(starts), 3, 4), dtype=np.int64)
    ids = {start.rollout for start in starts}
    for kind, event_ns, failed, duration_ns, cold in rows:
        version, near, far = site.kinds[kind]
        carried = near or far
        running = [each for each in starts if each.at_ns <= event_ns <= end_ns]
        mine = [
            each
            for each in running
            if carried == each.rollout or (not carried and version == each.version)
        ]
        taken = any(carried == each.rollout or version == each.version for each in running)
        bad = (failed, duration_ns > 100_000_000, cold)
        for place, start in enumerate(starts):
            if start not in running:
                continue
            if mine == [start]:
                counts[place, :, 0] += bad
                counts[place, :, 1] += 1
            elif not taken and version == start.previous:
                counts[place, :, 2] += bad
                counts[place, :, 3] += 1
    assert ids
    return counts


def test_rows_charge_whom_a_naive_recount_says(seed: int) -> None:
    kinds: tuple[Kind, ...] = tuple(
        (version, near, far)
        for version in ("v1", "v2", "v3", "unknown")
        for near in ("", "r-1", "stale")
        for far in ("", "r-2", "stale")
    )
    site = Site(*kinds)
    site.start("r-1", "v2")
    site.now_ns += 10 * MINUTE_NS
    site.start("r-2", "v3")
    site.now_ns += 20 * MINUTE_NS
    end_ns = site.now_ns
    site.end("r-1")
    site.end("r-2")
    rng = np.random.default_rng(seed)
    size = 6_000
    kind = rng.integers(0, len(kinds), size)
    event_ns = START_NS + rng.integers(-10 * MINUTE_NS, 45 * MINUTE_NS, size)
    failed = rng.random(size) < 0.2
    duration_ns = rng.integers(0, 200_000_000, size)
    cold = rng.random(size) < 0.1
    starts = [site.rollouts.table[name].start for name in ("r-1", "r-2")]
    rows = list(
        zip(*(each.tolist() for each in (kind, event_ns, failed, duration_ns, cold)), strict=True)
    )
    for chosen in np.array_split(rng.permutation(size), 7):
        site.add(kind[chosen], event_ns[chosen], failed[chosen], duration_ns[chosen], cold[chosen])
    expected = _naive(site, starts, end_ns, rows)
    found = np.stack([site.rollouts.table[name].counts.sum(axis=0) for name in ("r-1", "r-2")])
    assert np.array_equal(found, expected)
    assert expected[:, :, 1].min() > 100
    assert expected[:, :, 3].min() > 100


def test_two_rollouts_at_once_never_charge_each_other() -> None:
    site = Site()
    site.run(6 * HOUR_NS, {0: (1, 200)})
    site.start("r-1", "v2")
    site.start("r-2", "v3")
    site.run(HOUR_NS, {0: (1, 100), 1: (20, 40), 2: (0, 40)})
    assert site.spent("r-1") > 0.3
    assert site.spent("r-2") == 0
    assert site.state("r-1") is RolloutState.HALTED
    assert site.state("r-2") is RolloutState.ACTIVE
    # The period's budget is charged with all that was bad, the rollout with its excess alone.
    found = site.rollouts.table["r-1"].spends[0]
    good, bad = site.objectives.counts(0, 30 * DAY_S)
    assert found.excess == pytest.approx(60 * (20 - 0.4), rel=1e-9)
    assert site.spent("r-1") == pytest.approx(found.excess / (0.01 * (good + bad)), rel=1e-12)


def test_an_hour_that_is_bad_for_all_charges_almost_nothing(seed: int) -> None:
    site = Site()
    site.run(6 * HOUR_NS, {0: (0, 200)})
    site.start()
    rng = np.random.default_rng(seed)
    for hour in range(3):
        for _ in range(60):
            share = 0.3 if hour == 1 else 0.0
            split = (160, 40) if hour == 0 else (40, 160)
            bad = [int(rng.binomial(each, share)) for each in split]
            site.run(MINUTE_NS, {0: (bad[0], split[0]), 1: (bad[1], split[1])})
    found = site.rollouts.table["r-1"].spends[0]
    assert found.rollout_bad > 2_000
    assert found.excess < 0.05 * found.rollout_bad
    assert site.state() is RolloutState.ACTIVE


def test_a_rollout_is_told_within_two_judgements_of_crossing() -> None:
    site = Site()
    site.run(6 * HOUR_NS, {0: (0, 600)})
    site.start(allocation=0.1)
    crossed: dict[str, int] = {}
    told: dict[str, int] = {}
    for judgement in range(400):
        begin = site.now_ns
        event_ns = begin + np.arange(100, dtype=np.int64) * 100_000_000
        site.add(np.repeat([0, 1], 50), event_ns, np.arange(100) >= 98)
        site.now_ns = begin + 10 * SECOND_NS
        site.judge()
        spent = site.spent()
        if spent >= 0.05:
            crossed.setdefault("warned", judgement)
        if spent >= 0.1:
            crossed.setdefault("halted", judgement)
        told.setdefault(site.state().value, judgement)
    assert {name: told[name] - at for name, at in crossed.items()} == {"warned": 1, "halted": 1}


def test_a_halt_is_a_page_that_says_why() -> None:
    site = Site()
    site.run(6 * HOUR_NS, {0: (0, 100)})
    site.start()
    (told,) = site.run(10 * MINUTE_NS, {0: (0, 50), 1: (25, 50)})
    assert (told.kind, told.severity, told.subject) == (
        AnomalyKind.ROLLOUT,
        Severity.PAGE,
        "r-1",
    )
    assert told.summary.startswith("halt it: rollout r-1 of damage-net v2")
    assert told.numbers["rollout_bad_events"] == 250
    assert told.numbers["control_events"] == 500
    assert told.numbers["excess_events"] == 250
    assert told.numbers["allocation_ratio"] == 0.25
    assert told.numbers["is_confident"] == 1
    assert told.onset_ns > START_NS
    # It stays until the rollout ends, whatever comes after.
    assert site.run(HOUR_NS, {0: (0, 1_000), 1: (0, 50)})
    site.end(outcome=RolloutOutcome.ROLLED_BACK)
    assert not site.run(MINUTE_NS, {0: (0, 50)})


def test_half_of_the_allocation_is_a_ticket_that_goes_when_it_is_less_again() -> None:
    site = Site()
    site.run(12 * HOUR_NS, {0: (0, 100)})
    site.start()
    (told,) = site.run(4 * MINUTE_NS, {0: (0, 50), 1: (30, 50)})
    assert told.severity is Severity.TICKET
    assert told.summary.startswith("watch it")
    assert not site.run(6 * HOUR_NS, {0: (0, 200), 1: (0, 50)})
    assert site.state() is RolloutState.ACTIVE


def test_without_a_control_the_past_counts_and_the_text_says_so() -> None:
    site = Site()
    site.run(6 * HOUR_NS, {0: (1, 100)})
    site.start()
    (told,) = site.run(10 * MINUTE_NS, {1: (50, 100)})
    assert told.severity is Severity.PAGE
    assert "confidence is low" in told.summary
    assert told.numbers["excess_events"] == pytest.approx(1_000 * (0.5 - 0.01), rel=1e-3)


def test_a_rollout_that_begins_without_any_budget_is_told_at_once() -> None:
    site = Site()
    site.run(HOUR_NS, {0: (4, 100)})
    site.start(allocation=0.5)
    (told,) = site.run(MINUTE_NS, {0: (4, 100), 1: (0, 100)})
    assert told.severity is Severity.TICKET
    assert "nothing was left for it" in told.summary
    (told,) = site.run(MINUTE_NS, {0: (4, 100), 1: (50, 100)})
    assert told.severity is Severity.PAGE


def test_few_bad_events_never_halt() -> None:
    site = Site()
    site.run(HOUR_NS, {0: (0, 1)})
    site.start()
    (told,) = site.run(2 * MINUTE_NS, {1: (1, 1)})
    assert told.severity is Severity.TICKET
    assert site.state() is RolloutState.WARNED


def test_an_allocation_is_a_part_of_what_is_left_and_comes_back() -> None:
    site = Site()
    # Half of the budget of 1 % is spent.
    site.run(HOUR_NS, {0: (1, 200)})
    for name, version in (("r-1", "v2"), ("r-2", "v3")):
        site.start(name, version)
    shares = [site.rollouts.table[name].allocations[0] for name in ("r-1", "r-2")]
    assert shares == pytest.approx([0.25, 0.125])
    assert site.rollouts.reserved(0) == pytest.approx(0.375)
    site.end("r-1")
    assert site.rollouts.reserved(0) == pytest.approx(0.125)
    site.start("r-3", "v4", allocation=1.0)
    assert site.rollouts.table["r-3"].allocations[0] == pytest.approx(0.375)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "unheard-of"}, "unknown_model"),
        ({"at_ns": START_NS - 2 * DAY_S * SECOND_NS}, "too_old"),
    ],
)
def test_a_start_that_cannot_be_is_counted(changes: dict[str, Any], reason: str) -> None:
    site = Site()
    site.start(**changes)
    assert site.rollouts.refused == {reason: 1}
    assert not site.rollouts.table


def test_what_is_declared_twice_is_counted() -> None:
    site = Site()
    site.start()
    site.now_ns += MINUTE_NS
    site.start()
    assert site.rollouts.refused == {"repeated": 1}
    site.start(version="v3")
    assert site.rollouts.refused["conflict"] == 1
    assert site.rollouts.table["r-1"].start.version == "v2"
    site.end("r-9")
    assert site.rollouts.refused["unknown_rollout"] == 1
    site.end(at_ns=START_NS - 1)
    assert site.rollouts.refused["ends_before_start"] == 1
    assert site.state() is not RolloutState.ENDED
    site.end()
    site.end()
    assert site.rollouts.refused["ended_twice"] == 1


def test_the_order_of_records_does_not_matter() -> None:
    site = Site()
    start = RolloutStart(at_ns=START_NS, rollout="r-1", model=MODEL, version="v2")
    events = Events(
        ends=(RolloutEnd(at_ns=START_NS + 1, rollout="r-1"),),
        outcomes=(DeviceOutcome(at_ns=START_NS, device="d", rollout="r-1", succeeded=True),),
        starts=(start,),
    )
    site.rollouts.declare(events, START_NS)
    assert not site.rollouts.refused
    assert site.state() is RolloutState.ENDED
    assert [(due.good, due.bad) for due in site.rollouts.due(START_NS)] == [(1, 0)]


def test_more_than_the_limit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROLLOUTS_MAX", 2)
    monkeypatch.setattr(module, "ENDED_MAX", 1)
    site = Site()
    for name in ("r-1", "r-2", "r-3"):
        site.start(name)
    assert site.rollouts.refused == {"too_many_rollouts": 1}
    site.end("r-1")
    site.now_ns += 1
    site.end("r-2")
    assert site.rollouts.refused["forgotten"] == 1
    assert list(site.rollouts.table) == ["r-2"]


def test_a_rollout_that_nobody_ends_gives_its_allocation_back() -> None:
    site = Site()
    site.start()
    site.run(MINUTE_NS, {0: (0, 10)})
    assert site.rollouts.reserved(0) > 0
    site.now_ns += module.ACTIVE_NS_MAX
    site.judge()
    assert site.state() is RolloutState.ENDED
    assert site.rollouts.table["r-1"].outcome == "expired"
    assert site.rollouts.refused == {"expired": 1}
    assert site.rollouts.reserved(0) == 0


def test_inferences_of_two_rollouts_of_one_version_need_an_id() -> None:
    site = Site(("v1", "", ""), ("v2", "", ""), ("v2", "", "r-2"))
    site.start("r-1", "v2")
    site.start("r-2", "v2")
    site.run(MINUTE_NS, {0: (0, 10), 1: (10, 10), 2: (0, 10)})
    assert site.rollouts.refused == {"ambiguous_inferences": 10}
    found = [site.rollouts.table[name].spends[0] for name in ("r-1", "r-2")]
    assert [each.rollout_events for each in found] == [0, 10]
    assert [each.control_events for each in found] == [10, 10]


def test_late_events_count_by_their_own_time_for_a_day_after_the_end() -> None:
    site = Site()
    site.start()
    begin = site.now_ns
    site.run(10 * MINUTE_NS, {0: (0, 10)})
    site.end()
    site.now_ns += 23 * HOUR_NS
    site.judge()
    event_ns = np.array([begin - 1, begin, begin + 10 * MINUTE_NS, begin + 10 * MINUTE_NS + 1])
    site.add(np.ones(4, dtype=np.int64), event_ns, np.ones(4, dtype=np.bool_))
    assert site.rollouts.table["r-1"].counts[:, 0, 1].sum() == 2
    site.now_ns += 2 * HOUR_NS
    site.judge()
    assert not site.rollouts.is_counting
    assert site.rollouts.table["r-1"].spends[0].rollout_events == 2


def test_a_long_rollout_keeps_its_counts_in_a_bounded_table() -> None:
    site = Site()
    site.start()
    hours = 24 * 10
    for hour in range(hours):
        event_ns = np.array([START_NS + hour * HOUR_NS, START_NS + hour * HOUR_NS])
        site.add(np.array([0, 1]), event_ns, np.array([False, True]))
    found = site.rollouts.table["r-1"]
    assert len(found.counts) <= STRATA_MAX
    assert found.counts[:, 0].sum(axis=0).tolist() == [hours, hours, 0, hours]
    assert found.width_ns > 300 * SECOND_NS
