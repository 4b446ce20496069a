"""Health: one trouble for each thing that is wrong, with the count of devices in it."""

from collections.abc import Mapping

import numpy as np
import pytest

from gateway.batch import NO_CONTRACT, AnomalyKind, Severity, Team
from gateway.measure.devices.devices import OTHER, Devices
from gateway.measure.devices.health import Health, merge
from gateway.measure.settings import MeasureSettings
from gateway.measure.trouble import Trouble
from gateway.otlp.readings import Heard, Reading
from tests.unit.measure.build import SECOND_NS, START_NS, contract, plan
from tests.unit.measure.devices.test_placement import inference

PLAN = plan(contract("a"), contract("b"))
MINUTE_S = 60
GENERATION_S = 600
YEARS_S = 10 * 365 * 86_400


class Site:
    """Devices and their health; times are seconds since the start."""

    def __init__(self, devices_max: int = 1_000) -> None:
        self.devices = Devices(PLAN, MeasureSettings(devices_max=devices_max))
        self.health = Health(PLAN, self.devices)

    def hear(
        self,
        device: str,
        at_s: float,
        *,
        late_s: float = 0.0,
        readings: Mapping[Reading, float] | None = None,
    ) -> None:
        now_ns = START_NS + round(at_s * SECOND_NS)
        self.devices.turn(now_ns)
        self.health.turn(now_ns)
        newest_ns = max(1, now_ns - round(late_s * SECOND_NS))
        one = Heard(device=device, newest_ns=newest_ns, items=1, bytes=9, readings=readings or {})
        self.devices.hear([one], now_ns)

    def load(self, *errors: str, model: str = "a", at_s: float = 0) -> None:
        now_ns = START_NS + round(at_s * SECOND_NS)
        self.health.turn(now_ns)
        for error in errors:
            self.health.loaded(model=model, error=error, at_ns=now_ns)

    def troubles(self, at_s: float) -> dict[tuple[AnomalyKind, str], Trouble]:
        now_ns = START_NS + round(at_s * SECOND_NS)
        self.health.turn(now_ns)
        found = self.health.troubles(now_ns)
        assert len({(each.kind, each.model, each.subject) for each in found}) == len(found)
        return {(each.kind, each.model): each for each in found}

    def only(self, kind: AnomalyKind, at_s: float, model: str = "") -> Trouble:
        found = self.troubles(at_s)
        assert found.keys() == {(kind, model)}
        return found[kind, model]


# --- clocks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead_s", "is_told"), [(4.9, False), (5.1, True), (YEARS_S, True)])
def test_a_clock_that_is_ahead_is_told_at_once(ahead_s: float, is_told: bool) -> None:
    site = Site()
    site.hear("x", 0, late_s=-ahead_s)
    site.hear("y", 0, late_s=0.2)
    found = site.troubles(0)
    assert bool(found) == is_told
    if is_told:
        trouble = found[AnomalyKind.CLOCK_SKEW, ""]
        assert trouble.numbers["devices_ahead"] == 1
        assert trouble.numbers["devices_behind"] == 0
        assert trouble.numbers["devices_heard"] == 2
        assert trouble.numbers["ahead_s_max"] == pytest.approx(ahead_s)
        assert (trouble.severity, trouble.team) == (Severity.TICKET, Team.DEVICE_OPS)


@pytest.mark.parametrize(("late_s", "is_told"), [(29.0, False), (31.0, True), (YEARS_S, True)])
def test_a_clock_that_is_behind_is_told_after_a_whole_generation(
    late_s: float, is_told: bool
) -> None:
    site = Site()
    for at_s in range(0, 2 * GENERATION_S, MINUTE_S):
        site.hear("x", at_s, late_s=late_s)
        assert bool(site.troubles(at_s)) == (is_told and at_s >= GENERATION_S)
    if is_told:
        numbers = site.only(AnomalyKind.CLOCK_SKEW, at_s).numbers
        assert (numbers["devices_ahead"], numbers["devices_behind"]) == (0, 1)


