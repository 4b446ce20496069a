"""Everything the API may ask for, as plain data and callables that `app` fills in.

Law: the API owns no state of the gateway. It reads immutable snapshots, and awaits whatever works
in another thread. Field names here are the JSON names, so a change here is a change of the API.
Units: `_ns` is Unix nanoseconds or, for durations, nanoseconds; `_s` seconds; `_ratio` 0 to 1.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.api.declared import Declarations
from gateway.api.drifts import (
    NO_BUDGET,
    NO_REPORT,
    BaselineState,
    DriftBudget,
    DriftReport,
    DriftState,
)
from gateway.api.operations import (
    NO_COUNTS,
    AccuracyState,
    BandwidthState,
    CostState,
    Counts,
    DeviceState,
    FleetState,
)
from gateway.api.outbox import DeadLetters, Destination
from gateway.batch import Anomaly, AnomalyId, DiveId, Json

# Status and accounting


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """One row of received = forwarded + sampled_out + dropped + quarantined + pending."""

    signal: str
    destination: str
    received: int
    forwarded: int
    sampled_out: int
    dropped: int
    quarantined: int
    pending: int
    balanced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractStatus:
    """A loaded contract. `digest` is the SHA-256 of its canonical form."""

    model: str
    owner: str
    digest: str
    expires: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSnapshot:
    """What the process is and what it has counted."""

    site: str
    cluster: str
    region: str
    version: str
    kernel: str
    policy: str
    started_ns: int
    uptime_s: float
    ready: bool
    accounting: tuple[Accounting, ...]
    contracts: tuple[ContractStatus, ...]
    journal_bytes: int
    store_bytes: int
    store_segments: int
    store_pending_rows: int
    destinations: tuple[Destination, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One condition of readiness."""

    check: str
    ok: bool
    detail: str


