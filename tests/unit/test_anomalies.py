"""The book of anomalies: each is entered once, ends once, and outlives the process."""

import sqlite3
from dataclasses import replace

import pytest

from gateway import anomalies
from gateway.anomalies import ANOMALIES_MAX, AnomalyBook, Entry
from gateway.batch import Anomaly, AnomalyId, AnomalyKind, DiveId, Evidence, Severity
from gateway.errors import ConflictError, NotFoundError

SECOND_NS = 1_000_000_000


def anomaly(number: int = 1, *, resolved_ns: int | None = None) -> Anomaly:
    return Anomaly(
        id=AnomalyId(f"a{number}"),
        kind=AnomalyKind.DRIFT,
        severity=Severity.PAGE,
        owner="vision@example.com",
        model="damage-net",
        version="3",
        subject="brightness",
        summary="brightness has drifted",
        onset_ns=number * SECOND_NS,
        raised_ns=(number + 1) * SECOND_NS,
        numbers={"psi": 0.25},
        evidence=(Evidence(trace_id="ab" * 16, device="cam-1", reason="far off"),),
        resolved_ns=resolved_ns,
    )


def test_anomaly_that_a_replay_raises_again_changes_nothing() -> None:
    book = AnomalyBook()
    changed, new = book.take([anomaly()])
    assert changed == new == [Entry(anomaly=anomaly())]
    assert book.take([anomaly()]) == ([], [])
    assert book.get(AnomalyId("a1")).state == "firing"


def test_end_is_noted_once_and_is_no_new_anomaly() -> None:
    book = AnomalyBook()
    book.take([anomaly()])
    ended = anomaly(resolved_ns=9 * SECOND_NS)
    changed, new = book.take([ended])
    assert [each.anomaly.resolved_ns for each in changed] == [9 * SECOND_NS]
    assert new == []
    assert book.take([ended]) == ([], [])
    assert book.get(AnomalyId("a1")).state == "resolved"
    assert book.unresolved() == []


def test_replay_of_an_episode_ends_as_it_ended() -> None:
    book = AnomalyBook()
    ended = anomaly(resolved_ns=9 * SECOND_NS)
    book.take([anomaly(), ended])
    _, new = book.take([anomaly(), ended])
    assert new == []
    assert book.get(AnomalyId("a1")).anomaly.resolved_ns == 9 * SECOND_NS


def test_end_keeps_who_looks_after_it_and_its_dives() -> None:
    book = AnomalyBook()
    book.take([anomaly()])
    book.acknowledge(AnomalyId("a1"), "ann", 5)
    book.link(AnomalyId("a1"), DiveId("d1"))
    book.take([anomaly(resolved_ns=9 * SECOND_NS)])
    entry = book.get(AnomalyId("a1"))
    assert (entry.acknowledged_by, entry.dives, entry.state) == ("ann", ("d1",), "resolved")


def test_what_is_open_only_in_the_book_is_ended_after_a_crash() -> None:
    book = AnomalyBook()
    book.take([anomaly(1), anomaly(2)])
    ended = book.reconcile({anomaly(2).id}, 99)
    book.take(ended)
    assert [each.id for each in book.unresolved()] == [anomaly(2).id]
    assert book.get(anomaly(1).id).anomaly.resolved_ns == 99
    changed, new = book.take([anomaly(1)])
    assert [each.anomaly.id for each in changed] == [anomaly(1).id]
    assert not new, "it is the same anomaly, and has its dive"
    assert len(book.unresolved()) == 2


def test_first_acknowledgement_counts() -> None:
    book = AnomalyBook()
    book.take([anomaly()])
    assert book.acknowledge(AnomalyId("a1"), "ann", 5).state == "acknowledged"
    entry = book.acknowledge(AnomalyId("a1"), "bob", 6)
    assert (entry.acknowledged_by, entry.acknowledged_ns) == ("ann", 5)
    assert book.unresolved() == [anomaly()], "acknowledged is not resolved"


