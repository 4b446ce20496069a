"""Sizes, durations, rates, dates and addresses read as written, and are refused when unclear."""

import ipaddress
from contextlib import suppress
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.units import (
    DURATION_UNITS_S,
    SIZE_BYTES_MAX,
    SIZE_UNITS,
    format_duration,
    format_size,
    is_loopback,
    parse_date,
    parse_duration,
    parse_rate,
    parse_size,
    split_address,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("64MiB", 67_108_864),
        ("20KiB", 20_480),
        ("2GiB", 2_147_483_648),
        ("1.5GiB", 1_610_612_736),
        ("0", 0),
        ("7", 7),
        ("7 B", 7),
        (" 1TiB ", 1 << 40),
    ],
)
def test_size_is_read_in_bytes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "MiB", "64MB", "64 mib", "-1KiB", "1.0001KiB", "1e3", "9" * 30, "5EiB", "٣KiB"]
)
def test_unclear_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a"):
        parse_size(text)


@given(st.integers(0, SIZE_BYTES_MAX))
def test_size_survives_being_written(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.integers(0, 10**6), st.sampled_from(sorted(SIZE_UNITS)))
def test_size_is_number_times_unit(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * SIZE_UNITS[unit]


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [
        ("250ms", 0.25),
        ("5s", 5.0),
        ("24h", 86_400.0),
        ("30d", 2_592_000.0),
        ("1.5m", 90.0),
        ("10us", 0.00001),
        ("0", 0.0),
        ("0s", 0.0),
    ],
)
def test_duration_is_read_in_seconds(text: str, duration_s: float) -> None:
    assert parse_duration(text) == duration_s


@pytest.mark.parametrize("text", ["", "5", "5 minutes", "-5s", "1h30m", "s", "5S", "1e9s"])
def test_unclear_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a duration with its unit"):
        parse_duration(text)


def test_endless_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 36500d"):
        parse_duration("36501d")


@given(st.integers(0, 10**9), st.sampled_from(sorted(DURATION_UNITS_S)))
def test_duration_survives_being_written(number: int, unit: str) -> None:
    exact = number * DURATION_UNITS_S[unit]
    if exact > 3_153_600_000:
        with pytest.raises(ValueError, match="at most 36500d"):
            parse_duration(f"{number}{unit}")
        return
    duration_s = parse_duration(f"{number}{unit}")
    assert duration_s == float(exact)
    # Microseconds are the finest unit there is.
    back = Fraction(parse_duration(format_duration(duration_s)))
    assert abs(back - Fraction(duration_s)) <= Fraction(1, 10**6)


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    for parse in (parse_size, parse_duration, parse_rate, parse_date, split_address):
        with suppress(ValueError):
            parse(text)


def test_rate_is_read_per_second() -> None:
    assert parse_rate("1/30d") == 1 / 2_592_000
    assert parse_rate("3/1m") == 0.05


@pytest.mark.parametrize("text", ["1", "1/", "/30d", "1/30", "0/30d", "1/0s", "1s/30d", "-1/30d"])
def test_unclear_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as 1/30d"):
        parse_rate(text)


@given(st.dates())
def test_every_date_is_read_as_written(day: date) -> None:
    assert parse_date(day.isoformat()) == day


@pytest.mark.parametrize("text", ["2027-02-30", "2027-13-01", "0000-01-01", "20271231", "soon"])
def test_day_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 2027-12-31|no such day"):
        parse_date(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:4317", ("127.0.0.1", 4317)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65_535)),
    ],
)
def test_address_is_split(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts


@pytest.mark.parametrize(
    "text", ["127.0.0.1", ":4317", "::1:4317", "[x]:1", "a b:1", "a:65536", "a:", "a:١"]
)
def test_unclear_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write host:port"):
        split_address(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_own_machine_is_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "", "dock"])
def test_everything_else_can_be_reached(host: str) -> None:
    assert not is_loopback(host)


@given(st.ip_addresses(v=4))
def test_loopback_is_what_the_standard_says(address: ipaddress.IPv4Address) -> None:
    assert is_loopback(str(address)) == (address in ipaddress.ip_network("127.0.0.0/8"))
