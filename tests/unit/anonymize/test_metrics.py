"""What leaves of a metric and its points, field by field and kind by kind."""

import math
import struct
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from gateway.contract.plan import Plan
from tests.parcels import (
    NOW_NS,
    add_metric,
    add_point,
    attributes_of,
    leave,
    make_plan,
    metrics,
    metrics_of,
    points_of,
    put,
)

KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
WITH_TEMPORALITY = ("sum", "histogram", "exponential_histogram")
ODD_NAN = struct.unpack("<d", b"canary\xf8\xff")[0]
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(tmp_path_factory.mktemp("plan"))


def left_of(plan: Plan, kind: str, change: Callable[[Metric], None]) -> Metric | None:
    """Clean one metric that a test changes; None when nothing of it leaves."""
    request = metrics()
    metric = add_metric(request, kind)
    change(metric)
    found = metrics_of(leave(plan, request).message)
    return found[0] if found else None


def only_point(plan: Plan, kind: str, **fields: Any) -> Any:
    metric = left_of(plan, kind, lambda metric: add_point(metric, **fields) and None)
    assert metric is not None
    (point,) = points_of(metric)
    return point


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


@pytest.mark.parametrize("kind", KINDS)
def test_identity_and_times_leave_as_they_are(plan: Plan, kind: str) -> None:
    def change(metric: Metric) -> None:
        if kind in WITH_TEMPORALITY:
            getattr(metric, kind).aggregation_temporality = DELTA
        if kind == "sum":
            metric.sum.is_monotonic = True
        point = add_point(metric, start_time_unix_nano=NOW_NS - 5, flags=1)
        put(put(put(point, "class", "torn"), "count", 42), "flag", False)

    request = metrics()
    metric = add_metric(request, kind)
    change(metric)
    out = left_of(plan, kind, change)
    assert out is not None
    (point,) = points_of(out)
    assert attributes_of(point) == {"class": "torn", "count": 42, "flag": False}
    del point.attributes[:]
    (source,) = points_of(metric)
    del source.attributes[:]
    assert out == metric


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_rule_is_absent(plan: Plan, kind: str) -> None:
    def change(metric: Metric) -> None:
        metric.description = "ward 3"
        metric.metadata.add(key="ward").value.string_value = "3"
        point = add_point(metric)
        if hasattr(point, "exemplars"):
            point.exemplars.add(as_double=1.0, trace_id=bytes(range(16)))
        if hasattr(point, "min"):
            point.min, point.max = 0.0, 9.5

    out = left_of(plan, kind, change)
    assert out is not None
    (point,) = points_of(out)
    assert (out.description, len(out.metadata)) == ("", 0)
    assert {field.name for field, _ in point.ListFields()} == {"time_unix_nano"}


@pytest.mark.parametrize("kind", KINDS)
def test_flags_are_masked(plan: Plan, kind: str) -> None:
    for flags in (0, 1, 2, 0xFFFFFFFF):
        assert only_point(plan, kind, flags=flags).flags == flags & 1


@pytest.mark.parametrize("kind", WITH_TEMPORALITY)
@pytest.mark.parametrize(("number", "leaves"), [(0, 1), (1, 1), (2, 1), (3, 0), (-1, 0), (77, 0)])
def test_temporality_that_there_is_not_keeps_the_metric(
    plan: Plan, kind: str, number: int, leaves: int
) -> None:
    request = metrics()
    metric = add_metric(request, kind)
    getattr(metric, kind).aggregation_temporality = number
    add_point(metric)
    left = leave(plan, request)
    assert (left.items, left.withheld) == (leaves, {} if leaves else {"undeclared_metric": 1})
    for out in metrics_of(left.message):
        assert getattr(out, kind).aggregation_temporality == number


@pytest.mark.parametrize("value", [ODD_NAN, -math.nan, -0.0, 0.0, -1.5, math.inf])
def test_numbers_leave_in_one_writing(plan: Plan, value: float) -> None:
    plain = math.nan if math.isnan(value) else value + 0.0
    for kind in ("gauge", "sum"):
        assert bits(only_point(plan, kind, as_double=value).as_double) == bits(plain)
    histogram = only_point(plan, "histogram", sum=value, explicit_bounds=[value])
    assert [bits(each) for each in (histogram.sum, *histogram.explicit_bounds)] == [bits(plain)] * 2
    exponential = only_point(plan, "exponential_histogram", sum=value, zero_threshold=value)
    assert bits(exponential.sum) == bits(exponential.zero_threshold) == bits(plain)
    summary = only_point(plan, "summary", sum=value, quantile_values=[_quantile(0.5, value)])
    assert bits(summary.sum) == bits(summary.quantile_values[0].value) == bits(plain)


def _quantile(quantile: float, value: float) -> dict[str, float]:
    return {"quantile": quantile, "value": value}


def test_integers_leave_as_integers(plan: Plan) -> None:
    for value in (0, -1, 2**63 - 1, -(2**63)):
        point = only_point(plan, "sum", as_int=value)
        assert (point.WhichOneof("value"), point.as_int) == ("as_int", value)


