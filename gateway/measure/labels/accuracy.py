"""How often a model was right, for each version: counts, intervals and which class was taken for
which.

Law: integers by inference time, so labels may come in any order and as late as they like. The
windows end at the gateway's clock and are whole hours: the current one and those before it. A
changed label moves one count. Classes, and pairs of classes, have a limit with a rest.
Complexity: a label costs a few scalar adds; a window is summed when it is looked at.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.measure.labels.predictions import UNSEEN_CLASS
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, added, grown, pack_json, union, unpack_json

HOUR_NS: Final = 3600 * SECOND_NS
DAY_HOURS: Final = 24
MONTH_HOURS: Final = 30 * 24
# Event times may lie a little ahead of the clock, see `clock_ahead_s`.
AHEAD_HOURS: Final = 1
SLOTS: Final = MONTH_HOURS + AHEAD_HOURS
Z_TWO_SIDED_95: Final = 1.96

# Of one contract; further classes count together.
CLASSES_MAX: Final = 32
# Of all groups; further pairs count as the rest of their group.
PAIRS_MAX: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An accuracy with its 95 % Wilson interval."""

    labels: int
    accuracy: float
    low: float
    high: float


def maybe_estimate(right: int, wrong: int) -> Estimate | None:
    """Estimate an accuracy, None without labels.

    Source: Wilson (1927), two-sided, z = 1.96. Assumes that labels are independent of one another
    and of what was predicted.
    """
    n = right + wrong
    if n == 0:
        return None
    z, p = Z_TWO_SIDED_95, right / n
    scale = 1 + z * z / n
    middle = (p + z * z / (2 * n)) / scale
    margin = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the formula gives 0 and 1 but for the last digit.
    low = 0.0 if right == 0 else max(0.0, middle - margin)
    high = 1.0 if wrong == 0 else min(1.0, middle + margin)
    return Estimate(labels=n, accuracy=p, low=low, high=high)


class Accuracy:
    """Right and wrong predictions. Shape: counts (groups, 2), cells (groups, SLOTS, 2)."""

    def __init__(self) -> None:
        self.counts = np.zeros((0, 2), dtype=np.int64)
        self._cells = np.zeros((0, SLOTS, 2), dtype=np.int64)
        self.head = 0  # hours of the epoch
        # Counts by group, predicted and true class; the rest is (group, UNSEEN, UNSEEN).
        self.pairs: dict[tuple[int, int, int], int] = {}
        self._known: dict[int, set[int]] = {}

    def reserve(self, groups: int) -> None:
        """Make room for groups 0 … groups - 1."""
        self.counts = grown(self.counts, groups)
        self._cells = grown(self._cells, groups)

    def advance(self, now_ns: int) -> None:
        """Move the end of the windows forward."""
        steps = now_ns // HOUR_NS - self.head
        if steps <= 0:
            return
        self.head += steps
        fresh = self.head + AHEAD_HOURS - np.arange(min(steps, SLOTS))
        self._cells[:, fresh % SLOTS] = 0

    def add(
        self, *, group: int, contract: int, event_ns: int, predicted: int, label: int, by: int
    ) -> None:
        """Count a prediction whose truth is known, or take one back with `by` -1."""
        wrong = int(predicted != label)
        self.counts[group, wrong] += by
        slot = min(event_ns // HOUR_NS, self.head + AHEAD_HOURS)
        if slot > self.head + AHEAD_HOURS - SLOTS:
            self._cells[group, slot % SLOTS, wrong] += by
        pair = (group, self._class(contract, predicted), self._class(contract, label))
        self._count_pair(pair, contract, by)

    def _count_pair(self, pair: tuple[int, int, int], contract: int, by: int) -> None:
        if pair not in self.pairs and len(self.pairs) >= PAIRS_MAX:
            pair = (pair[0], UNSEEN_CLASS, UNSEEN_CLASS)
        # A class is known by its pairs alone, so that a restart knows the same ones.
        self._known.setdefault(contract, set()).update(pair[1:])
        self.pairs[pair] = self.pairs.get(pair, 0) + by

    def _class(self, contract: int, code: int) -> int:
        known = self._known.get(contract, set())
        is_full = len(known - {UNSEEN_CLASS}) >= CLASSES_MAX - 1
        return UNSEEN_CLASS if is_full and code not in known else code

    def window(self, group: int, hours: int) -> tuple[int, int]:
        """Return right and wrong of the last hours, with what lies ahead of the clock."""
        slots = self.head + AHEAD_HOURS - np.arange(hours + AHEAD_HOURS)
        right, wrong = self._cells[group, slots % SLOTS].sum(axis=0).tolist()
        return right, wrong

    def state(self, groups: int, text: Callable[[int, int], str | None]) -> State:
        """Copy the counts of the first groups; `text` names the class of a group's code."""
        newest = self.head + AHEAD_HOURS
        order = (newest - np.arange(SLOTS)) % SLOTS
        pairs = {
            (group, text(group, predicted), text(group, label)): count
            for (group, predicted, label), count in self.pairs.items()
        }
        return {
            "counts": self.counts[:groups].copy(),
            "cells": self._cells[:groups][:, order].copy(),
            "head": np.array([self.head], dtype=np.int64),
            "pairs": pack_json([list(pair) for pair in pairs]),
            "pair_counts": np.array(list(pairs.values()), dtype=np.int64),
        }

    def restore(
        self,
        state: Mapping[str, Array],
        contract: Int64,
        code: Callable[[int, str | None], int],
    ) -> None:
        """Put counts back; `code` codes a class of a group, UNSEEN_CLASS if it has gone."""
        groups = len(state["counts"])
        self.reserve(groups)
        self.head = int(state["head"][0])
        self.counts[:groups] = state["counts"]
        order = (self.head + AHEAD_HOURS - np.arange(SLOTS)) % SLOTS
        self._cells[:groups, order] = state["cells"]
        for (group, *texts), count in zip(
            unpack_json(state["pairs"]), state["pair_counts"].tolist(), strict=True
        ):
            predicted, label = (code(group, text) for text in texts)
            self._count_pair((group, predicted, label), int(contract[group]), count)


def merge(first: Mapping[str, Array], second: Mapping[str, Array], where: list[int]) -> State:
    """Add two states, the windows aligned by the later end; `where` renumbers second's groups."""
    head = np.maximum(first["head"], second["head"])
    groups = max([len(first["counts"]), *(at + 1 for at in where)])
    aligned = []
    for state in (first, second):
        cells = np.zeros_like(state["cells"])
        behind = int(head[0] - state["head"][0])
        if behind < SLOTS:
            cells[:, behind:] = state["cells"][:, : SLOTS - behind]
        aligned.append(cells)
    theirs = [[where[group], *texts] for group, *texts in unpack_json(second["pairs"])]
    pairs, places = union(unpack_json(first["pairs"]), theirs)
    return {
        "counts": added(first["counts"], second["counts"], where, groups),
        "cells": added(aligned[0], aligned[1], where, groups),
        "head": head,
        "pairs": pack_json(pairs),
        "pair_counts": added(first["pair_counts"], second["pair_counts"], places, len(pairs)),
    }
