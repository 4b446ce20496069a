"""What the other side of OTLP answers, read alike wherever Weir is the one that sends.

Law: the two tables of the OTLP specification ("Failures" and "Retryable response codes") are here
and nowhere else. Texts of the other side are cut and made printable. Pure.
"""

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

TEXT_CHARS_MAX: Final = 300
# A longer hint is taken for a mistake of the other side.
RETRY_AFTER_S_MAX: Final = 3600.0

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


def is_retryable_http(status: int) -> bool:
    """Tell whether the same request may be sent again after a status that is no success.

    A redirect is no word of the other side about the data: often a portal on the way.
    """
    return status in HTTP_RETRYABLE or 300 <= status < 400


def is_retryable_grpc(code: grpc.StatusCode, hint_s: float | None) -> bool:
    """Tell whether the same call may be made again after a failure.

    Exhausted resources without a hint are a limit on size, which waiting does not lift.
    """
    exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED and hint_s is not None
    return code in GRPC_RETRYABLE or exhausted


def partial_success(body: bytes) -> tuple[int, str]:
    """Read how many items a success refused, and its words; one that is unreadable refused none."""
    # The field numbers are the same for all signals.
    response = trace_service_pb2.ExportTraceServiceResponse()
    try:
        response.ParseFromString(body)
    except DecodeError:
        return 0, "the answer is no ExportTraceServiceResponse"
    partial = response.partial_success
    return max(0, partial.rejected_spans), plain(partial.error_message)


def status_text(body: bytes) -> str:
    """Take the developer-facing message out of an error's protobuf body; "" if there is none."""
    status = status_pb2.Status()
    try:
        status.ParseFromString(body)
    except DecodeError:
        return ""
    return plain(status.message)


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
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, moment.timestamp() - now_unix_s), RETRY_AFTER_S_MAX)


def maybe_retry_info_s(error: grpc.RpcError) -> float | None:
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
