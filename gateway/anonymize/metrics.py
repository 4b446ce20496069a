"""What leaves of one metric: its declared name and unit, and points whose dimensions all leave.

Law: the identity of a series is kept or the point stays: dropping a dimension would merge series,
and so would a value that becomes `other`.
Descriptions, metadata, exemplars, minima and maxima have no rule and do not leave: an exemplar
carries what was dropped, and an extreme is one person's value.
Source: OpenTelemetry metrics data model, "Timeseries model".
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)

from gateway.anonymize.declared import Declarations, select

# Whether the point has no recorded value; the other bits could carry anything.
FLAGS_KNOWN: Final = 1
TEMPORALITIES: Final = frozenset(AggregationTemporality.values())


def points_of(metric: Metric) -> Any:
    """Return the points of a metric, none when it has no data."""
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind is not None else ()


def maybe_metric(metric: Metric, declared: Declarations) -> Metric | None:
    """Make the metric without its points.

    None when its name or unit is not declared, or its temporality is none that there is.
    """
    rule = declared.metrics.get(metric.name)
    kind = metric.WhichOneof("data")
    if rule is None or metric.unit != rule.unit or kind is None:
        return None
    made = Metric(name=metric.name, unit=rule.unit)
    data = getattr(made, kind)
    data.SetInParent()
    if kind in ("sum", "histogram", "exponential_histogram"):
        temporality = getattr(metric, kind).aggregation_temporality
        if temporality not in TEMPORALITIES:
            return None
        data.aggregation_temporality = temporality
    if kind == "sum":
        data.is_monotonic = metric.sum.is_monotonic
    return made


def maybe_point(
    metric: Metric, point: Any, attributes: Mapping[str, AnyValue], declared: Declarations
) -> Any:
    """Make the point that leaves; None when it would lose a dimension or a value of one."""
    pairs = list(select(declared.attributes, attributes))
    if len(pairs) != len(point.attributes):
        return None
    if not all(declared.attributes[each.key].is_told_apart(attributes[each.key]) for each in pairs):
        return None
    made: Any = _MAKERS[str(metric.WhichOneof("data"))](point)
    made.attributes.extend(pairs)
    made.start_time_unix_nano = point.start_time_unix_nano
    made.time_unix_nano = point.time_unix_nano
    made.flags = point.flags & FLAGS_KNOWN
    return made


def _plain(value: float) -> float:
    """Write one NaN for all and no negative zero: their bits could carry a message."""
    return math.nan if math.isnan(value) else value + 0.0


def _number(point: NumberDataPoint) -> NumberDataPoint:
    kind = point.WhichOneof("value")
    if kind == "as_int":
        return NumberDataPoint(as_int=point.as_int)
    if kind == "as_double":
        return NumberDataPoint(as_double=_plain(point.as_double))
    return NumberDataPoint()


def _histogram(point: HistogramDataPoint) -> HistogramDataPoint:
    made = HistogramDataPoint(
        count=point.count,
        bucket_counts=point.bucket_counts,
        explicit_bounds=[_plain(bound) for bound in point.explicit_bounds],
    )
    if point.HasField("sum"):
        made.sum = _plain(point.sum)
    return made


def _exponential(point: ExponentialHistogramDataPoint) -> ExponentialHistogramDataPoint:
    made = ExponentialHistogramDataPoint(
        count=point.count,
        scale=point.scale,
        zero_count=point.zero_count,
        zero_threshold=_plain(point.zero_threshold),
    )
    if point.HasField("sum"):
        made.sum = _plain(point.sum)
    for side in ("positive", "negative"):
        if point.HasField(side):
            buckets, source = getattr(made, side), getattr(point, side)
            buckets.offset = source.offset
            buckets.bucket_counts.extend(source.bucket_counts)
    return made


def _summary(point: SummaryDataPoint) -> SummaryDataPoint:
    made = SummaryDataPoint(count=point.count, sum=_plain(point.sum))
    for each in point.quantile_values:
        if 0.0 < each.quantile < 1.0:  # 0 and 1 are the minimum and the maximum
            made.quantile_values.add(quantile=each.quantile, value=_plain(each.value))
    return made


_MAKERS: Final[Mapping[str, Any]] = {
    "gauge": _number,
    "sum": _number,
    "histogram": _histogram,
    "exponential_histogram": _exponential,
    "summary": _summary,
}