def test_point_without_a_value_leaves_without_one(plan: Plan) -> None:
    point = only_point(plan, "gauge", flags=1)
    assert (point.WhichOneof("value"), point.flags) == (None, 1)


@pytest.mark.parametrize("kind", ["histogram", "exponential_histogram"])
def test_sum_that_is_absent_stays_absent(plan: Plan, kind: str) -> None:
    assert not only_point(plan, kind, count=3).HasField("sum")
    assert only_point(plan, kind, count=3, sum=0.0).HasField("sum")


def test_histograms_leave_without_extremes(plan: Plan) -> None:
    fields = {
        "count": 6,
        "sum": 12.5,
        "bucket_counts": [1, 2, 3],
        "explicit_bounds": [0.5, 2.5],
        "time_unix_nano": NOW_NS,
    }
    point = only_point(plan, "histogram", **fields, min=0.25, max=9.5)
    assert point == type(point)(**fields)


def test_exponential_histograms_leave_without_extremes(plan: Plan) -> None:
    fields = {
        "count": 6,
        "sum": 12.5,
        "scale": -3,
        "zero_count": 1,
        "zero_threshold": 0.5,
        "positive": {"offset": -2, "bucket_counts": [1, 0, 2]},
        "negative": {"offset": 7, "bucket_counts": [2]},
        "time_unix_nano": NOW_NS,
    }
    point = only_point(plan, "exponential_histogram", **fields, min=-0.25, max=9.5)
    assert point == type(point)(**fields)
    del fields["negative"]
    point = only_point(plan, "exponential_histogram", **fields)
    assert point == type(point)(**fields)
    assert not point.HasField("negative")


def test_quantiles_that_are_extremes_stay(plan: Plan) -> None:
    quantiles = (0.0, -0.0, 5e-324, 0.5, 0.99, 1.0, 1.5, -0.5, math.nan, math.inf)
    values = [_quantile(each, 7.0) for each in quantiles]
    point = only_point(plan, "summary", count=9, sum=3.5, quantile_values=values)
    assert [each.quantile for each in point.quantile_values] == [5e-324, 0.5, 0.99]
    assert (point.count, point.sum) == (9, 3.5)


@pytest.mark.parametrize(
    ("name", "unit", "leaves"),
    [
        ("latency", "ms", True),
        ("queue", "", True),
        ("latency", "s", False),
        ("latency", "", False),
        ("Latency", "ms", False),
        ("latency ", "ms", False),
        ("", "", False),
    ],
)
def test_metric_leaves_under_its_declared_name_and_unit(
    plan: Plan, name: str, unit: str, leaves: bool
) -> None:
    request = metrics()
    metric = add_metric(request, name=name, unit=unit)
    add_point(metric, as_int=1)
    add_point(metric, as_int=2)
    left = leave(plan, request)
    assert left.items == (2 if leaves else 0)
    assert left.withheld == ({} if leaves else {"undeclared_metric": 2})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("undeclared", "x"),
        ("note", "declared, and dropped"),
        ("score", "0.5"),  # another type
        ("score", 1.5),  # out of range
        ("score", 1),  # leaves as 1.0, which may be another series
        ("class", "unlisted"),  # leaves as other, which may be another series
        ("class", 1),
        ("label", 0.5),
        ("edgeai.model.name", "damage-net"),  # a match key is not yet a declaration to leave
    ],
)
def test_point_that_would_lose_a_dimension_stays(plan: Plan, key: str, value: Any) -> None:
    request = metrics()
    metric = add_metric(request)
    put(put(add_point(metric), "class", "ok"), key, value)
    put(add_point(metric), "class", "ok")
    left = leave(plan, request)
    assert (left.items, left.withheld) == (1, {"undeclared_dimension": 1})


def test_point_with_a_dimension_twice_stays(plan: Plan) -> None:
    request = metrics()
    put(put(add_point(add_metric(request)), "class", "ok"), "class", "ok")
    left = leave(plan, request)
    assert (left.items, left.withheld) == (0, {"undeclared_dimension": 1})


def test_points_that_differ_leave_as_points_that_differ(plan: Plan) -> None:
    request = metrics()
    metric = add_metric(request)
    for key, values in (
        ("class", ("ok", "torn", "unlisted", "strange")),
        ("score", (0.0, 0, 1.0, 1)),
        ("label", ("7", 7, "07")),
        ("flag", (True, False)),
        ("count", (0, 1)),
    ):
        for value in values:
            put(add_point(metric), key, value)
    (out,) = metrics_of(leave(plan, request).message)
    series = [repr(attributes_of(point)) for point in points_of(out)]
    assert len(series) == len(set(series)) == 11


def test_metric_without_data_is_no_item(plan: Plan) -> None:
    request = metrics()
    request.resource_metrics[0].scope_metrics[0].metrics.add(name="latency", unit="ms")
    left = leave(plan, request)
    assert (left.chunks, left.withheld) == ([], {})
