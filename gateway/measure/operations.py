"""Everything about the devices on which inferences run: who is heard, how they are, what fails.

Law: as that of each part; this is only where they stand together, so that `measure` calls one.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from gateway.batch import Batch, Parcel
from gateway.contract.plan import Plan
from gateway.contract.schema import Indicator
from gateway.measure import causes, devices, freshness, health
from gateway.measure.causes import Causes
from gateway.measure.devices import Devices
from gateway.measure.freshness import Freshness
from gateway.measure.health import Health
from gateway.measure.runs import Runs
from gateway.measure.settings import SECOND_NS, MeasureSettings
from gateway.measure.slo import Objectives
from gateway.measure.state import Array, Int64, State, part, prefixed
from gateway.measure.trouble import Trouble
from gateway.otlp.declared import Events
from gateway.otlp.readings import heard
from gateway.tables import Bool


class Operations:
    """Devices, their silence, their troubles, and whose failures they are."""

    def __init__(self, plan: Plan, settings: MeasureSettings, objectives: Objectives) -> None:
        self._objectives = objectives
        self._lateness_ns = round(settings.lateness_s * SECOND_NS)
        self.devices = Devices(plan, settings)
        self.freshness = Freshness(plan, settings, self.devices)
        self.health = Health(plan, self.devices)
        self.causes = Causes(plan)

    def infer(
        self,
        batch: Batch,
        runs: Runs,
        *,
        contract: Array,
        series: Array,
        names: Sequence[tuple[str, str]],
        failed: Bool,
        event_ns: Int64,
    ) -> bool:
        """Note what the spans of a batch say of devices; returns whether integrity was violated.

        Shape: all (spans,).
        """
        self.devices.infer(batch, runs, contract, series, names)
        self.causes.add(batch, contract, failed, event_ns)
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

    def hear(self, parcel: Parcel) -> None:
        """Note who is heard in a parcel, and how its host is."""
        self.devices.hear(heard(parcel), parcel.arrival_ns)

    def declare(self, events: Events, arrival_ns: int) -> bool:
        """Take loads, violations and acknowledgements; returns whether integrity was violated."""
        for load in events.loads:
            self.health.loaded(model=load.model, error=load.error, at_ns=load.at_ns)
        for each in events.violations:
            contract = self.health.integrity.violated(
                model=each.model,
                version=each.version,
                error=each.error,
                device=each.device,
                at_ns=each.at_ns,
                arrival_ns=arrival_ns,
            )
            self._count_violations(np.array([contract]), np.array([each.at_ns], dtype=np.int64))
        for acknowledgement in events.acknowledgements:
            self.health.integrity.acknowledge(acknowledgement.anomaly)
        return bool(events.violations)

    def turn(self, now_ns: int) -> None:
        """Move windows to a time."""
        self.devices.turn(now_ns)
        self.health.turn(now_ns)
        self.causes.turn(now_ns)

    def judged(self, at_ns: int) -> None:
        """Move windows to where they are when a slot is judged."""
        self.turn(at_ns + self._lateness_ns)

    def due(self, at_ns: int) -> None:
        """Count the devices of the minutes that ended by a judged time."""
        for tick in self.freshness.turn(at_ns + self._lateness_ns):
            objective = self._objectives.of(tick.contract, Indicator.FRESHNESS)[tick.place]
            bad = np.arange(tick.good + tick.bad) >= tick.good
            self._objectives.count(objective, np.full(len(bad), tick.at_ns), bad)

    def troubles(self, at_ns: int) -> list[Trouble]:
        """List what is wrong with devices at a judged time."""
        return [*self.freshness.troubles(at_ns), *self.health.troubles(at_ns)]

    def state(self) -> State:
        """Copy everything that a restart needs."""
        return {
            **prefixed("devices", self.devices.state()),
            **prefixed("freshness", self.freshness.state()),
            **prefixed("health", self.health.state()),
            **prefixed("causes", self.causes.state()),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put everything back."""
        self.devices.restore(part("devices", state))
        self.freshness.restore(part("freshness", state))
        self.health.restore(part("health", state))
        self.causes.restore(part("causes", state))


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states of the same plan."""
    return {
        key: value
        for name, join in (
            ("devices", devices.merge),
            ("freshness", freshness.merge),
            ("health", health.merge),
            ("causes", causes.merge),
        )
        for key, value in prefixed(name, join(part(name, first), part(name, second))).items()
    }
