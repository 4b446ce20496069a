"""Read attribute columns out of a batch: one value per row, no Python object per row.

Law: a value is present only when its key occurs exactly once with the kind that was asked for. A
duplicate key is absent, because two readers disagree on which one wins. Only the fields that are
needed are gathered: a whole attribute row is five times as much to copy. Where whole rows are
needed they are picked with `take`; an index array copies a structure field by field, 15 times
slower.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Batch
from gateway.tables import Bool, Float64, Int32, Table, UInt32, ValueKind

Int8 = NDArray[np.int8]

# Plain numbers: to compare a column with a member of an enum costs five times as much.
_STRING: Final = int(ValueKind.STRING)
_BOOL: Final = int(ValueKind.BOOL)
_INT: Final = int(ValueKind.INT)
_DOUBLE: Final = int(ValueKind.DOUBLE)


def compact(codes: NDArray[np.integer[Any]], size: int) -> tuple[list[int], Int32]:
    """Renumber codes below `size` to the ones that occur: (codes that occur, place of each row).

    Complexity: linear in rows and size, without the sort of `np.unique`.
    """
    seen = np.bincount(codes, minlength=size) > 0
    places = (np.cumsum(seen) - 1).astype(np.int32)
    return np.flatnonzero(seen).tolist(), places[codes]


def numbers_at(attributes: Table, rows: Int32) -> Float64:
    """Read INT and DOUBLE values. Shape: as rows; NaN where missing or of another kind."""
    found = rows >= 0
    whole = np.count_nonzero(found) == len(rows)
    at = rows if whole else rows[found]
    kind = attributes["kind"][at]
    bits = attributes["number"][at]
    read = bits.view(np.float64)
    other = kind != _DOUBLE
    if other.any():
        whole_number = np.where(kind == _INT, bits.view(np.int64), np.nan)
        read = np.where(other, whole_number, read)
    if whole:
        return read
    values = np.full(len(rows), np.nan)
    values[found] = read
    return values


def booleans_at(attributes: Table, rows: Int32) -> Int8:
    """Read BOOL values. Shape: as rows; 1, 0, or -1 where missing or of another kind."""
    values = np.full(len(rows), -1, dtype=np.int8)
    found = rows >= 0
    at = rows[found]
    is_bool = attributes["kind"][at] == _BOOL
    values[found] = np.where(is_bool, attributes["number"][at].astype(np.int8), -1)
    return values


def texts_at(attributes: Table, rows: Int32) -> tuple[UInt32, UInt32, Bool]:
    """Find STRING values in the arena. Shape: each as rows; length 0 where not present."""
    present = rows >= 0
    whole = np.count_nonzero(present) == len(rows)
    at = rows if whole else rows[present]
    is_text = attributes["kind"][at] == _STRING
    begin, size = attributes["offset"][at], attributes["length"][at]
    if np.count_nonzero(is_text) < len(at):
        begin, size = np.where(is_text, begin, 0), np.where(is_text, size, 0)
    if whole:
        return begin.astype(np.uint32, copy=False), size.astype(np.uint32, copy=False), is_text
    offset = np.zeros(len(rows), dtype=np.uint32)
    length = np.zeros(len(rows), dtype=np.uint32)
    offset[present], length[present], present[present] = begin, size, is_text
    return offset, length, present


def numbers(batch: Batch, slot: int) -> Float64:
    """Read INT and DOUBLE span attributes of a slot. Shape: (spans,)."""
    return numbers_at(batch.span_attributes, batch.slots[slot])


def booleans(batch: Batch, slot: int) -> Int8:
    """Read BOOL span attributes of a slot. Shape: (spans,)."""
    return booleans_at(batch.span_attributes, batch.slots[slot])


def span_texts(batch: Batch, slot: int) -> tuple[UInt32, UInt32, Bool]:
    """Find STRING span attributes of a slot. Shape: (spans,)."""
    return texts_at(batch.span_attributes, batch.slots[slot])


def resource_texts(batch: Batch, slot: int) -> tuple[UInt32, UInt32, Bool]:
    """Find STRING resource attributes of a slot. Shape: (resources,)."""
    return texts_at(batch.resource_attributes, batch.resource_slots[slot])


def scope_texts(batch: Batch, slot: int) -> tuple[UInt32, UInt32, Bool]:
    """Find STRING scope attributes of a slot. Shape: (scopes,)."""
    return texts_at(batch.scope_attributes, batch.scope_slots[slot])
