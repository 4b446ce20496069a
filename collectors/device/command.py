"""What the gateway asks of a device, as the device reads it.

Law: a command that is not exactly of this form is refused, not guessed at. Times of the gateway's
clock are never compared with the device's: leases arrive as durations.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from collectors.device.segment import TRACE_ID_BYTES
from gateway.errors import MalformedPayloadError

TRACE_IDS_MAX: Final = 2_000
CHUNK_BYTES: Final = 256 * 1024
CHUNK_BYTES_MIN: Final = 4 * 1024
ID_TEXT_MAX: Final = 64
INTEGER_MAX: Final = (1 << 63) - 1
NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A span of time of writing on this device, both ends included; Unix nanoseconds."""

    from_ns: int
    to_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One `retrieve`. Without trace ids everything in the window is meant.

    Units: pin_ns is how long matching segments are to be held; bytes are OTLP before compression.
    """

    request_id: str
    trace_ids: tuple[bytes, ...]
    window: Window | None
    max_bytes: int
    chunk_bytes: int
    priority: int
    pin_ns: int


def parse_command(data: bytes) -> Command:
    """Read the data of a `retrieve` message.

    Raises MalformedPayloadError.
    """
    try:
        body = json.loads(data)
        window = body["window"]
        command = Command(
            request_id=parse_request_id(body),
            trace_ids=tuple(_trace_id(text) for text in _listed(body["trace_ids"])),
            window=None
            if window is None
            else Window(from_ns=_whole(window["from_ns"]), to_ns=_whole(window["to_ns"])),
            max_bytes=_whole(body["max_bytes"]),
            chunk_bytes=max(CHUNK_BYTES_MIN, _whole(body["chunk_bytes"])),
            priority=_whole(body["priority"]),
            pin_ns=_whole(body["pin_s"]) * NS_PER_S,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise MalformedPayloadError("the retrieve command is not understood") from error
    if not command.trace_ids and command.window is None:
        raise MalformedPayloadError("the retrieve command selects nothing")
    return command


def parse_reference(data: bytes) -> tuple[str, int]:
    """Read the data of `ack` or `release`: (request id, number of the next chunk).

    Raises MalformedPayloadError.
    """
    try:
        body = json.loads(data)
        return parse_request_id(body), _whole(body.get("next_seq", 0))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise MalformedPayloadError("the message of the gateway is not understood") from error


def parse_request_id(body: Any) -> str:
    """Read the request id that every message carries.

    Raises ValueError, TypeError or KeyError.
    """
    text = body["request_id"]
    if not isinstance(text, str) or not 0 < len(text) <= ID_TEXT_MAX:
        raise ValueError("request_id")
    return text


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > TRACE_IDS_MAX:
        raise ValueError("trace_ids")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= INTEGER_MAX:
        raise ValueError("number")
    return value


def _trace_id(value: Any) -> bytes:
    trace_id = bytes.fromhex(value)
    if len(trace_id) != TRACE_ID_BYTES:
        raise ValueError("trace id")
    return trace_id
