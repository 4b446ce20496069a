"""What confidence and predictions were in the last ten to twenty minutes, on their fine grids.

Law: a window is the difference of two exact counts of a stream, so a batch costs nothing here. It
holds this generation and the one before it; which batch or idle step begins a generation does not
change what is in it, because counts only move with batches.
Complexity: two copies of the counts at the end of each generation.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from gateway.errors import CorruptDataError
from gateway.measure.drift.grid import GridKind
from gateway.measure.drift.lanes import Lane
from gateway.measure.drift.streams import Streams
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, pack_json, union, unpack_json

GENERATION_NS: Final = 600 * SECOND_NS
WATCHED: Final = frozenset({GridKind.LOGIT, GridKind.CLASSES})


class Windows:
    """Counts of all streams of confidence and of classes when the generations began."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        # By lane. Shape: (rows, width); rows that came later began at 0.
        self._before: dict[int, Int64] = {}
        self._older: dict[int, Int64] = {}
        self._generation = 0

    def turn(self, now_ns: int) -> None:
        """Begin a new generation when it is time."""
        generation = now_ns // GENERATION_NS
        if generation <= self._generation:
            return
        is_next = generation == self._generation + 1
        self._generation = generation
        fresh = {number: _counts(lane) for number, lane in self._watched()}
        self._older = self._before if is_next else fresh
        self._before = fresh

    def _watched(self) -> Iterator[tuple[int, Lane]]:
        for number, lane in enumerate(self._streams.lanes):
            # The lanes of single classes count what that of their confidence has.
            if lane.grid.kind in WATCHED and lane in self._streams.readers:
                yield number, lane

    def recent(self, number: int) -> Int64:
        """Return what a stream of a WATCHED grid counted in the window. Shape: (grid width,)."""
        counts: Int64 = self._streams.counts(number) - self._mark(self._older, number)
        return counts

    def busy(self, events_min: int) -> Iterator[int]:
        """List the streams of confidence with so many events in their windows."""
        for number, lane in self._watched():
            if lane.grid.kind is not GridKind.LOGIT:
                continue
            events = _counts(lane).sum(axis=1)
            mark = self._older.get(number)
            if mark is not None:
                events[: len(mark)] -= mark.sum(axis=1)
            for row in np.flatnonzero(events >= events_min).tolist():
                yield lane.stream[row]

    def _mark(self, marks: Mapping[int, Int64], number: int) -> Int64:
        """Return the counts of a stream at a mark."""
        item = self._streams.items[number]
        mark = marks.get(item.lane)
        if mark is None or item.row >= len(mark):
            return np.zeros(self._streams.grid(number).width, dtype=np.int64)
        row: Int64 = mark[item.row]
        return row

    def state(self) -> State:
        """Copy what this generation and the one before it have counted, by stream."""
        keys: list[list[str | int]] = []
        watched = {number for number, _ in self._watched()}
        current: list[Int64] = []
        previous: list[Int64] = []
        for number, item in enumerate(self._streams.items):
            counts, before = self._streams.counts(number), self._mark(self._before, number)
            older = self._mark(self._older, number)
            if item.lane in watched and (counts != older).any():
                keys.append([*item.key, self._streams.grid(number).name, len(counts)])
                current.append(counts - before)
                previous.append(before - older)
        return {
            "generation": np.array([self._generation], dtype=np.int64),
            "keys": pack_json(keys),
            "current": np.concatenate([np.zeros(0, dtype=np.int64), *current]),
            "previous": np.concatenate([np.zeros(0, dtype=np.int64), *previous]),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put windows back, after the streams; a stream that starts anew has none."""
        self.begin()
        if not state:
            return
        self._generation = int(state["generation"][0])
        for (model, version, signal, grid, _), current, previous in _rows(state):
            number = self._streams.number_of(model, version, signal)
            if number is None or self._streams.grid(number).name != grid:
                continue
            item = self._streams.items[number]
            self._before[item.lane][item.row] -= current
            self._older[item.lane][item.row] -= current + previous

    def begin(self) -> None:
        """Empty all windows."""
        self._before = {number: _counts(lane) for number, lane in self._watched()}
        self._older = {number: each.copy() for number, each in self._before.items()}


def _counts(lane: Lane) -> Int64:
    size = len(lane.stream)
    counts: Int64 = lane.total[:size] + lane.open[:size]
    return counts


def _rows(state: Mapping[str, Array]) -> Iterator[tuple[list[str], Int64, Int64]]:
    """Read each stream's key and what it counted. Raises: CorruptDataError."""
    keys = unpack_json(state["keys"])
    ends = np.cumsum([int(key[-1]) for key in keys], dtype=np.int64)
    if len(keys) and not len(state["current"]) == len(state["previous"]) == int(ends[-1]):
        raise CorruptDataError("the saved windows do not fit their list")
    yield from zip(
        keys,
        np.split(state["current"], ends[:-1]),
        np.split(state["previous"], ends[:-1]),
        strict=False,  # of nothing, `split` makes one part
    )


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states by stream, the generations aligned by the later one."""
    generation = np.maximum(first["generation"], second["generation"])
    keys, where = union(unpack_json(first["keys"]), unpack_json(second["keys"]))
    widths = [int(key[-1]) for key in keys]
    totals = [(np.zeros(each, np.int64), np.zeros(each, np.int64)) for each in widths]
    for state, places in ((first, range(len(keys))), (second, where)):
        behind = int(generation[0] - state["generation"][0])
        for (_, current, previous), at in zip(_rows(state), places, strict=False):
            now, before = totals[at]
            if behind == 0:
                now += current
                before += previous
            elif behind == 1:
                before += current
    return {
        "generation": generation,
        "keys": pack_json(keys),
        "current": np.concatenate([np.zeros(0, dtype=np.int64), *(each[0] for each in totals)]),
        "previous": np.concatenate([np.zeros(0, dtype=np.int64), *(each[1] for each in totals)]),
    }
