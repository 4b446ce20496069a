"""Add the saved counts of the SLOs of two sites.

Law: the merge of any number of states is the state of one gateway that saw all their events. The
watermark of the result is the latest one; what still waited before it elsewhere is counted.
"""

from collections.abc import Mapping

import numpy as np

from gateway.measure.slo.objective import NEVER
from gateway.measure.slo.objectives import STEP_S
from gateway.measure.slo.windows import MINUTE_S, moved
from gateway.measure.slo.windows import merge as merge_rings
from gateway.measure.state import Array, State, added, pack_json, part, prefixed, unpack_json
from gateway.measure.state import union as union_names


def _waited(state: Mapping[str, Array], head: int) -> State:
    """Move the watermark of a state forward, as `turn` would."""
    own = int(state["head"][0])
    steps = head - own
    later = dict(state)
    if not steps:
        return later
    later |= prefixed("arrivals", moved(part("arrivals", state), head * STEP_S // MINUTE_S))
    waiting = state["waiting"]
    for name in _rings_in(state):
        slot_s = int(name.removeprefix("ring"))
        ring = moved(part(name, state), head * STEP_S // slot_s)
        for at, counts in enumerate(waiting[:steps]):
            age = head * STEP_S // slot_s - (own + 1 + at) * STEP_S // slot_s
            if age < len(ring["cells"]):
                ring["cells"][-1 - age] += counts
        later |= prefixed(name, ring)
    passed = waiting[:steps].any(axis=2)
    first = np.where(passed.any(axis=0), own + 1 + passed.argmax(axis=0), NEVER)
    later["since"] = np.minimum(state["since"], first)
    later["waiting"] = np.zeros_like(waiting)
    later["waiting"][: max(len(waiting) - steps, 0)] = waiting[steps:]
    return later


def _rings_in(state: Mapping[str, Array]) -> list[str]:
    return sorted({key.split("/")[0] for key in state if key.startswith("ring")})


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states of the same plan by model and SLO name, at the later watermark."""
    names, where = union_names(unpack_json(first["names"]), unpack_json(second["names"]))
    head = int(max(first["head"][0], second["head"][0]))
    first, second = _waited(first, head), _waited(second, head)
    one, two = (np.swapaxes(each["waiting"], 0, 1) for each in (first, second))
    since = np.full(len(names), NEVER, dtype=np.int64)
    since[: len(first["since"])] = first["since"]
    np.minimum.at(since, np.array(where, dtype=np.intp), second["since"])
    total: State = {
        "names": pack_json(names),
        "counters": first["counters"] + second["counters"],
        "late": first["late"] + second["late"],
        "head": np.array([head], dtype=np.int64),
        "since": since,
        "waiting": np.ascontiguousarray(np.swapaxes(added(one, two, where, len(names)), 0, 1)),
    }
    for ring in ("arrivals", *_rings_in(first)):
        total |= prefixed(ring, merge_rings(part(ring, first), part(ring, second), where))
    return total
