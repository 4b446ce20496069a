"""What the gateway's answer means for a request: taken, try again later, or refused for good.

Law: the two tables of the OTLP specification ("Failures" and "Retryable response codes") are here
and nowhere else in the collectors. Texts of the other side are cut and made printable.
"""

import random
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

TEXT_CHARS_MAX: Final = 300
# A longer hint is taken for a mistake of the other side.
RETRY_AFTER_S_MAX: Final = 3_600.0
# Part of a hint that is added at random, so that senders told the same do not return together.
HINT_SPREAD_RATIO: Final = 0.1
BACKOFF_DOUBLINGS_MAX: Final = 30

HTTP_RETRYABLE: Final = frozenset({429, 502, 503, 504})
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
# The trailer that servers send RetryInfo in, and the one that Python's exporters look for.
_STATUS_KEY: Final = "grpc-status-details-bin"
_RETRY_KEY: Final = "google.rpc.retryinfo-bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The request was taken, all but `rejected` items; `message` may warn or say why."""

    rejected: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """The same request may be sent again. Units: hint_s is the server's wish, None without one."""

    message: str
    hint_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The request must not be sent again."""

    message: str


Outcome = Taken | Later | Refused


def outcome_of_http(status: int, body: bytes, protobuf: bool, hint_s: float | None) -> Outcome:
    """Read an HTTP answer; `protobuf` says that its content type is OTLP's."""
    if 200 <= status < 300:
        if not protobuf and body:
            # A captive portal or a proxy answers anything with a page.
            return Later(message=f"HTTP {status} with a body that is not OTLP")
        return taken(body)
    text = _status_text(body) if protobuf else ""
    message = f"HTTP {status}" + (f": {text}" if text else "")
    # A redirect is no word of the gateway about the data: often a portal on the way.
    if status in HTTP_RETRYABLE or 300 <= status < 400:
        return Later(message=message, hint_s=hint_s)
    return Refused(message=message)


def outcome_of_grpc(error: grpc.RpcError) -> Later | Refused:
    """Read a failed call."""
    code, hint_s = error.code(), _maybe_hint_s(error)
    message = f"gRPC {code.name}: {plain(error.details() or '')}"
    # Without a hint it is a limit on size, which waiting does not lift.
    exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED and hint_s is not None
    if code in GRPC_RETRYABLE or exhausted:
        return Later(message=message, hint_s=hint_s)
    return Refused(message=message)


def taken(body: bytes) -> Taken:
    """Read how many items were rejected; an unreadable answer to a success is a success."""
    # The field numbers are the same for all signals.
    response = trace_service_pb2.ExportTraceServiceResponse()
    try:
        response.ParseFromString(body)
    except DecodeError:
        return Taken(message="the answer cannot be read")
    partial = response.partial_success
    return Taken(rejected=max(0, partial.rejected_spans), message=plain(partial.error_message))


def plain(text: str) -> str:
    """Make a foreign text fit for one line of a log."""
    return "".join(c if c.isprintable() else " " for c in text[:TEXT_CHARS_MAX]).strip()


def maybe_retry_after_s(text: str | None, now_unix_s: float) -> float | None:
    """Read a Retry-After header: seconds, or an HTTP date; None when absent or senseless.

    Source: RFC 9110, section 10.2.3.
    """
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), RETRY_AFTER_S_MAX)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, moment.timestamp() - now_unix_s), RETRY_AFTER_S_MAX)


def pause_s(
    failures: int, hint_s: float | None, rng: random.Random, *, least_s: float, most_s: float
) -> float:
    """Say how long to wait after so many failures in a row; a hint replaces the exponential.

    Source: M. Brooker, "Exponential Backoff and Jitter", 2015: full jitter.
    """
    if hint_s is not None:
        hint = min(max(hint_s, least_s), RETRY_AFTER_S_MAX)
        return hint * (1.0 + rng.uniform(0.0, HINT_SPREAD_RATIO))
    doublings = min(max(0, failures - 1), BACKOFF_DOUBLINGS_MAX)
    return rng.uniform(0.0, min(most_s, least_s * 2.0**doublings))


def _status_text(body: bytes) -> str:
    """Take the developer-facing message out of an error's body."""
    status = status_pb2.Status()
    try:
        status.ParseFromString(body)
    except DecodeError:
        return ""
    return plain(status.message)


def _maybe_hint_s(error: grpc.RpcError) -> float | None:
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
