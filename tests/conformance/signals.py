"""The three signals, and items of them that are good or have one fault.

Law: an item is the same in protobuf, made by the official classes, and in JSON, written by the OTLP
mapping. Every text that a peer sends holds the mark, so that an answer that repeats one is found.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, Gauge, Metric, NumberDataPoint
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conformance.wire import field
from tests.process import Json

MARK: Final = "mark-7f3a9c"
BASE_NS: Final = 1_800_000_000_000_000_000
SECOND_NS: Final = 1_000_000_000

# A text that the official classes take, put in place of one that they do not.
HOLE: Final = f"{MARK} hole"
NOT_UTF8: Final = f"{MARK} ".encode() + b"\xff\xfe\xc0\x80"


class Via(Enum):
    """Transport and encoding, by the letter of the table."""

    GRPC = "g"
    PROTOBUF = "p"
    JSON = "j"


class Fault(Enum):
    """What is wrong with one item; the value of an id is what stands in its place."""

    TRACE_ID_SHORT = ("trace_id", bytes(range(1, 16)))
    TRACE_ID_LONG = ("trace_id", bytes(range(1, 18)))
    TRACE_ID_ZERO = ("trace_id", bytes(16))
    TRACE_ID_ABSENT = ("trace_id", b"")
    SPAN_ID_SHORT = ("span_id", bytes(range(1, 8)))
    SPAN_ID_LONG = ("span_id", bytes(range(1, 10)))
    SPAN_ID_ZERO = ("span_id", bytes(8))
    SPAN_ID_ABSENT = ("span_id", b"")
    NAME = ("name", b"")
    BODY = ("body", b"")
    ATTRIBUTE = ("attribute", b"")
    KEY = ("key", b"")


_JSON_IDS: Final = {"trace_id": "traceId", "span_id": "spanId"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One signal: where it is sent and what its messages are called.

    `lists` are the JSON keys of resource entries, scope entries and items; `rejected` is the field
    of the count in a partial success, in protobuf and in JSON.
    """

    name: str
    letter: str
    path: str
    service: str
    request: type[Message]
    response: type[Message]
    lists: tuple[str, str, str]
    rejected: tuple[str, str]

    @property
    def rpc(self) -> str:
        """Return the full name of the export method."""
        return f"/{self.service}/Export"


_COLLECTOR: Final = "opentelemetry.proto.collector"
TRACES: Final = Signal(
    name="traces",
    letter="T",
    path="/v1/traces",
    service=f"{_COLLECTOR}.trace.v1.TraceService",
    request=trace_service_pb2.ExportTraceServiceRequest,
    response=trace_service_pb2.ExportTraceServiceResponse,
    lists=("resourceSpans", "scopeSpans", "spans"),
    rejected=("rejected_spans", "rejectedSpans"),
)
METRICS: Final = Signal(
    name="metrics",
    letter="M",
    path="/v1/metrics",
    service=f"{_COLLECTOR}.metrics.v1.MetricsService",
    request=metrics_service_pb2.ExportMetricsServiceRequest,
    response=metrics_service_pb2.ExportMetricsServiceResponse,
    lists=("resourceMetrics", "scopeMetrics", "metrics"),
    rejected=("rejected_data_points", "rejectedDataPoints"),
)
LOGS: Final = Signal(
    name="logs",
    letter="L",
    path="/v1/logs",
    service=f"{_COLLECTOR}.logs.v1.LogsService",
    request=logs_service_pb2.ExportLogsServiceRequest,
    response=logs_service_pb2.ExportLogsServiceResponse,
    lists=("resourceLogs", "scopeLogs", "logRecords"),
    rejected=("rejected_log_records", "rejectedLogRecords"),
)
SIGNALS: Final = (TRACES, METRICS, LOGS)


# --- one item --------------------------------------------------------------------------------


def trace_id_of(number: int) -> bytes:
    """Make a trace id with hex digits that have letters."""
    return (0xABCDEF << 104 | number + 1).to_bytes(16, "big")


def span_id_of(number: int) -> bytes:
    """Make a span id with hex digits that have letters."""
    return (0xFEDCBA << 40 | number + 1).to_bytes(8, "big")


def text_attribute(key: str, text: str) -> KeyValue:
    """Make an attribute that holds a text."""
    return KeyValue(key=key, value=AnyValue(string_value=text))


def message(signal: Signal, number: int) -> Any:
    """Make a good item: a span, a gauge of one point with an exemplar, or a log record."""
    trace_id, span_id = trace_id_of(number), span_id_of(number)
    now_ns = BASE_NS + number * SECOND_NS
    attributes = [text_attribute(f"{MARK}.key", f"{MARK} value {number}")]
    if signal is TRACES:
        return Span(
            name=f"{MARK} {number}",
            kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=now_ns,
            end_time_unix_nano=now_ns + SECOND_NS,
            attributes=attributes,
            trace_id=trace_id,
            span_id=span_id,
        )
    if signal is METRICS:
        exemplar = Exemplar(
            time_unix_nano=now_ns, as_double=0.5, trace_id=trace_id, span_id=span_id
        )
        point = NumberDataPoint(
            time_unix_nano=now_ns, as_double=0.5, attributes=attributes, exemplars=[exemplar]
        )
        return Metric(name=f"{MARK}.{number}", gauge=Gauge(data_points=[point]))
    return LogRecord(
        time_unix_nano=now_ns,
        severity_number=SEVERITY_NUMBER_INFO,
        severity_text=MARK,
        body=AnyValue(string_value=f"{MARK} body {number}"),
        attributes=attributes,
        trace_id=trace_id,
        span_id=span_id,
    )


