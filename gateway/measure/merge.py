"""Add the states of two sites.

Law: every count of the result is the sum of the two, whatever the order; names are joined. What is
not a count stays at its site: evidence rows, detectors' evidence, and what is being collected.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from gateway.errors import CorruptDataError
from gateway.measure import episodes, latency, operations, series
from gateway.measure.drift import ratestate
from gateway.measure.drift import state as streamstate
from gateway.measure.slo import merge as slomerge
from gateway.measure.state import Array, State, part, prefixed, union, unpack_json

_Merge = Callable[[Mapping[str, Array], Mapping[str, Array]], State]
_PARTS: Final[Mapping[str, _Merge]] = {
    "series": series.merge,
    "operations": operations.merge,
    "objectives": slomerge.merge,
    "streams": streamstate.merge,
    "rates": ratestate.merge,
    "episodes": episodes.merge,
}


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states of the same plan. Raises: CorruptDataError when they cannot be added."""
    if not np.array_equal(first["format"], second["format"]):
        raise CorruptDataError("states of different formats cannot be added")
    if not np.array_equal(first["latency/edges_ns"], second["latency/edges_ns"]):
        raise CorruptDataError("states with different latency edges cannot be added")
    _, where = union(unpack_json(first["series/names"]), unpack_json(second["series/names"]))
    clock = first["clock"] + second["clock"]
    clock[0] = max(first["clock"][0], second["clock"][0])
    total: State = {
        "format": first["format"].copy(),
        "clock": clock,
        **prefixed(
            "latency", latency.merge(part("latency", first), part("latency", second), where)
        ),
    }
    for name, join in _PARTS.items():
        total |= prefixed(name, join(part(name, first), part(name, second)))
    return total
