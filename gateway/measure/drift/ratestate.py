"""Save, restore and merge the event rates.

Law: a row is saved under model and season. After a change of contracts or of the length of a tick
only what still means the same comes back; the rest starts anew.
"""

from collections.abc import Mapping

import numpy as np

from gateway.measure.drift.rates import FIELDS, REFERENCE, Rates
from gateway.measure.state import Array, State, pack_json, unpack_json


def save(rates: Rates) -> State:
    """Copy everything that a restart needs."""
    kinds = [list(rates.kind(row)) for row in range(len(rates.contracts))]
    clock = [rates.tick_ns, rates.tick, rates.heard_ns, rates.judged_from, *rates.away_ns]
    return {
        "kinds": pack_json(kinds),
        "clock": np.array(clock, dtype=np.int64),
        **{name: getattr(rates, name).copy() for name in FIELDS},
    }


def load(rates: Rates, state: Mapping[str, Array]) -> None:
    """Put back what a fresh instance still judges in the same way; nothing when there is none."""
    if not state:
        return
    tick_ns, tick, rates.heard_ns, judged_from, *away = state["clock"].tolist()
    rates.away_ns = (away[0], away[1])
    if tick_ns != rates.tick_ns:
        # Counts of ticks of another length tell nothing; the clock goes on.
        rates.tick = tick * tick_ns // rates.tick_ns
        rates.judged_from = judged_from * tick_ns // rates.tick_ns + 1
        return
    rates.tick, rates.judged_from = tick, judged_from
    place = {kind: at for at, kind in enumerate(_kinds(state))}
    for row in range(len(rates.contracts)):
        at = place.get(rates.kind(row))
        if at is None:
            continue
        for name in FIELDS:
            getattr(rates, name)[row] = state[name][at]
        if not rates.filling[row, REFERENCE]:
            rates.arm(row)


def _kinds(state: Mapping[str, Array]) -> list[tuple[str, str]]:
    """Return model and season of each row."""
    return [(str(model), str(season)) for model, season in unpack_json(state["kinds"])]


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add the counts of two states by model.

    A reference stays where both have the same one or only one of them has any. Evidence does not
    add, and neither does what was being collected.
    """
    states = [each for each in (first, second) if each]
    if not states:
        return {}
    places = [{kind: at for at, kind in enumerate(_kinds(state))} for state in states]
    kinds = list(dict.fromkeys(kind for each in places for kind in each))
    joined: State = {
        name: np.zeros((len(kinds), *shape), dtype=kind) for name, (shape, kind) in FIELDS.items()
    }
    joined["log_m"].fill(-np.inf)
    joined["evidence"].fill(-np.inf)
    joined["filling"][:, REFERENCE] = True
    for row, kind in enumerate(kinds):
        frozen: list[Array] = []
        for state, place in zip(states, places, strict=True):
            if kind not in place:
                continue
            at = place[kind]
            joined["total"][row] += state["total"][at] + state["open"][at]
            joined["started"][row] |= state["started"][at]
            if not state["filling"][at, REFERENCE]:
                frozen.append(state["sums"][at, REFERENCE])
        if frozen and all(np.array_equal(frozen[0], each) for each in frozen):
            joined["sums"][row, REFERENCE] = frozen[0]
            joined["filling"][row, REFERENCE] = False
    return {
        "kinds": pack_json([list(kind) for kind in kinds]),
        "clock": np.max([state["clock"] for state in states], axis=0),
        **joined,
    }
