"""Metrics of the gateway itself: what it takes, keeps, forwards, and how it is."""

from typing import Final

from gateway.vitals.vital import COUNTER, GAUGE, HISTOGRAM, Vital, VitalType

_SIGNALS: Final = ("traces", "metrics", "logs")

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
CALL_ENDS: Final = ("delivered", "refused", "expired")
STAGES: Final = ("wire", "inflated", "journal", "store", "forward")

OWN: Final = (
    Vital(
        name="weir_received_items_total",
        type=COUNTER,
        unit="",
        labels=("signal", "transport"),
        help="Items that were accepted and acknowledged.",
        known={"signal": _SIGNALS, "transport": ("grpc", "http")},
    ),
    Vital(
        name="weir_refused_items_total",
        type=COUNTER,
        unit="",
        labels=("signal", "reason"),
        help="Items that were not accepted; the client was told why.",
    ),
    Vital(
        name="weir_json_ignored_fields_total",
        type=COUNTER,
        unit="",
        labels=("signal",),
        help="Fields of OTLP/JSON bodies that OTLP does not know, and that were left out.",
        known={"signal": _SIGNALS},
    ),
    Vital(
        name="weir_forwarded_items_total",
        type=COUNTER,
        unit="",
        labels=("destination", "signal"),
        help="Items that a destination took.",
    ),
    Vital(
        name="weir_sampled_out_items_total",
        type=COUNTER,
        unit="",
        labels=("signal", "rule"),
        help="Items that sampling or policy kept at the site, by the rule that decided.",
    ),
    Vital(
        name="weir_dropped_items_total",
        type=COUNTER,
        unit="",
        labels=("destination", "signal", "reason"),
        help="Accepted items that will not be forwarded, by reason.",
    ),
    Vital(
        name="weir_quarantined_items_total",
        type=COUNTER,
        unit="",
        labels=("signal", "reason"),
        help="Accepted items that could not be classified or processed and were set aside.",
    ),
    Vital(
        name="weir_pending_items",
        type=GAUGE,
        unit="",
        labels=("destination", "signal"),
        help="Accepted items that are still on their way to a destination.",
    ),
    Vital(
        name="weir_bytes_total",
        type=COUNTER,
        unit="bytes",
        labels=("stage",),
        help="Bytes that passed each stage.",
        known={"stage": STAGES},
    ),
    Vital(
        name="weir_ack_seconds",
        type=HISTOGRAM,
        unit="seconds",
        labels=(),
        help="Time from the arrival of a request to its acknowledgement.",
    ),
    Vital(
        name="weir_batch_spans",
        type=HISTOGRAM,
        unit="",
        labels=(),
        help="Spans in one group commit.",
    ),
    Vital(
        name="weir_dives",
        type=GAUGE,
        unit="",
        labels=("state",),
        help="Deep dives by state.",
        known={"state": DIVE_STATES},
    ),
    Vital(
        name="weir_retrain_calls_total",
        type=COUNTER,
        unit="",
        labels=("state",),
        help="Calls of retrain webhooks that came to an end, by which.",
        known={"state": CALL_ENDS},
    ),
    Vital(
        name="weir_retrain_waiting",
        type=GAUGE,
        unit="",
        labels=(),
        help="Calls of retrain webhooks that no receiver has taken yet.",
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
        type=GAUGE,
        unit="bytes",
        labels=(),
        help="Memory of the process that is in RAM.",
    ),
    Vital(
        name="weir_cpu_seconds_total",
        type=COUNTER,
        unit="seconds",
        labels=(),
        help="Processor time of the process since it started.",
    ),
    Vital(
        name="weir_journal_bytes",
        type=GAUGE,
        unit="bytes",
        labels=(),
        help="Bytes that the journal holds on disk.",
    ),
    Vital(
        name="weir_store_bytes",
        type=GAUGE,
        unit="bytes",
        labels=(),
        help="Bytes that the trace store holds on disk.",
    ),
    Vital(
        name="weir_store_retired_items_total",
        type=COUNTER,
        unit="",
        labels=(),
        help="Stored items that retention removed since the process started.",
    ),
    Vital(
        name="weir_outbox_oldest_seconds",
        type=GAUGE,
        unit="seconds",
        labels=("destination",),
        help="Age of the oldest frame that a destination has not taken; 0 when none waits.",
    ),
    Vital(
        name="weir_forward_held",
        type=GAUGE,
        unit="",
        labels=("destination",),
        help="1 while the backlog of a destination waits for its hours and nothing is wrong.",
    ),
    Vital(
        name="weir_ready",
        type=GAUGE,
        unit="",
        labels=("check",),
        help="1 when a readiness check passes.",
    ),
)
