"""Counts of inferences against a recount, over borders of months and leap days."""

from collections import Counter
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

import numpy as np
import pytest

from gateway.measure.costs import state as coststate
from gateway.measure.costs.costs import (
    HOUR_NS,
    MONTHS_BACK,
    Costs,
)
from gateway.measure.costs.months import DAY_NS, month_name, month_of, month_start_ns, months_of
from tests.conftest import FUZZ
from tests.unit.measure import build
from tests.unit.measure.build import SECOND_NS
from tests.unit.measure.costs.costed import (
    FEATURES,
    INDEX,
    KEY,
    NAMES,
    TEN_YEARS_NS,
    Job,
    at,
    cost,
    cost_plan,
    costly,
    infer,
    recounted,
    shown,
)

EVENTS: Final = 100_000 if FUZZ else 5000


@pytest.mark.parametrize(
    "when",
    [
        (1970, 1, 1),
        (2024, 2, 29, 23, 59, 59),
        (2024, 3, 1),
        (2027, 12, 31, 23, 59, 59),
        (2100, 2, 28),
        (2100, 3, 1),
    ],
)
def test_months_are_the_calendar_s(when: tuple[int, ...]) -> None:
    now_ns = at(*when)
    month = month_of(now_ns)
    assert month_name(month) == f"{when[0]:04d}-{when[1]:02d}"
    assert month_start_ns(month) == at(when[0], when[1], 1)
    assert month_start_ns(month) <= now_ns < month_start_ns(month + 1)
    assert month_of(month_start_ns(month + 1) - 1) == month


def test_every_month_of_a_century_begins_where_datetime_says() -> None:
    for month in range(12 * 130):
        year, number = divmod(month, 12)
        assert month_start_ns(month) == at(1970 + year, number + 1, 1)
    starts = np.array([month_start_ns(month) for month in range(1, 600)])
    assert months_of(starts).tolist() == list(range(1, 600))
    assert months_of(starts - 1).tolist() == list(range(599))


