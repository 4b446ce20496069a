"""Say how good a model is while labels are late, and when its confidence is not to be believed.

Law: level triggered. What is wrong at a judged time follows from counts and evidence as they are
then; nothing is remembered here but the parts. A version is judged by its own labels where it has
LABELS_MIN, else by those of a version before it, else not at all.

Two troubles. A version is miscalibrated when the evidence of labels passed its bound (`wager`) and
still stands. It is overconfident when, surely, confidence gathers at the top while fewer classes
are predicted than in the frozen baselines, which hides a drift from everybody who watches accuracy
by confidence; or when the mean confidence of recent labelled answers is above their accuracy by
more than OVERCLAIM_MAX. A version that had no label for STALE_NS is not judged by labels. The first
of the two is not judged where a contract has a season: minutes of a night are not those of a week,
and a baseline has its hours in coarse bins alone. Drift is judged there by the hour.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from gateway.batch import AnomalyKind, Severity, Team
from gateway.contract.plan import Plan
from gateway.contract.schema import Contract, Role
from gateway.measure.drift.baseline import Baseline
from gateway.measure.drift.grid import SCORE_BINS, Grid, GridKind
from gateway.measure.drift.lanes import measured
from gateway.measure.drift.streams import Streams
from gateway.measure.estimates import tables as tablestate
from gateway.measure.estimates import windows as windowstate
from gateway.measure.estimates.curve import calibration_error
from gateway.measure.estimates.shape import (
    SURE_SD,
    Estimated,
    entropy_of,
    overclaim,
    saturation,
    surely_above,
)
from gateway.measure.estimates.tables import Tables
from gateway.measure.estimates.wager import LOG_BOUND, Wager
from gateway.measure.estimates.windows import Windows
from gateway.measure.labels.labels import Labels
from gateway.measure.labels.scores import maybe_signal
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, part, prefixed
from gateway.measure.trouble import Trouble

# Labels of a version from which on its own table is the reference.
LABELS_MIN: Final = 200
# Events of a window below which its shape is not compared.
EVENTS_MIN: Final = 200
# By how much the saturated share may rise, and entropy (nats) fall, before it can be a trouble.
SATURATION_RISE_MAX: Final = 0.05
ENTROPY_FALL_MAX: Final = 0.05
# By how much confidence may be above accuracy.
OVERCLAIM_MAX: Final = 0.05
STALE_NS: Final = 2 * 86_400 * SECOND_NS


class Estimates:
    """Estimates of all versions. `tables` hears of labels by itself."""

    def __init__(self, plan: Plan, streams: Streams, labels: Labels, tables: Tables) -> None:
        self.streams = streams
        self.labels = labels
        self.tables = tables
        self.windows = Windows(streams)
        self.confidence = [_confidence(contract) for contract in plan.contracts]
        self.prediction = [_prediction(contract) for contract in plan.contracts]

    def turn(self, now_ns: int) -> None:
        """Move the windows to a time."""
        self.tables.turn(now_ns)
        self.windows.turn(now_ns)

    def confidence_window(self, contract: int, model: str, version: str) -> Int64:
        """Return the recent confidence of a version, by bin. Shape: (SCORE_BINS,)."""
        number = self.streams.number_of(model, version, self.confidence[contract])
        if number is None:
            return np.zeros(SCORE_BINS, dtype=np.int64)
        counts: Int64 = self.windows.recent(number)[:SCORE_BINS]
        return counts

    def class_window(self, contract: int, model: str, version: str) -> Int64 | None:
        """Return the recent predictions of a version, None when they are no classes.

        Shape: (classes + 1,), the last one for unseen classes.
        """
        number = self.streams.number_of(model, version, self.prediction[contract])
        if number is None:
            return None
        return without_missing(self.windows.recent(number), self.streams.grid(number))

    def troubles(self, at_ns: int) -> list[Trouble]:
        """List the versions whose confidence is wrong, or hides something."""
        overconfident: dict[tuple[int, str], Trouble] = {}
        for trouble in (*self._collapsed(at_ns), *self._overclaiming(at_ns)):
            key = (trouble.contract, trouble.version)
            before = overconfident.get(key)
            overconfident[key] = trouble if before is None else _joined(before, trouble)
        return [*self._miscalibrated(at_ns), *overconfident.values()]

    def _judged(self, at_ns: int) -> Iterator[tuple[int, int, Wager]]:
        """List the groups that had labels lately, with their contracts."""
        contracts = self.labels.groups.contract
        for group, wager in enumerate(self.tables.wagers):
            contract = int(contracts[group])
            if contract >= 0 and wager.labelled_ns > 0 and at_ns - wager.labelled_ns < STALE_NS:
                yield group, contract, wager

    def _miscalibrated(self, at_ns: int) -> Iterator[Trouble]:
        for group, contract, wager in self._judged(at_ns):
            if not wager.alarmed_ns:
                continue
            model, version = self.labels.groups.names[group]
            is_less = wager.log_less > wager.log_more
            table = self.tables.total[group]
            yield Trouble(
                kind=AnomalyKind.MISCALIBRATION,
                severity=Severity.TICKET,
                team=Team.ML_ENGINEERING,
                contract=contract,
                model=model,
                version=version,
                subject=version,
                summary=f"labels show that the model is right {'less' if is_less else 'more'} often"
                " than its confidence says",
                onset_ns=wager.onset_ns,
                numbers={
                    "log_evidence": wager.log_evidence,
                    "log_evidence_bound": LOG_BOUND,
                    "surplus_ratio": wager.mean_surplus,
                    "calibration_error_ratio": calibration_error(
                        table, self.tables.edges[contract]
                    ),
                    "labelled_events": float(table.sum()),
                },
            )

    def _overclaiming(self, at_ns: int) -> Iterator[Trouble]:
        judged: dict[int, list[int]] = {}
        for group, contract, _ in self._judged(at_ns):
            judged.setdefault(contract, []).append(group)
        over = [
            (group, contract)
            for contract, groups in judged.items()
            for group in self.tables.overclaiming(groups, contract, LABELS_MIN, OVERCLAIM_MAX)
        ]
        for group, contract in over:
            table = self.tables.recent(group)
            labelled = int(table.sum())
            gap = overclaim(table, self.tables.edges[contract])
            if not surely_above(gap, Estimated(value=0.0, variance=0.0), OVERCLAIM_MAX):
                continue
            model, version = self.labels.groups.names[group]
            margin = SURE_SD * gap.variance**0.5
            yield _overconfidence(
                contract,
                model,
                version,
                at_ns,
                "mean confidence is above the accuracy of labelled answers",
                {
                    "overclaim_ratio": gap.value,
                    "overclaim_low_ratio": gap.value - margin,
                    "overclaim_tolerated_ratio": OVERCLAIM_MAX,
                    "recent_labelled_events": float(labelled),
                },
            )

    def _collapsed(self, at_ns: int) -> Iterator[Trouble]:
        for number in self.windows.busy(EVENTS_MIN):
            item = self.streams.items[number]
            if item.signal != self.confidence[item.contract]:
                continue
            sure = self.streams.baselines.get(number)
            wanted = self.prediction[item.contract]
            other = self.streams.number_of(item.model, item.version, wanted)
            classes = None if other is None else self.streams.baselines.get(other)
            if sure is None or other is None or classes is None:
                continue
            if sure.hours is not None or classes.hours is not None:
                continue
            numbers = self._maybe_collapse(number, sure, other, classes)
            if numbers is not None:
                yield _overconfidence(
                    item.contract,
                    item.model,
                    item.version,
                    at_ns,
                    "confidence gathers at the top while fewer classes are predicted",
                    numbers,
                )

    def _maybe_collapse(
        self, number: int, sure: Baseline, other: int, classes: Baseline
    ) -> dict[str, float] | None:
        """Compare both windows of a version with their baselines; None where nothing is sure."""
        edges = self.tables.edges[self.streams.items[number].contract]
        window, reference = self.windows.recent(number)[:SCORE_BINS], sure.counts[:SCORE_BINS]
        if int(window.sum()) < EVENTS_MIN or not reference.any():
            return None
        now = saturation(window, edges, sure.phi)
        then = saturation(reference, edges, sure.phi)
        if not surely_above(now, then, SATURATION_RISE_MAX):
            return None
        predicted = without_missing(self.windows.recent(other), classes.grid)
        known = without_missing(classes.counts, classes.grid)
        if int(predicted.sum()) < EVENTS_MIN or not known.any():
            return None
        entropy, entropy_then = entropy_of(predicted, classes.phi), entropy_of(known, classes.phi)
        if not surely_above(entropy_then, entropy, ENTROPY_FALL_MAX):
            return None
        return {
            "saturated_ratio": now.value,
            "saturated_baseline_ratio": then.value,
            "class_entropy_nats": entropy.value,
            "class_entropy_baseline_nats": entropy_then.value,
            "window_events": float(window.sum()),
        }

    def state(self) -> State:
        """Copy everything that a restart needs."""
        return {
            **prefixed("tables", self.tables.state(self.labels.groups)),
            **prefixed("windows", self.windows.state()),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put everything back, after the labels and the streams; an empty state is an older one."""
        if "tables/names" in state:
            self.tables.restore(part("tables", state), self.labels.groups)
        self.windows.restore(part("windows", state))


