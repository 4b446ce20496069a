"""The slow oracle of the kernel: official protobuf objects, and both sides as plain values."""

import struct
from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from gateway.batch import Batch, Payload, Signal, Transport
from gateway.otlp.decode import OpenBatch
from gateway.tables import Table, ValueKind

Plain = dict[str, Any]


def payload(body: bytes, *, identity: str = "", arrival_ns: int = 1) -> Payload:
    """Wrap a body as receive would."""
    return Payload(
        body=body,
        signal=Signal.TRACES,
        transport=Transport.GRPC,
        identity=identity,
        arrival_ns=arrival_ns,
        wire_bytes=len(body),
    )


# --- official messages as plain values ------------------------------------------------------


def _double(value: float) -> bytes:
    return struct.pack("<d", value)  # NaN compares by bits


def _value(value: AnyValue) -> tuple[str, Any]:
    case = value.WhichOneof("value")
    if case is None:
        return ("EMPTY", None)
    if case == "array_value" or case == "kvlist_value":
        name = "ARRAY" if case == "array_value" else "KVLIST"
        return (name, value.SerializeToString(deterministic=True))
    if case == "double_value":
        return ("DOUBLE", _double(value.double_value))
    return (case.removesuffix("_value").upper(), getattr(value, case))


def _pairs(attributes: Any) -> list[tuple[str, Any]]:
    return [(pair.key, _value(pair.value)) for pair in attributes]


def valid_ids(span: Span) -> bool:
    """Say whether the kernel has to take the span."""
    return (
        len(span.trace_id) == 16
        and any(span.trace_id)
        and len(span.span_id) == 8
        and any(span.span_id)
        and len(span.parent_span_id) in (0, 8)
    )


def _link(link: Span.Link) -> Plain:
    return {
        "trace_id": link.trace_id if len(link.trace_id) == 16 else bytes(16),
        "span_id": link.span_id if len(link.span_id) == 8 else bytes(8),
        "trace_state": link.trace_state,
        "flags": link.flags,
        "dropped": link.dropped_attributes_count,
        "attributes": _pairs(link.attributes),
    }


def plain_span(resource_spans: ResourceSpans, scope_spans: ScopeSpans, span: Span) -> Plain:
    """Flatten an official span with its resource and scope."""
    scope = scope_spans.scope
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_span_id or bytes(8),
        "trace_state": span.trace_state,
        "flags": span.flags,
        "name": span.name,
        "kind": span.kind,
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "dropped": (
            span.dropped_attributes_count,
            span.dropped_events_count,
            span.dropped_links_count,
        ),
        "status": (span.status.code, span.status.message),
        "attributes": _pairs(span.attributes),
        "events": [
            (e.time_unix_nano, e.name, e.dropped_attributes_count, _pairs(e.attributes))
            for e in span.events
        ],
        "links": [_link(link) for link in span.links],
        "resource": (
            _pairs(resource_spans.resource.attributes),
            resource_spans.resource.dropped_attributes_count,
            resource_spans.schema_url,
        ),
        "scope": (
            scope.name,
            scope.version,
            _pairs(scope.attributes),
            scope.dropped_attributes_count,
            scope_spans.schema_url,
        ),
    }


def plain_request(request: ExportTraceServiceRequest) -> list[Plain]:
    """Flatten every span that the kernel has to take."""
    return [
        plain_span(resource_spans, scope_spans, span)
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
        if valid_ids(span)
    ]


# --- the same messages with bytes where they have text --------------------------------------


def _twin_class() -> Any:
    """Build ExportTraceServiceRequest anew with every string field as bytes.

    Official protobuf refuses a request for one text that is not UTF-8; its twin still tells where
    each span is, so that the refusal of single spans has an oracle.
    """
    pool = descriptor_pool.DescriptorPool()
    files = (common_pb2, resource_pb2, trace_pb2, trace_service_pb2)
    for module in files:
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        _blunt(file.message_type)
        pool.Add(file)
    name = ExportTraceServiceRequest.DESCRIPTOR.full_name
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def _blunt(messages: Any) -> None:
    text, raw = (
        descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
        descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    )
    for message in messages:
        for each in message.field:
            if each.type == text:
                each.type = raw
        _blunt(message.nested_type)


TWIN: Any = _twin_class()


def is_readable(body: bytes) -> bool:
    """Say whether official protobuf takes a body, but for texts that are not UTF-8."""
    try:
        TWIN.FromString(body)
    except DecodeError:
        return False
    return True


