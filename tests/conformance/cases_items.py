"""Requests of the sections "Success" and "Refused items"."""

from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.proto.metrics.v1 import metrics_pb2

from tests.conformance.request import Make, Request
from tests.conformance.signals import (
    BASE_NS,
    HOLE,
    JSON_RESOURCE,
    MARK,
    NOT_UTF8,
    SECOND_NS,
    Fault,
    Faults,
    Signal,
    Via,
    body_of,
    grouped_body,
    holder,
    id_holder,
    json_bytes,
    json_holder,
    json_id_holder,
    json_item,
    json_request,
    json_scope,
    message,
    protobuf_item,
    request_of,
    resource_entry,
    scope_entry,
)
from tests.process import Json

FAR_NS: Final = 10 * 365 * 86_400 * SECOND_NS
TEXTS: Final = f"{MARK} a é 電 𝄞"


def good(count: int, faults: Faults | None = None) -> Make:
    """Make a case of so many items of one scope, some of them with a fault."""

    def make(signal: Signal, via: Via) -> Request:
        return Request(body=body_of(signal, via, count, faults))

    return make


def grouped(counts: Sequence[Sequence[int]], faults: Faults | None = None) -> Make:
    """Make a case of several scopes, by resource."""

    def make(signal: Signal, via: Via) -> Request:
        return Request(body=grouped_body(signal, via, counts, faults))

    return make


def written(signal: Signal, via: Via, items: Sequence[bytes], documents: Sequence[Json]) -> Request:
    """Send given items, in protobuf or in JSON."""
    if via is Via.JSON:
        return Request(body=json_bytes(json_request(signal, [[json_scope(signal, documents)]])))
    return Request(body=request_of(resource_entry([scope_entry(items)])))


def _unicode(signal: Signal, via: Via) -> Request:
    item, document = message(signal, 0), json_item(signal, 0)
    attribute = holder(signal, item).attributes[0]
    attribute.key = attribute.value.string_value = TEXTS
    json_holder(signal, document)["attributes"] = [{"key": TEXTS, "value": {"stringValue": TEXTS}}]
    return written(signal, via, [item.SerializeToString()], [document])


def _empty(signal: Signal, via: Via) -> Request:
    return Request(body=b"{}" if via is Via.JSON else b"")


def _empty_list(signal: Signal, via: Via) -> Request:
    return Request(body=json_bytes({signal.lists[0]: []}))


def _without_scopes(signal: Signal, via: Via) -> Request:
    if via is Via.JSON:
        return Request(body=json_bytes({signal.lists[0]: [{"resource": dict(JSON_RESOURCE)}]}))
    return Request(body=request_of(resource_entry([])))


def _empty_envelope(signal: Signal, via: Via) -> Request:
    if via is Via.JSON:
        return Request(body=json_bytes({signal.lists[0]: [{}]}))
    return Request(body=request_of(b""))


def _empty_beside(signal: Signal, via: Via) -> Request:
    if via is Via.JSON:
        items = json_scope(signal, [json_item(signal, 0), json_item(signal, 1)])
        empty = json_scope(signal, [])
        return Request(body=json_bytes(json_request(signal, [[], [empty, items, empty], []])))
    filled = scope_entry([protobuf_item(signal, 0), protobuf_item(signal, 1)])
    around = resource_entry([])
    resource = resource_entry([scope_entry([]), filled, scope_entry([])])
    return Request(body=request_of(around, resource, around))


# --- metrics ---------------------------------------------------------------------------------


def _without_data(signal: Signal, via: Via) -> Request:
    metric = metrics_pb2.Metric(name=MARK)
    return written(signal, via, [metric.SerializeToString()], [{"name": MARK}])


def _without_points(signal: Signal, via: Via) -> Request:
    metric = metrics_pb2.Metric(name=MARK, gauge=metrics_pb2.Gauge())
    return written(signal, via, [metric.SerializeToString()], [{"name": MARK, "gauge": {}}])


