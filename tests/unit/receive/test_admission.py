"""The byte account: never over its limit, never off by one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    ANSWERS,
    JournalUnavailableError,
    OverloadedError,
    PayloadTooLargeError,
    RequestError,
    UnauthenticatedError,
)
from gateway.receive.admission import (
    OTHER_SOURCES,
    SOURCES_MAX,
    Admission,
    Counters,
    Hold,
    Reason,
    reason_of,
)


def admission(bytes_max: int = 100, seed: int = 1) -> Admission:
    return Admission(bytes_max=bytes_max, rng=random.Random(seed))


def test_the_last_byte_fits_and_one_more_does_not() -> None:
    account = admission()
    account.reserve(60)
    account.reserve(40)
    assert "100" in account.blocked
    with pytest.raises(OverloadedError):
        account.reserve(1)
    assert account.held_bytes == 100
    account.release(40)
    account.reserve(40)


@given(
    st.lists(
        st.tuples(st.sampled_from(["reserve", "grow", "release"]), st.integers(0, 150)),
        max_size=50,
    )
)
def test_the_account_equals_the_sum_of_what_was_taken_and_stays_within(
    steps: list[tuple[str, int]],
) -> None:
    account = admission()
    taken: list[int] = []
    for step, size in steps:
        if step == "release":
            if taken:
                account.release(taken.pop())
            continue
        try:
            getattr(account, step)(size)
        except OverloadedError:
            assert sum(taken) + size > 100
        else:
            taken.append(size)
        assert account.held_bytes == sum(taken) <= 100


def test_giving_back_more_than_was_taken_is_a_fault() -> None:
    account = admission()
    account.reserve(5)
    with pytest.raises(AssertionError):
        account.release(6)


def test_draining_refuses_new_bodies_and_finishes_those_under_way() -> None:
    account = admission()
    hold = Hold(account)
    hold.grow(10)
    account.drain()
    assert account.blocked == "the gateway is shutting down"
    with pytest.raises(OverloadedError, match="shutting down"):
        account.check(0)
    hold.grow(10)
    hold.close()
    assert account.held_bytes == 0


def test_a_pause_refuses_with_its_reason_until_resumed() -> None:
    account = admission()
    account.pause("the disk is full")
    with pytest.raises(OverloadedError, match="the disk is full"):
        account.reserve(1)
    account.resume()
    account.reserve(1)
    assert account.blocked == ""


def test_what_a_hold_hands_over_stays_in_the_account() -> None:
    account = admission()
    hold = Hold(account)
    hold.grow(50)
    hold.shrink_to(30)
    hold.hand_over()
    hold.close()
    assert account.held_bytes == 30


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
