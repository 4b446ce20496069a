"""The OTLP messages that collectors send, made with the official classes.

Law: an attribute keeps its type; a value that OTLP has no type for is never turned into text.
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.batch import Signal

Value: TypeAlias = str | bool | int | float
Request: TypeAlias = (
    ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest
)

TRACE_ID_BYTES: Final = 16
SPAN_ID_BYTES: Final = 8
INT_MIN: Final = -(1 << 63)
INT_MAX: Final = (1 << 63) - 1


def key_value(key: str, value: Value) -> KeyValue:
    """Make one attribute. Raises: ValueError for an integer above 64 bits."""
    match value:
        case bool():
            content = AnyValue(bool_value=value)
        case int():
            if not INT_MIN <= value <= INT_MAX:
                raise ValueError("integers have 64 bits")
            content = AnyValue(int_value=value)
        case float():
            content = AnyValue(double_value=value)
        case str():
            content = AnyValue(string_value=value)
    return KeyValue(key=key, value=content)


def resource_of(attributes: Mapping[str, str | None]) -> Resource:
    """Make a resource; what is None or empty is left out."""
    return Resource(
        attributes=[key_value(key, value) for key, value in attributes.items() if value]
    )


def scope_of(name: str) -> InstrumentationScope:
    """Name the module that made a message."""
    return InstrumentationScope(name=name)


def event(name: str, attributes: Mapping[str, Value], *, time_ns: int, now_ns: int) -> LogRecord:
    """Make a log event. Units: Unix nanoseconds; time_ns 0 says that it is not known."""
    return LogRecord(
        event_name=name,
        time_unix_nano=time_ns,
        observed_time_unix_nano=now_ns,
        severity_number=SeverityNumber.SEVERITY_NUMBER_INFO,
        attributes=[key_value(key, value) for key, value in attributes.items()],
    )


def logs_request(
    resource: Resource, scope: str, records: Iterable[LogRecord]
) -> ExportLogsServiceRequest:
    """Put log records of one resource into a request."""
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add(resource=resource)
    logs.scope_logs.add(scope=scope_of(scope), log_records=records)
    return request


def signal_of(request: Request) -> Signal:
    """Tell which signal a request is of."""
    match request:
        case ExportTraceServiceRequest():
            return Signal.TRACES
        case ExportMetricsServiceRequest():
            return Signal.METRICS
        case _:
            return Signal.LOGS


def items_of(request: Request) -> int:
    """Count spans, data points or log records."""
    match request:
        case ExportTraceServiceRequest():
            return sum(
                len(scope.spans) for each in request.resource_spans for scope in each.scope_spans
            )
        case ExportMetricsServiceRequest():
            return sum(
                _points_of(metric)
                for each in request.resource_metrics
                for scope in each.scope_metrics
                for metric in scope.metrics
            )
        case _:
            return sum(
                len(scope.log_records)
                for each in request.resource_logs
                for scope in each.scope_logs
            )


def _points_of(metric: Metric) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind is not None else 0


def maybe_id(text: str, size: int) -> bytes | None:
    """Read an id of so many bytes in hex; None unless it is one that W3C allows."""
    if len(text) != 2 * size or not text.isascii() or not text.isalnum():
        return None
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return None
    return found if any(found) else None