# Measurements


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemplar:
    """A trace that fell into a bucket. Units: value as the histogram, time_s Unix seconds."""

    trace_id: str
    value: float
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts per bucket, not cumulative.

    Shape: edges (buckets - 1,) are upper bounds, the last bucket is open; exemplars is empty or
    (buckets,).
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float
    exemplars: tuple[Exemplar | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Durations that 50, 95 and 99 % of inferences do not exceed; each within 1.6 % of one."""

    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What samplers before the gateway make of inferences, each weight as the power of two above.

    `effective_inferences` is how many of one weight would tell as much.
    """

    mean: float
    effective_inferences: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One model and version. `recent` is of the last five to ten minutes.

    `weights` is null while no device is known to sample before it sends.
    """

    model: str
    version: str
    succeeded: int
    failed: int
    cold_starts: int
    duration_s: Histogram
    recent: Quantiles | None
    all_time: Quantiles | None
    classes: Mapping[str, int]
    last_event_ns: int
    weights: Weights | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SloWindow:
    """Events and burn of one sliding window, named as in `5m`; None while it cannot be said."""

    window: str
    good: int
    bad: int
    burn_rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SloState:
    """One objective of one model. Units: window_s and threshold_s seconds.

    At the rate of the window that pages the budget lasts for `exhaustion_s`, null for ever. While
    its period still fills (`filling`) the budget grows with the events; later it does not.
    """

    model: str
    slo: str
    indicator: str
    objective: float
    window_s: float
    threshold_s: float | None
    budget_remaining_ratio: float | None
    exhaustion_s: float | None
    exhaustion_formula: str
    windows: tuple[SloWindow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSnapshot:
    """The current state of all measurements."""

    series: tuple[Series, ...] = ()
    slos: tuple[SloState, ...] = ()
    drift: tuple[DriftState, ...] = ()
    devices: tuple[DeviceState, ...] = ()
    fleets: tuple[FleetState, ...] = ()
    accuracy: tuple[AccuracyState, ...] = ()
    costs: tuple[CostState, ...] = ()
    bandwidth: tuple[BandwidthState, ...] = ()
    counts: Counts = NO_COUNTS
    baselines: tuple[BaselineState, ...] = ()
    budget: DriftBudget = NO_BUDGET
    reported: DriftReport = NO_REPORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value of a metric in the catalogue; counters and gauges give a number."""

    name: str
    value: float | Histogram
    labels: Mapping[str, str] = field(default_factory=dict)


# Traces


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """What traces to look for; None asks nothing. Both ends of a range are included."""

    model: str | None = None
    version: str | None = None
    device: str | None = None
    service: str | None = None
    name: str | None = None
    duration_ns_min: int | None = None
    duration_ns_max: int | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    limit: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceAnswer:
    """Everything that is known of one or more traces.

    Shape: each of `parts` is an encoded TracesData; of spans that occur in several, the first
    counts. `problems` says what could not be read.
    """

    parts: tuple[bytes, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A span name of a service; `kind` is the OTLP enum number."""

    service: str
    name: str
    kind: int


# Anomalies and dives


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainCall:
    """One webhook that an anomaly asks for a training; `endpoint` is without path and query."""

    endpoint: str
    state: str  # waiting, delivered, refused or expired
    attempts: int
    changed_ns: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyView:
    """An anomaly and what people and dives have done about it."""

    anomaly: Anomaly
    state: str  # firing, acknowledged or resolved
    acknowledged_by: str = ""
    acknowledged_ns: int | None = None
    dives: tuple[DiveId, ...] = ()
    retrain: tuple[RetrainCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DiveQuery:
    """Traces that a dive selects on the devices."""

    model: str | None = None
    version: str | None = None
    device: str | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    where: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiveWish:
    """A deep dive as it was asked for; None leaves a limit to the configuration."""

    anomaly_id: AnomalyId | None
    trace_ids: tuple[str, ...]
    query: DiveQuery | None
    bytes_max: int | None
    not_after_ns: int | None
    reason: str
    requested_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DiveDevice:
    """The part of a dive that one device answers."""

    device: str
    state: str
    traces: int
    bytes: int
    detail: str
    manifest: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiveState:
    """A deep dive. `missing` names what a partial, expired or refused one lacks and why."""

    id: DiveId
    state: str
    anomaly_id: AnomalyId | None
    reason: str
    requested_by: str
    created_ns: int
    updated_ns: int
    not_after_ns: int
    bytes_max: int
    bytes: int
    traces_wanted: int
    traces_received: int
    missing: str
    devices: tuple[DiveDevice, ...] = ()


class Anomalies(Protocol):
    """Anomalies of this site. `acknowledge` raises NotFoundError and ConflictError."""

    async def list(self, state: str | None) -> Sequence[AnomalyView]: ...
    async def maybe_get(self, anomaly_id: AnomalyId) -> AnomalyView | None: ...
    async def acknowledge(self, anomaly_id: AnomalyId, principal: str) -> AnomalyView: ...


class Dives(Protocol):
    """Deep dives. Raises NotFoundError, ConflictError, InvalidQueryError, QuotaExceededError."""

    async def create(self, wish: DiveWish) -> DiveState: ...
    async def list(self, state: str | None) -> Sequence[DiveState]: ...
    async def maybe_get(self, dive_id: DiveId) -> DiveState | None: ...
    async def delete(self, dive_id: DiveId) -> None: ...
    async def traces(self, dive_id: DiveId) -> TraceAnswer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The callables behind the routes.

    `status`, `samples` and `readiness` return at once. `samples` gives every metric that does not
    come from the measurements. `maybe_trace` is None for a trace that no place
    holds; `search` answers one TraceAnswer per trace, newest first.
    """

    status: Callable[[], StatusSnapshot]
    measure: Callable[[], Awaitable[MeasureSnapshot]]
    samples: Callable[[], Sequence[Sample]]
    readiness: Callable[[], Sequence[Check]]
    maybe_trace: Callable[[str], Awaitable[TraceAnswer | None]]
    search: Callable[[SearchQuery], Awaitable[Sequence[TraceAnswer]]]
    operations: Callable[[], Awaitable[Sequence[Operation]]]
    anomalies: Anomalies
    dives: Dives
    dead_letters: DeadLetters
    declarations: Declarations
