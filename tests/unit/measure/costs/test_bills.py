"""Bills of batch jobs, and budgets of months: what is spent, and what will be."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from gateway.batch import AnomalyKind, Severity, Team
from gateway.measure.costs import state as coststate
from gateway.measure.costs.costs import (
    HOUR_NS,
    JOB_VERSIONS_MAX,
    JOBS_MAX,
    Costs,
    Refusal,
)
from gateway.measure.costs.months import month_of
from tests.unit.measure import build
from tests.unit.measure.costs.costed import (
    INDEX,
    NAMES,
    TEN_YEARS_NS,
    Job,
    at,
    cost,
    cost_plan,
    costly,
    infer,
    shown,
)


def steady(hours: int, per_hour: int, *, begin_ns: int, budget: float = 100.0) -> Costs:
    """Costs after some hours at a steady rate, at 0.1 each."""
    the_plan = build.plan(costly("a", cost(budget_per_month=budget)))
    costs = Costs(the_plan)
    for hour in range(hours):
        now_ns = begin_ns + hour * HOUR_NS + 1
        costs.advance(now_ns)
        costs.count(
            contract=np.zeros(per_hour, dtype=np.int64),
            series=np.zeros(per_hour, dtype=np.int64),
            names=NAMES[:1],
            event_ns=np.full(per_hour, now_ns),
            code=None,
        )
    costs.advance(begin_ns + hours * HOUR_NS)
    return costs


def test_the_projection_waits_for_data_and_takes_the_longer_horizon() -> None:
    begin_ns = at(2028, 2, 1)  # the first inference comes after it: the hour is not whole
    for hours, horizon in ((6, None), (7, 6), (100, 6), (168, 6), (169, 168), (400, 168)):
        costs = steady(hours, 10, begin_ns=begin_ns)
        now_ns = begin_ns + hours * HOUR_NS
        standing = costs.standing(0, now_ns)
        assert standing.horizon_h == horizon
        if horizon:
            # One unit of money for each hour, to the end of a February of 29 days.
            assert standing.spent == hours
            assert standing.projected == 29 * 24


def test_a_burst_of_six_hours_does_not_move_a_week_s_rate_much() -> None:
    begin_ns = at(2028, 2, 1)
    costs = steady(200, 10, begin_ns=begin_ns)
    now_ns = begin_ns + 200 * HOUR_NS
    infer_at = now_ns - 2 * HOUR_NS
    before = costs.standing(0, now_ns)
    costs.count(
        contract=np.zeros(1680, dtype=np.int64),
        series=np.zeros(1680, dtype=np.int64),
        names=NAMES[:1],
        event_ns=np.full(1680, infer_at),
        code=None,
    )
    after = costs.standing(0, now_ns)
    assert before.projected is not None
    assert after.projected is not None
    left_h = 29 * 24 - 200
    # 168 more in a week of 168 hours: the rate doubles.
    assert after.projected - before.projected == 168 + left_h


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, None), (799, None), (800, "four fifths"), (999, "four fifths"), (1000, "is spent")],
)
def test_four_fifths_of_a_budget_are_a_ticket_and_never_a_page(
    count: int, expected: str | None
) -> None:
    costs = Costs(cost_plan())
    now_ns = at(2028, 3, 31, 23)
    infer(costs, now_ns, now_ns, count=count)
    troubles = costs.troubles(now_ns)
    if expected is None:
        assert not troubles
        return
    (trouble,) = troubles
    assert expected in trouble.summary
    assert (trouble.kind, trouble.severity) == (AnomalyKind.COST, Severity.TICKET)
    assert (trouble.team, trouble.model) == (Team.ML_ENGINEERING, "a")
    assert trouble.subject == "budget 2028-03"
    assert trouble.numbers["spent"] == count / 10
    assert costs.troubles(at(2028, 4, 1)) == []


def test_a_projection_above_the_budget_is_a_ticket() -> None:
    begin_ns = at(2028, 2, 1)
    now_ns = begin_ns + 24 * HOUR_NS
    assert steady(24, 10, begin_ns=begin_ns, budget=29 * 24.0).troubles(now_ns) == []
    (trouble,) = steady(24, 10, begin_ns=begin_ns, budget=29 * 24 - 0.01).troubles(now_ns)
    assert "will not last" in trouble.summary
    assert trouble.numbers["projected"] == 29 * 24
    assert trouble.numbers["horizon_s"] == 6 * 3600


def test_an_hour_without_any_inference_lowers_the_rate() -> None:
    begin_ns = at(2028, 2, 1)
    costs = steady(48, 10, begin_ns=begin_ns)
    first = costs.standing(0, begin_ns + 48 * HOUR_NS)
    later = costs.standing(0, begin_ns + 51 * HOUR_NS)
    assert first.projected == 29 * 24
    assert later.projected == 48 + Fraction(29 * 24 - 51, 2)


def test_a_budget_of_nothing_is_passed_by_the_first_inference() -> None:
    the_plan = build.plan(costly("a", cost(budget_per_month=0.0)))
    costs = Costs(the_plan)
    costs.advance(at(2028, 2, 1))
    assert costs.troubles(at(2028, 2, 1)) == []
    costs.bill(Job(at_ns=at(2028, 2, 1), cost=0.01), at(2028, 2, 1))
    (trouble,) = costs.troubles(at(2028, 2, 1))
    assert "spent_ratio" not in trouble.numbers


def test_jobs_are_billed_once_and_the_newest_counts() -> None:
    costs = Costs(cost_plan())
    now_ns = at(2028, 3, 15)
    for money, many in ((1.5, 10), (1.5, 10), (2.0, 11)):
        costs.bill(Job(at_ns=now_ns, cost=money, inferences=many), now_ns)
    (view,) = shown(costs).bills
    assert (view.jobs, view.inferences, view.cost) == (1, 11, 2.0)
    assert costs.refused[Refusal.DUPLICATE] == costs.refused[Refusal.CHANGED] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "free"}, Refusal.NO_COST),
        ({"model": "nobody"}, Refusal.NO_COST),
        ({"currency": "USD"}, Refusal.OTHER_CURRENCY),
        ({"cost": float("nan")}, Refusal.INVALID),
        ({"cost": float("inf")}, Refusal.INVALID),
        ({"cost": -1.0}, Refusal.INVALID),
        ({"inferences": -1}, Refusal.INVALID),
    ],
)
def test_jobs_that_cannot_be_billed_are_counted(changes: dict[str, Any], reason: Refusal) -> None:
    costs = Costs(cost_plan())
    now_ns = at(2028, 3, 15)
    costs.bill(Job(**{"at_ns": now_ns, **changes}), now_ns)
    assert costs.refused[reason] == 1
    assert sum(costs.refused.values()) == 1
    assert not costs.sums


def test_a_job_without_cost_needs_no_currency() -> None:
    costs = Costs(cost_plan())
    costs.bill(Job(at_ns=at(2028, 3, 15), cost=0.0, currency=""), at(2028, 3, 15))
    assert shown(costs).bills[0].inferences == 10


def test_a_job_dated_years_off_is_billed_where_it_came() -> None:
    costs = Costs(cost_plan())
    now_ns = at(2028, 3, 15)
    costs.bill(Job(at_ns=now_ns - TEN_YEARS_NS), now_ns)
    assert costs.misdated == 1
    assert shown(costs).spent == 1.5


def test_large_bills_do_not_overflow() -> None:
    costs = Costs(cost_plan())
    now_ns = at(2028, 3, 15)
    for number in range(100):
        costs.bill(Job(at_ns=now_ns, job=str(number), cost=1e12), now_ns)
    fresh = Costs(cost_plan())
    coststate.load(fresh, coststate.save(costs))
    assert fresh.spent(INDEX["a"], month_of(now_ns)) == 100 * 10**12


def test_jobs_and_their_versions_are_bounded() -> None:
    costs = Costs(cost_plan())
    now_ns = at(2028, 3, 15)
    count = max(JOBS_MAX, JOB_VERSIONS_MAX) + 50
    for number in range(count):
        costs.bill(Job(at_ns=now_ns, job=str(number), version=str(number % 3000)), now_ns)
    assert len(costs.bills) <= JOBS_MAX
    assert len(costs.sums) <= JOB_VERSIONS_MAX + 1
    assert sum(each.jobs for each in costs.sums.values()) == count
