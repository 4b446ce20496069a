"""What the boards share: variables, label filters, thresholds and the two usual queries."""

from typing import Final

from dashboards.panels import Panel, Step, Target, Variable

SITE: Final = 'cluster=~"$cluster", region=~"$region"'
MODEL: Final = f'{SITE}, model=~"$model"'
DEVICE: Final = f'{SITE}, device=~"$device"'
SLO: Final = f'{MODEL}, slo=~"$slo"'

CLUSTER: Final = Variable(name="cluster", label="Cluster", metric="weir_info", key="cluster")
REGION: Final = Variable(name="region", label="Region", metric="weir_info", key="region")
MODELS: Final = Variable(name="model", label="Model", metric="weir_inference_total", key="model")
SLOS: Final = Variable(name="slo", label="SLO", metric="weir_slo_burn_rate", key="slo")
DEVICES: Final = Variable(
    name="device", label="Device", metric="weir_device_freshness_seconds", key="device"
)

# Burn rates that page (section "Windows per objective" of the SLO method): 14.4 times spends 2 % of
# a 30-day budget in an hour, 6 times 5 % in six hours.
BURN_STEPS: Final = (
    Step(value=None, colour="green"),
    Step(value=6, colour="orange"),
    Step(value=14.4, colour="red"),
)
BUDGET_STEPS: Final = (
    Step(value=None, colour="red"),
    Step(value=0, colour="orange"),
    Step(value=0.25, colour="green"),
)
# A day is what is left to act in; the alert WeirBudgetSoon says the same.
EXHAUSTION_STEPS: Final = (
    Step(value=None, colour="red"),
    Step(value=86_400, colour="orange"),
    Step(value=7 * 86_400, colour="green"),
)
# Share of a rollout's allocation: half is told as a ticket, all is the page that says halt.
ROLLOUT_STEPS: Final = (
    Step(value=None, colour="green"),
    Step(value=0.5, colour="orange"),
    Step(value=1, colour="red"),
)
# Share of a month's money or of a period's bytes.
SPENT_STEPS: Final = (
    Step(value=None, colour="green"),
    Step(value=0.8, colour="orange"),
    Step(value=1, colour="red"),
)
# Prometheus estimates an increase between two scrapes, so that one event may be a little less.
ZERO_WANTED: Final = (Step(value=None, colour="green"), Step(value=0.001, colour="red"))
NONE_WANTED: Final = (Step(value=None, colour="green"), Step(value=1, colour="red"))
# A device is silent after five minutes; the freshness SLO and its alert say the same.
SILENT_S: Final = 300


def rate(metric: str, by: str, labels: str = SITE) -> str:
    """Return the summed rate of a counter."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(share: float, metric: str, labels: str) -> str:
    """Return a quantile of a histogram over all its series."""
    buckets = rate(f"{metric}_bucket", "le", labels)
    return f"histogram_quantile({share:g}, {buckets})"


def latency(title: str) -> Panel:
    """Return the panel of inference latency that two boards have."""
    metric = "weir_inference_duration_seconds"
    return Panel(
        kind="timeseries",
        title=title,
        description="Time an inference took, of every span before sampling. Dots are exemplars: "
        "each opens its trace.",
        unit="s",
        targets=[
            Target(expression=quantile(q, metric, MODEL), legend=f"p{q * 100:g}", exemplars=True)
            for q in (0.5, 0.95, 0.99)
        ],
        width=12,
    )
