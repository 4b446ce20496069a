"""For who owns the service: are the objectives met, what does it cost, what went wrong."""

from typing import Final

from dashboards.boards.common import (
    BUDGET_STEPS,
    CLUSTER,
    EXHAUSTION_STEPS,
    MODEL,
    MODELS,
    NONE_WANTED,
    REGION,
    ROLLOUT_STEPS,
    SITE,
    SLO,
    SLOS,
    SPENT_STEPS,
    ZERO_WANTED,
    rate,
)
from dashboards.panels import Board, Panel, Row, Step, Target

OBJECTIVES: Final = Panel(
    kind="table",
    title="Objectives",
    description="What each objective asks for, how much of its error budget is left (below 0 it is "
    "overspent), how long that lasts at the rate of now (empty is for ever), how fast it is being "
    "spent (1 is exactly on budget), and what was counted in three days.",
    targets=[
        Target(expression=f"max by (model, slo) (weir_slo_objective_ratio{{{SLO}}})"),
        Target(expression=f"min by (model, slo) (weir_slo_budget_remaining_ratio{{{SLO}}})"),
        Target(expression=f"min by (model, slo) (weir_slo_exhaustion_seconds{{{SLO}}})"),
        Target(expression=f'max by (model, slo) (weir_slo_burn_rate{{{SLO}, window="3d"}})'),
        Target(expression=f'sum by (model, slo) (weir_slo_window_events{{{SLO}, window="3d"}})'),
    ],
    columns={
        "model": ("Model", "none"),
        "slo": ("SLO", "none"),
        "Value #A": ("Objective", "percentunit"),
        "Value #B": ("Budget left", "percentunit"),
        "Value #C": ("Lasts for", "s"),
        "Value #D": ("Burn rate 3 d", "short"),
        "Value #E": ("Events 3 d", "short"),
    },
    marks={"Value #B": BUDGET_STEPS, "Value #C": EXHAUSTION_STEPS},
    width=14,
    height=9,
)

INTEGRITY: Final = Panel(
    kind="stat",
    title="Integrity violations",
    description="Violations in the chosen time, and models with one that nobody has acknowledged. "
    "0 is the only good number: there is no budget for them.",
    unit="short",
    targets=[
        Target(
            expression=f"sum(increase(weir_integrity_violations_total{{{MODEL}}}[$__range]))",
            legend="violations",
        ),
        Target(expression=f"sum(weir_integrity_latched{{{MODEL}}})", legend="open"),
    ],
    steps=ZERO_WANTED,
    width=6,
    height=7,
)

ROLLOUTS: Final = Panel(
    kind="table",
    title="Rollouts",
    description="Running rollouts: the share of the error budget that each may spend and has spent "
    "beyond the version before. From half of its share on it is watched, at all of it halted.",
    targets=[
        Target(expression=f"max by (model, rollout, slo) (weir_rollout_allocation_ratio{{{SLO}}})"),
        Target(expression=f"max by (model, rollout, slo) (weir_rollout_spent_ratio{{{SLO}}})"),
        Target(
            expression=f"max by (model, rollout, slo) (weir_rollout_spent_ratio{{{SLO}}} / "
            f"weir_rollout_allocation_ratio{{{SLO}}})"
        ),
    ],
    columns={
        "model": ("Model", "none"),
        "rollout": ("Rollout", "none"),
        "slo": ("SLO", "none"),
        "Value #A": ("Allocation", "percentunit"),
        "Value #B": ("Spent", "percentunit"),
        "Value #C": ("Of its share", "percentunit"),
    },
    marks={"Value #C": ROLLOUT_STEPS},
    width=10,
    height=7,
)

ANOMALIES: Final = Panel(
    kind="stat",
    title="Anomalies",
    description="Anomalies raised in the chosen time, by kind and model. Any number but 0 is worth "
    "a look at the console of the site.",
    unit="short",
    targets=[
        Target(
            expression="sum by (kind, model) (increase(weir_anomalies_total"
            f"{{{MODEL}}}[$__range]))",
            legend="{{kind}} {{model}}",
        )
    ],
    steps=NONE_WANTED,
    width=8,
    height=7,
)

