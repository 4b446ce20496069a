"""Many detectors together: are reports as true as alpha says, and do pages keep one budget?

Law: the detectors without change know their law exactly, which is where they spend most of their
budget. All begin together and are never reset, so that what is counted is M itself: a page is the
first time that a detector without change passes the bound of the fleet, a report is what e-d-BH
names at a tick, and it is judged at every tick of the horizon. Source: drift.md sections 4 and 9.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

from benchmarks.drift_change import changes, delays, geometric_mean, mean_delays, reference
from benchmarks.drift_peers import Weir
from gateway.measure.drift.baseline import COARSE_BINS_MAX
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.fleet import fleet_log_bound, reported
from gateway.tables import Float64

ALPHA: Final = 0.1
DRIFTING_RATIO: Final = 0.01
DRIFT_PSI: Final = (0.02, 0.1)
EVENTS: Final = 50
FLEET: Final = 10_000
# Detectors that see the same events, as many cameras of one scene do.
COPIES: Final = 10
TICKS_PER_30_DAYS: Final = 259_200
PROGRESS_LINES: Final = 10
Z_95_ONE_SIDED: Final = 1.645


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What simulations of a fleet gave. Units: horizon in ticks, false shares at the worst tick."""

    name: str
    streams: int
    horizon: int
    repeats: int
    false_share: float
    false_share_high: float
    found_ratio: float
    paging_groups: int
    copies: int

    @property
    def pages(self) -> float:
        """False pages of a fleet without any change over a horizon of A ticks."""
        return self.paging_groups * self.copies / self.repeats

    @property
    def pages_high(self) -> float:
        """Upper 95 % bound of `pages`; groups that page are Poisson, their members are not."""
        groups = float(stats.chi2.isf(0.05, 2 * (self.paging_groups + 1))) / 2
        return groups * self.copies / self.repeats


def simulate(
    streams: int,
    horizon: int,
    repeats: int,
    seed: int,
    *,
    copies: int = 1,
    told: Callable[[str], None] = lambda _: None,
) -> Fleet:
    """Simulate fleets of which some detectors drift from the first tick on.

    `streams` detectors have no change, in groups of `copies` that see the same events. The fleet of
    the reports has DRIFTING_RATIO of drifting detectors instead of as many of these.
    """
    rng = np.random.default_rng(seed)
    baseline = reference(False, rng)
    drifting = max(1, round(streams * DRIFTING_RATIO))
    quiet = streams // copies
    p = baseline.shares / baseline.shares.sum()
    moved = [each.shares for each in changes(baseline, DRIFT_PSI)]
    laws = np.array([p] * quiet + [moved[k % len(moved)] for k in range(drifting)])
    rows = np.arange(len(laws))
    bank = Bank()
    bank.reserve(len(rows))
    for row in rows.tolist():
        bank.arm(row, baseline, 0.0, np.inf)
    fresh = bank.state(rows)
    bound = float(fleet_log_bound(float(np.log(horizon)), quiet * copies))
    false_share = np.zeros((repeats, horizon))
    found = np.zeros(repeats)
    paging_groups = 0
    for repeat in range(repeats):
        bank.restore(rows, fresh)
        has_paged = np.zeros(quiet, dtype=np.bool_)
        for tick in range(1, horizon + 1):
            counts = np.zeros((len(rows), COARSE_BINS_MAX), dtype=np.int64)
            counts[:, : baseline.bins] = rng.multinomial(EVENTS, laws)
            bank.step(rows, counts, np.full(len(rows), tick))
            log_m = bank.evidence[: len(rows)]
            has_paged |= log_m[:quiet] >= bound
            every = np.repeat(log_m[:quiet], copies)[: quiet * copies - drifting]
            named = reported(np.concatenate((log_m[quiet:], every)), horizon, ALPHA)
            false_share[repeat, tick - 1] = np.mean(named >= drifting) if len(named) else 0.0
        found[repeat] = np.mean(np.isin(np.arange(drifting), named))
        paging_groups += int(has_paged.sum())
        if (repeat + 1) % max(1, repeats // PROGRESS_LINES) == 0:
            told(f"fleet of {streams:,}, {copies} the same: {repeat + 1} of {repeats}")
    mean = false_share.mean(axis=0)
    error = false_share.std(axis=0) / np.sqrt(repeats)
    worst = int(np.argmax(mean))
    return Fleet(
        name="independent" if copies == 1 else f"groups of {copies} see the same events",
        streams=quiet * copies,
        horizon=horizon,
        repeats=repeats,
        false_share=float(mean[worst]),
        false_share_high=float(mean[worst] + Z_95_ONE_SIDED * error[worst]),
        found_ratio=float(found.mean()),
        paging_groups=paging_groups,
        copies=copies,
    )


def delay_ratio(
    wanted: tuple[float, ...], repeats: int, cap: int, seed: int
) -> tuple[float, float]:
    """Return how many times the delay at A is that at A K: geometric mean of changes, and worst.

    A is 30 days of 10 s, K is FLEET.
    """
    rng = np.random.default_rng(seed)
    one = float(np.log(TICKS_PER_30_DAYS))
    levels = [one, float(fleet_log_bound(one, FLEET))]
    ratios: list[float] = []
    for is_classes in (False, True):
        baseline = reference(is_classes, rng)
        p = baseline.shares / baseline.shares.sum()
        ours = Weir([baseline])
        for change in changes(baseline, wanted):
            shares: Float64 = change.shares
            first = delays(
                [ours],
                {ours.name: levels},
                lambda _, shares=shares: shares,  # type: ignore[misc]
                p,
                events=EVENTS,
                streams=repeats,
                cap=cap,
                rng=rng,
            )
            single, whole = mean_delays(first[ours.name], cap)
            ratios.append(whole / single)
    return geometric_mean(np.array(ratios)), max(ratios)
