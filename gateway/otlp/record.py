"""Read one log record's attributes as typed, bounded values.

Law: a value is what its key asks for, or there is a reason of a closed list why it is none. Texts
that may become labels are restricted in characters and length, because they leave the site.
"""

import math
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, TypeVar

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from gateway.batch import API_IDENTITY, Parcel
from gateway.otlp import keys
from gateway.otlp.declared import Scalar

Choice = TypeVar("Choice", bound=StrEnum)

# A clock that is further ahead than this is not believed.
AHEAD_NS: Final = 120 * 1_000_000_000
TEXT_BYTES_MAX: Final = 256
ID_ALLOWED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,127}")
VERSION_ALLOWED: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
# `_OTHER` is an error type of the semantic conventions.
ERROR_ALLOWED: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:/+-]{0,127}")
CURRENCY_ALLOWED: Final = re.compile(r"[A-Z]{3}")
TRACE_ID_ALLOWED: Final = re.compile(r"[0-9a-fA-F]{32}")
TRACE_ID_BYTES: Final = 16

# What a record leaves out and its resource says.
INHERITED: Final = frozenset(
    {keys.MODEL, keys.VERSION, keys.ROLLOUT_ID, keys.DEVICE_ID, keys.INSTANCE_ID}
)


class Unreadable(StrEnum):
    """Why a record with the name of an event is none."""

    MALFORMED = "malformed"  # the request is no protobuf of logs
    MISSING = "missing_attribute"
    DUPLICATE = "duplicate_attribute"
    BAD_VALUE = "bad_value"  # of another type, or outside its range
    BAD_ID = "bad_id"  # characters or length that may not become a label
    BAD_VERSION = "bad_version"
    BAD_TIME = "bad_time"  # ahead of time, where that means something else than a wrong clock
    NOT_ALLOWED = "not_allowed"  # the sender may not declare this
    TOO_MANY = "too_many"


class UnusableError(ValueError):
    """A record is no event; the only argument is the reason."""

    def __init__(self, reason: Unreadable) -> None:
        super().__init__(reason)
        self.reason = reason


class Record:
    """One log record under its resource and its sender, as typed values."""

    def __init__(
        self, parcel: Parcel, resource: Mapping[str, Scalar | None], record: LogRecord
    ) -> None:
        own = values_of(record.attributes)
        self.own_device = own.get(keys.DEVICE_ID)
        self._values = {key: resource[key] for key in INHERITED & resource.keys()} | own
        self._parcel = parcel
        self._record = record

    @property
    def at_ns(self) -> int:
        """Time of the event by its sender, as far as it can be believed."""
        arrival_ns = self._parcel.arrival_ns
        return min(self._told_ns or arrival_ns, arrival_ns + AHEAD_NS)

    @property
    def _told_ns(self) -> int:
        return self._record.time_unix_nano or self._record.observed_time_unix_nano

    @property
    def believed_ns(self) -> int:
        """Time of an event that divides others by theirs: one that is far ahead is none."""
        if self._told_ns > self._parcel.arrival_ns + AHEAD_NS:
            raise UnusableError(Unreadable.BAD_TIME)
        return self.at_ns

    @property
    def device(self) -> str:
        """Who sent it: its authenticated identity, else the device that it names."""
        if self._parcel.identity not in ("", API_IDENTITY):
            return self._parcel.identity
        return self.named_device

    @property
    def named_device(self) -> str:
        """The device that the record or its resource names; empty if there is no usable name."""
        for key in (keys.DEVICE_ID, keys.INSTANCE_ID):
            found = self._values.get(key)
            if isinstance(found, str) and is_plain(found):
                return found
        return ""

    @property
    def trace_id(self) -> bytes:
        """The trace that it is about."""
        found = self._record.trace_id
        if not found:
            text = self.text(keys.TRACE_ID)
            if TRACE_ID_ALLOWED.fullmatch(text) is None:
                raise UnusableError(Unreadable.BAD_ID)
            found = bytes.fromhex(text)
        if len(found) != TRACE_ID_BYTES or not any(found):
            raise UnusableError(Unreadable.BAD_ID)
        return found

    def value(self, key: str) -> Scalar:
        """Return a scalar that must be there."""
        if key not in self._values:
            raise UnusableError(Unreadable.MISSING)
        found = self._values[key]
        if found is None:
            raise UnusableError(Unreadable.DUPLICATE)
        if isinstance(found, str) and not is_plain(found):
            raise UnusableError(Unreadable.BAD_VALUE)
        if isinstance(found, float) and not math.isfinite(found):
            raise UnusableError(Unreadable.BAD_VALUE)
        return found

    def text(self, key: str, default: str | None = None) -> str:
        """Return a short text of printable characters."""
        if default is not None and key not in self._values:
            return default
        found = self.value(key)
        if not isinstance(found, str):
            raise UnusableError(Unreadable.BAD_VALUE)
        return found

    def id(self, key: str, default: str | None = None) -> str:
        """Return a text that may become a label."""
        return self._matching(key, ID_ALLOWED, Unreadable.BAD_ID, default)

    def version(self, key: str, default: str | None = None) -> str:
        """Return a text that may become the label of a version."""
        return self._matching(key, VERSION_ALLOWED, Unreadable.BAD_VERSION, default)

    def currency(self) -> str:
        """Return three capital letters."""
        return self._matching(keys.CURRENCY, CURRENCY_ALLOWED, Unreadable.BAD_VALUE, None)

    def _matching(
        self, key: str, allowed: re.Pattern[str], reason: Unreadable, default: str | None
    ) -> str:
        found = self.text(key, default)
        if found != default and allowed.fullmatch(found) is None:
            raise UnusableError(reason)
        return found

    def error(self, default: str | None = None) -> str:
        """Return the class of an error, which may be `_OTHER` by the semantic conventions."""
        return self._matching(keys.ERROR_TYPE, ERROR_ALLOWED, Unreadable.BAD_VALUE, default)

    def one_of(self, key: str, kind: type[Choice], default: Choice) -> Choice:
        """Return a member of a closed set."""
        text = self.text(key, default)
        try:
            return kind(text)
        except ValueError as error:
            raise UnusableError(Unreadable.BAD_VALUE) from error

    def number(self, key: str, most: float) -> float:
        """Return a number from 0 to `most`."""
        found = self.value(key)
        if isinstance(found, bool | str) or not 0 <= found <= most:
            raise UnusableError(Unreadable.BAD_VALUE)
        return float(found)

    def whole(self, key: str, least: int, most: int) -> int:
        """Return a whole number between the two."""
        found = self.value(key)
        if isinstance(found, bool | str | float) or not least <= found <= most:
            raise UnusableError(Unreadable.BAD_VALUE)
        return found

    def has(self, key: str) -> bool:
        """Tell whether there is such an attribute."""
        return key in self._values


def is_plain(text: str) -> bool:
    """Tell whether a text is short, not empty and printable."""
    return text.isprintable() and 0 < len(text.encode()) <= TEXT_BYTES_MAX


def values_of(attributes: Iterable[KeyValue]) -> dict[str, Scalar | None]:
    """Read attributes; None where a key stands twice, because two readers disagree which wins."""
    found: dict[str, Scalar | None] = {}
    for pair in attributes:
        kind = pair.value.WhichOneof("value")
        if pair.key in found:
            found[pair.key] = None
        elif kind in ("string_value", "int_value", "double_value", "bool_value"):
            found[pair.key] = getattr(pair.value, kind)
        else:
            # Bytes, lists and mappings are no value of any attribute here: an empty text is none.
            found[pair.key] = ""
    return found
