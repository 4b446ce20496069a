"""No item is lost or counted twice in the outbox."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Frame, Signal
from gateway.forward import outbox as outbox_module
from gateway.forward.outbox import Counts, Outbox, Settlement
from gateway.journal.checkpoint import Checkpoint


def frame(items: int = 10, size: int = 100, fill: bytes = b"z") -> Frame:
    return Frame(
        signal=Signal.TRACES,
        items=items,
        body=fill * size,
        raw_bytes=size * 4,
        first_sequence=1,
        last_sequence=2,
    )


def memory(box: Outbox) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    box.prepare(connection)
    return connection


@pytest.fixture
def box() -> Outbox:
    return Outbox(["cloud", "lake"], now_ns=lambda: 77)


@pytest.fixture
def connection(box: Outbox) -> Iterator[sqlite3.Connection]:
    connection = memory(box)
    yield connection
    connection.close()


def totals(box: Outbox, connection: sqlite3.Connection, name: str) -> Counts:
    return box.counts(connection)[name][Signal.TRACES]


def test_a_destination_has_counts_before_its_first_frame(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    nothing = dict.fromkeys(Signal, Counts())
    assert box.counts(connection) == {"cloud": nothing, "lake": nothing}


def test_each_destination_gets_every_frame_oldest_first(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(1, fill=b"a"), frame(2, fill=b"b")])
    box.add(connection, [frame(3, fill=b"c")])
    for name in box.destinations:
        pending = box.next(connection, name, 1 << 20)
        assert [p.items for p in pending] == [1, 2, 3]
        assert [p.body[:1] for p in pending] == [b"a", b"b", b"c"]
        assert pending[0].raw_bytes == 400
    assert connection.execute("SELECT count(*) FROM outbox_body").fetchone() == (3,)


def test_a_fetch_is_limited_in_bytes_but_never_empty(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(size=100), frame(size=100), frame(size=100)])
    assert len(box.next(connection, "cloud", 250)) == 2
    assert len(box.next(connection, "cloud", 1)) == 1
    assert box.next(connection, "nobody", 1) == []


def test_a_body_is_deleted_when_the_last_destination_took_it(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(10)])
    [pending] = box.next(connection, "cloud", 1)
    box.delivered(connection, "cloud", [pending.id])
    assert box.bytes_stored(connection) == 100
    assert totals(box, connection, "cloud") == Counts(forwarded_items=10)
    assert totals(box, connection, "lake") == Counts(pending_items=10)
    box.delivered(connection, "lake", [pending.id])
    assert box.bytes_stored(connection) == 0
    assert connection.execute("SELECT count(*) FROM outbox_body").fetchone() == (0,)


def test_the_same_answer_told_twice_counts_once(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(10)])
    [pending] = box.next(connection, "cloud", 1)
    for _ in range(2):
        box.delivered(connection, "cloud", [pending.id])
        box.dead(connection, "cloud", pending.id, "late")
    assert totals(box, connection, "cloud") == Counts(forwarded_items=10)


def test_rejected_items_are_dead_and_the_rest_forwarded(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(10)])
    [pending] = box.next(connection, "cloud", 1)
    box.delivered(connection, "cloud", [pending.id], {pending.id: (3, "bad attribute")})
    assert totals(box, connection, "cloud") == Counts(forwarded_items=7, dead_items=3)
    [letter] = box.dead_letters(connection)
    assert (letter.items, letter.reason, letter.body_bytes, letter.time_ns) == (
        3,
        "bad attribute",
        0,
        77,
    )
    assert not box.replay(connection, letter.id)


def test_a_dead_letter_keeps_its_body_until_it_is_dropped_or_replayed(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(4), frame(5)])
    first, second = box.next(connection, "cloud", 1 << 20)
    box.dead(connection, "cloud", first.id, "HTTP 400")
    box.dead(connection, "cloud", second.id, "HTTP 400")
    box.delivered(connection, "lake", [first.id, second.id])
    newest, oldest = box.dead_letters(connection, destination="cloud")
    assert (newest.items, oldest.items, oldest.body_bytes) == (5, 4, 100)
    assert box.dead_letters(connection, destination="lake") == []
    assert box.replay(connection, oldest.id)
    assert not box.replay(connection, oldest.id)
    assert [p.body for p in box.next(connection, "cloud", 1)] == [first.body]
    assert totals(box, connection, "cloud") == Counts(pending_items=4, dead_items=5)
    assert box.drop(connection, newest.id)
    assert not box.drop(connection, newest.id)
    assert totals(box, connection, "cloud") == Counts(pending_items=4, dead_items=5)
    assert box.bytes_stored(connection) == 100


def test_dead_letters_are_capped_oldest_first(
    box: Outbox, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "DEAD_ROWS_MAX", 3)
    monkeypatch.setattr(outbox_module, "DEAD_BYTES_MAX", 250)
    box.add(connection, [frame(n) for n in range(1, 6)])
    for pending in box.next(connection, "cloud", 1 << 20):
        box.dead(connection, "cloud", pending.id, "no")
    assert [letter.items for letter in box.dead_letters(connection)] == [5, 4]
    assert totals(box, connection, "cloud") == Counts(dead_items=15)


def test_past_its_limit_the_outbox_gives_the_oldest_up_and_counts_them() -> None:
    box = Outbox(["cloud", "lake"], bytes_max=350)
    connection = memory(box)
    box.add(connection, [frame(1), frame(2), frame(3)])
    box.delivered(connection, "lake", [1, 2])
    box.add(connection, [frame(4), frame(5)])
    assert [p.items for p in box.next(connection, "cloud", 1 << 20)] == [3, 4, 5]
    assert totals(box, connection, "cloud") == Counts(pending_items=12, dead_items=3)
    assert totals(box, connection, "lake") == Counts(pending_items=12, forwarded_items=3)
    assert {letter.reason for letter in box.dead_letters(connection)} == {"outbox full"}
    connection.close()


def test_a_new_destination_starts_with_what_it_can_never_get_as_dead() -> None:
    connection = memory(Outbox(["old"]))
    Outbox(["old"]).add(connection, [frame(6)])
    box = Outbox(["old", "new"])
    box.prepare(connection)
    assert totals(box, connection, "new") == Counts(dead_items=6)
    box.add(connection, [frame(4)])
    assert totals(box, connection, "new") == Counts(pending_items=4, dead_items=6)
    assert totals(box, connection, "old") == Counts(pending_items=10)
    box.prepare(connection)
    assert totals(box, connection, "new") == Counts(pending_items=4, dead_items=6)
    connection.close()


def test_frames_of_a_destination_that_left_the_configuration_are_given_up() -> None:
    connection = memory(Outbox(["old", "kept"]))
    Outbox(["old", "kept"]).add(connection, [frame(6)])
    box = Outbox(["kept"])
    box.prepare(connection)
    box.prepare(connection)
    assert totals(box, connection, "old") == Counts(dead_items=6)
    assert totals(box, connection, "kept") == Counts(pending_items=6)
    [letter] = box.dead_letters(connection)
    assert (letter.reason, letter.destination) == ("destination removed", "old")
    assert not box.replay(connection, letter.id)
    connection.close()


def test_without_destinations_nothing_is_stored() -> None:
    box = Outbox([])
    connection = memory(box)
    box.add(connection, [frame()])
    assert box.bytes_stored(connection) == 0
    connection.close()


def test_a_split_frame_is_replaced_by_its_parts(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(9)])
    box.settle(connection, "cloud", Settlement(split=((1, (frame(4), frame(5))),)))
    assert [p.items for p in box.next(connection, "cloud", 1 << 20)] == [4, 5]
    assert [p.items for p in box.next(connection, "lake", 1 << 20)] == [9]
    assert totals(box, connection, "cloud") == Counts(pending_items=9)
    assert connection.execute(
        "SELECT first_sequence, last_sequence FROM outbox_body WHERE items = 4"
    ).fetchone() == (1, 2)


def test_space_comes_back_to_the_file_system(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "state.db")
    box = Outbox(["cloud"])
    with checkpoint.transaction() as connection:
        box.prepare(connection)
        box.add(connection, [frame(size=1 << 20) for _ in range(8)])
    checkpoint.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    full = (tmp_path / "state.db").stat().st_size
    assert full > 8 << 20
    with checkpoint.transaction() as connection:
        box.delivered(connection, "cloud", range(1, 9))
    box.vacuum(checkpoint.connection, pages=4096)
    checkpoint.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert (tmp_path / "state.db").stat().st_size < full // 20
    checkpoint.close()


def test_a_rolled_back_transaction_changes_no_count(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "state.db")
    box = Outbox(["cloud"])
    with checkpoint.transaction() as connection:
        box.prepare(connection)
        box.add(connection, [frame(3)])
    with pytest.raises(sqlite3.OperationalError), checkpoint.transaction() as connection:  # noqa: PT012
        box.delivered(connection, "cloud", [1])
        box.add(connection, [frame(4)])
        connection.execute("SELECT nothing FROM nowhere")
    reader = checkpoint.readonly()
    assert totals(box, reader, "cloud") == Counts(pending_items=3)
    assert [p.items for p in box.next(reader, "cloud", 1 << 20)] == [3]
    reader.close()
    checkpoint.close()


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "deliver", "reject", "die", "split", "replay", "drop"]),
        st.sampled_from(["cloud", "lake"]),
        st.integers(1, 20),
    ),
    max_size=30,
)


@given(operations=OPERATIONS)
def test_added_items_are_always_pending_or_forwarded_or_dead(
    operations: list[tuple[str, str, int]],
) -> None:
    box = Outbox(["cloud", "lake"], bytes_max=1500)
    connection = memory(box)
    added = 0
    for operation, name, number in operations:
        pending = box.next(connection, name, 1 << 20)
        letters = box.dead_letters(connection)
        if operation == "add":
            box.add(connection, [frame(number)])
            added += number
        elif operation == "deliver" and pending:
            box.delivered(connection, name, [p.id for p in pending[:3]])
        elif operation == "reject" and pending:
            box.delivered(connection, name, [pending[0].id], {pending[0].id: (number, "no")})
        elif operation == "die" and pending:
            box.dead(connection, name, pending[-1].id, "no")
        elif operation == "split" and pending and pending[0].items > 1:
            parts = (frame(1, 50), frame(pending[0].items - 1, 50))
            box.settle(connection, name, Settlement(split=((pending[0].id, parts),)))
        elif operation == "replay" and letters:
            box.replay(connection, letters[-1].id)
        elif operation == "drop" and letters:
            box.drop(connection, letters[0].id)
        check(box, connection, added)
    connection.close()


def check(box: Outbox, connection: sqlite3.Connection, added: int) -> None:
    for name in box.destinations:
        counts = totals(box, connection, name)
        assert counts.pending_items + counts.forwarded_items + counts.dead_items == added
        in_rows = connection.execute(
            "SELECT coalesce(sum(items), 0) FROM outbox_delivery JOIN outbox_body ON id = body_id"
            " WHERE destination = ?",
            (name,),
        ).fetchone()
        assert in_rows == (counts.pending_items,)
    stored, orphans = connection.execute(
        "SELECT coalesce(sum(length(body)), 0), coalesce(sum(id NOT IN (SELECT body_id FROM"
        " outbox_delivery UNION SELECT body_id FROM outbox_dead WHERE body_id IS NOT NULL)), 0)"
        " FROM outbox_body"
    ).fetchone()
    assert stored == box.bytes_stored(connection)
    assert orphans == 0
