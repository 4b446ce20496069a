"""What is shown of estimates: plain copies, None where there is no value, and the reason why."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from gateway.measure.estimates.curve import (
    Curve,
    Interval,
    atc,
    calibration_error,
    cbpe,
    curve_of,
    disagree,
)
from gateway.measure.estimates.estimates import LABELS_MIN, Estimates
from gateway.measure.estimates.prior import NoPrior, class_prior
from gateway.measure.estimates.shape import Shape, entropy_of, maybe_shape
from gateway.measure.estimates.tables import maybe_given, references
from gateway.measure.estimates.wager import LOG_BOUND, Wager
from gateway.measure.labels.accuracy import CLASSES_MAX
from gateway.measure.state import Int64

ASSUMPTION: Final = "assumes P(correct | confidence) is stable"
# Share of a window that may lie where no label has ever been.
OUTSIDE_MAX: Final = 0.1
# Standard errors by which recent labels contradict the others: by chance, one look of 370.
CONTRADICTED_SD: Final = 3.0


class NoEstimate(StrEnum):
    """Why there is no estimate of accuracy."""

    NO_CONFIDENCE = "the contract has no confidence"
    FEW_LABELS = "neither this version nor one before it has enough labels"
    NO_WINDOW = "no confidence was heard in the last ten to twenty minutes"
    OUTSIDE = "too much of the window has a confidence that no label was for"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationView:
    """Whether a version is as often right as it says. `error` is None without labels.

    `evidence` is a natural logarithm; the version counts as miscalibrated from `bound` on.
    `surplus` is how much more often it was right than it said, over the last few hundred labels.
    """

    evidence: float
    bound: float
    surplus: float
    error: float | None
    is_alarmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateView:
    """How good one version probably is now.

    `reference` is the version whose labels it is judged by, those of its baseline file where
    `is_from_file`. Exactly one of `cbpe` and `reason` is
    there, and one of `prior` and `no_prior`. `is_contradicted` says that labels of the last one to
    two days are not what those before them led to expect; None where too few can tell.
    """

    model: str
    version: str
    reference: str | None
    is_from_file: bool
    labelled: int
    window: Shape | None
    class_entropy_nats: float | None
    cbpe: Interval | None
    atc: float | None
    disagrees: bool
    is_contradicted: bool | None
    reason: NoEstimate | None
    prior: Mapping[str, float] | None
    no_prior: NoPrior | None
    calibration: CalibrationView


def estimate_views(estimates: Estimates) -> tuple[EstimateView, ...]:
    """Copy what is shown of every version of a contract that has labels."""
    pairs: dict[int, list[tuple[int, int, int]]] = {}
    for (group, predicted, label), count in estimates.labels.accuracy.pairs.items():
        pairs.setdefault(group, []).append((predicted, label, count))
    contracts = estimates.labels.groups.contract.tolist()
    judged_by = references(estimates.tables, estimates.labels.groups, LABELS_MIN)
    return tuple(
        _view(estimates, group, contract, pairs, judged_by[group])
        for group, contract in enumerate(contracts)
        if contract in estimates.labels.rules
    )


def _view(
    estimates: Estimates,
    group: int,
    contract: int,
    pairs: Mapping[int, list[tuple[int, int, int]]],
    labelled: int | None,
) -> EstimateView:
    tables, groups = estimates.tables, estimates.labels.groups
    model, version = groups.names[group]
    counts = estimates.confidence_window(contract, model, version)
    classes = estimates.class_window(contract, model, version)
    given = maybe_given(tables, groups, group, LABELS_MIN)
    reference = None if given is not None else labelled
    edges = tables.edges[contract]
    window = maybe_shape(counts, edges) if len(edges) else None
    cbpe_now = atc_now = None
    disagrees = False
    table = given if reference is None else tables.total[reference]
    curve = None if table is None else curve_of(table)
    reason = _maybe_reason(len(edges) > 0, curve, counts)
    if reason is None and table is not None and curve is not None:
        cbpe_now, atc_now = cbpe(curve, counts), atc(table, counts)
        disagrees = disagree(cbpe_now, atc_now, int(table.sum()), int(counts.sum()))
    entropy = None
    if classes is not None and classes.any():
        entropy = entropy_of(classes).value
    prior = _prior(
        estimates, contract, pairs.get(group if reference is None else reference), classes
    )
    return EstimateView(
        model=model,
        version=version,
        reference=version
        if given is not None
        else (None if reference is None else groups.names[reference][1]),
        is_from_file=given is not None,
        labelled=0 if table is None else int(table.sum()),
        window=window,
        class_entropy_nats=entropy,
        cbpe=cbpe_now,
        atc=atc_now,
        disagrees=disagrees,
        is_contradicted=None if reference is None else _contradicted(estimates, reference),
        reason=reason,
        prior=None if isinstance(prior, NoPrior) else prior,
        no_prior=prior if isinstance(prior, NoPrior) else None,
        calibration=_calibration(estimates, group, contract),
    )


def _maybe_reason(has_confidence: bool, curve: Curve | None, counts: Int64) -> NoEstimate | None:
    """Say why there is no estimate, None when there is one."""
    if not has_confidence:
        return NoEstimate.NO_CONFIDENCE
    if curve is None:
        return NoEstimate.FEW_LABELS
    if not counts.any():
        return NoEstimate.NO_WINDOW
    return NoEstimate.OUTSIDE if curve.outside(counts) > OUTSIDE_MAX else None


def _contradicted(estimates: Estimates, group: int) -> bool | None:
    """Compare recent labels with what the older ones say of their confidence."""
    recent = estimates.tables.recent(group)
    # A label that was changed since may be more often in what is recent than in all.
    older = np.maximum(estimates.tables.total[group] - recent, 0)
    if int(older.sum()) < LABELS_MIN or int(recent.sum()) < LABELS_MIN:
        return None
    right, wrong = recent.sum(axis=0).tolist()
    expected = cbpe(curve_of(older), recent.sum(axis=1))
    distance = abs(expected.value - right / (right + wrong))
    return bool(distance > CONTRADICTED_SD * expected.variance**0.5)


def _prior(
    estimates: Estimates,
    contract: int,
    pairs: list[tuple[int, int, int]] | None,
    window: Int64 | None,
) -> Mapping[str, float] | NoPrior:
    """Estimate the shares of classes."""
    values = estimates.labels.rules[contract].classes.values
    if window is None or not values:
        return NoPrior.NO_CLASSES
    if len(values) >= CLASSES_MAX:
        return NoPrior.TOO_MANY
    confusion = np.zeros((len(values), len(values)), dtype=np.int64)
    for predicted, label, count in pairs or ():
        if predicted >= 0 and label >= 0:
            confusion[predicted, label] += count
    found = class_prior(confusion, window[:-1])
    if isinstance(found, NoPrior):
        return found
    return dict(zip(values, found.shares.tolist(), strict=True))


def _calibration(estimates: Estimates, group: int, contract: int) -> CalibrationView:
    tables = estimates.tables
    wager = tables.wagers[group] if group < len(tables) else Wager()
    has_labels = group < len(tables) and bool(tables.total[group].any())
    edges = tables.edges[contract]
    return CalibrationView(
        evidence=wager.log_evidence,
        bound=LOG_BOUND,
        surplus=wager.mean_surplus,
        error=calibration_error(tables.total[group], edges) if has_labels else None,
        is_alarmed=wager.alarmed_ns > 0,
    )
