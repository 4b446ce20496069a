"""The statements on single rows that pending frames and dead letters share.

Law: a body is stored once and is gone when neither a delivery nor a dead letter refers to it; the
size of the outbox changes with it. Each function is O(log n) in the rows of its tables.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.batch import Frame, Signal
from gateway.forward.records import COLUMNS, INDICES, SCHEMA

# Room between two frames: a frame that is cut in two, again and again, stays at its place.
ID_STEP: Final = 1 << 20
ID_MAX: Final = (1 << 63) - 1

# How SQLite lays a row out. Source: sqlite.org/fileformat2.html, sections 1.5 and 1.6.
PAGE_BYTES: Final = 4096
LEAF_BYTES: Final = PAGE_BYTES - 8  # of a page for rows
CHAIN_BYTES: Final = PAGE_BYTES - 4  # of a page in an overflow chain
LOCAL_BYTES_MAX: Final = PAGE_BYTES - 35  # a longer row has a chain
LOCAL_BYTES_MIN: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
CELL_BYTES: Final = 10  # pointer, length and id of a row
COLUMNS_BYTES: Final = 35  # the other columns
INDEX_BYTES: Final = 36  # its delivery and its entry in the index


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A delivery that was just removed."""

    signal: Signal
    items: int
    added_ns: int


def prepare(connection: sqlite3.Connection) -> None:
    """Create the tables, or bring those of an older version up to date."""
    for statement in SCHEMA:
        connection.execute(statement)
    is_older = False
    for table, column, kind in COLUMNS:
        known = connection.execute(f"PRAGMA table_info({table})").fetchall()
        if column not in {row[1] for row in known}:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
            is_older = True
    for statement in INDICES:
        connection.execute(statement)
    if is_older:
        sizes = connection.execute("SELECT body_bytes FROM outbox_body")
        total = sum(disk_bytes(size) for (size,) in sizes)
        connection.execute("UPDATE outbox_size SET bytes = ?", (total,))


def disk_bytes(body_bytes: int) -> int:
    """Say what a body takes of the database file: its share of a page, and a chain of pages."""
    payload = body_bytes + COLUMNS_BYTES
    local, chain = payload, 0
    if payload > LOCAL_BYTES_MAX:
        local = LOCAL_BYTES_MIN + (payload - LOCAL_BYTES_MIN) % CHAIN_BYTES
        if local > LOCAL_BYTES_MAX:
            local = LOCAL_BYTES_MIN
        chain = -(-(payload - local) // CHAIN_BYTES)
    rows_per_page = LEAF_BYTES // (local + CELL_BYTES)
    return INDEX_BYTES + PAGE_BYTES // max(1, rows_per_page) + PAGE_BYTES * chain


def insert(
    connection: sqlite3.Connection,
    frame: Frame,
    destinations: Sequence[str],
    added_ns: int,
    body_id: int | None = None,
) -> None:
    """Store a frame for destinations, behind all others unless an id says where."""
    if body_id is None:
        row = connection.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'outbox_body'"
        ).fetchone()
        body_id = (row[0] if row else 0) + ID_STEP
    connection.execute(
        "INSERT INTO outbox_body (id, signal, items, raw_bytes, body_bytes, first_sequence,"
        " last_sequence, body, added_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            body_id,
            frame.signal,
            frame.items,
            frame.raw_bytes,
            len(frame.body),
            frame.first_sequence,
            frame.last_sequence,
            frame.body,
            added_ns,
        ),
    )
    connection.executemany(
        "INSERT INTO outbox_delivery VALUES (?, ?)", [(name, body_id) for name in destinations]
    )
    size = disk_bytes(len(frame.body))
    connection.execute("UPDATE outbox_size SET bytes = bytes + ?", (size,))


def take(connection: sqlite3.Connection, destination: str, body_id: int) -> Taken | None:
    """Remove a delivery; None when there is none."""
    removed = connection.execute(
        "DELETE FROM outbox_delivery WHERE destination = ? AND body_id = ?",
        (destination, body_id),
    ).rowcount
    if not removed:
        return None
    signal, items, added_ns = connection.execute(
        "SELECT signal, items, added_ns FROM outbox_body WHERE id = ?", (body_id,)
    ).fetchone()
    return Taken(signal=Signal(signal), items=items, added_ns=added_ns)


def release(connection: sqlite3.Connection, body_id: int) -> None:
    """Delete a body that neither a delivery nor a dead letter refers to any more."""
    row = connection.execute(
        "DELETE FROM outbox_body WHERE id = ?1"
        " AND NOT EXISTS (SELECT 1 FROM outbox_dead WHERE body_id = ?1)"
        # Named by destination, so that the primary key is used.
        " AND NOT EXISTS (SELECT 1 FROM outbox_count c CROSS JOIN outbox_delivery d"
        " ON d.destination = c.destination AND d.body_id = ?1) RETURNING body_bytes",
        (body_id,),
    ).fetchone()
    if row is not None:
        connection.execute("UPDATE outbox_size SET bytes = bytes - ?", (disk_bytes(row[0]),))


def count(
    connection: sqlite3.Connection,
    destination: str,
    signal: Signal,
    *,
    pending: int = 0,
    forwarded: int = 0,
) -> None:
    """Add to the totals of pending and forwarded items."""
    connection.execute(
        "INSERT INTO outbox_count VALUES (?1, ?2, ?3, ?4, 0) ON CONFLICT DO UPDATE SET"
        " pending_items = pending_items + ?3, forwarded_items = forwarded_items + ?4",
        (destination, signal, pending, forwarded),
    )


def count_dead(
    connection: sqlite3.Connection, destination: str, signal: Signal, cause: str, items: int
) -> None:
    """Add to the total of dead items and to that of their cause."""
    connection.execute(
        "INSERT INTO outbox_count VALUES (?1, ?2, 0, 0, ?3) ON CONFLICT DO UPDATE SET"
        " dead_items = dead_items + ?3",
        (destination, signal, items),
    )
    connection.execute(
        "INSERT INTO outbox_cause VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET"
        " items = items + ?4",
        (destination, signal, cause, items),
    )


def places_before(connection: sqlite3.Connection, body_id: int, parts: int) -> list[int | None]:
    """Find ids for the parts of a frame between the frame before it and the frame itself.

    None for each when there is no room: then they go behind all others. However much room there
    is, parts stay within ID_STEP of the frame that was cut first: that is how they are known.
    """
    (before,) = connection.execute(
        "SELECT coalesce(max(id), 0) FROM outbox_body WHERE id < ?", (body_id,)
    ).fetchone()
    before = max(before, (body_id - 1) // ID_STEP * ID_STEP)
    step = (body_id - before) // (parts + 1)
    if step == 0:
        return [None] * parts
    return [before + step * number for number in range(1, parts + 1)]
