"""Calendar months of UTC, counted from January 1970.

Law: exact for every instant that fits 64 bits of nanoseconds; leap years are the calendar's.
"""

from typing import Final

import numpy as np

from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Int64

DAY_NS: Final = 86_400 * SECOND_NS


def months_of(at_ns: Int64) -> Int64:
    """Return the month of each instant. Shape: as given."""
    days = (at_ns // DAY_NS).astype("datetime64[D]")
    months: Int64 = days.astype("datetime64[M]").astype(np.int64)
    return months


def month_of(at_ns: int) -> int:
    """Return the month of an instant."""
    return int(months_of(np.array([at_ns], dtype=np.int64))[0])


def month_start_ns(month: int) -> int:
    """Return the first instant of a month."""
    days = np.array([month], dtype=np.int64).astype("datetime64[M]").astype("datetime64[D]")
    return int(days.astype(np.int64)[0]) * DAY_NS


def month_name(month: int) -> str:
    """Write a month as people do: 2031-02."""
    return f"{1970 + month // 12:04d}-{month % 12 + 1:02d}"
