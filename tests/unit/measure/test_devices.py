"""Devices: who they are, how fresh, how wrong their clocks."""

import numpy as np

from gateway.batch import Batch
from gateway.measure.devices import NO_DELAY, OTHER, Devices, merge
from gateway.measure.settings import MeasureSettings
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    batch,
    payload,
    plan,
    request,
    span,
)

PLAN = plan()


def some(devices_max: int = 9) -> Devices:
    return Devices(PLAN, MeasureSettings(devices_max=devices_max))


def observed(devices: Devices, one: Batch) -> list[str]:
    runs = devices.find(one)
    start, end = (one.spans[name].astype(np.int64) for name in ("start_ns", "end_ns"))
    devices.add(one, runs, start, end)
    return [devices.names[index] for index in runs.rows(runs.device).tolist()]


def from_device(name: str, *, end_ns: int = START_NS, arrival_ns: int = START_NS) -> Batch:
    body = request([span(1, end_ns=end_ns)], {"device.id": name})
    return batch(PLAN, payload(body, arrival_ns=arrival_ns))


def test_an_anonymous_sender_is_named_by_what_it_says() -> None:
    bodies = [
        request([span(1)], {"device.id": "d", "service.instance.id": "i"}),
        request([span(2)], {"service.instance.id": "i"}),
        request([span(3)], {"device.id": 7}),
    ]
    one = batch(PLAN, *(payload(body) for body in bodies))
    assert observed(some(), one) == ["d", "i", ""]


def test_an_authenticated_sender_cannot_take_the_name_of_another_device() -> None:
    bodies = [
        request([span(1)], {"service.instance.id": "other"}),
        request([span(2)], {"device.id": "cert"}),
        request([span(3)]),
    ]
    one = batch(PLAN, *(payload(body, identity="cert") for body in bodies))
    assert observed(some(), one) == ["cert"] * 3


def test_without_any_name_it_is_empty() -> None:
    one = batch(PLAN, payload(request([span(1)]), identity=""))
    assert observed(some(), one) == [""]


def test_devices_past_the_limit_count_together() -> None:
    devices = some(2)
    for name in ("a", "b", "c", "d", "a"):
        observed(devices, from_device(name))
    assert devices.names == (OTHER, "a", "b")
    assert devices.spans[:3].tolist() == [2, 2, 1]
    assert devices.overflow_spans == 2


def test_bytes_are_those_of_the_request() -> None:
    devices = some()
    one = from_device("a")
    observed(devices, one)
    assert int(devices.bytes[1]) == int(one.requests["body_length"].sum())


def test_freshness_is_of_the_newest_event_and_arrival() -> None:
    devices = some()
    observed(devices, from_device("a", end_ns=START_NS - 5, arrival_ns=START_NS))
    observed(devices, from_device("a", end_ns=START_NS - 9, arrival_ns=START_NS + 1))
    assert int(devices.last_event_ns[1]) == START_NS - 5
    assert int(devices.last_arrival_ns[1]) == START_NS + 1


def test_a_clock_that_is_ahead_shows_as_a_negative_delay() -> None:
    devices = some()
    for delay_s in (3, -30, 5):
        end_ns = START_NS - delay_s * SECOND_NS
        observed(devices, from_device("a", end_ns=end_ns))
    assert int(devices.offsets_ns()[1]) == -30 * SECOND_NS
    assert int(devices.offsets_ns()[0]) == NO_DELAY


def test_old_delays_are_forgotten() -> None:
    devices = some()
    devices.turn(START_NS)
    observed(devices, from_device("a", end_ns=START_NS + 30 * SECOND_NS))
    devices.turn(START_NS + 600 * SECOND_NS)
    assert int(devices.offsets_ns()[1]) == -30 * SECOND_NS
    devices.turn(START_NS + 1_200 * SECOND_NS)
    assert int(devices.offsets_ns()[1]) == NO_DELAY


def test_merging_joins_by_name() -> None:
    one, two = some(), some()
    for devices, names in ((one, "ab"), (two, "bc")):
        for name in names:
            observed(devices, from_device(name, end_ns=START_NS - ord(name)))
    joined = some()
    joined.restore(merge(one.state(), two.state()))
    assert joined.names == (OTHER, "a", "b", "c")
    assert joined.spans[:4].tolist() == [0, 1, 2, 1]
    assert joined.last_event_ns[1:4].tolist() == [START_NS - ord(name) for name in "abc"]
    assert joined.offsets_ns()[1:].tolist() == [ord(name) for name in "abc"]
