"""OTLP as the official protobuf classes know it: its three signals, their items, its JSON.

Law: nothing here uses the gateway's code. OTLP/JSON is read with protobuf's own JSON mapping after
the one change that OTLP makes to it: trace and span ids are written in hex and not in base64.
Source: OTLP specification 1.x, "JSON Protobuf Encoding".
"""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    NumberDataPoint,
    SummaryDataPoint,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

Request: TypeAlias = (
    ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest
)
Response: TypeAlias = (
    ExportTraceServiceResponse | ExportMetricsServiceResponse | ExportLogsServiceResponse
)
DataPoint: TypeAlias = (
    NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint | SummaryDataPoint
)

_HEX_FIELDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalType:
    """How one signal is sent: where to, in which message, and how refused items are told."""

    name: str
    path: str
    method: str
    request: type[Request]
    response: type[Response]
    rejected_field: str


def _signal(
    name: str, service: str, request: type[Request], response: type[Response], rejected_field: str
) -> SignalType:
    return SignalType(
        name=name,
        path=f"/v1/{name}",
        method=f"/opentelemetry.proto.collector.{service}/Export",
        request=request,
        response=response,
        rejected_field=rejected_field,
    )


TRACES: Final = _signal(
    "traces",
    "trace.v1.TraceService",
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
    "rejected_spans",
)
METRICS: Final = _signal(
    "metrics",
    "metrics.v1.MetricsService",
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
    "rejected_data_points",
)
LOGS: Final = _signal(
    "logs",
    "logs.v1.LogsService",
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
    "rejected_log_records",
)
SIGNALS: Final = (TRACES, METRICS, LOGS)


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """Give every span of a request."""
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            yield from scope.spans


def data_points_of(request: ExportMetricsServiceRequest) -> Iterator[DataPoint]:
    """Give every data point of a request, whatever its kind."""
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                if kind is not None:
                    yield from getattr(metric, kind).data_points


def log_records_of(request: ExportLogsServiceRequest) -> Iterator[LogRecord]:
    """Give every log record of a request."""
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            yield from scope.log_records


def item_count(request: Request) -> int:
    """Count spans, data points or log records."""
    if isinstance(request, ExportTraceServiceRequest):
        return sum(1 for _ in spans_of(request))
    if isinstance(request, ExportMetricsServiceRequest):
        return sum(1 for _ in data_points_of(request))
    return sum(1 for _ in log_records_of(request))


def _in_base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_base64(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: base64.b64encode(bytes.fromhex(each)).decode()
        if key in _HEX_FIELDS and isinstance(each, str)
        else _in_base64(each)
        for key, each in value.items()
    }


def parse_request(signal: SignalType, media_type: str, body: bytes) -> Request:
    """Read a body with the official class of its signal.

    Raises: ValueError when it is not what its media type says (also a field that OTLP/JSON does
    not know, because a test that made it has a misspelled name).
    """
    try:
        if media_type == PROTOBUF:
            return signal.request.FromString(body)
        if media_type == JSON:
            return json_format.ParseDict(_in_base64(json.loads(body)), signal.request())
    except (DecodeError, json_format.ParseError) as error:
        raise ValueError(f"{signal.name}: {error}") from error
    raise ValueError(f"media type {media_type!r}")


def encode_response(response: Response, media_type: str) -> bytes:
    """Write an answer in the media type of its request."""
    if media_type == JSON:
        return json_format.MessageToJson(response).encode()
    return response.SerializeToString()