def _is_valid(message: Any, official: Any) -> bool:
    """Say whether official protobuf takes this part of a twin."""
    try:
        official.FromString(message.SerializeToString())
    except DecodeError:
        return False
    return True


def plain_twin(twin: Any) -> list[Plain]:
    """Flatten every span of a twin that the kernel has to take."""
    found = []
    for resource_twin in twin.resource_spans:
        resource = type(resource_twin)()
        resource.CopyFrom(resource_twin)
        del resource.scope_spans[:]
        if not _is_valid(resource, ResourceSpans):
            continue
        of_resource = ResourceSpans.FromString(resource.SerializeToString())
        for scope_twin in resource_twin.scope_spans:
            scope = type(scope_twin)()
            scope.CopyFrom(scope_twin)
            del scope.spans[:]
            if not _is_valid(scope, ScopeSpans):
                continue
            of_scope = ScopeSpans.FromString(scope.SerializeToString())
            spans = [s.SerializeToString() for s in scope_twin.spans if _is_valid(s, Span)]
            found += [
                plain_span(of_resource, of_scope, span)
                for span in map(Span.FromString, spans)
                if valid_ids(span)
            ]
    return found


def check_taken(body: bytes, taken: list[Plain]) -> None:
    """Assert that the kernel took of a body what it has to.

    Raises: AssertionError.
    """
    try:
        expected = plain_request(ExportTraceServiceRequest.FromString(body))
    except DecodeError:
        try:
            expected = plain_twin(TWIN.FromString(body))
        except DecodeError as error:
            raise AssertionError(f"only protobuf refuses {body.hex()}") from error
        if taken != expected:
            # A text that a later one replaces is flawed all the same, and only the kernel sees it.
            rest = iter(expected)
            assert all(any(span == other for other in rest) for span in taken), body.hex()
        return
    assert taken == expected, body.hex()


# --- columns as plain values ----------------------------------------------------------------


def plain_batch(open_batch: OpenBatch, batch: Batch) -> list[Plain]:
    """Flatten the spans of a batch."""

    def text(row: Any, name: str) -> str:
        return batch.text(row[f"{name}_offset"], row[f"{name}_length"]).decode()

    def pairs(table: Table, row: Any) -> list[tuple[str, Any]]:
        first = int(row["attribute_first"])
        return [
            (open_batch.key_text(int(a["key"])), _column_value(batch, a))
            for a in table[first : first + int(row["attribute_count"])]
        ]

    return [_plain_row(batch, span, text, pairs) for span in batch.spans]


def _column_value(batch: Batch, row: Any) -> tuple[str, Any]:
    kind = ValueKind(int(row["kind"]))
    bits = int(row["number"])
    content = batch.text(row["offset"], row["length"])
    if kind is ValueKind.STRING:
        return (kind.name, content.decode())
    if kind is ValueKind.BYTES:
        return (kind.name, content)
    if kind in (ValueKind.ARRAY, ValueKind.KVLIST):
        return (kind.name, AnyValue.FromString(content).SerializeToString(deterministic=True))
    if kind is ValueKind.BOOL:
        return (kind.name, bool(bits))
    if kind is ValueKind.INT:
        return (kind.name, bits - (1 << 64) if bits >> 63 else bits)
    if kind is ValueKind.DOUBLE:
        return (kind.name, bits.to_bytes(8, "little"))
    return (kind.name, None)


def _id(*words: Any) -> bytes:
    return b"".join(int(word).to_bytes(8, "big") for word in words)


def _plain_row(
    batch: Batch,
    span: Any,
    text: Callable[[Any, str], str],
    pairs: Callable[[Table, Any], list[tuple[str, Any]]],
) -> Plain:
    resource = batch.resources[span["resource"]]
    scope = batch.scopes[span["scope"]]
    events = batch.events[span["event_first"] : span["event_first"] + span["event_count"]]
    links = batch.links[span["link_first"] : span["link_first"] + span["link_count"]]
    return {
        "trace_id": _id(span["trace_hi"], span["trace_lo"]),
        "span_id": _id(span["span_id"]),
        "parent_id": _id(span["parent_id"]),
        "trace_state": text(span, "state"),
        "flags": int(span["flags"]),
        "name": text(span, "name"),
        "kind": int(span["kind"]),
        "start_ns": int(span["start_ns"]),
        "end_ns": int(span["end_ns"]),
        "dropped": tuple(int(span[f"dropped_{n}"]) for n in ("attributes", "events", "links")),
        "status": (int(span["status"]), text(span, "message")),
        "attributes": pairs(batch.span_attributes, span),
        "events": [
            (
                int(e["time_ns"]),
                text(e, "name"),
                int(e["dropped_attributes"]),
                pairs(batch.event_attributes, e),
            )
            for e in events
        ],
        "links": [
            {
                "trace_id": _id(link["trace_hi"], link["trace_lo"]),
                "span_id": _id(link["span_id"]),
                "trace_state": text(link, "state"),
                "flags": int(link["flags"]),
                "dropped": int(link["dropped_attributes"]),
                "attributes": pairs(batch.link_attributes, link),
            }
            for link in links
        ],
        "resource": (
            pairs(batch.resource_attributes, resource),
            int(resource["dropped_attributes"]),
            text(resource, "schema"),
        ),
        "scope": (
            text(scope, "name"),
            text(scope, "version"),
            pairs(batch.scope_attributes, scope),
            int(scope["dropped_attributes"]),
            text(scope, "schema"),
        ),
    }


