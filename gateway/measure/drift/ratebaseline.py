"""What a model's event rate is when it is well: sums by hour of the week.

Law: everything is computed from exact sums of each hour, of its ticks and of its blocks of some
minutes: how many, their events, and the squares of those. A baseline that is frozen never changes,
its digest is over these sums. Blocks show scenes and bursts that are longer than a tick.

Which means are benign in an hour: where the hours differ no more than chance and phi explain, the
interval of the mean of all of them. Else with a season each hour's own exact interval, at ETA
divided by the hours, so that all of them hold together with probability 1 - ETA; and without one
the range from the quietest hour to the busiest, since nothing says which of them is due. Hours are
not drawn towards the week as `seasonal` draws shares: an interval about a drawn mean has to pay for
the distance to the week and so contains the hour's own, and is never narrower.
All functions are pure. Source: drift.md sections 3.5, 3.6 and 6.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.contract.schema import Season
from gateway.measure.drift.baseline import ETA
from gateway.measure.drift.rate import mean_range
from gateway.measure.drift.seasonal import HOUR_NS, HOURS
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Int64
from gateway.tables import Bool, Float64

# Sums are of ticks and of blocks of ticks, each of three kinds. Shape: (SCALES, SUMS, HOURS).
OF_TICKS: Final = 0
OF_BLOCKS: Final = 1
SCALES: Final = 2
COUNT: Final = 0
EVENTS: Final = 1
SQUARES: Final = 2
SUMS: Final = 3
BLOCK_NS: Final = 300 * SECOND_NS
# What a baseline has to have seen: each hour of a week for half of it, else one day; and events.
EVENTS_MIN: Final = 1_000
DAY_NS: Final = 24 * HOUR_NS
WEEK_NS: Final = HOURS * HOUR_NS
# Within this many standard errors a dispersion is no more than chance, as in `baseline`.
CHANCE_SD: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateBaseline:
    """A frozen reference. Units: tick_ns is the length of its ticks."""

    sums: Int64
    tick_ns: int
    season: Season
    phi: float
    is_steady: bool
    digest: str

    @property
    def events(self) -> int:
        """Count of events behind it."""
        return events_of(self.sums)

    def means(self) -> Float64:
        """Return the events per tick that are expected in each hour of the week. Shape: (HOURS,)"""
        ticks, events = self.sums[OF_TICKS, COUNT], self.sums[OF_TICKS, EVENTS]
        overall = np.full(HOURS, events.sum() / ticks.sum())
        if self.is_steady or self.season is Season.NONE:
            return overall
        means: Float64 = np.divide(events, ticks, out=overall, where=ticks > 0)
        return means

    def ranges(self, tolerance: float) -> tuple[Float64, Float64]:
        """Return the least and the largest benign mean per tick. Shape: (HOURS,) both."""
        ticks, events, _ = self.sums[OF_TICKS].astype(np.float64)
        seen = seen_hours(self.sums, self.tick_ns)
        if self.is_steady or not seen.any():
            low, high = mean_range(events.sum(), ticks.sum(), tolerance, self.phi)
            return np.full(HOURS, low), np.full(HOURS, high)
        known = np.maximum(ticks, 1.0)
        low, high = mean_range(events, known, tolerance, self.phi, ETA / int(seen.sum()))
        if self.season is Season.NONE:
            return np.full(HOURS, low[seen].min()), np.full(HOURS, high[seen].max())
        # An hour that nobody has seen is none in which anything is unusual.
        return np.where(ticks > 0, low, 0.0), np.where(ticks > 0, high, high[seen].max())


def events_of(sums: Int64) -> int:
    """Count the events of some sums."""
    return int(sums[OF_TICKS, EVENTS].sum())


def block_ticks(tick_ns: int) -> int:
    """Return how many ticks make a block."""
    return max(1, BLOCK_NS // tick_ns)


def seen_hours(sums: Int64, tick_ns: int) -> Bool:
    """Say of which hours of the week at least half was seen. Shape: (HOURS,)."""
    ticks = sums[OF_TICKS, COUNT]
    seen: Bool = (ticks > 0) & (2 * tick_ns * ticks >= HOUR_NS)
    return seen


def is_enough(sums: Int64, tick_ns: int, season: Season) -> bool:
    """Say whether a baseline can be made of these sums."""
    seen_ns = tick_ns * int(sums[OF_TICKS, COUNT].sum())
    if events_of(sums) < EVENTS_MIN:
        return False
    if season is Season.NONE:
        return seen_ns >= DAY_NS
    return seen_ns >= WEEK_NS and bool(seen_hours(sums, tick_ns).all())


def freeze_rate(sums: Int64, tick_ns: int, season: Season) -> RateBaseline:
    """Make a baseline of sums with at least one tick."""
    phi = rate_overdispersion(sums)
    text = f"{season.value}\n{tick_ns}\n".encode() + sums.astype("<i8").tobytes()
    return RateBaseline(
        sums=sums.copy(),
        tick_ns=tick_ns,
        season=season,
        phi=phi,
        is_steady=_is_steady(sums, tick_ns, phi),
        digest=hashlib.sha256(text).hexdigest(),
    )


def rate_overdispersion(sums: Int64) -> float:
    """Estimate how much more an hour's ticks or blocks differ than independent events would.

    Returns 1 or more; doubled where it is clearly above 1, as `baseline.overdispersion` does for
    scenes and bursts that are longer than what it is estimated from.
    """
    estimate, error = _dispersion(sums[OF_TICKS])
    coarse, coarse_error = _dispersion(sums[OF_BLOCKS])
    # There are few blocks, so that they count only where they are clearly above 1.
    if coarse > max(estimate, 1 + CHANCE_SD * coarse_error):
        estimate, error = coarse, coarse_error
    if estimate <= 1 + CHANCE_SD * error:
        return max(1.0, estimate)
    return 2 * estimate


def _dispersion(sums: Int64) -> tuple[float, float]:
    """Return variance over mean within the hours, and its standard error for Poisson counts."""
    count, events, squares = sums.astype(np.float64)
    mean = events / np.maximum(count, 1)
    expected = float((mean * np.maximum(count - 1, 0)).sum())
    if expected <= 0:
        return 1.0, 0.0
    # The variance of (x - mean)**2 of a Poisson count x is 2 mean**2 + mean.
    error = float(np.sqrt((count * (2 * mean**2 + mean)).sum())) / expected
    return float((squares - mean * events).sum()) / expected, error


def _is_steady(sums: Int64, tick_ns: int, phi: float) -> bool:
    """Say whether the hours differ no more than chance and phi explain."""
    seen = seen_hours(sums, tick_ns)
    freedom = int(seen.sum()) - 1
    ticks, events = sums[OF_TICKS, COUNT, seen], sums[OF_TICKS, EVENTS, seen]
    if freedom < 1 or not events.sum():
        return True
    expected = ticks * (events.sum() / ticks.sum())
    dispersion = float(((events - expected) ** 2 / expected).sum()) / freedom
    return dispersion <= phi * (1 + CHANCE_SD * float(np.sqrt(2 / freedom)))
