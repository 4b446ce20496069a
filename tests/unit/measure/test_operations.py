"""Measure as a whole: parcels, declarations, pauses of the gateway, and what is told when."""

import dataclasses
from typing import Final

import numpy as np
import pytest

from gateway.batch import API_IDENTITY, Anomaly, AnomalyKind, Parcel, Severity, Signal, Transport
from gateway.contract.plan import Plan
from gateway.contract.schema import Cost, Indicator, LabelRule, Slo
from gateway.measure import Measure, MeasureSettings
from gateway.otlp.declared import (
    Acknowledgement,
    BatchJob,
    Dismissal,
    Event,
    Label,
    ModelLoad,
    RolloutEnd,
    RolloutStart,
    Violation,
)
from gateway.otlp.events import start_notice, write
from tests.unit.measure.build import DAY_S, SECOND_NS, START_NS, Fleet, contract, plan

MINUTE_S: Final = 60
MODEL: Final = "damage-net"
SLOS: Final = (
    Slo(name="fresh", indicator=Indicator.FRESHNESS, objective=0.99, window=30 * DAY_S),
    Slo(name="whole", indicator=Indicator.INTEGRITY, objective=1.0, window=30 * DAY_S),
    Slo(name="labelled", indicator=Indicator.LABEL_LAG, objective=0.9, window=30 * DAY_S),
)
PLAN: Final = plan(
    contract(
        slos=SLOS,
        labels=LabelRule(signal="class", within=600.0, expect=1.0),
        cost=Cost(currency="USD", per_inference=0.01, budget_per_month=1.0),
    )
)


def parcel(body: bytes, arrival_ns: int, *, identity: str = "") -> Parcel:
    return Parcel(
        signal=Signal.LOGS,
        transport=Transport.HTTP,
        identity=identity,
        arrival_ns=arrival_ns,
        wire_bytes=len(body),
        held_bytes=len(body),
        items=0,
        body=body,
    )


