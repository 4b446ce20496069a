"""Number the pairs of model and version that labels and costs are counted by.

Law: a group keeps its index for good, and belongs to one contract. Inferences of the series that
all further versions share count in the group (model, "~other") of their own contract, so counts of
two models never mix. There are at most as many groups as series and contracts together.
Cost: one look-up per row.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from gateway.batch import NO_CONTRACT
from gateway.measure.series import OTHER
from gateway.measure.state import Int64, grown

UNSEEN: Final = -1
SHARED: Final = -2


class Groups:
    """Models with versions, by index. Shape: contract (groups,)."""

    def __init__(self, models: Sequence[str]) -> None:
        self._models = tuple(models)
        self.names: list[tuple[str, str]] = []
        self._index: dict[tuple[str, str], int] = {}
        self._contract = np.full(0, NO_CONTRACT, dtype=np.int64)
        self._of_series = np.full(0, UNSEEN, dtype=np.int64)
        self._of_contract = np.full(len(self._models), UNSEEN, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def contract(self) -> Int64:
        """Contract of each group, NO_CONTRACT where the plan has none for its model now."""
        return self._contract[: len(self.names)]

    def index(self, model: str, version: str) -> int:
        """Return the group of a model and version, a new one if there is none."""
        found = self._index.setdefault((model, version), len(self.names))
        if found == len(self.names):
            self.names.append((model, version))
            self._contract = grown(self._contract, len(self.names), NO_CONTRACT)
            if model in self._models:
                self._contract[found] = self._models.index(model)
        return found

    def load(self, names: Iterable[Sequence[str]]) -> None:
        """Number these first, in their order."""
        for model, version in names:
            self.index(model, version)

    def find(self, contract: Int64, series: Int64, names: Sequence[tuple[str, str]]) -> Int64:
        """Find the group of inferences. Shape: contract and series (rows,), names (series,)."""
        if len(names) > len(self._of_series):
            self._of_series = grown(self._of_series, len(names), UNSEEN)
        found: Int64 = self._of_series[series]
        if int(found.min(initial=0)) >= 0:
            return found
        for each in np.unique(series[found == UNSEEN]).tolist():
            model, version = names[each]
            self._of_series[each] = SHARED if model == OTHER else self.index(model, version)
        found = self._of_series[series]
        shared = (found == SHARED).nonzero()[0]
        for each in np.unique(contract[shared]).tolist():
            if self._of_contract[each] == UNSEEN:
                self._of_contract[each] = self.index(self._models[each], OTHER)
        found[shared] = self._of_contract[contract[shared]]
        return found
