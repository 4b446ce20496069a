"""For who looks for the cause: each model and the inside of the gateway."""

from typing import Final

from dashboards.boards.common import (
    CLUSTER,
    DEVICE,
    DEVICES,
    MODEL,
    MODELS,
    NONE_WANTED,
    REGION,
    SITE,
    latency,
    quantile,
    rate,
)
from dashboards.boards.drift import ACCURACY_ROW, DRIFT_ROW
from dashboards.panels import Board, Panel, Row, Step, Target

# The gateway tells of clocks that are 5 s ahead or 30 s behind.
OFFSET_STEPS: Final = (
    Step(value=None, colour="red"),
    Step(value=-30, colour="green"),
    Step(value=5, colour="red"),
)
# And of a resource that is nine tenths full.
HEADROOM_STEPS: Final = (
    Step(value=None, colour="red"),
    Step(value=0.1, colour="orange"),
    Step(value=0.25, colour="green"),
)
# What goes wrong with devices rather than with models.
DEVICE_KINDS: Final = 'kind=~"accelerator|model_load|saturation|power|clock_skew"'

DEVICE_ROW: Final = Row(
    title="Devices",
    panels=[
        Panel(
            kind="timeseries",
            title="Clock offset",
            description="How far clocks are ahead at least, or behind at most, of the ten devices "
            "that are farthest to either side. Outside the lines it is told; a negative value may "
            "also be a device that sends late.",
            unit="s",
            targets=[
                Target(
                    expression=f"topk(10, weir_device_clock_offset_seconds{{{DEVICE}}}) or "
                    f"bottomk(10, weir_device_clock_offset_seconds{{{DEVICE}}})",
                    legend="{{device}}",
                )
            ],
            steps=OFFSET_STEPS,
            width=12,
        ),
        Panel(
            kind="timeseries",
            title="Clock jitter",
            description="Mean delay of a device's requests above its least one, of the ten with "
            "most. High ones are a bad network or a full queue, and make the offset unsure.",
            unit="s",
            targets=[
                Target(
                    expression=f"topk(10, weir_device_clock_jitter_seconds{{{DEVICE}}})",
                    legend="{{device}}",
                )
            ],
            width=12,
        ),
        Panel(
            kind="timeseries",
            title="Headroom",
            description="What is left of the busiest resource at its peak in ten minutes, of the "
            "ten devices with least. Below a tenth latency follows.",
            unit="percentunit",
            targets=[
                Target(
                    expression=f"bottomk(10, weir_device_headroom_ratio{{{DEVICE}}})",
                    legend="{{device}}",
                )
            ],
            steps=HEADROOM_STEPS,
            width=12,
        ),
        Panel(
            kind="table",
            title="Readings",
            description="Newest readings of the hosts, each in the unit of its OpenTelemetry "
            "metric; the twenty devices with the highest of each. Choose devices above.",
            unit="short",
            targets=[
                Target(
                    expression="max by (device, reading) (topk by (reading) (20, "
                    f"weir_device_reading{{{DEVICE}}}))"
                )
            ],
            columns={
                "device": ("Device", "none"),
                "reading": ("Reading", "none"),
                "Value #A": ("Value", "short"),
            },
            width=12,
        ),
    ],
)

