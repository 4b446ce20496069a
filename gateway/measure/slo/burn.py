"""What counts as burning: windows, factors, and how much a small count can say.

Law: a pair fires when the burn rate of its short and of its long window is above its factor. A page
also needs statistical support: the Wilson lower bound of the long window's error ratio above the
same limit, and at least three bad events. A pair that fires without support is a ticket of low
confidence. Half of a page's factor in its short window, with support, is an early ticket.
Where events are rare by nature, the exact binomial probability decides about pages alone.
Units: seconds. Source: slo-alerting-dashboards.md sections 2, 3, 4 and 7.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

import numpy as np
from scipy import special

from gateway.contract.schema import BurnWindow, Indicator, Slo
from gateway.contract.slo import budget_of, windows_of
from gateway.measure.slo.windows import DAY_S, HOUR_S
from gateway.measure.state import Array, Int64
from gateway.tables import Bool, Float64

Z_ONE_SIDED_95: Final = 1.645
BAD_EVENTS_MIN: Final = 3
# A short window at this share of the factor is told early, as a ticket.
EARLY_SHARE: Final = 0.5
# Indicators with so few events that pages go by the count rule.
RARE: Final = frozenset({Indicator.DEPLOYMENT})
RARE_BAD_EVENTS_MIN: Final = 2
RARE_PROBABILITY_MAX: Final = 0.01
# Late events that alone spend this share of a period's budget within an hour are told.
BACKFILL_SHARE: Final = 0.1
BACKFILL_WINDOW_S: Final = HOUR_S
# The limit of a pair that does not exist: no ratio is above it, nor above half of it.
NO_LIMIT: Final = 2.0
_SHOWN_WITHOUT_PAIRS: Final = (HOUR_S, DAY_S)
_SHOWN_WITHIN: Final = 30 * DAY_S


class Rule(IntEnum):
    """Why an SLO burns, quietest first."""

    NONE = 0
    UNSUPPORTED = 1  # a pair fires on too few events to be sure: a ticket of low confidence
    EARLY = 2  # half of a page's factor in its short window: a ticket
    BACKFILL = 3  # late events spent much of the budget at once: a ticket
    TICKET = 4  # a pair for tickets
    PAGE = 5  # a pair for pages
    COUNT = 6  # more bad events than chance allows, of few: a page


class Formula(StrEnum):
    """How a time to exhaustion was worked out."""

    ROLLING = "rolling"  # the period is full of counts
    FILLING = "filling"  # counting began within the period, so its budget still grows


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is left of a budget: a share, which may be negative, and the seconds it lasts.

    None: there is no budget; or it lasts for ever at this rate.
    """

    remaining_ratio: float | None
    exhaustion_s: float | None
    formula: Formula


def pairs_of(slo: Slo) -> tuple[BurnWindow, ...]:
    """Return the pairs of an SLO that can fire and fit its period, fastest first."""
    budget = budget_of(slo.objective)
    return tuple(
        pair for pair in windows_of(slo) if pair.factor * budget < 1 and pair.long_s <= slo.window
    )


def shown_windows_s(slo: Slo) -> tuple[int, ...]:
    """Return the windows that an SLO is shown in, its own period last. Units: whole seconds."""
    period = max(1, round(slo.window))
    shown = {int(each) for pair in pairs_of(slo) for each in (pair.long_s, pair.short_s)}
    shown |= {_SHOWN_WITHIN} if shown else set(_SHOWN_WITHOUT_PAIRS)
    return (*sorted(each for each in shown if each < period), period)


def wilson_lower(bad: Array, total: Array) -> Float64:
    """Return the one-sided 95 % lower bound of an error ratio; 0 where there are no events."""
    n = np.maximum(total, 1).astype(np.float64)
    p = bad / n
    z = Z_ONE_SIDED_95
    middle = p + z * z / (2 * n)
    margin = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    bound = (middle - margin) / (1 + z * z / n)
    return np.where((total > 0) & (bad > 0), bound, 0.0)


def is_supported(bad: Array, total: Array, limit: Array) -> Bool:
    """Say where an error ratio is surely above a limit."""
    supported: Bool = (bad >= BAD_EVENTS_MIN) & (wilson_lower(bad, total) > limit)
    return supported


def is_improbable(bad: Array, total: Array, budget: Array) -> Bool:
    """Say where so many bad events are hardly chance: P(X >= bad | total, budget), exact."""
    probability = special.bdtrc(np.maximum(bad, 1) - 1.0, total, budget)
    improbable: Bool = (bad >= RARE_BAD_EVENTS_MIN) & (probability < RARE_PROBABILITY_MAX)
    return improbable


def is_firing(bad: Array, total: Array, limit: Array) -> Bool:
    """Say where an error ratio is above a limit; never without events."""
    firing: Bool = bad > limit * total
    return firing


def rules_of(
    limit: Float64,
    pages: Bool,
    long_bad: Int64,
    long_total: Int64,
    short_bad: Int64,
    short_total: Int64,
) -> Int64:
    """Judge pairs by the counts of their windows; returns a Rule for each.

    Shape: counts (pairs, ...); limit, which is factor x budget, and pages broadcast to them.
    """
    limit, pages = np.broadcast_to(limit, long_bad.shape), np.broadcast_to(pages, long_bad.shape)
    rules = np.zeros(long_bad.shape, dtype=np.int64)
    half = EARLY_SHARE * limit
    at = np.nonzero(pages & is_firing(short_bad, short_total, half))
    rules[at] = np.where(is_supported(short_bad[at], short_total[at], half[at]), Rule.EARLY, 0)
    plain = is_firing(long_bad, long_total, limit) & is_firing(short_bad, short_total, limit)
    at = np.nonzero(plain)
    loud = np.where(pages[at], Rule.PAGE, Rule.TICKET)
    quiet = np.maximum(rules[at], Rule.UNSUPPORTED)
    rules[at] = np.where(is_supported(long_bad[at], long_total[at], limit[at]), loud, quiet)
    return rules


def burn_rate(bad: int, total: int, budget: float) -> float | None:
    """Return how many times faster than allowed the budget is spent; None without any."""
    return bad / total / budget if total and budget else None


def budget_remaining(bad: int, total: int, budget: float) -> float | None:
    """Return the share of the period's budget that is left, from events; it may be negative."""
    if not budget:
        return None
    return 1 - bad / (budget * total) if total else 1.0


def exhaustion_s(
    bad: int, total: int, budget: float, *, bad_per_s: float, events_per_s: float, formula: Formula
) -> float | None:
    """Work out when the period's budget is spent at these rates; None if never.

    Rolling does not count on old bad events leaving the period, so it is pessimistic. Filling
    takes into account that each event adds to the budget.
    """
    left = budget * total - bad
    spent_per_s = bad_per_s
    if formula is Formula.FILLING:
        spent_per_s -= budget * events_per_s
    if not budget or spent_per_s <= 0:
        return None
    return max(0.0, left) / spent_per_s
