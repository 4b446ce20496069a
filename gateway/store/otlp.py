"""Rebuild OTLP messages from stored rows.

Law: what comes out equals what the site policy let in: the fixed fields from their columns, all
else from the encoded `fields`. Protobuf messages concatenate, so a Span is the one plus the other.
This is a reading path for single traces; it uses the official classes.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, TracesData

from gateway.errors import CorruptDataError
from gateway.store.query import TraceRows

_UINT64_MASK = (1 << 64) - 1


def _span(row: dict[str, Any]) -> Span:
    start: int = row["start_ns"]
    span = Span(
        trace_id=row["trace_id"],
        span_id=row["span_id"],
        parent_span_id=row["parent_span_id"] or b"",
        start_time_unix_nano=start,
        end_time_unix_nano=start + row["duration_ns"] & _UINT64_MASK,
        name=row["name"] or "",
        flags=row["flags"],
    )
    if row["kind"]:
        span.kind = row["kind"]
    if row["status"] or row["status_message"]:
        span.status.code = row["status"]
        span.status.message = row["status_message"] or ""
    span.MergeFromString(row["fields"] or b"")
    return span


def to_otlp(traces: Sequence[TraceRows]) -> bytes:
    """Encode traces as TracesData, which is also the body of an ExportTraceServiceRequest.

    Raises: CorruptDataError when stored bytes are not protobuf.
    """
    data = TracesData()
    groups: dict[tuple[bytes, bytes], ScopeSpans] = {}
    resources: dict[bytes, Any] = {}
    try:
        for trace in traces:
            for row in trace.table.to_pylist():
                resource, scope = row["resource"] or b"", row["scope"] or b""
                if resource not in resources:
                    resources[resource] = data.resource_spans.add()
                    resources[resource].resource.ParseFromString(resource)
                if (resource, scope) not in groups:
                    group = resources[resource].scope_spans.add()
                    group.scope.ParseFromString(scope)
                    groups[resource, scope] = group
                groups[resource, scope].spans.append(_span(row))
    except DecodeError as error:
        raise CorruptDataError(f"stored span bytes are damaged: {error}") from error
    return data.SerializeToString()
