"""The nouns that flow through the gateway, and the columns they are made of.

Law: everything here is data: no method computes more than a lookup. The tables that the nouns
hold are declared in `tables`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final, NewType

from gateway.tables import Bool, Bytes, Int16, Int32, Table, UInt8, UInt64

AnomalyId = NewType("AnomalyId", str)
DiveId = NewType("DiveId", str)


class Signal(StrEnum):
    """OTLP signals."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class Transport(IntEnum):
    """How a request came in."""

    GRPC = 0
    HTTP = 1


# Under this identity the gateway takes what people declare over its API; no device has it.
API_IDENTITY: Final = "~api"


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

    @property
    def rows(self) -> int:
        """Rows of all tables, which may be many more bytes than what was sent."""
        owners = (
            *(self.requests, self.resources, self.scopes),
            *(self.spans, self.events, self.links),
        )
        owned = (
            *(self.resource_attributes, self.scope_attributes, self.span_attributes),
            *(self.event_attributes, self.link_attributes),
        )
        return sum(len(table) for table in (*owners, *owned))

    def text(self, offset: int, length: int) -> bytes:
        """Copy one text out of the arena; for rows a person will read, never for all rows."""
        return self.arena[offset : offset + length].tobytes()


NO_CONTRACT: Final = -1
NO_SERIES: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """What each row's tracestate says of the samplers before this gateway.

    Shape: all arrays (spans,). Units: threshold and randomness are 56-bit numbers, NO_THRESHOLD and
    NO_RANDOMNESS where nothing valid is said; `malformed` rows have a threshold that is none.
    `has_threshold` says whether any row has one.
    """

    threshold: UInt64
    randomness: UInt64
    malformed: Bool
    has_threshold: bool


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
    upstream: Upstream
    anomalies: tuple["Anomaly", ...]


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
    INTEGRITY = "integrity"  # something was not what it claimed to be
    SILENCE = "silence"  # devices that should be heard are not
    CLOCK_SKEW = "clock_skew"  # clocks of devices are far off
    ACCELERATOR = "accelerator"  # a model suddenly runs on another accelerator
    MODEL_LOAD = "model_load"  # models cannot be loaded
    SATURATION = "saturation"  # devices have no headroom left
    POWER = "power"  # devices run hot, throttled or out of power
    ROLLOUT = "rollout"  # a rollout spends its share of the error budget
    COST = "cost"  # inferences cost more than was planned
    BANDWIDTH = "bandwidth"  # more bytes leave than was planned
    MISCALIBRATION = "calibration"  # a model is not as often right as it says
    OVERCONFIDENCE = "overconfidence"  # confidence hides that a model got worse


class Severity(StrEnum):
    """How loud it is told."""

    PAGE = "page"
    TICKET = "ticket"


class Team(StrEnum):
    """Who can mend it, by its cause."""

    DEVICE_OPS = "device-ops"  # memory, heat, drivers, disks, power, networks, clocks
    ML_ENGINEERING = "ml-engineering"  # the model, its data and its answers


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
    `owner` answers for the contract, `team` can mend this cause.
    Units: onset_ns and raised_ns Unix nanoseconds; `numbers` carry their unit in the key.
    """

    id: AnomalyId
    kind: AnomalyKind
    severity: Severity
    owner: str
    model: str
    version: str
    subject: str  # signal, SLO, rollout or what else is wrong
    summary: str
    onset_ns: int
    raised_ns: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    team: Team = Team.ML_ENGINEERING
    resolved_ns: int | None = None


Json = Any  # JSON value as the standard library makes it; only api and retrieve touch it