DECLARED_ROW: Final = Row(
    title="Labels, rollouts, costs and bytes",
    panels=[
        Panel(
            kind="timeseries",
            title="Labels by result",
            description="Labels per second by what became of them. Many that match nothing carry "
            "the wrong trace id or come too late.",
            unit="cps",
            targets=[Target(expression=rate("weir_labels_total", "result"), legend="{{result}}")],
        ),
        Panel(
            kind="timeseries",
            title="Labels waiting",
            description="Labels whose inference has not come yet. A line that only rises is labels "
            "of inferences that this site never sees.",
            unit="short",
            targets=[
                Target(
                    expression=f"sum by (instance) (weir_labels_waiting{{{SITE}}})",
                    legend="{{instance}}",
                )
            ],
        ),
        Panel(
            kind="timeseries",
            title="Unusable declarations",
            description="Rollouts, labels and batch jobs per second that were declared in a way "
            "that cannot be used, by reason; none is normal.",
            unit="cps",
            targets=[
                Target(
                    expression=rate("weir_unusable_declarations_total", "reason"),
                    legend="{{reason}}",
                )
            ],
        ),
        Panel(
            kind="table",
            title="Cost by version and feature",
            description="Cost of inferences in the current month (UTC); sort by it to see what "
            "the month is spent on.",
            unit="short",
            targets=[
                Target(
                    expression="sum by (model, version, feature, currency) "
                    f"(weir_cost_part{{{MODEL}}})"
                )
            ],
            columns={
                "model": ("Model", "none"),
                "version": ("Version", "none"),
                "feature": ("Feature", "none"),
                "Value #A": ("Cost", "short"),
                "currency": ("Currency", "none"),
            },
        ),
        Panel(
            kind="timeseries",
            title="Bytes that left by model",
            description="Encoded bytes per second that were let out for each model; ~none has no "
            "contract.",
            unit="Bps",
            targets=[
                Target(expression=rate("weir_left_bytes_total", "model", MODEL), legend="{{model}}")
            ],
        ),
        Panel(
            kind="table",
            title="Rolled out in 30 days",
            description="Devices that rollouts reached or failed to reach, and retrainings that "
            "were rolled out. Failures count in the objective on deployments.",
            unit="short",
            targets=[
                Target(
                    expression="sum by (model) "
                    f'(weir_rollout_devices{{{MODEL}, outcome="success"}})'
                ),
                Target(
                    expression="sum by (model) "
                    f'(weir_rollout_devices{{{MODEL}, outcome="failure"}})'
                ),
                Target(expression=f"sum by (model) (weir_retrains{{{MODEL}}})"),
            ],
            columns={
                "model": ("Model", "none"),
                "Value #A": ("Succeeded", "short"),
                "Value #B": ("Failed", "short"),
                "Value #C": ("Retrained", "short"),
            },
            marks={"Value #B": NONE_WANTED},
        ),
    ],
)

