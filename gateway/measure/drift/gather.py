"""Gather the blocks of a baseline from events whose number is not known beforehand.

Law: blocks are consecutive and add up to every event that was given, missing and odd ones too.
Where there would be too many, neighbours are joined, so that memory does not grow with events: in
the end there are BLOCKS_MAX / 2 or more once there are enough events, all of one length but the
last. Cost: one count for each event, and one joining for each doubling. Counts by hour of the week
have one size, however many events there are.
"""

from typing import Final

import numpy as np

from gateway.measure.drift.grid import Grid
from gateway.measure.drift.hours import PARTS, cell_of, empty_table
from gateway.measure.drift.seasonal import HOURS
from gateway.measure.state import Int64

BLOCKS_MAX: Final = 64
BLOCK_EVENTS_FIRST: Final = 50


class HourGathering:
    """Counts of one signal by hour of the week. Shape: table (hours, parts, grid width)."""

    def __init__(self, grid: Grid) -> None:
        self.table = empty_table(grid)

    def add(self, bins: Int64, at_ns: Int64) -> None:
        """Count events. Shape: both (events,). Units: at_ns Unix nanoseconds."""
        table = self.table.reshape(HOURS * PARTS, -1)
        np.add.at(table, (cell_of(at_ns), bins), 1)


class Gathering:
    """Blocks of one signal so far."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._blocks: list[Int64] = []
        self._block_events = BLOCK_EVENTS_FIRST
        self._open = np.zeros(grid.width, dtype=np.int64)
        self._held = 0
        self.events = 0

    def add(self, bins: Int64) -> None:
        """Count events in the order of time. Shape: (events,), bins of the grid."""
        self.events += len(bins)
        at = 0
        while at < len(bins):
            part = bins[at : at + self._block_events - self._held]
            self._open += np.bincount(part, minlength=self.grid.width)
            self._held += len(part)
            at += len(part)
            if self._held == self._block_events:
                self._close()

    def _close(self) -> None:
        self._blocks.append(self._open)
        self._open, self._held = np.zeros(self.grid.width, dtype=np.int64), 0
        if len(self._blocks) == BLOCKS_MAX:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [first + second for first, second in pairs]
            self._block_events *= 2

    def blocks(self) -> list[Int64]:
        """Return the blocks; events after the last whole one belong to it."""
        blocks = [block.copy() for block in self._blocks]
        if self._held and blocks:
            blocks[-1] += self._open
        elif self._held:
            blocks.append(self._open.copy())
        return blocks
