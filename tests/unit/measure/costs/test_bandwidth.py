"""Bytes by day, month and period, and what an allowance says of them."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Severity, Team
from gateway.contract.plan import Plan
from gateway.contract.schema import Indicator, Slo
from gateway.measure.costs import meters as meters_room
from gateway.measure.costs.bandwidth import DAYS_KEPT, MONTHS_KEPT, Bandwidth, period_of
from gateway.measure.costs.costs import HOUR_NS
from gateway.measure.costs.meters import Meters
from gateway.measure.costs.months import DAY_NS
from gateway.measure.costs.views import meters_view
from tests.conftest import FUZZ
from tests.unit.measure import build
from tests.unit.measure.build import DAY_S, SECOND_NS
from tests.unit.measure.costs.costed import at

STEPS: Final = 20_000 if FUZZ else 1500


def slo(name: str, window: float, allowance: int) -> Slo:
    """A bandwidth objective."""
    return Slo(
        name=name,
        indicator=Indicator.BANDWIDTH,
        objective=1.0,
        window=window,
        allowance=allowance,
    )


def bandwidth_plan() -> Plan:
    """A model with three allowances, and one with none."""
    return build.plan(
        build.contract(
            "a",
            slos=(
                slo("day", DAY_S, 1000),
                slo("week", 7 * DAY_S, 5000),
                slo("month", 30 * DAY_S, 20_000),
            ),
        ),
        build.contract("b", slos=()),
    )


def bytes_of(a: int, b: int = 0, none: int = 0) -> np.ndarray:
    """Bytes of each contract and of none."""
    return np.array([a, b, none], dtype=np.int64)


def test_periods_begin_at_midnight_on_monday_and_on_the_first() -> None:
    now_ns = at(2028, 2, 29, 13, 45)  # a Tuesday
    day_ns = SECOND_NS * DAY_S
    assert period_of(day_ns, now_ns) == (at(2028, 2, 29), at(2028, 3, 1))
    assert period_of(7 * day_ns, now_ns) == (at(2028, 2, 28), at(2028, 3, 6))
    for days in (28, 29, 30, 31):
        assert period_of(days * day_ns, now_ns) == (at(2028, 2, 1), at(2028, 3, 1))
    begin, end = period_of(90 * day_ns, now_ns)
    assert end - begin == 90 * day_ns
    assert begin <= now_ns < end


def test_sums_equal_a_recount(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bandwidth = Bandwidth(bandwidth_plan())
    now_ns = at(2027, 11, 20)
    days: Counter[object] = Counter()
    months: Counter[object] = Counter()
    total = np.zeros(3, dtype=np.int64)
    for _ in range(STEPS):
        now_ns += int(rng.exponential(0.4 * DAY_NS))
        sent = rng.integers(0, 1 << 40, 3)
        bandwidth.spent(sent, now_ns)
        total += sent
        when = datetime.fromtimestamp(now_ns // SECOND_NS, UTC)
        days[when.date()] += int(sent[0])
        months[(when.year, when.month)] += int(sent[0])
        monday = when.date() - timedelta(days=when.weekday())
        week = sum(days[monday + timedelta(days=each)] for each in range(7))
        found = [bandwidth.pace(number, now_ns).spent for number in range(3)]
        assert found == [days[when.date()], week, months[(when.year, when.month)]]
    assert bandwidth.total.tolist() == total.tolist()
    assert len(bandwidth.days) <= DAYS_KEPT
    assert len(bandwidth.months) <= MONTHS_KEPT


@pytest.mark.parametrize(
    ("spent", "hour", "severity"),
    [
        (0, 12, None),
        (499, 1, None),  # not yet half of it
        (500, 12, None),  # half of it in half the day: it lasts exactly
        (501, 12, Severity.TICKET),
        (900, 23, None),
        (999, 23, Severity.TICKET),
        (1000, 23, Severity.PAGE),
        (5000, 0, Severity.PAGE),
    ],
)
def test_troubles_of_a_day(spent: int, hour: int, severity: Severity | None) -> None:
    bandwidth = Bandwidth(build.plan(build.contract("a", slos=(slo("day", DAY_S, 1000),))))
    now_ns = at(2028, 2, 29, hour)
    bandwidth.spent(np.array([spent, 10**9]), now_ns)
    troubles = bandwidth.troubles(now_ns)
    assert [each.severity for each in troubles] == ([] if severity is None else [severity])
    for trouble in troubles:
        assert (trouble.team, trouble.subject) == (Team.DEVICE_OPS, "day")
        assert trouble.numbers["spent_bytes"] == spent
        assert all(np.isfinite(each) for each in trouble.numbers.values())
    assert bandwidth.troubles(at(2028, 3, 1)) == []


def test_the_projection_is_a_straight_line_and_unsure_at_first() -> None:
    bandwidth = Bandwidth(build.plan(build.contract("a", slos=(slo("day", DAY_S, 1000),))))
    now_ns = at(2028, 2, 29, 0, 30)
    bandwidth.spent(np.array([600, 0]), now_ns)
    (trouble,) = bandwidth.troubles(now_ns)
    assert trouble.numbers["low_confidence"] == 1.0
    assert trouble.numbers["exhausted_in_s"] == pytest.approx(1800 * 1000 / 600 - 1800)
    assert trouble.numbers["pace_ratio"] == pytest.approx(0.6 * 48)
    (later,) = bandwidth.troubles(now_ns + HOUR_NS)
    assert later.numbers["low_confidence"] == 0.0
    assert bandwidth.pace(0, at(2028, 2, 29)).spent == 600  # the clock does not go back


def test_an_allowance_of_nothing_is_spent_by_the_first_byte() -> None:
    bandwidth = Bandwidth(build.plan(build.contract("a", slos=(slo("day", DAY_S, 0),))))
    bandwidth.spent(np.array([0, 7]), at(2028, 2, 29))
    assert bandwidth.troubles(at(2028, 2, 29, 1)) == []
    bandwidth.spent(np.array([1, 0]), at(2028, 2, 29, 2))
    (trouble,) = bandwidth.troubles(at(2028, 2, 29, 2))
    assert trouble.severity is Severity.PAGE


@given(
    st.lists(st.tuples(st.integers(0, 3 * DAY_S), st.integers(0, 1 << 50)), max_size=30), st.data()
)
def test_a_restart_changes_nothing_and_two_sites_add(
    sent: list[tuple[int, int]], data: st.DataObject
) -> None:
    whole = Meters(bandwidth_plan())
    sites = [Meters(bandwidth_plan()), Meters(bandwidth_plan())]
    now_ns = at(2028, 2, 25)
    for pause_s, size in sent:
        now_ns += pause_s * SECOND_NS
        site = data.draw(st.integers(0, 1))
        for meters in (whole, sites[site]):
            meters.spent(bytes_of(size, 2 * size, 3 * size), now_ns)
    again = Meters(bandwidth_plan())
    again.restore(whole.state())
    assert meters_view(again, now_ns) == meters_view(whole, now_ns)
    merged = Meters(bandwidth_plan())
    merged.restore(meters_room.merge(sites[0].state(), sites[1].state()))
    found, expected = meters_view(merged, now_ns), meters_view(whole, now_ns)
    assert found.bytes == expected.bytes
    for each, other in zip(found.allowances, expected.allowances, strict=True):
        assert each.spent_bytes == other.spent_bytes
    assert merged.troubles(now_ns) == whole.troubles(now_ns)


def test_a_plan_without_a_model_lets_its_bytes_go() -> None:
    before = Bandwidth(bandwidth_plan())
    before.spent(bytes_of(1, 2, 4), at(2028, 2, 25))
    after = Bandwidth(build.plan(build.contract("b", slos=(slo("day", DAY_S, 9),))))
    after.restore(before.state())
    assert after.total.tolist() == [2, 4]
    assert after.pace(0, at(2028, 2, 25)).spent == 0
