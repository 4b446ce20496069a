"""The nouns that flow through the gateway, and the columns they are made of.

Law: a table is one numpy structured array; a field's name, dtype and unit are written here once
and the kernel checks at import that its C structs agree. Text is never a Python object on the way:
it is an (offset, length) pair into the byte arena that travels with the table.

Everything here is data: no method computes more than a lookup.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final, NewType

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Table = NDArray[np.void]
Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
UInt32 = NDArray[np.uint32]
UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

AnomalyId = NewType("AnomalyId", str)
DiveId = NewType("DiveId", str)

# Ids are integers here: the 16 bytes of a trace id are two big-endian words, a span id is one,
# and a parent of 0 means that there is none. All times are Unix nanoseconds.
SPAN: Final = np.dtype(
    [
        ("trace_hi", "<u8"),
        ("trace_lo", "<u8"),
        ("span_id", "<u8"),
        ("parent_id", "<u8"),
        ("start_ns", "<u8"),
        ("end_ns", "<u8"),
        ("name_offset", "<u4"),
        ("name_length", "<u4"),
        ("state_offset", "<u4"),  # W3C tracestate text
        ("state_length", "<u4"),
        ("message_offset", "<u4"),  # status message text
        ("message_length", "<u4"),
        ("flags", "<u4"),
        ("kind", "<i4"),  # enum number as sent
        ("status", "<i4"),  # enum number as sent: 0 unset, 1 ok, 2 error
        ("dropped_attributes", "<u4"),
        ("dropped_events", "<u4"),
        ("dropped_links", "<u4"),
        ("resource", "<i4"),  # row in `resources`
        ("scope", "<i4"),  # row in `scopes`
        ("request", "<i4"),  # row in `requests`
        ("attribute_first", "<i4"),  # rows [first, first + count) of `span_attributes`
        ("attribute_count", "<i4"),
        ("event_first", "<i4"),
        ("event_count", "<i4"),
        ("link_first", "<i4"),
        ("link_count", "<i4"),
        ("padding", "<u4"),
    ]
)


class ValueKind(IntEnum):
    """What an attribute value is, with the field numbers of `AnyValue`; EMPTY is no value."""

    EMPTY = 0
    STRING = 1
    BOOL = 2
    INT = 3
    DOUBLE = 4
    ARRAY = 5
    KVLIST = 6
    BYTES = 7


ATTRIBUTE: Final = np.dtype(
    [
        ("number", "<u8"),  # bits of an int64, a double or a bool
        ("owner", "<i4"),  # row in the table that owns the attribute
        ("key", "<i4"),  # interned key, -1 when the key table was full
        ("offset", "<u4"),  # text or bytes; for ARRAY and KVLIST the whole AnyValue message
        ("length", "<u4"),
        ("raw_offset", "<u4"),  # the KeyValue message as received
        ("raw_length", "<u4"),
        ("kind", "<i4"),  # ValueKind
        ("padding", "<u4"),
    ]
)

RESOURCE: Final = np.dtype(
    [
        ("attribute_first", "<i4"),
        ("attribute_count", "<i4"),
        ("dropped_attributes", "<u4"),
        ("schema_offset", "<u4"),
        ("schema_length", "<u4"),
        ("padding", "<u4"),
    ]
)

SCOPE: Final = np.dtype(
    [
        ("name_offset", "<u4"),
        ("name_length", "<u4"),
        ("version_offset", "<u4"),
        ("version_length", "<u4"),
        ("schema_offset", "<u4"),
        ("schema_length", "<u4"),
        ("attribute_first", "<i4"),
        ("attribute_count", "<i4"),
        ("dropped_attributes", "<u4"),
        ("padding", "<u4"),
    ]
)

EVENT: Final = np.dtype(
    [
        ("time_ns", "<u8"),
        ("span", "<i4"),
        ("name_offset", "<u4"),
        ("name_length", "<u4"),
        ("attribute_first", "<i4"),
        ("attribute_count", "<i4"),
        ("dropped_attributes", "<u4"),
        ("raw_offset", "<u4"),  # the Event message as received
        ("raw_length", "<u4"),
    ]
)

LINK: Final = np.dtype(
    [
        ("trace_hi", "<u8"),
        ("trace_lo", "<u8"),
        ("span_id", "<u8"),
        ("span", "<i4"),
        ("state_offset", "<u4"),
        ("state_length", "<u4"),
        ("flags", "<u4"),
        ("attribute_first", "<i4"),
        ("attribute_count", "<i4"),
        ("dropped_attributes", "<u4"),
        ("raw_offset", "<u4"),
        ("raw_length", "<u4"),
        ("padding", "<u4"),
    ]
)

REQUEST: Final = np.dtype(
    [
        ("arrival_ns", "<u8"),
        ("body_offset", "<u4"),  # the inflated body, in the arena
        ("body_length", "<u4"),
        ("spans", "<u4"),  # accepted
        ("rejected", "<u4"),  # refused one by one, see `otlp.decode`
        ("identity", "<i4"),  # index into `Batch.identities`
        ("transport", "<i4"),  # Transport
        ("wire_bytes", "<u4"),  # as received, before inflation
        ("padding", "<u4"),
    ]
)


class Signal(StrEnum):
    """OTLP signals."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class Transport(IntEnum):
    """How a request came in."""

    GRPC = 0
    HTTP = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One request body that passed admission: inflated OTLP protobuf bytes.

    `ticket` is the booking of its bytes in the intake's account.
    Units: arrival_ns Unix nanoseconds, stamped once in `receive`; wire_bytes as on the wire.
    """

    body: bytes
    signal: Signal
    transport: Transport
    identity: str
    arrival_ns: int
    wire_bytes: int
    ticket: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the client is told: items accepted and durable, items rejected and why.

    `mismatched` are the rejected items that name another device than the one that sent them.
    """

    accepted: int
    rejected: int
    reason: str
    mismatched: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One accepted request of a signal without columns: metrics or logs, as OTLP protobuf bytes.

    Units: items are data points or log records; held_bytes is the body's size before items were
    refused out of it, which the intake's account holds.
    """

    signal: Signal
    transport: Transport
    identity: str
    arrival_ns: int
    wire_bytes: int
    held_bytes: int
    items: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One group commit as columns.

    Shape: `slots` (slot, span), `resource_slots` (slot, resource) and `scope_slots` (slot, scope)
    hold for each attribute key that a contract names the row in the table of attributes, -1 when
    missing, -2 when the key occurs more than once.
    `slot_of_key[k]` is the slot of interned key k, -1 for a key that no contract names; the last
    place is -1 too, so that a key of -1 finds it. `parcels` came in the same group, of the signals
    that have no columns.
    Units: arrival_ns is the newest arrival of the group.
    """

    sequence: int
    arrival_ns: int
    arena: Bytes
    requests: Table
    resources: Table
    scopes: Table
    spans: Table
    events: Table
    links: Table
    span_attributes: Table
    resource_attributes: Table
    scope_attributes: Table
    event_attributes: Table
    link_attributes: Table
    slots: Int32
    resource_slots: Int32
    scope_slots: Int32
    slot_of_key: Int32
    identities: tuple[str, ...]
    parcels: tuple[Parcel, ...] = ()

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies, which the intake's account holds until the batch is processed."""
        return len(self.arena) + sum(parcel.held_bytes for parcel in self.parcels)

    def text(self, offset: int, length: int) -> bytes:
        """Copy one text out of the arena; for rows a person will read, never for all rows."""
        return self.arena[offset : offset + length].tobytes()


