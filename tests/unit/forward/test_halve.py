"""Halves of a frame hold every item once."""

from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.batch import Frame, Signal
from gateway.forward.halve import SPLIT_BYTES_MIN, maybe_halves
from tests.parcels import Request, items_of, metrics_of, points_of, put
from tests.unit.forward.servers import frame_of, names_of


def decoded(frame: Frame) -> ExportTraceServiceRequest:
    raw = zstandard.ZstdDecompressor().decompress(frame.body)
    assert len(raw) == frame.raw_bytes
    return ExportTraceServiceRequest.FromString(raw)


def homes(request: ExportTraceServiceRequest) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            span.name,
            resource.resource.attributes[0].value.string_value,
            resource.schema_url,
            scope.scope.name,
            scope.schema_url,
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@pytest.mark.parametrize("count", [2, 3, 4, 7, 13])
def test_both_halves_together_are_the_whole(count: int) -> None:
    whole = frame_of([f"n{index}" for index in range(count)], padding=SPLIT_BYTES_MIN)
    halves = maybe_halves(whole)
    assert halves is not None
    first, second = halves
    assert first.items == count // 2
    assert first.items + second.items == count
    assert len(names_of(decoded(first))) == first.items
    assert homes(decoded(first)) + homes(decoded(second)) == homes(decoded(whole))
    for half in halves:
        for resource in decoded(half).resource_spans:
            assert all(len(scope.spans) for scope in resource.scope_spans)


def frame_of_request(request: Request, items: int) -> Frame:
    raw = request.SerializeToString()
    return Frame(
        signal=Signal.LOGS if isinstance(request, ExportLogsServiceRequest) else Signal.METRICS,
        items=items,
        body=zstandard.ZstdCompressor().compress(raw),
        raw_bytes=len(raw),
        first_sequence=1,
        last_sequence=1,
    )


def any_logs(counts: list[int]) -> ExportLogsServiceRequest:
    """Make scopes of so many records each, two scopes to a resource."""
    request = ExportLogsServiceRequest()
    number = 0
    for at, count in enumerate(counts):
        resource = request.resource_logs[-1] if at % 2 else request.resource_logs.add()
        put(resource.resource, f"device-{at}", "x" * SPLIT_BYTES_MIN)
        resource.schema_url = f"resource {at}"
        scope = resource.scope_logs.add(schema_url=f"scope {at}")
        scope.scope.name = f"scope {at}"
        for _ in range(count):
            scope.log_records.add(time_unix_nano=number)
            number += 1
    return request


KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")


def any_metrics(counts: list[int]) -> ExportMetricsServiceRequest:
    """Make metrics of so many points each and of every kind, two metrics to a scope."""
    request = ExportMetricsServiceRequest()
    number = 0
    for at, count in enumerate(counts):
        resource = request.resource_metrics[-1] if at % 2 else request.resource_metrics.add()
        put(resource.resource, f"device-{at}", "x" * SPLIT_BYTES_MIN)
        scope = resource.scope_metrics[-1] if at % 2 else resource.scope_metrics.add()
        scope.schema_url = f"scope {at}"
        metric = scope.metrics.add(name=f"m{at}", unit="ms", description=f"about {at}")
        kind = KINDS[at % len(KINDS)]
        getattr(metric, kind).SetInParent()
        if kind in ("sum", "histogram", "exponential_histogram"):
            getattr(metric, kind).aggregation_temporality = 1 + at % 2
        if kind == "sum":
            metric.sum.is_monotonic = True
        for _ in range(count):
            getattr(metric, kind).data_points.add(time_unix_nano=number)
            number += 1
    return request


