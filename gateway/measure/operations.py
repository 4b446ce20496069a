"""Everything beside a model's own statistics: devices, rollouts, labels, costs, their troubles.

Law: as that of each part; this is only where they stand together, so that `measure` calls one. What
is declared comes in log records, so it is durable and replayed like everything else.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import Batch, Parcel, Signal
from gateway.contract.plan import Plan
from gateway.contract.schema import Indicator
from gateway.measure.costs import meters
from gateway.measure.costs.meters import Meters
from gateway.measure.devices import causes, devices, freshness, health
from gateway.measure.devices.causes import Causes
from gateway.measure.devices.devices import Devices
from gateway.measure.devices.freshness import Freshness
from gateway.measure.devices.health import Health
from gateway.measure.devices.runs import Runs
from gateway.measure.drift.promote import maybe_promote
from gateway.measure.drift.rates import Rates
from gateway.measure.drift.streams import Streams
from gateway.measure.estimates import estimates
from gateway.measure.estimates.estimates import Estimates
from gateway.measure.estimates.tables import Tables
from gateway.measure.labels import state as labelstate
from gateway.measure.labels.labels import Labels
from gateway.measure.rollouts import state as rolloutstate
from gateway.measure.rollouts.rollouts import Rollouts
from gateway.measure.series import SeriesTable
from gateway.measure.settings import SECOND_NS, MeasureSettings
from gateway.measure.slo.objectives import Objectives
from gateway.measure.state import Array, Int64, State, pack_json, part, prefixed, unpack_json
from gateway.measure.trouble import Trouble
from gateway.otlp import events
from gateway.otlp.readings import heard
from gateway.tables import Bool

# Why a promotion or a dismissal is not used, beside what `events` refuses.
NO_CANDIDATE: Final = "no_candidate"
NO_DEVICE: Final = "no_device"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferences:
    """Columns of the inferences of a batch. Shape: all (inferences,); rows None means all spans."""

    rows: Int64 | None
    contract: Int64
    series: Int64
    failed: Bool
    duration_ns: Int64
    invalid: Bool  # the duration is none
    event_ns: Int64
    arrival_ns: Int64
    device: Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Urgent:
    """What a parcel said that is told at once; `promoted` are numbers of streams."""

    violated: bool = False  # integrity
    promoted: Sequence[int] = ()


class Operations:
    """Devices, rollouts, labels, estimates and meters of a plan."""

    def __init__(
        self,
        plan: Plan,
        settings: MeasureSettings,
        objectives: Objectives,
        series: SeriesTable,
        streams: Streams,
        rates: Rates,
    ) -> None:
        self._objectives = objectives
        self._series = series
        self._streams = streams
        self._rates = rates
        self._deployers = settings.deployers
        self._lateness_ns = round(settings.lateness_s * SECOND_NS)
        self.devices = Devices(plan, settings)
        self.freshness = Freshness(plan, settings, self.devices)
        self.health = Health(plan, self.devices)
        self.causes = Causes(plan)
        self.rollouts = Rollouts(plan, objectives, series)
        tables = Tables(plan)
        self.labels = Labels(plan, settings.labels_max, tables.take)
        self.estimates = Estimates(plan, streams, self.labels, tables)
        self.meters = Meters(plan)
        self.unusable: Counter[str] = Counter()  # declarations, by reason

    def count(self, batch: Batch, some: Inferences, cold: Bool | None, bins: list[Int64]) -> None:
        """Count the inferences of a batch; `bins` are those of the streams' readers."""
        names = self._series.names
        self.rollouts.add(
            batch,
            some.rows,
            contract=some.contract,
            series=some.series,
            event_ns=some.event_ns,
            failed=some.failed,
            duration_ns=some.duration_ns,
            cold=cold,
            invalid=some.invalid,
        )
        self.labels.observe(
            batch,
            some.rows,
            contract=some.contract,
            series=some.series,
            names=names,
            event_ns=some.event_ns,
            lanes=self._streams.readers,
            bins=bins,
        )
        self.meters.observe(
            batch,
            some.rows,
            contract=some.contract,
            series=some.series,
            names=names,
            event_ns=some.event_ns,
        )

    def infer(
        self,
        batch: Batch,
        runs: Runs,
        *,
        matched: Array,
        contract: Array,
        series: Array,
        failed: Bool,
        event_ns: Int64,
    ) -> bool:
        """Note what the spans of a batch say of devices; returns whether integrity was violated.

        Shape: all (spans,); `matched` is NO_CONTRACT for what is no inference, `contract` that of
        the trace then.
        """
        names = self._series.names
        self.devices.infer(batch, runs, matched, series, names)
        self.causes.add(batch, matched, failed, event_ns)
        violated = self.health.integrity.add(
            batch,
            contract=contract,
            series=series,
            series_names=names,
            device=runs.rows(runs.device),
            devices=self.devices.names,
            event_ns=event_ns,
        )
        self._count_violations(contract[violated], event_ns[violated])
        return bool(len(violated))

    def _count_violations(self, contract: Array, event_ns: Int64) -> None:
        for index in np.unique(contract[contract >= 0]).tolist():
            some = event_ns[contract == index]
            for objective in self._objectives.of(index, Indicator.INTEGRITY):
                self._objectives.count(objective, some, np.ones(len(some), dtype=np.bool_))

    def hear(self, parcel: Parcel) -> Urgent:
        """Take what metrics and logs say of devices and what logs declare."""
        self.devices.hear(heard(parcel), parcel.arrival_ns)
        if parcel.signal is not Signal.LOGS:
            return Urgent()
        found = events.read(parcel, self._deployers)
        self.unusable.update(found.unreadable)
        self.rollouts.declare(found, parcel.arrival_ns)
        self.labels.hear(found.labels, parcel.arrival_ns)
        self.meters.bill(found.jobs, parcel.arrival_ns)
        for load in found.loads:
            self.health.loaded(model=load.model, error=load.error, at_ns=load.at_ns)
        for each in found.violations:
            contract = self.health.integrity.violated(
                model=each.model,
                version=each.version,
                error=each.error,
                device=each.device,
                at_ns=each.at_ns,
                arrival_ns=parcel.arrival_ns,
            )
            self._count_violations(np.array([contract]), np.array([each.at_ns], dtype=np.int64))
        for acknowledgement in found.acknowledgements:
            self.health.integrity.acknowledge(acknowledgement.anomaly)
        promoted = []
        for promotion in found.promotions:
            wanted, at_ns = promotion.baseline, parcel.arrival_ns
            number = maybe_promote(self._streams, wanted, at_ns)
            if number is not None:
                promoted.append(number)
            elif not self._rates.promote(wanted, at_ns):
                self.unusable[NO_CANDIDATE] += 1
        for dismissal in found.dismissals:
            if not self.devices.dismiss(dismissal.device, parcel.arrival_ns):
                self.unusable[NO_DEVICE] += 1
        return Urgent(violated=bool(found.violations), promoted=promoted)

    def turn(self, now_ns: int) -> None:
        """Move windows to a time."""
        self.devices.turn(now_ns)
        self.health.turn(now_ns)
        self.causes.turn(now_ns)
        self.estimates.turn(now_ns)

    def judged(self, at_ns: int) -> None:
        """Move everything to where it is when a slot is judged."""
        self.turn(at_ns + self._lateness_ns)
        self.rollouts.judge(at_ns)
        for due in self.labels.turn(at_ns):
            for objective in self._objectives.of(due.contract, Indicator.LABEL_LAG):
                if self._objectives.items[objective].slo.name in due.slos:
                    self._objectives.count(objective, due.event_ns, due.bad)

    def due(self, at_ns: int) -> None:
        """Count the devices of the minutes and of the rollouts that ended by a judged time."""
        for tick in self.freshness.turn(at_ns + self._lateness_ns):
            objective = self._objectives.of(tick.contract, Indicator.FRESHNESS)[tick.place]
            self._count_devices(objective, tick.at_ns, tick.good, tick.bad)
        for due in self.rollouts.due(at_ns):
            for objective in self._objectives.of(due.contract, Indicator.DEPLOYMENT):
                self._count_devices(objective, due.at_ns, due.good, due.bad)

    def _count_devices(self, objective: int, at_ns: int, good: int, bad: int) -> None:
        is_bad = np.arange(good + bad) >= good
        self._objectives.count(objective, np.full(len(is_bad), at_ns), is_bad)

    def troubles(self, at_ns: int) -> list[Trouble]:
        """List what is wrong at a judged time."""
        return [
            *self.freshness.troubles(at_ns),
            *self.health.troubles(at_ns),
            *self.rollouts.troubles(at_ns),
            *self.meters.troubles(at_ns),
            *self.estimates.troubles(at_ns),
        ]

    def state(self) -> State:
        """Copy everything that a restart needs."""
        return {
            **prefixed("devices", self.devices.state()),
            **prefixed("freshness", self.freshness.state()),
            **prefixed("health", self.health.state()),
            **prefixed("causes", self.causes.state()),
            **prefixed("rollouts", rolloutstate.save(self.rollouts)),
            **prefixed("labels", labelstate.save(self.labels)),
            **prefixed("estimates", self.estimates.state()),
            **prefixed("meters", self.meters.state()),
            "unusable": pack_json(dict(self.unusable)),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put everything back, after the objectives, the series and the streams."""
        self.devices.restore(part("devices", state))
        self.freshness.restore(part("freshness", state))
        self.health.restore(part("health", state))
        self.causes.restore(part("causes", state))
        rolloutstate.load(self.rollouts, part("rollouts", state))
        labelstate.load(self.labels, part("labels", state))
        self.estimates.restore(part("estimates", state))
        self.meters.restore(part("meters", state))
        self.unusable = Counter(unpack_json(state["unusable"]))


_PARTS: Final[Mapping[str, Callable[[Mapping[str, Array], Mapping[str, Array]], State]]] = {
    "devices": devices.merge,
    "freshness": freshness.merge,
    "health": health.merge,
    "causes": causes.merge,
    "rollouts": rolloutstate.merge,
    "labels": labelstate.merge,
    "estimates": estimates.merge,
    "meters": meters.merge,
}


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states of the same plan."""
    unusable: Counter[str] = Counter(unpack_json(first["unusable"]))
    unusable += Counter(unpack_json(second["unusable"]))
    total: State = {"unusable": pack_json(dict(unusable))}
    for name, join in _PARTS.items():
        total |= prefixed(name, join(part(name, first), part(name, second)))
    return total
