"""Save, restore and merge what is known of the hours of the week.

Law: hours of a baseline are saved once, under its digest, whoever is judged against it; tables that
are being learned are saved under the place of their stream in the list of streams, cells with
events alone. A state from before there were seasons reads as one without any.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from gateway.batch import Json
from gateway.errors import CorruptDataError
from gateway.measure.drift.baseline import Baseline
from gateway.measure.drift.hours import PARTS
from gateway.measure.drift.seasonal import HOURS
from gateway.measure.drift.seasons import Rhythm, Seasons
from gateway.measure.state import Array, State, pack_json, unpack_json
from gateway.tables import UInt32

_NOTHING: Final[Json] = {"hours": [], "rhythms": [], "waiting": [], "late": 0}


def save(seasons: Seasons, baselines: Iterable[Baseline], order: Sequence[int]) -> State:
    """Copy the hours of baselines and of what is being learned.

    `order` lists the streams as they are saved, by number.
    """
    place_of = {number: place for place, number in enumerate(order)}
    held = {each.digest: each.hours for each in baselines if each.hours is not None}
    described = []
    cells: list[UInt32] = []
    for number in seasons.in_turn(seasons.rhythms):
        rhythm = seasons.rhythms[number]
        table = rhythm.table.reshape(-1)
        at = np.flatnonzero(table)
        described.append([place_of[number], rhythm.first, rhythm.table.shape[2], len(at)])
        cells += [at.astype(np.uint32), table[at]]
    return {
        "items": pack_json(
            {
                "hours": [[digest, hours.shape[1]] for digest, hours in sorted(held.items())],
                "rhythms": described,
                "waiting": sorted(place_of[number] for number in seasons.waiting),
                "late": seasons.late_events,
            }
        ),
        "hours": _joined(hours.reshape(-1) for _, hours in sorted(held.items())),
        "cells": _joined(cells),
    }


def _joined(arrays: Iterable[UInt32]) -> UInt32:
    return np.concatenate([np.zeros(0, dtype=np.uint32), *arrays])


def _items(state: Mapping[str, Array]) -> Json:
    return unpack_json(state["items"]) if "items" in state else _NOTHING


def hours(state: Mapping[str, Array]) -> dict[str, UInt32]:
    """Return the hours of each digest. Shape: (hours, coarse bins). Raises: CorruptDataError."""
    found: dict[str, UInt32] = {}
    at = 0
    for digest, bins in _items(state)["hours"]:
        taken = state["hours"][at : at + HOURS * bins].astype(np.uint32)
        if len(taken) != HOURS * bins:
            raise CorruptDataError("the saved hours of baselines are shorter than their list")
        found[digest] = taken.reshape(HOURS, bins)
        at += HOURS * bins
    return found


def rhythms(state: Mapping[str, Array]) -> dict[int, Rhythm]:
    """Return what was being learned, by the place of its stream. Raises: CorruptDataError."""
    found: dict[int, Rhythm] = {}
    at = 0
    for place, first, width, count in _items(state)["rhythms"]:
        where, values = (state["cells"][at + k * count : at + (k + 1) * count] for k in (0, 1))
        table = np.zeros(HOURS * PARTS * width, dtype=np.uint32)
        if len(values) != count or int(where.max(initial=0)) >= len(table):
            raise CorruptDataError("the saved tables of hours do not fit their list")
        table[where.astype(np.int64)] = values
        found[place] = Rhythm(table=table.reshape(HOURS, PARTS, width), first=first)
        at += 2 * count
    return found


def waits(state: Mapping[str, Array], place: int) -> bool:
    """Say whether the stream at a place waits for room to learn."""
    return place in _items(state)["waiting"]


def late_events(state: Mapping[str, Array]) -> int:
    """Return how many events were late."""
    return int(_items(state)["late"])


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Keep the hours of all baselines of two states and add what was late; learning starts anew."""
    held = hours(first) | hours(second)
    items = {
        "hours": [[digest, each.shape[1]] for digest, each in sorted(held.items())],
        "rhythms": [],
        "waiting": [],
        "late": late_events(first) + late_events(second),
    }
    return {
        "items": pack_json(items),
        "hours": _joined(each.reshape(-1) for _, each in sorted(held.items())),
        "cells": _joined(()),
    }