def _gauge(count: int, name: str = MARK) -> bytes:
    points = [
        metrics_pb2.NumberDataPoint(time_unix_nano=BASE_NS + number, as_int=number)
        for number in range(count)
    ]
    gauge = metrics_pb2.Gauge(data_points=points)
    encoded: bytes = metrics_pb2.Metric(name=name, gauge=gauge).SerializeToString()
    return encoded.replace(HOLE.encode(), NOT_UTF8)


def _many_points(signal: Signal, via: Via) -> Request:
    points = [{"timeUnixNano": str(BASE_NS + each), "asInt": str(each)} for each in range(7)]
    return written(signal, via, [_gauge(7)], [{"name": MARK, "gauge": {"dataPoints": points}}])


def _bad_name_of_many(signal: Signal, via: Via) -> Request:
    return written(signal, via, [_gauge(2), _gauge(3, HOLE)], [])


def _all_kinds(signal: Signal, via: Via) -> Request:
    """Send one point of each kind of metric; delta is 1, cumulative 2."""
    time = {"timeUnixNano": str(BASE_NS), "startTimeUnixNano": str(BASE_NS - SECOND_NS)}
    counts = {**time, "count": "3", "sum": 4.5}
    buckets = {"bucketCounts": ["1", "2"], "explicitBounds": [1.0]}
    powers = {"scale": 1, "zeroCount": "1", "positive": {"offset": 0, "bucketCounts": ["2"]}}
    quantiles = {"quantileValues": [{"quantile": 0.5, "value": 1.5}]}
    documents: list[Json] = [
        {"name": f"{MARK}.gauge", "gauge": {"dataPoints": [{**time, "asDouble": 1.5}]}},
        {
            "name": f"{MARK}.sum",
            "sum": {
                "aggregationTemporality": 2,
                "isMonotonic": True,
                "dataPoints": [{**time, "asInt": "3"}],
            },
        },
        {
            "name": f"{MARK}.histogram",
            "histogram": {"aggregationTemporality": 1, "dataPoints": [{**counts, **buckets}]},
        },
        {
            "name": f"{MARK}.exponential",
            "exponentialHistogram": {
                "aggregationTemporality": 2,
                "dataPoints": [{**counts, **powers}],
            },
        },
        {"name": f"{MARK}.summary", "summary": {"dataPoints": [{**counts, **quantiles}]}},
    ]
    start_ns, end_ns = BASE_NS - SECOND_NS, BASE_NS
    common = {"start_time_unix_nano": start_ns, "time_unix_nano": end_ns, "count": 3, "sum": 4.5}
    whole = metrics_pb2.ScopeMetrics()
    gauge = whole.metrics.add(name=f"{MARK}.gauge").gauge
    gauge.data_points.add(time_unix_nano=end_ns, as_double=1.5)
    total = whole.metrics.add(name=f"{MARK}.sum").sum
    total.aggregation_temporality = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
    total.data_points.add(time_unix_nano=end_ns, as_int=3)
    histogram = whole.metrics.add(name=f"{MARK}.histogram").histogram
    histogram.aggregation_temporality = metrics_pb2.AGGREGATION_TEMPORALITY_DELTA
    histogram.data_points.add(bucket_counts=[1, 2], explicit_bounds=[1.0], **common)
    exponential = whole.metrics.add(name=f"{MARK}.exponential").exponential_histogram
    exponential.aggregation_temporality = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
    point = exponential.data_points.add(scale=1, zero_count=1, **common)
    point.positive.bucket_counts.append(2)
    summary = whole.metrics.add(name=f"{MARK}.summary").summary
    summary.data_points.add(**common).quantile_values.add(quantile=0.5, value=1.5)
    return written(signal, via, [each.SerializeToString() for each in whole.metrics], documents)


# --- odd, but to be taken ----------------------------------------------------------------------


def _without_ids(signal: Signal, via: Via) -> Request:
    item, document = message(signal, 0), json_item(signal, 0)
    for name in ("trace_id", "span_id"):
        id_holder(signal, item).ClearField(name)
    for key in ("traceId", "spanId"):
        del json_id_holder(signal, document)[key]
    items = [item.SerializeToString(), protobuf_item(signal, 1)]
    return written(signal, via, items, [document, json_item(signal, 1)])


