"""Save and restore rollouts, and add those of two sites.

Law: what is restored counts on as if it had never stopped. Rollouts of models without a contract
keep what they have spent and count nothing more; an objective that is new gets an allocation then.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from gateway.batch import NO_CONTRACT, Json
from gateway.measure.rollouts import deployments
from gateway.measure.rollouts.allocation import Spend
from gateway.measure.rollouts.rollout import Rollout, RolloutState
from gateway.measure.rollouts.rollouts import Rollouts
from gateway.measure.state import Array, Int64, State, pack_json, part, prefixed, unpack_json
from gateway.otlp.declared import RolloutKind, RolloutStart

NO_OBJECTIVE: Final = -1
# How loud the states of a rollout that has not ended are.
_LOUDNESS: Final = (
    RolloutState.PLANNED,
    RolloutState.ACTIVE,
    RolloutState.WARNED,
    RolloutState.HALTED,
)


def save(rollouts: Rollouts) -> State:
    """Copy everything."""
    table = list(rollouts.table.values())
    return {
        **_packed([_note(each) for each in table], [each.counts for each in table]),
        "refused": pack_json({str(reason): count for reason, count in rollouts.refused.items()}),
        "judged": np.array([rollouts.judged_ns], dtype=np.int64),
        **prefixed("deployments", rollouts.deployments.state()),
    }


def _packed(notes: list[Json], counts: list[Int64]) -> State:
    cells = [each.reshape(-1) for each in counts]
    return {
        "rollouts": pack_json(notes),
        "counts": np.concatenate([np.zeros(0, dtype=np.int64), *cells]),
    }


def _unpacked(state: Mapping[str, Array]) -> Iterator[tuple[Json, Int64]]:
    """Yield what is noted of each rollout, and its counts. Shape: (stretches, objectives, 4)."""
    begin = 0
    for note in unpack_json(state["rollouts"]):
        shape = (note["cells"], len(note["slos"]), 4)
        size = int(np.prod(shape))
        yield note, state["counts"][begin : begin + size].reshape(shape)
        begin += size


def load(rollouts: Rollouts, state: Mapping[str, Array]) -> None:
    """Put everything back into fresh ones, after the objectives were restored."""
    rollouts.refused.update(unpack_json(state["refused"]))
    rollouts.judged_ns = int(state["judged"][0])
    rollouts.deployments.restore(part("deployments", state), rollouts.contract_of)
    for note, counts in _unpacked(state):
        start = _start(note)
        contract = rollouts.contract_of.get(start.model, NO_CONTRACT)
        slos, chosen = list(note["slos"]), (NO_OBJECTIVE,) * len(note["slos"])
        if contract != NO_CONTRACT:
            chosen = rollouts.spent_by(contract)
            slos = [rollouts.objectives.items[each].slo.name for each in chosen]
        found = _rollout(note, counts, contract=contract, objectives=chosen, slos=slos)
        for place, objective in enumerate(chosen):
            if slos[place] not in note["slos"]:
                found.allocations[place] = rollouts.allocation(objective, start)
                found.befores[place] = rollouts.before(objective)
        rollouts.table[start.rollout] = found
    rollouts.rebuild()


def _note(rollout: Rollout) -> Json:
    """Write everything but the counts as a JSON value."""
    start = rollout.start
    return {
        "start": [
            *(start.at_ns, start.device, start.rollout, start.model, start.version),
            *(start.previous, start.allocation, start.deadline_s, start.devices, start.kind.value),
        ],
        "slos": list(rollout.slos),
        "allocations": rollout.allocations,
        "befores": rollout.befores,
        "end_ns": rollout.end_ns,
        "outcome": rollout.outcome,
        "state": rollout.state.value,
        "is_counting": rollout.is_counting,
        "onset_ns": rollout.onset_ns,
        "streaks": rollout.streaks,
        "width_ns": rollout.width_ns,
        "first": rollout.first,
        "cells": len(rollout.counts),
        "spends": [
            [
                *(each.rollout_bad, each.rollout_events, each.control_bad, each.control_events),
                *(each.expected, each.alone),
            ]
            for each in rollout.spends
        ],
        "spents": rollout.spents,
    }


def _start(note: Json) -> RolloutStart:
    """Read what was declared."""
    at_ns, device, rollout, model, version, previous, allocation, deadline_s, devices, kind = note[
        "start"
    ]
    return RolloutStart(
        at_ns=at_ns,
        device=device,
        rollout=rollout,
        model=model,
        version=version,
        previous=previous,
        allocation=allocation,
        deadline_s=deadline_s,
        devices=devices,
        kind=RolloutKind(kind),
    )


def _rollout(
    note: Json,
    counts: Int64,
    *,
    contract: int,
    objectives: Sequence[int],
    slos: Sequence[str],
) -> Rollout:
    """Read a rollout back under the objectives of a plan that may have changed.

    Shape: counts (stretches, len(note["slos"]), 4). An objective that is new has no allocation yet.
    """
    known = {name: place for place, name in enumerate(note["slos"])}
    fresh = np.zeros((len(counts), len(slos), 4), dtype=np.int64)
    allocations, befores, spends, spents = [], [], [], []
    for place, name in enumerate(slos):
        at = known.get(name)
        if at is None:
            allocations.append(0.0)
            befores.append(0.0)
            spends.append(Spend())
            spents.append(0.0)
            continue
        fresh[:, place] = counts[:, at]
        allocations.append(note["allocations"][at])
        befores.append(note["befores"][at])
        bad, every, control_bad, control, expected, alone = note["spends"][at]
        spends.append(
            Spend(
                rollout_bad=bad,
                rollout_events=every,
                control_bad=control_bad,
                control_events=control,
                expected=expected,
                alone=alone,
            )
        )
        spents.append(note["spents"][at])
    return Rollout(
        start=_start(note),
        contract=contract,
        objectives=tuple(objectives),
        slos=tuple(slos),
        allocations=allocations,
        befores=befores,
        end_ns=note["end_ns"],
        outcome=note["outcome"],
        state=RolloutState(note["state"]),
        is_counting=note["is_counting"],
        onset_ns=note["onset_ns"],
        streaks=list(note["streaks"]),
        width_ns=note["width_ns"],
        first=note["first"],
        counts=fresh,
        spends=spends,
        spents=spents,
    )


def _joined(first: tuple[Json, Int64], second: tuple[Json, Int64]) -> tuple[Json, Int64]:
    """Add what two sites have counted of one rollout, which runs until it has ended at both."""
    slos = [
        *first[0]["slos"],
        *(each for each in second[0]["slos"] if each not in first[0]["slos"]),
    ]
    unknown = (NO_OBJECTIVE,) * len(slos)
    one, two = (
        _rollout(note, counts, contract=NO_CONTRACT, objectives=unknown, slos=slos)
        for note, counts in (first, second)
    )
    if two.start.at_ns < one.start.at_ns:
        one, two = two, one
    while one.width_ns != two.width_ns:
        (one if one.width_ns < two.width_ns else two).coarsen()
    begin = min(one.first, two.first)
    end = max(one.first + len(one.counts), two.first + len(two.counts))
    total = np.zeros((end - begin, len(slos), 4), dtype=np.int64)
    for each in (one, two):
        total[each.first - begin : each.first - begin + len(each.counts)] += each.counts
    for each in (one, two):
        each.counts, each.first = total, begin
    is_over = one.has_ended and two.has_ended
    running = [each.state for each in (one, two) if not each.has_ended]
    one.state = RolloutState.ENDED if is_over else max(running, key=_LOUDNESS.index)
    one.end_ns = max(one.end_ns, two.end_ns)
    one.outcome = max(one.outcome, two.outcome) if is_over else ""
    one.is_counting = one.is_counting or two.is_counting
    one.onset_ns = max(one.onset_ns, two.onset_ns)
    one.streaks = [min(pair) for pair in zip(one.streaks, two.streaks, strict=True)]
    for name in ("allocations", "befores", "spents"):
        pairs = zip(getattr(one, name), getattr(two, name), strict=True)
        setattr(one, name, [max(pair) for pair in pairs])
    one.spends = [_added(pair) for pair in zip(one.spends, two.spends, strict=True)]
    return _note(one), total


def _added(pair: tuple[Spend, Spend]) -> Spend:
    return Spend(
        rollout_bad=sum(each.rollout_bad for each in pair),
        rollout_events=sum(each.rollout_events for each in pair),
        control_bad=sum(each.control_bad for each in pair),
        control_events=sum(each.control_events for each in pair),
        expected=sum(each.expected for each in pair),
        alone=sum(each.alone for each in pair),
    )


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states of the same plan by the ids of their rollouts."""
    joined = {note["start"][2]: (note, counts) for note, counts in _unpacked(first)}
    for note, counts in _unpacked(second):
        name = note["start"][2]
        joined[name] = _joined(joined[name], (note, counts)) if name in joined else (note, counts)
    refused = unpack_json(first["refused"])
    for reason, count in unpack_json(second["refused"]).items():
        refused[reason] = refused.get(reason, 0) + count
    theirs = part("deployments", second)
    return {
        **_packed([note for note, _ in joined.values()], [counts for _, counts in joined.values()]),
        "refused": pack_json(refused),
        "judged": np.maximum(first["judged"], second["judged"]),
        **prefixed("deployments", deployments.merge(part("deployments", first), theirs)),
    }
