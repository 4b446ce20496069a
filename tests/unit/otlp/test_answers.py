"""Answers of the other side: hints are bounded, and a foreign text is one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.otlp.answers import (
    RETRY_AFTER_S_MAX,
    TEXT_CHARS_MAX,
    maybe_retry_after_s,
    partial_success,
    plain,
    status_text,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        (" 120 ", 120.0),
        ("99999999999999999999", RETRY_AFTER_S_MAX),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:16:30 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:16:50", 10.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("Mon, 20 Nov 99999999999 00:00:00 GMT", None),
        ("Mon, 20 Nov 2026 00:00:00 +999999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", RETRY_AFTER_S_MAX),
        ("²", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, expected: float | None) -> None:
    assert maybe_retry_after_s(text, 1000.0) == expected


@given(st.text(max_size=40))
def test_no_retry_after_raises(text: str) -> None:
    value = maybe_retry_after_s(text, 0.0)
    assert value is None or 0.0 <= value <= RETRY_AFTER_S_MAX


@given(st.binary(max_size=60))
def test_no_body_raises(body: bytes) -> None:
    rejected, message = partial_success(body)
    assert rejected >= 0
    for text in (message, status_text(body)):
        assert text.isprintable()
        assert len(text) <= TEXT_CHARS_MAX


def test_a_foreign_text_is_one_line() -> None:
    assert plain("no\nroom\x1b[31m\t") == "no room [31m"
