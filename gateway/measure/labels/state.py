"""Save, restore and merge labels and the predictions that wait for them.

Law: what is restored goes on as if nothing had happened, also under another plan: classes and
deadlines are translated by name and time, and what has no contract with labels any more is let go.
Two sites merge by adding counts; predictions and labels that wait belong to the site that has them,
because the other half of each comes there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from gateway.contract.schema import SignalType
from gateway.measure.labels import accuracy
from gateway.measure.labels.labels import OVERDUE_NS, Labels
from gateway.measure.labels.predictions import (
    ANY_CONTRACT,
    CODE_MIN,
    GONE,
    NEVER_GOOD,
    NO_LABEL,
    NO_SCORE,
    OVERDUE,
    UNSEEN_CLASS,
)
from gateway.measure.labels.rules import LAG_EDGES_S, Fate, Rule
from gateway.measure.labels.scores import grid_name
from gateway.measure.state import (
    Array,
    Int64,
    State,
    added,
    pack_json,
    part,
    prefixed,
    union,
    unpack_json,
)
from gateway.tables import Bool

_COUNTERS: Final = ("offered", "sampled_out", "too_old")


def save(labels: Labels) -> State:
    """Copy everything that a restart needs."""
    rules = list(labels.rules.values())
    models = {rule.contract: rule.model for rule in rules}
    waiting = [
        [hi, lo, models.get(contract, ""), value, arrival_ns]
        for (hi, lo, contract), (value, arrival_ns) in labels.waiting.items()
    ]
    lags = [[*labels.lags[rule.model].lags] for rule in rules]
    due = [[labels.lags[rule.model].good, labels.lags[rule.model].bad] for rule in rules]
    return {
        "groups": pack_json([list(name) for name in labels.groups.names]),
        "models": pack_json([rule.model for rule in rules]),
        "lags": np.array(lags, dtype=np.int64).reshape(len(rules), len(LAG_EDGES_S) + 1),
        "due": np.array(due, dtype=np.int64).reshape(len(rules), 2),
        "fates": pack_json([fate.value for fate in labels.fates]),
        "fate_counts": np.array(list(labels.fates.values()), dtype=np.int64),
        "counters": np.array([getattr(labels, name) for name in _COUNTERS], dtype=np.int64),
        "clock": np.array([labels.judged_ns, labels.joined, *labels.peaks], dtype=np.int64),
        "forms": pack_json([_form(rule) for rule in rules]),
        "grids": pack_json([grid_name(rule.confidence) for rule in rules]),
        "waiting": pack_json(waiting),
        **prefixed("predictions", labels.predictions.state()),
        **prefixed("accuracy", labels.accuracy.state(len(labels.groups), _namer(labels))),
    }


def _form(rule: Rule) -> dict[str, Any]:
    return {
        "type": rule.classes.type.value,
        "values": list(rule.classes.values),
        "ends_ns": list(rule.ends_ns),
    }


def _namer(labels: Labels) -> Any:
    def text(group: int, code: int) -> str | None:
        rule = labels.rules.get(int(labels.groups.contract[group]))
        return None if rule is None else rule.classes.maybe_text(code)

    return text


def load(labels: Labels, state: Mapping[str, Array]) -> None:
    """Put a state back into a fresh instance; the plan may have changed."""
    labels.groups.load(unpack_json(state["groups"]))
    models = unpack_json(state["models"])
    for model, lags, due in zip(models, state["lags"].tolist(), state["due"].tolist(), strict=True):
        if model in labels.lags:
            mine = labels.lags[model]
            mine.lags, (mine.good, mine.bad) = lags, due
    for fate, count in zip(unpack_json(state["fates"]), state["fate_counts"].tolist(), strict=True):
        labels.fates[Fate(fate)] = count
    for name, count in zip(_COUNTERS, state["counters"].tolist(), strict=True):
        setattr(labels, name, count)
    labels.judged_ns, labels.joined, *labels.peaks = state["clock"].tolist()

    def code(group: int, text: str | None) -> int:
        rule = labels.rules.get(int(labels.groups.contract[group]))
        found = None if rule is None or text is None else rule.classes.maybe_code(text)
        return UNSEEN_CLASS if found is None else found

    contracts = labels.groups.contract
    labels.accuracy.restore(part("accuracy", state), contracts, code)
    labels.predictions.restore(part("predictions", state))
    if "waiting" not in state:
        return  # a merged state
    _load_waiting(labels, unpack_json(state["waiting"]))
    _translate(labels, models, unpack_json(state["forms"]))
    if "grids" in state:
        _regrid(labels, models, unpack_json(state["grids"]))


def _load_waiting(labels: Labels, waiting: Sequence[Sequence[Any]]) -> None:
    for hi, lo, model, value, arrival_ns in waiting:
        rule = labels.rule_of_model.get(model)
        if rule is None and (model or not labels.rules):
            labels.fates[Fate.NO_CONTRACT] += 1
            continue
        contract = ANY_CONTRACT if rule is None else rule.contract
        labels.waiting[(hi, lo, contract)] = (value, arrival_ns)


def _translate(labels: Labels, models: Sequence[str], forms: Sequence[Mapping[str, Any]]) -> None:
    """Bring rows under the rules of this plan."""
    table = labels.predictions
    contract = labels.groups.contract[table.group[: table.count]]
    kept = np.isin(contract, list(labels.rules))
    for model, form in zip(models, forms, strict=True):
        rule = labels.rule_of_model.get(model)
        if rule is None or form == _form(rule):
            continue
        rows = np.flatnonzero((contract == rule.contract) & (table.stage[: table.count] != GONE))
        kept[contract == rule.contract] = False
        kept[rows] = _recode(labels, rule, form, rows)
        _restage(labels, rule, form["ends_ns"], rows)
    if not kept.all():
        table.keep(kept)
    table.rest()


def _regrid(labels: Labels, models: Sequence[str], grids: Sequence[str]) -> None:
    """Forget scores whose grid the contract has no more."""
    table = labels.predictions
    contract = labels.groups.contract[table.group[: table.count]]
    for model, name in zip(models, grids, strict=True):
        rule = labels.rule_of_model.get(model)
        if rule is not None and grid_name(rule.confidence) != name:
            table.score[: table.count][contract == rule.contract] = NO_SCORE


def _recode(labels: Labels, rule: Rule, form: Mapping[str, Any], rows: Int64) -> Bool:
    """Translate the classes of rows; say which rows have no label of a class that has gone."""
    table = labels.predictions
    values = form["values"]
    is_number = form["type"] == SignalType.INT
    kept = np.ones(len(rows), dtype=np.bool_)
    for column in (table.code, table.label):
        codes, places = np.unique(column[rows], return_inverse=True)
        fresh = codes.copy()
        for at, old in enumerate(codes.tolist()):
            if old >= CODE_MIN:
                found = rule.classes.maybe_code(str(old) if is_number else values[old])
                fresh[at] = UNSEEN_CLASS if found is None else found
        column[rows] = fresh[places]
    kept &= table.label[rows] != UNSEEN_CLASS
    return kept


def _restage(labels: Labels, rule: Rule, old_ns: Sequence[int], rows: Int64) -> None:
    """Find the deadline that rows wait for now; those that have passed are not judged again."""
    table = labels.predictions
    stage = table.stage[rows]
    ends = np.array([*old_ns, old_ns[-1] + OVERDUE_NS], dtype=np.int64)
    old_stage = np.where(stage == OVERDUE, len(old_ns), stage).astype(np.int64)
    event_ns = table.due_ns[rows] - ends[old_stage]
    fresh = np.array([*rule.ends_ns, rule.within_ns + OVERDUE_NS], dtype=np.int64)
    passed = np.searchsorted(fresh[:-1], labels.judged_ns - event_ns, side="right")
    table.due_ns[rows] = event_ns + fresh[passed]
    table.stage[rows] = np.where(passed == len(rule.ends_ns), OVERDUE, passed)
    # A label that kept an old deadline keeps every new one that is not earlier.
    good_from = np.append(np.searchsorted(rule.ends_ns, old_ns), len(rule.ends_ns))
    kept_old = np.minimum(table.good_from[rows], len(old_ns))
    good = good_from[kept_old]
    table.good_from[rows] = np.where(good == len(rule.ends_ns), NEVER_GOOD, good)
    has_label = table.label[rows] != NO_LABEL
    table.good_from[rows[~has_label]] = NEVER_GOOD


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add the counts of two states by name."""
    groups, where = union(unpack_json(first["groups"]), unpack_json(second["groups"]))
    models, places = union(unpack_json(first["models"]), unpack_json(second["models"]))
    fates, fate_places = union(unpack_json(first["fates"]), unpack_json(second["fates"]))
    clock = np.zeros_like(first["clock"])
    clock[0] = max(first["clock"][0], second["clock"][0])
    return {
        "groups": pack_json(groups),
        "models": pack_json(models),
        **{key: added(first[key], second[key], places, len(models)) for key in ("lags", "due")},
        "fates": pack_json(fates),
        "fate_counts": added(first["fate_counts"], second["fate_counts"], fate_places, len(fates)),
        "counters": first["counters"] + second["counters"],
        "clock": clock,
        "predictions/counts": first["predictions/counts"] + second["predictions/counts"],
        **prefixed(
            "accuracy", accuracy.merge(part("accuracy", first), part("accuracy", second), where)
        ),
    }
