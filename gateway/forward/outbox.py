"""The outbox: what still has to leave, per destination, in the same database as the cursors.

Law: in every committed state and for every destination and signal, pending + forwarded + dead
items equal the items that were added; the totals change in the same transaction as the rows. A
body is stored once, however many destinations want it, and is gone when none does. Only
`add`, within a byte limit, may give pending frames up, oldest first, and counts them as dead.

Nothing here but `vacuum` commits: the caller's transaction does.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Final

from gateway.batch import Frame, Signal
from gateway.errors import JournalUnavailableError
from gateway.forward.records import SCHEMA, Counts, DeadLetter, Pending, Settlement

__all__ = ["SCHEMA", "Counts", "DeadLetter", "Outbox", "Pending", "Settlement"]

BYTES_MAX: Final = 4 << 30
DEAD_ROWS_MAX: Final = 10_000
DEAD_BYTES_MAX: Final = 256 << 20
REASON_CHARS_MAX: Final = 500
FRAMES_PER_FETCH_MAX: Final = 64

REASON_FULL: Final = "outbox full"
REASON_REMOVED: Final = "destination removed"


class Outbox:
    """Rules of the outbox tables; holds no connection and no rows."""

    def __init__(
        self,
        destinations: Sequence[str],
        *,
        bytes_max: int = BYTES_MAX,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.destinations = tuple(destinations)
        self._bytes_max = bytes_max
        self._now_ns = now_ns

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Create the tables and bring the totals in line with the configured destinations.

        Frames for destinations that are gone are given up. What was kept before a destination was
        there, or while it was gone, will never reach it and is counted as dead, so that the totals
        of all destinations are the items kept since the database was made.
        """
        for statement in SCHEMA:
            connection.execute(statement)
        known = connection.execute("SELECT DISTINCT destination FROM outbox_count").fetchall()
        for (name,) in known:
            if name not in self.destinations:
                self._give_up(connection, self._ids(connection, name), name, REASON_REMOVED)
        for name, signal in product(self.destinations, Signal):
            connection.execute(
                "INSERT OR IGNORE INTO outbox_count (destination, signal) VALUES (?, ?)",
                (name, signal),
            )
            connection.execute(
                "UPDATE outbox_count SET dead_items = (SELECT"
                " max(pending_items + forwarded_items + dead_items) FROM outbox_count"
                " WHERE signal = ?2) - pending_items - forwarded_items"
                " WHERE destination = ?1 AND signal = ?2",
                (name, signal),
            )

    def add(self, connection: sqlite3.Connection, frames: Sequence[Frame]) -> None:
        """Store frames for every destination."""
        if not self.destinations:
            return
        for frame in frames:
            self._insert(connection, frame, self.destinations)
            for name in self.destinations:
                self._count(connection, name, frame.signal, pending=frame.items)
        self._shrink(connection)

    def next(
        self, connection: sqlite3.Connection, destination: str, limit_bytes: int
    ) -> list[Pending]:
        """Read the oldest pending frames: at least one, then while they fit the limit."""
        rows = connection.execute(
            "SELECT b.id, b.body_bytes FROM outbox_delivery d JOIN outbox_body b ON b.id ="
            " d.body_id WHERE d.destination = ? ORDER BY d.body_id LIMIT ?",
            (destination, FRAMES_PER_FETCH_MAX),
        ).fetchall()
        chosen: list[Pending] = []
        size = 0
        for body_id, body_bytes in rows:
            size += body_bytes
            if chosen and size > limit_bytes:
                break
            signal, items, body, raw_bytes = connection.execute(
                "SELECT signal, items, body, raw_bytes FROM outbox_body WHERE id = ?", (body_id,)
            ).fetchone()
            chosen.append(
                Pending(
                    id=body_id, signal=Signal(signal), items=items, body=body, raw_bytes=raw_bytes
                )
            )
        return chosen

    def delivered(
        self,
        connection: sqlite3.Connection,
        destination: str,
        ids: Iterable[int],
        rejected: Mapping[int, tuple[int, str]] | None = None,
    ) -> None:
        """Mark frames as taken; `rejected` maps an id to the refused items and the reason."""
        refused = rejected or {}
        for body_id in ids:
            found = self._take(connection, destination, body_id)
            if found is None:
                continue  # marked before: the same answer, told twice
            signal, items = found
            count, reason = refused.get(body_id, (0, ""))
            count = min(max(count, 0), items)
            self._count(
                connection,
                destination,
                signal,
                pending=-items,
                forwarded=items - count,
                dead=count,
            )
            if count:
                self._bury(connection, destination, signal, count, reason, None)
            self._release(connection, body_id)

    def dead(
        self, connection: sqlite3.Connection, destination: str, body_id: int, reason: str
    ) -> None:
        """Move a frame to the dead letters of a destination; its body is kept."""
        found = self._take(connection, destination, body_id)
        if found is None:
            return
        signal, items = found
        self._count(connection, destination, signal, pending=-items, dead=items)
        self._bury(connection, destination, signal, items, reason, body_id)

    def settle(
        self, connection: sqlite3.Connection, destination: str, settlement: Settlement
    ) -> None:
        """Apply everything that became of a wave of frames."""
        self.delivered(connection, destination, settlement.delivered, settlement.rejected)
        for body_id, reason in settlement.dead:
            self.dead(connection, destination, body_id, reason)
        for body_id, frames in settlement.split:
            found = self._take(connection, destination, body_id)
            if found is None:
                continue
            assert sum(frame.items for frame in frames) == found[1]
            first, last = connection.execute(
                "SELECT first_sequence, last_sequence FROM outbox_body WHERE id = ?", (body_id,)
            ).fetchone()
            for frame in frames:
                part = replace(frame, first_sequence=first, last_sequence=last)
                self._insert(connection, part, (destination,))
            self._release(connection, body_id)

    def counts(self, connection: sqlite3.Connection) -> dict[str, dict[Signal, Counts]]:
        """Read the exact totals of every destination that ever was."""
        totals: dict[str, dict[Signal, Counts]] = {}
        for name, signal, pending, forwarded, dead in connection.execute(
            "SELECT destination, signal, pending_items, forwarded_items, dead_items"
            " FROM outbox_count ORDER BY destination, signal"
        ):
            totals.setdefault(name, {})[Signal(signal)] = Counts(
                pending_items=pending, forwarded_items=forwarded, dead_items=dead
            )
        return totals

    def kept(self, connection: sqlite3.Connection) -> dict[Signal, int]:
        """Count the items that were ever kept for a destination, whatever became of them."""
        rows = connection.execute(
            "SELECT signal, max(pending_items + forwarded_items + dead_items)"
            " FROM outbox_count GROUP BY signal"
        )
        return {Signal(signal): int(count) for signal, count in rows}

    def bytes_stored(self, connection: sqlite3.Connection) -> int:
        """Bytes of all bodies, pending and dead."""
        return int(connection.execute("SELECT bytes FROM outbox_size").fetchone()[0])

    def body_bytes(self, connection: sqlite3.Connection, ids: Iterable[int]) -> int:
        """Bytes of these bodies, compressed as they are sent; bodies that are gone count 0."""
        found = (
            connection.execute("SELECT body_bytes FROM outbox_body WHERE id = ?", (each,))
            for each in ids
        )
        return sum(size for cursor in found for (size,) in cursor)

    def dead_letters(
        self, connection: sqlite3.Connection, *, destination: str | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """List dead letters, newest first."""
        rows = connection.execute(
            "SELECT d.id, d.destination, d.signal, d.items, d.reason, d.time_ns,"
            " coalesce(b.body_bytes, 0) FROM outbox_dead d LEFT JOIN outbox_body b"
            " ON b.id = d.body_id WHERE ?1 IS NULL OR d.destination = ?1"
            " ORDER BY d.id DESC LIMIT ?2",
            (destination, limit),
        )
        return [
            DeadLetter(
                id=letter_id,
                destination=name,
                signal=Signal(signal),
                items=items,
                reason=reason,
                time_ns=time_ns,
                body_bytes=body_bytes,
            )
            for letter_id, name, signal, items, reason, time_ns, body_bytes in rows
        ]

    def replay(self, connection: sqlite3.Connection, letter_id: int) -> bool:
        """Make a dead letter pending again; False when it is gone or has no body."""
        row = connection.execute(
            "SELECT destination, signal, items, body_id FROM outbox_dead WHERE id = ?", (letter_id,)
        ).fetchone()
        if row is None or row[3] is None or row[0] not in self.destinations:
            return False
        name, signal, items, body_id = row
        connection.execute("DELETE FROM outbox_dead WHERE id = ?", (letter_id,))
        connection.execute("INSERT INTO outbox_delivery VALUES (?, ?)", (name, body_id))
        self._count(connection, name, Signal(signal), pending=items, dead=-items)
        return True

    def drop(self, connection: sqlite3.Connection, letter_id: int) -> bool:
        """Delete a dead letter for good; its items stay counted. False when it is gone."""
        row = connection.execute(
            "DELETE FROM outbox_dead WHERE id = ? RETURNING body_id", (letter_id,)
        ).fetchone()
        if row is None:
            return False
        if row[0] is not None:
            self._release(connection, row[0])
        return True

    def vacuum(self, connection: sqlite3.Connection, pages: int = 256) -> None:
        """Give up to `pages` free pages back to the file system; call it outside a transaction.

        Raises: JournalUnavailableError when the disk or a lock does not allow it now.
        """
        assert not connection.in_transaction
        try:
            # The pragma frees one page per step, and only a script is stepped to its end.
            connection.executescript(f"PRAGMA incremental_vacuum({int(pages)})")
        except sqlite3.OperationalError as error:
            raise JournalUnavailableError(f"the database cannot be shrunk: {error}") from error

    def _insert(
        self, connection: sqlite3.Connection, frame: Frame, destinations: Sequence[str]
    ) -> None:
        body_id = connection.execute(
            "INSERT INTO outbox_body (signal, items, raw_bytes, body_bytes, first_sequence,"
            " last_sequence, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                frame.signal,
                frame.items,
                frame.raw_bytes,
                len(frame.body),
                frame.first_sequence,
                frame.last_sequence,
                frame.body,
            ),
        ).lastrowid
        connection.executemany(
            "INSERT INTO outbox_delivery VALUES (?, ?)", [(name, body_id) for name in destinations]
        )
        connection.execute("UPDATE outbox_size SET bytes = bytes + ?", (len(frame.body),))

    def _take(
        self, connection: sqlite3.Connection, destination: str, body_id: int
    ) -> tuple[Signal, int] | None:
        """Remove a delivery; None when there is none."""
        removed = connection.execute(
            "DELETE FROM outbox_delivery WHERE destination = ? AND body_id = ?",
            (destination, body_id),
        ).rowcount
        if not removed:
            return None
        signal, items = connection.execute(
            "SELECT signal, items FROM outbox_body WHERE id = ?", (body_id,)
        ).fetchone()
        return Signal(signal), items

    def _release(self, connection: sqlite3.Connection, body_id: int) -> None:
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
            connection.execute("UPDATE outbox_size SET bytes = bytes - ?", row)

    def _bury(
        self,
        connection: sqlite3.Connection,
        destination: str,
        signal: Signal,
        items: int,
        reason: str,
        body_id: int | None,
    ) -> None:
        connection.execute(
            "INSERT INTO outbox_dead (destination, signal, items, reason, time_ns, body_id)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (destination, signal, items, reason[:REASON_CHARS_MAX], self._now_ns(), body_id),
        )
        while True:
            rows, size, oldest = connection.execute(
                "SELECT count(*), coalesce(sum(b.body_bytes), 0), min(d.id) FROM outbox_dead d"
                " LEFT JOIN outbox_body b ON b.id = d.body_id"
            ).fetchone()
            if rows <= DEAD_ROWS_MAX and size <= DEAD_BYTES_MAX:
                return
            self.drop(connection, oldest)

    def _count(
        self,
        connection: sqlite3.Connection,
        destination: str,
        signal: Signal,
        *,
        pending: int = 0,
        forwarded: int = 0,
        dead: int = 0,
    ) -> None:
        connection.execute(
            "INSERT INTO outbox_count VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET"
            " pending_items = pending_items + ?3, forwarded_items = forwarded_items + ?4,"
            " dead_items = dead_items + ?5",
            (destination, signal, pending, forwarded, dead),
        )

    def _ids(self, connection: sqlite3.Connection, destination: str) -> list[int]:
        rows = connection.execute(
            "SELECT body_id FROM outbox_delivery WHERE destination = ? ORDER BY body_id",
            (destination,),
        )
        return [body_id for (body_id,) in rows]

    def _give_up(
        self, connection: sqlite3.Connection, ids: Iterable[int], destination: str, reason: str
    ) -> None:
        for body_id in ids:
            found = self._take(connection, destination, body_id)
            if found is None:
                continue
            signal, items = found
            self._count(connection, destination, signal, pending=-items, dead=items)
            self._bury(connection, destination, signal, items, reason, None)
            self._release(connection, body_id)

    def _shrink(self, connection: sqlite3.Connection) -> None:
        """Give up the oldest bodies, for whoever still waits for them, until the limit holds."""
        while self.bytes_stored(connection) > self._bytes_max:
            oldest: dict[int, list[str]] = {}
            for name in self.destinations:
                (body_id,) = connection.execute(
                    "SELECT min(body_id) FROM outbox_delivery WHERE destination = ?", (name,)
                ).fetchone()
                if body_id is not None:
                    oldest.setdefault(body_id, []).append(name)
            if not oldest:
                return
            body_id = min(oldest)
            for name in oldest[body_id]:
                self._give_up(connection, (body_id,), name, REASON_FULL)
