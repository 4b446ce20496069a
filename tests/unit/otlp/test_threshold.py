"""Thresholds: golden texts, round trips, malformed states."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.otlp.threshold import (
    RANGE,
    decode,
    encode,
    parse,
    probability_of,
    rounded,
    threshold_of,
)
from gateway.tables import NO_RANDOMNESS, NO_THRESHOLD


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        (0, "0"),
        (0x80000000000000, "8"),
        (0xC0000000000000, "c"),
        (0x01000000000000, "01"),
        (0x10000000000000, "1"),
        (0xF3333333333333, "f3333333333333"),
        (0xFD70A000000000, "fd70a"),
        (0xFFFFFFFFFFFFFF, "ffffffffffffff"),
        (0x00000000000001, "00000000000001"),
    ],
)
def test_golden_texts(threshold: int, text: str) -> None:
    assert encode(threshold) == text
    assert decode(text) == threshold


@given(st.integers(min_value=0, max_value=RANGE - 1))
def test_text_comes_back(threshold: int) -> None:
    assert decode(encode(threshold)) == threshold


@pytest.mark.parametrize(
    ("probability", "threshold"),
    [(1.0, 0), (0.5, 1 << 55), (0.25, 3 << 54), (0.0, RANGE), (2.0**-56, RANGE - 1)],
)
def test_threshold_of_a_probability(probability: float, threshold: int) -> None:
    assert threshold_of(probability) == threshold
    assert probability_of(threshold) == probability


@pytest.mark.parametrize(
    ("probability", "digits", "text"),
    [
        (0.01, 3, "fd71"),
        (0.01, 4, "fd70b"),
        (0.05, 4, "f3334"),
        (2 / 3, 4, "5556"),
        (0.5, 4, "8"),
        (1.0, 4, "0"),
    ],
)
def test_rounded_thresholds_are_short_and_never_keep_more(
    probability: float, digits: int, text: str
) -> None:
    found = rounded(threshold_of(probability), digits)
    assert encode(found) == text
    assert probability_of(found) <= probability


@given(st.integers(min_value=0, max_value=RANGE), st.integers(min_value=1, max_value=5))
def test_rounding_changes_little(threshold: int, digits: int) -> None:
    found = rounded(threshold, digits)
    assert threshold <= found <= RANGE
    # The share that is kept changes by less than a part in 16**(digits - 1).
    assert (found - threshold) * 16 ** (digits - 1) <= RANGE - threshold


@pytest.mark.parametrize(
    ("state", "threshold", "randomness"),
    [
        (b"ot=th:8", 1 << 55, NO_RANDOMNESS),
        (b"ot=th:0", 0, NO_RANDOMNESS),
        (b"ot=rv:0123456789abcd", NO_THRESHOLD, 0x0123456789ABCD),
        (b"ot=rv:0123456789abcd;th:c", 3 << 54, 0x0123456789ABCD),
        (b"a=b, ot=x:y;th:8;z:1 ,c=d", 1 << 55, NO_RANDOMNESS),
        (b"ot=th:8,ot=th:c", 1 << 55, NO_RANDOMNESS),
        (b"not=th:8", NO_THRESHOLD, NO_RANDOMNESS),
        (b"ot=th:", NO_THRESHOLD, NO_RANDOMNESS),
        (b"ot=th:F", NO_THRESHOLD, NO_RANDOMNESS),
        (b"ot=th:0x8", NO_THRESHOLD, NO_RANDOMNESS),
        (b"ot=th:123456789abcdef", NO_THRESHOLD, NO_RANDOMNESS),
        (b"ot=rv:123", NO_THRESHOLD, NO_RANDOMNESS),
        (b"ot=rv:0123456789ABCD", NO_THRESHOLD, NO_RANDOMNESS),
        (b"\xff,=,ot", NO_THRESHOLD, NO_RANDOMNESS),
        (b"", NO_THRESHOLD, NO_RANDOMNESS),
    ],
)
def test_states_are_read_and_what_is_malformed_is_absent(
    state: bytes, threshold: int, randomness: int
) -> None:
    found = parse(state)
    assert (found.threshold, found.randomness) == (threshold, randomness)


@given(st.binary(max_size=300))
def test_no_state_raises(state: bytes) -> None:
    found = parse(state)
    assert found.threshold < RANGE or found.threshold == NO_THRESHOLD
    assert found.randomness < RANGE or found.randomness == NO_RANDOMNESS
