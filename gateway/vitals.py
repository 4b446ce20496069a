"""The catalogue of Weir's own metrics: name, type, unit, labels and help, each written once.

Law: what is not here is not exposed; the renderer refuses other names and other labels, and
dashboards and alerts may only use these. Names carry base units; counters end in `_total`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class VitalType(StrEnum):
    """How a metric behaves, in the words of OpenMetrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vital:
    """One metric. `known` lists the values of labels whose set is closed.

    A series is exposed as 0 from the start when every label of a counter or gauge is in `known`.
    """

    name: str
    type: VitalType
    unit: str  # empty for counts of things that the name says
    labels: tuple[str, ...]
    help: str
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_SIGNALS: Final = ("traces", "metrics", "logs")
_COUNTER: Final = VitalType.COUNTER
_GAUGE: Final = VitalType.GAUGE
_HISTOGRAM: Final = VitalType.HISTOGRAM

DIVE_STATES: Final = (
    "queued",
    "delivered",
    "pinned",
    "streaming",
    "complete",
    "partial",
    "expired",
    "refused",
)
STAGES: Final = ("wire", "inflated", "journal", "store", "forward")

_ALL: Final = (
    Vital(
        name="weir_received_items_total",
        type=_COUNTER,
        unit="",
        labels=("signal", "transport"),
        help="Items that were accepted and acknowledged.",
        known={"signal": _SIGNALS, "transport": ("grpc", "http")},
    ),
    Vital(
        name="weir_refused_items_total",
        type=_COUNTER,
        unit="",
        labels=("signal", "reason"),
        help="Items that were not accepted; the client was told why.",
    ),
    Vital(
        name="weir_json_ignored_fields_total",
        type=_COUNTER,
        unit="",
        labels=("signal",),
        help="Fields of OTLP/JSON bodies that OTLP does not know, and that were left out.",
        known={"signal": _SIGNALS},
    ),
    Vital(
        name="weir_forwarded_items_total",
        type=_COUNTER,
        unit="",
        labels=("destination", "signal"),
        help="Items that a destination took.",
    ),
    Vital(
        name="weir_sampled_out_items_total",
        type=_COUNTER,
        unit="",
        labels=("signal", "rule"),
        help="Items that sampling or policy kept at the site, by the rule that decided.",
    ),
    Vital(
        name="weir_dropped_items_total",
        type=_COUNTER,
        unit="",
        labels=("destination", "signal", "reason"),
        help="Accepted items that will not be forwarded, by reason.",
    ),
    Vital(
        name="weir_quarantined_items_total",
        type=_COUNTER,
        unit="",
        labels=("signal", "reason"),
        help="Accepted items that could not be classified or processed and were set aside.",
    ),
    Vital(
        name="weir_pending_items",
        type=_GAUGE,
        unit="",
        labels=("destination", "signal"),
        help="Accepted items that are still on their way to a destination.",
    ),
    Vital(
        name="weir_bytes_total",
        type=_COUNTER,
        unit="bytes",
        labels=("stage",),
        help="Bytes that passed each stage.",
        known={"stage": STAGES},
    ),
    Vital(
        name="weir_ack_seconds",
        type=_HISTOGRAM,
        unit="seconds",
        labels=(),
        help="Time from the arrival of a request to its acknowledgement.",
    ),
    Vital(
        name="weir_batch_spans",
        type=_HISTOGRAM,
        unit="",
        labels=(),
        help="Spans in one group commit.",
    ),
    Vital(
        name="weir_inference_total",
        type=_COUNTER,
        unit="",
        labels=("model", "version", "outcome"),
        help="Inferences before sampling, by outcome.",
    ),
    Vital(
        name="weir_inference_duration_seconds",
        type=_HISTOGRAM,
        unit="seconds",
        labels=("model", "version"),
        help="Duration of inferences before sampling, with an edge at every SLO threshold.",
    ),
    Vital(
        name="weir_inference_duration_quantile_seconds",
        type=_GAUGE,
        unit="seconds",
        labels=("model", "version", "quantile"),
        help="Duration that this share of the inferences of the last five to ten minutes did not "
        "exceed, within 1.6 %.",
    ),
    Vital(
        name="weir_cold_starts_total",
        type=_COUNTER,
        unit="",
        labels=("model", "version"),
        help="Inferences that had to load their model first.",
    ),
    Vital(
        name="weir_slo_window_events",
        type=_GAUGE,
        unit="",
        labels=("model", "slo", "window", "outcome"),
        help="Events of an SLO in a sliding window.",
    ),
    Vital(
        name="weir_slo_burn_rate",
        type=_GAUGE,
        unit="",
        labels=("model", "slo", "window"),
        help="Speed at which the error budget is spent; 1 spends it exactly within its period.",
    ),
    Vital(
        name="weir_slo_budget_remaining_ratio",
        type=_GAUGE,
        unit="ratio",
        labels=("model", "slo"),
        help="Share of the error budget that is left; negative when overspent.",
    ),
    Vital(
        name="weir_drift_psi",
        type=_GAUGE,
        unit="",
        labels=("model", "version", "signal"),
        help="Population stability index of a signal against its frozen baseline.",
    ),
    Vital(
        name="weir_drift_alarm_log_evidence",
        type=_GAUGE,
        unit="",
        labels=("model", "version", "signal"),
        help="Natural logarithm of the evidence that a signal has drifted.",
    ),
    Vital(
        name="weir_device_freshness_seconds",
        type=_GAUGE,
        unit="seconds",
        labels=("device",),
        help="Age of the newest event of a device; the stalest devices are listed.",
    ),
    Vital(
        name="weir_anomalies_total",
        type=_COUNTER,
        unit="",
        labels=("kind", "model"),
        help="Anomalies that were raised.",
    ),
    Vital(
        name="weir_dives",
        type=_GAUGE,
        unit="",
        labels=("state",),
        help="Deep dives by state.",
        known={"state": DIVE_STATES},
    ),
    Vital(
        name="weir_info",
        type=VitalType.INFO,
        unit="",
        labels=("version", "kernel"),
        help="Version of the gateway and digest of its kernel's source.",
    ),
    Vital(
        name="weir_resident_memory_bytes",
        type=_GAUGE,
        unit="bytes",
        labels=(),
        help="Memory of the process that is in RAM.",
    ),
    Vital(
        name="weir_cpu_seconds_total",
        type=_COUNTER,
        unit="seconds",
        labels=(),
        help="Processor time of the process since it started.",
    ),
    Vital(
        name="weir_journal_bytes",
        type=_GAUGE,
        unit="bytes",
        labels=(),
        help="Bytes that the journal holds on disk.",
    ),
    Vital(
        name="weir_store_bytes",
        type=_GAUGE,
        unit="bytes",
        labels=(),
        help="Bytes that the trace store holds on disk.",
    ),
    Vital(
        name="weir_store_retired_items_total",
        type=_COUNTER,
        unit="",
        labels=(),
        help="Stored items that retention removed since the process started.",
    ),
    Vital(
        name="weir_outbox_oldest_seconds",
        type=_GAUGE,
        unit="seconds",
        labels=("destination",),
        help="Age of the oldest frame that a destination has not taken; 0 when none waits.",
    ),
    Vital(
        name="weir_forward_held",
        type=_GAUGE,
        unit="",
        labels=("destination",),
        help="1 while the backlog of a destination waits for its hours and nothing is wrong.",
    ),
    Vital(
        name="weir_clock_skew_events_total",
        type=_COUNTER,
        unit="",
        labels=(),
        help="Events from the future, clamped to their arrival.",
    ),
    Vital(
        name="weir_late_events_total",
        type=_COUNTER,
        unit="",
        labels=(),
        help="Events that arrived after their window was judged; they still count in budgets.",
    ),
    Vital(
        name="weir_ready",
        type=_GAUGE,
        unit="",
        labels=("check",),
        help="1 when a readiness check passes.",
    ),
)

VITALS: Final[Mapping[str, Vital]] = {vital.name: vital for vital in _ALL}
