"""Count which confidence was right and which was wrong, for each version, as labels come.

Law: integers by the bin of confidence, exact and never reset, and beside them those of the last one
to two days by arrival of the labels. A changed label moves one count of all; what is recent, and
the evidence, are of first labels alone, in the order in which they met their predictions. Rows are
those of the labels' groups.
Complexity: a label costs a few scalar adds; 6 KB for each version.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from gateway.contract.plan import Plan
from gateway.measure.drift.files import Calibration, calibrations
from gateway.measure.drift.grid import SCORE_BINS
from gateway.measure.estimates.curve import RIGHT, WRONG, probabilities
from gateway.measure.estimates.shape import middles
from gateway.measure.estimates.wager import Wager
from gateway.measure.groups import Groups
from gateway.measure.labels.rules import Outcome
from gateway.measure.labels.scores import grid_name, maybe_confidence, maybe_signal
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, added, grown, pack_json, union, unpack_json
from gateway.tables import Float64

DAY_NS: Final = 86_400 * SECOND_NS
_TABLES: Final = ("total", "today", "before")
_REALS: Final = ("log_more", "log_less", "weight", "surplus", "scatter")
_TIMES: Final = ("onset_ns", "alarmed_ns", "labelled_ns")


class Tables:
    """Labelled tables of all groups, and the evidence against their calibration.

    Shape: total, today and before (groups, SCORE_BINS, 2), right and wrong.
    """

    def __init__(self, plan: Plan) -> None:
        self._confidence = [maybe_confidence(contract, plan) for contract in plan.contracts]
        # Of each contract, the edges of confidence as probabilities; none without a confidence.
        self.edges: list[Float64] = [
            np.zeros(0) if lane is None else probabilities(lane.grid) for lane in self._confidence
        ]
        self._bounds: list[list[float]] = [each.tolist() for each in self.edges]
        # What baseline files say of a model's version, as a row of `total`.
        calibrated = calibrations(plan)
        self.given = _given(plan, calibrated)
        # How many predictions of those files were labelled, for whoever lists them.
        self.labelled = {key: int(each.labelled.sum()) for key, each in calibrated.items()}
        self.total = np.zeros((0, SCORE_BINS, 2), dtype=np.int64)
        self.today = np.zeros((0, SCORE_BINS, 2), dtype=np.int64)
        self.before = np.zeros((0, SCORE_BINS, 2), dtype=np.int64)
        self.wagers: list[Wager] = []
        self._day = 0

    def __len__(self) -> int:
        return len(self.wagers)

    def turn(self, now_ns: int) -> None:
        """Begin a new day when it is time."""
        day = now_ns // DAY_NS
        if day <= self._day:
            return
        self.before = self.today if day == self._day + 1 else np.zeros_like(self.today)
        self.today = np.zeros_like(self.today)
        self._day = day

    def _reserve(self, groups: int) -> None:
        while len(self.wagers) < groups:
            self.wagers.append(Wager())
        for name in _TABLES:
            setattr(self, name, grown(getattr(self, name), groups))

    def take(self, outcome: Outcome) -> None:
        """Count a prediction that a label was compared with."""
        group, score = outcome.group, outcome.score
        if score >= SCORE_BINS:  # missing, odd or none
            return
        if group >= len(self.wagers):
            self._reserve(group + 1)
        now = RIGHT if outcome.is_right else WRONG
        if outcome.was_right is None:
            self.total[group, score, now] += 1
            self.today[group, score, now] += 1
            low, high = self._bounds[outcome.contract][score : score + 2]
            self.wagers[group].take(outcome.is_right, low, high, outcome.arrival_ns)
            return
        old = RIGHT if outcome.was_right else WRONG
        # After a change of the contract's classes it may have been counted as something else.
        if self.total[group, score, old] > 0:
            self.total[group, score, old] -= 1
            self.total[group, score, now] += 1

    def recent(self, group: int) -> Int64:
        """Return the table of the last one to two days. Shape: (SCORE_BINS, 2)."""
        total: Int64 = self.today[group] + self.before[group]
        return total

    def overclaiming(
        self, groups: list[int], contract: int, labels_min: int, tolerated: float
    ) -> list[int]:
        """Find the groups whose recent mean confidence is that far above their accuracy.

        All are of one contract, and have `labels_min` recent labels; whether it is sure is for the
        caller to say.
        """
        if len(self.edges[contract]) == 0:
            return []
        recent = self.today[groups] + self.before[groups]
        labelled = recent.sum(axis=2)
        over = labelled @ middles(self.edges[contract]) - recent[:, :, RIGHT].sum(axis=1)
        total = labelled.sum(axis=1)
        is_over = (total >= labels_min) & (over > tolerated * total)
        return [group for group, each in zip(groups, is_over.tolist(), strict=True) if each]

    def state(self, groups: Groups) -> State:
        """Copy everything, by name."""
        count = len(self)
        grids = [
            "" if contract < 0 else grid_name(self._confidence[contract])
            for contract in groups.contract[:count].tolist()
        ]
        reals = [[getattr(each, name) for name in _REALS] for each in self.wagers]
        times = [[getattr(each, name) for name in _TIMES] for each in self.wagers]
        return {
            "names": pack_json(
                [[*name, grid] for name, grid in zip(groups.names[:count], grids, strict=True)]
            ),
            "day": np.array([self._day], dtype=np.int64),
            **{name: getattr(self, name)[:count].copy() for name in _TABLES},
            "reals": np.array(reals, dtype=np.float64).reshape(count, len(_REALS)),
            "times": np.array(times, dtype=np.int64).reshape(count, len(_TIMES)),
        }

    def restore(self, state: Mapping[str, Array], groups: Groups) -> None:
        """Put everything back whose contract has the same grid of confidence."""
        self._day = int(state["day"][0])
        for row, (model, version, grid) in enumerate(unpack_json(state["names"])):
            group = groups.index(model, version)
            contract = int(groups.contract[group])
            self._reserve(group + 1)
            if contract < 0 or grid_name(self._confidence[contract]) != grid:
                continue
            for name in _TABLES:
                getattr(self, name)[group] = state[name][row]
            wager = self.wagers[group]
            for names, values in ((_REALS, state["reals"]), (_TIMES, state["times"])):
                for name, value in zip(names, values[row].tolist(), strict=True):
                    setattr(wager, name, value)


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add the counts of two states by name, days aligned by the later one.

    Evidence does not add: the bets of both are on their own order of labels, and start anew.
    """
    names, where = union(unpack_json(first["names"]), unpack_json(second["names"]))
    day = np.maximum(first["day"], second["day"])
    one, two = (_at_day(state, int(day[0])) for state in (first, second))
    return {
        "names": pack_json(names),
        "day": day,
        **{name: added(one[name], two[name], where, len(names)) for name in _TABLES},
        "reals": np.zeros((len(names), len(_REALS)), dtype=np.float64),
        "times": np.zeros((len(names), len(_TIMES)), dtype=np.int64),
    }


