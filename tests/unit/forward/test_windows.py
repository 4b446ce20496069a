"""What is live leaves at once, backlog in its hours, and no clock holds it for ever."""

import calendar
import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.hours import Hours
from gateway.forward.records import Want
from gateway.forward.windows import HELD_S_MAX, LOOK_S, Windows

MIB = 1 << 20
LIVE_S = 900.0


def at(hour: int, minute: int = 0, day: int = 3) -> float:
    """Seconds of a moment in UTC."""
    return float(calendar.timegm((2026, 3, day, hour, minute, 0)))


@pytest.fixture
def berlin() -> Iterator[None]:
    """Be in a time zone with summer time, an hour or two before UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "CET-1CEST,M3.5.0,M10.5.0/3"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("01:00-05:00Z", [(1, 0), (4, 59)], [(0, 59), (5, 0), (12, 0)]),
        ("22:30-04:00Z", [(22, 30), (23, 59), (0, 0), (3, 59)], [(4, 0), (22, 29)]),
        ("18:00-24:00Z", [(18, 0), (23, 59)], [(0, 0), (17, 59)]),
        ("00:00-24:00Z", [(0, 0), (12, 0), (23, 59)], []),
    ],
)
def test_hours_hold_their_start_and_not_their_end(
    text: str, inside: list[tuple[int, int]], outside: list[tuple[int, int]]
) -> None:
    hours = Hours.parse(text)
    assert all(hours.holds(at(*moment)) for moment in inside)
    assert not any(hours.holds(at(*moment)) for moment in outside)


@pytest.mark.usefixtures("berlin")
def test_hours_without_a_z_are_local_in_winter_and_summer() -> None:
    hours = Hours.parse("01:00-05:00")
    winter, summer = at(0, 30), at(0, 30) + 150 * 86_400
    assert hours.holds(winter)
    assert not hours.holds(winter - 3600)
    assert hours.holds(summer - 3600)
    assert not hours.holds(summer - 7200)


@given(minute=st.integers(0, 1439), start=st.integers(0, 1439), size=st.integers(1, 1439))
def test_hours_hold_as_many_minutes_as_they_say(minute: int, start: int, size: int) -> None:
    hours = Hours(start=start, end=(start + size) % 1440 or 1440, utc=True)
    offset = (minute - start) % 1440
    assert hours.holds(at(0) + minute * 60) == (offset < size)


@pytest.mark.parametrize(
    "text", ["", "1-5", "01:00", "01:00-01:00", "25:00-26:00", "01:60-02:00", "24:00-01:00", "x"]
)
def test_what_is_no_hours_says_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="01:00-05:00"):
        Hours.parse(text)


def windows(text: str = "01:00-05:00Z") -> Windows:
    return Windows(hours=[Hours.parse(text)], live_age_s=LIVE_S)


def want(found: Windows, unix_s: float, clock_s: float = 0.0) -> Want:
    return found.want(MIB, now_ns=int(unix_s * 1e9), clock_s=clock_s)


def test_without_hours_there_are_no_classes() -> None:
    found = Windows()
    assert want(found, at(12)) == Want(bytes_max=MIB)
    assert found.is_open


def test_outside_the_hours_only_live_data_is_wanted_and_inside_both() -> None:
    found = windows()
    since_ns = int((at(12) - LIVE_S) * 1e9)
    assert want(found, at(12)) == Want(bytes_max=MIB, live_since_ns=since_ns, backlog=False)
    assert not found.is_open
    assert want(found, at(1)).backlog
    assert found.is_open


def test_a_clock_that_never_comes_to_the_hours_holds_a_day_at_most() -> None:
    found = windows()
    clock_s = 0.0
    while not want(found, at(12), clock_s).backlog:  # the clock stands still at noon
        clock_s += LOOK_S
    assert HELD_S_MAX <= clock_s <= HELD_S_MAX + LOOK_S
    assert found.is_overdue
    assert want(found, at(12), clock_s + 3600).backlog, "until the backlog is gone"
    found.emptied(clock_s + 3600)
    assert not want(found, at(12), clock_s + 3600).backlog
    assert want(found, at(12), clock_s + 3600 + HELD_S_MAX).backlog


def test_hours_that_come_every_day_are_never_overdue() -> None:
    found = windows("03:00-03:01Z")
    for minute in range(3 * 1440):
        opened = want(found, at(0) + minute * 60, minute * 60.0).backlog
        assert opened == (minute % 1440 == 180)
        assert not found.is_overdue


def test_a_clock_before_the_epoch_of_the_age_makes_all_data_live() -> None:
    assert want(windows(), 12 * 3600.0 - 12 * 3600.0).live_since_ns == 0
