"""What the API shows of devices, accuracy, costs and bytes: plain data, filled in by `measured`.

Law: as `sources`: field names are the JSON names, None is a value that does not exist.
Units: `_ns` Unix nanoseconds, `_s` seconds, `_ratio` 0 to 1, money in `currency`.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """One device, named by its site token.

    `freshness_s` is the age of what was heard last of any signal. `clock_offset_s` is how far its
    clock is ahead at least, negative for behind at most. `model`, `version` and `accelerator` are
    those of its newest inference; `readings` and `conditions` are of its host.
    """

    device: str
    freshness_s: float
    silent: bool
    last_heard_ns: int
    last_event_ns: int
    last_inference_ns: int | None
    spans: int
    items: int
    bytes: int
    clock_offset_s: float | None
    clock_jitter_s: float | None
    invalid_spans: int
    future_spans: int
    model: str | None
    version: str | None
    accelerator: str | None
    headroom_ratio: float | None = None
    readings: Mapping[str, float] | None = None
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """Devices of one model; the model is empty for those that have none."""

    model: str
    expected: int
    silent: int
    threshold_s: float
    oldest_age_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An accuracy and its 95 % Wilson interval."""

    labels: int
    accuracy_ratio: float
    low_ratio: float
    high_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """How often `predicted` was answered where `label` was true."""

    predicted: str
    label: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatedAccuracy:
    """An accuracy that no label has told yet, and its 95 % interval."""

    accuracy_ratio: float
    low_ratio: float
    high_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Whether a version is as often right as it says.

    `log_evidence` is a natural logarithm; from `log_evidence_bound` on the version counts as
    miscalibrated. `surplus_ratio` is how much more often it was right than it said lately.
    `error_ratio` is the expected calibration error.
    """

    log_evidence: float
    log_evidence_bound: float
    surplus_ratio: float
    error_ratio: float | None
    alarm: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatedState:
    """How good one version probably is now, by its confidence of the last ten to twenty minutes.

    `reference` is the version whose labels it is judged by, those of its baseline file where
    `reference_from_file`; `labelled_events` are their count.
    `reason` says why there is neither `cbpe` nor `atc_ratio`, `class_prior_reason` why there is no
    `class_prior`. `disagreement` says that the two surely differ, `contradicted` that recent labels
    are not what earlier ones led to expect, None where too few can tell.
    """

    assumption: str
    reference: str | None
    reference_from_file: bool
    labelled_events: int
    window_events: int
    reason: str | None
    cbpe: EstimatedAccuracy | None
    atc_ratio: float | None
    disagreement: bool
    contradicted: bool | None
    class_prior: Mapping[str, float] | None
    class_prior_reason: str | None
    mean_confidence_ratio: float | None
    saturated_ratio: float | None
    low_confidence_ratio: float | None
    class_entropy_nats: float | None
    calibration: Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyState:
    """How often one version was right; windows are by the time of the inference."""

    model: str
    version: str
    right: int
    wrong: int
    day: Estimate | None
    month: Estimate | None
    all_time: Estimate | None
    confusion: tuple[Pair, ...]
    estimated: EstimatedState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPart:
    """Inferences of one version for one feature in the current month (UTC)."""

    version: str
    feature: str
    inferences: int
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CostState:
    """What one model costs in the current month; `projected` is for its end."""

    model: str
    currency: str
    per_inference: float
    spent: float
    batch_jobs: float
    budget: float | None
    spent_ratio: float | None
    projected: float | None
    parts: tuple[CostPart, ...]
    months: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class BandwidthState:
    """How the allowance of one objective stands in its current period."""

    model: str
    slo: str
    allowance_bytes: int
    spent_bytes: int
    start_ns: int
    end_ns: int
    pace_ratio: float | None
    exhausted_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts by label values, as `/metrics` shows them. Shape: the keys are label values."""

    labels: Mapping[str, int]  # by what became of each
    labels_waiting: int
    label_sample_ratio: float
    loads: Mapping[str, tuple[int, int]]  # by model: loaded, failed
    failed: Mapping[tuple[str, str], int]  # by model and who can mend it
    violations: Mapping[str, int]
    latched: tuple[str, ...]
    left_bytes: Mapping[str, int]  # by model
    deployed: Mapping[str, tuple[int, int]]  # by model: devices that succeeded and failed, 30 days
    retrained: Mapping[str, int]  # by model, 30 days
    unusable: Mapping[str, int]  # declarations, by reason
    raised: Mapping[tuple[str, str], int]  # anomalies, by kind and model
    clock_skew: int  # spans from the future, whose times were set back
    invalid_durations: int
    drift_late: int
    late: int


NO_COUNTS = Counts(
    labels={},
    labels_waiting=0,
    label_sample_ratio=1.0,
    loads={},
    failed={},
    violations={},
    latched=(),
    left_bytes={},
    deployed={},
    retrained={},
    unusable={},
    raised={},
    clock_skew=0,
    invalid_durations=0,
    drift_late=0,
    late=0,
)
