"""Requests of the two sections about protobuf.

Source: protobuf.dev, "Encoding"; what a reader must refuse and what it must skip.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.metrics.v1 import metrics_pb2

from tests.conformance.cases_items import written
from tests.conformance.request import Make, Request
from tests.conformance.signals import (
    BASE_NS,
    LOGS,
    MARK,
    METRICS,
    TRACES,
    Signal,
    Via,
    body_of,
    holder,
    json_holder,
    json_item,
    message,
    protobuf_item,
    request_of,
    resource_entry,
    scope_entry,
    trace_id_of,
)
from tests.conformance.wire import (
    GROUP_END,
    GROUP_START,
    LENGTH,
    VARINT,
    VARINT_BYTES_MAX,
    field,
    fixed32_field,
    fixed64_field,
    number_field,
    tag,
    varint,
)
from tests.process import Json

DEEP: Final = 200
UNKNOWN: Final = 900
ENUM_UNKNOWN: Final = 99
# Numbers of the fields of an item that are written by hand.
TRACE_ID: Final = {TRACES: 1, LOGS: 9}
TIME: Final = {TRACES: 7, METRICS: 3, LOGS: 1}
ENUM: Final = {TRACES: 6, METRICS: 8, LOGS: 2}  # kind, flags of the point, severity
GAUGE: Final = 5
BUCKET_COUNTS: Final = 6

_UNKNOWN_FIELDS: Final = (
    number_field(UNKNOWN, 2**64 - 1)
    + fixed64_field(UNKNOWN + 1, 7)
    + field(UNKNOWN + 2, MARK.encode())
    + fixed32_field(UNKNOWN + 3, 7)
)


def _cut(keep: Callable[[bytes], bytes]) -> Make:
    def make(signal: Signal, via: Via) -> Request:
        return Request(body=keep(body_of(signal, via, 2)))

    return make


def _after(data: bytes) -> Make:
    """Put bytes behind a good request."""

    def make(signal: Signal, via: Via) -> Request:
        return Request(body=body_of(signal, via) + data)

    return make


def _in_item(data: bytes) -> Make:
    """Put bytes behind the fields of the second of three items."""

    def make(signal: Signal, via: Via) -> Request:
        items = [protobuf_item(signal, number) for number in range(3)]
        items[1] += data
        return Request(body=request_of(resource_entry([scope_entry(items)])))

    return make


def _beyond_parent(signal: Signal, via: Via) -> Request:
    scope = scope_entry([protobuf_item(signal, 0)])
    resource = tag(2, LENGTH) + varint(len(scope) + 1) + scope
    return Request(body=request_of(resource) + body_of(signal, via))


def _deep(signal: Signal, via: Via) -> Request:
    value = AnyValue(string_value=MARK).SerializeToString()
    for _ in range(DEEP):
        value = field(5, field(1, value))
    attribute = field(1, MARK.encode()) + field(2, value)
    # Attributes of the resource are the same for every signal.
    resource = field(1, field(1, attribute)) + field(2, scope_entry([protobuf_item(signal, 0)]))
    return Request(body=request_of(resource))


def _sentence(signal: Signal, via: Via) -> Request:
    return Request(body=f"this is {MARK} and no message".encode())


def _json_said_protobuf(signal: Signal, via: Via) -> Request:
    return Request(body=body_of(signal, Via.JSON))


# --- to be taken -------------------------------------------------------------------------------


def _point_metric(point: bytes) -> bytes:
    """Encode a gauge around the bytes of a point."""
    return field(1, MARK.encode()) + field(GAUGE, field(1, point))


def _item_of(signal: Signal, change: Callable[[bytes], bytes]) -> bytes:
    """Encode an item whose time and attributes are in bytes that were changed."""
    part = change(holder(signal, message(signal, 0)).SerializeToString())
    return _point_metric(part) if signal is METRICS else part


def _unknown_fields(signal: Signal, via: Via) -> Request:
    item = _item_of(signal, lambda part: _UNKNOWN_FIELDS + part + _UNKNOWN_FIELDS)
    scope = _UNKNOWN_FIELDS + scope_entry([item + _UNKNOWN_FIELDS])
    resource = _UNKNOWN_FIELDS + resource_entry([scope]) + _UNKNOWN_FIELDS
    return Request(body=_UNKNOWN_FIELDS + request_of(resource) + _UNKNOWN_FIELDS)


def _other_wire_type(signal: Signal, via: Via) -> Request:
    """Send numbers where messages are expected, and a text where a time is."""
    time = field(TIME[signal], MARK.encode())
    item = _item_of(signal, lambda part: time + part)
    scope = fixed64_field(2, 1) + scope_entry([item])
    resource = fixed32_field(2, 1) + resource_entry([scope])
    return Request(body=number_field(1, 1) + request_of(resource))


def _split(data: bytes) -> list[bytes]:
    """Cut a message into its fields."""
    fields, position = [], 0
    while position < len(data):
        start = position
        key, position = _read_varint(data, position)
        match key & 7:
            case 0:
                _, position = _read_varint(data, position)
            case 1:
                position += 8
            case 2:
                length, position = _read_varint(data, position)
                position += length
            case 5:
                position += 4
        fields.append(data[start:position])
    return fields


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _reversed(data: bytes) -> bytes:
    return b"".join(reversed(_split(data)))


def _fields_reversed(signal: Signal, via: Via) -> Request:
    items = [_reversed(protobuf_item(signal, number)) for number in range(2)]
    return Request(body=request_of(_reversed(resource_entry([_reversed(scope_entry(items))]))))


def _scalar_repeated(signal: Signal, via: Via) -> Request:
    """Write a time and an id that are wrong, then those that count."""
    first = fixed64_field(TIME[signal], 1)
    last = fixed64_field(TIME[signal], BASE_NS)
    if signal in TRACE_ID:
        first += field(TRACE_ID[signal], MARK.encode())
        last += field(TRACE_ID[signal], trace_id_of(0))
    item = _item_of(signal, lambda part: first + part + last)
    return Request(body=request_of(resource_entry([scope_entry([item])])))


def _varint_padded(signal: Signal, via: Via) -> Request:
    padded = tag(ENUM[signal], VARINT) + varint(1, VARINT_BYTES_MAX)
    item = _item_of(signal, lambda part: part + padded)
    return Request(body=request_of(resource_entry([scope_entry([item])])))


def _attributed(attributes: list[KeyValue], documents: Json) -> Make:
    def make(signal: Signal, via: Via) -> Request:
        item, document = message(signal, 0), json_item(signal, 0)
        holder(signal, item).attributes.extend(attributes)
        json_holder(signal, document)["attributes"] += documents
        return written(signal, via, [item.SerializeToString()], [document])

    return make


_EMPTY_ATTRIBUTES: Final = _attributed(
    [
        KeyValue(key=f"{MARK}.absent"),
        KeyValue(key=f"{MARK}.empty", value=AnyValue()),
        KeyValue(value=AnyValue(string_value=MARK)),
        KeyValue(key=f"{MARK}.list", value=AnyValue(array_value=ArrayValue())),
    ],
    [
        {"key": f"{MARK}.absent"},
        {"key": f"{MARK}.empty", "value": {}},
        {"key": "", "value": {"stringValue": MARK}},
        {"key": f"{MARK}.list", "value": {"arrayValue": {}}},
    ],
)
_VALUES: Final = (
    (AnyValue(string_value=MARK), {"stringValue": MARK}),
    (AnyValue(bool_value=True), {"boolValue": True}),
    (AnyValue(int_value=-7), {"intValue": "-7"}),
    (AnyValue(double_value=0.5), {"doubleValue": 0.5}),
    (AnyValue(bytes_value=b"\0\xff"), {"bytesValue": "AP8="}),
    (
        AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue()])),
        {"arrayValue": {"values": [{"intValue": "1"}, {}]}},
    ),
    (
        AnyValue(
            kvlist_value=KeyValueList(values=[KeyValue(key="k", value=AnyValue(int_value=1))])
        ),
        {"kvlistValue": {"values": [{"key": "k", "value": {"intValue": "1"}}]}},
    ),
)
_ALL_ATTRIBUTES: Final = _attributed(
    [KeyValue(key=f"{MARK}.{n}", value=value) for n, (value, _) in enumerate(_VALUES)],
    [{"key": f"{MARK}.{n}", "value": written} for n, (_, written) in enumerate(_VALUES)],
)


def _enum_unknown(signal: Signal, via: Via) -> Request:
    item: Any = message(signal, 0)
    document = json_item(signal, 0)
    if signal is TRACES:
        item.kind = document["kind"] = ENUM_UNKNOWN
    elif signal is LOGS:
        item.severity_number = document["severityNumber"] = ENUM_UNKNOWN
    else:
        points = list(item.gauge.data_points)
        item.sum.data_points.extend(points)
        item.sum.aggregation_temporality = ENUM_UNKNOWN
        document["sum"] = document.pop("gauge") | {"aggregationTemporality": ENUM_UNKNOWN}
    return written(signal, via, [item.SerializeToString()], [document])


def _histogram(buckets: bytes) -> Make:
    """Make a case of one histogram whose five buckets of one are written by hand."""

    def make(signal: Signal, via: Via) -> Request:
        point = metrics_pb2.HistogramDataPoint(
            time_unix_nano=BASE_NS, count=5, sum=5.0, explicit_bounds=[1.0, 2.0, 3.0, 4.0]
        )
        item = field(1, MARK.encode())
        item += field(9, field(1, point.SerializeToString() + buckets) + number_field(2, 1))
        return written(signal, via, [item], [])

    return make


def _packed(count: int) -> bytes:
    return field(BUCKET_COUNTS, (1).to_bytes(8, "little") * count)


def _single(count: int) -> bytes:
    return fixed64_field(BUCKET_COUNTS, 1) * count


CASES: Final[Mapping[str, Make]] = {
    "truncated": _cut(lambda body: body[:-1]),
    "truncated-half": _cut(lambda body: body[: len(body) // 2]),
    "one-byte": _cut(lambda body: body[:1]),
    "length-beyond-body": _after(tag(1, LENGTH) + varint(5) + b"1234"),
    "length-beyond-parent": _beyond_parent,
    "length-beyond-item": _in_item(tag(UNKNOWN, LENGTH) + varint(5) + b"1234"),
    "length-huge": _after(tag(1, LENGTH) + varint(1 << 63)),
    "varint-11-bytes": _after(tag(UNKNOWN, VARINT) + b"\x80" * VARINT_BYTES_MAX + b"\1"),
    "group-start": _after(tag(UNKNOWN, GROUP_START)),
    "group-end": _after(tag(UNKNOWN, GROUP_END)),
    "field-number-0": _after(field(0, MARK.encode())),
    "wire-type-6": _after(tag(UNKNOWN, 6)),
    "wire-type-7-in-item": _in_item(tag(UNKNOWN, 7)),
    "plain-text": _sentence,
    "json-said-protobuf": _json_said_protobuf,
    "too-deep": _deep,
    "unknown-fields": _unknown_fields,
    "other-wire-type": _other_wire_type,
    "fields-reversed": _fields_reversed,
    "scalar-repeated": _scalar_repeated,
    "varint-padded": _varint_padded,
    "attribute-empty": _EMPTY_ATTRIBUTES,
    "attribute-all-kinds": _ALL_ATTRIBUTES,
    "enum-unknown": _enum_unknown,
    "repeated-packed": _histogram(_packed(5)),
    "repeated-unpacked": _histogram(_single(5)),
    "repeated-mixed": _histogram(_packed(2) + _single(1) + _packed(2)),
}
