"""What a client of the intake is told: export responses and `google.rpc.Status` bodies.

Law: an answer carries RetryInfo exactly when the same request may be sent again, because clients
drop the data of every other failure and resend the data of this one.
Source: OTLP specification 1.x, "Success", "Partial Success", "Failures" and "Throttling".
"""

from typing import Any, Final

from google.protobuf import any_pb2, duration_pb2, json_format
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from gateway.batch import Receipt, Signal
from gateway.errors import (
    UNEXPECTED,
    MalformedPayloadError,
    RequestError,
    WeirError,
    answer_of,
)

# An empty message has no bytes in protobuf; full success leaves `partial_success` unset.
EMPTY_SUCCESS: Final = b""
EMPTY_SUCCESS_JSON: Final = b"{}"

# Long enough for the kernel's longest reason, short enough for every client's header limits:
# gRPC clients refuse trailers above 8 KiB and the text is sent twice.
MESSAGE_CHARACTERS_MAX: Final = 1024

RETRY_AFTER_UNEXPECTED_S: Final = 1.0

# The response of each signal and its field for the count of rejected items.
_RESPONSES: Final[dict[Signal, tuple[Any, str]]] = {
    Signal.TRACES: (ExportTraceServiceResponse, "rejected_spans"),
    Signal.METRICS: (ExportMetricsServiceResponse, "rejected_data_points"),
    Signal.LOGS: (ExportLogsServiceResponse, "rejected_log_records"),
}


def export_reply(signal: Signal, receipt: Receipt) -> bytes:
    """Encode the export response of a receipt as protobuf."""
    if receipt.rejected == 0 and not receipt.reason:
        return EMPTY_SUCCESS
    return bytes(_export_message(signal, receipt).SerializeToString())


def export_reply_json(signal: Signal, receipt: Receipt) -> bytes:
    """Encode the export response of a receipt as JSON; 64-bit integers are strings in it."""
    if receipt.rejected == 0 and not receipt.reason:
        return EMPTY_SUCCESS_JSON
    return json_format.MessageToJson(_export_message(signal, receipt), indent=None).encode()


def _export_message(signal: Signal, receipt: Receipt) -> Any:
    response, rejected = _RESPONSES[signal]
    message = response()
    setattr(message.partial_success, rejected, receipt.rejected)
    message.partial_success.error_message = receipt.reason[:MESSAGE_CHARACTERS_MAX]
    return message


def retry_delay_s(error: WeirError) -> float | None:
    """Say after how many seconds the request may be sent again; None means never."""
    if isinstance(error, RequestError) and error.retry_after_s is not None:
        return error.retry_after_s
    if answer_of(error) is UNEXPECTED:
        return RETRY_AFTER_UNEXPECTED_S
    return None


def retry_info(delay_s: float) -> bytes:
    """Encode a bare RetryInfo, which Python exporters look for under its own trailer key."""
    return bytes(_retry_info(delay_s).SerializeToString())


def status(error: WeirError, delay_s: float | None) -> bytes:
    """Encode the Status of an error as protobuf; delay_s None leaves RetryInfo out."""
    return bytes(status_message(error, delay_s).SerializeToString())


def status_json(error: WeirError, delay_s: float | None) -> bytes:
    """Encode the Status of an error as JSON, for clients that speak OTLP/JSON."""
    text = json_format.MessageToJson(status_message(error, delay_s), indent=None)
    return text.encode()


def message_of(error: WeirError) -> str:
    """Cut the text of an error to what an answer may carry."""
    return str(error)[:MESSAGE_CHARACTERS_MAX]


def status_message(error: WeirError, delay_s: float | None) -> Any:
    """Build the google.rpc.Status of an error; delay_s None leaves RetryInfo out."""
    message = message_of(error)
    details = []
    if isinstance(error, MalformedPayloadError):
        violation = error_details_pb2.BadRequest.FieldViolation(field="body", description=message)
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if delay_s is not None:
        details.append(_packed(_retry_info(delay_s)))
    return status_pb2.Status(code=answer_of(error).grpc_code, message=message, details=details)


def _retry_info(delay_s: float) -> Any:
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(round(delay_s * 1e9))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
