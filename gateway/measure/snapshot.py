"""What `measure` shows to /metrics and the API: plain, immutable copies.

Law: nothing here refers to live state, so another thread may read it while the core goes on. A
value that does not exist is None or absent, never NaN or infinite.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.batch import Anomaly
from gateway.measure.devices.placement import Newest
from gateway.measure.drift.rates import RateNow
from gateway.measure.operationviews import OperationsView
from gateway.measure.settings import FalseAlarms
from gateway.measure.state import Int64


class BaselineState(StrEnum):
    """How far a signal's baseline is."""

    COLLECTING = "collecting"
    INHERITED = "inherited"  # that of the version before, see `streams`
    CANDIDATE = "candidate"  # waits for a person
    FROZEN = "frozen"
    SUPERSEDED = "superseded"  # by the candidate that was promoted last


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemplar:
    """One trace of a latency bucket."""

    trace_id: str
    value_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyView:
    """Shape: cumulative and exemplars have one place more than edges_s, for +Inf."""

    edges_s: tuple[float, ...]
    cumulative: tuple[int, ...]
    sum_s: float
    exemplars: tuple[Exemplar | None, ...]
    # p50, p95, p99 in seconds, of the last five to ten minutes and of all time; empty if none.
    recent_s: tuple[float, ...]
    all_time_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftView:
    """The window now (EWMA with a half-life of 32 ticks) against the baseline.

    Shape: bins, expected and current (bins,): what each bin is, its share then and now; current is
    empty before the first tick. With a season `expected` and delta are those of an hour.
    """

    bins: tuple[str, ...]
    expected: tuple[float, ...]
    current: tuple[float, ...]

    psi: float
    psi_debiased: float
    js_nats: float
    relative_index: float  # 1 is what noise alone reaches
    log_evidence: float  # at least 0
    log_evidence_bound: float
    # 95 % interval of psi_debiased for one look.
    psi_debiased_low: float
    psi_debiased_high: float
    delta: float
    phi: float
    window_events: float
    baseline_events: int
    baseline_hours: int  # of the week, in which it has events; 0 without a season
    baseline_digest: str
    distances: Mapping[str, float]  # other indices, by name; empty before the first tick
    history: tuple[float, ...]  # debiased PSI of recent blocks of ticks, oldest first
    is_calibrated: bool  # large enough for the tolerance
    is_unsteady: bool
    is_alarmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowView:
    """What a superseded baseline says for as long as it goes on judging; see `shadow`."""

    until_ns: int
    log_evidence: float  # at least 0
    log_evidence_bound: float
    alarms: int
    last_alarm_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideView:
    """A baseline of a signal that is not the one in force; `hours` as in `DriftView`."""

    digest: str
    events: int
    is_calibrated: bool | None  # None when that is no longer known
    hours: int = 0
    shadow: ShadowView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalView:
    """One signal of a series.

    Shape: counts are those of the grid's bins, then missing, then odd. `edges` is empty for
    classes, `values` for numbers. `part_of` is the signal of which this is one class, else empty.
    """

    signal: str
    part_of: str
    grid: str
    edges: tuple[float, ...]
    values: tuple[str, ...]
    counts: tuple[int, ...]
    state: BaselineState
    collected: int
    wanted: int  # events of which the baseline is learned, as far as is known
    is_from_file: bool
    candidate: BesideView | None
    superseded: BesideView | None
    drift: DriftView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RateView:
    """The event rate of a model; `now` and `digest` are None and "" while it is learned."""

    model: str
    state: BaselineState
    digest: str
    events: int
    events_wanted: int
    candidate: BesideView | None
    tolerance: float
    phi: float
    now: RateNow | None
    is_alarmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsView:
    """What samplers before the gateway make of the events of a series; see `drift.inclusion`.

    `effective_events` is how many events of one weight would tell as much.
    """

    mean: float
    effective_events: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributionView:
    """Where a change lies. Units: nats, less what chance gives on average, so below 0 is none.

    `given_class` counts the classes of which both confidence and share are judged; `signal` is that
    confidence.
    """

    signal: str
    of_class: float
    given_class: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesView:
    """One model and version.

    `weights` is None without a sampler before the gateway, `attribution` until there are baselines
    of the classes and of the confidence of one of them.
    """

    model: str
    version: str
    ok: int
    failed: int
    cold_starts: int
    latency: LatencyView
    signals: tuple[SignalView, ...]
    weights: WeightsView | None
    attribution: AttributionView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowView:
    """One window of an SLO. burn_rate is None without events."""

    window_s: int
    good: int
    bad: int
    burn_rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SloView:
    """One SLO of one model; the last window is its period. Without budget nothing remains of it."""

    model: str
    slo: str
    indicator: str
    objective: float
    threshold_s: float | None
    windows: tuple[WindowView, ...]
    budget_remaining_ratio: float | None
    # How long the budget lasts at the rate of the last hour, None for ever; how it was worked out.
    exhaustion_s: float | None
    formula: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesView:
    """Shape: all (devices,). Units: ns; NO_DELAY where no delay or jitter can be told.

    last_event_ns and last_arrival_ns are of anything heard, last_inference_ns is an arrival.
    """

    names: tuple[str, ...]
    last_event_ns: Int64
    last_arrival_ns: Int64
    spans: Int64
    bytes: Int64
    least_delay_ns: Int64
    jitter_ns: Int64
    last_inference_ns: Int64
    items: Int64  # metric points and log records
    invalid: Int64  # spans that end before they start, or never
    future: Int64  # spans that end too far in the future
    invalid_readings: Int64
    newest: Newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Spans with an event time that was not simply right, and what did not fit a limit."""

    clamped: int
    late: int
    too_late: int
    invalid: int  # inferences with a duration that is none
    drift_late: int  # inferences of models with a season that came too late to be judged
    other_device_spans: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedView:
    """A signal that the report of the site lists; log_evidence counts on after an alarm."""

    model: str
    version: str
    signal: str
    log_evidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """All drift detectors together: whose budget is in force, how many, and the report.

    Shape: reported is strongest first, at most a share `alpha` of it is false on average, over a
    patience of `patience_s`.
    """

    per: FalseAlarms
    detectors: int
    alpha: float
    patience_s: float
    reported: tuple[ReportedView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that is measured. Units: now_ns is the newest time that was taken into account."""

    now_ns: int
    series: tuple[SeriesView, ...]
    slos: tuple[SloView, ...]
    drifts: FleetView
    devices: DevicesView
    operations: OperationsView
    rates: tuple[RateView, ...]
    counters: Counters
    open_anomalies: tuple[Anomaly, ...]
    # Predictions of baseline files that were labelled, by model, version and signal.
    labelled: Mapping[tuple[str, str, str], int]
    # (kind, model, count) of all that were ever raised.
    anomalies_raised: tuple[tuple[str, str, int], ...]
