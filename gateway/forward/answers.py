"""What a destination's answer means for a frame: taken, try again, or never.

Law: what may be tried again is OTLP's to say, in `gateway.otlp.answers`.
"""

from dataclasses import dataclass
from typing import Final

import grpc

from gateway.errors import DeliveryError
from gateway.otlp.answers import is_retryable_grpc, is_retryable_http, maybe_retry_info_s, plain

HTTP_TOO_LARGE: Final = 413


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
    permanent = not is_retryable_http(status)
    return DeliveryError(message, permanent=permanent, retry_after_s=None if permanent else hint_s)


def error_of_grpc(error: grpc.aio.AioRpcError) -> DeliveryError:
    """Classify a failed call."""
    code, hint_s = error.code(), maybe_retry_info_s(error)
    message = f"gRPC {code.name}: {plain(error.details() or '')}"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and hint_s is None:
        # Without a hint it is a limit on size, which smaller requests may pass.
        return FrameTooLargeError(message, permanent=True)
    permanent = not is_retryable_grpc(code, hint_s)
    return DeliveryError(message, permanent=permanent, retry_after_s=None if permanent else hint_s)