def _odd_times(signal: Signal, via: Via) -> Request:
    times = [(BASE_NS, BASE_NS - SECOND_NS), (BASE_NS + FAR_NS, BASE_NS + FAR_NS + 1)]
    items, documents = [], []
    for number, (start_ns, end_ns) in enumerate(times):
        item = message(signal, number)
        item.start_time_unix_nano, item.end_time_unix_nano = start_ns, end_ns
        items.append(item.SerializeToString())
        written_times = {"startTimeUnixNano": str(start_ns), "endTimeUnixNano": str(end_ns)}
        documents.append({**json_item(signal, number), **written_times})
    return written(signal, via, items, documents)


def _nameless(signal: Signal, via: Via) -> Request:
    item, document = message(signal, 0), json_item(signal, 0)
    item.ClearField("name")
    del document["name"]
    return written(signal, via, [item.SerializeToString()], [document])


_TRACE_ID: Final = Fault.TRACE_ID_SHORT
_SPAN_ID: Final = Fault.SPAN_ID_SHORT
_TEXT: Final = Fault.ATTRIBUTE

CASES: Final[Mapping[str, Make]] = {
    "one-item": good(1),
    "many-items": good(50),
    "several-envelopes": grouped([[2, 2], [2, 2]]),
    "unicode-text": _unicode,
    "empty-request": _empty,
    "empty-list": _empty_list,
    "resource-without-scopes": _without_scopes,
    "scope-without-items": grouped([[0]]),
    "empty-envelopes-beside": _empty_beside,
    "empty-envelope": _empty_envelope,
    "metric-without-data": _without_data,
    "metric-without-points": _without_points,
    "metric-many-points": _many_points,
    "metric-all-kinds": _all_kinds,
    "bad-only": good(1, {0: _TRACE_ID}),
    "bad-first": good(5, {0: _TRACE_ID}),
    "bad-middle": good(5, {2: _TRACE_ID}),
    "bad-last": good(5, {4: _TRACE_ID}),
    "bad-several": good(7, dict.fromkeys((1, 3, 4), _TRACE_ID)),
    "bad-all": good(4, dict.fromkeys(range(4), _TRACE_ID)),
    "bad-many": good(200, dict.fromkeys(range(0, 200, 3), _TRACE_ID)),
    "bad-across-envelopes": grouped([[2, 2], [2, 2]], dict.fromkeys((2, 7), _TRACE_ID)),
    "first-reason-span-id": good(4, {1: _SPAN_ID, 2: _TRACE_ID}),
    "first-reason-trace-id": good(4, {1: _TRACE_ID, 2: _SPAN_ID}),
    "first-reason-text": good(4, {1: _TEXT, 2: _TRACE_ID}),
    "first-reason-not-text": good(4, {1: _TRACE_ID, 2: _TEXT}),
    "trace-id-long": good(2, {1: Fault.TRACE_ID_LONG}),
    "trace-id-zero": good(2, {1: Fault.TRACE_ID_ZERO}),
    "trace-id-absent": good(2, {1: Fault.TRACE_ID_ABSENT}),
    "span-id-short": good(2, {1: _SPAN_ID}),
    "span-id-long": good(2, {1: Fault.SPAN_ID_LONG}),
    "span-id-zero": good(2, {1: Fault.SPAN_ID_ZERO}),
    "span-id-absent": good(2, {1: Fault.SPAN_ID_ABSENT}),
    "trace-id-absent-is-fine": _without_ids,
    "name-not-utf8": good(3, {1: Fault.NAME}),
    "body-not-utf8": good(3, {1: Fault.BODY}),
    "attribute-not-utf8": good(3, {1: Fault.ATTRIBUTE}),
    "attribute-key-not-utf8": good(3, {1: Fault.KEY}),
    "metric-name-not-utf8": _bad_name_of_many,
    "times-odd": _odd_times,
    "name-absent": _nameless,
}
