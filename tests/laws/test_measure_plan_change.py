"""Law: the state of one plan goes on under any other, and what both have in common is kept.

A plan changes with SIGHUP and with restarts: contracts come and go, objectives are renamed, labels,
costs, windows, classes and limits change. No restore may raise, nor what follows it, and an
anomaly of something that has gone ends.
"""

import dataclasses
from typing import Final

import numpy as np
import pytest

from gateway.batch import Signal
from gateway.contract.plan import Plan
from gateway.contract.schema import Cost, Indicator, LabelRule
from gateway.measure import Measure, MeasureSettings, Snapshot
from gateway.measure.rollouts.rollout import RolloutState
from gateway.measure.state import State
from gateway.otlp.declared import RolloutStart
from gateway.otlp.events import write
from tests.laws.test_measure_whole_replay import (
    ALL,
    COUNTED,
    MONTH,
    PLAN,
    SETTINGS,
    Story,
    of,
    parcel,
    same,
    take,
)
from tests.unit.measure.build import SECOND_NS, contract, plan, signals, success

A, B, C = PLAN.contracts
FEWER: Final = dataclasses.replace(
    SETTINGS, devices_max=3, series_max=2, labels_max=20, lateness_s=5.0, clock_ahead_s=10.0
)
SHORTER: Final = {
    **signals(),
    "class": dataclasses.replace(signals()["class"], values=("wet", "new")),
}
PLANS: Final[dict[str, tuple[Plan, MeasureSettings]]] = {
    "nothing": (plan(contract("z", slos=(), signals={})), SETTINGS),
    "one_of_three": (plan(B), SETTINGS),
    "another_order": (plan(C, B, A), SETTINGS),
    "one_more": (plan(contract("new"), A, B, C), SETTINGS),
    "renamed": (
        plan(
            dataclasses.replace(
                A, slos=tuple(dataclasses.replace(each, name=f"x{each.name}") for each in ALL)
            ),
            B,
        ),
        SETTINGS,
    ),
    "other_windows": (
        plan(
            dataclasses.replace(
                A, slos=tuple(dataclasses.replace(each, window=7 * 86_400.0) for each in ALL)
            ),
            B,
            C,
        ),
        SETTINGS,
    ),
    "no_objectives": (plan(*(dataclasses.replace(each, slos=()) for each in (A, B, C))), SETTINGS),
    "no_labels": (
        plan(*(dataclasses.replace(each, labels=None, slos=(success(),)) for each in (A, B, C))),
        SETTINGS,
    ),
    "no_cost": (plan(dataclasses.replace(A, cost=None), B, C), SETTINGS),
    "other_cost": (
        plan(
            dataclasses.replace(
                A, cost=Cost(currency="USD", per_inference=1e-9, feature="f", features=("belt",))
            ),
            dataclasses.replace(B, cost=Cost(currency="EUR", per_inference=0.0)),
        ),
        SETTINGS,
    ),
    "other_classes": (plan(dataclasses.replace(A, signals=SHORTER), B, C), SETTINGS),
    "labels_of_another_type": (
        plan(
            dataclasses.replace(
                A,
                signals={**signals(), **COUNTED},
                labels=LabelRule(signal="digit", within=60.0, expect=1.0),
                slos=(of(Indicator.LABEL_LAG, 0.5), success(0.5, MONTH)),
            ),
            dataclasses.replace(B, labels=LabelRule(signal="class", within=90_000.0), slos=()),
        ),
        SETTINGS,
    ),
    "smaller": (PLAN, FEWER),
}


def before(seed: int = 5) -> tuple[Measure, Story]:
    story = Story(seed, 110)
    measure = Measure(PLAN, SETTINGS)
    for each in story.steps:
        take(measure, each)
    return measure, story


@pytest.fixture(scope="module")
def old() -> tuple[State, Snapshot, int]:
    measure, story = before()
    return measure.state(), measure.snapshot(), story.now_ns


@pytest.mark.parametrize("name", PLANS)
def test_a_state_goes_on_under_another_plan(name: str, old: tuple[State, Snapshot, int]) -> None:
    state, view, now_ns = old
    the_plan, settings = PLANS[name]
    measure = Measure(the_plan, settings)
    measure.restore(state)
    after = measure.snapshot()
    kept = {each.model for each in the_plan.contracts}
    theirs = {(each.model, each.slo): each for each in view.slos}
    for each in after.slos:
        known = theirs.get((each.model, each.slo))
        if known is not None and known.windows[-1].window_s == each.windows[-1].window_s:
            mine, old_one = each.windows[-1], known.windows[-1]
            assert (mine.good, mine.bad) == (old_one.good, old_one.bad)
    found = {(each.model, each.version): each for each in after.series}
    for series in view.series:
        one = found[(series.model, series.version)]
        assert (one.ok, one.failed) == (series.ok, series.failed)
    assert after.devices.names == view.devices.names
    assert after.devices.spans.tolist() == view.devices.spans.tolist()
    assert dict(after.operations.unusable) == dict(view.operations.unusable)
    for loads in view.operations.loads:
        if loads.model in kept:
            assert loads in after.operations.loads
    # A state that was restored is a state like any other, and goes on.
    again = Measure(the_plan, settings)
    again.restore(measure.state())
    same(again.state(), measure.state())
    story = Story(6, 40)
    shift_ns = now_ns - story.steps[0][0].arrival_ns + SECOND_NS
    for batch, left in story.steps:
        moved = dataclasses.replace(batch, arrival_ns=batch.arrival_ns + shift_ns)
        moved.requests["arrival_ns"] += shift_ns
        moved.spans["start_ns"] += shift_ns
        moved.spans["end_ns"] += shift_ns
        take(measure, (moved, np.resize(left, len(the_plan.contracts) + 1)))
    measure.advance(measure.now_ns + 2 * 3_600 * SECOND_NS)
    for anomaly in measure.snapshot().open_anomalies:
        assert anomaly.model in {*kept, ""}, anomaly


@pytest.mark.parametrize("name", ["no_objectives", "one_of_three", "other_windows"])
def test_a_halted_rollout_is_told_only_while_there_is_an_objective(name: str) -> None:
    measure, story = Measure(PLAN, SETTINGS), Story(1, 20)
    for each in story.steps:
        take(measure, each)
    now_ns = story.now_ns
    start = RolloutStart(at_ns=now_ns, rollout="halts", model="a", version="2")
    measure.hear(parcel(Signal.LOGS, write([start]), now_ns, ""))
    measure.rollouts.table["halts"].state = RolloutState.HALTED
    the_plan, settings = PLANS[name]
    after = Measure(the_plan, settings)
    after.restore(measure.state())
    told = [each.subject for each in after.rollouts.troubles(now_ns + 60 * SECOND_NS)]
    assert ("halts" in told) == (name == "other_windows")
