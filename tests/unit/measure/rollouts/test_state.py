"""Rollouts are saved, restored and added without a difference, and shown in numbers."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from gateway.batch import AnomalyKind, Parcel
from gateway.measure import Measure
from gateway.measure.rollouts import state as rolloutstate
from gateway.measure.rollouts.rollout import RolloutState
from gateway.measure.rollouts.rollouts import Rollouts
from gateway.measure.rollouts.views import rollouts_view
from gateway.measure.settings import MeasureSettings
from gateway.measure.state import Array
from gateway.otlp.declared import (
    DeviceOutcome,
    Event,
    Events,
    RolloutEnd,
    RolloutKind,
    RolloutStart,
)
from gateway.otlp.events import write
from tests.parcels import parcel_of
from tests.unit.measure import build
from tests.unit.measure.build import DAY_S, SECOND_NS, START_NS
from tests.unit.measure.rollouts.rolling import HOUR_NS, MINUTE_NS, MODEL, Site, slos


def _same(first: Mapping[str, Array], second: Mapping[str, Array]) -> bool:
    return first.keys() == second.keys() and all(
        first[key].dtype == second[key].dtype and np.array_equal(first[key], second[key])
        for key in first
    )


def test_a_restart_changes_nothing() -> None:
    sites = (Site(), Site())
    for site in sites:
        site.run(6 * HOUR_NS, {0: (0, 100)})
        site.start(deadline_s=7_200, devices=3)
        site.start("r-2", "v3", kind=RolloutKind.RETRAIN, allocation=0.1)
        told = DeviceOutcome(at_ns=site.now_ns, device="d-1", rollout="r-1", succeeded=True)
        site.rollouts.declare(Events(outcomes=(told,)), site.now_ns)
        site.run(4 * MINUTE_NS, {0: (0, 50), 1: (20, 50), 2: (1, 50)})
    whole, broken = sites
    fresh = Rollouts(broken.plan, broken.objectives, broken.series)
    rolloutstate.load(fresh, rolloutstate.save(broken.rollouts))
    broken.rollouts = fresh
    assert _same(rolloutstate.save(whole.rollouts), rolloutstate.save(fresh))
    for site in sites:
        site.run(10 * MINUTE_NS, {0: (0, 50), 1: (25, 50), 2: (1, 50)})
        site.end("r-2")
        assert len(site.rollouts.due(site.now_ns + 3 * HOUR_NS)) == 2
    assert _same(rolloutstate.save(whole.rollouts), rolloutstate.save(broken.rollouts))
    assert whole.state() is RolloutState.HALTED
    now_ns = whole.now_ns
    assert rollouts_view(whole.rollouts, now_ns) == rollouts_view(broken.rollouts, now_ns)


def test_a_model_without_a_contract_keeps_what_was_spent() -> None:
    site = Site()
    site.start()
    site.run(MINUTE_NS, {0: (0, 10), 1: (9, 10)})
    other = Site(plan=build.plan(build.contract("another")))
    rolloutstate.load(other.rollouts, rolloutstate.save(site.rollouts))
    assert not other.rollouts.is_counting
    assert not other.rollouts.troubles(site.now_ns)
    kept = rollouts_view(other.rollouts, site.now_ns).rollouts[0]
    assert kept == rollouts_view(site.rollouts, site.now_ns).rollouts[0]


def test_a_new_objective_gets_an_allocation_when_the_contract_has_changed() -> None:
    site = Site(plan=build.plan(build.contract(slos=(build.success(0.99),))))
    site.start()
    other = Site()
    rolloutstate.load(other.rollouts, rolloutstate.save(site.rollouts))
    assert other.rollouts.table["r-1"].allocations == [0.25] * 3


def test_two_sites_add_to_what_one_would_have_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts, whole = (Site(), Site()), Site()
    for site in (*parts, whole):
        site.start()
    size = 2_000
    kind = rng.integers(0, 3, size)
    # One site sees two days of it, the other the first hour, so that their stretches differ.
    event_ns = START_NS + rng.integers(0, 48 * HOUR_NS, size)
    event_ns[: size // 2] = START_NS + rng.integers(0, HOUR_NS, size // 2)
    failed = rng.random(size) < 0.3
    for site, rows in zip(
        (*parts, whole), (slice(size // 2), slice(size // 2, size), slice(size)), strict=True
    ):
        site.add(kind[rows], event_ns[rows], failed[rows])
    states = [rolloutstate.save(site.rollouts) for site in parts]
    fresh = Rollouts(whole.plan, whole.objectives, whole.series)
    rolloutstate.load(fresh, rolloutstate.merge(*states))
    assert np.array_equal(fresh.table["r-1"].counts, whole.rollouts.table["r-1"].counts)
    assert fresh.table["r-1"].width_ns == whole.rollouts.table["r-1"].width_ns
    again = Rollouts(whole.plan, whole.objectives, whole.series)
    rolloutstate.load(again, rolloutstate.merge(*reversed(states)))
    assert np.array_equal(again.table["r-1"].counts, fresh.table["r-1"].counts)


def test_what_is_shown_has_numbers_or_nothing() -> None:
    site = Site()
    site.start(devices=2, kind=RolloutKind.RETRAIN)
    site.run(MINUTE_NS, {0: (0, 10), 1: (0, 10)})
    told = DeviceOutcome(at_ns=site.now_ns, device="d-1", rollout="r-1", succeeded=True)
    site.rollouts.declare(Events(outcomes=(told,)), site.now_ns)
    shown = rollouts_view(site.rollouts, site.now_ns)
    (one,) = shown.rollouts
    assert (one.id, one.state, one.end_ns, one.succeeded, one.failed) == (
        "r-1",
        "active",
        None,
        1,
        0,
    )
    assert [each.slo for each in one.spends] == ["success", "latency", "cold"]
    site.end()
    site.rollouts.due(site.now_ns + HOUR_NS)
    (model,) = rollouts_view(site.rollouts, site.now_ns).models
    assert (model.succeeded, model.failed, model.success_ratio) == (1, 1, 0.5)
    assert (model.retrained, model.versions) == (1, 1)
    month_ns = site.now_ns + 31 * DAY_S * SECOND_NS
    (model,) = rollouts_view(site.rollouts, month_ns).models
    assert (model.success_ratio, model.retrained, model.versions) == (None, 0, 0)


def _declared(arrival_ns: int, *made: Event) -> Parcel:
    body = write(made)
    return replace(parcel_of(ExportLogsServiceRequest(), body), arrival_ns=arrival_ns)


def test_measurements_with_a_rollout_are_the_same_after_a_restart(seed: int) -> None:
    plan = build.plan(build.contract(slos=slos()))
    fleets = [build.Fleet(plan, version=version, seed=seed) for version in ("v1", "v2")]
    rng = np.random.default_rng(seed)
    start = RolloutStart(at_ns=START_NS, rollout="r-1", model=MODEL, version="v2", devices=2)
    told = DeviceOutcome(at_ns=START_NS + 1, device="d", rollout="r-1", succeeded=True)
    end = RolloutEnd(at_ns=START_NS + 20 * MINUTE_NS, rollout="r-1")
    declared: dict[int, list[Event]] = {2: [start], 5: [told], 10: [end]}
    whole, broken = (Measure(plan, MeasureSettings()) for _ in range(2))
    for step in range(30):
        arrival_ns = START_NS + step * 2 * MINUTE_NS
        for version, fleet in enumerate(fleets):
            failed = rng.random(fleet.size) < 0.4 * version
            found = fleet.batch(arrival_ns, np.full(fleet.size, 0.5), failed=failed)
            whole.observe(found)
            broken.observe(found)
        for measure in (whole, broken):
            for event in declared.get(step, []):
                measure.hear(_declared(arrival_ns, event))
        if step in (3, 7, 11):
            fresh = Measure(plan, MeasureSettings())
            fresh.restore(broken.state())
            broken = fresh
    assert _same(whole.state(), broken.state())
    known = whole.rollouts.table["r-1"]
    assert known.has_ended
    assert known.spends[0].rollout_bad > 100
    assert whole.rollouts.deployments.counts("r-1") == (1, 1)
    assert [each.kind for each in whole.snapshot().open_anomalies if each.subject == "r-1"] == []
    raised = {kind: count for kind, _, count in whole.snapshot().anomalies_raised}
    assert raised[AnomalyKind.ROLLOUT] == 1
