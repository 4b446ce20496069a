"""Troubles become anomalies: opened once, told again when louder, resolved when they are gone."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.batch import NO_CONTRACT, AnomalyKind, Severity, Team
from gateway.measure.devices.causes import Causes
from gateway.measure.devices.devices import Devices
from gateway.measure.drift.rates import Rates
from gateway.measure.drift.streams import Streams
from gateway.measure.evidence import Ring
from gateway.measure.rollouts.rollouts import Rollouts
from gateway.measure.series import SeriesTable
from gateway.measure.settings import MeasureSettings
from gateway.measure.slo.objectives import Objectives
from gateway.measure.trouble import Trouble
from gateway.measure.watch import Watch
from tests.unit.measure.build import SECOND_NS, START_NS, contract, plan

MINUTE_NS: Final = 60 * SECOND_NS


class World:
    """A watch, and what is wrong at any time as the test says it."""

    def __init__(self) -> None:
        found = plan(contract())
        settings = MeasureSettings(lateness_s=30.0, slo_quiet_s=600.0)
        streams = Streams(found, settings)
        series = SeriesTable(found, 4)
        objectives = Objectives(found, settings)
        self.wrong: list[Trouble] = []
        self.asked_ns: list[int] = []
        self.watch = Watch(
            found,
            settings,
            series=series,
            streams=streams,
            rates=Rates(found, settings, streams.budget),
            objectives=objectives,
            rollouts=Rollouts(found, objectives, series),
            devices=Devices(found, MeasureSettings(devices_max=4)),
            causes=Causes(found),
            recent=Ring(4, streams.places),
            bad=Ring(4, streams.places),
            turn=lambda _: None,
            due=lambda _: None,
            troubles=self.troubles,
        )
        self.watch.turn(START_NS)

    def troubles(self, at_ns: int) -> Sequence[Trouble]:
        self.asked_ns.append(at_ns)
        return self.wrong


def silence(severity: Severity = Severity.TICKET, onset_ns: int = START_NS) -> Trouble:
    return Trouble(
        kind=AnomalyKind.SILENCE,
        severity=severity,
        team=Team.DEVICE_OPS,
        contract=0,
        model="damage-net",
        version="",
        subject="devices",
        summary="2 of 4 devices are silent",
        onset_ns=onset_ns,
        numbers={"devices_silent": 2.0},
    )


def test_a_trouble_is_told_once_and_resolved_when_it_stays_away() -> None:
    world = World()
    world.wrong = [silence()]
    [anomaly] = world.watch.turn(START_NS + 2 * MINUTE_NS)
    assert (anomaly.kind, anomaly.severity) == (AnomalyKind.SILENCE, Severity.TICKET)
    assert (anomaly.owner, anomaly.team) == ("vision@example.com", Team.DEVICE_OPS)
    assert world.watch.turn(START_NS + 20 * MINUTE_NS) == []
    world.wrong = []
    assert world.watch.turn(START_NS + 29 * MINUTE_NS) == []
    [ended] = world.watch.turn(START_NS + 32 * MINUTE_NS)
    assert ended.id == anomaly.id
    assert ended.resolved_ns is not None


def test_a_louder_trouble_is_told_again_under_its_id() -> None:
    world = World()
    world.wrong = [silence()]
    [first] = world.watch.turn(START_NS + 2 * MINUTE_NS)
    world.wrong = [silence(Severity.PAGE, onset_ns=START_NS + MINUTE_NS)]
    [louder] = world.watch.turn(START_NS + 4 * MINUTE_NS)
    assert louder.severity is Severity.PAGE
    assert (louder.id, louder.onset_ns) == (first.id, first.onset_ns)
    world.wrong = [silence()]
    assert world.watch.turn(START_NS + 6 * MINUTE_NS) == [], "it does not get quieter"


def test_a_latched_trouble_is_over_as_soon_as_it_is_acknowledged() -> None:
    world = World()
    latched = Trouble(
        kind=AnomalyKind.INTEGRITY,
        severity=Severity.PAGE,
        team=Team.DEVICE_OPS,
        contract=NO_CONTRACT,
        model="damage-net",
        version="1",
        subject="digest",
        summary="a model is not what it claims to be",
        onset_ns=START_NS,
    )
    [told] = world.watch.tell([latched], START_NS)
    assert told.owner == "", "no contract says who answers"
    world.wrong = [latched]
    assert world.watch.turn(START_NS + 60 * MINUTE_NS) == [], "it stays, however long"
    world.wrong = []
    [ended] = world.watch.turn(START_NS + 62 * MINUTE_NS)
    assert ended.id == told.id


def test_troubles_are_looked_for_at_whole_minutes_of_judged_time_in_order() -> None:
    world, other = World(), World()
    rng = np.random.default_rng(5)
    for step in np.cumsum(rng.integers(1, 90, size=40)).tolist():
        world.watch.turn(START_NS + step * SECOND_NS)
    other.watch.turn(START_NS + step * SECOND_NS)
    assert world.asked_ns == other.asked_ns, "idle steps and batches come to the same judgements"
    assert all(at_ns % MINUTE_NS == 0 for at_ns in world.asked_ns)
    assert world.asked_ns == sorted(set(world.asked_ns))
