"""No item is lost or counted twice in the outbox."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Signal
from gateway.forward import letters
from gateway.forward.outbox import Counts, Outbox, Selection, Settlement, Want
from gateway.forward.records import Cause, Done
from gateway.forward.rows import ID_STEP, disk_bytes
from gateway.journal.checkpoint import Checkpoint
from tests.unit.forward.boxes import frame, ids, letters_of, memory, one, read, totals


@pytest.fixture
def box() -> Outbox:
    return Outbox(["cloud", "lake"], now_ns=lambda: 77)


@pytest.fixture
def connection(box: Outbox) -> Iterator[sqlite3.Connection]:
    connection = memory(box)
    yield connection
    connection.close()


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
        pending = read(box, connection, name, 1 << 20)
        assert [p.items for p in pending] == [1, 2, 3]
        assert [p.body[:1] for p in pending] == [b"a", b"b", b"c"]
        assert pending[0].raw_bytes == 400
    assert connection.execute("SELECT count(*) FROM outbox_body").fetchone() == (3,)


def test_a_fetch_is_limited_in_bytes_but_never_empty(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(size=100), frame(size=100), frame(size=100)])
    assert len(read(box, connection, "cloud", 250)) == 2
    assert len(read(box, connection, "cloud", 1)) == 1
    assert read(box, connection, "nobody", 1) == []


def test_a_body_is_deleted_when_the_last_destination_took_it(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(10)])
    [pending] = read(box, connection, "cloud", 1)
    box.delivered(connection, "cloud", [pending.id])
    assert box.bytes_stored(connection) == disk_bytes(100)
    assert totals(box, connection, "cloud") == Counts(forwarded_items=10)
    assert totals(box, connection, "lake") == Counts(pending_items=10)
    box.delivered(connection, "lake", [pending.id])
    assert box.bytes_stored(connection) == 0
    assert connection.execute("SELECT count(*) FROM outbox_body").fetchone() == (0,)


def test_the_same_answer_told_twice_counts_once(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(10)])
    [pending] = read(box, connection, "cloud", 1)
    for _ in range(2):
        box.delivered(connection, "cloud", [pending.id])
        box.dead(connection, "cloud", pending.id, "late")
    assert totals(box, connection, "cloud") == Counts(forwarded_items=10)


def test_rejected_items_are_dead_and_the_rest_forwarded(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(10)])
    [pending] = read(box, connection, "cloud", 1)
    box.delivered(connection, "cloud", [pending.id], {pending.id: (3, "bad attribute")})
    assert totals(box, connection, "cloud") == Counts(forwarded_items=7, dead_items=3)
    [letter] = letters_of(box, connection)
    assert (letter.items, letter.reason, letter.body_bytes, letter.time_ns) == (
        3,
        "bad attribute",
        0,
        77,
    )
    assert box.replay(connection, one(letter), 9) == Done(letters=0, items=0, left=0, kept=1)


def test_a_dead_letter_keeps_its_body_until_it_is_dropped_or_replayed(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(4), frame(5)])
    first, second = read(box, connection, "cloud", 1 << 20)
    box.dead(connection, "cloud", first.id, "HTTP 400")
    box.dead(connection, "cloud", second.id, "HTTP 400")
    box.delivered(connection, "lake", [first.id, second.id])
    newest, oldest = letters_of(box, connection, "cloud")
    assert (newest.items, oldest.items, oldest.body_bytes) == (5, 4, 100)
    assert letters_of(box, connection, "lake") == []
    assert box.replay(connection, one(oldest), 9) == Done(letters=1, items=4, left=0, kept=0)
    assert box.replay(connection, one(oldest), 9) == Done(letters=0, items=0, left=0, kept=0)
    assert [p.body for p in read(box, connection, "cloud", 1)] == [first.body]
    assert totals(box, connection, "cloud") == Counts(pending_items=4, dead_items=5)
    assert box.drop(connection, one(newest), 9) == Done(letters=1, items=5, left=0, kept=0)
    assert box.drop(connection, one(newest), 9) == Done(letters=0, items=0, left=0, kept=0)
    assert totals(box, connection, "cloud") == Counts(pending_items=4, dead_items=5)
    assert box.bytes_stored(connection) == disk_bytes(100)


def test_dead_letters_are_capped_oldest_first(box: Outbox, connection: sqlite3.Connection) -> None:
    box._limits = letters.Limits(letters_max=3, bytes_max=250)
    box.add(connection, [frame(n) for n in range(1, 6)])
    for pending in read(box, connection, "cloud", 1 << 20):
        box.dead(connection, "cloud", pending.id, "no")
    assert [letter.items for letter in letters_of(box, connection)] == [5, 4]
    assert totals(box, connection, "cloud") == Counts(dead_items=15)
    page = box.dead_letters(connection, Selection(), 1)
    assert (page.total, page.total_items, page.total_bytes) == (2, 9, 200)
    assert page.forgotten_items == 1 + 2 + 3
    box._limits = letters.Limits(letters_max=2, bytes_max=1 << 20)
    box.add(connection, [frame(6)])
    [last] = read(box, connection, "cloud", 1 << 20)
    box.dead(connection, "cloud", last.id, "no")
    assert [letter.items for letter in letters_of(box, connection)] == [6, 5]


def test_past_its_limit_the_outbox_gives_the_oldest_up_and_counts_them() -> None:
    box = Outbox(["cloud", "lake"], bytes_max=3 * disk_bytes(100))
    connection = memory(box)
    box.add(connection, [frame(1), frame(2), frame(3)])
    box.delivered(connection, "lake", ids(1, 2))
    box.add(connection, [frame(4), frame(5)])
    assert [p.items for p in read(box, connection, "cloud", 1 << 20)] == [3, 4, 5]
    assert totals(box, connection, "cloud") == Counts(pending_items=12, dead_items=3)
    assert totals(box, connection, "lake") == Counts(pending_items=12, forwarded_items=3)
    assert box.causes(connection)["cloud", Signal.TRACES] == {Cause.OUTBOX_FULL: 3}
    [letter] = letters_of(box, connection)
    assert (letter.items, letter.reason) == (3, "the outbox was full")
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
    [letter] = letters_of(box, connection)
    assert (letter.cause, letter.destination, letter.items) == ("destination_removed", "old", 6)
    assert box.replay(connection, one(letter), 9).kept == 1
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
    box.settle(connection, "cloud", Settlement(split=((ids(1)[0], (frame(4), frame(5))),)))
    assert [p.items for p in read(box, connection, "cloud", 1 << 20)] == [4, 5]
    assert [p.items for p in read(box, connection, "lake", 1 << 20)] == [9]
    assert totals(box, connection, "cloud") == Counts(pending_items=9)
    assert connection.execute(
        "SELECT first_sequence, last_sequence FROM outbox_body WHERE items = 4"
    ).fetchone() == (1, 2)


def test_parts_of_parts_stay_before_what_came_later(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    box.add(connection, [frame(16), frame(1), frame(2)])
    for size in (16, 8, 4, 2):
        [first, *_] = read(box, connection, "cloud", 1 << 20)
        halves = (frame(size // 2), frame(size // 2))
        box.settle(connection, "cloud", Settlement(split=((first.id, halves),)))
    pending = read(box, connection, "cloud", 1 << 20)
    assert [p.items for p in pending] == [1, 1, 2, 4, 8, 1, 2]
    box.add(connection, [frame(3)])
    assert [p.items for p in read(box, connection, "cloud", 1 << 20)][-2:] == [2, 3]
    assert [p.items for p in read(box, connection, "lake", 1 << 20)] == [16, 1, 2, 3]


def test_parts_are_near_their_frame_however_much_before_it_is_gone(
    box: Outbox, connection: sqlite3.Connection
) -> None:
    """A forwarder knows by that what it has to send alone."""
    box.add(connection, [frame(1), frame(1), frame(1), frame(4)])
    *gone, last = read(box, connection, "cloud", 1 << 20)
    for name in ("cloud", "lake"):
        box.delivered(connection, name, [each.id for each in gone])
    box.settle(connection, "cloud", Settlement(split=((last.id, (frame(2), frame(2))),)))
    parts = read(box, connection, "cloud", 1 << 20)
    assert [p.items for p in parts] == [2, 2]
    assert all(last.id - ID_STEP < p.id < last.id for p in parts)


def test_without_room_parts_go_to_the_end(box: Outbox, connection: sqlite3.Connection) -> None:
    box.add(connection, [frame(4), frame(5)])
    connection.execute("UPDATE outbox_body SET id = id / ?", (ID_STEP,))
    connection.execute("UPDATE outbox_delivery SET body_id = body_id / ?", (ID_STEP,))
    box.settle(connection, "cloud", Settlement(split=((1, (frame(2), frame(2))),)))
    assert [p.items for p in read(box, connection, "cloud", 1 << 20)] == [5, 2, 2]


def test_live_frames_come_first_and_leave_half_to_the_backlog() -> None:
    now_ns = 0
    box = Outbox(["cloud"], now_ns=lambda: now_ns)
    connection = memory(box)
    for minute in range(10):
        now_ns = minute * 60
        box.add(connection, [frame(minute + 1)])

    def items(bytes_max: int, live_since_ns: int, *, backlog: bool) -> list[int]:
        want = Want(bytes_max=bytes_max, live_since_ns=live_since_ns, backlog=backlog)
        return [p.items for p in box.next(connection, "cloud", want)]

    assert items(10_000, 360, backlog=False) == [7, 8, 9, 10]
    assert items(10_000, 360, backlog=True) == [7, 8, 9, 10, 1, 2, 3, 4, 5, 6]
    assert items(400, 360, backlog=True) == [7, 8, 1, 2]
    assert items(400, 541, backlog=True) == [1, 2, 3, 4]
    assert items(400, 541, backlog=False) == []
    assert items(1, 0, backlog=False) == [1]
    connection.close()


def test_classes_follow_the_order_when_the_clock_does_not() -> None:
    times = [100, 5000, 110, 120, 130]
    now_ns = 0
    box = Outbox(["cloud"], now_ns=lambda: now_ns)
    connection = memory(box)
    for number, moment in enumerate(times):
        now_ns = moment
        box.add(connection, [frame(number + 1)])
    want = Want(bytes_max=10_000, live_since_ns=125, backlog=False)
    assert [p.items for p in box.next(connection, "cloud", want)] == [5]
    want = Want(bytes_max=10_000, live_since_ns=125, backlog=True)
    assert [p.items for p in box.next(connection, "cloud", want)] == [5, 1, 2, 3, 4]
    connection.close()


def test_the_oldest_of_each_destination_is_noted(connection: sqlite3.Connection) -> None:
    times = iter([10, 20])
    box = Outbox(["cloud", "lake"], now_ns=lambda: next(times))
    box.add(connection, [frame()])
    box.add(connection, [frame()])
    box.look(connection)
    assert box.oldest_ns == {"cloud": 10, "lake": 10}
    box.delivered(connection, "cloud", ids(1))
    box.delivered(connection, "lake", ids(1, 2))
    box.look(connection)
    assert box.oldest_ns == {"cloud": 20}


def test_dead_letters_take_a_quarter_of_a_small_outbox_at_most() -> None:
    box = Outbox(["cloud"], bytes_max=20 * disk_bytes(4000))
    connection = memory(box)
    for _ in range(30):
        box.add(connection, [frame(1, size=4000)])
        [pending] = read(box, connection, "cloud", 1)
        box.dead(connection, "cloud", pending.id, "no")
    page = box.dead_letters(connection, Selection(), 1)
    assert page.total_bytes <= 5 * disk_bytes(4000)
    assert page.total == 5
    assert totals(box, connection, "cloud") == Counts(dead_items=30)
    connection.close()


def test_space_comes_back_to_the_file_system(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "state.db")
    box = Outbox(["cloud"])
    with checkpoint.transaction() as connection:
        box.prepare(connection)
        box.add(connection, [frame(size=1 << 20) for _ in range(25)])
    checkpoint.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    full = (tmp_path / "state.db").stat().st_size
    assert full > 25 << 20
    with checkpoint.transaction() as connection:
        box.delivered(connection, "cloud", ids(*range(1, 26)))
    while box.vacuum(checkpoint.connection):
        pass
    checkpoint.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert (tmp_path / "state.db").stat().st_size < 5 << 20
    checkpoint.close()


def test_a_rolled_back_transaction_changes_no_count(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "state.db")
    box = Outbox(["cloud"])
    with checkpoint.transaction() as connection:
        box.prepare(connection)
        box.add(connection, [frame(3)])
    with pytest.raises(sqlite3.OperationalError), checkpoint.transaction() as connection:  # noqa: PT012
        box.delivered(connection, "cloud", ids(1))
        box.add(connection, [frame(4)])
        connection.execute("SELECT nothing FROM nowhere")
    reader = checkpoint.readonly()
    assert totals(box, reader, "cloud") == Counts(pending_items=3)
    assert [p.items for p in read(box, reader, "cloud", 1 << 20)] == [3]
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
    box = Outbox(["cloud", "lake"], bytes_max=15 * disk_bytes(100))
    connection = memory(box)
    added = 0
    for operation, name, number in operations:
        pending = read(box, connection, name, 1 << 20)
        found = letters_of(box, connection)
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
        elif operation == "replay" and found:
            box.replay(connection, one(found[-1]), 1)
        elif operation == "drop" and found:
            box.drop(connection, one(found[0]), 1)
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
        causes = box.causes(connection).get((name, Signal.TRACES), {})
        assert sum(causes.values()) == counts.dead_items
        assert min(causes.values(), default=0) >= 0
    written = connection.execute("SELECT letters, bytes FROM outbox_dead_size").fetchone()
    assert (
        written
        == connection.execute(
            "SELECT count(*), coalesce(sum(body_bytes), 0) FROM outbox_dead LEFT JOIN outbox_body b"
            " ON b.id = body_id"
        ).fetchone()
    )
    connection.create_function("disk_bytes", 1, disk_bytes)
    stored, orphans = connection.execute(
        "SELECT coalesce(sum(disk_bytes(length(body))), 0), coalesce(sum(id NOT IN (SELECT"
        " body_id FROM outbox_delivery UNION SELECT body_id FROM outbox_dead"
        " WHERE body_id IS NOT NULL)), 0)"
        " FROM outbox_body"
    ).fetchone()
    assert stored == box.bytes_stored(connection)
    assert orphans == 0
