"""Turn alarms, burning SLOs and troubles into anomalies, and end them.

Law: everything is decided at tick ends and judged slots, in order, never at the time of the call;
what is urgent is told with the batch that shows it.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from gateway.batch import NO_CONTRACT, Anomaly, AnomalyKind, Severity
from gateway.contract.plan import Plan
from gateway.contract.schema import Action, Contract
from gateway.measure.cohorts import Traits
from gateway.measure.devices.causes import Causes
from gateway.measure.devices.devices import Devices
from gateway.measure.devices.placement import ACCELERATOR_KEY
from gateway.measure.drift.counting import Stream
from gateway.measure.drift.detector import Alarm
from gateway.measure.drift.rates import Rates
from gateway.measure.drift.streams import Streams
from gateway.measure.episodes import Episodes, anomaly_id
from gateway.measure.evidence import Ring
from gateway.measure.explain import burn_anomaly, drift_anomaly
from gateway.measure.ratewatch import is_rate_key, watch_rates
from gateway.measure.rollouts.rollouts import Rollouts
from gateway.measure.series import SeriesTable
from gateway.measure.settings import SECOND_NS, MeasureSettings
from gateway.measure.slo.judge import Burn
from gateway.measure.slo.objectives import Objectives
from gateway.measure.state import Int64
from gateway.measure.trouble import Trouble
from gateway.measure.views import is_back

# Troubles are looked for once in this time of judged slots.
TROUBLES_NS: Final = 60 * SECOND_NS
# A latched trouble is over when a person has acknowledged it; nothing has to stay quiet after that.
LATCHED: Final = frozenset({AnomalyKind.INTEGRITY})
_NOT_TROUBLES: Final = frozenset({AnomalyKind.DRIFT, AnomalyKind.SLO_BURN})

# What is wrong at a time, by the part that knows.
Troubles = Callable[[int], Sequence[Trouble]]


class Watch:
    """Open anomalies, and the parts whose state they explain."""

    def __init__(
        self,
        plan: Plan,
        settings: MeasureSettings,
        *,
        series: SeriesTable,
        streams: Streams,
        rates: Rates,
        objectives: Objectives,
        devices: Devices,
        rollouts: Rollouts,
        causes: Causes,
        recent: Ring,
        bad: Ring,
        turn: Callable[[int], None],
        due: Callable[[int], None],
        troubles: Troubles,
    ) -> None:
        self.plan = plan
        self.settings = settings
        self.series = series
        self.streams = streams
        self.rates = rates
        self.objectives = objectives
        self.devices = devices
        self.episodes = Episodes()
        self._rollouts = rollouts
        self._causes = causes
        self._turn = turn
        self._due = due
        self._troubles = troubles
        self._recent = recent
        self._bad = bad
        self._quiet_drift_ns = round(settings.drift_quiet_s * SECOND_NS)
        self._quiet_slo_ns = round(settings.slo_quiet_s * SECOND_NS)

    def turn(self, now_ns: int) -> list[Anomaly]:
        """Close ticks and judge SLOs up to a time; return what is raised, louder or resolved.

        What other parts see of time moves with each judged slot, and is counted at whole minutes,
        so that one long step comes to the same as many short ones.
        """
        anomalies = [
            anomaly
            for alarm in self.streams.turn(now_ns)
            if (anomaly := self._maybe_drift(alarm)) is not None
        ]
        anomalies += self._quiet_drifts(now_ns)
        anomalies += watch_rates(
            self.rates,
            self.episodes,
            self.plan.contracts,
            now_ns=now_ns,
            tick_s=self.settings.drift_tick_s,
        )
        for at_ns, burns in self.objectives.turn(now_ns):
            self._turn(at_ns)
            anomalies += self._judged(at_ns, burns)
            if at_ns % TROUBLES_NS == 0:
                self._due(at_ns)
                found = self._troubles(at_ns)
                anomalies += self.tell(found, at_ns)
                anomalies += self._quiet_troubles(found, at_ns)
        return anomalies

    def tell(self, troubles: Iterable[Trouble], at_ns: int) -> list[Anomaly]:
        """Open anomalies for troubles that are new, and tell louder ones again."""
        told: list[Anomaly] = []
        for trouble in troubles:
            key = _trouble_key(trouble)
            episode = self.episodes.open.get(key)
            if episode is None:
                told.append(self.episodes.start(key, self._anomaly(trouble, at_ns)))
                continue
            episode.quiet_for_ns(False, at_ns)
            if trouble.severity is Severity.PAGE and episode.anomaly.severity is Severity.TICKET:
                told.append(self.episodes.escalate(key, self._anomaly(trouble, at_ns)))
        return told

    def _quiet_troubles(self, found: Iterable[Trouble], at_ns: int) -> list[Anomaly]:
        """Resolve the anomalies of troubles that have been gone for long enough."""
        there = {_trouble_key(trouble) for trouble in found}
        resolved: list[Anomaly] = []
        for key, episode in list(self.episodes.open.items()):
            kind = episode.anomaly.kind
            if kind in _NOT_TROUBLES or key in there:
                continue
            needed_ns = 0 if kind in LATCHED else self._quiet_slo_ns
            if episode.quiet_for_ns(True, at_ns) >= needed_ns:
                resolved.append(self.episodes.resolve(key, at_ns))
        return resolved

    def _anomaly(self, trouble: Trouble, at_ns: int) -> Anomaly:
        contract = trouble.contract
        kind, subject, onset_ns = trouble.kind, trouble.subject, trouble.onset_ns
        return Anomaly(
            id=anomaly_id(kind, trouble.model, trouble.version, subject, onset_ns),
            kind=kind,
            severity=trouble.severity,
            owner="" if contract == NO_CONTRACT else self.plan.contracts[contract].owner,
            team=trouble.team,
            model=trouble.model,
            version=trouble.version,
            subject=subject,
            summary=trouble.summary,
            onset_ns=onset_ns,
            raised_ns=at_ns,
            numbers=trouble.numbers,
            evidence=trouble.evidence,
        )

    def _maybe_drift(self, alarm: Alarm) -> Anomaly | None:
        stream = self.streams.items[alarm.row]
        key = _drift_key(stream.key)
        self.streams.collect(alarm.row)
        if key in self.episodes.open:
            self.episodes.open[key].quiet_ns = None
            return None
        whole = _drift_key((stream.model, stream.version, stream.part_of))
        if stream.part_of and whole in self.episodes.open:
            # Told already: what moves as a whole moves in its parts.
            return None
        contract = self.plan.contracts[stream.contract]
        anomaly = drift_anomaly(
            alarm,
            stream=stream,
            bank=self.streams.bank,
            budget=self.streams.budget,
            baseline=self.streams.baselines[alarm.row],
            against=self.streams.against(alarm.row),
            since_onset=self.streams.against(alarm.row, alarm.onset_ns),
            may_leave=_may_leave(stream, contract),
            owner=contract.owner,
            tolerance=contract.drift.tolerance,
            tick_s=self.settings.drift_tick_s,
            sample=self._recent.newest(stream.series),
            device_names=self.devices.names,
            traits_of=partial(self._traits, stream.contract),
        )
        return self.episodes.start(key, anomaly)

    def _traits(self, contract: int, devices: Int64) -> Traits:
        """Tell on which accelerators devices ran a contract's model last."""
        models = self.devices.models
        return Traits(
            what="accelerator",
            names=models.accelerators,
            value=models.accelerator_of(devices, contract),
            may_leave=is_exported(self.plan.contracts[contract], ACCELERATOR_KEY),
        )

    def _quiet_drifts(self, now_ns: int) -> list[Anomaly]:
        """Resolve drifts whose index has been within the tolerance for long enough."""
        resolved: list[Anomaly] = []
        for key, episode in list(self.episodes.open.items()):
            anomaly = episode.anomaly
            if anomaly.kind is not AnomalyKind.DRIFT or is_rate_key(key):
                continue
            number = self.streams.number_of(anomaly.model, anomaly.version, anomaly.subject)
            if number is None or number not in self.streams.baselines:
                resolved.append(self.episodes.resolve(key, now_ns))
                continue
            last_ns = int(self.streams.bank.recent_ns[number].max())
            if last_ns <= episode.checked_ns:
                continue
            is_quiet = is_back(self.streams, number)
            if episode.quiet_for_ns(is_quiet, last_ns) >= self._quiet_drift_ns:
                resolved.append(self.episodes.resolve(key, last_ns))
                self.streams.bank.clear(number, last_ns)
        return resolved

    def promoted(self, numbers: Iterable[int], at_ns: int) -> list[Anomaly]:
        """Resolve the drifts of streams that have a new baseline; it was asked about the old one.

        Source: drift.md section 3.8.
        """
        keys = [_drift_key(self.streams.items[number].key) for number in numbers]
        return [self.episodes.resolve(key, at_ns) for key in keys if key in self.episodes.open]

    def _judged(self, at_ns: int, burns: list[Burn]) -> list[Anomaly]:
        """Turn one judgement of the SLOs into what is to be told."""
        told: list[Anomaly] = []
        burning: set[str] = set()
        for burn in burns:
            item = self.objectives.items[burn.objective]
            key = _burn_key(item.model, item.slo.name)
            burning.add(key)
            episode = self.episodes.open.get(key)
            if episode is None:
                if not self._is_transient(burn):
                    told.append(self.episodes.start(key, self._burn(burn)))
            else:
                episode.quiet_for_ns(False, at_ns)
                is_louder = burn.pages and episode.anomaly.severity is not Severity.PAGE
                if is_louder and not self._is_transient(burn):
                    told.append(self.episodes.escalate(key, self._burn(burn)))
        for key, episode in list(self.episodes.open.items()):
            if episode.anomaly.kind is not AnomalyKind.SLO_BURN or key in burning:
                continue
            if episode.quiet_for_ns(True, at_ns) >= self._quiet_slo_ns:
                told.append(self.episodes.resolve(key, at_ns))
        return told

    def _is_transient(self, burn: Burn) -> bool:
        """Tell whether a rollout explains a burn, which counts all the same."""
        pair = burn.pair
        return self._rollouts.suppresses(
            burn.objective, burn.at_ns, short_s=pair.short_s, factor=pair.factor
        )

    def _burn(self, burn: Burn) -> Anomaly:
        contract = self.objectives.items[burn.objective].contract
        samples = [
            (self.series.names[series][1], self._bad.newest(series))
            for series in range(len(self.series))
            if self.series.contract[series] == contract
        ]
        team = self._causes.team_of(contract)
        return burn_anomaly(burn, self.objectives, samples, self.devices.names, team)


def is_exported(contract: Contract, key: str) -> bool:
    """Say whether a contract lets an attribute leave the site as it is."""
    rule = contract.resource.get(key)
    signals = (each for each in contract.signals.values() if each.attribute == key)
    return any(each is not None and each.export is Action.PASS for each in (rule, *signals))


def _may_leave(stream: Stream, contract: Contract) -> bool:
    """Say whether a contract exports the values that a stream counts; weights are no values."""
    signal = contract.signals.get(stream.part_of or stream.signal)
    return signal is None or signal.export is Action.PASS


def _drift_key(key: tuple[str, str, str]) -> str:
    return json.dumps(["drift", *key], ensure_ascii=False)


def _trouble_key(trouble: Trouble) -> str:
    key = [trouble.kind.value, trouble.model, trouble.subject]
    return json.dumps(key, ensure_ascii=False)


def _burn_key(model: str, slo: str) -> str:
    return json.dumps(["slo_burn", model, slo], ensure_ascii=False)
