"""JSON bodies of the retrieval messages, read strictly.

Law: a body is exactly of its form or is refused as a whole; sizes and counts are bounded before
anything is built from them. Integers fit into SQLite.
"""

from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import MalformedPayloadError, PayloadTooLargeError
from gateway.otlp.opamp import MESSAGE_BYTES_MAX

BODY_BYTES_MAX: Final = MESSAGE_BYTES_MAX
MANIFEST_TRACES_MAX: Final = 10_000
EVICTED_MAX: Final = 64
SEGMENTS_MAX: Final = 4_096
REASON_LENGTH_MAX: Final = 64
INTEGER_MAX: Final = (1 << 63) - 1

Whole = Annotated[int, Field(ge=0, le=INTEGER_MAX)]
# A device writes 2^64 - 1 for "until the end of time"; it is cut to what SQLite can hold.
Time = Annotated[int, Field(ge=0, le=(1 << 64) - 1)]
RequestId = Annotated[str, Field(pattern=r"^[0-9a-f-]{1,64}$")]
TraceId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Reason = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
DeviceName = Annotated[str, Field(min_length=1, max_length=256)]


class Body(BaseModel):
    """Base of all bodies: frozen, no unknown key, no silent conversion."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class WindowBody(Body):
    """Time of writing, both ends included, by the device's clock."""

    from_ns: Whole
    to_ns: Whole


class RetrieveBody(Body):
    """`retrieve`, gateway to device."""

    request_id: RequestId
    trace_ids: tuple[TraceId, ...]
    window: WindowBody | None
    max_bytes: Whole
    chunk_bytes: Whole
    priority: Whole
    pin_s: Whole
    reason: str


class AckBody(Body):
    """`ack`, both ways; next_seq is the chunk that the gateway wants."""

    request_id: RequestId
    next_seq: Whole = 0


class ReleaseBody(Body):
    """`release`, gateway to device: the request is final."""

    request_id: RequestId
    state: str


class RefuseBody(Body):
    """`refuse`, device to gateway."""

    request_id: RequestId
    reason: Reason


class DoneBody(Body):
    """`done`, device to gateway; a reason means that not everything was sent."""

    request_id: RequestId
    reason: Reason | None = None


class SignatureBody(Body):
    """A device's signature over the manifest's text."""

    key_id: Annotated[str, Field(max_length=128)]
    algorithm: Literal["hmac-sha256", "ed25519"]
    value: Annotated[str, Field(pattern=r"^[0-9a-f]{64,128}$")]


class EnvelopeBody(Body):
    """`manifest`, device to gateway: the manifest's text as it was signed."""

    request_id: RequestId
    payload: Annotated[str, Field(max_length=BODY_BYTES_MAX)]
    signature: SignatureBody | None


class ListedBody(Body):
    """One trace that the device will send."""

    trace_id: TraceId
    bytes: Annotated[int, Field(ge=1, le=INTEGER_MAX)]
    digest: Sha256
    whole: bool


class AbsentBody(Body):
    """One trace that was asked for and will not be sent."""

    trace_id: TraceId
    reason: Literal["evicted", "not_recorded", "byte_cap", "pin_cap", "corrupt"]


class EvictedBody(Body):
    """One range of records that the device does not have any more."""

    first_sequence: Whole
    last_sequence: Whole
    from_ns: Time
    to_ns: Time
    count: Whole
    reason: Literal["overwritten", "lost", "corrupt"]


class SegmentBody(Body):
    """Hash of one sealed segment."""

    generation: Whole
    hash: Sha256


class ManifestBody(Body):
    """The text inside the envelope."""

    request_id: RequestId
    device: DeviceName
    created_ns: Whole
    matched: Whole
    bytes: Whole
    traces: Annotated[tuple[ListedBody, ...], Field(max_length=MANIFEST_TRACES_MAX)]
    absent: Annotated[tuple[AbsentBody, ...], Field(max_length=MANIFEST_TRACES_MAX)]
    evicted: Annotated[tuple[EvictedBody, ...], Field(max_length=EVICTED_MAX)]
    horizon_ns: Whole | None
    segments: Annotated[tuple[SegmentBody, ...], Field(max_length=SEGMENTS_MAX)]
    merkle_root: Sha256
    complete: bool


Read = TypeVar("Read", bound=Body)


def read(kind: type[Read], data: bytes | str) -> Read:
    """Read one body.

    Raises MalformedPayloadError or PayloadTooLargeError; the text of the body is never repeated.
    """
    if len(data) > BODY_BYTES_MAX:
        raise PayloadTooLargeError(f"message body is over {BODY_BYTES_MAX} bytes")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        # The name of an unknown key is the client's text; the place around it is ours.
        known = first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"]
        place = ".".join(str(part) for part in known)
        raise MalformedPayloadError(f"{kind.__name__} is not valid at {place or '/'}") from error


def write(body: Body) -> bytes:
    """Write one body."""
    return body.model_dump_json().encode()
