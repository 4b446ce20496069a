"""OTLP traces as answers: merged from several places, as protobuf or as OTLP JSON.

Law: a span occurs once, whoever held it; the first part that has it wins and the others may only
add attributes that it lacks. OTLP JSON has ids in lower-case hex, 64-bit integers as strings and
enums as numbers. This is a reading path for single traces, so it uses the official classes.
Source: OpenTelemetry protocol, "JSON Protobuf Encoding".
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from aiohttp import web
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from gateway.api.sources import TraceAnswer
from gateway.batch import Json
from gateway.errors import CorruptDataError, InvalidQueryError

PROTOBUF_TYPES: Final = ("application/x-protobuf", "application/protobuf")
JSON_TYPE: Final = "application/json"
PROBLEMS_HEADER: Final = "Weir-Problems"
PROBLEMS_LENGTH_MAX: Final = 2_048

_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{1,32}")
_VALUE_NAMES: Final = ("stringValue", "boolValue", "intValue", "doubleValue", "bytesValue")


def read_trace_id(text: str) -> str:
    """Read an id of up to 32 hex digits, any case, leading zeros optional.

    Raises: InvalidQueryError.
    """
    if not _TRACE_ID.fullmatch(text):
        raise InvalidQueryError("a trace id is 1 to 32 hexadecimal digits")
    return text.lower().zfill(32)


def spans_of(data: TracesData) -> Iterator[tuple[ResourceSpans, ScopeSpans, Span]]:
    """Walk over all spans together with what they belong to."""
    for resource_spans in data.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield resource_spans, scope_spans, span


def trace_ids(data: TracesData) -> list[str]:
    """List the distinct trace ids, as hex."""
    return sorted({span.trace_id.hex() for _, _, span in spans_of(data)})


def merged(parts: Iterable[bytes]) -> TracesData:
    """Join the parts of an answer so that each span occurs once.

    Raises: CorruptDataError.
    """
    out = TracesData()
    seen: dict[tuple[bytes, bytes], Span] = {}
    groups: dict[tuple[bytes, bytes], ScopeSpans] = {}
    resources: dict[bytes, ResourceSpans] = {}
    for part in parts:
        try:
            data = TracesData.FromString(part)
        except DecodeError as error:
            raise CorruptDataError("stored trace bytes are damaged") from error
        for resource_spans, scope_spans, span in spans_of(data):
            first = seen.get((span.trace_id, span.span_id))
            if first is not None:
                _add_missing(first, span)
                continue
            resource = resource_spans.resource.SerializeToString(deterministic=True)
            if resource not in resources:
                resources[resource] = out.resource_spans.add(
                    resource=resource_spans.resource, schema_url=resource_spans.schema_url
                )
            scope = scope_spans.scope.SerializeToString(deterministic=True)
            if (resource, scope) not in groups:
                groups[resource, scope] = resources[resource].scope_spans.add(
                    scope=scope_spans.scope, schema_url=scope_spans.schema_url
                )
            group = groups[resource, scope]
            group.spans.append(span)
            seen[span.trace_id, span.span_id] = group.spans[-1]
    return out


def _add_missing(first: Span, other: Span) -> None:
    """Unite two copies of a span: attributes by key, events and links when the first has none."""
    known = {attribute.key for attribute in first.attributes}
    first.attributes.extend(item for item in other.attributes if item.key not in known)
    if not first.events:
        first.events.extend(other.events)
    if not first.links:
        first.links.extend(other.links)


def service_name(resource: Resource) -> str:
    """Read `service.name`, empty when there is none."""
    for attribute in resource.attributes:
        if attribute.key == "service.name":
            return attribute.value.string_value
    return ""


def _hex_ids(item: dict[str, Json], binary: dict[str, bytes]) -> None:
    for name, value in binary.items():
        if value:
            item[name] = value.hex()


def to_json(data: TracesData) -> dict[str, Json]:
    """Make OTLP JSON."""
    document: dict[str, Json] = MessageToDict(data, use_integers_for_enums=True)
    document.setdefault("resourceSpans", [])
    for resource_json, resource_spans in zip(
        document["resourceSpans"], data.resource_spans, strict=True
    ):
        scopes_json = resource_json.get("scopeSpans", [])
        for scope_json, scope_spans in zip(scopes_json, resource_spans.scope_spans, strict=True):
            spans_json = scope_json.get("spans", [])
            for item, span in zip(spans_json, scope_spans.spans, strict=True):
                _hex_ids(
                    item,
                    {
                        "traceId": span.trace_id,
                        "spanId": span.span_id,
                        "parentSpanId": span.parent_span_id,
                    },
                )
                for link_json, link in zip(item.get("links", []), span.links, strict=True):
                    _hex_ids(link_json, {"traceId": link.trace_id, "spanId": link.span_id})
    return document


def to_grafana_json(data: TracesData) -> dict[str, Json]:
    """Make the variant that Grafana reads from Jaeger's v3 route: scalar values are strings."""
    return {"resourceSpans": [_strings(item) for item in to_json(data)["resourceSpans"]]}


def _strings(node: Json) -> Json:
    if isinstance(node, list):
        return [_strings(item) for item in node]
    if not isinstance(node, dict):
        return node
    out: dict[str, Json] = {}
    for name, value in node.items():
        if name in _VALUE_NAMES and not isinstance(value, str):
            out[name] = json.dumps(value)
        else:
            out["array_value" if name == "arrayValue" else name] = _strings(value)
    return out


def wants_protobuf(request: web.Request) -> bool:
    """Choose by `Accept`; JSON when nothing else is preferred."""
    best, protobuf = 0.0, False
    for entry in request.headers.get("Accept", "*/*").split(",")[:16]:
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            if re.fullmatch(r"q=[01](\.[0-9]{0,3})?", parameter):
                quality = float(parameter[2:])
        known = kind in PROTOBUF_TYPES or kind in (JSON_TYPE, "application/*", "*/*")
        if known and quality > best:
            best, protobuf = quality, kind in PROTOBUF_TYPES
    return protobuf


def respond(request: web.Request, data: TracesData, answer: TraceAnswer) -> web.Response:
    """Answer with traces in the form that was asked for; problems are named in a header."""
    headers = {"Vary": "Accept"}
    if answer.problems:
        text = "; ".join(answer.problems)[:PROBLEMS_LENGTH_MAX]
        headers[PROBLEMS_HEADER] = re.sub(r"[^\x20-\x7e]", "?", text)
    if wants_protobuf(request):
        body: bytes = data.SerializeToString()
        return web.Response(body=body, content_type=PROTOBUF_TYPES[0], headers=headers)
    text = json.dumps(to_json(data), separators=(",", ":"))
    return web.Response(text=text, content_type=JSON_TYPE, headers=headers)


def maybe_attribute(attributes: Iterable[Any], key: str) -> str | None:
    """Read one attribute as text."""
    for attribute in attributes:
        if attribute.key == key:
            value = attribute.value
            kind = value.WhichOneof("value")
            if kind is None:
                return ""
            found = getattr(value, kind)
            return found if isinstance(found, str) else str(found)
    return None
