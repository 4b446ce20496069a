"""Recent rows of every series, from which the traces that explain an anomaly are picked.

Law: bounded. A ring holds recent rows of a series, at most ROWS_PER_BATCH of each batch; a second
ring holds bad rows only, so that a rare failure is still at hand when it is asked for.
Choice depends on the batches alone. Shape: arrays are (series, rows, …).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.measure.state import Array, Int64, State, grown
from gateway.tables import Bool

RECENT_ROWS: Final = 512
BAD_ROWS: Final = 256
ROWS_PER_BATCH: Final = 32
NO_BIN: Final = -1
# Odd, and far from a multiple of usual batch sizes.
PHASE_STEP: Final = 40_503
TRACES_MAX: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Columns of some inferences. Shape: (rows,), ids (rows, 2), bins (rows, signals).

    `inclusion` is the bin of the weight that a sampler before the gateway gave it, or NO_BIN.
    """

    ids: Array
    device: Int64
    event_ns: Int64
    duration_ns: Int64
    failed: Bool
    bins: Array
    inclusion: Array

    def take(self, where: Array) -> "Sample":
        """Return some of the rows, by index or mask."""
        return Sample(**{name: getattr(self, name)[where] for name in _FIELDS})


_FIELDS: Final = ("ids", "device", "event_ns", "duration_ns", "failed", "bins", "inclusion")


class Ring:
    """The newest rows of every series."""

    def __init__(self, rows: int, signals: int) -> None:
        self._rows = rows
        self.ids = np.zeros((0, rows, 2), dtype=np.uint64)
        self.device = np.zeros((0, rows), dtype=np.int64)
        self.event_ns = np.zeros((0, rows), dtype=np.int64)
        self.duration_ns = np.zeros((0, rows), dtype=np.int64)
        self.failed = np.zeros((0, rows), dtype=np.bool_)
        self.bins = np.full((0, rows, signals), NO_BIN, dtype=np.int16)
        self.inclusion = np.full((0, rows), NO_BIN, dtype=np.int16)
        self._written = np.zeros(0, dtype=np.int64)

    def reserve(self, series: int) -> None:
        """Make room for series 0 … series - 1."""
        if series <= len(self._written):
            return
        for name in _FIELDS:
            setattr(self, name, grown(getattr(self, name), series))
        self._written = grown(self._written, series)

    def add(self, series: Int64, rank: Int64, rows: Sample) -> None:
        """Write rows; `rank` numbers them within their series, oldest first."""
        at = (self._written[series] + rank) % self._rows
        for name in _FIELDS:
            getattr(self, name)[series, at] = getattr(rows, name)
        np.add.at(self._written, series, 1)

    def newest(self, series: int) -> Sample:
        """Return the rows of a series, newest first."""
        written = int(self._written[series])
        order = (written - 1 - np.arange(min(written, self._rows))) % self._rows
        return Sample(**{name: getattr(self, name)[series][order] for name in _FIELDS})

    def state(self, count: int) -> State:
        """Copy the rows of the first `count` series."""
        state: State = {name: getattr(self, name)[:count].copy() for name in _FIELDS}
        state["written"] = self._written[:count].copy()
        return state

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put rows back; bins are forgotten when the plan counts other signals now."""
        count = len(state["written"])
        self.reserve(count)
        self._written[:count] = state["written"]
        for name in _FIELDS:
            mine = getattr(self, name)
            if name in state and mine.shape[1:] == state[name].shape[1:]:
                mine[:count] = state[name]
            else:
                mine[:count] = NO_BIN


def thinned(series: Int64, series_count: int, most: int, seed: int) -> tuple[Int64, Int64]:
    """Choose evenly spaced rows of each series, `most` of those that have more.

    Returns their indices and their ranks in the series, both in order of time. Rows of a batch
    stand in order of their devices, so the newest ones alone would show but a few of these; the
    seed moves the choice from batch to batch.
    """
    count = len(series)
    if count and bool((series == series[0]).all()):
        return _evenly(np.arange(count), np.full(count, count), most, seed)
    # Sorting 16-bit keys stably is a radix sort.
    narrow = series.astype(np.uint16) if series_count < 1 << 16 else series
    order = np.argsort(narrow, kind="stable")
    sizes = np.bincount(series, minlength=series_count)
    sorted_series = series[order]
    size = sizes[sorted_series]
    within = np.arange(count) - (np.cumsum(sizes) - sizes)[sorted_series]
    kept, rank = _evenly(within, size, most, seed)
    return order[kept], rank


def _evenly(within: Int64, size: Int64, most: int, seed: int) -> tuple[Int64, Int64]:
    """Choose rows by their place within series of the given sizes."""
    phase = seed * PHASE_STEP % size
    turns, rest = np.divmod(within * most + phase, size)
    # In each full turn around the size exactly one row lands on a rest below `most`.
    is_all = size <= most
    kept = np.flatnonzero(is_all | (rest < most))
    rank = np.where(is_all, within, turns - (phase >= most))
    return kept, rank[kept]


def spread(sample: Sample, most: int = TRACES_MAX) -> Int64:
    """Choose rows of different traces, newest first, in turn from every device."""
    packed = np.ascontiguousarray(sample.ids).view([("hi", "<u8"), ("lo", "<u8")]).reshape(-1)
    _, first = np.unique(packed, return_index=True)
    rows = np.sort(first)
    device = sample.device[rows]
    order = np.argsort(device, kind="stable")
    sorted_device = device[order]
    starts = np.searchsorted(sorted_device, sorted_device)
    turn = np.empty(len(rows), dtype=np.int64)
    turn[order] = np.arange(len(rows)) - starts
    chosen: Int64 = rows[np.lexsort((rows, turn))[:most]]
    return chosen
