"""Law: what is wrong with devices at each judgement depends on what arrived alone."""

from typing import Any

import numpy as np
import pytest

from gateway.measure.devices.causes import Causes
from gateway.measure.devices.devices import Devices
from gateway.measure.devices.freshness import Freshness, Ticks
from gateway.measure.devices.health import Health
from gateway.measure.match import Matcher
from gateway.measure.settings import ADVANCE_GRACE_NS, MeasureSettings
from gateway.measure.slo.objectives import Objectives
from gateway.measure.state import State, part, prefixed
from gateway.measure.trouble import Trouble
from gateway.otlp.readings import Heard, Reading
from tests.conftest import FUZZ
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    batch,
    contract,
    payload,
    plan,
    request,
    span,
    success,
)
from tests.unit.measure.devices.test_freshness import fresh

PLAN = plan(contract("a", slos=(success(), fresh())), contract("b"))
MATCHER = Matcher(PLAN)
SETTINGS = MeasureSettings()
SEEDS = range(40 if FUZZ else 2)
Step = tuple[int, str, Any]  # arrival, what, with what


class Parts:
    """The parts in the order in which `Measure` has to call them."""

    def __init__(self) -> None:
        self.objectives = Objectives(PLAN, SETTINGS)
        self.devices = Devices(PLAN, SETTINGS)
        self.freshness = Freshness(PLAN, SETTINGS, self.devices)
        self.health = Health(PLAN, self.devices)
        self.causes = Causes(PLAN)
        self.now_ns = 0
        self.ticks: list[Ticks] = []
        self.told: list[tuple[int, list[Trouble], tuple[str, str]]] = []

    def turn(self, now_ns: int) -> None:
        if now_ns <= self.now_ns:
            return
        self.now_ns = now_ns
        self.ticks += self.freshness.turn(now_ns)
        for at_ns, _ in self.objectives.turn(now_ns):
            self.health.turn(at_ns)
            self.causes.turn(at_ns)
            found = self.health.troubles(at_ns) + self.freshness.troubles(at_ns)
            self.told.append((at_ns, found, (self.causes.team_of(0), self.causes.team_of(1))))

    def take(self, step: Step) -> None:
        arrival_ns, what, given = step
        self.turn(arrival_ns)
        if what == "spans":
            self._observe(given, arrival_ns)
        elif what == "heard":
            self.devices.hear([given], arrival_ns)
        elif what == "load":
            self.health.loaded(model="a", error=given, at_ns=arrival_ns)
        else:
            self.health.integrity.violated(
                model=given, version="1", error="", device="x", at_ns=0, arrival_ns=arrival_ns
            )

    def _observe(self, body: bytes, arrival_ns: int) -> None:
        one = batch(PLAN, payload(body, arrival_ns=arrival_ns))
        runs = self.devices.find(one)
        start, end = (one.spans[name].astype(np.int64) for name in ("start_ns", "end_ns"))
        self.devices.add(one, runs, start, end)
        matched = MATCHER.contracts(one)
        self.devices.infer(one, runs, matched, np.zeros(len(end), dtype=int), (("a", "1"),))
        event_ns = np.minimum(end, arrival_ns + 120 * SECOND_NS)
        self.causes.add(one, matched, one.spans["status"] == 2, event_ns)

    def state(self) -> State:
        found: State = {}
        for name in ("objectives", "devices", "freshness", "health", "causes"):
            found |= prefixed(name, getattr(self, name).state())
        return found

    def restore(self, state: State) -> None:
        for name in ("objectives", "devices", "freshness", "health", "causes"):
            getattr(self, name).restore(part(name, state))


def story(seed: int, steps: int = 220) -> list[Step]:
    """Hours of devices with every failure mode, and pauses in which nothing comes."""
    rng = np.random.default_rng(seed)
    found: list[Step] = []
    now_ns = START_NS
    for step in range(steps):
        pause_s = rng.choice([0, 1, 7, 40, 400, 1_500], p=[0.2, 0.3, 0.34, 0.14, 0.015, 0.005])
        now_ns += int(pause_s) * SECOND_NS + 1
        device = f"d{rng.integers(5)}"
        clock_s = -8 if device == "d1" and step < 120 else 60 if device == "d2" else 0
        end_ns = now_ns - clock_s * SECOND_NS - int(rng.integers(0, SECOND_NS))
        what = rng.choice(["spans", "heard", "load", "violation"], p=[0.5, 0.4, 0.08, 0.02])
        if what == "spans":
            kind = "npu" if device != "d3" or step < 100 else "cpu"
            own = {
                "edgeai.model.name": "ab"[int(rng.integers(2))],
                "edgeai.accelerator.type": kind,
                "error.type": str(rng.choice(["nan", "disk", "OutOfMemory"])),
            }
            failed = bool(rng.random() < 0.3)
            spans = [span(1, end_ns=end_ns, failed=failed, attributes=own)]
            found.append((now_ns, "spans", request(spans, {"device.id": device})))
        elif what == "heard":
            readings = {
                Reading.CPU: 0.97 if 60 < step < 200 else 0.2,
                Reading.THROTTLED: float(step > 150),
            }
            one = Heard(device=device, newest_ns=end_ns, items=1, bytes=9, readings=readings)
            found.append((now_ns, "heard", one))
        elif what == "load":
            found.append((now_ns, "load", str(rng.choice(["", "disk", "BadSignature"]))))
        else:
            found.append((now_ns, "violation", "ab"[int(rng.integers(2))]))
    return found


def same(one: State, two: State) -> None:
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert np.array_equal(array, two[name]), name
        assert array.dtype == two[name].dtype, name


@pytest.mark.parametrize("seed", SEEDS)
def test_idle_steps_change_neither_troubles_nor_state(seed: int) -> None:
    steps = story(seed)
    rng = np.random.default_rng(seed)
    plain, idle = Parts(), Parts()
    for one, after in zip(steps, [*steps[1:], None], strict=True):
        plain.take(one)
        idle.take(one)
        if after is not None:
            for share in np.sort(rng.random(4)).tolist():
                at_ns = one[0] + int(share * (after[0] - one[0]))
                idle.turn(at_ns - ADVANCE_GRACE_NS)
    assert plain.told == idle.told
    assert plain.ticks == idle.ticks
    same(plain.state(), idle.state())
    kinds = {trouble.kind for _, troubles, _ in plain.told for trouble in troubles}
    assert len(kinds) >= 6, kinds
    assert any(tick.bad for tick in plain.ticks)


@pytest.mark.parametrize("stop", [1, 120])
def test_a_restart_changes_neither_troubles_nor_state(stop: int) -> None:
    steps = story(7)
    plain, before, after = Parts(), Parts(), Parts()
    for one in steps:
        plain.take(one)
    for one in steps[:stop]:
        before.take(one)
    after.restore(before.state())
    same(before.state(), after.state())
    for one in steps[stop:]:
        after.take(one)
    assert before.told + after.told == plain.told
    assert before.ticks + after.ticks == plain.ticks
    same(plain.state(), after.state())