def holder(signal: Signal, item: Any) -> Any:
    """Return the part of an item that has its time and attributes: for a metric, its point."""
    return item.gauge.data_points[0] if signal is METRICS else item


def id_holder(signal: Signal, item: Any) -> Any:
    """Return the part of an item that names a span: for a metric, its exemplar."""
    return holder(signal, item).exemplars[0] if signal is METRICS else item


def protobuf_item(signal: Signal, number: int, fault: Fault | None = None) -> bytes:
    """Encode one item."""
    item = message(signal, number)
    if fault is not None:
        kind, value = fault.value
        match kind:
            case "trace_id" | "span_id":
                setattr(id_holder(signal, item), kind, value)
            case "name":
                item.name = HOLE
            case "body":
                item.body.string_value = HOLE
            case "attribute":
                holder(signal, item).attributes[0].value.string_value = HOLE
            case "key":
                holder(signal, item).attributes[0].key = HOLE
    encoded: bytes = item.SerializeToString()
    return encoded.replace(HOLE.encode(), NOT_UTF8)


def json_item(signal: Signal, number: int, fault: Fault | None = None) -> dict[str, Json]:
    """Write one item by the JSON mapping of OTLP."""
    ids = {"traceId": trace_id_of(number).hex(), "spanId": span_id_of(number).hex()}
    now_ns = BASE_NS + number * SECOND_NS
    text = {"stringValue": f"{MARK} value {number}"}
    attributes = [{"key": f"{MARK}.key", "value": text}]
    if fault is not None:
        kind, value = fault.value
        ids[_JSON_IDS[kind]] = value.hex()
        ids = {key: digits for key, digits in ids.items() if digits}
    if signal is TRACES:
        return {
            **ids,
            "name": f"{MARK} {number}",
            "kind": 2,
            "startTimeUnixNano": str(now_ns),
            "endTimeUnixNano": str(now_ns + SECOND_NS),
            "attributes": attributes,
        }
    if signal is METRICS:
        exemplar = {**ids, "timeUnixNano": str(now_ns), "asDouble": 0.5}
        point = {"timeUnixNano": str(now_ns), "asDouble": 0.5, "attributes": attributes}
        points = [{**point, "exemplars": [exemplar]}]
        return {"name": f"{MARK}.{number}", "gauge": {"dataPoints": points}}
    return {
        **ids,
        "timeUnixNano": str(now_ns),
        "severityNumber": 9,
        "severityText": MARK,
        "body": {"stringValue": f"{MARK} body {number}"},
        "attributes": attributes,
    }


def json_holder(signal: Signal, item: dict[str, Json]) -> dict[str, Json]:
    """Return the part of an item that has its time and attributes."""
    if signal is METRICS:
        point: dict[str, Json] = item["gauge"]["dataPoints"][0]
        return point
    return item


def json_id_holder(signal: Signal, item: dict[str, Json]) -> dict[str, Json]:
    """Return the part of an item that names a span."""
    if signal is METRICS:
        exemplar: dict[str, Json] = json_holder(signal, item)["exemplars"][0]
        return exemplar
    return item


# --- requests --------------------------------------------------------------------------------

RESOURCE: Final = Resource(attributes=[text_attribute("service.name", MARK)]).SerializeToString()
JSON_RESOURCE: Final[Mapping[str, Json]] = {
    "attributes": [{"key": "service.name", "value": {"stringValue": MARK}}]
}


def scope_entry(items: Sequence[bytes]) -> bytes:
    """Encode ScopeSpans or its sibling; all three use the same numbers."""
    return field(1, field(1, MARK.encode())) + b"".join(field(2, item) for item in items)


def resource_entry(scopes: Sequence[bytes]) -> bytes:
    """Encode ResourceSpans or its sibling."""
    return field(1, RESOURCE) + b"".join(field(2, scope) for scope in scopes)


def request_of(*resources: bytes) -> bytes:
    """Encode an export request."""
    return b"".join(field(1, resource) for resource in resources)


def json_scope(signal: Signal, items: Sequence[Json]) -> dict[str, Json]:
    """Write ScopeSpans or its sibling."""
    return {"scope": {"name": MARK}, signal.lists[2]: list(items)}


def json_request(signal: Signal, resources: Sequence[Sequence[Json]]) -> dict[str, Json]:
    """Write an export request of scopes by resource."""
    return {
        signal.lists[0]: [
            {"resource": dict(JSON_RESOURCE), signal.lists[1]: list(scopes)} for scopes in resources
        ]
    }


def json_bytes(document: Json) -> bytes:
    """Encode a document, with its characters as they are."""
    return json.dumps(document, ensure_ascii=False).encode()


Faults = Mapping[int, Fault]


def body_of(signal: Signal, via: Via, count: int = 1, faults: Faults | None = None) -> bytes:
    """Encode a request with so many items in one scope; faults are by position."""
    return grouped_body(signal, via, [[count]], faults)


def grouped_body(
    signal: Signal, via: Via, counts: Sequence[Sequence[int]], faults: Faults | None = None
) -> bytes:
    """Encode a request whose scopes, by resource, hold so many items."""
    wrong = faults or {}
    first = 0
    encoded, documents = [], []
    for scopes in counts:
        entries, written = [], []
        for count in scopes:
            numbers = range(first, first + count)
            first += count
            if via is Via.JSON:
                items = [json_item(signal, number, wrong.get(number)) for number in numbers]
                written.append(json_scope(signal, items))
            else:
                entries.append(
                    scope_entry([protobuf_item(signal, n, wrong.get(n)) for n in numbers])
                )
        encoded.append(resource_entry(entries))
        documents.append(written)
    if via is Via.JSON:
        return json_bytes(json_request(signal, documents))
    return request_of(*encoded)
