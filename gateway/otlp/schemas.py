"""The shape of the three OTLP requests as flat tables, compiled from the official descriptors.

Law: nothing about a field is written here that its descriptor says. Only what the descriptors
cannot say is listed: which messages are items, what a legal id is, and which fields belong to
profiles alone.

Source: opentelemetry-proto; OTLP specification, "JSON Protobuf Encoding" (ids are hexadecimal).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.batch import Signal
from gateway.otlp.wire import Schema

REQUESTS: Final[Mapping[Signal, Any]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
_PROTO: Final = "opentelemetry.proto."
# What is counted, accepted and refused one by one: `rejected_*` of a reply counts these.
ITEMS: Final = frozenset(
    {"trace.v1.Span", "logs.v1.LogRecord"}
    | {f"metrics.v1.{kind}DataPoint" for kind in ("Number", "Histogram", "Summary")}
    | {"metrics.v1.ExponentialHistogramDataPoint"}
)
RESOURCE: Final = "resource.v1.Resource"
# The one message that can hold itself; limits of depth count its levels.
NESTING: Final = "common.v1.AnyValue"
# Indexes into the dictionary of a profiles request; no other request has that dictionary.
PROFILES_ONLY: Final = frozenset({"key_strindex", "string_value_strindex"})
HEX_FIELDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})

_TRACE_BYTES: Final = 16
_SPAN_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """What makes an id legal: its size in bytes, and whether it may be empty or all zero."""

    size: int
    required: bool
    refusal: str


def _optional(name: str, size: int, owner: str = "") -> Identifier:
    return Identifier(
        size=size, required=False, refusal=f"{owner}{name} is neither empty nor {size} bytes"
    )


def _required(name: str, size: int) -> Identifier:
    return Identifier(size=size, required=True, refusal=f"{name} is not {size} bytes or all zero")


# An id that is not listed here (those of span links) may have any size.
IDENTIFIERS: Final[Mapping[tuple[str, str], Identifier]] = {
    ("trace.v1.Span", "trace_id"): _required("trace_id", _TRACE_BYTES),
    ("trace.v1.Span", "span_id"): _required("span_id", _SPAN_BYTES),
    ("trace.v1.Span", "parent_span_id"): _optional("parent_span_id", _SPAN_BYTES),
    ("logs.v1.LogRecord", "trace_id"): _optional("trace_id", _TRACE_BYTES),
    ("logs.v1.LogRecord", "span_id"): _optional("span_id", _SPAN_BYTES),
    ("metrics.v1.Exemplar", "trace_id"): _optional("trace_id", _TRACE_BYTES, "exemplar "),
    ("metrics.v1.Exemplar", "span_id"): _optional("span_id", _SPAN_BYTES, "exemplar "),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field: `kind` is the number of the descriptor's type, `child` the row of its message.

    `others` are the numbers of the other members of its oneof; `explicit` says that a default
    value that is present is written.
    """

    number: int
    name: str
    kind: int
    child: int
    repeated: bool
    explicit: bool
    others: tuple[int, ...]
    refused: bool
    hexadecimal: bool
    identifier: Identifier | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message; a carrier holds items at some depth, and is not one itself."""

    name: str
    fields: tuple[Field, ...]
    item: bool
    carrier: bool
    resource: bool
    nesting: bool


def _short(descriptor: Any) -> str:
    return str(descriptor.full_name).removeprefix(_PROTO)


def _reachable(root: Any) -> list[Any]:
    """List the descriptors that a request can hold, the request first."""
    found = [root]
    for descriptor in found:
        for field in descriptor.fields:
            if field.message_type is not None and field.message_type not in found:
                found.append(field.message_type)
    return found


def _carriers(descriptors: list[Any]) -> set[str]:
    """Name the messages above the items."""
    carriers: set[str] = set()
    while True:
        found = {
            _short(descriptor)
            for descriptor in descriptors
            for child in _children(descriptor)
            if _short(child) in ITEMS or _short(child) in carriers
        }
        if found == carriers:
            return carriers
        carriers = found


def _children(descriptor: Any) -> Iterator[Any]:
    for field in descriptor.fields:
        if field.message_type is not None:
            yield field.message_type


def _field(owner: str, field: Any, rows: Mapping[str, int]) -> Field:
    oneof = field.containing_oneof
    members = () if oneof is None else tuple(member.number for member in oneof.fields)
    child = field.message_type
    return Field(
        number=field.number,
        name=field.json_name,
        kind=field.type,
        child=-1 if child is None else rows[_short(child)],
        repeated=field.is_repeated,
        explicit=field.has_presence,
        others=tuple(number for number in members if number != field.number),
        refused=field.name in PROFILES_ONLY,
        hexadecimal=field.name in HEX_FIELDS,
        identifier=IDENTIFIERS.get((owner, field.name)),
    )


def tabulate(root: Any) -> tuple[Message, ...]:
    """Flatten the descriptor of a request; row 0 is the request."""
    descriptors = _reachable(root)
    rows = {_short(descriptor): row for row, descriptor in enumerate(descriptors)}
    carriers = _carriers(descriptors)
    return tuple(
        Message(
            name=name,
            fields=tuple(_field(name, field, rows) for field in descriptor.fields),
            item=name in ITEMS,
            carrier=name in carriers,
            resource=name == RESOURCE,
            nesting=name == NESTING,
        )
        for name, descriptor in zip(rows, descriptors, strict=True)
    )


@cache
def schema_of(signal: Signal) -> Schema:
    """Return the compiled table of a signal's request."""
    return Schema(tabulate(REQUESTS[signal].DESCRIPTOR))
