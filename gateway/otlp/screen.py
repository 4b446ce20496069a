"""Check the signals without columns, metrics and logs, and turn OTLP/JSON of any into protobuf.

Law: a request is taken whole, less the items that were refused one by one; what is taken is what
the journal writes and what every later step reads.
"""

from dataclasses import dataclass

from gateway.batch import Parcel, Payload, Receipt, Signal
from gateway.otlp import wire
from gateway.otlp.limits import DEFAULT_LIMITS, PARCEL_LIMITS
from gateway.otlp.schemas import schema_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """What is taken of a request, and what its sender is told."""

    parcel: Parcel
    receipt: Receipt


def screen(payload: Payload) -> Screened:
    """Check one request of metrics or logs.

    Raises: MalformedPayloadError, PayloadTooLargeError.
    """
    found = wire.screen(
        schema_of(payload.signal),
        payload.body,
        limits=PARCEL_LIMITS,
        device=payload.identity.encode(),
    )
    parcel = Parcel(
        signal=payload.signal,
        transport=payload.transport,
        identity=payload.identity,
        arrival_ns=payload.arrival_ns,
        wire_bytes=payload.wire_bytes,
        held_bytes=len(payload.body),
        items=found.accepted,
        body=found.body,
    )
    receipt = Receipt(
        accepted=found.accepted,
        rejected=found.rejected,
        reason=found.reason,
        mismatched=found.mismatched,
    )
    return Screened(parcel=parcel, receipt=receipt)


def to_protobuf(signal: Signal, text: bytes) -> tuple[bytes, int]:
    """Turn OTLP/JSON into protobuf; returns the body and the count of fields that were ignored.

    Raises: MalformedPayloadError, PayloadTooLargeError.
    """
    limits = DEFAULT_LIMITS if signal is Signal.TRACES else PARCEL_LIMITS
    return wire.transcode(schema_of(signal), text, limits=limits)
