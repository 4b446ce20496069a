"""Check the signals without columns, metrics and logs, before they are taken.

Law: a request is taken whole, less the items that were refused one by one; what is taken is what
the journal writes and what every later step reads.
"""

from dataclasses import dataclass

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from gateway.batch import Parcel, Payload, Receipt, Signal
from gateway.errors import MalformedPayloadError, UnsupportedMediaError


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """What is taken of a request, and what its sender is told."""

    parcel: Parcel
    receipt: Receipt


def screen(payload: Payload) -> Screened:
    """Check one request of metrics or logs.

    Raises: MalformedPayloadError, PayloadTooLargeError.
    """
    items = 0
    try:
        if payload.signal is Signal.LOGS:
            for logs in ExportLogsServiceRequest.FromString(payload.body).resource_logs:
                items += sum(len(scope.log_records) for scope in logs.scope_logs)
        else:
            for metrics in ExportMetricsServiceRequest.FromString(payload.body).resource_metrics:
                for metric in (each for scope in metrics.scope_metrics for each in scope.metrics):
                    kind = metric.WhichOneof("data")
                    items += len(getattr(metric, kind).data_points) if kind else 0
    except DecodeError as error:
        raise MalformedPayloadError("undecodable") from error
    parcel = Parcel(
        signal=payload.signal,
        transport=payload.transport,
        identity=payload.identity,
        arrival_ns=payload.arrival_ns,
        wire_bytes=payload.wire_bytes,
        held_bytes=len(payload.body),
        items=items,
        body=payload.body,
    )
    return Screened(parcel=parcel, receipt=Receipt(accepted=items, rejected=0, reason=""))


def to_protobuf(signal: Signal, text: bytes) -> tuple[bytes, int]:
    """Turn OTLP/JSON into protobuf; returns the body and the count of fields that were ignored.

    Raises: MalformedPayloadError, PayloadTooLargeError.
    """
    raise UnsupportedMediaError("OTLP/JSON is not served here; send application/x-protobuf")
