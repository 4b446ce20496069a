"""The confidence of each class by itself, which may move while both marginals stay as they are.

Law: one event counts in one row at most: that of its series and its class. Events without a class,
of an unseen one, or of one that the contract does not ask for count in none. Nothing is read: the
bins are those that the lanes of confidence and prediction have found. Names of streams leave the
site; a class that the contract does not export is named by its place among the classes. Cost: for
each batch one gather and one add for each row of it, however many classes and series there are.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.contract.schema import Action, Contract, Role, Signal
from gateway.measure.drift.grid import Grid, GridKind
from gateway.measure.drift.lanes import NO_ROW, Lane, LaneKey, looked_up, measured
from gateway.measure.state import Int64, grown

ORDER_DIGITS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional:
    """The confidence of one class of a contract; `code` is the bin of that class on `classes`."""

    score: Signal
    grid: Grid
    prediction: Signal
    classes: Grid
    code: int

    @property
    def name(self) -> str:
        """What its stream is called; names of signals have no bar, and places count from 1."""
        what = self.classes.values[self.code] if self._is_told else f"#{self.code + 1}"
        return f"{self.score.name}|{what}"

    @property
    def order(self) -> str:
        """Return a digest of all classes where the place names one of them, else nothing.

        With other classes, or in another order, the same place is another class.
        """
        if self._is_told:
            return ""
        return hashlib.sha256(self.classes.name.encode()).hexdigest()[:ORDER_DIGITS]

    @property
    def _is_told(self) -> bool:
        return self.prediction.export is Action.PASS


def conditionals(contract: Contract) -> list[Conditional]:
    """List the classes of a contract whose confidence is judged, in the contract's order.

    They are of its first confidence and its first prediction that has classes.
    """
    signals = measured(contract)
    scores = [(signal, grid) for signal, grid in signals if signal.role is Role.CONFIDENCE]
    predictions = [
        (signal, grid)
        for signal, grid in signals
        if signal.role is Role.PREDICTION and grid.kind is GridKind.CLASSES
    ]
    if not scores or not predictions:
        return []
    (score, grid), (prediction, classes) = scores[0], predictions[0]
    count = min(contract.drift.conditional_classes, classes.bins)
    return [
        Conditional(score=score, grid=grid, prediction=prediction, classes=classes, code=code)
        for code in range(count)
    ]


class ConditionalLane:
    """Counts the bins of one lane apart for each class that another lane has found.

    `scores` and `classes` are the places of the two among the lanes that read attributes; `lane`
    has the counts, and a row for each class of each series.
    """

    def __init__(self, key: LaneKey, *, scores: int, classes: int, width: int) -> None:
        self.lane = Lane(key)
        self._scores = scores
        self._classes = classes
        # Shape: (series, bins of the classes' grid).
        self._row_of = np.full((0, width), NO_ROW, dtype=np.int64)

    def append(self, series: int, code: int, stream: int, tick: int) -> int:
        """Open a row for the stream of a class."""
        row = self.lane.open_row(stream, tick)
        self._row_of = grown(self._row_of, series + 1, NO_ROW)
        self._row_of[series, code] = row
        return row

    def add(self, series: Int64, bins: Sequence[Int64]) -> None:
        """Count inferences. Shape: (rows,) and the bins of each lane that reads, (rows,) each."""
        self.lane.count(*self.rows_of(series, bins))

    def rows_of(self, series: Int64, bins: Sequence[Int64]) -> tuple[Int64, Int64]:
        """Return the row of each inference, NO_ROW where there is none, and its bin."""
        place = series * self._row_of.shape[1]
        place += bins[self._classes]
        return looked_up(self._row_of.reshape(-1), place), bins[self._scores]
