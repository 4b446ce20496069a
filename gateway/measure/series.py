"""The series that are counted, one for each model and version, and their plain counts.

Law: a series keeps its index for good. Past series_max all further pairs count in one series,
("~other", "~other"), which has no drift streams: counts are never lost, only their label.
"""

import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from gateway.batch import NO_CONTRACT, NO_SERIES
from gateway.contract.plan import Plan
from gateway.measure.state import Array, Int64, State, added, grown, pack_json, union, unpack_json
from gateway.measure.texts import Interner
from gateway.tables import Bool, Int16, Int32

OTHER: Final = "~other"
UNKNOWN_VERSION: Final = "unknown"
# Versions become labels of metrics and texts of alerts, which leave the site; free text must not.
VERSION_ALLOWED: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
UNKNOWN: Final = 0  # index of UNKNOWN_VERSION among the versions


class SeriesTable:
    """Models and versions seen, and how many inferences of each came out how."""

    def __init__(self, plan: Plan, series_max: int) -> None:
        self._models = tuple(contract.model for contract in plan.contracts)
        self._series_max = series_max
        self.versions = Interner(series_max + 1, VERSION_ALLOWED)
        self.versions.index(UNKNOWN_VERSION.encode())
        self.names: tuple[tuple[str, str], ...] = ()
        self.contract: list[int] = []
        self.outcomes = np.zeros((0, 2), dtype=np.int64)
        self.cold_starts = np.zeros(0, dtype=np.int64)
        self._table = np.full((len(self._models), 4), NO_SERIES, dtype=np.int32)
        self._other = NO_SERIES

    def __len__(self) -> int:
        return len(self.names)

    def find(self, contract: Int16, version: Int32) -> tuple[Int32, list[int]]:
        """Find the series of inferences. Returns also the series that were made for it.

        Shape: contract and version (rows,), contract without NO_CONTRACT.
        """
        if len(self.versions) > self._table.shape[1]:
            wider = np.full((len(self._models), 2 * len(self.versions)), NO_SERIES, dtype=np.int32)
            wider[:, : self._table.shape[1]] = self._table
            self._table = wider
        # ABSENT is -1 and becomes the unknown version; OVERFLOW is -2 and is handled below.
        column = np.maximum(version, UNKNOWN)
        found: Int32 = self._table[contract, column]
        made: list[int] = []
        if np.count_nonzero(version < -1):
            found[version < -1] = self._make_other(made)
        lost = (found == NO_SERIES).nonzero()[0]
        if len(lost):
            pairs = contract[lost].astype(np.int64) << 32 | column[lost]
            distinct, first = np.unique(pairs, return_index=True)
            for pair in distinct[np.argsort(first)].tolist():
                self._make(pair >> 32, pair & 0xFFFFFFFF, made)
            found[lost] = self._table[contract[lost], column[lost]]
        return found, made

    def add(self, series: Int64, failed: Bool, cold: Bool | None) -> None:
        """Count inferences. Shape: all (rows,)."""
        np.add.at(self.outcomes.reshape(-1), series * 2 + failed, 1)
        if cold is not None:
            np.add.at(self.cold_starts, series[cold], 1)

    def _make(self, contract: int, version: int, made: list[int]) -> None:
        if len(self.names) - (self._other != NO_SERIES) >= self._series_max:
            self._table[contract, version] = self._make_other(made)
            return
        name = (self._models[contract], self.versions.names[version])
        self._table[contract, version] = self._append(name, contract)
        made.append(len(self.names) - 1)

    def _make_other(self, made: list[int]) -> int:
        if self._other == NO_SERIES:
            self._other = self._append((OTHER, OTHER), NO_CONTRACT)
            made.append(self._other)
        return self._other

    def _append(self, name: tuple[str, str], contract: int) -> int:
        self.names += (name,)
        self.contract.append(contract)
        self.outcomes = grown(self.outcomes, len(self.names))
        self.cold_starts = grown(self.cold_starts, len(self.names))
        return len(self.names) - 1

    def state(self) -> State:
        """Copy names and counts."""
        count = len(self)
        return {
            "names": pack_json([list(name) for name in self.names]),
            "outcomes": self.outcomes[:count].copy(),
            "cold_starts": self.cold_starts[:count].copy(),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put back names and counts; series of models without a contract keep their counts."""
        for model, version in unpack_json(state["names"]):
            if (model, version) == (OTHER, OTHER):
                self._make_other([])
                continue
            contract = self._models.index(model) if model in self._models else NO_CONTRACT
            index = self._append((model, version), contract)
            place = self.versions.index(version.encode())
            if contract != NO_CONTRACT and place >= 0:
                while place >= self._table.shape[1]:
                    more = np.full_like(self._table, NO_SERIES)
                    self._table = np.concatenate((self._table, more), axis=1)
                self._table[contract, place] = index
        count = len(self)
        self.outcomes[:count] = state["outcomes"]
        self.cold_starts[:count] = state["cold_starts"]


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add the counts of two states by name."""
    names, where = union(unpack_json(first["names"]), unpack_json(second["names"]))
    return {
        "names": pack_json(names),
        **{
            key: added(first[key], second[key], where, len(names))
            for key in ("outcomes", "cold_starts")
        },
    }
