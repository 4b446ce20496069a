"""Save, restore and merge what inferences cost.

Law: counts are saved sparsely by name, so models, versions and features may come and go with the
plan: a feature that has left the closed set counts as other from then on, and a model without a
cost is let go. Two sites merge by adding; a job that both were told of is billed twice, because
either gateway's bills are its own.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gateway.measure.costs.costs import (
    AHEAD_H,
    HOUR_NS,
    HOURS,
    OTHER_FEATURE,
    Bill,
    Costs,
    Refusal,
    Sum,
)
from gateway.measure.state import (
    Array,
    Int64,
    State,
    added,
    grown,
    pack_json,
    union,
    unpack_json,
)


def save(costs: Costs) -> State:
    """Copy everything that a restart needs.

    Shape: entries (k, 4): month, group, feature and count; hours (contracts, HOURS), newest first.
    """
    features, entries = _entries(costs)
    order = (costs.head + AHEAD_H - np.arange(HOURS)) % HOURS
    models = costs.models
    bills = [
        [name, models[each.contract], each.version, *each.amounts]
        for name, each in costs.bills.items()
    ]
    sums = [
        [month, models[contract], version, each.micros, each.inferences, each.jobs]
        for (month, contract, version), each in costs.sums.items()
    ]
    hourly = [
        [hour, models[contract], micros] for (hour, contract), micros in costs.billed_hours.items()
    ]
    return {
        "groups": pack_json([list(name) for name in costs.groups.names]),
        "features": pack_json(features),
        "entries": entries,
        "models": pack_json(list(models)),
        "hours": costs.hours.T[:, order].copy(),
        "first_ns": costs.first_ns.copy(),
        "clock": np.array([costs.now_ns], dtype=np.int64),
        "misdated": np.array([costs.misdated], dtype=np.int64),
        "bills": pack_json(bills),
        "sums": pack_json(sums),
        "billed_hours": pack_json(hourly),
        "refused": pack_json([each.value for each in costs.refused]),
        "refused_counts": np.array(list(costs.refused.values()), dtype=np.int64),
    }


def _entries(costs: Costs) -> tuple[list[str], Int64]:
    names = dict.fromkeys(name for each in costs.tariffs.values() for name in each.names)
    features = {name: at for at, name in enumerate(names)}
    found = [np.zeros((0, 4), dtype=np.int64)]
    for month, cells in sorted(costs.counts.items()):
        group, column = np.nonzero(cells)
        if len(group) == 0:
            continue
        place = np.array(
            [
                features[costs.tariffs[int(costs.groups.contract[of])].names[at]]
                for of, at in zip(group.tolist(), column.tolist(), strict=True)
            ]
        )
        count = cells[group, column]
        found.append(np.stack([np.full(len(group), month), group, place, count], axis=1))
    return list(features), np.concatenate(found)


def load(costs: Costs, state: Mapping[str, Array]) -> None:
    """Put a state back into a fresh instance; the plan may have changed."""
    costs.advance(int(state["clock"][0]))
    costs.misdated = int(state["misdated"][0])
    for reason, count in zip(
        unpack_json(state["refused"]), state["refused_counts"].tolist(), strict=True
    ):
        costs.refused[Refusal(reason)] = count
    _load_counts(costs, state)
    order = (costs.head + AHEAD_H - np.arange(HOURS)) % HOURS
    index = {model: at for at, model in enumerate(costs.models) if at in costs.tariffs}
    for at, model in enumerate(unpack_json(state["models"])):
        if model in index:
            costs.hours[order, index[model]] = state["hours"][at]
            costs.first_ns[index[model]] = state["first_ns"][at]
    for name, model, version, *rest in unpack_json(state["bills"]):
        if model in index:
            month, hour, micros, inferences = rest
            costs.bills[name] = Bill(
                contract=index[model],
                version=version,
                month=month,
                hour=hour,
                micros=micros,
                inferences=inferences,
            )
    for month, model, version, micros, inferences, jobs in unpack_json(state["sums"]):
        if model in index:
            key = (month, index[model], version)
            costs.sums[key] = Sum(micros=micros, inferences=inferences, jobs=jobs)
    for hour, model, micros in unpack_json(state["billed_hours"]):
        if model in index:
            costs.billed_hours[(hour, index[model])] = micros
    costs.set_month(costs.month)


def _load_counts(costs: Costs, state: Mapping[str, Array]) -> None:
    features = unpack_json(state["features"])
    groups = unpack_json(state["groups"])
    index = [costs.groups.index(model, version) for model, version in groups]
    for month, group, feature, count in state["entries"].tolist():
        tariff = costs.tariffs.get(int(costs.groups.contract[index[group]]))
        if tariff is None:
            continue
        name = features[feature]
        column = tariff.names.index(name if name in tariff.names else OTHER_FEATURE)
        cells = costs.counts.get(month, np.zeros((0, costs.width), dtype=np.int64))
        costs.counts[month] = cells = grown(cells, len(costs.groups))
        cells[index[group], column] += count


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states by name."""
    groups, group_at = union(unpack_json(first["groups"]), unpack_json(second["groups"]))
    features, feature_at = union(unpack_json(first["features"]), unpack_json(second["features"]))
    models, model_at = union(unpack_json(first["models"]), unpack_json(second["models"]))
    reasons, reason_at = union(unpack_json(first["refused"]), unpack_json(second["refused"]))
    clock = np.maximum(first["clock"], second["clock"])
    first_ns = np.full(len(models), np.iinfo(np.int64).max)
    first_ns[: len(first["first_ns"])] = first["first_ns"]
    np.minimum.at(first_ns, np.asarray(model_at, dtype=np.intp), second["first_ns"])
    return {
        "groups": pack_json(groups),
        "features": pack_json(features),
        "entries": _joined(first["entries"], second["entries"], group_at, feature_at),
        "models": pack_json(models),
        "hours": added(_aligned(first, clock), _aligned(second, clock), model_at, len(models)),
        "first_ns": first_ns,
        "clock": clock,
        "misdated": first["misdated"] + second["misdated"],
        # Which jobs were told is for each gateway to know.
        "bills": pack_json([]),
        "sums": _added_rows(first["sums"], second["sums"], names=3),
        "billed_hours": _added_rows(first["billed_hours"], second["billed_hours"], names=2),
        "refused": pack_json(reasons),
        "refused_counts": added(
            first["refused_counts"], second["refused_counts"], reason_at, len(reasons)
        ),
    }