MISSING: Final = -1
DUPLICATE: Final = -2

NO_CONTRACT: Final = -1
NO_SERIES: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What `measure` knows about each row of a batch.

    Shape: all arrays (spans,) unless said. Units: duration_ns, event_ns Unix nanoseconds after
    clamping to the arrival time.
    """

    contract: Int16  # index into Plan.contracts, NO_CONTRACT for the built-in default
    series: Int32  # index into `series_names`, NO_SERIES when the span is no inference
    failed: Bool
    duration_ns: UInt64
    event_ns: UInt64
    device: Int32  # index into `devices`
    devices: tuple[str, ...]
    series_names: tuple[tuple[str, str], ...]  # (model, version)
    anomalies: tuple["Anomaly", ...]


NO_THRESHOLD: Final = (1 << 64) - 1
NO_RANDOMNESS: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `decide` says of each row.

    Shape: keep, reason, threshold, randomness (spans,). Units: threshold is the 56-bit rejection
    threshold T of consistent probability sampling; randomness is the explicit `rv`, or
    NO_RANDOMNESS when the trace id supplies it. Source: OpenTelemetry, "TraceState: Probability
    Sampling".
    """

    keep: Bool
    reason: UInt8  # index into `reasons`
    reasons: tuple[str, ...]
    threshold: UInt64
    randomness: UInt64


