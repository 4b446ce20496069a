"""Law: a service that is exactly at its objective pages at most once in two months, and a total
outage pages within minutes, at any rate of events.

What the watermark waits for late events comes on top of the minutes: they are counted from the
first failure to the end of the slot that shows it.

The years are simulated in slots of ten seconds; windows are cut as the rings cut them, and judged
by the function that judges them in operation.
"""

import numpy as np
import pytest

from gateway.batch import Severity
from gateway.contract.slo import budget_of, slot_s_of
from gateway.measure.settings import MeasureSettings
from gateway.measure.slo.burn import Rule, is_firing, pairs_of, rules_of
from gateway.measure.slo.objectives import STEP_S, Objectives
from gateway.measure.state import Int64
from gateway.tables import Bool
from tests.conftest import FUZZ
from tests.unit.measure.build import DAY_S, SECOND_NS, START_NS, contract, plan, success

YEARS = 10 if FUZZ else 1
STEPS_A_YEAR = 365 * DAY_S // STEP_S
MONTH_STEPS = 30 * DAY_S // STEP_S
LEAD_STEPS = 6 * 3600 // STEP_S + 6
SLO = success()
PAGES = [pair for pair in pairs_of(SLO) if pair.severity is Severity.PAGE]
# An anomaly is over when nothing has burnt for ten minutes.
QUIET_STEPS = 600 // STEP_S


def windows(counts: Int64, window_s: float) -> Int64:
    """Sum a window at each step after the lead, with its oldest slot cut as its ring cuts it."""
    slot_steps = slot_s_of(window_s) // STEP_S
    spans = -(-int(window_s) // slot_s_of(window_s))
    before = np.concatenate(([0], np.cumsum(counts)))
    steps = np.arange(LEAD_STEPS, len(counts))
    oldest = (steps // slot_steps - spans + 1) * slot_steps
    return before[steps + 1] - before[oldest]


def judged(total: Int64, bad: Int64) -> tuple[Bool, Bool]:
    """Say at each step whether a page goes out, and whether one would by the plain rule."""
    limits = np.array([[pair.factor * budget_of(SLO.objective)] for pair in PAGES])
    columns = [
        np.stack([windows(counts, window_s) for window_s in windows_s])
        for windows_s in ([pair.long_s for pair in PAGES], [pair.short_s for pair in PAGES])
        for counts in (bad, total)
    ]
    long_bad, long_total, short_bad, short_total = columns
    rules = rules_of(limits, np.array([[True]] * len(PAGES)), *columns)
    plain = is_firing(long_bad, long_total, limits) & is_firing(short_bad, short_total, limits)
    return np.any(rules >= Rule.PAGE, axis=0), np.any(plain, axis=0)


def episodes(pages: Bool) -> int:
    """Count pages; those that follow one another within ten minutes are one."""
    at = np.flatnonzero(pages)
    return int((np.diff(at, prepend=-QUIET_STEPS - 1) > QUIET_STEPS).sum()) if len(at) else 0


@pytest.mark.parametrize("rate_per_hour", [10, 60, 300])
def test_a_service_at_its_objective_hardly_pages(seed: int, rate_per_hour: int) -> None:
    rng = np.random.default_rng((seed, rate_per_hour))
    pages = plain_pages = 0
    for _ in range(YEARS):
        size = STEPS_A_YEAR + LEAD_STEPS
        total = rng.poisson(rate_per_hour * STEP_S / 3600, size).astype(np.int64)
        bad = rng.binomial(total, budget_of(SLO.objective)).astype(np.int64)
        guarded, plain = judged(total, bad)
        pages += episodes(guarded)
        plain_pages += episodes(plain)
    per_month = pages / (YEARS * STEPS_A_YEAR / MONTH_STEPS)
    # pytest shows it on failure or with -rP
    print(f"{per_month:.3f} pages per 30 d, by the plain rule {plain_pages} in all")  # noqa: T201
    assert per_month <= 0.5
    # The guard is what keeps it quiet: the plain rule pages several times a month.
    assert plain_pages > 2 * 12 * YEARS or rate_per_hour == 300


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(("rate_per_hour", "minutes"), [(10, 20), (60, 5), (300, 2)])
def test_a_total_outage_pages_in_time(
    seed: int, rate_per_hour: int, minutes: int, number: int
) -> None:
    rng = np.random.default_rng((seed, rate_per_hour, number))
    board = Objectives(plan(contract(slos=(SLO,))), MeasureSettings())
    lead_s, gap_s = 7 * 3600, 3600 / rate_per_hour
    # Evenly spaced events from a random phase: how long three failures take is what is promised.
    times = np.arange(rng.uniform(0, gap_s), lead_s + 2 * minutes * 60, gap_s)
    fails_s = lead_s + rng.uniform(0, gap_s)
    arrivals = START_NS + (times * SECOND_NS).astype(np.int64)
    paged_ns = told_ns = None
    at = 0
    for now_ns in range(START_NS, int(arrivals[-1]) + 60 * SECOND_NS, STEP_S * SECOND_NS):
        for at_ns, burns in board.turn(now_ns):
            if paged_ns is None and any(burn.pages for burn in burns):
                paged_ns, told_ns = at_ns, now_ns
        until = int(np.searchsorted(arrivals, now_ns, side="right"))
        here = np.arange(at, until)
        at = until
        zeros = np.zeros(len(here), dtype=np.int64)
        board.add(zeros, arrivals[here], arrivals[here], times[here] >= fails_s, zeros + 1)
    assert paged_ns is not None
    assert told_ns is not None
    found_s = (paged_ns - START_NS) / SECOND_NS - float(fails_s)
    waited_s = (told_ns - paged_ns) / SECOND_NS
    print(f"{found_s:.0f} s to a page, and {waited_s:.0f} s of the watermark")  # noqa: T201
    assert 0 < found_s <= minutes * 60
    assert waited_s <= MeasureSettings().lateness_s + STEP_S
