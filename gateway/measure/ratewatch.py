"""Turn changes of a model's event rate into anomalies, and end them.

Law: `Rates` knows when an alarm begins and ends; here it only gets words and an episode. An open
episode without an alarm behind it, as after a promotion or a change of contracts, is over.
"""

import json
from typing import Final

import numpy as np

from gateway.batch import Anomaly, AnomalyKind, Severity, Team
from gateway.contract.schema import Contract
from gateway.measure.drift.fleet import Budget
from gateway.measure.drift.rates import EVENT_RATE, RateAlarm, Rates
from gateway.measure.episodes import Episodes, anomaly_id
from gateway.measure.explain import PERIOD_S
from gateway.measure.settings import FalseAlarms

_KIND: Final = "event_rate"


def watch_rates(
    rates: Rates, episodes: Episodes, contracts: tuple[Contract, ...], *, now_ns: int, tick_s: float
) -> list[Anomaly]:
    """Close the ticks up to a time; return what is raised or resolved."""
    told: list[Anomaly] = []
    for each in _unfounded(rates, episodes):
        ended_ns = int(rates.ended_ns[rates.models.index(each)]) if each in rates.models else 0
        # Where nothing has ended it, a change of contracts has, at a start that no tick tells of.
        told.append(episodes.resolve(rate_key(each), ended_ns or rates.tick * rates.tick_ns))
    for found in rates.turn(now_ns):
        key = rate_key(rates.models[found.row])
        if isinstance(found, RateAlarm):
            contract = contracts[rates.contracts[found.row]]
            told.append(episodes.start(key, rate_anomaly(found, contract, rates.budget, tick_s)))
        elif key in episodes.open:
            told.append(episodes.resolve(key, found.end_ns))
    return told


def _unfounded(rates: Rates, episodes: Episodes) -> list[str]:
    """List the models with an open episode and no alarm."""
    alarmed = {rates.models[row] for row in np.flatnonzero(rates.alarmed).tolist()}
    return [
        episode.anomaly.model
        for key, episode in episodes.open.items()
        if is_rate_key(key) and episode.anomaly.model not in alarmed
    ]


def rate_key(model: str) -> str:
    """Return the key of a model's episode; no signal has it, whatever its name."""
    return json.dumps([_KIND, model], ensure_ascii=False)


def is_rate_key(key: str) -> bool:
    """Say whether an episode is of an event rate."""
    return bool(json.loads(key)[0] == _KIND)


def rate_anomaly(alarm: RateAlarm, contract: Contract, budget: Budget, tick_s: float) -> Anomaly:
    """Explain an alarm in numbers and words."""
    model, kind = contract.model, AnomalyKind.DRIFT
    own_bound = alarm.log_bound - float(np.log(budget.sharing))
    what = "fallen" if alarm.now_hz < alarm.expected_hz else "risen"
    # In an hour of the week in which nothing is expected no change has a ratio.
    ratio = alarm.now_hz / alarm.expected_hz if alarm.expected_hz else None
    share = "" if ratio is None else f" ({ratio:.0%} of what was expected)"
    return Anomaly(
        id=anomaly_id(kind, model, "", EVENT_RATE, alarm.onset_ns),
        kind=kind,
        severity=Severity.TICKET,
        owner=contract.owner,
        # Devices, networks and what sends twice; a model has no say in how often it is asked.
        team=Team.DEVICE_OPS,
        model=model,
        version="",
        subject=EVENT_RATE,
        summary=(
            f"inferences of {model} have {what} from {alarm.expected_hz:.4g} to "
            f"{alarm.now_hz:.4g} per second{share}; "
            f"{alarm.low_hz:.4g} to {alarm.high_hz:.4g} would be no change"
        ),
        onset_ns=alarm.onset_ns,
        raised_ns=alarm.end_ns,
        numbers={
            "rate_expected_hz": alarm.expected_hz,
            "rate_now_hz": alarm.now_hz,
            "rate_low_hz": alarm.low_hz,
            "rate_high_hz": alarm.high_hz,
            **({} if ratio is None else {"rate_ratio": ratio}),
            "phi": alarm.phi,
            "log_evidence": alarm.log_evidence,
            "log_evidence_bound": alarm.log_bound,
            "window_events": float(alarm.events),
            "baseline_events": float(alarm.baseline_events),
            "false_alarms_per_30d": PERIOD_S / tick_s / float(np.exp(own_bound)),
            "budget_is_site": float(budget.per is FalseAlarms.SITE),
            "detectors": float(budget.detectors),
        },
    )
