"""Collect the events of which a baseline is made, in consecutive blocks.

Law: a block is a difference of two exact counts, so blocks add up to the baseline. Blocks show
overdispersion, and whether the time that was learned from was steady. There are at most BLOCKS_MAX
of them: of so many, each two neighbours become one, and later blocks are as large.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from gateway.measure.drift.baseline import Baseline, freeze
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.grid import Grid
from gateway.measure.drift.lanes import Lane
from gateway.measure.state import Int64

BLOCKS_MAX: Final = 16


@dataclass(slots=True, kw_only=True)
class Collection:
    """Blocks so far. `last` are the stream's counts when the last block was closed.

    `wanted` is how many events the blocks so far ask for, 0 while nothing is known; it is computed
    from them and no part of the state.
    """

    last: Int64
    refusals: int = 0
    blocks: list[Int64] = field(default_factory=list)
    wanted: int = 0

    @staticmethod
    def begin(counts: Int64, refusals: int = 0) -> "Collection":
        """Start at the given counts."""
        return Collection(last=counts.copy(), refusals=refusals)

    def close_block(self, counts: Int64) -> None:
        """End a block at the given counts."""
        self.blocks.append(counts - self.last)
        self.last = counts.copy()
        if len(self.blocks) >= BLOCKS_MAX:
            pairs = zip(self.blocks[::2], self.blocks[1::2], strict=True)
            self.blocks = [first + second for first, second in pairs]

    def baseline(self, grid: Grid, *, unsteady: bool = False) -> Baseline:
        """Freeze what has been collected."""
        counts = np.sum(np.array(self.blocks), axis=0)
        return freeze(grid, counts, self.blocks, unsteady=unsteady)


def leave_out(collections: Mapping[int, Collection], lane: Lane, rows: Int64, bins: Int64) -> None:
    """Keep events that a lane has counted out of what is being learned. Shape: both (events,)."""
    for row in np.unique(rows[rows >= 0]).tolist():
        collection = collections.get(lane.stream[row])
        if collection is not None:
            came = np.bincount(bins[rows == row], minlength=lane.grid.width)
            collection.last = collection.last + came


def alarms_by_itself(
    grid: Grid, blocks: Sequence[Int64], tolerance: float, log_bound: float
) -> bool:
    """Say whether the second half of the blocks would alarm against the first.

    A reference that fails this was not taken in a steady time. Source: drift.md section 5.
    """
    half = len(blocks) // 2
    first, second = list(blocks[:half]), blocks[half:]
    baseline = freeze(grid, np.sum(np.array(first), axis=0), first)
    bank = Bank()
    bank.reserve(1)
    bank.arm(0, baseline, tolerance, log_bound)
    row, end_ns = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    coarse = baseline.coarse(np.array(second))
    return any(bank.step(row, each[None, :], end_ns) for each in coarse)
