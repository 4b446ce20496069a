"""The tables: sizes are those of the disk, and older databases go on."""

import sqlite3
from pathlib import Path

import pytest

from gateway.forward.outbox import Counts, Outbox
from gateway.forward.records import Cause
from gateway.forward.rows import PAGE_BYTES, disk_bytes
from gateway.journal.checkpoint import Checkpoint
from tests.unit.forward.boxes import frame, letters_of, one, read, totals


def test_a_database_of_an_older_version_goes_on() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in OLDER_SCHEMA:
        connection.execute(statement)
    box = Outbox(["cloud"])
    box.prepare(connection)
    box.prepare(connection)
    assert box.bytes_stored(connection) == 2 * disk_bytes(10)
    assert totals(box, connection, "cloud") == Counts(pending_items=4, dead_items=7)
    assert box.causes(connection) == {}
    [letter] = letters_of(box, connection)
    assert (letter.cause, letter.items) == (Cause.UNDELIVERABLE, 7)
    box.add(connection, [frame(5)])
    assert [p.items for p in read(box, connection, "cloud", 1 << 20)] == [4, 5]
    assert box.replay(connection, one(letter), 9).items == 7
    assert totals(box, connection, "cloud") == Counts(pending_items=16)
    connection.close()


OLDER_SCHEMA = (
    "CREATE TABLE outbox_body (id INTEGER PRIMARY KEY AUTOINCREMENT, signal TEXT NOT NULL,"
    " items INTEGER NOT NULL, raw_bytes INTEGER NOT NULL, body_bytes INTEGER NOT NULL,"
    " first_sequence INTEGER NOT NULL, last_sequence INTEGER NOT NULL, body BLOB NOT NULL) STRICT",
    "CREATE TABLE outbox_delivery (destination TEXT NOT NULL, body_id INTEGER NOT NULL,"
    " PRIMARY KEY (destination, body_id)) STRICT, WITHOUT ROWID",
    "CREATE TABLE outbox_dead (id INTEGER PRIMARY KEY AUTOINCREMENT, destination TEXT NOT NULL,"
    " signal TEXT NOT NULL, items INTEGER NOT NULL, reason TEXT NOT NULL,"
    " time_ns INTEGER NOT NULL, body_id INTEGER) STRICT",
    "CREATE TABLE outbox_count (destination TEXT NOT NULL, signal TEXT NOT NULL,"
    " pending_items INTEGER NOT NULL DEFAULT 0, forwarded_items INTEGER NOT NULL DEFAULT 0,"
    " dead_items INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (destination, signal)) STRICT,"
    " WITHOUT ROWID",
    "CREATE TABLE outbox_size (id INTEGER PRIMARY KEY CHECK (id = 1), bytes INTEGER NOT NULL)"
    " STRICT",
    "INSERT INTO outbox_size VALUES (1, 20)",
    "INSERT INTO outbox_body VALUES (1, 'traces', 7, 20, 10, 1, 1, zeroblob(10))",
    "INSERT INTO outbox_body VALUES (2, 'traces', 4, 20, 10, 1, 1, zeroblob(10))",
    "INSERT INTO outbox_delivery VALUES ('cloud', 2)",
    "INSERT INTO outbox_dead VALUES (1, 'cloud', 'traces', 7, 'HTTP 400', 5, 1)",
    "INSERT INTO outbox_count VALUES ('cloud', 'traces', 4, 0, 7)",
)


@pytest.mark.parametrize("size", [0, 300, 1000, 2500, 3000, 4000, 4100, 10_000, 160_000])
def test_the_size_of_the_outbox_is_what_its_bodies_take_on_disk(tmp_path: Path, size: int) -> None:
    checkpoint = Checkpoint.open(tmp_path / "state.db")
    box = Outbox(["cloud"])

    def pages() -> int:
        (count,) = checkpoint.connection.execute("PRAGMA page_count").fetchone()
        return int(count)

    with checkpoint.transaction() as connection:
        box.prepare(connection)
    before = pages()
    with checkpoint.transaction() as connection:
        box.add(connection, [frame(size=size) for _ in range(1000)])
    taken = (pages() - before) * PAGE_BYTES
    assert 0.95 * taken <= box.bytes_stored(checkpoint.connection) <= 1.15 * taken
    checkpoint.close()
