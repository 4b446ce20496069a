"""For who looks for the cause: each model and the inside of the gateway."""

from typing import Final

from dashboards.boards.common import CLUSTER, MODEL, MODELS, REGION, SITE, latency, quantile, rate
from dashboards.panels import Board, Panel, Row, Target

DEBUG: Final = Board(
    uid="weir-debug",
    title="Weir: debug",
    description="Rate, errors and duration of each model, and the inside of the gateway.",
    time_from="now-1h",
    refresh="30s",
    variables=[CLUSTER, REGION, MODELS],
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
                    kind="timeseries",
                    title="Drift index",
                    description="Population stability index of each signal against its frozen "
                    "baseline; how far, where the evidence says how sure.",
                    unit="short",
                    targets=[
                        Target(
                            expression="max by (model, version, signal) "
                            f"(weir_drift_psi{{{MODEL}}})",
                            legend="{{model}} {{version}} {{signal}}",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    kind="search",
                    title="Traces of a service",
                    description="Newest traces of the service that is typed in above, from the "
                    "site's own store.",
                    width=12,
                ),
            ],
        ),
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
                    "that came from the future.",
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
                ),
            ],
        ),
    ],
)