def _aligned(state: Mapping[str, Array], clock: Int64) -> Int64:
    """Return the hours as they stand at a later clock."""
    behind = int(clock[0]) // HOUR_NS - int(state["clock"][0]) // HOUR_NS
    cells = np.zeros_like(state["hours"])
    if behind < HOURS:
        cells[:, behind:] = state["hours"][:, : HOURS - behind]
    return cells


def _joined(first: Int64, second: Int64, group_at: list[int], feature_at: list[int]) -> Int64:
    moved = second.copy()
    moved[:, 1] = np.asarray(group_at, dtype=np.int64)[second[:, 1]]
    moved[:, 2] = np.asarray(feature_at, dtype=np.int64)[second[:, 2]]
    both = np.concatenate((first, moved))
    keys, places = np.unique(both[:, :3], axis=0, return_inverse=True)
    counts = np.zeros(len(keys), dtype=np.int64)
    np.add.at(counts, places.reshape(-1), both[:, 3])
    return np.concatenate((keys, counts[:, None]), axis=1)


def _added_rows(first: Array, second: Array, *, names: int) -> Array:
    """Add lists whose first columns are names and whose others are whole numbers of any size."""
    total: dict[tuple[Any, ...], list[int]] = {}
    for row in (*unpack_json(first), *unpack_json(second)):
        key, counts = tuple(row[:names]), row[names:]
        before = total.get(key, [0] * len(counts))
        total[key] = [a + b for a, b in zip(before, counts, strict=True)]
    return pack_json([[*key, *counts] for key, counts in total.items()])
