"""For who is on call: what fires, how bad it is, and whose it is."""

from typing import Final

from dashboards.boards.common import (
    BURN_STEPS,
    CLUSTER,
    EXHAUSTION_STEPS,
    MODEL,
    MODELS,
    NONE_WANTED,
    REGION,
    ROLLOUT_STEPS,
    SILENT_S,
    SITE,
    SLO,
    SLOS,
    latency,
    quantile,
    rate,
)
from dashboards.panels import Board, Panel, Row, Step, Target

ON_CALL: Final = Board(
    uid="weir-oncall",
    title="Weir: on call",
    description="What fires, how bad it is, whether it is the models, the devices or the gateway.",
    time_from="now-6h",
    refresh="30s",
    variables=[CLUSTER, REGION, MODELS, SLOS],
    rows=[
        Row(
            title="Now",
            panels=[
                Panel(
                    kind="table",
                    title="Firing alerts",
                    description="Firing alerts with owner; alerts/runbooks has a page for each.",
                    targets=[
                        Target(
                            expression="count by (alertname, severity, owner, slo, model, "
                            "destination) (ALERTS{"
                            f'{SITE}, alertname=~"Weir.+", alertstate="firing", '
                            'severity=~"page|ticket"})'
                        )
                    ],
                    columns={
                        "alertname": ("Alert", "none"),
                        "severity": ("Severity", "none"),
                        "owner": ("Owner", "none"),
                        "slo": ("SLO", "none"),
                        "model": ("Model", "none"),
                        "destination": ("Destination", "none"),
                    },
                    width=12,
                ),
                Panel(
                    kind="stat",
                    title="Integrity",
                    description="Models whose violation of integrity nobody has acknowledged; any "
                    "but 0 comes before everything else.",
                    unit="short",
                    targets=[Target(expression=f"sum(weir_integrity_latched{{{MODEL}}})")],
                    steps=NONE_WANTED,
                    width=4,
                ),
                Panel(
                    kind="stat",
                    title="Gateways up",
                    description="Gateways that answer Prometheus; below the known number one is "
                    "down.",
                    unit="short",
                    targets=[Target(expression=f'sum(up{{job="weir", {SITE}}})')],
                    steps=(Step(value=None, colour="red"), Step(value=1, colour="green")),
                    width=4,
                ),
                Panel(
                    kind="stat",
                    title="Pending",
                    description="Items that a destination has not taken yet; they lie on disk.",
                    unit="short",
                    targets=[
                        Target(
                            expression=f"sum by (destination) (weir_pending_items{{{SITE}}})",
                            legend="{{destination}}",
                        )
                    ],
                    width=4,
                ),
            ],
        ),
        Row(
            title="Objectives",
            panels=[
                Panel(
                    kind="timeseries",
                    title="Burn rate",
                    description="How fast each objective's budget is spent: 1 uses it up exactly "
                    "at the end of its period. The lines are where it pages.",
                    unit="short",
                    targets=[
                        Target(
                            expression="max by (model, slo, window) (weir_slo_burn_rate"
                            f'{{{SLO}, window=~"5m|1h|6h"}})',
                            legend="{{model}} {{slo}} {{window}}",
                        )
                    ],
                    steps=BURN_STEPS,
                    width=12,
                ),
                Panel(
                    kind="timeseries",
                    title="Events behind the burn",
                    description="Good and bad events of the last hour. A high burn of few events "
                    "says little.",
                    unit="short",
                    targets=[
                        Target(
                            expression="sum by (model, slo, outcome) (weir_slo_window_events"
                            f'{{{SLO}, window="1h"}})',
                            legend="{{model}} {{slo}} {{outcome}}",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    kind="timeseries",
                    title="Rollout spending",
                    description="Share of its allocation that each running rollout has spent. The "
                    "lines: at half it is watched, at all of it halted.",
                    unit="percentunit",
                    targets=[
                        Target(
                            expression="max by (model, rollout, slo) ("
                            f"weir_rollout_spent_ratio{{{SLO}}} / "
                            f"weir_rollout_allocation_ratio{{{SLO}}})",
                            legend="{{model}} {{rollout}} {{slo}}",
                        )
                    ],
                    steps=ROLLOUT_STEPS,
                    width=12,
                ),
                Panel(
                    kind="timeseries",
                    title="Time to exhaustion",
                    description="How long each budget lasts at the rate of now; no line is for "
                    "ever. Below a day it is told.",
                    unit="s",
                    targets=[
                        Target(
                            expression="min by (model, slo) "
                            f"(weir_slo_exhaustion_seconds{{{SLO}}})",
                            legend="{{model}} {{slo}}",
                        )
                    ],
                    steps=EXHAUSTION_STEPS,
                    width=12,
                ),
                latency("Inference latency"),
                Panel(
                    kind="heatmap",
                    title="Latency distribution",
                    description="Inferences per second by duration; two bands are two causes.",
                    unit="cps",
                    targets=[
                        Target(
                            expression=rate("weir_inference_duration_seconds_bucket", "le", MODEL),
                            legend="{{le}}",
                            exemplars=True,
                        )
                    ],
                    width=12,
                ),
            ],
        ),
        Row(
            title="Models and devices",
            panels=[
                Panel(
                    kind="timeseries",
                    title="Drift evidence",
                    description="Evidence in nats that a signal no longer follows its baseline, or "
                    "a model's event rate its usual one; above about 12.5 it is one false alarm in "
                    "30 days; where the site shares one budget, alarms need the logarithm of the "
                    "count of detectors more. An alarm sets it back.",
                    unit="short",
                    targets=[
                        Target(
                            expression="max by (model, version, signal) ("
                            f"weir_drift_alarm_log_evidence{{{MODEL}}})",
                            legend="{{model}} {{version}} {{signal}}",
                        )
                    ],
                    steps=(Step(value=None, colour="green"), Step(value=12.5, colour="red")),
                    width=12,
                ),
                Panel(
                    kind="timeseries",
                    title="Failed inferences by owner",
                    description="Failed inferences per second by who can mend their cause: devices "
                    "(memory, heat, drivers) or the model.",
                    unit="cps",
                    targets=[
                        Target(
                            expression=rate("weir_failed_inferences_total", "model, owner", MODEL),
                            legend="{{model}} {{owner}}",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    kind="timeseries",
                    title="Devices",
                    description="Expected devices of each model, heard and silent. Silent ones of "
                    "all models at once are the network or the power.",
                    unit="short",
                    targets=[
                        Target(
                            expression=f"sum by (model, state) (weir_devices{{{MODEL}}})",
                            legend="{{model}} {{state}}",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    kind="timeseries",
                    title="Oldest devices",
                    description="Age of the newest event of the ten devices heard last; from five "
                    "minutes on a device is silent.",
                    unit="s",
                    targets=[
                        Target(
                            expression=f"topk(10, weir_device_freshness_seconds{{{SITE}}})",
                            legend="{{device}}",
                        )
                    ],
                    steps=(Step(value=None, colour="green"), Step(value=SILENT_S, colour="red")),
                    width=12,
                ),
            ],
        ),
        Row(
            title="Gateway",
            panels=[
                Panel(
                    kind="timeseries",
                    title="Received and refused",
                    description="Items per second that were acknowledged, and that were refused "
                    "with a reason.",
                    unit="cps",
                    targets=[
                        Target(
                            expression=rate("weir_received_items_total", "transport"),
                            legend="received {{transport}}",
                        ),
                        Target(
                            expression=rate("weir_refused_items_total", "reason"),
                            legend="refused {{reason}}",
                        ),
                    ],
                    width=12,
                ),
                Panel(
                    kind="timeseries",
                    title="Forwarded",
                    description="Items per second that each destination took.",
                    unit="cps",
                    targets=[
                        Target(
                            expression=rate("weir_forwarded_items_total", "destination"),
                            legend="{{destination}}",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    kind="timeseries",
                    title="Oldest waiting",
                    description="Age of the oldest frame that each destination has not taken.",
                    unit="s",
                    targets=[
                        Target(
                            expression="max by (destination) "
                            f"(weir_outbox_oldest_seconds{{{SITE}}})",
                            legend="{{destination}}",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    kind="timeseries",
                    title="Acknowledgement time",
                    description="From the arrival of a request to its durable acknowledgement.",
                    unit="s",
                    targets=[
                        Target(
                            expression=quantile(q, "weir_ack_seconds", SITE),
                            legend=f"p{q * 100:g}",
                        )
                        for q in (0.5, 0.99)
                    ],
                    width=12,
                ),
            ],
        ),
    ],
)