def homes_of_items(request: Request) -> list[tuple[Any, ...]]:
    """List every item with all that is around it."""
    if isinstance(request, ExportLogsServiceRequest):
        return [
            (
                record.time_unix_nano,
                resource.resource.SerializeToString(),
                resource.schema_url,
                scope.scope.name,
                scope.schema_url,
            )
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
    return [
        (
            point.time_unix_nano,
            type(point).__name__,
            resource.resource.SerializeToString(),
            scope.schema_url,
            (metric.name, metric.unit, metric.description, metric.WhichOneof("data")),
            metric.sum.is_monotonic,
            metric.histogram.aggregation_temporality,
            metric.exponential_histogram.aggregation_temporality,
            metric.sum.aggregation_temporality,
        )
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in points_of(metric)
    ]


@pytest.mark.parametrize("make", [any_logs, any_metrics])
@pytest.mark.parametrize(
    "counts", [[2], [1, 1], [3, 0, 4], [0, 0, 5, 0], [1, 2, 3, 4, 5], [7, 1, 1], [1, 1, 7], [6] * 6]
)
def test_halves_of_metrics_and_logs_are_the_whole(
    make: Callable[[list[int]], Request], counts: list[int]
) -> None:
    whole, count = make(counts), sum(counts)
    halves = maybe_halves(frame_of_request(whole, count))
    assert halves is not None
    requests = []
    for half, items in zip(halves, (count // 2, count - count // 2), strict=True):
        raw = zstandard.ZstdDecompressor().decompress(half.body)
        assert len(raw) == half.raw_bytes
        request = type(whole).FromString(raw)
        assert half.items == items == items_of(request)
        requests.append(request)
    assert homes_of_items(requests[0]) + homes_of_items(requests[1]) == homes_of_items(whole)


@pytest.mark.parametrize("make", [any_logs, any_metrics])
def test_halves_hold_nothing_empty(make: Callable[[list[int]], Request]) -> None:
    halves = maybe_halves(frame_of_request(make([3, 0, 4, 0, 1]), 8))
    assert halves is not None
    for half in halves:
        request = type(make([])).FromString(zstandard.ZstdDecompressor().decompress(half.body))
        root = request.DESCRIPTOR.fields[0].name
        for resource in getattr(request, root):
            scopes = getattr(resource, resource.DESCRIPTOR.fields[1].name)
            assert len(scopes) > 0
            for scope in scopes:
                assert len(getattr(scope, scope.DESCRIPTOR.fields[1].name)) > 0
        if isinstance(request, ExportMetricsServiceRequest):
            assert all(points_of(metric) for metric in metrics_of(request))


def test_halves_are_halved_down_to_single_items() -> None:
    whole = any_metrics([3, 2, 5, 1])
    waiting, single = [frame_of_request(whole, 11)], []
    while waiting:
        halves = maybe_halves(waiting.pop(0))
        assert halves is not None
        waiting += [each for each in halves if each.items > 1]
        single += [each for each in halves if each.items == 1]
    times = []
    for each in single:
        raw = zstandard.ZstdDecompressor().decompress(each.body)
        (metric,) = metrics_of(ExportMetricsServiceRequest.FromString(raw))
        times += [point.time_unix_nano for point in points_of(metric)]
    assert sorted(times) == list(range(11))


@pytest.mark.parametrize("make", [any_logs, any_metrics])
@pytest.mark.parametrize("said", [2, 4, 9])
def test_frame_that_holds_another_count_is_not_cut(
    make: Callable[[list[int]], Request], said: int
) -> None:
    assert maybe_halves(frame_of_request(make([3]), said)) is None


def test_small_single_foreign_and_damaged_frames_are_not_cut() -> None:
    assert maybe_halves(frame_of(["a", "b"])) is None
    assert maybe_halves(frame_of(["a"], padding=SPLIT_BYTES_MIN)) is None
    large = Span(name="x" * SPLIT_BYTES_MIN).SerializeToString()

    def frame(signal: Signal, body: bytes) -> Frame:
        return Frame(
            signal=signal,
            items=2,
            body=body,
            raw_bytes=len(large),
            first_sequence=1,
            last_sequence=1,
        )

    body = zstandard.ZstdCompressor().compress(large)
    for signal in Signal:
        assert maybe_halves(frame(signal, body)) is None
        assert maybe_halves(frame(signal, b"no zstd")) is None
