"""What a destination's answer means: taken, try again, or never.

Law: the two tables of the OTLP specification ("Failures" and "Retryable response codes") are here
and nowhere else in this room.
"""

from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from gateway.errors import DeliveryError
from gateway.forward.backoff import RETRY_AFTER_S_MAX

TEXT_CHARS_MAX: Final = 300

HTTP_RETRYABLE: Final = frozenset({429, 502, 503, 504})
HTTP_TOO_LARGE: Final = 413

GRPC_RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

_STATUS_KEY: Final = "grpc-status-details-bin"
_RETRY_KEY: Final = "google.rpc.retryinfo-bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The destination took the frame, all but `rejected` items; `message` may warn."""

    rejected: int
    message: str


class FrameTooLargeError(DeliveryError):
    """The destination takes no request of this size; smaller ones may pass."""


def error_of_status(status: int, text: str, hint_s: float | None) -> DeliveryError:
    """Classify an HTTP status that is no success."""
    message = f"HTTP {status}" + (f": {text}" if text else "")
    if status == HTTP_TOO_LARGE:
        return FrameTooLargeError(message, permanent=True)
    # A redirect is no word of the destination about the data: often a portal on the way.
    permanent = status not in HTTP_RETRYABLE and not 300 <= status < 400
    return DeliveryError(message, permanent=permanent, retry_after_s=None if permanent else hint_s)


def error_of_grpc(error: grpc.aio.AioRpcError) -> DeliveryError:
    """Classify a failed call."""
    code = error.code()
    hint_s = _maybe_hint_s(error)
    message = f"gRPC {code.name}: {plain(error.details() or '')}"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and hint_s is None:
        # Without a hint it is a limit on size, which smaller requests may pass.
        return FrameTooLargeError(message, permanent=True)
    retryable = code in GRPC_RETRYABLE or code is grpc.StatusCode.RESOURCE_EXHAUSTED
    return DeliveryError(
        message, permanent=not retryable, retry_after_s=hint_s if retryable else None
    )


def plain(text: str) -> str:
    """Make a foreign text fit for one line of a log."""
    return "".join(c if c.isprintable() else " " for c in text[:TEXT_CHARS_MAX]).strip()


def _maybe_hint_s(error: grpc.aio.AioRpcError) -> float | None:
    """Read RetryInfo from either of the two trailers that servers use."""
    for key, value in error.trailing_metadata() or ():
        if not isinstance(value, bytes):
            continue
        try:
            if key == _RETRY_KEY:
                return _seconds(error_details_pb2.RetryInfo.FromString(value))
            if key == _STATUS_KEY:
                for detail in status_pb2.Status.FromString(value).details:
                    info = error_details_pb2.RetryInfo()
                    if detail.Unpack(info):
                        return _seconds(info)
        except DecodeError:
            continue
    return None


def _seconds(info: error_details_pb2.RetryInfo) -> float:
    seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return min(max(0.0, seconds), RETRY_AFTER_S_MAX)
