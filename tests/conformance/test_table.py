"""The golden table is whole, agrees with the code of its cases, and contradicts no rule of OTLP."""

import re
from typing import Final

import grpc
import pytest

from tests.conformance.cases import CASES
from tests.conformance.signals import SIGNALS, Via
from tests.conformance.table import PAGE, parse_map, parse_rows, rows, status_map

CASES_MIN: Final = 60
DEMANDS: Final = "abcdefghijklm"
# Source: OTLP specification, tables of the retryable codes. RESOURCE_EXHAUSTED only with a hint.
RETRYABLE_HTTP: Final = frozenset({429, 502, 503, 504})
RETRYABLE_GRPC: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

HEAD: Final = (
    "| case | rule | signals | via | server | what is sent | gRPC | HTTP | answer | kept |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)
GOOD: Final = "| one | a | T | gp | default | x | OK | 200 | empty | 1 |"


def test_each_row_has_code_and_each_code_has_a_row() -> None:
    names = [row.case for row in rows()]
    assert len(names) == len(set(names))
    assert set(names) == set(CASES)
    assert len(names) >= CASES_MIN


def test_each_demand_has_a_row() -> None:
    named = {each for row in rows() for each in re.findall(r"\b[a-z]\b", row.rule)}
    assert named == set(DEMANDS)


def test_each_signal_is_tried_over_each_transport() -> None:
    tried = {(signal, via) for row in rows() for signal in row.signals for via in row.vias}
    assert tried == {(signal, via) for signal in SIGNALS for via in Via}


def test_hint_is_promised_exactly_where_the_client_may_retry() -> None:
    for row in rows():
        if row.grpc_code is not None:
            assert row.grpc_retries == (row.grpc_code in RETRYABLE_GRPC), row
        if row.http_status is not None:
            promised = "Retry-After" in row.http_headers
            assert promised == (row.http_status in RETRYABLE_HTTP), row


def test_codes_of_both_transports_are_those_of_the_map() -> None:
    for row in rows():
        if row.answer.is_status and row.http_status is not None:
            _, code = status_map()[row.http_status]
            assert row.grpc_code in (None, code), row
        if not row.answer.is_status:
            assert row.http_status in (None, 200), row
            assert row.grpc_code in (None, grpc.StatusCode.OK), row


def test_map_has_the_numbers_of_grpc() -> None:
    for number, code in status_map().values():
        assert number == code.value[0]


def test_headers_are_promised_with_their_status() -> None:
    for row in rows():
        if row.http_status is not None:
            assert ("Allow" in row.http_headers) == (row.http_status == 405), row
            assert ("WWW-Authenticate" in row.http_headers) == (row.http_status == 401), row


def test_nothing_is_kept_of_what_is_refused() -> None:
    for row in rows():
        assert not row.answer.is_status or row.kept == 0, row
        if row.answer.rejected:
            assert row.answer.items == row.kept + row.answer.rejected, row


def test_bad_request_is_promised_with_400_only() -> None:
    for row in rows():
        codes = {row.http_status, row.grpc_code} - {None}
        assert row.answer.bad_request == (codes <= {400, grpc.StatusCode.INVALID_ARGUMENT}), row


def test_page_has_no_row_that_is_not_read() -> None:
    text = PAGE.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    tables = len(re.findall(r"^\|---", text, re.MULTILINE))
    assert len(lines) == 2 * tables + len(rows()) + len(status_map())


def test_row_is_read() -> None:
    (row,) = parse_rows(HEAD + GOOD)
    assert (row.case, row.rule, row.server, row.kept) == ("one", "a", "default", 1)
    assert (row.grpc_code, row.http_status) == (grpc.StatusCode.OK, 200)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| T |", "| TX |"),
        ("| T |", "| TT |"),
        ("| gp |", "|  |"),
        ("| default |", "| other |"),
        ("| OK |", "| FINE |"),
        ("| OK |", "| OK + Hint |"),
        ("| OK |", "| – |"),
        ("| gp |", "| p |"),
        ("| 200 |", "| – |"),
        ("| 200 |", "| 200 + X-Other |"),
        ("| empty |", "| nothing |"),
        ("| empty |", '| Status "open |'),
        ("| 1 |", "| one |"),
        ("| a |", "|  |"),
        ("| x |", "| x | y |"),
    ],
)
def test_row_that_cannot_be_understood_is_an_error(old: str, new: str) -> None:
    assert old in GOOD
    with pytest.raises(ValueError, match="line 3"):
        parse_rows(HEAD + GOOD.replace(old, new))


def test_table_with_other_columns_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown columns"):
        parse_rows("| case | rule |\n|---|---|\n| one | a |")


def test_map_is_read() -> None:
    text = "| HTTP | Status.code | gRPC |\n|---|---|---|\n| 400 | 3 | INVALID_ARGUMENT |"
    assert parse_map(text) == {400: (3, grpc.StatusCode.INVALID_ARGUMENT)}
