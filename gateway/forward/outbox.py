"""The outbox: what still has to leave, per destination, in the same database as the cursors.

Law: in every committed state and for every destination and signal, pending + forwarded + dead
items equal the items that were added; the totals change in the same transaction as the rows. A
body is stored once, however many destinations want it, and is gone when none does. Only
`add`, within a byte limit, may give pending frames up, oldest first, and counts them as dead;
no age does.

Nothing here but `vacuum` commits: the caller's transaction does. A commit that then fails leaves
`oldest_ns` and what was noted for the log one step ahead of the database, until the next one.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from typing import Final

from gateway.batch import Frame, Signal
from gateway.errors import JournalUnavailableError
from gateway.forward import letters, rows
from gateway.forward.letters import Limits
from gateway.forward.records import (
    Cause,
    Counts,
    DeadLetter,
    Done,
    Letters,
    Pending,
    Selection,
    Settlement,
    Want,
)
from gateway.forward.rows import ID_MAX, Taken
from gateway.ledger import Deliveries, Delivery

__all__ = ["Counts", "DeadLetter", "Outbox", "Pending", "Selection", "Settlement", "Want"]

log = logging.getLogger(__name__)

BYTES_MAX: Final = 4 << 30
# Dead letters may take this part of the outbox, and never more than this.
DEAD_SHARE: Final = 4
DEAD_BYTES_MAX: Final = 256 << 20
FRAMES_PER_FETCH_MAX: Final = 64

REASON_FULL: Final = "the outbox was full"
REASON_REMOVED: Final = "the destination was removed from the site file"
# A full outbox gives frames up with every flush; a log needs to hear of it at first and this often.
LOG_NS: Final = 600_000_000_000

# Free pages are given back when they are this many (4 MiB) and this part of the file. Giving one
# back moves at most one other page, so a drain writes less than the backlog once more.
FREE_PAGES_MIN: Final = 1024
FREE_SHARE: Final = 16
# As many as a fast disk moves in about 20 ms: the storage thread has other work.
PAGES_PER_STEP: Final = 2048


@dataclass(slots=True)
class GivenUp:
    """Frames of one destination that were given up since the log last heard of it."""

    items: int = 0
    first_ns: int = 0
    last_ns: int = 0

    def add(self, taken: Taken) -> None:
        """Note one frame."""
        self.first_ns = min(self.first_ns, taken.added_ns) if self.items else taken.added_ns
        self.last_ns = max(self.last_ns, taken.added_ns)
        self.items += taken.items


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
        self.oldest_ns: Mapping[str, int] = {}  # when the oldest pending frame was added
        self._bytes_max = bytes_max
        self._limits = Limits(bytes_max=min(DEAD_BYTES_MAX, bytes_max // DEAD_SHARE))
        self._now_ns = now_ns
        self._given_up: dict[str, GivenUp] = {}
        self._logged_ns: int | None = None

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Create the tables and bring the totals in line with the configured destinations.

        Frames for destinations that are gone are given up. What was kept before a destination was
        there, or while it was gone, will never reach it and is counted as dead, so that the totals
        of all destinations are the items kept since the database was made.
        """
        rows.prepare(connection)
        known = connection.execute("SELECT DISTINCT destination FROM outbox_count").fetchall()
        for (name,) in known:
            if name not in self.destinations:
                self._remove(connection, name)
        for name, signal in product(self.destinations, Signal):
            rows.count(connection, name, signal)
            (missing,) = connection.execute(
                "SELECT (SELECT max(pending_items + forwarded_items + dead_items)"
                " FROM outbox_count WHERE signal = ?2)"
                " - pending_items - forwarded_items - dead_items"
                " FROM outbox_count WHERE destination = ?1 AND signal = ?2",
                (name, signal),
            ).fetchone()
            if missing:
                rows.count_dead(connection, name, signal, Cause.ABSENT, missing)

    def add(self, connection: sqlite3.Connection, frames: Sequence[Frame]) -> None:
        """Store frames for every destination."""
        if not self.destinations:
            return
        now_ns = self._now_ns()
        for frame in frames:
            rows.insert(connection, frame, self.destinations, now_ns)
            for name in self.destinations:
                rows.count(connection, name, frame.signal, pending=frame.items)
        self._shrink(connection)
        self._tell(now_ns)

    # --- what waits ---------------------------------------------------------------------------

    def next(self, connection: sqlite3.Connection, destination: str, want: Want) -> list[Pending]:
        """Read pending frames of a destination, each class oldest first."""
        if want.live_since_ns is None:
            chosen = self._sizes(connection, destination, 0, ID_MAX, want.bytes_max)
        else:
            edge = self._edge(connection, want.live_since_ns)
            share = want.bytes_max // 2 if want.backlog else want.bytes_max
            chosen = self._sizes(connection, destination, edge, ID_MAX, share)
            if want.backlog:
                rest = want.bytes_max - sum(size for _, size in chosen)
                chosen += self._sizes(connection, destination, 0, edge, rest)
        return [self._read(connection, body_id) for body_id, _ in chosen]

    def _edge(self, connection: sqlite3.Connection, live_since_ns: int) -> int:
        """Find the last frame of the backlog; ids keep the order even when a clock does not."""
        row = connection.execute(
            "SELECT id FROM outbox_body WHERE added_ns < ? ORDER BY added_ns DESC, id DESC LIMIT 1",
            (live_since_ns,),
        ).fetchone()
        return row[0] if row else 0

    def _sizes(
        self, connection: sqlite3.Connection, destination: str, after: int, to: int, bytes_max: int
    ) -> list[tuple[int, int]]:
        """List ids and sizes: at least one, then while they fit."""
        chosen: list[tuple[int, int]] = []
        for body_id, size in connection.execute(
            "SELECT d.body_id, b.body_bytes FROM outbox_delivery d JOIN outbox_body b"
            " ON b.id = d.body_id WHERE d.destination = ? AND d.body_id > ? AND d.body_id <= ?"
            " ORDER BY d.body_id LIMIT ?",
            (destination, after, to, FRAMES_PER_FETCH_MAX),
        ):
            bytes_max -= size
            if chosen and bytes_max < 0:
                break
            chosen.append((body_id, size))
        return chosen

    def _read(self, connection: sqlite3.Connection, body_id: int) -> Pending:
        signal, items, body, raw_bytes = connection.execute(
            "SELECT signal, items, body, raw_bytes FROM outbox_body WHERE id = ?", (body_id,)
        ).fetchone()
        return Pending(
            id=body_id, signal=Signal(signal), items=items, body=body, raw_bytes=raw_bytes
        )

    def look(self, connection: sqlite3.Connection) -> None:
        """Note when the oldest pending frame of each destination was added."""
        found = {}
        for name in self.destinations:
            row = connection.execute(
                "SELECT b.added_ns FROM outbox_delivery d JOIN outbox_body b ON b.id = d.body_id"
                " WHERE d.destination = ? ORDER BY d.body_id LIMIT 1",
                (name,),
            ).fetchone()
            if row is not None:
                found[name] = int(row[0])
        self.oldest_ns = found

    # --- what became of it --------------------------------------------------------------------

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
            taken = rows.take(connection, destination, body_id)
            if taken is None:
                continue  # marked before: the same answer, told twice
            lost, reason = refused.get(body_id, (0, ""))
            lost = min(max(lost, 0), taken.items)
            rows.count(
                connection,
                destination,
                taken.signal,
                pending=-taken.items,
                forwarded=taken.items - lost,
            )
            if lost:
                self._bury(connection, destination, taken, lost, Cause.REJECTED, reason)
            rows.release(connection, body_id)

    def dead(
        self, connection: sqlite3.Connection, destination: str, body_id: int, reason: str
    ) -> None:
        """Move a frame to the dead letters of a destination; its body is kept."""
        taken = rows.take(connection, destination, body_id)
        if taken is None:
            return
        rows.count(connection, destination, taken.signal, pending=-taken.items)
        self._bury(connection, destination, taken, taken.items, Cause.REFUSED, reason, body_id)

    def settle(
        self, connection: sqlite3.Connection, destination: str, settlement: Settlement
    ) -> None:
        """Apply everything that became of a wave of frames."""
        self.delivered(connection, destination, settlement.delivered, settlement.rejected)
        for body_id, reason in settlement.dead:
            self.dead(connection, destination, body_id, reason)
        for body_id, frames in settlement.split:
            taken = rows.take(connection, destination, body_id)
            if taken is None:
                continue
            assert sum(frame.items for frame in frames) == taken.items
            first, last = connection.execute(
                "SELECT first_sequence, last_sequence FROM outbox_body WHERE id = ?", (body_id,)
            ).fetchone()
            places = rows.places_before(connection, body_id, len(frames))
            for frame, place in zip(frames, places, strict=True):
                part = replace(frame, first_sequence=first, last_sequence=last)
                rows.insert(connection, part, (destination,), taken.added_ns, place)
            rows.release(connection, body_id)

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

    def causes(self, connection: sqlite3.Connection) -> dict[tuple[str, Signal], dict[str, int]]:
        """Read what the dead items of each destination and signal died of."""
        totals: dict[tuple[str, Signal], dict[str, int]] = {}
        for name, signal, cause, items in connection.execute(
            "SELECT destination, signal, cause, items FROM outbox_cause"
        ):
            totals.setdefault((name, Signal(signal)), {})[cause] = items
        return totals

    def deliveries(self, connection: sqlite3.Connection) -> Deliveries:
        """Read the totals of the configured destinations, and how long the oldest has waited."""
        self.look(connection)
        totals, causes = self.counts(connection), self.causes(connection)
        return {
            name: {
                signal: Delivery(
                    pending=counts.pending_items,
                    forwarded=counts.forwarded_items,
                    dead=counts.dead_items,
                    dead_by=causes.get((name, signal), {}),
                )
                for signal, counts in totals[name].items()
            }
            for name in self.destinations
            if name in totals
        }

    def kept(self, connection: sqlite3.Connection) -> dict[Signal, int]:
        """Count the items that were ever kept for a destination, whatever became of them."""
        found = connection.execute(
            "SELECT signal, max(pending_items + forwarded_items + dead_items)"
            " FROM outbox_count GROUP BY signal"
        )
        return {Signal(signal): int(count) for signal, count in found}

    def bytes_stored(self, connection: sqlite3.Connection) -> int:
        """Bytes that all bodies take on disk, pending and dead."""
        return int(connection.execute("SELECT bytes FROM outbox_size").fetchone()[0])

    def body_bytes(self, connection: sqlite3.Connection, ids: Iterable[int]) -> int:
        """Bytes of these bodies, compressed as they are sent; bodies that are gone count 0."""
        found = (
            connection.execute("SELECT body_bytes FROM outbox_body WHERE id = ?", (each,))
            for each in ids
        )
        return sum(size for cursor in found for (size,) in cursor)

    # --- dead letters -------------------------------------------------------------------------

    def dead_letters(
        self, connection: sqlite3.Connection, selection: Selection, limit: int, offset: int = 0
    ) -> Letters:
        """List selected dead letters, newest first."""
        return letters.read(connection, selection, limit, offset)

    def replay(self, connection: sqlite3.Connection, selection: Selection, limit: int) -> Done:
        """Make the oldest selected dead letters pending again."""
        return letters.replay(connection, selection, limit, self.destinations)

    def drop(self, connection: sqlite3.Connection, selection: Selection, limit: int) -> Done:
        """Delete the oldest selected dead letters for good; their items stay counted."""
        return letters.drop(connection, selection, limit)

    def _bury(
        self,
        connection: sqlite3.Connection,
        destination: str,
        taken: Taken,
        items: int,
        cause: Cause,
        reason: str,
        body_id: int | None = None,
    ) -> None:
        letters.bury(
            connection,
            destination,
            taken,
            items,
            cause,
            reason,
            now_ns=self._now_ns(),
            limits=self._limits,
            body_id=body_id,
        )

    # --- limits -------------------------------------------------------------------------------

    def _remove(self, connection: sqlite3.Connection, destination: str) -> None:
        """Give up all frames of a destination that is gone."""
        found = connection.execute(
            "SELECT b.signal, sum(b.items), min(b.added_ns), max(b.added_ns) FROM outbox_delivery d"
            " JOIN outbox_body b ON b.id = d.body_id WHERE d.destination = ? GROUP BY b.signal",
            (destination,),
        ).fetchall()
        for signal, items, first_ns, last_ns in found:
            rows.count(connection, destination, Signal(signal), pending=-items)
            for part, added_ns in ((items, first_ns), (0, last_ns)):  # one letter, both times
                taken = Taken(signal=Signal(signal), items=part, added_ns=added_ns)
                self._bury(connection, destination, taken, part, Cause.REMOVED, REASON_REMOVED)
        ids = connection.execute(
            "DELETE FROM outbox_delivery WHERE destination = ? RETURNING body_id", (destination,)
        ).fetchall()
        for (body_id,) in ids:
            rows.release(connection, body_id)

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
                taken = rows.take(connection, name, body_id)
                assert taken is not None
                rows.count(connection, name, taken.signal, pending=-taken.items)
                cause = Cause.OUTBOX_FULL
                self._bury(connection, name, taken, taken.items, cause, REASON_FULL)
                self._given_up.setdefault(name, GivenUp()).add(taken)
            rows.release(connection, body_id)

    def _tell(self, now_ns: int) -> None:
        """Log what was given up, at once and then not more often than LOG_NS."""
        recently = self._logged_ns is not None and 0 <= now_ns - self._logged_ns < LOG_NS
        if not self._given_up or recently:
            return
        for name, found in self._given_up.items():
            log.error(
                "outbox full, the oldest frames given up destination=%s items=%d first=%s last=%s",
                name,
                found.items,
                _time(found.first_ns),
                _time(found.last_ns),
            )
        self._given_up.clear()
        self._logged_ns = now_ns

    def vacuum(self, connection: sqlite3.Connection) -> bool:
        """Give free pages back to the file system; call it outside a transaction.

        Returns whether there is more to give back.
        Raises: JournalUnavailableError when the disk or a lock does not allow it now.
        """
        assert not connection.in_transaction
        try:
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            if free < FREE_PAGES_MIN or free * FREE_SHARE < pages:
                return False
            # The pragma frees one page per step, and only a script is stepped to its end.
            connection.executescript(f"PRAGMA incremental_vacuum({PAGES_PER_STEP})")
        except sqlite3.OperationalError as error:
            raise JournalUnavailableError(f"the database cannot be shrunk: {error}") from error
        return True


def _time(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
