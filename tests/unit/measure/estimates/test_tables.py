"""Labelled tables against a recount, over days, changes, restarts and two sites."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gateway.contract.plan import Plan
from gateway.measure.estimates.tables import DAY_NS, Tables, merge, references
from gateway.measure.groups import Groups
from gateway.measure.labels.predictions import NO_SCORE
from gateway.measure.labels.rules import Outcome
from tests.unit.measure.build import START_NS, contract, plan

PLAN = plan(contract("a"), contract("b"))
NAMES = (("a", "1"), ("a", "2"), ("b", "1"))


def groups_of(the_plan: Plan = PLAN, names: tuple[tuple[str, str], ...] = NAMES) -> Groups:
    groups = Groups([each.model for each in the_plan.contracts])
    groups.load(names)
    return groups


def outcome(
    group: int, score: int, is_right: bool, at_ns: int, was_right: bool | None = None
) -> Outcome:
    return Outcome(
        group=group,
        contract=int(groups_of().contract[group]),
        score=score,
        is_right=is_right,
        was_right=was_right,
        arrival_ns=at_ns,
    )


def story(seed: int, count: int = 3_000) -> list[Outcome]:
    """Labels of ten days in the order of arrival, some of which are changed later."""
    rng = np.random.default_rng(seed)
    made: list[Outcome] = []
    changeable: list[Outcome] = []
    for at_ns in (START_NS + np.sort(rng.integers(0, 10 * DAY_NS, count))).tolist():
        if changeable and rng.random() < 0.2:
            old = changeable.pop(int(rng.integers(len(changeable))))
            made.append(outcome(old.group, old.score, not old.is_right, at_ns, old.is_right))
            continue
        group, score = int(rng.integers(3)), int(rng.integers(128))
        # Missing, odd or without a confidence.
        score = int(rng.choice([128, 129, NO_SCORE])) if rng.random() < 0.1 else score
        made.append(outcome(group, score, bool(rng.random() < score / 128), at_ns))
        changeable.append(made[-1])
    return made


def play(tables: Tables, outcomes: list[Outcome]) -> Tables:
    for each in outcomes:
        tables.turn(each.arrival_ns)
        tables.take(each)
    return tables


def restored(tables: Tables, the_plan: Plan = PLAN) -> Tables:
    fresh = Tables(the_plan)
    fresh.restore(tables.state(groups_of()), groups_of(the_plan))
    return fresh


def test_tables_equal_a_recount(seed: int) -> None:
    outcomes = story(seed)
    tables = play(Tables(PLAN), outcomes)
    total: Counter[tuple[int, int, int]] = Counter()
    recent: Counter[tuple[int, int, int]] = Counter()
    last_day = outcomes[-1].arrival_ns // DAY_NS
    for each in outcomes:
        if each.score >= 128:
            continue
        total[each.group, each.score, 1 - each.is_right] += 1
        if each.was_right is not None:
            total[each.group, each.score, 1 - each.was_right] -= 1
        elif each.arrival_ns // DAY_NS >= last_day - 1:
            recent[each.group, each.score, 1 - each.is_right] += 1
    for group in range(3):
        for score in range(128):
            for side in range(2):
                place = (group, score, side)
                assert tables.total[place] == total[place]
                assert tables.recent(group)[score, side] == recent[place]
    assert sum(recent.values()) > 100


def test_a_pause_of_days_leaves_nothing_recent() -> None:
    tables = play(Tables(PLAN), [outcome(0, 100, True, START_NS)])
    tables.turn(START_NS + DAY_NS)
    assert tables.recent(0).sum() == 1
    tables.turn(START_NS + 3 * DAY_NS)
    assert tables.recent(0).sum() == 0
    assert tables.total[0].sum() == 1


@pytest.mark.parametrize("cut", [0, 1, 700, 3_000])
def test_a_restart_anywhere_changes_nothing(seed: int, cut: int) -> None:
    outcomes = story(seed)
    whole = play(Tables(PLAN), outcomes).state(groups_of())
    parts = play(restored(play(Tables(PLAN), outcomes[:cut])), outcomes[cut:]).state(groups_of())
    assert whole.keys() == parts.keys()
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)


def test_two_sites_add_by_name_and_day(seed: int) -> None:
    outcomes = story(seed)
    # The halves of a change may be of two sites, so there are none here.
    firsts = [each for each in outcomes if each.was_right is None]
    whole = play(Tables(PLAN), firsts)
    sides = [play(Tables(PLAN), firsts[at::2]) for at in (0, 1)]
    joined = merge(*(each.state(groups_of()) for each in sides))
    both = Tables(PLAN)
    both.restore(joined, groups_of())
    for name in ("total", "today", "before"):
        assert np.array_equal(getattr(both, name)[:3], getattr(whole, name)[:3]), name
    assert all(each.log_evidence == 0 for each in both.wagers)


def test_the_day_of_the_site_that_is_behind_becomes_yesterday() -> None:
    behind = play(Tables(PLAN), [outcome(0, 9, True, START_NS)])
    ahead = play(Tables(PLAN), [outcome(2, 9, True, START_NS + DAY_NS)])
    for order in ((behind, ahead), (ahead, behind)):
        both = Tables(PLAN)
        both.restore(merge(*(each.state(groups_of()) for each in order)), groups_of())
        assert (both.today[0].sum(), both.before[0].sum()) == (0, 1)
        assert (both.today[2].sum(), both.before[2].sum()) == (1, 0)


def test_what_has_no_contract_any_more_is_let_go(seed: int) -> None:
    tables = play(Tables(PLAN), story(seed))
    other = plan(contract("b"))
    fresh = restored(tables, other)
    assert not fresh.total[:2].any()
    assert np.array_equal(fresh.total[2], tables.total[2])
    assert fresh.wagers[2] == tables.wagers[2]


def test_a_change_of_what_is_not_counted_changes_nothing() -> None:
    tables = play(Tables(PLAN), [outcome(0, 5, True, START_NS, was_right=False)])
    assert not tables.total.any()


def test_the_reference_is_the_own_version_or_the_newest_before_it() -> None:
    names = (("a", "1"), ("b", "1"), ("a", "2"), ("a", "3"))
    groups, tables = groups_of(names=names), Tables(PLAN)
    for group, labels in enumerate((5, 9, 1, 0)):
        for _ in range(labels):
            tables.take(replace(outcome(0, 5, True, START_NS), group=group))
    assert references(tables, groups, 5) == [0, 1, 0, 0]
    assert references(tables, groups, 1) == [0, 1, 2, 2]
    assert references(tables, groups, 6) == [None, 1, None, None]
