"""Sliding windows over event time: rings of integer slots with a running sum per window.

Law: the sum of window w is exactly the sum of the cells (head - w, head], whatever the order in
which events came. The head moves by the gateway's clock only, never by an event's time, so no
device can slide another's window. Nothing lies ahead of the head: such events wait in a `Stage`.

Shape: cells (slots, slos, 2), sums (windows, slos, 2); the last axis is good, bad. A place is the
flat number of an outcome of an SLO, slo * 2 + (1 if bad).
Complexity: advance and put cost windows x slos, independent of window length; add costs windows x
places that are not empty.
Source: slo-alerting-dashboards.md section 5.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from gateway.contract.slo import RESOLUTIONS, Resolution
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, added

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400


class Ring:
    """One resolution of all SLOs."""

    def __init__(self, resolution: Resolution, windows_s: Sequence[int], slos: int) -> None:
        self.slot_s = resolution.slot_s
        self.slot_ns = resolution.slot_s * SECOND_NS
        self.windows_s = tuple(windows_s)
        self._spans = np.array([-(-each // self.slot_s) for each in windows_s], dtype=np.int64)
        self.length = int(self._spans.max(initial=1))
        self.cells = np.zeros((self.length, slos, 2), dtype=np.int64)
        self.sums = np.zeros((len(windows_s), slos, 2), dtype=np.int64)
        self.head = 0

    def advance(self, head: int) -> None:
        """Move the head forward; what leaves a window is taken off its sum."""
        steps = head - self.head
        if steps <= 0:
            return
        if steps >= self.length:
            self._clear_jump(head)
            return
        for each in range(self.head + 1, head + 1):
            # The slot that leaves the longest window lies where the new one will.
            self.sums -= self.cells[(each - self._spans) % self.length]
            self.cells[each % self.length] = 0
        self.head = head

    def _clear_jump(self, head: int) -> None:
        self.cells[:] = 0
        self.sums[:] = 0
        self.head = head

    def put(self, counts: Int64) -> None:
        """Add counts at the head. Shape: (slos, 2)."""
        self.cells[self.head % self.length] += counts
        self.sums += counts

    def add(self, slots: Int64, places: Int64, counts: Int64) -> None:
        """Add counts at slots up to the head; those older than the ring are left out.

        Shape: all (k,).
        """
        age = self.head - slots
        held = age < self.length
        if not held.all():
            slots, places, counts, age = slots[held], places[held], counts[held], age[held]
        width = self.cells[0].size
        np.add.at(self.cells.reshape(-1), slots % self.length * width + places, counts)
        for span, total in zip(self._spans.tolist(), self.sums, strict=True):
            inside = age < span
            np.add.at(total.reshape(-1), places[inside], counts[inside])

    def history(self, window_s: int, slo: int) -> tuple[Int64, Int64]:
        """Return start times in ns and (good, bad) of a window's cells, oldest first."""
        span = -(-window_s // self.slot_s)
        slots = self.head - span + 1 + np.arange(span)
        return slots * self.slot_ns, self.cells[slots % self.length, slo]

    def state(self) -> State:
        """Copy cells in order of time, and the head."""
        order = (self.head - self.length + 1 + np.arange(self.length)) % self.length
        return {"cells": self.cells[order], "head": np.array([self.head], dtype=np.int64)}

    def restore(self, state: Mapping[str, Array], slos: Sequence[tuple[int, int]]) -> None:
        """Put cells back. `slos` pairs an index of the state with one of this ring."""
        self._clear_jump(int(state["head"][0]))
        source = state["cells"][::-1][: self.length]
        slots = (self.head - np.arange(len(source))) % self.length
        for theirs, ours in slos:
            self.cells[slots, ours] = source[:, theirs]
        for index, span in enumerate(self._spans.tolist()):
            used = (self.head - np.arange(span)) % self.length
            self.sums[index] = self.cells[used].sum(axis=0)


def rings_for(windows_s: Sequence[int], slos: int) -> list[Ring]:
    """Place each window in the finest ring that holds it."""
    left = sorted(set(windows_s))
    rings: list[Ring] = []
    for resolution in RESOLUTIONS:
        here = [each for each in left if each <= resolution.window_s_max]
        left = [each for each in left if each > resolution.window_s_max]
        rings.append(Ring(resolution, here, slos))
    return rings


def moved(state: Mapping[str, Array], head: int) -> State:
    """Move the head of a state forward, as `advance` would."""
    cells = np.zeros_like(state["cells"])
    shift = head - int(state["head"][0])
    if shift < len(cells):
        cells[: len(cells) - shift] = state["cells"][shift:]
    return {"cells": cells, "head": np.array([head], dtype=np.int64)}


def merge(first: Mapping[str, Array], second: Mapping[str, Array], where: list[int]) -> State:
    """Add two rings of the same form and head; `where` says which SLO of the first each is."""
    slos = max([first["cells"].shape[1], *(at + 1 for at in where)])
    total = added(
        np.swapaxes(first["cells"], 0, 1), np.swapaxes(second["cells"], 0, 1), where, slos
    )
    return {"cells": np.ascontiguousarray(np.swapaxes(total, 0, 1)), "head": first["head"].copy()}
