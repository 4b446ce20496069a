"""Event rates through `measure`: one anomaly for each change, shown, promoted, and replayed."""

import dataclasses
from typing import Final

import numpy as np
import pytest

from gateway.api.drifts import BaselineState, DriftState
from gateway.api.measurements import measured as metrics
from gateway.api.sources import MeasureSnapshot
from gateway.batch import API_IDENTITY, Anomaly, AnomalyKind, Severity, Team
from gateway.contract.schema import DriftRule
from gateway.measure import Measure, MeasureSettings, merge
from gateway.measure.devices.devices import PAUSE_NS
from gateway.measure.settings import ADVANCE_GRACE_NS
from gateway.measure.state import State
from gateway.measured import measured
from gateway.otlp.events import Promotion, start_notice
from tests.unit.measure.build import SECOND_NS, START_NS, Fleet, contract, declared, plan

TICK_S: Final = 600
DAY: Final = 144  # ticks
SIZE: Final = 20
PLAN = plan(contract(drift=DriftRule(rate_tolerance=0.2)))
SETTINGS = MeasureSettings(drift_tick_s=TICK_S)


class Site:
    """Sends some batches in each tick of ten minutes."""

    def __init__(self, measure: Measure | None = None, *, idle: bool = False) -> None:
        self.measure = measure or Measure(PLAN, SETTINGS)
        self._fleet = Fleet(PLAN, size=SIZE, devices=2)
        self._idle = idle
        self.now_ns = START_NS
        self.told: list[Anomaly] = []

    def run(self, ticks: int, batches: int = 3, *, notice: bool = False) -> None:
        for _ in range(ticks):
            for number in range(batches):
                at_ns = self.now_ns + (1 + number) * SECOND_NS
                made = self._fleet.batch(at_ns, np.full(SIZE, 0.5))
                if notice:
                    parcel = declared(at_ns, identity=API_IDENTITY)
                    parcel = dataclasses.replace(parcel, body=start_notice())
                    made = dataclasses.replace(made, parcels=(parcel,))
                    notice = False
                self.hear(self.measure.observe(made).anomalies)
            self.now_ns += TICK_S * SECOND_NS
            if self._idle:
                self.idle()

    def idle(self) -> None:
        self.hear(self.measure.advance(self.now_ns + ADVANCE_GRACE_NS))

    def hear(self, found: tuple[Anomaly, ...]) -> None:
        self.told += [each for each in found if each.subject == "event_rate"]

    def shown(self) -> MeasureSnapshot:
        return measured(
            self.measure.snapshot(),
            now_ns=self.now_ns,
            contracts=PLAN.contracts,
            token=str,
        )

    def row(self) -> DriftState:
        [found] = [each for each in self.shown().drift if each.signal == "event_rate"]
        return found

    def baselines(self) -> list[BaselineState]:
        return [each for each in self.shown().baselines if each.signal == "event_rate"]


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


@pytest.fixture(scope="module")
def learned() -> State:
    """The state of a site that has learned for a day."""
    site = Site()
    site.run(DAY + 10)
    return site.measure.state()


def after(state: State, *, idle: bool = False) -> Site:
    """A site that goes on from there."""
    site = Site(idle=idle)
    site.measure.restore(state)
    site.now_ns += (DAY + 10) * TICK_S * SECOND_NS
    return site


def test_while_it_is_learned_it_says_so() -> None:
    site = Site()
    site.run(5)
    row = site.row()
    assert (row.model, row.version, row.alarm, row.baseline) == (
        "damage-net",
        "",
        False,
        "collecting",
    )
    assert row.event_rate is not None
    assert (row.event_rate.state, row.event_rate.expected) == ("collecting", None)
    [baseline] = site.baselines()
    assert (baseline.state, baseline.id, baseline.events) == ("collecting", "", 2 * SIZE * 3)
    names = [(each.name, each.labels.get("signal")) for each in metrics(site.shown())]
    assert ("weir_drift_alarm_log_evidence", "event_rate") not in names