def test_unknown_or_resolved_anomaly_cannot_be_acknowledged() -> None:
    book = AnomalyBook()
    with pytest.raises(NotFoundError, match="a1"):
        book.acknowledge(AnomalyId("a1"), "ann", 5)
    book.take([anomaly(resolved_ns=9)])
    with pytest.raises(ConflictError, match="a1"):
        book.acknowledge(AnomalyId("a1"), "ann", 5)


def test_dive_is_linked_once() -> None:
    book = AnomalyBook()
    assert book.link(AnomalyId("a1"), DiveId("d1")) is None
    book.take([anomaly()])
    for dive in ("d1", "d2", "d1"):
        book.link(AnomalyId("a1"), DiveId(dive))
    assert book.get(AnomalyId("a1")).dives == ("d1", "d2")


def test_newest_come_first_and_can_be_chosen_by_state() -> None:
    book = AnomalyBook()
    book.take([anomaly(2), anomaly(1), anomaly(3, resolved_ns=9)])
    book.acknowledge(AnomalyId("a1"), "ann", 5)
    assert [each.anomaly.id for each in book.newest()] == ["a3", "a2", "a1"]
    for state, ids in (("firing", ["a2"]), ("acknowledged", ["a1"]), ("resolved", ["a3"])):
        assert [each.anomaly.id for each in book.newest(state)] == ids


def test_oldest_resolved_ones_are_forgotten_and_open_ones_never() -> None:
    book = AnomalyBook()
    book.take(anomaly(number, resolved_ns=9) for number in range(10))
    book.take(anomaly(number) for number in range(10, ANOMALIES_MAX + 5))
    assert len(book.entries) == ANOMALIES_MAX
    assert [f"a{number}" in book.entries for number in range(10)] == [False] * 5 + [True] * 5
    book.take(anomaly(number) for number in range(ANOMALIES_MAX + 5, ANOMALIES_MAX + 50))
    assert len(book.entries) == len(book.unresolved()) > ANOMALIES_MAX


@pytest.fixture
def connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    anomalies.prepare(connection)
    return connection


def test_book_comes_back_as_it_was(connection: sqlite3.Connection) -> None:
    book = AnomalyBook()
    book.take([anomaly(3), anomaly(1), anomaly(2, resolved_ns=9)])
    book.acknowledge(AnomalyId("a1"), "ann", 5)
    book.link(AnomalyId("a3"), DiveId("d1"))
    anomalies.write(connection, list(book.entries.values()))
    again = anomalies.load(connection)
    assert again.entries == book.entries
    assert list(again.entries) == ["a1", "a2", "a3"], "oldest first"
    entry = again.get(AnomalyId("a1"))
    assert isinstance(entry.anomaly.kind, AnomalyKind)
    assert isinstance(entry.anomaly.severity, Severity)
    connection.close()


def test_later_write_replaces_the_earlier(connection: sqlite3.Connection) -> None:
    first = Entry(anomaly=anomaly())
    anomalies.write(connection, [first])
    anomalies.write(connection, [replace(first, acknowledged_by="ann", acknowledged_ns=5)])
    assert anomalies.load(connection).get(AnomalyId("a1")).acknowledged_by == "ann"
    connection.close()


def test_table_is_bounded_and_loses_the_oldest(connection: sqlite3.Connection) -> None:
    count = 2 * ANOMALIES_MAX + 3
    anomalies.write(connection, [Entry(anomaly=anomaly(number)) for number in range(count)])
    loaded = anomalies.load(connection).entries
    assert len(loaded) == 2 * ANOMALIES_MAX
    assert "a2" not in loaded
    assert "a3" in loaded
    connection.close()


def test_preparing_twice_keeps_the_rows(connection: sqlite3.Connection) -> None:
    anomalies.write(connection, [Entry(anomaly=anomaly())])
    anomalies.prepare(connection)
    assert len(anomalies.load(connection).entries) == 1
    connection.close()
