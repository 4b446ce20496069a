"""Code what a model predicted and what a label says, so that the two can be compared.

Law: one code for one class of a contract's prediction, whoever says it. A value is compared by its
plain text: enum values as declared, `true` and `false`, whole numbers in decimal within the
signal's range and 32 bits. A prediction outside its classes has the code UNSEEN_CLASS, which no
label has, so it is wrong.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import Batch
from gateway.contract.schema import Contract, SignalType
from gateway.contract.schema import Signal as ContractSignal
from gateway.measure.drift.lanes import BOOLEAN_VALUES, Lane, LaneKey, maybe_grid
from gateway.measure.labels.predictions import (
    CODE_MAX,
    CODE_MIN,
    NO_PREDICTION,
    UNSEEN_CLASS,
)
from gateway.measure.state import Array, Int64
from gateway.otlp.columns import numbers_at

_WHOLE: Final = re.compile(r"-?[0-9]{1,10}")
# Doubles are whole numbers without gaps up to here.
_EXACT: Final = float(1 << 53)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """The classes of one prediction. `values` is empty for whole numbers, which are their codes."""

    slot: int
    type: SignalType
    values: tuple[str, ...]
    low: int
    high: int
    lane: Lane | None  # on which enums and truth values are counted

    def maybe_code(self, value: str | float | bool) -> int | None:
        """Return the code of a label's value, None when it is no class."""
        text = plain_text(value)
        if self.values:
            return self.values.index(text) if text in self.values else None
        if _WHOLE.fullmatch(text) is None:
            return None
        number = int(text)
        return number if self.low <= number <= self.high else None

    def maybe_text(self, code: int) -> str | None:
        """Return the class of a code, None for codes that are no class."""
        if code < CODE_MIN:
            return None
        return self.values[code] if self.values else str(code)

    def codes(
        self, batch: Batch, rows: Int64 | None, lanes: Sequence[Lane], bins: Sequence[Int64]
    ) -> Array:
        """Read what inferences predicted. Shape: (rows,); rows None for all spans.

        Enums and truth values are taken from the lane that has counted them already; there is
        none while all inferences of the contract count in the series that is shared.
        """
        if self.lane is not None:
            grid = self.lane.grid
            counted = (each for lane, each in zip(lanes, bins, strict=True) if self.is_on(lane))
            found = next(counted, None)
            codes = np.arange(grid.width, dtype=np.int32)
            codes[grid.missing], codes[grid.odd] = NO_PREDICTION, UNSEEN_CLASS
            of_rows: Array = codes[self.lane.bins(batch, rows) if found is None else found]
            return of_rows
        at = batch.slots[self.slot] if rows is None else batch.slots[self.slot][rows]
        return self.codes_of_numbers(numbers_at(batch.span_attributes, at), at < 0)

    def is_on(self, lane: Lane) -> bool:
        """Tell whether a lane counts this prediction."""
        return self.lane is not None and lane.key == self.lane.key

    def codes_of_numbers(self, values: Array, missing: Array) -> Array:
        """Code whole numbers; others are no class. Shape: (rows,)."""
        inside = (values >= self.low) & (values <= self.high)
        whole = np.where(inside, values, 0.0)
        is_class = inside & (np.floor(whole) == whole)
        codes = np.where(is_class, whole.astype(np.int64), UNSEEN_CLASS)
        return np.where(missing, NO_PREDICTION, codes).astype(np.int32)


def plain_text(value: str | float | bool) -> str:
    """Write a value as the text by which it is compared."""
    if isinstance(value, bool):
        return BOOLEAN_VALUES[value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return str(int(value))
    return value if isinstance(value, str) else repr(value)


def classes_of(contract: Contract, signal: ContractSignal, slot: int) -> Classes:
    """Return the classes of a contract's prediction, which is an enum, a bool or an int."""
    if signal.type not in (SignalType.ENUM, SignalType.BOOL, SignalType.INT):
        raise ValueError(
            f"the labels of {contract.model!r} name {signal.name!r} of type {signal.type}:"
            " name a signal of type enum, bool or int"
        )
    low, high = signal.range or (CODE_MIN, CODE_MAX)
    values = {SignalType.ENUM: tuple(signal.values), SignalType.BOOL: BOOLEAN_VALUES}
    grid = maybe_grid(signal)
    has_lane = grid is not None and signal.type in values
    return Classes(
        slot=slot,
        type=signal.type,
        values=values.get(signal.type, ()),
        low=max(CODE_MIN, int(np.ceil(low))),
        high=min(CODE_MAX, int(np.floor(high))),
        lane=Lane(LaneKey(slot=slot, type=signal.type, grid=grid)) if grid and has_lane else None,
    )
