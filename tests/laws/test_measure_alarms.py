"""Law: the expected number of false alarms in T ticks is at most T / A.

The reference is finite and learned, so this also tests that delta covers what it cannot know.
"""

import numpy as np
import pytest
from scipy import stats

from gateway.measure.drift.baseline import freeze
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.grid import Grid, GridKind, bins_of_numbers
from gateway.measure.state import Int64

SCORE = Grid(kind=GridKind.LOGIT)
STREAMS = 60
TICKS = 500
A = 100.0
REFERENCE_EVENTS = 4_000


def counted(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Int64:
    bins = bins_of_numbers(SCORE, values, np.zeros(len(values), dtype=np.bool_))
    return np.bincount(bins, minlength=SCORE.width)


def false_alarms(events: int, tolerance: float, wobble: float, levels: int, seed: int) -> int:
    """Count alarms of streams whose law stays the same up to a wobble inside the tolerance."""
    rng = np.random.default_rng(seed)

    def draw(size: int, shift: float = 0.0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        values = rng.beta(8 - shift, 2 + shift / 4, size)
        return np.round(values * levels) / levels if levels else values

    bank = Bank()
    bank.reserve(STREAMS)
    baselines = []
    for row in range(STREAMS):
        blocks = [counted(draw(REFERENCE_EVENTS // 8)) for _ in range(8)]
        baselines.append(freeze(SCORE, np.sum(blocks, axis=0), blocks))
        bank.arm(row, baselines[row], tolerance, float(np.log(A)))
    alarms = 0
    rows = np.arange(STREAMS)
    for tick in range(1, TICKS + 1):
        shift = wobble * np.sin(tick / 20)
        sample = draw(STREAMS * events, shift).reshape(STREAMS, events)
        coarse = np.array(
            [each.coarse(counted(values)) for each, values in zip(baselines, sample, strict=True)]
        )
        alarms += len(bank.step(rows, coarse, np.full(STREAMS, tick)))
    return alarms


@pytest.mark.parametrize(
    ("events", "tolerance", "wobble", "levels"),
    [(50, 0.0, 0.0, 0), (400, 0.0, 0.0, 0), (100, 0.1, 0.15, 0), (100, 0.0, 0.0, 32)],
    ids=["iid", "much-traffic", "wobble", "few-levels"],
)
def test_false_alarms_stay_within_the_budget(
    events: int, tolerance: float, wobble: float, levels: int
) -> None:
    budget = STREAMS * TICKS / A
    found = false_alarms(events, tolerance, wobble, levels, seed=events)
    # Fails with probability 1e-6 where the budget is just kept.
    assert found <= stats.poisson.isf(1e-6, budget)
