"""What counts as burning: windows, factors and the guard for low traffic.

Law: a pair fires when the burn rate of its short and of its long window is above its factor. A page
also needs statistical support: the Wilson lower bound of the long window's error ratio above the
same limit, and at least three bad events; without it a page arrives as a ticket.
Units: seconds. Source: slo-alerting-dashboards.md sections 2, 3, 4 and 7.
"""

from typing import Final

import numpy as np

from gateway.contract.schema import BurnWindow, Slo
from gateway.contract.slo import WIDE_BUDGET, budget_of, windows_of
from gateway.measure.state import Array
from gateway.measure.windows import DAY_S, HOUR_S, MINUTE_S
from gateway.tables import Float64

Z_ONE_SIDED_95: Final = 1.645
BAD_EVENTS_MIN: Final = 3
# A short window at this share of the factor is told early, as a ticket.
EARLY_SHARE: Final = 0.5
_SHOWN: Final = (
    *(5 * MINUTE_S, 30 * MINUTE_S, HOUR_S, 2 * HOUR_S, 6 * HOUR_S),
    *(DAY_S, 3 * DAY_S, 30 * DAY_S),
)
_SHOWN_WIDE: Final = (2 * MINUTE_S, 5 * MINUTE_S, 15 * MINUTE_S, 30 * MINUTE_S, HOUR_S)


def pairs_of(slo: Slo) -> tuple[BurnWindow, ...]:
    """Return the pairs of an SLO that can fire and fit its period, fastest first."""
    budget = budget_of(slo.objective)
    return tuple(
        pair for pair in windows_of(slo) if pair.factor * budget < 1 and pair.long_s <= slo.window
    )


def shown_windows_s(slo: Slo) -> tuple[int, ...]:
    """Return the windows that an SLO is shown in, its own period last. Units: whole seconds."""
    period = max(1, round(slo.window))
    shown: tuple[int, ...] = _SHOWN
    if budget_of(slo.objective) > WIDE_BUDGET:
        shown = (*_SHOWN_WIDE, 6 * HOUR_S, 3 * DAY_S)
    return (*sorted({each for each in shown if each < period}), period)


def wilson_lower(bad: Array, total: Array) -> Float64:
    """Return the one-sided 95 % lower bound of an error ratio; 0 where there are no events."""
    n = np.maximum(total, 1).astype(np.float64)
    p = bad / n
    z = Z_ONE_SIDED_95
    middle = p + z * z / (2 * n)
    margin = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    bound = (middle - margin) / (1 + z * z / n)
    return np.where((total > 0) & (bad > 0), bound, 0.0)


def burn_rate(bad: int, total: int, budget: float) -> float | None:
    """Return how many times faster than allowed the budget is spent; None without events."""
    return bad / total / budget if total else None


def budget_remaining(bad: int, total: int, budget: float) -> float:
    """Return the share of the period's budget that is left; it may be negative."""
    return 1 - bad / (budget * total) if total else 1.0


def seconds_to_exhaustion(bad: int, total: int, budget: float, bad_per_s: float) -> float | None:
    """Return when a full rolling period's budget is spent at this rate; None if never.

    That old bad events leave the period is not counted on, so it is pessimistic.
    """
    if bad_per_s <= 0:
        return None
    return max(0.0, budget * total - bad) / bad_per_s
