"""What the parts of `measure` share to save, restore and merge themselves.

Law: a state is a flat mapping of names to arrays of numbers. Text is JSON in a uint8 array, rows
that belong to a name stand in the order of that name's JSON list, so that two states can be added
by name without knowing how they were made.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.batch import Json
from gateway.errors import CorruptDataError
from gateway.tables import UInt8

Int64 = NDArray[np.int64]
Array = NDArray[Any]
State = dict[str, Array]


def pack_json(value: Json) -> UInt8:
    """Write a JSON value as UTF-8 bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return np.frombuffer(text.encode(), dtype=np.uint8).copy()


def unpack_json(array: Array) -> Json:
    """Read a JSON value that `pack_json` wrote. Raises: CorruptDataError."""
    try:
        return json.loads(array.astype(np.uint8).tobytes())
    except ValueError as error:
        raise CorruptDataError(f"state text is not JSON: {error}") from error


def prefixed(prefix: str, state: Mapping[str, Array]) -> State:
    """Put a part's state under its name."""
    return {f"{prefix}/{key}": value for key, value in state.items()}


def part(prefix: str, state: Mapping[str, Array]) -> State:
    """Take a part's state out of the whole."""
    head = f"{prefix}/"
    return {key[len(head) :]: value for key, value in state.items() if key.startswith(head)}


def grown(array: Array, rows: int, fill: float = 0) -> Array:
    """Copy an array with at least `rows` rows, doubling; new rows hold `fill`."""
    if rows <= len(array):
        return array
    larger = np.full((max(rows, 2 * len(array), 4), *array.shape[1:]), fill, dtype=array.dtype)
    larger[: len(array)] = array
    return larger


def union(first: Sequence[Any], second: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """Join two lists of names; return the names and where each of the second list stands."""
    names = list(first)
    place = {json.dumps(name): at for at, name in enumerate(names)}
    where: list[int] = []
    for name in second:
        key = json.dumps(name)
        if key not in place:
            place[key] = len(names)
            names.append(name)
        where.append(place[key])
    return names, where


def added(first: Array, second: Array, where: Sequence[int], rows: int) -> Array:
    """Add the rows of the second array to those rows of the first that bear the same name."""
    total = np.zeros((rows, *first.shape[1:]), dtype=first.dtype)
    total[: len(first)] = first
    if len(second):
        np.add.at(total, np.asarray(where, dtype=np.intp), second)
    return total