CLEAN_SPAN: Final = np.dtype(
    [
        ("trace_hi", "<u8"),
        ("trace_lo", "<u8"),
        ("span_id", "<u8"),
        ("parent_id", "<u8"),
        ("start_ns", "<u8"),
        ("end_ns", "<u8"),
        ("threshold", "<u8"),  # NO_THRESHOLD writes no `th`
        ("randomness", "<u8"),  # NO_RANDOMNESS writes no `rv`
        ("name_offset", "<u4"),
        ("name_length", "<u4"),
        ("message_offset", "<u4"),
        ("message_length", "<u4"),
        ("fields_offset", "<u4"),  # Span fields that are already encoded, e.g. attributes
        ("fields_length", "<u4"),
        ("flags", "<u4"),
        ("kind", "<i4"),
        ("status", "<i4"),
        ("resource", "<i4"),  # row in Clean.resources
        ("scope", "<i4"),  # row in Clean.scopes
        ("padding", "<u4"),
    ]
)

# An encoded `Resource` or `InstrumentationScope` message in Clean.text.
EXTENT: Final = np.dtype([("offset", "<u4"), ("length", "<u4")])


class Audience(StrEnum):
    """Who may read what was made clean."""

    SITE = "site"
    EXPORT = "export"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clean:
    """Columns that may be read by one audience. Only `anonymize` makes one.

    Shape: spans (rows,); keys (columns,) EXTENT; kinds (columns,); values and present
    (columns, rows). A STRING value packs offset << 32 | length into `text`. `text` holds nothing
    but classified bytes. `source` (rows,) is the row of the batch each span came from.
    """

    audience: Audience
    policy: str
    text: Bytes
    spans: Table
    resources: Table
    scopes: Table
    keys: Table
    kinds: UInt8
    values: UInt64
    present: UInt8
    source: Int32


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanPart:
    """An encoded ResourceMetrics or ResourceLogs, built anew. Only `anonymize` makes one."""

    signal: Signal
    policy: str
    body: bytes
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Encoded, zstd-compressed OTLP bytes of one signal, ready for any destination.

    Units: raw_bytes is the size before compression.
    """

    signal: Signal
    items: int
    body: bytes
    raw_bytes: int
    first_sequence: int
    last_sequence: int


class AnomalyKind(StrEnum):
    """What sort of thing is wrong."""

    DRIFT = "drift"
    SLO_BURN = "slo_burn"


class Severity(StrEnum):
    """How loud it is told."""

    PAGE = "page"
    TICKET = "ticket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One trace that explains an anomaly and the device that holds it in full."""

    trace_id: str  # 32 hex digits
    device: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """What is wrong, since when, how sure, and which traces show it.

    `id` is a digest of (kind, model, subject, onset), so that a replay raises the same one again.
    Units: onset_ns and raised_ns Unix nanoseconds; `numbers` carry their unit in the key.
    """

    id: AnomalyId
    kind: AnomalyKind
    severity: Severity
    owner: str
    model: str
    version: str
    subject: str  # signal or SLO name
    summary: str
    onset_ns: int
    raised_ns: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    resolved_ns: int | None = None


Json = Any  # JSON value as the standard library makes it; only api and retrieve touch it