DEBUG: Final = Board(
    uid="weir-debug",
    title="Weir: debug",
    description="Rate, errors and duration of each model, its drift, accuracy and devices, what "
    "was declared of it, and the inside of the gateway.",
    time_from="now-1h",
    refresh="30s",
    variables=[CLUSTER, REGION, MODELS, DEVICES],
    traces=True,
    rows=[
        Row(
            title="Models",
            panels=[
                Panel(
                    kind="timeseries",
                    title="Inferences by outcome",
                    description="Inferences per second of each model, version and outcome.",
                    unit="cps",
                    targets=[
                        Target(
                            expression=rate(
                                "weir_inference_total", "model, version, outcome", MODEL
                            ),
                            legend="{{model}} {{version}} {{outcome}}",
                        )
                    ],
                    width=12,
                ),
                latency("Latency"),
                Panel(
                    kind="search",
                    title="Traces of a service",
                    description="Newest traces of the service that is typed in above, from the "
                    "site's own store.",
                    width=12,
                ),
                Panel(
                    kind="timeseries",
                    title="Cold starts",
                    description="Inferences per second that had to load their model first. A "
                    "steady rate is memory that does not hold all models.",
                    unit="cps",
                    targets=[
                        Target(
                            expression=rate("weir_cold_starts_total", "model, version", MODEL),
                            legend="{{model}} {{version}}",
                        )
                    ],
                ),
                Panel(
                    kind="timeseries",
                    title="Model loads",
                    description="Loads per second by outcome. Failures of one model point at its "
                    "artifact, of all models at the devices.",
                    unit="cps",
                    targets=[
                        Target(
                            expression=rate("weir_model_loads_total", "model, outcome", MODEL),
                            legend="{{model}} {{outcome}}",
                        )
                    ],
                ),
                Panel(
                    kind="timeseries",
                    title="Accelerators, loads and hosts",
                    description="Anomalies in an hour that are about devices: a model that fell "
                    "back to another accelerator, loads, saturation, power, clocks.",
                    unit="short",
                    targets=[
                        Target(
                            expression="sum by (kind, model) (increase(weir_anomalies_total"
                            f"{{{MODEL}, {DEVICE_KINDS}}}[1h]))",
                            legend="{{kind}} {{model}}",
                        )
                    ],
                ),
            ],
        ),
        DRIFT_ROW,
        ACCURACY_ROW,
        DEVICE_ROW,
        DECLARED_ROW,
        Row(
            title="Accounting",
            panels=[
                Panel(
                    kind="timeseries",
                    title="Sampled out",
                    description="Items per second that sampling kept at the site, by rule.",
                    unit="cps",
                    targets=[
                        Target(
                            expression=rate("weir_sampled_out_items_total", "rule"),
                            legend="{{rule}}",
                        )
                    ],
                ),
                Panel(
                    kind="timeseries",
                    title="Dropped and quarantined",
                    description="Items per second that were given up or set aside, by reason.",
                    unit="cps",
                    targets=[
                        Target(
                            expression=rate("weir_dropped_items_total", "reason"),
                            legend="dropped {{reason}}",
                        ),
                        Target(
                            expression=rate("weir_quarantined_items_total", "reason"),
                            legend="quarantined {{reason}}",
                        ),
                    ],
                ),
                Panel(
                    kind="timeseries",
                    title="Bytes by stage",
                    description="Bytes per second on the wire, inflated, in the journal, in the "
                    "store and forwarded.",
                    unit="Bps",
                    targets=[
                        Target(expression=rate("weir_bytes_total", "stage"), legend="{{stage}}")
                    ],
                ),
            ],
        ),
        Row(
            title="Inside",
            panels=[
                Panel(
                    kind="timeseries",
                    title="Spans per batch",
                    description="How many spans one group commit held: few under low load, more "
                    "under pressure.",
                    unit="short",
                    targets=[
                        Target(
                            expression=quantile(q, "weir_batch_spans", SITE),
                            legend=f"p{q * 100:g}",
                        )
                        for q in (0.5, 0.95)
                    ],
                ),
                Panel(
                    kind="heatmap",
                    title="Time to acknowledge",
                    description="Acknowledgements per second by the time they took; the journal's "
                    "disk shows here first.",
                    unit="cps",
                    targets=[
                        Target(expression=rate("weir_ack_seconds_bucket", "le"), legend="{{le}}")
                    ],
                ),
                Panel(
                    kind="timeseries",
                    title="On disk",
                    description="Bytes that the journal and the trace store hold.",
                    unit="bytes",
                    targets=[
                        Target(
                            expression=f"sum by (instance) (weir_journal_bytes{{{SITE}}})",
                            legend="journal {{instance}}",
                        ),
                        Target(
                            expression=f"sum by (instance) (weir_store_bytes{{{SITE}}})",
                            legend="store {{instance}}",
                        ),
                    ],
                ),
                Panel(
                    kind="timeseries",
                    title="Time of events",
                    description="Events per second that came after their window was judged, and "
                    "that came from the future; and inferences that end before they start.",
                    unit="cps",
                    targets=[
                        Target(
                            expression=rate("weir_late_events_total", "instance"),
                            legend="late {{instance}}",
                        ),
                        Target(
                            expression=rate("weir_clock_skew_events_total", "instance"),
                            legend="future {{instance}}",
                        ),
                        Target(
                            expression=rate("weir_invalid_durations_total", "instance"),
                            legend="ends before its start {{instance}}",
                        ),
                    ],
                ),
                Panel(
                    kind="table",
                    title="Versions",
                    description="Version and kernel digest of each gateway.",
                    targets=[
                        Target(
                            expression="count by (instance, cluster, version, kernel) "
                            f"(weir_info{{{SITE}}})"
                        )
                    ],
                    columns={
                        "instance": ("Gateway", "none"),
                        "cluster": ("Cluster", "none"),
                        "version": ("Version", "none"),
                        "kernel": ("Kernel", "none"),
                    },
                    width=16,
                ),
            ],
        ),
    ],
)
