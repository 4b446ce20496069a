"""The byte account: never over its limit, never off by one."""

import random
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    ANSWERS,
    JournalUnavailableError,
    OverloadedError,
    PayloadTooLargeError,
    QuotaExceededError,
    RequestError,
    UnauthenticatedError,
)
from gateway.receive.admission import (
    OTHER_SOURCES,
    SMALL_BODY_BYTES,
    SOURCES_MAX,
    Admission,
    Counters,
    Hold,
    Reason,
    reason_of,
)


def admission(bytes_max: int = 100, seed: int = 1) -> Admission:
    return Admission(bytes_max=bytes_max, rng=random.Random(seed))


KIB = 1024
LARGE = SMALL_BODY_BYTES + 1


def held(account: Admission, key: str, size: int, declared: int = 0) -> Hold:
    """Let a device's body into the account."""
    hold = account.enter(key, declared)
    try:
        hold.grow(size)
    except OverloadedError:
        hold.close()
        raise
    return hold


@dataclass(frozen=True, slots=True)
class Queued:
    """A body that the core has. Units: bytes."""

    ticket: int
    size: int


def queue(hold: Hold, account: Admission) -> Queued:
    """Let the core have what a hold has."""
    size = hold.size_bytes
    return Queued(account.queue(hold), size)


def test_the_last_byte_fits_and_one_more_does_not() -> None:
    account = admission()
    held(account, "a", 60)
    last = held(account, "b", 40)
    assert "100" in account.blocked
    with pytest.raises(OverloadedError):
        held(account, "c", 1)
    assert account.held_bytes == 100
    last.close()
    held(account, "c", 40)


class Model:
    """What an account should hold, by device and class, from the steps of a test."""

    def __init__(self, bytes_max: int) -> None:
        self.account = admission(bytes_max)
        self.holds: list[Hold] = []
        self.queued: list[Queued] = []

    def check(self) -> None:
        reading = sum(hold.size_bytes for hold in self.holds)
        waiting = sum(each.size for each in self.queued)
        assert self.account.held_bytes == reading + waiting <= self.account.bytes_max
        devices = {hold.device for hold in self.holds if hold.device}
        busy = {key for key, _ in self.account.devices.held().items()}
        assert {device.key for device in devices} <= busy
        if not self.holds and not self.queued:
            assert self.account.devices.held() == {}
        assert sum(self.account.devices.held().values()) == self.account.held_bytes


STEPS = st.tuples(
    st.sampled_from(["enter", "grow", "shrink", "queue", "forsake", "release", "close"]),
    st.integers(0, 5),
    st.integers(0, 40 * KIB),
)


@given(st.lists(STEPS, max_size=80))
def test_the_account_equals_the_sum_of_what_was_taken_and_stays_within(
    steps: list[tuple[str, int, int]],
) -> None:
    model = Model(96 * KIB)
    account, holds, queued = model.account, model.holds, model.queued
    for step, which, size in steps:
        hold = holds[which % len(holds)] if holds else None
        if step == "enter":
            with suppress(OverloadedError):
                holds.append(account.enter(f"device-{which}", size))
        elif step == "release" and queued:
            batch = 1 + which % len(queued)
            account.release(sum(each.size for each in queued[:batch]))
            del queued[:batch]
        elif step == "forsake" and queued:
            account.forsake(queued.pop(which % len(queued)).ticket)
        elif hold is not None and step == "grow":
            with suppress(OverloadedError):
                hold.grow(size)
        elif hold is not None and step == "shrink":
            hold.shrink_to(min(size, hold.size_bytes))
        elif hold is not None and step == "queue" and hold.size_bytes:
            queued.append(queue(hold, account))
        elif hold is not None and step == "close":
            hold.close()
            holds.remove(hold)
        model.check()
    for hold in holds:
        hold.close()
    account.release(sum(each.size for each in queued))
    assert account.held_bytes == 0
    assert account.devices.held() == {}


def test_giving_back_more_than_was_queued_is_a_fault() -> None:
    account = admission()
    queue(held(account, "a", 5), account)
    with pytest.raises((AssertionError, KeyError)):
        account.release(6)


def test_the_reserve_is_for_small_bodies() -> None:
    account = admission(160 * KIB)
    for number in range(6):
        held(account, f"device-{number}", 25 * KIB)
    with pytest.raises(OverloadedError, match="no room"):
        held(account, "quiet", LARGE, LARGE)
    held(account, "quiet", 10 * KIB, 10 * KIB)
    assert account.held_bytes == 160 * KIB


