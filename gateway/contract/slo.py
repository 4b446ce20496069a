"""Burn-rate windows of an objective, and what they can and cannot detect.

Law: a window pair of factor f can fire only if f·B < 1, with B = 1 - objective the error budget; an
objective with a pair that could never fire is refused. Every period from a day to ninety has pairs
with factors of at least FACTOR_MIN and windows of whole seconds that are no longer than the period.
An objective without budget (B = 0) has no burn rate and no pairs. Pure arithmetic.

Tables: an objective's own pairs win. A latency objective, and any whose budget is wide, has the
wide table; any other one has the standard table:

- from four weeks, shares of 2, 5, 10 and 10 % of the budget over 1 h, 6 h, 1 d and 3 d;
- at a week, shares of 8, 12.5, 20 and 42 % over the same windows, as the ones above would get
  factors far below 1; between a week and four the factors run straight from one to the other;
- below a week, the shares of a week over windows that shrink with the period.

Notation: P period of the objective, W long window, f burn factor, p share of the period's budget
that is spent when the pair fires, p = f·W/P. Source: Google SRE workbook, chapter 5 (multi-window
alerts); the wide windows are chosen for B = 0.05, where the standard ones need 72 % bad.
"""

import math
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Slot length of a ring of counts and the longest window it is for. Units: seconds."""

    slot_s: int
    window_s_max: int


# What windows are counted in. A window is as long as its slots, give or take one.
RESOLUTIONS: Final = (
    Resolution(slot_s=10, window_s_max=15 * 60),
    Resolution(slot_s=60, window_s_max=6 * 3600),
    Resolution(slot_s=5 * 60, window_s_max=3 * 86_400),
    Resolution(slot_s=3600, window_s_max=400 * 86_400),
)
# With fewer slots in its short window a pair would fire and end by the boundary of a slot.
SHORT_SLOTS_MIN: Final = 5

_STANDARD: Final = (
    (HOUR, Severity.PAGE),
    (6 * HOUR, Severity.PAGE),
    (DAY, Severity.TICKET),
    (3 * DAY, Severity.TICKET),
)
_SHARES: Final = (0.02, 0.05, 0.10, 0.10)
_SHARES_WEEK: Final = (0.08, 0.125, 0.20, 0.42)
_SHORT_OF_LONG: Final = 12
WEEK: Final = 7 * DAY
FOUR_WEEKS: Final = 28 * DAY
# Shrunk windows are multiples of these up to a length, so that both windows are whole slots.
_GRAINS_S: Final = ((3 * HOUR, 120), (6 * HOUR, 720), (3 * DAY, 3600))
# Gives a short window of five slots of ten seconds.
_LONG_S_MIN: Final = 600
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


def slot_s_of(window_s: float) -> int:
    """Find how long the slots are that a window is counted in.

    Raises: ValueError for a window of more than 400 days.
    """
    for resolution in RESOLUTIONS:
        if window_s <= resolution.window_s_max:
            return resolution.slot_s
    raise ValueError(f"a window of {window_s:g} s is longer than any that is counted")


def windows_of(slo: Slo) -> tuple[BurnWindow, ...]:
    """List the window pairs that an objective is watched with, fastest first.

    There are none without a budget.
    """
    if budget_of(slo.objective) == 0:
        return ()
    return slo.pairs or windows_for(slo.indicator, slo.objective, slo.window)


def windows_for(indicator: Indicator, objective: float, period_s: float) -> tuple[BurnWindow, ...]:
    """List the window pairs of the table for an objective over a period."""
    budget = budget_of(objective)
    if budget == 0:
        return ()
    standard = standard_windows(period_s)
    is_wide = indicator is Indicator.LATENCY or budget > WIDE_BUDGET
    # The fastest pair of 90 days cannot fire at some budgets below that.
    if is_wide or standard[0].factor * budget >= 1:
        return wide_windows(period_s)
    return standard


def standard_windows(period_s: float) -> tuple[BurnWindow, ...]:
    """List the standard pairs of a period."""
    pairs = []
    for at, (whole_s, severity) in enumerate(_STANDARD):
        long_s = whole_s if period_s >= WEEK else _shrunk(whole_s * period_s / WEEK)
        if period_s >= FOUR_WEEKS:
            factor = _SHARES[at] * period_s / long_s
        elif period_s <= WEEK:
            factor = _SHARES_WEEK[at] * period_s / long_s
        else:
            week = _SHARES_WEEK[at] * WEEK / long_s
            weeks = _SHARES[at] * FOUR_WEEKS / long_s
            factor = week + (weeks - week) * (period_s - WEEK) / (FOUR_WEEKS - WEEK)
        short_s = long_s / _SHORT_OF_LONG
        pairs.append(BurnWindow(long_s=long_s, short_s=short_s, factor=factor, severity=severity))
    return tuple(pairs)


def _shrunk(long_s: float) -> float:
    """Round a long window so that it and its twelfth are whole slots of their rings."""
    grain_s = next(grain_s for most_s, grain_s in _GRAINS_S if long_s <= most_s)
    return float(max(_LONG_S_MIN, round(long_s / grain_s) * grain_s))


def wide_windows(period_s: float) -> tuple[BurnWindow, ...]:
    """List the wide pairs; the slowest is no longer than half of the period, in whole hours."""
    slowest = WIDE_WINDOWS[-1]
    long_s = min(slowest.long_s, period_s / 2 // HOUR * HOUR)
    last = replace(slowest, long_s=long_s, short_s=long_s / _SHORT_OF_LONG)
    return (*WIDE_WINDOWS[:-1], last)


def objective_min(indicator: Indicator, period_s: float) -> float:
    """Find the objective above which every pair of the tables can fire."""
    # Where a standard pair could not fire, the wide ones are used.
    return 1 - 1 / max(window.factor for window in wide_windows(period_s))


def budget_of(objective: float) -> float:
    """Compute 1 - objective in decimal: in binary, 1 - 0.9995 is above 0.0005."""
    return float(1 - Fraction(repr(objective)))


def undetectable(
    indicator: Indicator, period_s: float, objective: float, pairs: tuple[BurnWindow, ...] = ()
) -> BurnWindow | None:
    """Find the pair that could never fire, if there is one; `pairs` are the objective's own."""
    budget = budget_of(objective)
    for window in pairs or windows_for(indicator, objective, period_s):
        if window.factor * budget >= 1:
            return window
    return None


def detections(slo: Slo, windows: tuple[BurnWindow, ...] | None = None) -> tuple[Detection, ...]:
    """Work out for each pair how soon it fires and what it costs; `windows` are its own if None."""
    budget = budget_of(slo.objective)
    found: list[Detection] = []
    if budget == 0:
        return ()
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
