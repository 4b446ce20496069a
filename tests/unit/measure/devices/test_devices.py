"""Devices: who they are, how fresh, how wrong their clocks."""

import numpy as np

from gateway.batch import Batch
from gateway.measure.devices.devices import NO_DELAY, OTHER, Devices, merge
from gateway.measure.measure import Measure
from gateway.measure.settings import MeasureSettings
from gateway.otlp.readings import Heard
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


def heard(name: str, newest_ns: int = 0, *, items: int = 1, size: int = 10) -> Heard:
    return Heard(device=name, newest_ns=newest_ns, items=items, bytes=size)


def index_of(devices: Devices, name: str) -> int:
    return devices.names.index(name)


def test_a_heartbeat_is_heard_and_is_no_span() -> None:
    devices = some()
    devices.hear([heard("a", START_NS - 7, items=3, size=40)], START_NS)
    at = index_of(devices, "a")
    assert int(devices.last_arrival_ns[at]) == START_NS
    assert int(devices.last_event_ns[at]) == START_NS - 7
    assert int(devices.offsets_ns()[at]) == 7
    assert (int(devices.items[at]), int(devices.bytes[at]), int(devices.spans[at])) == (3, 40, 0)
    assert int(devices.last_inference_ns[at]) == 0


def test_a_heartbeat_without_a_time_says_nothing_of_the_clock() -> None:
    devices = some()
    devices.hear([heard("a")], START_NS)
    at = index_of(devices, "a")
    assert int(devices.offsets_ns()[at]) == NO_DELAY
    assert int(devices.jitter_ns()[at]) == NO_DELAY
    assert int(devices.last_arrival_ns[at]) == START_NS


def test_the_gateway_itself_is_no_device() -> None:
    devices = some()
    devices.hear([heard("~api", START_NS)], START_NS)
    assert devices.names == (OTHER,)
    assert devices.site_ns == 0


def test_heard_devices_past_the_limit_count_together() -> None:
    devices = some(1)
    devices.hear([heard("a"), heard("b", items=5), heard("c", items=2)], START_NS)
    assert devices.names == (OTHER, "a")
    assert devices.items[:2].tolist() == [7, 1]
    assert devices.overflow_items == 7


def test_jitter_is_how_far_the_mean_delay_is_above_the_least() -> None:
    devices = some()
    for delay_ms in (100, 140, 180):
        devices.hear([heard("a", START_NS - delay_ms * 1_000_000)], START_NS)
    assert int(devices.jitter_ns()[index_of(devices, "a")]) == 40_000_000


def test_a_clock_that_is_years_off_has_no_jitter_and_overflows_nothing() -> None:
    devices = some()
    years_ns = 10 * 365 * 86_400 * SECOND_NS
    for name, shift in (("past", years_ns), ("future", -years_ns)):
        for _ in range(3):
            devices.hear([heard(name, START_NS - shift)], START_NS)
        assert int(devices.offsets_ns()[index_of(devices, name)]) == shift
        assert int(devices.jitter_ns()[index_of(devices, name)]) == NO_DELAY
    assert int(devices.last_event_ns[index_of(devices, "future")]) == START_NS + 120 * SECOND_NS


def test_spans_that_end_before_they_start_or_in_the_future_are_counted() -> None:
    devices = some()
    good, backwards, endless = span(1), span(2), span(3)
    backwards.start_time_unix_nano = START_NS + 5
    endless.end_time_unix_nano = endless.start_time_unix_nano = 0
    ahead = span(4, end_ns=START_NS + 121 * SECOND_NS)
    body = request([good, backwards, endless, ahead], {"device.id": "a"})
    observed(devices, batch(PLAN, payload(body)))
    at = index_of(devices, "a")
    assert (int(devices.invalid[at]), int(devices.future[at])) == (2, 1)
    assert int(devices.last_event_ns[at]) == START_NS + 120 * SECOND_NS


def test_only_a_whole_generation_says_that_a_clock_is_behind() -> None:
    devices = some()
    devices.turn(START_NS)
    devices.hear([heard("a", START_NS - 40 * SECOND_NS)], START_NS)
    at = index_of(devices, "a")
    assert int(devices.behind_ns()[at]) == 0
    devices.turn(START_NS + 600 * SECOND_NS)
    assert int(devices.behind_ns()[at]) == 40 * SECOND_NS
    devices.hear([heard("a", START_NS + 599 * SECOND_NS)], START_NS + 600 * SECOND_NS)
    assert int(devices.behind_ns()[at]) == SECOND_NS


def test_states_of_different_generations_are_merged_where_they_belong() -> None:
    old, new = some(), some()
    for devices, delay_s, at_s in ((old, 3, 0), (new, 8, 600)):
        now_ns = START_NS + at_s * SECOND_NS
        devices.turn(now_ns)
        devices.hear([heard("a", now_ns - delay_s * SECOND_NS)], now_ns)
    for one, two in ((old, new), (new, old)):
        joined = some()
        joined.restore(merge(one.state(), two.state()))
        at = index_of(joined, "a")
        assert int(joined.offsets_ns()[at]) == 3 * SECOND_NS
        joined.turn(START_NS + 1_200 * SECOND_NS)
        assert int(joined.offsets_ns()[at]) == 8 * SECOND_NS


def test_after_a_pause_those_who_were_heard_before_it_have_the_benefit_of_it() -> None:
    devices = some()
    minute_ns = 60 * SECOND_NS
    devices.hear([heard("dead")], START_NS)
    devices.hear([heard("a"), heard("b")], START_NS + 8 * minute_ns)
    devices.hear([heard("a")], START_NS + 20 * minute_ns)
    found = devices.heard_ns(5 * minute_ns)
    ages = {name: int(found[index_of(devices, name)] - START_NS) // minute_ns for name in "ab"}
    assert ages == {"a": 20, "b": 20}
    assert int(found[index_of(devices, "dead")]) == START_NS


def test_a_device_is_dismissed_by_its_name() -> None:
    devices = some()
    devices.hear([heard("a")], START_NS)
    assert devices.dismiss("a", START_NS + 5)
    assert not devices.dismiss("b", START_NS + 5)
    assert int(devices.dismissed_ns[index_of(devices, "a")]) == START_NS + 5


def test_the_view_shows_what_each_device_runs() -> None:
    measure = Measure(PLAN, MeasureSettings())
    about = {"device.id": "a", "edgeai.model.version": "2.1"}
    own = {"edgeai.model.name": "damage-net", "edgeai.accelerator.type": "npu"}
    body = request([span(1, attributes=own)], about)
    measure.observe(batch(PLAN, payload(body)))
    measure.devices.hear([heard("b", START_NS - 5)], START_NS)
    view = measure.snapshot().devices
    assert view.names == (OTHER, "a", "b")
    ran = [view.newest.of(at) for at in range(3)]
    assert ran == [("", "", ""), ("damage-net", "2.1", "npu"), ("", "", "")]
    assert view.last_inference_ns.tolist() == [0, START_NS, 0]
    assert view.jitter_ns.tolist() == [NO_DELAY, 0, 0]


def test_a_batch_without_spans_changes_nothing() -> None:
    devices, empty = some(), batch(PLAN)
    before = devices.state()
    runs = devices.find(empty)
    none = np.zeros(0, dtype=np.int64)
    devices.add(empty, runs, none, none)
    devices.infer(empty, runs, none, none, ())
    devices.hear([], START_NS)
    assert len(runs.start) == len(runs.count) == len(runs.device) == 0
    after = devices.state()
    assert all(np.array_equal(array, after[name]) for name, array in before.items())
