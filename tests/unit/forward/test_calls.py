"""A call is one row: it ends once, is counted once, and is there after a restart."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import AnomalyId
from gateway.forward import calls
from gateway.forward.calls import CALLS_MAX, Call, CallBook, CallState, load, prepare, write
from tests.unit.forward.anomalies import NOW_NS

ENDS = (CallState.DELIVERED, CallState.REFUSED, CallState.EXPIRED)


def call(name: str = "a1", hook: str = "h1", number: int = 0) -> Call:
    """Make a call that waits."""
    return Call(
        hook=hook,
        anomaly_id=AnomalyId(name),
        endpoint="https://train.example",
        created_ns=NOW_NS + number,
        changed_ns=NOW_NS + number,
        body='{"type":"weir.drift"}',
    )


def ended(one: Call, state: CallState, attempts: int = 1) -> Call:
    """End a call."""
    return replace(one, state=state, attempts=attempts, changed_ns=NOW_NS + 9, body="")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """Open a database in memory."""
    opened = sqlite3.connect(":memory:", isolation_level=None)
    prepare(opened)
    yield opened
    opened.close()


@given(
    tries=st.integers(0, 4),
    end=st.sampled_from([None, *ENDS]),
    order=st.lists(st.integers(0, 5), min_size=1, max_size=12),
)
def test_whatever_the_order_of_changes_the_newest_one_stays(
    tries: int, end: CallState | None, order: list[int]
) -> None:
    """The database keeps the furthest state that it was ever told, and counts an end once."""
    versions = [replace(call(), attempts=n, changed_ns=NOW_NS + n) for n in range(tries + 1)]
    if end is not None:
        versions.append(ended(call(), end, tries + 1))
    told = [min(each, len(versions) - 1) for each in order]
    connection = sqlite3.connect(":memory:", isolation_level=None)
    prepare(connection)
    for each in told:
        write(connection, [versions[each]])
    book = load(connection)
    connection.close()
    assert list(book.calls.values()) == [versions[max(told)]]
    counted = 1 if versions[max(told)].state is not CallState.WAITING else 0
    assert book.totals.total() == counted


def test_calls_are_there_after_a_restart_and_totals_go_on(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    first = [call("a1"), call("a2", number=1), call("a1", "h2", number=2)]
    with sqlite3.connect(path, isolation_level=None) as connection:
        prepare(connection)
        write(connection, first)
        write(connection, [ended(first[0], CallState.DELIVERED)])
    connection.close()
    with sqlite3.connect(path, isolation_level=None) as connection:
        prepare(connection)
        book = load(connection)
        assert [each.key for each in book.calls.values()] == [each.key for each in first]
        assert book.calls[first[0].key] == ended(first[0], CallState.DELIVERED)
        assert book.waiting() == first[1:]
        assert book.waiting("h2") == first[2:]
        assert [each.hook for each in book.of(AnomalyId("a1"))] == ["h1", "h2"]
        write(connection, [ended(first[1], CallState.DELIVERED)])
        assert load(connection).totals == {CallState.DELIVERED: 2}
    connection.close()


def test_a_row_that_is_forgotten_is_deleted_and_stays_counted(
    connection: sqlite3.Connection,
) -> None:
    write(connection, [ended(call(), CallState.REFUSED)])
    write(connection, [], [call().key])
    book = load(connection)
    assert (book.calls, book.totals) == ({}, {CallState.REFUSED: 1})


def test_what_is_over_is_forgotten_first_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "CALLS_MAX", 4)
    assert CALLS_MAX > 4
    book = CallBook()
    book.open.add(AnomalyId("open"))
    for number, name in enumerate(["waits", "open", "over1", "over2"]):
        book.add(call(name, number=number))
        book.unsaved.clear()
        if name != "waits":
            book.change(ended(call(name, number=number), CallState.DELIVERED))
    book.add(call("new1", number=5))
    book.forget()
    assert [name for _, name in book.calls] == ["waits", "open", "over2", "new1"]
    book.add(call("new2", number=6))
    book.forget()
    assert list(book.forgotten) == [("h1", "over1"), ("h1", "over2")]
    book.add(call("new3", number=7))
    book.forget()
    assert [name for _, name in book.calls] == ["waits", "open", "new1", "new2", "new3"]
    assert book.totals == {CallState.DELIVERED: 3}


def test_of_open_anomalies_only_what_was_never_made_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls, "CALLS_MAX", 2)
    monkeypatch.setattr(calls, "ALL_CALLS_MAX", 3)
    book = CallBook()
    for number, name in enumerate(["made", "refused", "full1", "full2", "unsaved"]):
        one = call(name, number=number)
        book.open.add(one.anomaly_id)
        assert book.has_room("h1") is (number < 3)
        if number > 1:
            book.add(ended(one, CallState.EXPIRED, 0))
        else:
            book.add(one)
            book.change(ended(one, CallState(ENDS[number])))
        if name != "unsaved":
            book.unsaved.clear()
    book.forget()
    assert [name for _, name in book.calls] == ["made", "refused", "unsaved"]
    assert list(book.forgotten) == [("h1", "full1"), ("h1", "full2")]
    # What is entered again is not deleted.
    book.add(call("full1"))
    assert list(book.forgotten) == [("h1", "full2")]
    assert book.totals == {CallState.DELIVERED: 1, CallState.REFUSED: 1, CallState.EXPIRED: 3}


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc"), st.booleans()), max_size=40))
def test_what_waits_for_each_hook_is_what_the_calls_say(
    steps: list[tuple[int, str, bool]],
) -> None:
    book = CallBook()
    for number, hook, ends in steps:
        one = call(f"a{number}", hook)
        held = book.calls.get(one.key)
        if held is None:
            book.add(ended(one, CallState.EXPIRED) if ends else one)
        elif held.state is CallState.WAITING:
            attempt = replace(held, attempts=held.attempts + 1)
            book.change(ended(attempt, CallState.DELIVERED) if ends else attempt)
        for each in "abc":
            waits = [call for call in book.waiting() if call.hook == each]
            assert book.waiting(each) == waits


def test_a_call_ends_once() -> None:
    book = CallBook()
    book.add(call())
    book.change(ended(call(), CallState.DELIVERED))
    with pytest.raises(AssertionError):
        book.change(ended(call(), CallState.EXPIRED))
    with pytest.raises(AssertionError):
        book.add(call())
