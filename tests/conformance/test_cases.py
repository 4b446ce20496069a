"""The requests of the matrix are what the table says of them, by the official classes alone.

Law: what the table calls unreadable the official classes refuse, and what it counts they count.
They know nothing of the deviations of OTLP/JSON, which are undone before they read a document.
"""

import base64
import gzip
import json
from typing import Any, Final

import pytest
import zstandard
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from tests.conformance import cases_json, cases_protobuf
from tests.conformance.cases import CASES
from tests.conformance.request import Request
from tests.conformance.signals import METRICS, NOT_UTF8, SIGNALS, Signal, Via
from tests.conformance.table import rows
from tests.process import Json

WINDOW_BYTES_MAX: Final = 1 << 28
POINTS: Final = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
SCOPES: Final = {"traces": "scope_spans", "metrics": "scope_metrics", "logs": "scope_logs"}
ITEMS: Final = {"traces": "spans", "metrics": "metrics", "logs": "log_records"}
ENUM_KEYS: Final = frozenset({"kind", "severityNumber", "aggregationTemporality"})
ID_KEYS: Final = frozenset({"traceId", "spanId", "parentSpanId"})
LIST_KEYS: Final = frozenset(key for signal in SIGNALS for key in signal.lists)


def inflated(request: Request) -> bytes:
    """Undo the encodings of a request."""
    body = request.body
    for encoding in request.encodings:
        match encoding.lower():
            case "gzip":
                body = gzip.decompress(body)
            case "zstd":
                decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
                with decompressor.stream_reader(body, read_across_frames=True) as reader:
                    body = reader.read()
    return body


def items_of(signal: Signal, message: Any) -> int:
    """Count the items of a request; those of metrics are points."""
    count = 0
    for _, resources in message.ListFields():
        for resource in resources:
            for scope in getattr(resource, SCOPES[signal.name]):
                items = getattr(scope, ITEMS[signal.name])
                if signal is METRICS:
                    items = [point for each in items for point in points_of(each)]
                count += len(items)
    return count


def points_of(metric: Any) -> Any:
    """Return the points of a metric, of whatever kind."""
    kind = metric.WhichOneof("data")
    return getattr(metric, kind).data_points if kind else ()


def read_protobuf(signal: Signal, body: bytes) -> Any:
    """Read a request; a text that is no text is replaced, because it would spoil all of it."""
    return signal.request.FromString(body.replace(NOT_UTF8, b"?" * len(NOT_UTF8)))


# --- OTLP/JSON on top of the standard mapping ----------------------------------------------------


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("the same key twice")
    return made


def _no_constant(text: str) -> Json:
    raise ValueError(f"{text} is not JSON")


def _undeviated(value: Json) -> Json:
    """Write ids in base64 and leave out keys that are no camel case.

    Raises: ValueError for what the standard mapping's reader lets pass.
    """
    if isinstance(value, list):
        return [_undeviated(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {}
    for key, each in value.items():
        if key in ENUM_KEYS and isinstance(each, str):
            raise ValueError("the name of an enum value")
        if (
            key in LIST_KEYS
            and isinstance(each, list)
            and not all(isinstance(x, dict) for x in each)
        ):
            raise ValueError("a message that is no object")
        if key in ID_KEYS and isinstance(each, str):
            made[key] = base64.b64encode(bytes.fromhex(each)).decode()
        elif key == "bytesValue":
            made[key] = base64.b64encode(_bytes_of(each)).decode()
        elif "_" not in key:
            made[key] = _undeviated(each)
    return made


def _bytes_of(text: str) -> bytes:
    """Decode base64 with or without padding; the standard mapping's reader lets signs pass."""
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def read_json(signal: Signal, body: bytes) -> Any:
    """Read a request in JSON; any fault is a ValueError, a RecursionError or a ParseError."""
    document = json.loads(
        body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant
    )
    message = signal.request()
    return json_format.ParseDict(_undeviated(document), message, ignore_unknown_fields=True)


# --- the cases ---------------------------------------------------------------------------------


def _tried(*, status: bool) -> list[object]:
    return [
        pytest.param(row, signal, via, id=f"{row.case}-{via.name.lower()}-{signal.name}")
        for row in rows()
        for via in row.vias
        for signal in row.signals
        if row.answer.is_status is status
        and (not status or row.case in UNREADABLE)
        # The same bytes go over gRPC.
        and (via is not Via.GRPC or Via.PROTOBUF not in row.vias)
    ]


UNREADABLE: Final = frozenset({**cases_protobuf.CASES, **cases_json.CASES})


@pytest.mark.parametrize(("row", "signal", "via"), _tried(status=False))
def test_request_that_is_taken_holds_so_many_items(row: Any, signal: Signal, via: Via) -> None:
    body = inflated(CASES[row.case](signal, via))
    read = read_json if via is Via.JSON else read_protobuf
    items = items_of(signal, read(signal, body))
    assert items == row.kept + row.answer.rejected
    assert row.answer.items in (0, items)


@pytest.mark.parametrize(("row", "signal", "via"), _tried(status=True))
def test_request_that_cannot_be_read_is_refused(row: Any, signal: Signal, via: Via) -> None:
    body = CASES[row.case](signal, via).body
    if via is Via.JSON:
        with pytest.raises((ValueError, RecursionError, json_format.ParseError)):
            read_json(signal, body)
    else:
        with pytest.raises(DecodeError):
            signal.request.FromString(body)
