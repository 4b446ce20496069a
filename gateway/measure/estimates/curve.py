"""Estimate accuracy from how sure a model is, and say how far confidence is off.

Law: pure functions of counts. A labelled table holds how many predictions of each confidence bin
were right and wrong; a window holds how many there are of each bin now. All of it assumes that
P(correct | confidence) is what it was when the labels came: where the concept has changed, every
figure here is wrong without a sign of it.

Source: drift.md section 7; Kivimäki et al. (2024) for CBPE, Garg et al. (2022) for ATC, Guo et al.
(2017) for the calibration error.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.measure.drift.grid import Grid
from gateway.measure.drift.indices import Z_95
from gateway.measure.estimates.shape import middles
from gateway.measure.state import Int64
from gateway.tables import Float64

RIGHT: Final = 0
WRONG: Final = 1
# Fine bins that one group of the calibration error holds: 128 bins make 16 groups.
ERROR_GROUP_BINS: Final = 8
# What CBPE and ATC may surely differ by before that is a flag.
DISAGREEMENT_MAX: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """P(correct | confidence bin), monotone, in blocks of neighbouring bins.

    Shape: right and labelled (blocks,), block (bins,) says to which block each bin belongs. A bin
    without labels belongs to the block of the nearest bin that has some. `first` and `last` are
    the ends of the bins that have labels.
    """

    right: Float64
    labelled: Float64
    block: Int64
    first: int
    last: int

    @property
    def accuracy(self) -> Float64:
        """Accuracy of each block. Shape: (blocks,)."""
        shares: Float64 = self.right / self.labelled
        return shares

    def shares(self, counts: Int64) -> Float64:
        """Sum a window to shares of the blocks. Shape: (bins,) to (blocks,)."""
        total = np.bincount(self.block, weights=counts, minlength=len(self.labelled))
        shares: Float64 = total / counts.sum()
        return shares

    def outside(self, counts: Int64) -> float:
        """Return which share of a window lies where no label has ever been."""
        inside = int(counts[self.first : self.last + 1].sum())
        return 1 - inside / int(counts.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval, in [0, 1]."""

    value: float
    low: float
    high: float
    variance: float


def probabilities(grid: Grid) -> Float64:
    """Return the edges of confidence bins as probabilities. Shape: (bins + 1,).

    A confidence within [0, 1] is one already; of another range it is the share, as of percents.
    """
    edges = grid.edges()
    if grid.low >= 0.0 and grid.high <= 1.0:
        return edges
    return (edges - grid.low) / (grid.high - grid.low)


def pooled(values: Float64, weights: Float64) -> tuple[Float64, Int64]:
    """Fit the closest ascending values by pooling neighbours. Returns fit and block of each.

    Shape: all (n,), weights positive. Cost: linear. Source: Ayer et al. (1955), pool adjacent
    violators. `scipy.optimize` has it too, for 24 MB and half a second at each start.
    """
    means: list[float] = []
    sizes: list[float] = []
    lengths: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, size, length = value, weight, 1
        while means and means[-1] >= mean:
            before = sizes.pop()
            mean = (means.pop() * before + mean * size) / (before + size)
            size, length = before + size, length + lengths.pop()
        means.append(mean)
        sizes.append(size)
        lengths.append(length)
    block = np.repeat(np.arange(len(means)), lengths)
    return np.array(means)[block], block


def curve_of(table: Int64) -> Curve:
    """Learn a curve from a labelled table with a label at least. Shape: (bins, 2)."""
    labelled = table.sum(axis=1)
    used = np.flatnonzero(labelled)
    _, block = pooled(table[used, RIGHT] / labelled[used], labelled[used].astype(np.float64))
    bins = np.arange(len(table))
    after = np.searchsorted(used, bins).clip(max=len(used) - 1)
    before = (after - 1).clip(min=0)
    nearest = np.where(np.abs(used[before] - bins) <= np.abs(used[after] - bins), before, after)
    return Curve(
        right=np.bincount(block, weights=table[used, RIGHT]).astype(np.float64),
        labelled=np.bincount(block, weights=labelled[used]).astype(np.float64),
        block=block[nearest],
        first=int(used[0]),
        last=int(used[-1]),
    )


def cbpe_variance(shares: Float64, accuracy: Float64, labelled: Float64, events: float) -> float:
    """Return the variance of a confidence-based estimate. Shape: all (bins,).

    It is that of the accuracy in the bins, that of the shares of the bins, and that of the answers
    of the window's own events.
    """
    scatter = accuracy * (1 - accuracy)
    mean = float((shares * accuracy).sum())
    of_reference = float((shares**2 * scatter / labelled).sum())
    of_window = float((shares * accuracy**2).sum()) - mean**2
    return of_reference + (max(of_window, 0.0) + float((shares * scatter).sum())) / events


def cbpe(curve: Curve, counts: Int64) -> Interval:
    """Estimate the accuracy of a window with an event at least. Shape: counts (bins,).

    For the variance half a right and half a wrong label are added to each block, so that one that
    was never wrong is not taken for sure.
    """
    shares = curve.shares(counts)
    value = float((shares * curve.accuracy).sum())
    smooth = (curve.right + 0.5) / (curve.labelled + 1)
    variance = cbpe_variance(shares, smooth, curve.labelled, float(counts.sum()))
    margin = Z_95 * math.sqrt(variance)
    return Interval(
        value=value,
        low=max(0.0, value - margin),
        high=min(1.0, value + margin),
        variance=variance,
    )


def atc(table: Int64, counts: Int64) -> float:
    """Estimate accuracy as the share above the confidence that as many were below as were wrong.

    Linear inside a bin. Shape: table (bins, 2), counts (bins,), both with an event at least.
    """
    reference, wrong = table.sum(axis=1), int(table[:, WRONG].sum())
    at = int(np.searchsorted(np.cumsum(reference), wrong))
    part = (wrong - int(reference[:at].sum())) / max(int(reference[at]), 1)
    below = int(counts[:at].sum()) + part * int(counts[at])
    return 1 - below / int(counts.sum())


def disagree(first: Interval, second: float, labelled: int, events: int) -> bool:
    """Say whether CBPE and ATC differ by more than chance and DISAGREEMENT_MAX explain."""
    variance = second * (1 - second) * (1 / labelled + 1 / events)
    margin = Z_95 * math.sqrt(first.variance + variance)
    return abs(first.value - second) - margin > DISAGREEMENT_MAX


def calibration_error(table: Int64, edges: Float64) -> float:
    """Return the expected calibration error of a labelled table with a label at least.

    It is the mean distance between confidence and accuracy over groups of bins, so it is above 0
    by chance alone when there are few labels. Shape: table (bins, 2), edges (bins + 1,).
    """
    labelled = table.sum(axis=1)
    group = np.arange(len(table)) // ERROR_GROUP_BINS
    right = np.bincount(group, weights=table[:, RIGHT])
    claimed = np.bincount(group, weights=labelled * middles(edges))
    return float(np.abs(right - claimed).sum() / labelled.sum())
