"""Sizes, durations and addresses as people write them, and back.

Law: parsing never guesses. A number without a unit is not a duration, a decimal unit (`MB`) is not
a binary one, and what cannot be read raises ValueError with one sentence that says what to write.
Formatting is the inverse: `parse_size(format_size(n)) == n`, and the same for durations.
"""

import ipaddress
import math
import re
from datetime import date
from fractions import Fraction
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40

SECOND: Final = 1.0
MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86_400.0

# Longer text is not a number with a unit; the limit keeps int() of digits cheap.
NUMBER_TEXT_MAX: Final = 24
SIZE_BYTES_MAX: Final = 1 << 62
DURATION_S_MAX: Final = 100 * 365 * DAY

SIZE_UNITS: Final = {"": 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
DURATION_UNITS_S: Final = {
    "us": Fraction(1, 1_000_000),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
}

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-zµ]*)", re.ASCII)
_LOOPBACK_NAMES: Final = frozenset({"localhost", "ip6-localhost"})
PORT_MAX: Final = 65_535


def _quantity(text: str) -> tuple[Fraction, str] | None:
    """Split `12.5MiB` into number and unit."""
    stripped = text.strip()
    if len(stripped) > NUMBER_TEXT_MAX:
        return None
    found = _QUANTITY.fullmatch(stripped)
    return (Fraction(found[1]), found[2]) if found else None


def parse_size(text: str) -> int:
    """Read `64MiB` as bytes. Raises: ValueError with what to write instead."""
    quantity = _quantity(text)
    if quantity is None or quantity[1] not in SIZE_UNITS:
        raise ValueError("write a size with a binary unit such as 64MiB (B, KiB, MiB, GiB, TiB)")
    size = quantity[0] * SIZE_UNITS[quantity[1]]
    if size.denominator != 1 or size > SIZE_BYTES_MAX:
        raise ValueError("write a whole number of bytes below 4 EiB, such as 64MiB")
    return int(size)


def format_size(size_bytes: int) -> str:
    """Write bytes in the largest unit that leaves a whole number."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def parse_duration(text: str) -> float:
    """Read `250ms`, `5s`, `24h` or `30d` as seconds. Raises: ValueError with what to write."""
    quantity = _quantity(text)
    if quantity is None or (quantity[1] not in DURATION_UNITS_S and quantity[0] != 0):
        raise ValueError("write a duration with its unit such as 250ms (us, ms, s, m, h, d)")
    duration = quantity[0] * DURATION_UNITS_S.get(quantity[1], Fraction(1))
    if duration > DURATION_S_MAX:
        raise ValueError("write a duration of at most 36500d")
    return float(duration)


def format_duration(duration_s: float) -> str:
    """Write seconds in the largest unit that reads back as the same number."""
    exact = Fraction(duration_s).limit_denominator(1_000_000)
    for unit in ("d", "h", "m", "s", "ms", "us"):
        amount = exact / DURATION_UNITS_S[unit]
        if amount and amount.denominator == 1:
            return f"{int(amount)}{unit}"
    return "0s"


def parse_rate(text: str) -> float:
    """Read `1/30d` as events per second. Raises: ValueError with what to write instead."""
    count, slash, period = text.partition("/")
    advice = "write a number per period, such as 1/30d"
    quantity = _quantity(count)
    if not slash or quantity is None or quantity[1]:
        raise ValueError(advice)
    try:
        period_s = parse_duration(period)
    except ValueError as error:
        raise ValueError(advice) from error
    if period_s <= 0 or quantity[0] <= 0:
        raise ValueError(advice)
    return float(quantity[0]) / period_s


def format_rate(rate_per_s: float) -> str:
    """Write a rate as `1/30d`, to the nearest whole second."""
    return f"1/{format_duration(round(1 / rate_per_s))}"


def parse_date(text: str) -> date:
    """Read `2027-12-31`. Raises: ValueError with what to write instead."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("write a date as year-month-day, such as 2027-12-31")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"there is no such day: {error}") from error


def split_address(text: str) -> tuple[str, int]:
    """Split `host:port` or `[::1]:port`. Raises: ValueError with what to write instead."""
    advice = "write host:port such as 127.0.0.1:4317; port 0 means any free port"
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise ValueError(advice) from error
    elif not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}", host):
        raise ValueError(advice)
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > PORT_MAX:
        raise ValueError(advice)
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the host; unknown names count as reachable."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_finite(number: float) -> bool:
    """Tell whether a number is neither infinite nor NaN."""
    return math.isfinite(number)