def test_a_backlog_beside_fresh_data_is_no_wrong_clock() -> None:
    site = Site()
    for at_s in range(0, 3 * GENERATION_S, MINUTE_S):
        site.hear("x", at_s, late_s=6 * 3_600 if at_s % 300 else 1)
        assert not site.troubles(at_s)


def test_one_that_was_set_right_is_forgotten() -> None:
    site = Site()
    site.hear("x", 0, late_s=-60)
    for at_s in range(10, 2 * GENERATION_S, 10):
        site.hear("x", at_s)
        assert site.troubles(at_s)
    site.hear("x", 2 * GENERATION_S)
    assert not site.troubles(2 * GENERATION_S)


def test_devices_that_did_not_fit_have_no_clock_together() -> None:
    site = Site(devices_max=1)
    site.hear("x", 0)
    site.hear("y", 0, late_s=-60)
    assert site.devices.names[0] == OTHER
    assert not site.troubles(0)


# --- accelerators ---------------------------------------------------------------------------


def run_on(site: Site, kind: str, *times_s: int, device: str = "x", model: str = "a") -> None:
    for at_s in times_s:
        inference(device, model, kind, at_s=at_s, devices=site.devices)


def test_a_model_that_fell_back_to_the_cpu_is_told_while_it_is_there() -> None:
    site = Site()
    run_on(site, "gpu", 0, 10)
    run_on(site, "cpu", 20, 50)
    assert not site.troubles(60)
    run_on(site, "cpu", 80)
    trouble = site.only(AnomalyKind.ACCELERATOR, 90, "a")
    assert trouble.numbers == {"devices_moved": 1, "devices_on_cpu": 1, "devices": 1}
    assert trouble.onset_ns == START_NS + 20 * SECOND_NS
    assert (trouble.contract, trouble.team) == (0, Team.DEVICE_OPS)
    assert site.troubles(3_600)
    assert not site.troubles(20 + 86_400)
    run_on(site, "gpu", 100)
    assert not site.troubles(100)


def test_another_move_is_told_for_ten_minutes() -> None:
    site = Site()
    run_on(site, "gpu", 0)
    run_on(site, "npu", 20, 90)
    trouble = site.only(AnomalyKind.ACCELERATOR, 90, "a")
    assert trouble.numbers["devices_on_cpu"] == 0
    assert site.troubles(20 + 599)
    assert not site.troubles(20 + 600)


def test_one_that_goes_to_and_fro_is_not_told() -> None:
    site = Site()
    for at_s in range(0, 600, 10):
        run_on(site, "gpu" if at_s % 20 else "cpu", at_s)
        assert not site.troubles(at_s)


def test_a_hundred_devices_that_fall_back_are_one_trouble() -> None:
    site = Site()
    for device in range(100):
        run_on(site, "npu", 0, device=f"d{device}")
        run_on(site, "cpu", 10, 90, device=f"d{device}")
    run_on(site, "npu", 0, 90, device="right")
    numbers = site.only(AnomalyKind.ACCELERATOR, 90, "a").numbers
    assert numbers == {"devices_moved": 100, "devices_on_cpu": 100, "devices": 101}


# --- model loads ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loaded", "failed", "is_told"),
    [(0, 1, True), (9, 1, True), (11, 1, False), (21, 2, False), (1_000, 3, True), (5, 0, False)],
)
def test_three_failed_loads_or_a_tenth_are_told(loaded: int, failed: int, is_told: bool) -> None:
    site = Site()
    site.load(*([""] * loaded + ["BadSignature"] * failed))
    found = site.troubles(0)
    assert bool(found) == is_told
    if is_told:
        trouble = found[AnomalyKind.MODEL_LOAD, "a"]
        assert trouble.numbers["loads_failed"] == failed
        assert trouble.numbers["loads"] == loaded + failed
        assert (trouble.severity, trouble.team) == (Severity.TICKET, Team.ML_ENGINEERING)


def test_loads_that_fail_for_want_of_memory_are_a_matter_of_devices() -> None:
    site = Site()
    site.load("OutOfMemory", "disk_full", "BadSignature")
    assert site.only(AnomalyKind.MODEL_LOAD, 0, "a").team is Team.DEVICE_OPS