def play(costs: Costs, rng: np.random.Generator, events: int, begin_ns: int) -> Counter[Any]:
    """Count random inferences over two years; return what a recount says."""
    expected: Counter[Any] = Counter()
    now_ns = begin_ns
    for _ in range(events // 10):
        now_ns += int(rng.exponential(2 * 365 * DAY_NS / (events / 10)))
        late = rng.choice([0, HOUR_NS, 3 * DAY_NS, 40 * DAY_NS, TEN_YEARS_NS, -TEN_YEARS_NS], 10)
        event_ns = now_ns - (late * rng.random(10)).astype(np.int64)
        series = rng.integers(0, 5, 10)
        owner = [NAMES[each][0] if each < 4 else "ab"[each % 2] for each in series.tolist()]
        contract = np.array([INDEX[each] for each in owner])
        code = np.where(contract == INDEX["a"], rng.integers(0, 3, 10), 0)
        costs.advance(now_ns)
        wanted = np.flatnonzero(contract != INDEX["free"])
        costs.count(
            contract=contract[wanted],
            series=series[wanted],
            names=NAMES,
            event_ns=event_ns[wanted],
            code=code[wanted],
        )
        current = datetime.fromtimestamp(now_ns // SECOND_NS, UTC)
        this = current.year * 12 + current.month - 1 - 1970 * 12
        for row in wanted.tolist():
            then = datetime.fromtimestamp(int(event_ns[row]) // SECOND_NS, UTC)
            month = then.year * 12 + then.month - 1 - 1970 * 12
            if not this - MONTHS_BACK <= month <= this + 1:
                expected["misdated"] += 1
                month = this
            version = NAMES[int(series[row])][1]
            expected[(month, owner[row], version, int(code[row]))] += 1
    expected["now"] = this
    return expected


@pytest.mark.parametrize("number", range(2))
def test_counts_equal_a_recount(seed: int, number: int) -> None:
    costs = Costs(cost_plan())
    expected = play(costs, np.random.default_rng(seed + number), EVENTS, at(2027, 1, 1))
    assert costs.misdated == expected.pop("misdated") > 0
    this = expected.pop("now")
    kept = {key: many for key, many in expected.items() if key[0] >= this - MONTHS_BACK}
    assert recounted(costs) == kept
    assert len(costs.counts) <= MONTHS_BACK + 2
    fresh = Costs(cost_plan())
    coststate.load(fresh, coststate.save(costs))
    again = coststate.save(fresh)
    for name, each in coststate.save(costs).items():
        assert np.array_equal(again[name], each), name


def test_two_sites_add_to_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    begin_ns = at(2028, 2, 20)
    whole, sites = Costs(cost_plan()), [Costs(cost_plan()), Costs(cost_plan())]
    now_ns = begin_ns
    for step in range(400):
        now_ns += int(rng.exponential(HOUR_NS))
        late_ns = int(rng.integers(0, 10)) * HOUR_NS
        series = int(rng.integers(0, 3))
        job = Job(at_ns=now_ns, job=f"job-{step}", cost=float(rng.random()), version=str(step % 3))
        for each in (whole, sites[step % 2]):
            infer(each, now_ns - late_ns, now_ns, count=5, series=series)
            each.bill(job, now_ns)
    merged = Costs(cost_plan())
    coststate.load(merged, coststate.merge(coststate.save(sites[0]), coststate.save(sites[1])))
    merged.first_ns[:] = whole.first_ns
    assert recounted(merged) == recounted(whole)
    for contract in whole.tariffs:
        assert merged.standing(contract, now_ns) == whole.standing(contract, now_ns)
    assert merged.sums == whole.sums


def test_the_borders_of_a_month_are_exact() -> None:
    costs = Costs(cost_plan())
    border_ns = at(2028, 3, 1)  # after a leap day
    for event_ns in (border_ns - 1, border_ns, border_ns - DAY_NS, border_ns + SECOND_NS):
        infer(costs, event_ns, border_ns + 2 * SECOND_NS)
    months = {view.month: view.inferences for view in shown(costs).months}
    assert months == {"2028-02": 2, "2028-03": 2}
    assert costs.misdated == 0


def test_a_clock_that_is_ahead_may_be_in_the_next_month() -> None:
    costs = Costs(cost_plan())
    border_ns = at(2028, 3, 1)
    infer(costs, border_ns + SECOND_NS, border_ns - SECOND_NS)
    assert (costs.misdated, shown(costs).spent) == (0, 0.0)
    costs.advance(border_ns)
    assert shown(costs).spent == 0.1


@pytest.mark.parametrize("off_ns", [TEN_YEARS_NS, -TEN_YEARS_NS])
def test_inferences_dated_years_off_cost_where_they_came(off_ns: int) -> None:
    costs = Costs(cost_plan())
    now_ns = at(2028, 3, 15)
    infer(costs, now_ns + off_ns, now_ns, count=3)
    assert costs.misdated == 3
    assert [(view.month, view.inferences) for view in shown(costs).months] == [("2028-03", 3)]


def test_money_is_exact() -> None:
    costs = Costs(cost_plan())
    now_ns = at(2028, 3, 15)
    infer(costs, now_ns, now_ns, count=3)
    assert costs.spent(INDEX["a"], month_of(now_ns)) == Fraction(3, 10)
    costs.bill(Job(at_ns=now_ns, cost=0.1), now_ns)
    assert costs.spent(INDEX["a"], month_of(now_ns)) == Fraction(4, 10)


def test_features_are_read_from_spans_and_the_rest_is_other() -> None:
    the_plan = cost_plan()
    costs = Costs(the_plan)
    now_ns = build.START_NS
    texts: list[Any] = ["search", "audit", "audit", "cake", 7, None]
    spans = [
        build.span(1 + row, end_ns=now_ns, attributes={} if each is None else {KEY: each})
        for row, each in enumerate(texts)
    ]
    batch = build.batch(the_plan, build.payload(build.request(spans), arrival_ns=now_ns))
    for rows in (None, np.array([1, 3])):
        size = len(spans) if rows is None else len(rows)
        for model, series in (("a", 0), ("b", 2), ("free", 3)):
            costs.observe(
                batch,
                rows,
                contract=np.full(size, INDEX[model]),
                series=np.full(size, series),
                names=NAMES,
                event_ns=np.full(size, now_ns),
            )
    parts = {part.feature: part.inferences for part in shown(costs).parts}
    assert parts == {"search": 1, "audit": 3, "other": 4}
    assert sum(part.share_ratio or 0 for part in shown(costs).parts) == pytest.approx(1.0)
    assert [(part.feature, part.inferences) for part in shown(costs, "b").parts] == [("other", 8)]
    assert {name for name, _ in costs.groups.names} == {"a", "b"}


def test_a_plan_with_other_features_keeps_the_counts() -> None:
    before = Costs(cost_plan())
    now_ns = at(2028, 3, 15)
    before.advance(now_ns)
    before.count(
        contract=np.full(3, INDEX["a"]),
        series=np.zeros(3, dtype=np.int64),
        names=NAMES,
        event_ns=np.full(3, now_ns),
        code=np.array([0, 1, 2]),
    )
    changed = cost(feature=KEY, features=("audit", "chat", "sort"))
    after = Costs(build.plan(costly("a", changed)))
    coststate.load(after, coststate.save(before))
    assert recounted(after) == {
        (month_of(now_ns), "a", "1", 0): 2,
        (month_of(now_ns), "a", "1", 1): 1,
    }
    bare = Costs(build.plan())
    coststate.load(bare, coststate.save(after))
    assert not recounted(bare)


def test_looking_at_costs_changes_no_byte(seed: int) -> None:
    states = []
    for looks in (False, True):
        rng = np.random.default_rng(seed)
        costs = Costs(cost_plan())
        now_ns = at(2027, 11, 1)
        for step in range(300):
            pause_ns = int(rng.exponential(10 * HOUR_NS))
            if looks and step:
                costs.troubles(now_ns + pause_ns // 2)
                shown(costs, now_ns=now_ns + pause_ns // 2)
            now_ns += pause_ns
            infer(costs, now_ns - int(rng.integers(0, 200)) * HOUR_NS, now_ns, count=3)
            costs.bill(Job(at_ns=now_ns, job=str(step % 50), cost=step / 7), now_ns)
        states.append({name: each.tobytes() for name, each in coststate.save(costs).items()})
    assert states[0] == states[1]


def test_one_model_alone_reads_its_features_from_all_spans() -> None:
    the_plan = build.plan(costly("a", cost(feature=KEY, features=FEATURES)))
    costs = Costs(the_plan)
    now_ns = build.START_NS
    spans = [build.span(1 + row, end_ns=now_ns, attributes={KEY: "audit"}) for row in range(3)]
    batch = build.batch(the_plan, build.payload(build.request(spans), arrival_ns=now_ns))
    for rows in (None, np.array([2])):
        size = 3 if rows is None else 1
        costs.observe(
            batch,
            rows,
            contract=np.zeros(size, dtype=np.int64),
            series=np.zeros(size, dtype=np.int64),
            names=NAMES[:1],
            event_ns=np.full(size, now_ns),
        )
    assert recounted(costs) == {(month_of(now_ns), "a", "1", 2): 4}


def test_an_empty_batch_is_no_inference() -> None:
    costs = Costs(cost_plan())
    infer(costs, at(2028, 3, 1), at(2028, 3, 1), count=0)
    assert shown(costs).parts == ()
    assert shown(costs).projected is None