class Story:
    """A measure and its clock. Units: seconds since START_NS."""

    def __init__(self, the_plan: Plan = PLAN) -> None:
        self.measure = Measure(the_plan, MeasureSettings(lateness_s=30.0))
        self.fleet = Fleet(the_plan, devices=4, size=40, seed=3)
        self.now_s = 0
        self.told: list[Anomaly] = []

    @property
    def now_ns(self) -> int:
        return START_NS + self.now_s * SECOND_NS

    def send(self, *parcels: Parcel) -> None:
        """Let every device infer something."""
        confidence = np.full(self.fleet.size, 0.5)
        batch = dataclasses.replace(
            self.fleet.batch(self.now_ns, confidence), parcels=tuple(parcels)
        )
        self.told += self.measure.observe(batch).anomalies
        for each in parcels:
            self.told += self.measure.hear(each)

    def run(self, seconds: int, step_s: int = 10) -> None:
        for _ in range(seconds // step_s):
            self.now_s += step_s
            self.send()

    def declare(self, *events: Event, identity: str = "") -> list[Anomaly]:
        found = self.measure.hear(parcel(write(events), self.now_ns, identity=identity))
        self.told += found
        return list(found)

    def idle(self, seconds: int) -> None:
        self.now_s += seconds
        self.told += self.measure.advance(self.now_ns + 2 * SECOND_NS)

    def of(self, kind: AnomalyKind) -> list[Anomaly]:
        return [each for each in self.told if each.kind is kind]


def test_silent_devices_page_within_seven_minutes_and_once() -> None:
    story = Story()
    story.run(20 * MINUTE_S)
    for _ in range(14):
        story.idle(30)
    [model, site] = story.of(AnomalyKind.SILENCE)
    assert (model.model, model.severity) == (MODEL, Severity.PAGE)
    assert (site.model, site.severity) == ("", Severity.TICKET)
    silent_s = (model.raised_ns - (START_NS + 20 * MINUTE_S * SECOND_NS)) / SECOND_NS
    assert 5 * MINUTE_S <= silent_s <= 7 * MINUTE_S
    [fresh] = [each for each in story.measure.snapshot().slos if each.slo == "fresh"]
    assert fresh.windows[-1].bad > 0


@pytest.mark.parametrize("noted", [True, False])
def test_a_pause_of_the_gateway_is_no_silence_if_its_start_is_noted(noted: bool) -> None:
    story = Story()
    story.run(20 * MINUTE_S)
    story.now_s += 60 * MINUTE_S
    assert story.measure.was_away(story.now_ns)
    notice = parcel(start_notice(), story.now_ns, identity=API_IDENTITY)
    story.send(*([notice] if noted else []))
    story.run(2 * MINUTE_S)
    assert bool(story.of(AnomalyKind.SILENCE)) != noted
    assert not story.measure.was_away(story.now_ns)


def test_no_device_can_note_a_start() -> None:
    story = Story()
    story.run(20 * MINUTE_S)
    story.now_s += 60 * MINUTE_S
    story.send(parcel(start_notice(), story.now_ns, identity="device-0"))
    assert story.of(AnomalyKind.SILENCE)


def test_a_violation_pages_with_its_parcel_and_ends_when_it_is_acknowledged() -> None:
    story = Story()
    story.run(MINUTE_S)
    violation = Violation(at_ns=story.now_ns, device="device-1", model=MODEL, error="digest")
    [page] = story.declare(violation)
    assert (page.kind, page.severity) == (AnomalyKind.INTEGRITY, Severity.PAGE)
    assert story.declare(violation) == [], "it is one page until somebody looks"
    story.run(60 * MINUTE_S)
    assert [each.resolved_ns for each in story.of(AnomalyKind.INTEGRITY)] == [None]
    [view] = [each for each in story.measure.snapshot().slos if each.slo == "whole"]
    assert view.windows[-1].bad == 2
    assert view.budget_remaining_ratio is None, "nothing is left of no budget"
    story.declare(Acknowledgement(at_ns=story.now_ns, anomaly=page.id))
    story.run(2 * MINUTE_S)
    assert story.told[-1].id == page.id
    assert story.told[-1].resolved_ns is not None
    [again] = story.declare(violation)
    assert again.id != page.id


def test_a_page_that_is_acknowledged_at_once_does_not_end_before_it_was_raised() -> None:
    story = Story()
    story.run(MINUTE_S)
    story.idle(25)  # so that the next minute that is judged lies before the violation
    [page] = story.declare(Violation(at_ns=story.now_ns, model=MODEL, error="digest"))
    story.declare(Acknowledgement(at_ns=story.now_ns, anomaly=page.id))
    story.run(2 * MINUTE_S)
    [_, ended] = story.of(AnomalyKind.INTEGRITY)
    assert ended.resolved_ns is not None
    assert ended.resolved_ns >= page.raised_ns


def test_a_device_cannot_acknowledge() -> None:
    story = Story()
    story.run(MINUTE_S)
    [page] = story.declare(Violation(at_ns=story.now_ns, model=MODEL, error="digest"))
    story.declare(Acknowledgement(at_ns=story.now_ns, anomaly=page.id), identity="device-0")
    story.run(2 * MINUTE_S)
    assert [each.resolved_ns for each in story.of(AnomalyKind.INTEGRITY)] == [None]
    assert story.measure.operations.unusable == {"not_allowed": 1}


def test_silence_of_devices_that_were_dismissed_ends() -> None:
    story = Story()
    story.run(20 * MINUTE_S)
    for _ in range(14):
        story.idle(30)
    names = [name for name in story.measure.devices.names if name.startswith("device-")]
    assert names
    gone = [Dismissal(at_ns=story.now_ns, device=name) for name in (*names, "nobody")]
    story.declare(*gone, identity=API_IDENTITY)
    story.declare(*gone, identity="device-0")
    assert story.measure.operations.unusable == {"no_device": 1, "not_allowed": len(gone)}
    for _ in range(40):
        story.idle(60)
    assert {each.id for each in story.of(AnomalyKind.SILENCE) if each.resolved_ns is None} == {
        each.id for each in story.of(AnomalyKind.SILENCE) if each.resolved_ns is not None
    }


def test_labels_are_joined_and_missing_ones_are_bad_after_their_time() -> None:
    story = Story()
    story.now_s += 10
    batch = story.fleet.batch(story.now_ns, np.full(story.fleet.size, 0.5))
    story.measure.observe(batch)
    ids = [
        int(hi).to_bytes(8, "big") + int(lo).to_bytes(8, "big")
        for hi, lo in zip(batch.spans["trace_hi"], batch.spans["trace_lo"], strict=True)
    ]
    truth = ["ok"] * 9 + ["torn"]
    story.declare(
        *(
            Label(at_ns=story.now_ns, trace_id=trace, value=value)
            for trace, value in zip(ids[:10], truth, strict=True)
        ),
        Label(at_ns=story.now_ns, trace_id=bytes(15) + b"\1", value="ok"),
        Label(at_ns=story.now_ns, trace_id=ids[10], value="melted"),
    )
    for _ in range(80):
        story.idle(10)
    shown = story.measure.snapshot().operations.labels
    [accuracy] = shown.accuracy
    assert (accuracy.right, accuracy.wrong) == (9, 1)
    assert accuracy.all_time is not None
    assert accuracy.all_time.low < 0.9 < accuracy.all_time.high
    fates = dict(shown.fates)
    assert (fates["counted"], fates["unknown_class"], shown.waiting) == (10, 1, 1)
    [view] = [each for each in story.measure.snapshot().slos if each.slo == "labelled"]
    period = view.windows[-1]
    assert (period.good, period.bad) == (10, story.fleet.size - 10)


def test_the_cost_of_a_month_is_told_at_four_fifths_of_its_budget() -> None:
    story = Story()
    story.run(10)
    job = BatchJob(
        at_ns=story.now_ns,
        job="night-1",
        model=MODEL,
        cost=0.35,
        currency="USD",
        inferences=7,
        duration_s=60.0,
    )
    story.declare(job)
    story.run(2 * MINUTE_S, step_s=60)
    # 3 batches of 40 at 0.01 are 1.2 and the job is 0.35: more than 1.0.
    [ticket] = story.of(AnomalyKind.COST)
    assert ticket.severity is Severity.TICKET
    [cost] = story.measure.snapshot().operations.meters.costs
    assert cost.spent == pytest.approx(3 * 40 * 0.01 + 0.35)


ROLLED: Final = plan(
    contract(
        slos=(Slo(name="success", indicator=Indicator.SUCCESS, objective=0.95, window=7 * DAY_S),)
    )
)


class Rolling(Story):
    """A site on which one version replaces another."""

    def __init__(self) -> None:
        super().__init__(ROLLED)
        self.newer = Fleet(ROLLED, devices=4, size=40, seed=4, version="2.0")
        self.failing = np.zeros(40, dtype=np.bool_)

    def send(self, *parcels: Parcel) -> None:
        super().send(*parcels)
        confidence = np.full(40, 0.5)
        batch = self.newer.batch(self.now_ns, confidence, failed=self.failing)
        self.told += self.measure.observe(batch).anomalies


def test_a_rollout_holds_back_what_it_explains_and_pays_for_it() -> None:
    story = Rolling()
    story.run(8 * 60 * MINUTE_S, step_s=60)
    start = RolloutStart(
        at_ns=story.now_ns,
        rollout="r-1",
        model=MODEL,
        version="2.0",
        previous="1.0",
        allocation=1.0,
    )
    story.declare(start)
    story.failing[:] = True
    story.run(15 * MINUTE_S, step_s=30)
    assert story.of(AnomalyKind.SLO_BURN) == []
    [slo] = story.measure.snapshot().slos
    assert slo.windows[-1].bad == 30 * 40, "what is not told is paid for all the same"
    [rollout] = story.measure.snapshot().operations.rollouts.rollouts
    [spend] = rollout.spends
    assert (spend.rollout_bad, spend.control_bad) == (30 * 40, 0)
    story.declare(RolloutEnd(at_ns=story.now_ns, rollout="r-1"))
    story.run(5 * MINUTE_S, step_s=30)
    [burn, *_] = story.of(AnomalyKind.SLO_BURN)
    assert burn.version == "2.0"


def test_without_a_rollout_the_same_failures_are_told() -> None:
    story = Rolling()
    story.run(8 * 60 * MINUTE_S, step_s=60)
    story.failing[:] = True
    story.run(15 * MINUTE_S, step_s=30)
    assert story.of(AnomalyKind.SLO_BURN)[-1].severity is Severity.PAGE


def test_failed_loads_and_unreadable_declarations_are_counted() -> None:
    story = Story()
    story.run(MINUTE_S)
    story.declare(
        *(
            ModelLoad(at_ns=story.now_ns, device="d", model=MODEL, version="1.0", error=error)
            for error in ("OutOfMemoryError",) * 3 + ("",)
        )
    )
    story.run(2 * MINUTE_S)
    [ticket] = story.of(AnomalyKind.MODEL_LOAD)
    assert ticket.numbers["loads_failed"] == 3
    assert ticket.team.value == "device-ops"


def test_everything_comes_back_after_a_restart() -> None:
    story = Story()
    story.run(10 * MINUTE_S)
    story.declare(
        Violation(at_ns=story.now_ns, model=MODEL, error="digest"),
        ModelLoad(at_ns=story.now_ns, device="d", model=MODEL, version="1.0", error="x"),
    )
    state = story.measure.state()
    again = Measure(PLAN, story.measure.settings)
    again.restore(state)
    for name, array in again.state().items():
        assert np.array_equal(array, state[name]), name
    assert again.snapshot().operations == story.measure.snapshot().operations
