"""Burn-rate windows of an objective, and what they can and cannot detect.

Law: a window pair of factor f can fire only if f·B < 1, with B = 1 - objective the error budget; an
objective for which any pair of its indicator's table could never fire is refused. An accepted one
is watched with the standard pairs, or with the wide ones when its budget is wide. Pure arithmetic.

Notation: P period of the objective, W long window, f burn factor, p share of the period's budget
that is spent when the pair fires, p = f·W/P. Source: Google SRE workbook, chapter 5 (multi-window
alerts); the wide windows are chosen for B = 0.05, where the standard ones need 72 % bad.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from gateway.batch import Severity
from gateway.config.units import DAY, HOUR, MINUTE
from gateway.contract.schema import BurnWindow, Indicator, Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What one pair detects, starting from a clean window.

    Units: error_ratio needed to fire; total_s and tenth_s seconds until it fires when all or a
    tenth of the events are bad, infinite when it never does; budget_ratio of the period's budget
    is spent by then; single_event_count is the largest number of events in the long window at
    which one bad event alone is above the factor.
    """

    window: BurnWindow
    error_ratio: float
    total_s: float
    tenth_s: float
    budget_ratio: float
    single_event_count: int


_STANDARD: Final = (
    (HOUR, Severity.PAGE),
    (6 * HOUR, Severity.PAGE),
    (DAY, Severity.TICKET),
    (3 * DAY, Severity.TICKET),
)
_SHARES: Final = (0.02, 0.05, 0.10, 0.10)
# With the shares above a week would get factors far below 1.
_SHARES_SHORT: Final = (0.08, 0.125, 0.20, 0.42)
_SHORT_OF_LONG: Final = 12
TWO_WEEKS: Final = 14 * DAY
# A factor below 1 fires inside the objective; 28 days give 0.93, which is custom.
FACTOR_MIN: Final = 0.9
# Above this budget the fastest standard pair of 30 days needs more than 40 % bad events.
WIDE_BUDGET: Final = 0.4 / 14.4
WIDE_WINDOWS: Final = (
    BurnWindow(long_s=15 * MINUTE, short_s=2 * MINUTE, factor=6.0, severity=Severity.PAGE),
    BurnWindow(long_s=HOUR, short_s=5 * MINUTE, factor=4.0, severity=Severity.PAGE),
    BurnWindow(long_s=6 * HOUR, short_s=30 * MINUTE, factor=2.0, severity=Severity.TICKET),
    BurnWindow(long_s=3 * DAY, short_s=6 * HOUR, factor=1.0, severity=Severity.TICKET),
)


def windows_of(slo: Slo) -> tuple[BurnWindow, ...]:
    """List the window pairs that an objective is watched with, fastest first."""
    return windows_for(slo.objective, slo.window)


def windows_for(objective: float, period_s: float) -> tuple[BurnWindow, ...]:
    """List the window pairs for an objective over a period."""
    return WIDE_WINDOWS if budget_of(objective) > WIDE_BUDGET else standard_windows(period_s)


def standard_windows(period_s: float) -> tuple[BurnWindow, ...]:
    """List the standard pairs of a period, p·P/W each."""
    shares = _SHARES if period_s >= TWO_WEEKS else _SHARES_SHORT
    return tuple(
        BurnWindow(
            long_s=long_s,
            short_s=long_s / _SHORT_OF_LONG,
            factor=share * period_s / long_s,
            severity=severity,
        )
        for share, (long_s, severity) in zip(shares, _STANDARD, strict=True)
    )


def required_windows(indicator: Indicator, period_s: float) -> tuple[BurnWindow, ...]:
    """List the pairs that an objective must be able to fire: the wide ones for latency."""
    return WIDE_WINDOWS if indicator is Indicator.LATENCY else standard_windows(period_s)


def objective_min(indicator: Indicator, period_s: float) -> float:
    """Find the objective above which every required pair can fire."""
    return 1 - 1 / max(window.factor for window in required_windows(indicator, period_s))


def budget_of(objective: float) -> float:
    """Compute 1 - objective in decimal: in binary, 1 - 0.9995 is above 0.0005."""
    return float(1 - Fraction(repr(objective)))


def undetectable(indicator: Indicator, period_s: float, objective: float) -> BurnWindow | None:
    """Find the required pair that could never fire, if there is one."""
    budget = budget_of(objective)
    for window in required_windows(indicator, period_s):
        if window.factor * budget >= 1:
            return window
    return None


def overeager(objective: float, period_s: float) -> BurnWindow | None:
    """Find the pair that would fire while the objective is kept, if there is one."""
    slowest = min(windows_for(objective, period_s), key=lambda window: window.factor)
    return slowest if slowest.factor < FACTOR_MIN else None


def detections(slo: Slo, windows: tuple[BurnWindow, ...] | None = None) -> tuple[Detection, ...]:
    """Work out for each pair how soon it fires and what it costs; `windows` are its own if None."""
    budget = budget_of(slo.objective)
    found: list[Detection] = []
    for window in windows_of(slo) if windows is None else windows:
        needed = window.factor * budget
        found.append(
            Detection(
                window=window,
                error_ratio=needed,
                total_s=_detection_s(needed, window.long_s, 1.0),
                tenth_s=_detection_s(needed, window.long_s, 0.1),
                budget_ratio=window.factor * window.long_s / slo.window,
                single_event_count=max(0, math.ceil(1 / needed) - 1),
            )
        )
    return tuple(found)


def _detection_s(needed_ratio: float, long_s: float, error_ratio: float) -> float:
    """Compute t = f·B·W/e for an error ratio e above f·B. Source: as the module."""
    return needed_ratio * long_s / error_ratio if error_ratio > needed_ratio else math.inf