def test_failed_loads_are_told_for_ten_minutes() -> None:
    site = Site()
    site.load("x", "x", "x", at_s=30)
    assert site.only(AnomalyKind.MODEL_LOAD, 599, "a").onset_ns == START_NS
    assert not site.troubles(600)
    assert site.health.loads()[0].failed == 3


def test_loads_of_a_model_without_a_contract_are_those_of_the_site() -> None:
    site = Site()
    site.load("x", model="unknown")
    assert site.only(AnomalyKind.MODEL_LOAD, 0).contract == NO_CONTRACT


# --- hosts ----------------------------------------------------------------------------------


def test_saturated_devices_are_one_trouble_with_the_least_headroom() -> None:
    site = Site()
    for at_s in range(0, 361, 60):
        for device in range(20):
            share = 0.95 if device < 5 else 0.4
            readings = {Reading.CPU: share, Reading.MEMORY: 0.97 if device == 0 else 0.1}
            site.hear(f"d{device}", at_s, readings=readings)
        assert bool(site.troubles(at_s)) == (at_s >= 300)
    trouble = site.only(AnomalyKind.SATURATION, 360)
    assert trouble.numbers == {
        "devices_saturated": 5,
        "devices_read": 20,
        "headroom_ratio_min": 0.03,
        "devices_cpu_busy": 5,
        "devices_memory_full": 1,
    }
    assert trouble.onset_ns == START_NS
    assert trouble.team is Team.DEVICE_OPS


def test_devices_without_power_are_one_trouble() -> None:
    site = Site()
    for at_s in (0, 60):
        site.hear("hot", at_s, readings={Reading.TEMPERATURE: 91, Reading.TEMPERATURE_LIMIT: 90})
        site.hear("slow", at_s, readings={Reading.THROTTLED: 1})
        site.hear("low", at_s, readings={Reading.BATTERY_CHARGE: 0.1, Reading.ON_BATTERY: 1})
        site.hear("well", at_s, readings={Reading.BATTERY_CHARGE: 0.1, Reading.ON_BATTERY: 0})
    assert site.only(AnomalyKind.POWER, 60).numbers == {
        "devices_affected": 3,
        "devices_throttled": 1,
        "devices_too_hot": 1,
        "devices_battery_low": 1,
        "devices_read": 4,
    }


# --- all ------------------------------------------------------------------------------------


def test_a_healthy_site_has_no_troubles() -> None:
    assert not Site().troubles(0)
    site = Site()
    run_on(site, "npu", 0, 100)
    site.load(*[""] * 50)
    site.hear("x", 0, late_s=0.1, readings={Reading.CPU: 0.3, Reading.ON_BATTERY: 0})
    assert not site.troubles(0)


def test_integrity_is_told_before_all_else_and_everything_survives_a_restart() -> None:
    site = Site()
    run_on(site, "gpu", 0)
    run_on(site, "cpu", 10, 100)
    site.load("x", "x", "x", at_s=100)
    site.hear("x", 100, late_s=-60, readings={Reading.BATTERY_CHARGE: 0.1, Reading.ON_BATTERY: 1})
    site.health.integrity.violated(
        model="b", version="", error="x", device="x", at_ns=START_NS, arrival_ns=START_NS
    )
    before = site.troubles(120)
    assert next(iter(before))[0] is AnomalyKind.INTEGRITY
    assert len(before) == 5
    other = Site()
    other.devices.restore(site.devices.state())
    other.health.restore(site.health.state())
    assert other.troubles(120) == before
    state = site.health.state()
    assert all(np.array_equal(value, state[name]) for name, value in other.health.state().items())


def test_loads_and_violations_of_two_sites_add_up() -> None:
    one, two = Site(), Site()
    one.load("x", "")
    two.load("x", "x", at_s=60)
    joined = Site()
    joined.health.restore(merge(one.health.state(), two.health.state()))
    assert joined.only(AnomalyKind.MODEL_LOAD, 60, "a").numbers["loads_failed"] == 3
    assert [(each.model, each.loaded, each.failed) for each in joined.health.loads()] == [
        ("a", 1, 3),
        ("b", 0, 0),
        ("", 0, 0),
    ]
