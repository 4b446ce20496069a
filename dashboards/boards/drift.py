"""Rows of the debug board about drift, accuracy and the trainings that drift asks for."""

from collections.abc import Mapping
from typing import Final

from dashboards.boards.common import MODEL, NONE_WANTED, SITE
from dashboards.panels import Panel, Row, Step, Target, Unit

# What noise alone reaches, at every amount of traffic.
NOISE_STEPS: Final = (Step(value=None, colour="green"), Step(value=1, colour="orange"))
# ln(30 d / 10 s): one false alarm in 30 days with ticks of 10 s.
EVIDENCE_STEPS: Final = (Step(value=None, colour="green"), Step(value=12.5, colour="red"))
# ln(100): passed, ever, by one calibrated version in a hundred.
CALIBRATION_STEPS: Final = (Step(value=None, colour="green"), Step(value=4.6, colour="red"))
# A rate has no version, and a signal that happens to have its name has one.
RATE: Final = f'{MODEL}, signal="event_rate", version=""'
ENDED_BADLY: Final = f'{SITE}, state=~"refused|expired"'

SIGNAL: Final = "{{model}} {{version}} {{signal}}"
COLUMNS: Final[Mapping[str, tuple[str, Unit]]] = {
    "model": ("Model", "none"),
    "version": ("Version", "none"),
    "signal": ("Signal", "none"),
}


def _by_signal(expression: str) -> str:
    return f"max by (model, version, signal) ({expression})"


DRIFT_ROW: Final = Row(
    title="Drift",
    panels=[
        Panel(
            kind="timeseries",
            title="Relative drift index",
            description="How far each signal is from its baseline, over what noise alone reaches. "
            "1, the line, is the ceiling of noise at every amount of traffic, so this is the one "
            "to compare sites by; the evidence says how sure it is.",
            unit="short",
            targets=[
                Target(
                    expression=_by_signal(f"weir_drift_relative_index{{{MODEL}}}"), legend=SIGNAL
                )
            ],
            steps=NOISE_STEPS,
            width=12,
        ),
        Panel(
            kind="timeseries",
            title="Drift index",
            description="Population stability index of each signal against its frozen baseline; "
            "how far, where the evidence says how sure.",
            unit="short",
            targets=[Target(expression=_by_signal(f"weir_drift_psi{{{MODEL}}}"), legend=SIGNAL)],
            width=12,
        ),
        Panel(
            kind="table",
            title="Drift report",
            description="Signals that have drifted. At most 10 % of these are expected to be "
            "false, over a patience of 30 days, however many signals there are.",
            unit="short",
            targets=[Target(expression=_by_signal(f"weir_drift_reported{{{MODEL}}}") + " == 1")],
            columns=COLUMNS,
            width=6,
        ),
        Panel(
            kind="table",
            title="Uncalibrated signals",
            description="Signals whose baseline is too small for the tolerance of their contract. "
            "They have an index and never alarm: promote a larger candidate, build the baseline "
            "from a file, or allow a larger tolerance.",
            unit="short",
            targets=[
                Target(expression=_by_signal(f"weir_drift_uncalibrated{{{MODEL}}}") + " == 1")
            ],
            columns=COLUMNS,
            width=6,
        ),
        Panel(
            kind="timeseries",
            title="Event rate evidence",
            description="Evidence in nats that the number of inferences of a model has changed, "
            "where its contract asks. Above the line it is one false alarm in 30 days.",
            unit="short",
            targets=[
                Target(
                    expression=f"max by (model) (weir_drift_alarm_log_evidence{{{RATE}}})",
                    legend="{{model}}",
                )
            ],
            steps=EVIDENCE_STEPS,
            width=6,
        ),
        Panel(
            kind="timeseries",
            title="Shadow alarms",
            description="Alarms in an hour of baselines that a promotion replaced; they page "
            "nobody. They say that what changed lasts, which is right where the change was wanted. "
            "None of them while the baseline in force alarms: the old one fits again.",
            unit="short",
            targets=[
                Target(
                    expression="sum by (model, version, signal) "
                    f"(increase(weir_drift_shadow_alarms_total{{{MODEL}}}[1h]))",
                    legend=SIGNAL,
                )
            ],
            width=6,
        ),
    ],
)

ACCURACY_ROW: Final = Row(
    title="Accuracy and retraining",
    panels=[
        Panel(
            kind="timeseries",
            title="Accuracy",
            description="Share of right answers with its 95 % interval: of those labelled in 30 "
            "days, and beside it what confidence of the last minutes suggests. The latter needs no "
            "label of today and assumes that the same confidence is still worth the same.",
            unit="percentunit",
            targets=[
                Target(
                    expression=f"max by (model, version, bound) (weir_accuracy_ratio{{{MODEL}}})",
                    legend="{{model}} {{version}} labels {{bound}}",
                ),
                Target(
                    expression="max by (model, version, bound) "
                    f"(weir_estimated_accuracy_ratio{{{MODEL}}})",
                    legend="{{model}} {{version}} by confidence {{bound}}",
                ),
            ],
            width=12,
        ),
        Panel(
            kind="timeseries",
            title="Calibration evidence",
            description="Evidence in nats that a version is not as often right as its confidence "
            "says. A calibrated one passes the line, ever, with a probability of 1 %.",
            unit="short",
            targets=[
                Target(
                    expression="max by (model, version) "
                    f"(weir_calibration_log_evidence{{{MODEL}}})",
                    legend="{{model}} {{version}}",
                )
            ],
            steps=CALIBRATION_STEPS,
            width=6,
        ),
        Panel(
            kind="timeseries",
            title="Retrain calls",
            description="Webhook calls that no receiver has taken yet, and those that were refused "
            "or expired within an hour: trainings that were not started.",
            unit="short",
            targets=[
                Target(
                    expression=f"sum by (instance) (weir_retrain_waiting{{{SITE}}})",
                    legend="waiting {{instance}}",
                ),
                Target(
                    expression="sum by (state, instance) "
                    f"(increase(weir_retrain_calls_total{{{ENDED_BADLY}}}[1h]))",
                    legend="{{state}} {{instance}}",
                ),
            ],
            steps=NONE_WANTED,
            width=6,
        ),
    ],
)
