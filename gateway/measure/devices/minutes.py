"""Counts of the last minutes and of all time, by name.

Law: integers in a ring of minutes of event time, so that any order of the same events gives the
same counts. The head moves by judged time only; what is older than the window counts for
all time alone, what is further ahead than a clamped event can be counts in the newest minute.
Shape: cells (minutes, rows, columns), ever (rows, columns).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, pack_json, union, unpack_json

MINUTE_NS: Final = 60 * SECOND_NS
# Event times are clamped to two minutes after their arrival, and judged time, which moves the head,
# is up to 40 seconds behind that.
AHEAD: Final = 3


class Minutes:
    """A sliding window of whole minutes, the one that is running included."""

    def __init__(self, names: Sequence[str], minutes: int, columns: int) -> None:
        self._names = list(names)
        self._length = minutes + AHEAD
        self._cells = np.zeros((self._length, len(names), columns), dtype=np.int64)
        self._head = 0
        self.ever = np.zeros((len(names), columns), dtype=np.int64)

    def turn(self, judged_ns: int) -> None:
        """Move the window to a time."""
        head = judged_ns // MINUTE_NS
        steps = min(head - self._head, self._length)
        if steps > 0:
            self._cells[(head + AHEAD - np.arange(steps)) % self._length] = 0
            self._head = head

    def add(self, row: Int64, column: Int64, event_ns: Int64) -> None:
        """Count events. Shape: all (events,)."""
        np.add.at(self.ever, (row, column), 1)
        minute = np.minimum(event_ns // MINUTE_NS, self._head + AHEAD)
        held = minute > self._head + AHEAD - self._length
        np.add.at(self._cells, (minute[held] % self._length, row[held], column[held]), 1)

    def recent(self) -> Int64:
        """Return the counts of the window. Shape: (rows, columns)."""
        total: Int64 = self._cells.sum(axis=0)
        return total

    def oldest_ns(self, row: int, columns: Sequence[int]) -> int:
        """Return the start of the first minute of the window that has a count, 0 if none has."""
        minutes = self._head + AHEAD - np.arange(self._length)
        cells = self._cells[minutes % self._length, row][:, list(columns)]
        held = np.flatnonzero(cells.any(axis=1))
        return int(minutes[held[-1]]) * MINUTE_NS if len(held) else 0

    def state(self) -> State:
        """Copy all counts, minutes newest first."""
        order = (self._head + AHEAD - np.arange(self._length)) % self._length
        return {
            "names": pack_json(self._names),
            "cells": self._cells[order],
            "head": np.array([self._head], dtype=np.int64),
            "ever": self.ever.copy(),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put the counts of names that are still counted back."""
        theirs = unpack_json(state["names"])
        pairs = [
            (at, self._names.index(name)) for at, name in enumerate(theirs) if name in self._names
        ]
        self._head = int(state["head"][0])
        self._cells[:] = 0
        order = (self._head + AHEAD - np.arange(self._length)) % self._length
        for at, ours in pairs:
            self._cells[order, ours] = state["cells"][:, at]
            self.ever[ours] = state["ever"][at]


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states by name, aligned in time by the later head."""
    names, where = union(unpack_json(first["names"]), unpack_json(second["names"]))
    head = max(int(first["head"][0]), int(second["head"][0]))
    length, _, columns = first["cells"].shape
    cells = np.zeros((length, len(names), columns), dtype=np.int64)
    ever = np.zeros((len(names), columns), dtype=np.int64)
    for state, rows in ((first, list(range(len(first["ever"])))), (second, where)):
        age = min(head - int(state["head"][0]), length)
        cells[age:, rows] += state["cells"][: length - age]
        ever[rows] += state["ever"]
    return {
        "names": pack_json(names),
        "cells": cells,
        "head": np.array([head], dtype=np.int64),
        "ever": ever,
    }
