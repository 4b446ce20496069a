"""Sliding windows over event time: rings of integer slots with a running sum per window.

Law: the sum of window w is exactly the sum of the cells (head - w, head], whatever the order in
which events came. The head moves by the gateway's clock only, never by an event's time, so no
device can slide another's window; slots ahead of the head wait until it reaches them.

Shape: cells (slots, slos, 2), sums (windows, slos, 2); the last axis is good, bad.
Complexity: add and advance cost windows x slos, independent of window length.
Source: slo-alerting-dashboards.md section 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, added

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Slot length of a ring and the longest window it is for. Units: seconds."""

    slot_s: int
    window_s_max: int


RESOLUTIONS: Final = (
    Resolution(slot_s=10, window_s_max=15 * MINUTE_S),
    Resolution(slot_s=MINUTE_S, window_s_max=6 * HOUR_S),
    Resolution(slot_s=5 * MINUTE_S, window_s_max=3 * DAY_S),
    Resolution(slot_s=HOUR_S, window_s_max=400 * DAY_S),
)


class Ring:
    """One resolution of all SLOs."""

    def __init__(
        self, resolution: Resolution, windows_s: Sequence[int], slos: int, ahead_s: float
    ) -> None:
        self.slot_s = resolution.slot_s
        self.slot_ns = resolution.slot_s * SECOND_NS
        self.windows_s = tuple(windows_s)
        self._spans = np.array([-(-each // self.slot_s) for each in windows_s], dtype=np.int64)
        # Slots ahead of the head that clamped event times may reach.
        self.ahead = -(-int(ahead_s) // self.slot_s) + 1
        self.length = int(self._spans.max(initial=1)) + self.ahead + 1
        self.cells = np.zeros((self.length, slos, 2), dtype=np.int64)
        self.sums = np.zeros((len(windows_s), slos, 2), dtype=np.int64)
        self.head = 0

    def advance(self, head: int) -> None:
        """Move the head forward; cells that the ring will use again are emptied."""
        steps = head - self.head
        if steps <= 0:
            return
        if steps >= self.length:
            self._clear_jump(head)
            return
        for each in range(self.head + 1, head + 1):
            entering = self.cells[each % self.length]
            leaving = self.cells[(each - self._spans) % self.length]
            self.sums += entering
            self.sums -= leaving
            self.cells[(each + self.ahead) % self.length] = 0
        self.head = head

    def _clear_jump(self, head: int) -> None:
        self.cells[:] = 0
        self.sums[:] = 0
        self.head = head

    def add(self, slots: Int64, counts: Int64) -> None:
        """Add counts at slot numbers; too old or too new ones for this ring are left out.

        Shape: slots (k,), counts (k, slos, 2).
        """
        age = self.head - slots
        held = (age < self.length - self.ahead) & (age >= -self.ahead)
        if not held.all():
            slots, counts, age = slots[held], counts[held], age[held]
            if len(slots) == 0:
                return
        np.add.at(self.cells, slots % self.length, counts)
        inside = (age[None, :] < self._spans[:, None]) & (age >= 0)[None, :]
        flat = inside.astype(np.int64) @ counts.reshape(len(slots), -1)
        self.sums += flat.reshape(self.sums.shape)

    def totals(self) -> Int64:
        """Return the windows with what waits ahead of the head, for budgets and export."""
        waiting = (self.head + 1 + np.arange(self.ahead)) % self.length
        total: Int64 = self.sums + self.cells[waiting].sum(axis=0)
        return total

    def history(self, window_s: int, slo: int) -> tuple[Int64, Int64]:
        """Return start times in ns and (good, bad) of a window's cells, oldest first."""
        span = -(-window_s // self.slot_s)
        slots = self.head - span + 1 + np.arange(span)
        return slots * self.slot_ns, self.cells[slots % self.length, slo]

    def state(self) -> State:
        """Copy cells in order of time, the head and the newest cell's slot number."""
        newest = self.head + self.ahead
        order = (newest - self.length + 1 + np.arange(self.length)) % self.length
        return {"cells": self.cells[order], "head": np.array([self.head, newest], dtype=np.int64)}

    def restore(self, state: Mapping[str, Array], slos: Sequence[tuple[int, int]]) -> None:
        """Put cells back. `slos` pairs an index of the state with one of this ring."""
        self._clear_jump(int(state["head"][0]))
        slots = int(state["head"][1]) - np.arange(len(state["cells"]))
        source = state["cells"][::-1]
        ours_newest = self.head + self.ahead
        held = (slots <= ours_newest) & (slots > ours_newest - self.length)
        for theirs, ours in slos:
            self.cells[slots[held] % self.length, ours] = source[held, theirs]
        for index, span in enumerate(self._spans.tolist()):
            used = (self.head - np.arange(span)) % self.length
            self.sums[index] = self.cells[used].sum(axis=0)


def rings_for(windows_s: Sequence[int], slos: int, ahead_s: float) -> list[Ring]:
    """Place each window in the finest ring that holds it."""
    left = sorted(set(windows_s))
    rings: list[Ring] = []
    for resolution in RESOLUTIONS:
        here = [each for each in left if each <= resolution.window_s_max]
        left = [each for each in left if each > resolution.window_s_max]
        rings.append(Ring(resolution, here, slos, ahead_s))
    return rings


def merge(first: Mapping[str, Array], second: Mapping[str, Array], where: list[int]) -> State:
    """Add two rings of the same form, aligned in time by the later head."""
    head = np.maximum(first["head"], second["head"])
    aligned = []
    for state in (first, second):
        cells = np.zeros_like(state["cells"])
        shift = int(head[1] - state["head"][1])
        if shift < len(cells):
            cells[: len(cells) - shift] = state["cells"][shift:]
        aligned.append(np.swapaxes(cells, 0, 1))
    slos = max([aligned[0].shape[0], *(at + 1 for at in where)])
    total = added(aligned[0], aligned[1], where, slos)
    return {
        "cells": np.ascontiguousarray(np.swapaxes(total, 0, 1)),
        "head": head,
    }