def test_silence_is_a_ticket_that_ends_when_the_rate_is_back(learned: State) -> None:
    site = after(learned)
    row = site.row()
    assert row.event_rate is not None
    assert row.event_rate.expected == pytest.approx(SIZE * 3 / TICK_S)
    assert row.event_rate.now == pytest.approx(SIZE * 3 / TICK_S)
    assert row.tolerance == 0.2
    site.run(10, batches=1)
    [alarm] = site.told
    assert (alarm.kind, alarm.severity, alarm.team) == (
        AnomalyKind.DRIFT,
        Severity.TICKET,
        Team.DEVICE_OPS,
    )
    assert (alarm.model, alarm.version, alarm.owner) == ("damage-net", "", "vision@example.com")
    assert alarm.onset_ns == START_NS + (DAY + 10) * TICK_S * SECOND_NS
    assert alarm.numbers["rate_expected_hz"] == pytest.approx(SIZE * 3 / TICK_S)
    assert alarm.numbers["rate_now_hz"] == pytest.approx(SIZE / TICK_S)
    assert alarm.numbers["rate_ratio"] == pytest.approx(1 / 3)
    assert alarm.numbers["log_evidence"] >= alarm.numbers["log_evidence_bound"]
    assert alarm.numbers["false_alarms_per_30d"] == pytest.approx(1)
    assert alarm.summary == (
        "inferences of damage-net have fallen from 0.1 to 0.03333 per second (33% of what was "
        f"expected); {alarm.numbers['rate_low_hz']:.4g} to {alarm.numbers['rate_high_hz']:.4g} "
        "would be no change"
    )
    row = site.row()
    assert row.alarm
    assert row.event_rate is not None
    [sample] = [
        each
        for each in metrics(site.shown())
        if each.name == "weir_drift_alarm_log_evidence" and each.labels["signal"] == "event_rate"
    ]
    assert sample.labels == {"model": "damage-net", "version": "", "signal": "event_rate"}
    assert sample.value == row.log_evidence == row.event_rate.log_evidence
    site.run(15)
    resolved = site.told[-1]
    assert len(site.told) == 2
    assert resolved.id == alarm.id
    assert resolved.resolved_ns is not None
    assert resolved.resolved_ns > alarm.raised_ns
    assert not site.row().alarm


def test_a_risen_rate_is_promoted_by_hand_and_ends_the_alarm(learned: State) -> None:
    site = after(learned)
    site.run(10, batches=6)
    [alarm] = site.told
    assert "risen" in alarm.summary
    assert alarm.numbers["rate_ratio"] == pytest.approx(2)
    site.run(DAY, batches=6)
    assert site.told == [alarm]
    old, candidate = site.baselines()
    assert (old.state, candidate.state) == ("frozen", "candidate")
    assert (old.source, candidate.version) == ("site", "")
    assert site.row().baseline == old.id
    made = Promotion(at_ns=site.now_ns, baseline=candidate.id)
    site.measure.hear(declared(site.now_ns, made, identity="device-1"))
    assert site.row().baseline == old.id, "no device may promote"
    site.measure.hear(declared(site.now_ns, made))
    assert site.row().baseline == candidate.id
    site.run(12, batches=6)
    assert [each.id for each in site.told] == [alarm.id, alarm.id]
    assert site.told[1].resolved_ns == made.at_ns
    assert site.measure.operations.unusable["no_candidate"] == 0


def test_idle_steps_and_a_restart_come_to_the_same(learned: State) -> None:
    plain, idle = after(learned), after(learned, idle=True)
    for site in (plain, idle):
        site.run(5)
        site.now_ns += 20 * TICK_S * SECOND_NS
        site.run(1)
        if site is idle:
            again = Measure(PLAN, SETTINGS)
            again.restore(site.measure.state())
            assert same(again.state(), site.measure.state())
            site.measure = again
        site.run(2)
    plain.idle()
    assert same(plain.measure.state(), idle.measure.state())
    assert plain.told == idle.told
    assert len(plain.told) == 1


@pytest.mark.parametrize("noted", [True, False])
def test_a_pause_of_the_gateway_is_no_silence_if_its_start_is_noted(
    noted: bool, learned: State
) -> None:
    site = after(learned)
    site.run(2)
    site.now_ns += 20 * TICK_S * SECOND_NS
    assert site.measure.was_away(site.now_ns)
    site.run(1, batches=40, notice=noted)
    site.run(6)
    assert bool(site.told) != noted


def test_a_short_start_is_told_only_where_rates_are_judged() -> None:
    for rule, away_ns in (
        (DriftRule(), PAUSE_NS),
        (DriftRule(rate_tolerance=0.2), 10 * SECOND_NS),
    ):
        measure = Measure(plan(contract(drift=rule)), MeasureSettings())
        fleet = Fleet(measure.plan, size=SIZE)
        measure.observe(fleet.batch(START_NS, np.full(SIZE, 0.5)))
        assert not measure.was_away(START_NS + away_ns - 1)
        assert measure.was_away(START_NS + away_ns)


def test_a_state_of_before_restores_and_learns(learned: State) -> None:
    state = {name: value for name, value in learned.items() if not name.startswith("rates/")}
    site = after(state)
    assert site.row().baseline == "collecting"
    site.run(2)
    assert site.told == []
    joined = Measure(PLAN, SETTINGS)
    joined.restore(merge(state, learned))
    assert joined.rates.running == 1


def test_an_open_episode_without_an_alarm_behind_it_ends(learned: State) -> None:
    site = after(learned)
    site.run(10, batches=1)
    [alarm] = site.told
    joined = Site(Measure(PLAN, SETTINGS))
    joined.measure.restore(merge(site.measure.state(), learned))
    joined.now_ns = site.now_ns
    joined.run(1)
    assert [each.id for each in joined.told] == [alarm.id]
    assert joined.told[0].resolved_ns is not None
    other = Measure(plan(contract()), SETTINGS)
    other.restore(site.measure.state())
    found = other.advance(site.now_ns + ADVANCE_GRACE_NS)
    assert alarm.id in [each.id for each in found if each.resolved_ns is not None]
    assert other.snapshot().rates == ()