# --- generated messages ---------------------------------------------------------------------

_U32 = st.integers(0, 2**32 - 1)
_U64 = st.integers(0, 2**64 - 1)
_I32 = st.sampled_from([0, 1, 2, 3, 5, 77, -1, -(2**31), 2**31 - 1])
_TEXT = st.text(max_size=12)
_KEYS = st.sampled_from(["", "a", "model", "edgeai.model.name", "schlüssel", "k" * 40]) | _TEXT

_SCALARS = st.one_of(
    st.just(AnyValue()),
    st.builds(AnyValue, string_value=_TEXT),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AnyValue, double_value=st.floats()),
    st.builds(AnyValue, bytes_value=st.binary(max_size=12)),
)


def _nested(children: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    def array(values: list[AnyValue]) -> AnyValue:
        value = AnyValue()
        value.array_value.SetInParent()
        value.array_value.values.extend(values)
        return value

    def table(values: list[tuple[str, AnyValue]]) -> AnyValue:
        value = AnyValue()
        value.kvlist_value.SetInParent()
        value.kvlist_value.values.extend([KeyValue(key=k, value=v) for k, v in values])
        return value

    return st.lists(children, max_size=3).map(array) | st.lists(
        st.tuples(_KEYS, children), max_size=3
    ).map(table)


VALUES = st.recursive(_SCALARS, _nested, max_leaves=6)
PAIRS = st.lists(st.builds(KeyValue, key=_KEYS, value=VALUES), max_size=4)


def _ids(size: int) -> st.SearchStrategy[bytes]:
    usual = st.binary(min_size=size, max_size=size)
    return st.one_of(usual, usual, usual, st.binary(max_size=size + 1), st.just(bytes(size)))


SPANS = st.builds(
    Span,
    trace_id=_ids(16),
    span_id=_ids(8),
    trace_state=_TEXT,
    parent_span_id=_ids(8) | st.just(b""),
    flags=_U32,
    name=_TEXT,
    kind=_I32,
    start_time_unix_nano=_U64,
    end_time_unix_nano=_U64,
    attributes=PAIRS,
    dropped_attributes_count=_U32,
    events=st.lists(
        st.builds(
            Span.Event,
            time_unix_nano=_U64,
            name=_TEXT,
            attributes=PAIRS,
            dropped_attributes_count=_U32,
        ),
        max_size=2,
    ),
    dropped_events_count=_U32,
    links=st.lists(
        st.builds(
            Span.Link,
            trace_id=_ids(16),
            span_id=_ids(8),
            trace_state=_TEXT,
            attributes=PAIRS,
            dropped_attributes_count=_U32,
            flags=_U32,
        ),
        max_size=2,
    ),
    dropped_links_count=_U32,
    status=st.none() | st.builds(Status, message=_TEXT, code=_I32),
)
SCOPE_SPANS = st.builds(
    ScopeSpans,
    scope=st.none()
    | st.builds(
        InstrumentationScope,
        name=_TEXT,
        version=_TEXT,
        attributes=PAIRS,
        dropped_attributes_count=_U32,
    ),
    spans=st.lists(SPANS, max_size=3),
    schema_url=_TEXT,
)
RESOURCE_SPANS = st.builds(
    ResourceSpans,
    resource=st.none() | st.builds(Resource, attributes=PAIRS, dropped_attributes_count=_U32),
    scope_spans=st.lists(SCOPE_SPANS, max_size=2),
    schema_url=_TEXT,
)
REQUESTS = st.builds(ExportTraceServiceRequest, resource_spans=st.lists(RESOURCE_SPANS, max_size=2))