ACCURACY: Final = Panel(
    kind="timeseries",
    title="Accuracy",
    description="Share of right answers among those labelled in 30 days, between the ends of its "
    "95 % interval. A wide interval has few labels; versions differ when theirs do not overlap. "
    "Between labels: what confidence says, as long as it means what it meant.",
    unit="percentunit",
    targets=[
        Target(
            expression=f"max by (model, version, bound) (weir_accuracy_ratio{{{MODEL}}})",
            legend="{{model}} {{version}} {{bound}}",
        ),
        Target(
            expression="max by (model, version) "
            f'(weir_estimated_accuracy_ratio{{bound="estimate", {MODEL}}})',
            legend="{{model}} {{version}} by confidence",
        ),
    ],
    width=12,
)

COST: Final = Panel(
    kind="table",
    title="Cost of the month",
    description="Spent in the current month (UTC), projected for its end at the rate of the last "
    "hours to days, and the budget of the contract. Orange from 80 % of the budget, red above it.",
    targets=[
        Target(expression=f"sum by (model, currency) (weir_cost_spent{{{MODEL}}})"),
        Target(expression=f"sum by (model, currency) (weir_cost_projected{{{MODEL}}})"),
        Target(expression=f"sum by (model, currency) (weir_cost_budget{{{MODEL}}})"),
        Target(
            expression=f"sum by (model, currency) (weir_cost_projected{{{MODEL}}}) / "
            f"sum by (model, currency) (weir_cost_budget{{{MODEL}}})"
        ),
    ],
    columns={
        "model": ("Model", "none"),
        "currency": ("Currency", "none"),
        "Value #A": ("Spent", "short"),
        "Value #B": ("Projected", "short"),
        "Value #C": ("Budget", "short"),
        "Value #D": ("Projected of budget", "percentunit"),
    },
    marks={"Value #D": SPENT_STEPS},
    width=12,
)

ALLOWANCE: Final = Panel(
    kind="table",
    title="Bandwidth against allowance",
    description="Bytes that left the site in the current period of each allowance. From 80 % on it "
    "is time to sample less, at 100 % it is spent.",
    targets=[
        Target(expression=f"sum by (model, slo) (weir_bandwidth_spent_bytes{{{MODEL}}})"),
        Target(expression=f"sum by (model, slo) (weir_bandwidth_allowance_bytes{{{MODEL}}})"),
        Target(
            expression=f"max by (model, slo) (weir_bandwidth_spent_bytes{{{MODEL}}} / "
            f"weir_bandwidth_allowance_bytes{{{MODEL}}})"
        ),
    ],
    columns={
        "model": ("Model", "none"),
        "slo": ("SLO", "none"),
        "Value #A": ("Left", "bytes"),
        "Value #B": ("Allowance", "bytes"),
        "Value #C": ("Spent", "percentunit"),
    },
    marks={"Value #C": SPENT_STEPS},
    width=12,
)

EXECUTIVE: Final = Board(
    uid="weir-executive",
    title="Weir: executive",
    description="Are the objectives met, what did it cost, and what went wrong: 30 days.",
    time_from="now-30d",
    refresh="5m",
    variables=[CLUSTER, REGION, MODELS, SLOS],
    rows=[
        Row(
            title="Objectives",
            panels=[
                OBJECTIVES,
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
        Row(title="What went wrong", panels=[INTEGRITY, ROLLOUTS, ANOMALIES]),
        Row(title="Accuracy and cost", panels=[ACCURACY, COST]),
        Row(
            title="Traffic and devices",
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
                ALLOWANCE,
                Panel(
                    kind="stat",
                    title="Data reduction",
                    description="Share of the received bytes that did not leave the site; below 0 "
                    "more left than came.",
                    unit="percentunit",
                    targets=[
                        Target(
                            expression="1 - sum(increase(weir_bytes_total"
                            f'{{{SITE}, stage="forward"}}[$__range])) / sum(increase('
                            f'weir_bytes_total{{{SITE}, stage="wire"}}[$__range]))'
                        )
                    ],
                    steps=(
                        Step(value=None, colour="red"),
                        Step(value=0, colour="orange"),
                        Step(value=0.5, colour="green"),
                    ),
                    width=8,
                    height=5,
                ),
                Panel(
                    kind="stat",
                    title="Silent devices",
                    description="Devices that are expected and not heard, by the threshold of "
                    "their contract. A device with two models counts with each.",
                    unit="short",
                    targets=[Target(expression=f'sum(weir_devices{{{MODEL}, state="silent"}})')],
                    steps=NONE_WANTED,
                    width=8,
                    height=5,
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
                    width=8,
                    height=5,
                ),
            ],
        ),
    ],
)
