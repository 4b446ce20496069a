"""Law: with one budget for a site, all its detectors together keep it, and reports keep theirs.

The law of the signals is known here and nothing is tolerated, so that detectors spend as much of
the budget as they can: a single one about half of it.
"""

import os
from typing import Final

import numpy as np
import pytest
from scipy import stats

from gateway.measure.drift.baseline import COARSE_BINS_MAX, Baseline, thawed
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.fleet import reported
from gateway.measure.drift.grid import Grid, GridKind
from gateway.measure.state import Int64
from gateway.tables import Float64

LONG: Final = bool(os.environ.get("WEIR_FUZZ"))
STREAMS: Final = 60
TICKS: Final = 4_000 if LONG else 500
EVENTS: Final = 40
CLASSES: Final = Grid(kind=GridKind.CLASSES, values=("a", "b", "c", "d", "e", "f"))
SHARES: Final = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
DRIFTED: Final = np.array([0.3, 0.2, 0.2, 0.15, 0.09, 0.06])


def known() -> Baseline:
    counts = np.zeros(CLASSES.width, dtype=np.int64)
    counts[: len(SHARES)] = np.round(SHARES * 10_000_000)
    return thawed(CLASSES, counts, 1.0)


def armed(log_bounds: Float64, patience: int = 1_000) -> Bank:
    bank, baseline = Bank(patience), known()
    bank.reserve(len(log_bounds))
    for row, log_bound in enumerate(log_bounds.tolist()):
        bank.arm(row, baseline, 0.0, log_bound)
    rows = np.arange(len(log_bounds))
    bank.refer(rows, np.tile(baseline.shares, (len(rows), 1)), np.zeros(len(rows)))
    return bank


def drawn(rng: np.random.Generator, streams: int, shares: Float64 = SHARES) -> Int64:
    ticks = np.zeros((streams, COARSE_BINS_MAX), dtype=np.int64)
    ticks[:, 1 : 1 + len(shares)] = rng.multinomial(EVENTS, shares, size=streams)
    return ticks


def alarms_of(log_bounds: Float64, seed: int, *, together: bool) -> int:
    """Count the alarms of a site on which nothing happens; a third of it comes later."""
    rng, bank, alarms = np.random.default_rng(seed), armed(log_bounds), 0
    early = len(log_bounds) - len(log_bounds) // 3
    for tick in range(1, TICKS + 1):
        running = np.arange(early if tick <= TICKS // 2 else len(log_bounds))
        if together:
            bank.share(len(running))
        counts = drawn(rng, len(running))
        alarms += len(bank.step(running, counts, np.full(len(running), tick)))
    return alarms


@pytest.mark.parametrize("rates", [(25.0,), (10.0, 100.0)], ids=["one rate", "two rates"])
def test_all_detectors_of_a_site_keep_one_budget(rates: tuple[float, ...], seed: int) -> None:
    a = np.resize(np.array(rates), STREAMS)
    early = STREAMS - STREAMS // 3
    # The mean of the rates of those that run.
    budget = TICKS / 2 * ((1 / a[:early]).mean() + (1 / a).mean())
    found = alarms_of(np.log(a), seed, together=True)
    assert 0 < found <= stats.poisson.isf(1e-6, budget)
    # Each by itself has far more, so that the count of detectors is what keeps it.
    assert alarms_of(np.log(a), seed, together=False) > stats.poisson.isf(1e-6, budget)


def test_few_of_what_is_reported_is_false_and_alarms_hide_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    drifting, alpha, patience, runs = 12, 0.1, 100, 200 if LONG else 12
    worst, found = [], []
    for _ in range(runs):
        # So low a bound that alarms set the detectors back again and again.
        bank = armed(np.full(STREAMS, np.log(100.0)), patience)
        shares, rows = [], np.arange(STREAMS)
        for tick in range(1, patience):
            counts = drawn(rng, STREAMS)
            counts[:drifting] = drawn(rng, drifting, DRIFTED)
            bank.step(rows, counts, np.full(STREAMS, tick))
            listed = reported(bank.lasting.astype(np.float64)[:STREAMS], patience, alpha)
            shares.append(np.count_nonzero(listed >= drifting) / max(len(listed), 1))
        # Not a fair time to look: when most of the report was false.
        worst.append(max(shares))
        found.append(np.count_nonzero(listed < drifting))
    assert np.mean(worst) <= alpha + 4 * np.std(worst) / np.sqrt(runs)
    assert np.mean(found) >= 0.9 * drifting


def test_what_lasts_grows_by_one_a_tick_at_most(seed: int) -> None:
    rng, streams, ticks = np.random.default_rng(seed), 3_000, 12
    bank, rows = armed(np.full(streams, np.log(3.0))), np.arange(streams)
    alarms = 0
    for tick in range(1, ticks + 1):
        alarms += len(bank.step(rows, drawn(rng, streams), np.full(streams, tick)))
    assert alarms > streams
    value = np.exp(bank.lasting[:streams].astype(np.float64))
    assert value.mean() <= ticks + 5 * value.std() / np.sqrt(streams)
    assert value.mean() > 0.3 * ticks