def without_missing(counts: Int64, grid: Grid) -> Int64:
    """Return the counts of values and of odd ones. Shape: (width,) to (bins + 1,)."""
    return np.append(counts[: grid.bins], counts[grid.odd])


def _confidence(contract: Contract) -> str:
    found = maybe_signal(contract)
    return "" if found is None else found[0].name


def _prediction(contract: Contract) -> str:
    """Return which prediction of classes goes with the confidence: the labelled one, or the first.

    Empty when there is none.
    """
    classes = [
        signal.name
        for signal, grid in measured(contract)
        if signal.role is Role.PREDICTION and grid.kind is GridKind.CLASSES
    ]
    if contract.labels is not None:
        return contract.labels.signal if contract.labels.signal in classes else ""
    return classes[0] if classes else ""


def _overconfidence(
    contract: int,
    model: str,
    version: str,
    at_ns: int,
    summary: str,
    numbers: Mapping[str, float],
) -> Trouble:
    return Trouble(
        kind=AnomalyKind.OVERCONFIDENCE,
        severity=Severity.TICKET,
        team=Team.ML_ENGINEERING,
        contract=contract,
        model=model,
        version=version,
        subject=version,
        summary=summary,
        onset_ns=at_ns,
        numbers=numbers,
    )


def _joined(first: Trouble, second: Trouble) -> Trouble:
    """Tell two reasons for the same thing at once."""
    return dataclasses.replace(
        first,
        summary=f"{first.summary}; {second.summary}",
        numbers={**first.numbers, **second.numbers},
    )


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states by name; one that is older has nothing to add."""
    states = [each for each in (first, second) if "tables/names" in each]
    if len(states) < 2:
        return dict(states[0]) if states else {}
    one, two = states
    return {
        **prefixed("tables", tablestate.merge(part("tables", one), part("tables", two))),
        **prefixed("windows", windowstate.merge(part("windows", one), part("windows", two))),
    }
