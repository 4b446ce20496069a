"""A site that rolls out: objectives, series and rollouts, fed with rows of a few kinds."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from gateway.batch import Batch
from gateway.contract.plan import Plan
from gateway.contract.schema import Indicator, Slo
from gateway.measure.match import versions
from gateway.measure.rollouts.rollout import RolloutState
from gateway.measure.rollouts.rollouts import Rollouts
from gateway.measure.series import SeriesTable
from gateway.measure.settings import MeasureSettings
from gateway.measure.slo.objectives import Objectives
from gateway.measure.state import Array
from gateway.measure.trouble import Trouble
from gateway.otlp.declared import (
    Events,
    RolloutEnd,
    RolloutStart,
)
from tests.unit.measure import build
from tests.unit.measure.build import DAY_S, SECOND_NS, START_NS

MINUTE_NS: Final = 60 * SECOND_NS
HOUR_NS: Final = 60 * MINUTE_NS
MODEL: Final = "damage-net"
# What a row says of itself: version, id of a rollout on the span, id on the resource.
Kind = tuple[str, str, str]


def slos() -> tuple[Slo, ...]:
    """One SLO of each indicator that a rollout can spend, and one that it cannot."""
    cold = Slo(name="cold", indicator=Indicator.COLD_START, objective=0.99, window=7 * DAY_S)
    return (build.success(0.99), build.latency(), cold)


class Site:
    """Objectives, series and rollouts of a plan, fed with rows of a few kinds."""

    def __init__(self, *kinds: Kind, plan: Plan | None = None) -> None:
        self.plan = build.plan(build.contract(slos=slos())) if plan is None else plan
        self.objectives = Objectives(self.plan, MeasureSettings(lateness_s=0.0))
        self.series = SeriesTable(self.plan, 64)
        self.rollouts = Rollouts(self.plan, self.objectives, self.series)
        self.kinds = kinds or (("v1", "", ""), ("v2", "", ""), ("v3", "", ""))
        self.now_ns = START_NS
        self.batch = self._batch()
        found = versions(self.batch, self.plan, self.series.versions)
        contract = np.zeros(len(self.kinds), dtype=np.int16)
        self.of_kind, _ = self.series.find(contract, found)
        self.judge()

    def _batch(self) -> Batch:
        """One row of each kind."""
        payloads = []
        for number, (version, on_span, on_resource) in enumerate(self.kinds):
            attributes = {"edgeai.model.name": MODEL}
            resource = {"edgeai.model.version": version}
            if on_span:
                attributes["edgeai.rollout.id"] = on_span
            if on_resource:
                resource["edgeai.rollout.id"] = on_resource
            one = build.span(1 + number, attributes=attributes)
            payloads.append(build.payload(build.request([one], resource)))
        return build.batch(self.plan, *payloads)

    def add(
        self,
        kind: Array,
        event_ns: Array,
        failed: Array,
        duration_ns: Array | None = None,
        cold: Array | None = None,
    ) -> None:
        """Count rows of these kinds, as the measurements do."""
        rows = np.asarray(kind, dtype=np.int64)
        if duration_ns is None:
            duration_ns = np.full(len(rows), 1_000_000, dtype=np.int64)
        contract = np.zeros(len(rows), dtype=np.int64)
        self.objectives.add(contract, event_ns, event_ns, failed, duration_ns)
        self.rollouts.add(
            self.batch,
            rows,
            contract=contract,
            series=self.of_kind[rows].astype(np.int64),
            event_ns=event_ns,
            failed=failed,
            duration_ns=duration_ns,
            cold=cold,
        )

    def judge(self) -> list[Trouble]:
        told: list[Trouble] = []
        for at_ns, _ in self.objectives.turn(self.now_ns):
            told = self.rollouts.troubles(at_ns)
        return told

    def run(self, for_ns: int, per_minute: Mapping[int, tuple[int, int]]) -> list[Trouble]:
        """Let time pass with (bad, all) events a minute of each kind; return what is wrong then."""
        told = self.rollouts.troubles(self.rollouts.judged_ns)
        for begin in range(self.now_ns, self.now_ns + for_ns, MINUTE_NS):
            for kind, (bad, every) in per_minute.items():
                event_ns = begin + np.arange(every, dtype=np.int64) * (MINUTE_NS // max(every, 1))
                self.add(np.full(every, kind), event_ns, np.arange(every) < bad)
            self.now_ns = begin + MINUTE_NS
            told = self.judge()
        return told

    def start(self, rollout: str = "r-1", version: str = "v2", **changes: Any) -> None:
        """Declare a start now."""
        fields: dict[str, Any] = {"at_ns": self.now_ns, "model": MODEL, "previous": "v1"}
        made = RolloutStart(**{**fields, "rollout": rollout, "version": version, **changes})
        self.rollouts.declare(Events(starts=(made,)), self.now_ns)

    def end(self, rollout: str = "r-1", **changes: Any) -> None:
        """Declare an end now."""
        made = RolloutEnd(**{"at_ns": self.now_ns, "rollout": rollout, **changes})
        self.rollouts.declare(Events(ends=(made,)), self.now_ns)

    def spent(self, rollout: str = "r-1", place: int = 0) -> float:
        """What a rollout has spent of an objective."""
        return self.rollouts.table[rollout].spents[place]

    def state(self, rollout: str = "r-1") -> RolloutState:
        """Where a rollout is."""
        return self.rollouts.table[rollout].state
