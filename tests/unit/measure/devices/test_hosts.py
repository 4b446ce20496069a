"""Hosts: conditions that neither flap nor outlive their readings, and headroom."""

from collections.abc import Mapping

import numpy as np
import pytest

from gateway.measure.devices.hosts import Condition, Hosts, merge
from gateway.otlp.readings import Reading
from tests.unit.measure.build import SECOND_NS, START_NS

MINUTE = 60


def ns(at_s: float) -> int:
    return START_NS + round(at_s * SECOND_NS)


def feed(hosts: Hosts, readings: Mapping[Reading, float], *times_s: float, device: int = 1) -> None:
    for each in times_s:
        hosts.add(device, readings, ns(each))


def conditions(hosts: Hosts, at_s: float, row: int = 0) -> set[Condition]:
    return {each for each in Condition if hosts.wrong(ns(at_s))[row, each]}


@pytest.mark.parametrize(
    ("reading", "condition"),
    [
        (Reading.CPU, Condition.CPU_BUSY),
        (Reading.MEMORY, Condition.MEMORY_FULL),
        (Reading.FILESYSTEM, Condition.FILESYSTEM_FULL),
        (Reading.GPU, Condition.GPU_BUSY),
        (Reading.GPU_MEMORY, Condition.GPU_MEMORY_FULL),
    ],
)
def test_a_resource_is_full_after_five_minutes_at_nine_tenths(
    reading: Reading, condition: Condition
) -> None:
    hosts = Hosts()
    feed(hosts, {reading: 0.9}, *range(0, 300, 60))
    assert not conditions(hosts, 299)
    feed(hosts, {reading: 0.9}, 300)
    assert conditions(hosts, 300) == {condition}


def test_a_resource_that_swings_about_the_limit_is_one_condition() -> None:
    hosts = Hosts()
    for at in range(0, 600, 60):
        feed(hosts, {Reading.CPU: 0.95 if at % 120 == 0 else 0.86}, at)
    assert conditions(hosts, 600) == {Condition.CPU_BUSY}
    feed(hosts, {Reading.CPU: 0.84}, 660)
    assert not conditions(hosts, 660)


def test_what_is_not_read_any_more_is_not_known() -> None:
    hosts = Hosts()
    feed(hosts, {Reading.CPU: 1.0}, *range(0, 601, 60))
    assert conditions(hosts, 600 + 299)
    assert not conditions(hosts, 600 + 300)
    # Nobody saw that it was busy all the time in between.
    feed(hosts, {Reading.CPU: 1.0}, 3_600)
    assert not conditions(hosts, 3_600)


def test_a_throttled_host_is_told_after_a_minute() -> None:
    hosts = Hosts()
    feed(hosts, {Reading.THROTTLED: 1.0}, 0, 30)
    assert not conditions(hosts, 59)
    feed(hosts, {Reading.THROTTLED: 1.0}, 60)
    assert conditions(hosts, 60) == {Condition.THROTTLED}
    feed(hosts, {Reading.THROTTLED: 0.0}, 90)
    assert not conditions(hosts, 90)


@pytest.mark.parametrize(
    ("charge", "on_battery", "is_low"),
    [(0.1, 1.0, True), (0.15, 1.0, True), (0.16, 1.0, False), (0.1, 0.0, False)],
)
def test_a_battery_is_low_only_in_use(charge: float, on_battery: float, is_low: bool) -> None:
    hosts = Hosts()
    feed(hosts, {Reading.BATTERY_CHARGE: charge, Reading.ON_BATTERY: on_battery}, 0)
    assert (Condition.BATTERY_LOW in conditions(hosts, 1)) == is_low


def test_a_battery_is_charged_at_a_fifth_or_on_the_mains() -> None:
    for readings in ({Reading.BATTERY_CHARGE: 0.21}, {Reading.ON_BATTERY: 0.0}):
        hosts = Hosts()
        feed(hosts, {Reading.BATTERY_CHARGE: 0.1, Reading.ON_BATTERY: 1.0}, 0)
        feed(hosts, {Reading.BATTERY_CHARGE: 0.18}, 1)
        assert conditions(hosts, 1) == {Condition.BATTERY_LOW}
        feed(hosts, readings, 2)
        assert not conditions(hosts, 2)


