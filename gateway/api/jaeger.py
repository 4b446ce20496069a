"""Traces in the shape of Jaeger's HTTP API, which Grafana's Jaeger data source reads.

Law: times are integers in microseconds, ids are hex, a tag's type is one of string, bool, int64 and
float64. Shapes only; nothing is read here.
Source: Jaeger HTTP API; OpenTelemetry, "OpenTelemetry to Jaeger Transformation".
"""

import base64
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from gateway.api.traces import service_name, spans_of
from gateway.batch import Json

KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
NO_SERVICE: Final = "unknown_service"

_ERROR: Final = 2


def kind_name(kind: int) -> str:
    """Name a span kind as Jaeger does."""
    return KINDS[kind] if 0 <= kind < len(KINDS) else KINDS[0]


def envelope(data: Json) -> dict[str, Json]:
    """Wrap an answer."""
    total = len(data) if isinstance(data, list) else 0
    return {"data": data, "total": total, "limit": 0, "offset": 0, "errors": None}


def not_found() -> dict[str, Json]:
    """Answer for a trace that nobody knows; goes with status 404."""
    return {**envelope(None), "errors": [{"code": 404, "msg": "trace not found"}]}


def _tag(key: str, value: Any) -> dict[str, Json]:
    if isinstance(value, bool):
        return {"key": key, "type": "bool", "value": value}
    if isinstance(value, int):
        return {"key": key, "type": "int64", "value": value}
    if isinstance(value, float) and math.isfinite(value):
        return {"key": key, "type": "float64", "value": value}
    return {"key": key, "type": "string", "value": str(value)}


def _attribute_tag(attribute: Any) -> dict[str, Json]:
    kind = attribute.value.WhichOneof("value")
    if kind is None:
        return _tag(attribute.key, "")
    value = getattr(attribute.value, kind)
    if kind in ("array_value", "kvlist_value"):
        value = json.dumps(MessageToDict(value), separators=(",", ":"))
    elif kind == "bytes_value":
        value = base64.b64encode(value).decode()
    return _tag(attribute.key, value)


def _tags(scope_spans: ScopeSpans, span: Span) -> list[dict[str, Json]]:
    tags = [_attribute_tag(item) for item in span.attributes]
    if span.kind:
        tags.append(_tag("span.kind", kind_name(span.kind)))
    if span.status.code:
        tags.append(_tag("otel.status_code", "ERROR" if span.status.code == _ERROR else "OK"))
    if span.status.code == _ERROR:
        tags.append(_tag("error", True))
    if span.status.message:
        tags.append(_tag("otel.status_description", span.status.message))
    if scope_spans.scope.name:
        tags.append(_tag("otel.scope.name", scope_spans.scope.name))
    if scope_spans.scope.version:
        tags.append(_tag("otel.scope.version", scope_spans.scope.version))
    if span.trace_state:
        tags.append(_tag("w3c.tracestate", span.trace_state))
    return tags


def _references(span: Span) -> list[dict[str, Json]]:
    trace_id = span.trace_id.hex()
    references = []
    if span.parent_span_id:
        references.append(
            {"refType": "CHILD_OF", "traceID": trace_id, "spanID": span.parent_span_id.hex()}
        )
    references += [
        {"refType": "FOLLOWS_FROM", "traceID": link.trace_id.hex(), "spanID": link.span_id.hex()}
        for link in span.links
    ]
    return references


def _log(event: Span.Event) -> dict[str, Json]:
    fields = [_attribute_tag(item) for item in event.attributes]
    if event.name:
        fields.insert(0, _tag("event", event.name))
    return {"timestamp": event.time_unix_nano // 1000, "fields": fields}


def _span(process: str, scope_spans: ScopeSpans, span: Span) -> dict[str, Json]:
    start_us = span.start_time_unix_nano // 1000
    duration_ns = max(0, span.end_time_unix_nano - span.start_time_unix_nano)
    return {
        "traceID": span.trace_id.hex(),
        "spanID": span.span_id.hex(),
        "processID": process,
        "operationName": span.name,
        "references": _references(span),
        "startTime": start_us,
        "duration": duration_ns // 1000,
        "tags": _tags(scope_spans, span),
        "logs": [_log(event) for event in span.events],
        "warnings": None,
        "flags": span.flags & 0xFF,
    }


def _process(resource_spans: ResourceSpans) -> dict[str, Json]:
    return {
        "serviceName": service_name(resource_spans.resource) or NO_SERVICE,
        "tags": [
            _attribute_tag(item)
            for item in resource_spans.resource.attributes
            if item.key != "service.name"
        ],
    }


def to_jaeger(data: TracesData) -> list[dict[str, Json]]:
    """Make one Jaeger trace per trace id, in order of first occurrence; none is empty."""
    traces: dict[str, dict[str, Json]] = {}
    names: dict[int, str] = {}
    for index, resource_spans in enumerate(data.resource_spans):
        names[index] = f"p{index + 1}"
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                trace_id = span.trace_id.hex()
                trace = traces.setdefault(
                    trace_id,
                    {"traceID": trace_id, "spans": [], "processes": {}, "warnings": None},
                )
                trace["spans"].append(_span(names[index], scope_spans, span))
                if names[index] not in trace["processes"]:
                    trace["processes"][names[index]] = _process(resource_spans)
    for trace in traces.values():
        trace["spans"].sort(key=lambda item: (item["startTime"], item["spanID"]))
    return list(traces.values())


def has_tags(trace: Mapping[str, Json], wanted: Mapping[str, str]) -> bool:
    """Tell whether one span of a trace, with its process, carries all tags."""
    if not wanted:
        return True
    for span in trace["spans"]:
        process = trace["processes"][span["processID"]]
        tags: list[Mapping[str, Json]] = [*process["tags"], *span["tags"]]
        for log in span["logs"]:
            tags += log["fields"]
        have = {(tag["key"], _tag_text(tag["value"])) for tag in tags}
        if all(item in have for item in wanted.items()):
            return True
    return False


def _tag_text(value: Json) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def dependencies(traces: Iterable[TracesData]) -> list[dict[str, Json]]:
    """Count the calls between different services."""
    counts: dict[tuple[str, str], int] = {}
    for data in traces:
        service_of = {
            (span.trace_id, span.span_id): service_name(resource_spans.resource) or NO_SERVICE
            for resource_spans, _, span in spans_of(data)
        }
        for _, _, span in spans_of(data):
            parent = service_of.get((span.trace_id, span.parent_span_id))
            child = service_of[span.trace_id, span.span_id]
            if parent is not None and parent != child:
                counts[parent, child] = counts.get((parent, child), 0) + 1
    return [
        {"parent": parent, "child": child, "callCount": count}
        for (parent, child), count in sorted(counts.items())
    ]