def _at_day(state: Mapping[str, Array], day: int) -> Mapping[str, Array]:
    behind = day - int(state["day"][0])
    if behind == 0:
        return state
    empty = np.zeros_like(state["today"])
    return {**state, "today": empty, "before": state["today"] if behind == 1 else empty}


def _given(
    plan: Plan, calibrated: Mapping[tuple[str, str, str], Calibration]
) -> dict[tuple[str, str], Int64]:
    signals = [(contract.model, maybe_signal(contract)) for contract in plan.contracts]
    names = {model: found[0].name for model, found in signals if found is not None}
    given: dict[tuple[str, str], Int64] = {}
    for (model, version, signal), each in calibrated.items():
        if names.get(model) == signal:
            columns = np.stack((each.correct, each.labelled - each.correct), axis=1)
            given[model, version] = columns[:SCORE_BINS]
    return given


def maybe_given(tables: Tables, groups: Groups, group: int, labels_min: int) -> Int64 | None:
    """Return the table that a baseline file has for a version which has too few labels itself.

    None where the version has `labels_min` labels, or the file has not.
    """
    table = tables.given.get(groups.names[group])
    own = int(tables.total[group].sum()) if group < len(tables) else 0
    is_needed = own < labels_min and table is not None and int(table.sum()) >= labels_min
    return table if is_needed else None


def references(tables: Tables, groups: Groups, labels_min: int) -> list[int | None]:
    """Find whose labels each version is judged by: its own, else those of one before it.

    None where no version of the model up to that one has `labels_min` labels.
    """
    labels = tables.total[: len(tables)].sum(axis=(1, 2)).tolist()
    newest: dict[str, int] = {}
    found = []
    for group, (model, _) in enumerate(groups.names):
        if group < len(labels) and labels[group] >= labels_min:
            newest[model] = group
        found.append(newest.get(model))
    return found
