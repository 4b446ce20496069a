"""The slow oracle of OTLP/JSON: official messages as its text, and its text as official messages.

Law: the reader goes through Python's own json and official objects; it shares no code with the
walker that it judges. It says whether a text is legal, not which of several faults comes first.

Source: OTLP specification, "JSON Protobuf Encoding"; protobuf's JSON mapping; RFC 8259.
"""

import base64
import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from tests.signals import ID_BYTES, INTEGERS, PROFILES_ONLY

LEVELS_MAX: Final = 64
NESTED_MAX: Final = 16
NUMBER_BYTES_MAX: Final = 4_096
NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
NAMED_DOUBLES: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class RefusedError(Exception):
    """The text is not OTLP/JSON."""


class Number(str):
    """A number as it is written."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """The members of an object in their order."""


# --- writing --------------------------------------------------------------------------------


def to_plain(message: Any) -> dict[str, Any]:
    """Return a message as the values that OTLP/JSON has for it."""
    found = json_format.MessageToDict(message, use_integers_for_enums=True)
    _turn_ids(found)
    return found


def _turn_ids(value: Any) -> None:
    """Write ids in hexadecimal, as OTLP deviates from protobuf's mapping."""
    if isinstance(value, list):
        for each in value:
            _turn_ids(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key in ("traceId", "spanId", "parentSpanId"):
                value[key] = base64.b64decode(each).hex()
            else:
                _turn_ids(each)


# --- reading --------------------------------------------------------------------------------


def read(text: bytes, request: Any) -> tuple[Any, int]:
    """Read a request; returns the official message and the count of unknown keys.

    Raises: RefusedError.
    """
    try:
        tree = json.loads(
            text.decode(),
            object_pairs_hook=Pairs,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise RefusedError("not JSON") from error
    _require(isinstance(tree, Pairs), "not an object")
    _check_tree(tree, 1)
    message = request()
    ignored = _read_object(message, tree, 0)
    return message, ignored


def _require(fact: bool, why: str) -> None:
    if not fact:
        raise RefusedError(why)


def _refuse_constant(name: str) -> None:
    raise RefusedError(name)


def _check_tree(value: Any, level: int) -> None:
    """Check what holds for every value, known or not."""
    for text in _texts(value):
        _require(not any(0xD800 <= ord(sign) <= 0xDFFF for sign in text), "half of a pair")
    if isinstance(value, Number):
        _require(len(value) <= NUMBER_BYTES_MAX, "a long number")
    if isinstance(value, list):
        _require(level <= LEVELS_MAX, "too deep")
        for each in value:
            _check_tree(each[1] if isinstance(value, Pairs) else each, level + 1)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Pairs):
        yield from (key for key, _ in value)
    elif isinstance(value, str):
        yield value


def _read_object(message: Any, pairs: Any, nested: int) -> int:
    _require(isinstance(pairs, Pairs), "an object is expected")
    nested += message.DESCRIPTOR.name == "AnyValue"
    _require(nested <= NESTED_MAX, "values too deep")
    fields = {field.json_name: field for field in message.DESCRIPTOR.fields}
    ignored, seen, given = 0, set(), set()
    for key, value in pairs:
        field = fields.get(key)
        if field is None:
            ignored += 1
            continue
        _require(key not in seen, "twice")
        seen.add(key)
        if value is None:
            continue
        _require(field.name not in PROFILES_ONLY, "profiles")
        if field.containing_oneof is not None:
            _require(field.containing_oneof.name not in given, "two members")
            given.add(field.containing_oneof.name)
        ignored += _read_field(message, field, value, nested)
    return ignored


def _read_field(message: Any, field: FieldDescriptor, value: Any, nested: int) -> int:
    if not field.is_repeated:
        if field.message_type is None:
            setattr(message, field.name, _read_scalar(field, value))
            return 0
        child = getattr(message, field.name)
        child.SetInParent()
        return _read_object(child, value, nested)
    _require(isinstance(value, list) and not isinstance(value, Pairs), "an array is expected")
    ignored = 0
    for each in value:
        if field.message_type is None:
            getattr(message, field.name).append(_read_scalar(field, each))
        else:
            ignored += _read_object(getattr(message, field.name).add(), each, nested)
    return ignored


def _read_scalar(field: FieldDescriptor, value: Any) -> Any:
    is_text = isinstance(value, str) and not isinstance(value, Number)
    if field.type == FieldDescriptor.TYPE_STRING:
        _require(is_text, "a string is expected")
        return value
    if field.type == FieldDescriptor.TYPE_BYTES:
        _require(is_text, "a string is expected")
        return _hex(value) if field.name in ID_BYTES else _base64(value)
    if field.type == FieldDescriptor.TYPE_BOOL:
        _require(isinstance(value, bool), "true or false is expected")
        return value
    if field.type == FieldDescriptor.TYPE_DOUBLE and is_text and value in NAMED_DOUBLES:
        return NAMED_DOUBLES[value]
    _require(isinstance(value, str), "a number is expected")
    _require(NUMBER.fullmatch(value) is not None, "not a number")
    _require(len(value) <= NUMBER_BYTES_MAX, "a long number")
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        _require(math.isfinite(float(value)), "out of range")
        return float(value)
    _require(field.type != FieldDescriptor.TYPE_ENUM or not is_text, "the name of an enum")
    return _integer(value, *INTEGERS[field.type])


def _integer(text: str, low: int, high: int) -> int:
    mantissa, _, exponent = text.lower().partition("e")
    if not mantissa.strip("-0."):
        return 0
    # Decimal has limits of its own, far above those of a number that can be an integer here.
    _require(abs(int(exponent or 0)) <= 2 * NUMBER_BYTES_MAX, "out of range")
    number = Decimal(text)
    _require(number.adjusted() < 20, "out of range")
    _require(number == number.to_integral_value(), "not an integer")
    _require(low <= int(number) <= high, "out of range")
    return int(number)


def _hex(text: str) -> bytes:
    _require(re.fullmatch(r"([0-9a-fA-F]{2})*", text, re.ASCII) is not None, "not hexadecimal")
    return bytes.fromhex(text)


def _base64(text: str) -> bytes:
    found = re.fullmatch(r"([A-Za-z0-9+/_-]*)(={0,2})", text, re.ASCII)
    _require(found is not None, "not base64")
    assert found is not None
    digits, padding = found.groups()
    _require(len(digits) % 4 != 1, "not base64")
    _require(not padding or (len(text) % 4 == 0), "half a padding")
    return base64.urlsafe_b64decode(digits.translate({43: 45, 47: 95}) + "=" * (-len(digits) % 4))
