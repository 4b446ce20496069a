"""Lines of ground truth: one line is one label, as CSV or as JSON.

Law: a line gives one label or one reason of a closed list why it is none; nothing is guessed. What
the gateway would refuse is refused here, where its line number is known.

CSV has a header line that names its columns; a field has no line break in it. Times are RFC 3339
with a zone, or whole Unix nanoseconds.
"""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from collectors.messages import INT_MAX, INT_MIN, TRACE_ID_BYTES, Value, maybe_id
from gateway.errors import MalformedPayloadError, StartError

LINE_BYTES_MAX: Final = 64 << 10
TEXT_BYTES_MAX: Final = 256
NS_PER_S: Final = 1_000_000_000
TIME_NS_MAX: Final = (1 << 63) - 1
FIELDS: Final = ("trace_id", "value", "model", "time")
_TRUTH: Final = {"true": True, "false": False}


class Layout(StrEnum):
    """How a line is written."""

    CSV = "csv"
    JSONL = "jsonl"


class ValueType(StrEnum):
    """What the values of a CSV file are; JSON says it itself."""

    STRING = "string"
    INT = "int"
    DOUBLE = "double"
    BOOL = "bool"


class Bad(StrEnum):
    """Why a line is no label."""

    ENCODING = "not_utf8"
    TOO_LONG = "line_too_long"
    SYNTAX = "not_csv_or_json"
    COLUMNS = "wrong_columns"
    TRACE_ID = "trace_id"
    VALUE = "value"
    MODEL = "model"
    TIME = "time"


class BadLineError(MalformedPayloadError):
    """A line is no label; `reason` counts, the text explains."""

    def __init__(self, reason: Bad, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One ground truth. Units: time_ns Unix nanoseconds, 0 when the line has no time."""

    trace_id: bytes
    value: Value
    model: str = ""
    time_ns: int = 0


class Reader:
    """Reads lines of one file; a CSV's header is its first line."""

    def __init__(self, layout: Layout, value_type: ValueType = ValueType.STRING) -> None:
        self._layout = layout
        self._value_type = value_type
        self._columns: list[str] = []

    @property
    def wants_header(self) -> bool:
        """Tell whether the next line must be the header."""
        return self._layout is Layout.CSV and not self._columns

    def forget_header(self) -> None:
        """Begin another file."""
        self._columns = []

    def take_header(self, line: bytes) -> None:
        """Read the names of the columns. Raises: StartError that names what is expected."""
        try:
            columns = [name.strip() for name in _row(_text(line.removeprefix(b"\xef\xbb\xbf")))]
        except BadLineError as error:
            raise StartError(f"the header line cannot be read: {error}") from error
        unknown = [name for name in columns if name not in FIELDS]
        if unknown or len(set(columns)) < len(columns) or not {"trace_id", "value"} <= {*columns}:
            raise StartError(
                f"the header line has the columns {', '.join(columns)[:200]}: write"
                f" trace_id,value and, if known, {' and '.join(FIELDS[2:])}"
            )
        self._columns = columns

    def read(self, line: bytes) -> Label:
        """Read one line. Raises: BadLineError."""
        assert not self.wants_header
        text = _text(line)
        if self._layout is Layout.CSV:
            row = _row(text)
            if len(row) != len(self._columns):
                raise BadLineError(
                    Bad.COLUMNS, f"{len(row)} fields instead of {len(self._columns)}"
                )
            fields: Mapping[str, Any] = dict(zip(self._columns, row, strict=True))
            value: Any = _typed(fields["value"], self._value_type)
        else:
            fields = _object(text)
            value = fields.get("value")
        return Label(
            trace_id=_trace_id(fields.get("trace_id")),
            value=_value(value),
            model=_model(fields.get("model")),
            time_ns=_time_ns(fields.get("time")),
        )


def _text(line: bytes) -> str:
    if len(line) > LINE_BYTES_MAX:
        raise BadLineError(Bad.TOO_LONG, f"the line is longer than {LINE_BYTES_MAX} bytes")
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise BadLineError(Bad.ENCODING, "the line is not UTF-8") from error


def _row(text: str) -> list[str]:
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise BadLineError(Bad.SYNTAX, f"not a line of CSV: {error}") from error
    return rows[0] if rows else []


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadLineError(Bad.SYNTAX, f"not a JSON object: {error}") from error
    if not isinstance(found, dict):
        raise BadLineError(Bad.SYNTAX, 'not a JSON object: write {"trace_id": …, "value": …}')
    unknown = [name for name in found if name not in FIELDS]
    if unknown:
        raise BadLineError(
            Bad.COLUMNS, f"unknown field {unknown[0][:40]!r}: write {', '.join(FIELDS)}"
        )
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _typed(text: str, kind: ValueType) -> Value:
    """Turn the text of a CSV field into its type."""
    try:
        match kind:
            case ValueType.INT:
                return int(text)
            case ValueType.DOUBLE:
                return float(text)
            case ValueType.BOOL:
                return _TRUTH[text.strip().lower()]
            case ValueType.STRING:
                return text
    except (ValueError, KeyError) as error:
        raise BadLineError(Bad.VALUE, f"value {text[:40]!r} is no {kind}") from error


def _trace_id(value: Any) -> bytes:
    found = maybe_id(value.strip(), TRACE_ID_BYTES) if isinstance(value, str) else None
    if found is None:
        raise BadLineError(Bad.TRACE_ID, "trace_id must be 32 hexadecimal digits, not all zero")
    return found


def _value(value: Any) -> Value:
    match value:
        case bool():
            return value
        case int() if INT_MIN <= value <= INT_MAX:
            return value
        case float() if math.isfinite(value):
            return value
        case str() if _is_plain(value):
            return value
    raise BadLineError(
        Bad.VALUE,
        f"value must be true, false, a finite number of 64 bits or 1 to {TEXT_BYTES_MAX} bytes of"
        " printable text",
    )


def _model(value: Any) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not _is_plain(value):
        raise BadLineError(Bad.MODEL, f"model must be up to {TEXT_BYTES_MAX} bytes of text")
    return value


def _time_ns(value: Any) -> int:
    if value is None or value == "":
        return 0
    found = -1
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        found = int(value)
    elif isinstance(value, str):
        found = _moment_ns(value)
    if not 0 <= found <= TIME_NS_MAX:
        raise BadLineError(
            Bad.TIME, "time must be like 2026-01-31T12:00:00Z, or whole Unix nanoseconds"
        )
    return found


def _moment_ns(text: str) -> int:
    """Read RFC 3339; -1 when it is none or has no zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return -1
    if moment.tzinfo is None:
        return -1
    whole = moment.replace(microsecond=0)
    return int(whole.timestamp()) * NS_PER_S + moment.microsecond * 1_000


def _is_plain(text: str) -> bool:
    return text.isprintable() and 0 < len(text.encode("utf-8", "replace")) <= TEXT_BYTES_MAX