def test_a_large_body_that_calls_itself_small_is_found_out_while_it_is_read() -> None:
    account = admission(160 * KIB)
    for number in range(6):
        held(account, f"device-{number}", 24 * KIB)
    liar = account.enter("liar", 1)
    liar.grow(SMALL_BODY_BYTES)
    with pytest.raises(OverloadedError):
        liar.grow(1)
    liar.close()
    assert account.held_bytes == 144 * KIB


def test_above_the_soft_level_the_device_that_holds_most_waits_and_others_get_in() -> None:
    account = admission(1600 * KIB)
    bodies = [held(account, "loud", 100 * KIB) for _ in range(12)]
    with pytest.raises(OverloadedError, match="much of this device"):
        held(account, "loud", 100 * KIB)
    for number in range(3):
        held(account, f"quiet-{number}", 100 * KIB)
    # Its heartbeats are another class.
    held(account, "loud", 1 * KIB)
    for body in bodies[:6]:
        body.close()
    held(account, "loud", 100 * KIB)


def test_a_body_may_grow_past_the_soft_level_when_its_device_holds_nothing_else() -> None:
    account = admission(1600 * KIB)
    body = held(account, "only", 1100 * KIB)
    body.grow(300 * KIB)
    assert account.held_bytes == 1400 * KIB


def test_devices_that_want_everything_share_equally() -> None:
    account = admission(1600 * KIB)
    size = 20 * KIB
    taken = dict.fromkeys(("a", "b", "c", "d"), 0)
    for _ in range(100):
        for key in taken:
            with suppress(OverloadedError):
                held(account, key, size)
                taken[key] += 1
    assert max(taken.values()) - min(taken.values()) <= 1
    assert 1200 * KIB < account.held_bytes <= 1500 * KIB


def test_draining_refuses_new_bodies_and_finishes_those_under_way() -> None:
    account = admission()
    hold = Hold(account)
    hold.grow(10)
    account.drain()
    assert account.blocked == "the gateway is shutting down"
    with pytest.raises(OverloadedError, match="shutting down"):
        account.check()
    hold.grow(10)
    hold.close()
    assert account.held_bytes == 0


def test_a_pause_refuses_with_its_reason_until_resumed() -> None:
    account = admission()
    account.pause("the disk is full")
    with pytest.raises(OverloadedError, match="the disk is full"):
        account.enter("a", 1)
    account.resume()
    account.enter("a", 1).close()
    assert account.blocked == ""


def test_what_a_hold_hands_over_stays_in_the_account() -> None:
    account = admission()
    hold = account.enter("a")
    hold.grow(50)
    hold.shrink_to(30)
    queued = queue(hold, account)
    hold.close()
    assert account.held_bytes == queued.size == 30
    account.release(queued.size)
    assert account.held_bytes == 0


def test_delays_are_spread_over_one_to_four_seconds_and_follow_the_seed() -> None:
    error = OverloadedError("full")
    first, second = admission(seed=3), admission(seed=3)
    delays = [first.delay_s(error) for _ in range(200)]
    assert delays == [second.delay_s(error) for _ in range(200)]
    numbers = [delay for delay in delays if delay is not None]
    assert len(numbers) == 200
    assert 1.0 <= min(numbers) < 1.5
    assert 3.5 < max(numbers) <= 4.0


def test_a_longer_delay_that_the_error_asks_for_is_kept() -> None:
    assert admission().delay_s(JournalUnavailableError("disk", 9.0)) == 9.0


def test_a_delay_of_a_quota_is_jittered_above_what_the_bucket_needs() -> None:
    account = admission()
    delays = [account.delay_s(QuotaExceededError("yours", 2.5)) for _ in range(100)]
    numbers = [delay for delay in delays if delay is not None]
    assert 2.5 <= min(numbers) < 3.0
    assert 3.5 < max(numbers) <= 4.0


def test_a_permanent_error_has_no_delay() -> None:
    assert admission().delay_s(PayloadTooLargeError("big")) is None


def test_every_answer_to_a_client_of_the_intake_has_its_own_reason() -> None:
    kinds = [kind for kind in ANSWERS if issubclass(kind, RequestError)]
    reasons = {reason_of(kind("text")) for kind in kinds}
    assert len(reasons) == len(kinds)
    assert Reason.UNEXPECTED not in reasons


def test_sources_of_failed_authentication_are_bounded_and_none_is_lost() -> None:
    counters = Counters()
    for i in range(SOURCES_MAX + 50):
        counters.refuse(UnauthenticatedError("who"), "traces", f"10.0.{i // 256}.{i % 256}")
    assert len(counters.unauthenticated_sources) == SOURCES_MAX + 1
    assert counters.unauthenticated_sources[OTHER_SOURCES] == 50
    assert counters.refused["traces", Reason.UNAUTHENTICATED] == SOURCES_MAX + 50
