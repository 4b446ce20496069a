"""What recent ticks held, in blocks that grow with age.

Law: block 0 is the newest tick; block j holds 2**(j - 1) ticks or twice as many, so that BLOCKS
blocks look back 32 to 63 ticks, and a window that began at any of them is met to within half of
its length, to a fifth on average. Nothing between the oldest block and now is left out. Arrays
belong to the caller; `end_ns` has one entry more, the end of the block that was dropped last. All
zero is empty.

Complexity: a tick moves two blocks on average. 32 single ticks would take five times the memory.
Source: Datar et al. (2002), exponential histograms.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.measure.state import Int64
from gateway.tables import UInt8

BLOCKS: Final = 6
# By level, the block from which each block takes what it holds after a tick.
_SOURCES: Final = np.array(
    [
        [max(0, at - 1) if at <= level + 1 else at for at in range(BLOCKS + 1)]
        for level in range(BLOCKS + 1)
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """Recent ticks of all rows.

    Shape: counts (rows, BLOCKS, places), end_ns (rows, BLOCKS + 1), ticks (rows, BLOCKS).
    """

    counts: NDArray[np.int32]
    end_ns: Int64
    ticks: UInt8

    def add(self, rows: Int64, counts: Int64, end_ns: Int64, number: Int64) -> None:
        """Append a tick to rows; `number` counts their ticks from 1. Shape: counts (k, places)."""
        # Block j passes on what it holds at every 2**j-th tick, so that ages double.
        level = np.bitwise_count((number & -number) - 1).astype(np.int64)
        at = rows[:, None]
        source = _SOURCES[np.minimum(level, BLOCKS)]
        held, taken = self.counts[at, source[:, :BLOCKS]], self.ticks[at, source[:, :BLOCKS]]
        ends = self.end_ns[at, source]
        # The block behind the last one that moved takes in what it is passed.
        joined = np.flatnonzero(level < BLOCKS - 1)
        into = level[joined] + 1
        held[joined, into] += self.counts[rows[joined], into]
        taken[joined, into] += self.ticks[rows[joined], into]
        held[:, 0], taken[:, 0], ends[:, 0] = counts, 1, end_ns
        self.counts[rows], self.ticks[rows], self.end_ns[rows] = held, taken, ends

    def since(self, row: int, onset_ns: int) -> Int64:
        """Sum the blocks that lie, for the greater part, after the onset. Shape: (places,)."""
        end = self.end_ns[row]
        # Where the first tick began is not known; it counts from its end.
        start = np.where(end[1:] > 0, end[1:], end[:-1])
        used = (start + (end[:-1] - start) // 2 >= onset_ns) & (end[:-1] > onset_ns)
        total: Int64 = self.counts[row][used].sum(axis=0, dtype=np.int64)
        return total

    def time_ns(self, row: int, age: int) -> int:
        """Return when the tick `age` ticks before the newest ended.

        Exact at the ends of blocks and where ticks are evenly spaced, interpolated elsewhere, and
        the end of the oldest known block at most.
        """
        known = self.end_ns[row] > 0
        known[0] = True
        ages = np.concatenate(([0], np.cumsum(self.ticks[row], dtype=np.int64)))[known]
        ends = self.end_ns[row][known]
        back = np.interp(age, ages, (ends[0] - ends).astype(np.float64))
        return int(ends[0]) - round(float(back))
