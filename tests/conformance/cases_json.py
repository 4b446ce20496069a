"""Requests of the two sections about JSON.

Source: OTLP specification, "JSON Protobuf Encoding"; protobuf.dev, "ProtoJSON Format"; RFC 8259.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.conformance.request import Make, Request
from tests.conformance.signals import (
    LOGS,
    MARK,
    METRICS,
    TRACES,
    Signal,
    Via,
    body_of,
    json_bytes,
    json_holder,
    json_id_holder,
    json_item,
    json_request,
    json_scope,
)
from tests.process import Json

DEEP: Final = 200
VERY_DEEP: Final = 100_000
INT64_MAX: Final = 2**63 - 1
ABOVE_DOUBLES: Final = 2**53 + 1

# A text of so many characters is in an answer only if it was taken from the request.
TELLING_LENGTH: Final = 8

HOLE: Final = "@hole@"
NAME_KEY: Final = {TRACES: "name", METRICS: "name", LOGS: "severityText"}
TIME_KEY: Final = {
    TRACES: "startTimeUnixNano",
    METRICS: "timeUnixNano",
    LOGS: "timeUnixNano",
}
ENUM_NAME: Final = {
    TRACES: "SPAN_KIND_SERVER",
    METRICS: "AGGREGATION_TEMPORALITY_DELTA",
    LOGS: "SEVERITY_NUMBER_INFO",
}

Put = Callable[[Signal, dict[str, Json], Json], None]


def document_of(signal: Signal, items: Sequence[Json]) -> dict[str, Json]:
    """Write a request of one scope."""
    return json_request(signal, [[json_scope(signal, items)]])


# --- places of an item ---------------------------------------------------------------------------


def name(signal: Signal, item: dict[str, Json], value: Json) -> None:
    """Put a value where a text is expected."""
    item[NAME_KEY[signal]] = value


def time(signal: Signal, item: dict[str, Json], value: Json) -> None:
    """Put a value where a fixed64 is expected."""
    json_holder(signal, item)[TIME_KEY[signal]] = value


def flags(signal: Signal, item: dict[str, Json], value: Json) -> None:
    """Put a value where 32 bits without a sign are expected."""
    json_holder(signal, item)["flags"] = value


def enum(signal: Signal, item: dict[str, Json], value: Json) -> None:
    """Put a value where an enum is expected."""
    if signal is METRICS:
        item["sum"] = item.pop("gauge") | {"aggregationTemporality": value}
    else:
        item["kind" if signal is TRACES else "severityNumber"] = value


def trace_id(signal: Signal, item: dict[str, Json], value: Json) -> None:
    """Put a value where a trace id is expected."""
    json_id_holder(signal, item)["traceId"] = value


def attribute(kind: str) -> Put:
    """Put a value into an attribute of a kind."""

    def put(signal: Signal, item: dict[str, Json], value: Json) -> None:
        added = {"key": f"{MARK}.added", "value": {kind: value}}
        json_holder(signal, item)["attributes"].append(added)

    return put


INT64: Final = attribute("intValue")


def values(put: Put, *given: Json) -> Make:
    """Make a case of one item with values put into it one after the other."""

    def make(signal: Signal, via: Via) -> Request:
        item = json_item(signal, 0)
        for value in given:
            put(signal, item, value)
        texts = [each for each in given if isinstance(each, str) and len(each) >= TELLING_LENGTH]
        body = json_bytes(document_of(signal, [item]))
        return Request(body=body, unrepeated=tuple(texts))

    return make


def raw(put: Put, text: bytes) -> Make:
    """Make a case of one item with a value that is written as it is."""

    def make(signal: Signal, via: Via) -> Request:
        item = json_item(signal, 0)
        put(signal, item, HOLE)
        body = json_bytes(document_of(signal, [item]))
        assert body.count(HOLE.encode()) == 1
        return Request(body=body.replace(f'"{HOLE}"'.encode(), text))

    return make


def changed(change: Callable[[bytes], bytes]) -> Make:
    """Make a case of a good document that is changed as text."""

    def make(signal: Signal, via: Via) -> Request:
        return Request(body=change(body_of(signal, Via.JSON)))

    return make


def _enum_name(signal: Signal, via: Via) -> Request:
    item = json_item(signal, 0)
    enum(signal, item, ENUM_NAME[signal])
    body = json_bytes(document_of(signal, [item]))
    return Request(body=body, unrepeated=(ENUM_NAME[signal],))


def _list_is_text(signal: Signal, via: Via) -> Request:
    return Request(body=json_bytes({signal.lists[0]: MARK}))


def _message_is_list(signal: Signal, via: Via) -> Request:
    return Request(body=json_bytes({signal.lists[0]: [[MARK]]}))


def _duplicate_key(signal: Signal, via: Via) -> Request:
    return raw(name, f'"{MARK}", "{NAME_KEY[signal]}": "{MARK}"'.encode())(signal, via)


def _deep(signal: Signal, via: Via) -> Request:
    value: Json = {"stringValue": MARK}
    for _ in range(DEEP):
        value = {"arrayValue": {"values": [value]}}
    item = json_item(signal, 0)
    json_holder(signal, item)["attributes"].append({"key": MARK, "value": value})
    return Request(body=json_bytes(document_of(signal, [item])))


def _unknown_deep(signal: Signal, via: Via) -> Request:
    body = json_bytes(document_of(signal, [json_item(signal, 0)]))
    nested = b"[" * VERY_DEEP + b"]" * VERY_DEEP
    return Request(body=body[:-1] + b', "unknown": ' + nested + b"}")


def _protobuf_said_json(signal: Signal, via: Via) -> Request:
    return Request(body=body_of(signal, Via.PROTOBUF))


# --- to be taken -------------------------------------------------------------------------------


def _ids(change: Callable[[str], str]) -> Make:
    def make(signal: Signal, via: Via) -> Request:
        item = json_item(signal, 0)
        part = json_id_holder(signal, item)
        for key in ("traceId", "spanId"):
            part[key] = change(part[key])
        return Request(body=json_bytes(document_of(signal, [item])))

    return make


def _mixed(digits: str) -> str:
    return "".join(each.upper() if place % 2 else each for place, each in enumerate(digits))


def _int64_text(signal: Signal, via: Via) -> Request:
    return values(INT64, "42", "-42")(signal, via)


def _int64_number(signal: Signal, via: Via) -> Request:
    item = json_item(signal, 0)
    time(signal, item, int(json_holder(signal, item)[TIME_KEY[signal]]))
    INT64(signal, item, ABOVE_DOUBLES)
    return Request(body=json_bytes(document_of(signal, [item])))


def _unknown_fields(signal: Signal, via: Via) -> Request:
    kinds = (None, True, 1.5e300, MARK, [1, {"a": []}], {"spans": [{"traceId": 1}]})
    unknown = {f"unknown{number}": value for number, value in enumerate(kinds)}
    document = document_of(signal, [json_item(signal, 0)])
    (resource,) = document[signal.lists[0]]
    (scope,) = resource[signal.lists[1]]
    (item,) = scope[signal.lists[2]]
    parts = (document, resource, resource["resource"], scope, scope["scope"], item)
    for part in (*parts, json_holder(signal, item), json_id_holder(signal, item)):
        part.update(unknown)
    return Request(body=json_bytes(document))


def _snake(key: str) -> str:
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", key)


def _snake_case(signal: Signal, via: Via) -> Request:
    (resources,) = document_of(signal, [json_item(signal, 0)]).values()
    return Request(body=json_bytes({_snake(signal.lists[0]): resources}))


def _snake_case_inside(signal: Signal, via: Via) -> Request:
    document = document_of(signal, [json_item(signal, 0)])
    (resource,) = document[signal.lists[0]]
    resource[_snake(signal.lists[1])] = resource.pop(signal.lists[1])
    return Request(body=json_bytes(document))


def _snake_case_id(signal: Signal, via: Via) -> Request:
    items = [json_item(signal, number) for number in range(2)]
    items[0]["trace_id"] = items[0].pop("traceId")
    return Request(body=json_bytes(document_of(signal, items)))


def _null(signal: Signal, via: Via) -> Request:
    item = json_item(signal, 0)
    flags(signal, item, None)
    json_holder(signal, item)["attributes"] = None
    document = document_of(signal, [item])
    (resource,) = document[signal.lists[0]]
    (scope,) = resource[signal.lists[1]]
    resource["resource"] = resource["schemaUrl"] = scope["scope"] = None
    return Request(body=json_bytes(document))


def _escapes(body: bytes) -> bytes:
    """Write a key and a text with escapes, among them two that are one character."""
    body = body.replace(b'"attributes"', b'"\\u0061ttribute\\u0073"')
    return body.replace(b" value 0", b'\\u0020\\ud834\\udd1e\\/\\"\\\\\\b\\f\\n\\r\\t')


def _spread(body: bytes) -> bytes:
    spread = json.dumps(json.loads(body), indent="\t", separators=("\r\n ,", " \n: "))
    return b" \r\n\t" + spread.encode() + b"\n\n "


CASES: Final[Mapping[str, Make]] = {
    "json-truncated": changed(lambda body: body[:-1]),
    "json-single-quotes": changed(lambda body: body.replace(b'"', b"'")),
    "json-trailing-comma": changed(lambda body: body[:-1] + b",}"),
    "json-trailing-bytes": changed(lambda body: body + f" {MARK}".encode()),
    "json-two-documents": changed(lambda body: body + b"\n" + body),
    "json-no-object": changed(lambda body: b"[" + body + b"]"),
    "json-list-is-text": _list_is_text,
    "json-message-is-list": _message_is_list,
    "json-text-is-number": values(name, 7),
    "json-number-is-text": values(time, MARK),
    "json-bool-is-text": values(attribute("boolValue"), "true"),
    "json-enum-name": _enum_name,
    "json-hex-bad": values(trace_id, f"{MARK:x<32}"),
    "json-hex-odd": values(trace_id, "0123456789abcdef0123456789abcde"),
    "json-base64-bad": values(attribute("bytesValue"), f"*{MARK}*"),
    "json-surrogate": raw(name, f'"{MARK} \\ud834 alone"'.encode()),
    "json-not-utf8": raw(name, f'"{MARK} '.encode() + b'\xff\xfe"'),
    "json-control-character": raw(name, f'"{MARK}\nbelow"'.encode()),
    "json-duplicate-key": _duplicate_key,
    "json-too-deep": _deep,
    "json-unknown-too-deep": _unknown_deep,
    "json-int64-over": values(INT64, str(INT64_MAX + 1)),
    "json-int64-number-over": values(INT64, INT64_MAX + 1),
    "json-uint64-negative": values(time, "-1"),
    "json-uint32-over": values(flags, 2**32),
    "json-int-fraction": values(INT64, 1.5),
    "json-nan-bare": raw(attribute("doubleValue"), b"NaN"),
    "protobuf-said-json": _protobuf_said_json,
    "json-hex-upper": _ids(str.upper),
    "json-hex-mixed": _ids(_mixed),
    "json-int64-text": _int64_text,
    "json-int64-number": _int64_number,
    "json-int64-ends": values(
        INT64, str(INT64_MAX), str(-INT64_MAX - 1), INT64_MAX, -INT64_MAX - 1
    ),
    "json-enum-number": values(enum, 2),
    "json-unknown-fields": _unknown_fields,
    "json-snake-case": _snake_case,
    "json-snake-case-inside": _snake_case_inside,
    "json-snake-case-id": _snake_case_id,
    "json-null": _null,
    "json-double-text": values(attribute("doubleValue"), "NaN", "Infinity", "-Infinity", "1.5"),
    "json-bytes": values(attribute("bytesValue"), "AP8=", "AP8"),
    "json-escapes": changed(_escapes),
    "json-whitespace": changed(_spread),
}
