"""What is shown of labels: plain copies, None where there is no value."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.measure.labels.accuracy import DAY_HOURS, MONTH_HOURS, Estimate, maybe_estimate
from gateway.measure.labels.labels import Labels
from gateway.measure.labels.predictions import RANGE
from gateway.measure.labels.rules import LAG_EDGES_S
from gateway.measure.series import OTHER
from gateway.measure.settings import SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class PairView:
    """How often one class was predicted where another one, or the same, was true."""

    predicted: str
    label: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyView:
    """How often one version was right, among the traces that are sampled for it.

    The windows are by inference time: labels that have not come yet are missing at their end.
    """

    model: str
    version: str
    right: int
    wrong: int
    all_time: Estimate | None
    day: Estimate | None  # the current hour and 23 before it
    month: Estimate | None  # the current hour and 719 before it
    pairs: tuple[PairView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelLagView:
    """How late labels of one model are.

    Shape: counts has one place more than edges_s, for longer lags. Units: expect is the share of
    traces that owe a label; good and bad are those among them whose time within_s is over.
    """

    model: str
    within_s: float
    expect: float
    edges_s: tuple[float, ...]
    counts: tuple[int, ...]
    good: int
    bad: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsView:
    """Units: probability is the share of traces whose predictions are kept now.

    Of the inferences that were offered, those were not kept that are repeated (of a known trace),
    sampled_out, too_old or crowded.
    """

    accuracy: tuple[AccuracyView, ...]
    lags: tuple[LabelLagView, ...]
    fates: tuple[tuple[str, int], ...]
    waiting: int
    rows: int
    rows_max: int
    probability: float
    offered: int
    repeated: int
    sampled_out: int
    too_old: int
    crowded: int


def labels_view(labels: Labels) -> LabelsView:
    """Copy what is shown."""
    table = labels.predictions
    pairs: dict[int, list[tuple[int, int, int]]] = {}
    for (group, predicted, label), count in labels.accuracy.pairs.items():
        if count:
            pairs.setdefault(group, []).append((predicted, label, count))
    return LabelsView(
        accuracy=tuple(
            _accuracy_view(labels, group, pairs.get(group, []))
            for group in range(len(labels.groups))
        ),
        lags=tuple(
            LabelLagView(
                model=rule.model,
                within_s=rule.within_ns / SECOND_NS,
                expect=(RANGE - rule.expected) / RANGE,
                edges_s=tuple(float(edge) for edge in LAG_EDGES_S),
                counts=tuple(labels.lags[rule.model].lags),
                good=labels.lags[rule.model].good,
                bad=labels.lags[rule.model].bad,
            )
            for rule in labels.rules.values()
        ),
        fates=tuple((fate.value, count) for fate, count in labels.fates.items()),
        waiting=len(labels.waiting),
        rows=table.count,
        rows_max=table.rows_max,
        probability=table.probability,
        offered=labels.offered,
        repeated=table.repeated,
        sampled_out=labels.sampled_out + table.thinned,
        too_old=labels.too_old,
        crowded=table.crowded,
    )


def _accuracy_view(
    labels: Labels, group: int, counted: Sequence[tuple[int, int, int]]
) -> AccuracyView:
    rule = labels.rules.get(int(labels.groups.contract[group]))
    model, version = labels.groups.names[group]
    counts = labels.accuracy
    right, wrong = counts.counts[group].tolist()

    def text(code: int) -> str:
        return OTHER if rule is None else rule.classes.maybe_text(code) or OTHER

    pairs = sorted((text(predicted), text(label), count) for predicted, label, count in counted)
    return AccuracyView(
        model=model,
        version=version,
        right=right,
        wrong=wrong,
        all_time=maybe_estimate(right, wrong),
        day=maybe_estimate(*counts.window(group, DAY_HOURS)),
        month=maybe_estimate(*counts.window(group, MONTH_HOURS)),
        pairs=tuple(PairView(predicted=a, label=b, count=count) for a, b, count in pairs),
    )
