"""Quotas of devices: never more than rate and burst, never less for who stays within."""

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import DeviceSection
from gateway.errors import OverloadedError, QuotaExceededError
from gateway.receive.admission import Admission
from gateway.receive.quota import Devices

KIB = 1024


class Clock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def ask(devices: Devices, key: str, size: int = 0) -> float | None:
    """Make a whole request; return the hint of a refusal."""
    try:
        device = devices.check(key, size)
    except QuotaExceededError as error:
        return error.retry_after_s
    devices.enter(device, size)
    devices.leave(device)
    return None


def test_without_limits_nothing_is_refused() -> None:
    devices = Devices(DeviceSection(), Clock())
    assert {ask(devices, "a", 1 << 40) for _ in range(10_000)} == {None}


def test_requests_pass_at_their_rate_after_one_burst() -> None:
    clock = Clock()
    devices = Devices(DeviceSection(requests_per_second=5, burst=2.0), clock)
    assert [ask(devices, "a") for _ in range(10)] == [None] * 10
    assert ask(devices, "a") == 1.0
    assert ask(devices, "b") is None
    clock.now_s += 0.2
    assert ask(devices, "a") is None
    assert ask(devices, "a") is not None


def test_the_hint_is_when_the_bucket_will_have_enough() -> None:
    clock = Clock()
    devices = Devices(DeviceSection(bytes_per_second=KIB, burst=4.0), clock)
    assert ask(devices, "a", 4 * KIB) is None
    assert ask(devices, "a", 3 * KIB) == 3.0
    clock.now_s += 3.0
    assert ask(devices, "a", 3 * KIB) is None
    assert ask(devices, "a", 400 * KIB) == 4.0


def test_a_body_larger_than_a_burst_passes_when_the_bucket_is_full_and_is_paid() -> None:
    clock = Clock()
    devices = Devices(DeviceSection(bytes_per_second=KIB, burst=2.0), clock)
    assert ask(devices, "a", 100 * KIB) is None
    clock.now_s += 97.0
    assert ask(devices, "a", 1) is not None
    clock.now_s += 2.0
    assert ask(devices, "a", 1) is None


@given(
    st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, 20_000)), min_size=1, max_size=200),
    st.integers(100, 10_000),
    st.floats(1.0, 20.0),
)
def test_over_any_time_a_device_gets_at_most_its_rate_one_burst_and_one_body(
    steps: list[tuple[float, int]], rate: int, burst_s: float
) -> None:
    clock = Clock()
    devices = Devices(DeviceSection(bytes_per_second=rate, burst=burst_s), clock)
    begin_s, taken, largest = clock.now_s, 0, 0
    for pause_s, size in steps:
        clock.now_s += pause_s
        if ask(devices, "a", size) is None:
            taken += size
            largest = max(largest, size)
        allowed = rate * (burst_s + clock.now_s - begin_s) + largest
        assert taken <= allowed + 1e-6


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 5)), max_size=200))
def test_who_stays_within_the_rate_is_never_refused(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    devices = Devices(DeviceSection(bytes_per_second=KIB, burst=1.0), clock)
    for extra_s, size in steps:
        assert ask(devices, "a", size) is None
        clock.now_s += size / KIB + extra_s


def test_bodies_at_once_are_limited() -> None:
    devices = Devices(DeviceSection(bodies_max=2), Clock())
    held = []
    for _ in range(2):
        held.append(devices.check("a"))
        devices.enter(held[-1], 0)
    with pytest.raises(QuotaExceededError, match="limit of 2 bodies"):
        devices.check("a")
    assert ask(devices, "b") is None
    devices.leave(held[0])
    assert ask(devices, "a") is None


def test_the_least_recently_seen_device_goes_and_one_in_use_stays() -> None:
    clock = Clock()
    devices = Devices(DeviceSection(requests_per_second=1, burst=1.0), clock, devices_max=3)
    busy = devices.check("busy")
    devices.enter(busy, 0)
    for key in ("a", "b", "a", "c"):
        ask(devices, key)
    assert len(devices) == 3
    assert ask(devices, "a") is not None, "it is known, and owes"
    for number in range(100):
        ask(devices, f"other-{number}")
    assert len(devices) == 3
    with pytest.raises(QuotaExceededError):
        devices.check("busy")
    devices.leave(busy)


def test_a_table_full_of_devices_in_use_asks_to_come_back() -> None:
    devices = Devices(DeviceSection(), Clock(), devices_max=2)
    for key in ("a", "b"):
        devices.enter(devices.check(key), 0)
    with pytest.raises(OverloadedError, match="2 devices"):
        devices.check("c")


def test_other_limits_count_from_the_next_request_on() -> None:
    clock = Clock()
    devices = Devices(DeviceSection(), clock)
    for _ in range(1_000):
        ask(devices, "a", 10 * KIB)
    devices.use(DeviceSection(requests_per_second=1, bytes_per_second=KIB, burst=2.0))
    clock.now_s += 2.0
    assert ask(devices, "a", KIB) is None
    devices.use(DeviceSection())
    assert ask(devices, "a", 1 << 30) is None


def simulate(seed: int, loud: int) -> tuple[dict[str, int], dict[str, int]]:
    """Offer ten times what the core does: one loud device and nine quiet ones.

    Returns requests that were offered and refused, by device. Time goes in steps; the core takes
    `served` bytes of each, in the order of arrival, and a refused request is lost at once.
    """
    rng = random.Random(seed)
    account = Admission(bytes_max=4096 * KIB, rng=rng)
    served = 200 * KIB
    size = 20 * KIB
    offered: dict[str, int] = {}
    refused: dict[str, int] = {}
    queued: deque[int] = deque()  # bytes
    quiet = [f"quiet-{number}" for number in range(9)]
    for _ in range(1_000):
        # Nine quiet devices at a fifth of what the core does, the loud one at `loud` times it.
        senders = [key for key in quiet if rng.random() < 0.2] + ["loud"] * (10 * loud)
        rng.shuffle(senders)
        for key in senders:
            offered[key] = offered.get(key, 0) + 1
            try:
                with account.enter(key, size) as hold:
                    hold.grow(size)
                    account.queue(hold)
                    queued.append(size)
            except OverloadedError:
                refused[key] = refused.get(key, 0) + 1
        done = 0
        while queued and done + queued[0] <= served:
            done += queued.popleft()
        account.release(done)
    return offered, refused


def test_one_loud_device_at_ten_times_the_load_takes_nothing_from_nine_quiet_ones(
    seed: int,
) -> None:
    offered, refused = simulate(seed, loud=10)
    assert len(offered) == 10
    assert {key for key, count in refused.items() if count} == {"loud"}
    assert refused["loud"] > offered["loud"] // 2