def test_a_limit_that_was_told_once_holds() -> None:
    hosts = Hosts()
    feed(hosts, {Reading.TEMPERATURE: 99.0}, 0, 60)
    assert not conditions(hosts, 60)
    feed(hosts, {Reading.TEMPERATURE: 70.0, Reading.TEMPERATURE_LIMIT: 80.0}, 90)
    feed(hosts, {Reading.TEMPERATURE: 81.0}, *range(3_600, 3_661, 30))
    assert conditions(hosts, 3_660) == {Condition.TOO_HOT}
    feed(hosts, {Reading.TEMPERATURE: 78.0}, 3_690)
    assert conditions(hosts, 3_690) == {Condition.TOO_HOT}
    feed(hosts, {Reading.TEMPERATURE: 76.9}, 3_720)
    assert not conditions(hosts, 3_720)


def test_an_old_reading_does_not_replace_a_newer_one() -> None:
    hosts = Hosts()
    feed(hosts, {Reading.CPU: 0.5}, 10)
    feed(hosts, {Reading.CPU: 0.7}, 5)
    assert hosts.value[0, Reading.CPU] == 500


def test_headroom_is_what_a_recount_of_ten_minutes_leaves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hosts, told = Hosts(), []
    at_s = 0.0
    for _ in range(300):
        at_s += float(rng.exponential(40))
        reading = rng.choice([Reading.CPU, Reading.MEMORY, Reading.GPU])
        share = round(float(rng.random()), 3)
        feed(hosts, {Reading(reading): share}, at_s)
        told.append((at_s, share))
        now_minute = ns(at_s) // (MINUTE * SECOND_NS)
        recent = [each for at, each in told if ns(at) // (MINUTE * SECOND_NS) > now_minute - 10]
        assert hosts.headroom(ns(at_s)).tolist() == [1_000 - round(max(recent) * 1_000)]
    assert hosts.headroom(ns(at_s + 660)).tolist() == [-1]


def test_a_view_shows_what_is_fresh() -> None:
    hosts = Hosts()
    feed(hosts, {Reading.CPU: 0.25, Reading.POWER: 7.5}, 0, device=2)
    (view,) = hosts.views(("", "", "edge"), ns(1))
    assert (view.device, view.headroom_ratio) == ("edge", 0.75)
    assert view.readings == {"cpu": 0.25, "power": 7.5}
    (view,) = hosts.views(("", "", "edge"), ns(3_600))
    assert (view.headroom_ratio, view.readings, view.conditions) == (None, {}, ())


def stories(seed: int, devices: range) -> list[tuple[int, dict[Reading, float], float]]:
    rng = np.random.default_rng(seed)
    found: list[tuple[int, dict[Reading, float], float]] = []
    for at in range(0, 1_800, 20):
        for device in devices:
            readings = {
                Reading.CPU: 0.95 if device == 2 else round(float(rng.beta(5, 1)), 3),
                Reading.THROTTLED: float(device == 5 or rng.random() < 0.7),
            }
            found.append((device, readings, at + device))
    return found


def test_two_sites_are_merged_by_device_and_a_restart_changes_nothing(seed: int) -> None:
    one, two, all_of_them = Hosts(), Hosts(), Hosts()
    for hosts, devices in ((one, range(1, 4)), (two, range(4, 7))):
        for device, readings, at in stories(seed, devices):
            feed(hosts, readings, at, device=device)
            feed(all_of_them, readings, at, device=device)
    for first, second in ((one, two), (two, one)):
        joined = Hosts()
        joined.restore(merge(first.state(), second.state(), range(7)))
        for name in ("wrong", "headroom"):
            found = getattr(joined, name)(ns(1_806))
            by_device = {
                int(device): found[row].tolist() for row, device in enumerate(joined.device)
            }
            whole = getattr(all_of_them, name)(ns(1_806))
            assert by_device == {
                int(device): whole[row].tolist() for row, device in enumerate(all_of_them.device)
            }
    assert all_of_them.wrong(ns(1_806)).any()


def test_of_one_device_at_two_sites_the_newer_reading_stays() -> None:
    one, two = Hosts(), Hosts()
    feed(one, {Reading.CPU: 0.2, Reading.POWER: 3.0}, 10)
    feed(two, {Reading.CPU: 0.4}, 20)
    for first, second in ((one, two), (two, one)):
        joined = Hosts()
        joined.restore(merge(first.state(), second.state(), range(2)))
        assert len(joined) == 1
        assert joined.value[0, [Reading.CPU, Reading.POWER]].tolist() == [400, 3_000]
        assert joined.headroom(ns(20)).tolist() == [600]
