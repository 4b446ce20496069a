"""Fixed global grids on which signals are counted.

Law: the bin of a value depends on the value and the grid's name alone, never on data, so counts of
any two places and times add. Nothing is dropped: a grid has two bins more than it has values,
`missing` for no attribute and `odd` for NaN, infinite, out of range, wrong kind or unseen class.

Grids: LOGIT has 128 bins, equally wide in logit, on [1e-4, 1 - 1e-4] of the range; edges are
multiples of 2**-17 of it. LINEAR has 128 equal bins. LOG is for signals without a range: eight
bins per octave of |x| in [2**-12, 2**20) and both signs (gamma at most 1.125) around a zero bin.
WEIGHT is for weights 1 / p of a sampler: bin 0 is weight 1, bin k above 2**(k - 1) and up to 2**k.
Source: drift.md section 8.
"""

import functools
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from gateway.measure.state import Array, Int64
from gateway.tables import Bool, Float64, Int32, UInt8

# Counts on grids of different versions do not add; it changes with any edge below.
GRIDS_VERSION: Final = 1
SCORE_BINS: Final = 128
LOGIT_TAIL: Final = 1e-4
# Fine enough that no logit bin is narrower than one step.
QUANTA: Final = 1 << 17
LOG_SHIFT: Final = 52 - 3  # eight bins per octave
LOG_FIRST_EXPONENT: Final = -12
LOG_OCTAVES: Final = 32
LOG_SIDE: Final = LOG_OCTAVES * 8
EXPONENT_BIAS: Final = 1023
WEIGHT_OCTAVES: Final = 56  # thresholds have as many bits


class GridKind(StrEnum):
    """Form of a grid."""

    LOGIT = "logit"
    LINEAR = "linear"
    LOG = "log"
    CLASSES = "classes"
    WEIGHT = "weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """One grid. Units: low and high in those of the signal; `values` only of CLASSES."""

    kind: GridKind
    low: float = 0.0
    high: float = 1.0
    values: tuple[str, ...] = ()

    @property
    def bins(self) -> int:
        """Count of bins that hold values."""
        if self.kind is GridKind.CLASSES:
            return len(self.values)
        if self.kind is GridKind.WEIGHT:
            return WEIGHT_OCTAVES + 1
        return 2 * LOG_SIDE + 1 if self.kind is GridKind.LOG else SCORE_BINS

    @property
    def missing(self) -> int:
        """Bin of rows without the attribute."""
        return self.bins

    @property
    def odd(self) -> int:
        """Bin of values that are none of the grid's."""
        return self.bins + 1

    @property
    def width(self) -> int:
        """Count of all bins."""
        return self.bins + 2

    @property
    def name(self) -> str:
        """Text that two equal grids share."""
        values = "|".join(value.replace("|", "||") for value in self.values)
        return f"{self.kind.value}/{self.low!r}/{self.high!r}/{values}"

    def edges(self) -> Float64:
        """Return the lower edges of the value bins and the last upper edge. Shape: (bins + 1,)."""
        if self.kind is GridKind.LOG:
            return _log_edges()
        if self.kind is GridKind.WEIGHT:
            return np.append(1.0, np.exp2(np.arange(WEIGHT_OCTAVES + 1)))
        steps = _logit_edges() / QUANTA if self.kind is GridKind.LOGIT else _linear_edges()
        return self.low + steps * (self.high - self.low)

    def describe(self, bin_index: int) -> str:
        """Say for a person what a bin holds."""
        if bin_index == self.missing:
            return "missing"
        if self.kind is GridKind.CLASSES:
            return "unseen class" if bin_index == self.odd else self.values[bin_index]
        if bin_index == self.odd:
            return "invalid"
        edges = self.edges()
        return f"{edges[bin_index]:.4g} to {edges[bin_index + 1]:.4g}"


def bins_of_numbers(grid: Grid, values: Float64, missing: Bool) -> Int64:
    """Find the bin of each value; NaN that is not missing is odd. Shape: (rows,)."""
    if grid.kind is GridKind.LOG:
        bins, valid = _log_bins(values)
    else:
        share = values
        if grid.low != 0.0 or grid.high != 1.0:
            with np.errstate(over="ignore"):
                share = (values - grid.low) / (grid.high - grid.low)
        valid = (share >= 0.0) & (share <= 1.0)
        if np.count_nonzero(valid) < len(valid):
            share = np.where(valid, share, 0.0)
        if grid.kind is GridKind.LOGIT:
            bins = _logit_table()[(share * QUANTA).astype(np.int64)].astype(np.int64)
        else:
            bins = np.minimum((share * SCORE_BINS).astype(np.int64), SCORE_BINS - 1)
    if np.count_nonzero(valid) < len(valid):
        bins[~valid] = grid.odd
        bins[missing] = grid.missing
    return bins


def bins_of_classes(grid: Grid, codes: Int32, missing: Bool) -> Int64:
    """Find the bin of each class code; -1 that is not missing is unseen. Shape: (rows,)."""
    bins = codes.astype(np.int64)
    bins[codes < 0] = grid.odd
    bins[missing] = grid.missing
    return bins


def _log_bins(values: Float64) -> tuple[Int64, Bool]:
    size = np.abs(values)
    valid = size < np.inf
    bits = size.view(np.int64) >> LOG_SHIFT
    step = bits - ((EXPONENT_BIAS + LOG_FIRST_EXPONENT) << (52 - LOG_SHIFT))
    np.clip(step, -1, LOG_SIDE - 1, out=step)
    step += 1  # 0 is the zero bin, and 1 … LOG_SIDE are the sizes
    return np.where(values < 0, LOG_SIDE - step, LOG_SIDE + step), valid


@functools.cache
def _logit_edges() -> Float64:
    """Return the bin edges in quanta. Shape: (SCORE_BINS + 1,)."""
    most = np.log((1 - LOGIT_TAIL) / LOGIT_TAIL)
    inner = 1 / (1 + np.exp(-np.linspace(-most, most, SCORE_BINS + 1)[1:-1]))
    return np.concatenate(([0.0], np.round(inner * QUANTA), [float(QUANTA)]))


@functools.cache
def _logit_table() -> UInt8:
    """Return the bin of each quantum; the last entry is for exactly 1."""
    table: Array = np.searchsorted(_logit_edges()[1:-1], np.arange(QUANTA + 1), side="right")
    return table.astype(np.uint8)


@functools.cache
def _linear_edges() -> Float64:
    return np.arange(SCORE_BINS + 1) / SCORE_BINS


@functools.cache
def _log_edges() -> Float64:
    """Return lower edges from the most negative size to the largest, zero bin in the middle."""
    octave = np.exp2(LOG_FIRST_EXPONENT + np.arange(LOG_OCTAVES))
    sizes = (octave[:, None] * (1 + np.arange(8) / 8)).ravel()
    sizes = np.append(sizes, np.exp2(LOG_FIRST_EXPONENT + LOG_OCTAVES))
    return np.concatenate((-sizes[::-1], sizes))
