"""Signals that share an attribute and a grid, counted together.

Law: one pass over a batch counts a lane for all contracts that have it. Cost: one add per row.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import Batch
from gateway.contract.schema import Contract, Role, Signal, SignalType
from gateway.measure.drift.baseline import COARSE_BINS_MAX
from gateway.measure.drift.grid import Grid, GridKind, bins_of_classes, bins_of_numbers
from gateway.measure.state import Int64, grown
from gateway.otlp import columns
from gateway.otlp.columns import numbers_at, texts_at
from gateway.otlp.kernel import Literals
from gateway.tables import MISSING, Bool, Int16

NO_ROW: Final = -1
NOT_COLLECTING: Final = (1 << 63) - 1
MEASURED_ROLES: Final = frozenset({Role.CONFIDENCE, Role.PREDICTION, Role.FEATURE})
BOOLEAN_VALUES: Final = ("false", "true")
# Adding to all cells of a lane at once pays from so many events on, and with so few cells for each.
EVENTS_AT_ONCE_MIN: Final = 1024
CELLS_PER_EVENT_MAX: Final = 2
UNIT_RANGE: Final = (0.0, 1.0)


def maybe_grid(signal: Signal) -> Grid | None:
    """Return the grid on which a signal is counted, None when it is not a distribution."""
    if signal.role not in MEASURED_ROLES or signal.type is SignalType.STRING:
        return None
    if signal.type is SignalType.BOOL:
        return Grid(kind=GridKind.CLASSES, values=BOOLEAN_VALUES)
    if signal.type is SignalType.ENUM:
        return Grid(kind=GridKind.CLASSES, values=tuple(signal.values))
    if signal.role is Role.CONFIDENCE:
        low, high = signal.range or UNIT_RANGE
        return Grid(kind=GridKind.LOGIT, low=low, high=high)
    if signal.range is None:
        return Grid(kind=GridKind.LOG)
    return Grid(kind=GridKind.LINEAR, low=signal.range[0], high=signal.range[1])


def measured(contract: Contract) -> list[tuple[Signal, Grid]]:
    """List a contract's signals that have a grid, in the contract's order."""
    pairs = ((signal, maybe_grid(signal)) for signal in contract.signals.values())
    return [(signal, grid) for signal, grid in pairs if grid is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneKey:
    """What two signals must share to be in one lane."""

    slot: int
    type: SignalType
    grid: Grid


class Lane:
    """Counts of all streams of one lane. Shape: open and total (rows, width), others (rows,)."""

    def __init__(self, key: LaneKey) -> None:
        self.key = key
        self.grid = key.grid
        self._literals = Literals([value.encode() for value in key.grid.values])
        self.open = np.zeros((0, key.grid.width), dtype=np.int64)
        self.total = np.zeros((0, key.grid.width), dtype=np.int64)
        self.row_of_series = np.full(0, NO_ROW, dtype=np.int64)
        # Which place among the series' signals, for the evidence rows.
        self.place_of_series = np.full(0, NO_ROW, dtype=np.int64)
        self.stream: list[int] = []
        self.opened = np.zeros(0, dtype=np.int64)
        self.group = np.zeros((0, key.grid.width), dtype=np.int16)
        self.is_frozen = np.zeros(0, dtype=np.bool_)
        self.seen = np.zeros(0, dtype=np.int64)
        self.due = np.full(0, NOT_COLLECTING, dtype=np.int64)
        self.collecting = 0

    def append(self, series: int, place: int, stream: int, tick: int) -> int:
        """Open a row for the stream of a series."""
        row = self.open_row(stream, tick)
        self.row_of_series = grown(self.row_of_series, series + 1, NO_ROW)
        self.place_of_series = grown(self.place_of_series, series + 1, NO_ROW)
        self.row_of_series[series] = row
        self.place_of_series[series] = place
        return row

    def open_row(self, stream: int, tick: int) -> int:
        """Open a row for a stream."""
        row = len(self.stream)
        self.stream.append(stream)
        for name in ("open", "total", "opened", "group", "is_frozen", "seen"):
            setattr(self, name, grown(getattr(self, name), row + 1))
        self.due = grown(self.due, row + 1, NOT_COLLECTING)
        self.opened[row] = tick
        return row

    def bins(self, batch: Batch, rows: Int64 | None) -> Int64:
        """Find the bin of the given spans, of all when None."""
        slot = self.key.slot
        at = batch.slots[slot] if rows is None else batch.slots[slot][rows]
        missing: Bool = at == MISSING
        if self.key.type is SignalType.BOOL:
            codes = columns.booleans(batch, slot).astype(np.int32)
            codes = codes if rows is None else codes[rows]
        elif self.key.type is SignalType.ENUM:
            offset, length, present = texts_at(batch.span_attributes, at)
            codes = self._literals.codes(batch.arena, offset, length)
            codes[~present] = -1
        else:
            values = numbers_at(batch.span_attributes, at)
            return bins_of_numbers(self.grid, values, missing)
        return bins_of_classes(self.grid, codes, missing)

    def add(self, series: Int64, bins: Int64) -> None:
        """Count bins of inferences. Shape: both (rows,)."""
        self.count(self.rows_of(series), bins)

    def rows_of(self, series: Int64) -> Int64:
        """Return the row of each series, NO_ROW where there is none."""
        return looked_up(self.row_of_series, series)

    def count(self, row: Int64, bins: Int64) -> None:
        """Count bins in rows of this lane, nothing in NO_ROW. Shape: both (events,)."""
        count, width = len(self.stream), self.grid.width
        events = len(bins)
        if events >= EVENTS_AT_ONCE_MIN and (count + 1) * width <= CELLS_PER_EVENT_MAX * events:
            # The first row is for events of NO_ROW, which is -1.
            cells = row + 1
            cells *= width
            cells += bins
            found = np.bincount(cells, minlength=(count + 1) * width)
            counted = found.reshape(count + 1, width)[1:]
            self.open[:count] += counted
            if self.collecting:
                self.seen[:count] += counted.sum(axis=1) - counted[:, self.grid.missing]
            return
        if int(row.min(initial=0)) < 0:
            mine = row >= 0
            row, bins = row[mine], bins[mine]
        np.add.at(self.open.reshape(-1), row * width + bins, 1)
        if self.collecting:
            np.add.at(self.seen, row[bins != self.grid.missing], 1)

    def count_late(self, row: Int64, bins: Int64) -> None:
        """Count bins of inferences that are not judged, none where there is no row."""
        held = row >= 0
        np.add.at(self.total, (row[held], bins[held]), 1)

    def places(self, series: Int64) -> Int64:
        """Return the place of this lane among the signals of each series, NO_ROW where none."""
        return looked_up(self.place_of_series, series)

    def counts(self, row: int) -> Int64:
        """Return all counts of a row so far."""
        counts: Int64 = self.total[row] + self.open[row]
        return counts

    def fold(self, rows: Int64, tick: int) -> None:
        """Close the open ticks of rows: their counts join the total."""
        self.total[rows] += self.open[rows]
        self.open[rows] = 0
        self.opened[rows] = tick

    def coarse(self, rows: Int64) -> Int64:
        """Return the open counts of rows in their baselines' bins. Shape: (k, COARSE_BINS_MAX)."""
        place = np.arange(len(rows))[:, None] * COARSE_BINS_MAX + self.group[rows]
        counts = np.bincount(
            place.reshape(-1),
            weights=self.open[rows].reshape(-1),
            minlength=len(rows) * COARSE_BINS_MAX,
        )
        return counts.astype(np.int64).reshape(len(rows), COARSE_BINS_MAX)

    def freeze(self, row: int, group: Int16) -> None:
        """Judge a row against a baseline's bins from now on."""
        self.group[row] = group
        self.is_frozen[row] = True


def looked_up(table: Int64, series: Int64) -> Int64:
    """Return the table's value for each series, NO_ROW past its end. Shape: as series."""
    if int(series.max(initial=-1)) < len(table):
        found: Int64 = table[series]
        return found
    held = series < len(table)
    found = np.full(len(series), NO_ROW, dtype=np.int64)
    found[held] = table[series[held]]
    return found
