"""For who owns the service: are the objectives met, what does it cost, what went wrong."""

from typing import Final

from dashboards.boards.common import (
    BUDGET_STEPS,
    CLUSTER,
    MODEL,
    MODELS,
    NONE_WANTED,
    REGION,
    SILENT_S,
    SITE,
    SLO,
    SLOS,
    rate,
)
from dashboards.panels import Board, Panel, Row, Target

BUDGETS: Final = Panel(
    kind="table",
    title="Objectives",
    description="Budget left of each objective's period (below 0 it is overspent), how fast it is "
    "being spent now (1 is exactly on budget), and what was counted in three days.",
    targets=[
        Target(expression=f"min by (model, slo) (weir_slo_budget_remaining_ratio{{{SLO}}})"),
        Target(expression=f'max by (model, slo) (weir_slo_burn_rate{{{SLO}, window="1h"}})'),
        Target(expression=f'max by (model, slo) (weir_slo_burn_rate{{{SLO}, window="3d"}})'),
        Target(expression=f'sum by (model, slo) (weir_slo_window_events{{{SLO}, window="3d"}})'),
    ],
    columns={
        "model": ("Model", "none"),
        "slo": ("SLO", "none"),
        "Value #A": ("Budget left", "percentunit"),
        "Value #B": ("Burn rate 1 h", "short"),
        "Value #C": ("Burn rate 3 d", "short"),
        "Value #D": ("Events 3 d", "short"),
    },
    width=14,
    height=9,
)

EXECUTIVE: Final = Board(
    uid="weir-executive",
    title="Weir: executive",
    description="Are the objectives met, what did the traffic cost, and what went wrong: 30 days.",
    time_from="now-30d",
    refresh="5m",
    variables=[CLUSTER, REGION, MODELS, SLOS],
    rows=[
        Row(
            title="Objectives",
            panels=[
                BUDGETS,
                Panel(
                    kind="timeseries",
                    title="Budget left",
                    description="Share of the error budget that is left; at 0 releases wait.",
                    unit="percentunit",
                    targets=[
                        Target(
                            expression="min by (model, slo) "
                            f"(weir_slo_budget_remaining_ratio{{{SLO}}})",
                            legend="{{model}} {{slo}}",
                        )
                    ],
                    steps=BUDGET_STEPS,
                    width=10,
                    height=9,
                ),
            ],
        ),
        Row(
            title="Traffic",
            panels=[
                Panel(
                    kind="timeseries",
                    title="Inferences",
                    description="Inferences per second of each model, counted before sampling.",
                    unit="cps",
                    targets=[
                        Target(
                            expression=rate("weir_inference_total", "model", MODEL),
                            legend="{{model}}",
                        )
                    ],
                    width=12,
                ),
                Panel(
                    kind="timeseries",
                    title="Bandwidth",
                    description="Bytes per second that came in on the wire and that left the site.",
                    unit="Bps",
                    targets=[
                        Target(
                            expression=rate(
                                "weir_bytes_total", "stage", f'{SITE}, stage=~"wire|forward"'
                            ),
                            legend="{{stage}}",
                        )
                    ],
                    width=6,
                ),
                Panel(
                    kind="stat",
                    title="Data reduction",
                    description="Share of the received bytes that did not leave the site.",
                    unit="percentunit",
                    targets=[
                        Target(
                            expression="1 - sum(increase(weir_bytes_total"
                            f'{{{SITE}, stage="forward"}}[$__range])) / sum(increase('
                            f'weir_bytes_total{{{SITE}, stage="wire"}}[$__range]))'
                        )
                    ],
                    width=6,
                ),
            ],
        ),
        Row(
            title="What went wrong",
            panels=[
                Panel(
                    kind="stat",
                    title="Anomalies",
                    description="Anomalies raised in the chosen time, by kind and model.",
                    unit="short",
                    targets=[
                        Target(
                            expression="sum by (kind, model) (increase(weir_anomalies_total"
                            f"{{{MODEL}}}[$__range]))",
                            legend="{{kind}} {{model}}",
                        )
                    ],
                    steps=NONE_WANTED,
                    width=12,
                ),
                Panel(
                    kind="stat",
                    title="Silent devices",
                    description="Devices whose newest event is more than five minutes old, among "
                    "the stalest, which are the ones that a gateway lists.",
                    unit="short",
                    targets=[
                        Target(
                            expression="sum(weir_device_freshness_seconds"
                            f"{{{SITE}}} > bool {SILENT_S})"
                        )
                    ],
                    steps=NONE_WANTED,
                    width=6,
                ),
                Panel(
                    kind="stat",
                    title="Deep dives",
                    description="Deep dives by state: what was fetched from devices, and how it "
                    "ended.",
                    unit="short",
                    targets=[
                        Target(
                            expression=f"sum by (state) (weir_dives{{{SITE}}})",
                            legend="{{state}}",
                        )
                    ],
                    width=6,
                ),
            ],
        ),
    ],
)
