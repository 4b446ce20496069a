"""Disk and database of the simulated machine: what they refuse, and what of them survives.

Law: the journal's disk is `MemoryDisk`, whose unsynced bytes a power cut loses, tears and reorders.
The database is SQLite in memory: a commit survives, an open transaction does not. A commit that was
said to have failed may survive the process, too, as the write-ahead log may hold it. Both are ill
only for some virtual time and heal by themselves.
"""

import errno
import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.errors import RetryableError
from gateway.home import FREE_BYTES_MIN
from gateway.journal.checkpoint import Checkpoint, Saved
from gateway.store.catalogue import Segment, Summary
from gateway.store.columns import Part
from tests.laws.journal_disk import CrashError, MemoryDisk
from tests.simulation.life import Clock, Life

SUFFIX: Final = ".parquet"
CODES: Final = (errno.EIO, errno.ENOSPC, errno.EROFS)
SQL_CODES: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY)


@dataclass(slots=True)
class Health:
    """What is wrong with the disk now. Units: steady seconds; rates are shares of calls."""

    clock: Clock
    rng: random.Random
    fault_rate: float = 0.0
    ill_until_s: float = 0.0
    full_until_s: float = 0.0

    @property
    def is_ill(self) -> bool:
        return self.is_full or self.clock.now_s < self.ill_until_s

    @property
    def is_full(self) -> bool:
        return self.clock.now_s < self.full_until_s

    def fails(self) -> bool:
        """Draw whether a call fails."""
        if self.clock.now_s >= self.ill_until_s or self.fault_rate == 0.0:
            return False
        return self.rng.random() < self.fault_rate

    def heal(self) -> None:
        self.fault_rate = self.ill_until_s = self.full_until_s = 0.0


class Disk(MemoryDisk):
    """The disk of the journal, which outlives processes."""

    def __init__(self, health: Health, rng: random.Random) -> None:
        super().__init__()
        self.health = health
        self.rng = rng
        self.life = Life()
        self.next_sync_fails = False
        self._given_up: set[int] = set()  # inodes whose dirty pages the kernel has dropped

    def begin(self, life: Life) -> None:
        """Let another process use the disk."""
        self.life = life
        self.next_sync_fails = False
        self.faults.clear()
        self.calls.clear()

    def lose_power(self) -> None:
        self._given_up.clear()
        self.reboot(self.rng)

    def free_bytes(self, directory: Path) -> int:
        return 0 if self.health.is_full else 2 * FREE_BYTES_MIN

    def write(self, handle: int, data: memoryview) -> int:
        life = self.life
        if life.alive and life.steps + 1 == life.bomb:
            # The process dies within the write.
            self.handles[handle].data += data[: self.rng.randint(0, len(data))]
        elif self.health.fault_rate and self.rng.random() < 0.2:
            data = data[: self.rng.randint(1, len(data))]
        return super().write(handle, data)

    def fdatasync(self, handle: int) -> None:
        inode = self.handles[handle]
        if self.next_sync_fails:
            self.faults[len(self.calls)] = OSError(errno.EIO, "one sync")
            self.next_sync_fails = False
        try:
            self._call("fdatasync")
        except OSError:
            self._given_up.add(id(inode))
            raise
        if id(inode) not in self._given_up:
            inode.durable = bytes(inode.data)

    def close(self, handle: int) -> None:
        if self.life.alive:
            super().close(handle)

    def _call(self, name: str) -> None:
        self.life.step(name)
        super()._call(name)
        if self.health.fails():
            raise OSError(self.rng.choice(CODES), name)
        if self.health.is_full and name in ("write", "create"):
            raise OSError(errno.ENOSPC, name)


class Connection(sqlite3.Connection):
    """A connection that fails and dies at the borders of a transaction."""

    database: "Database"
    life: Life

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql.startswith("BEGIN"):
            self.life.step("begin")
            self.database.maybe_fail()
        elif sql == "COMMIT":
            return self._commit()
        elif sql.startswith("INSERT INTO outbox_body"):
            self.database.maybe_fail()
        elif not self.life.alive and sql != "ROLLBACK":
            raise CrashError(sql)
        return super().execute(sql, parameters)

    def _commit(self) -> sqlite3.Cursor:
        self.life.step("before commit")
        try:
            self.database.maybe_fail()
        except sqlite3.OperationalError:
            if self.database.rng.random() < 0.5:
                self._haunt()
            raise
        done = super().execute("COMMIT")
        self.database.image, self.database.ghost = self.serialize(), None
        self.life.step("after commit")
        return done

    def _haunt(self) -> None:
        """Keep what would have been committed: it is what a next start may find.

        This connection has committed now, so the process goes on with one that has not.
        """
        super().execute("COMMIT")
        self.database.ghost = self.serialize()
        self.database.checkpoint.connection = self.database.connect()


class Noting(Checkpoint):
    """The real checkpoint; its database remembers what a start has read."""

    database: "Database"

    def load(self) -> Saved | None:
        self.database.saved = super().load()
        return self.database.saved

    def aside(self) -> frozenset[int]:
        found = super().aside()
        self.database.asides |= found
        return found


@dataclass(slots=True)
class Database:
    """What is on the disk of state.db. `ghost` is a commit that was said to have failed."""

    health: Health
    rng: random.Random
    image: bytes
    life: Life = field(default_factory=Life)
    ghost: bytes | None = None
    connections: list[Connection] = field(default_factory=list)
    checkpoint: Noting = field(init=False)
    saved: Saved | None = None
    asides: frozenset[int] = frozenset()  # that any start has met

    def begin(self, life: Life) -> None:
        """Let another process use the database."""
        self.life = life
        for each in self.connections:
            each.close()
        self.connections.clear()
        if self.ghost is not None and self.rng.random() < 0.5:
            self.image = self.ghost
        self.ghost = None

    def open(self, path: Path) -> Checkpoint:
        """Stand for `Checkpoint.open`."""
        self.checkpoint = Noting(path, self.connect())
        self.checkpoint.database = self
        return self.checkpoint

    def connect(self) -> Connection:
        """Open what was committed last."""
        connection = sqlite3.connect(":memory:", isolation_level=None, factory=Connection)
        connection.database, connection.life = self, self.life
        connection.deserialize(self.image)
        self.connections.append(connection)
        return connection

    def maybe_fail(self) -> None:
        """Raise: sqlite3.OperationalError when the disk does not take it now."""
        if self.health.is_full or self.health.fails():
            error = sqlite3.OperationalError("the simulated disk does not take it")
            error.sqlite_errorcode = self.rng.choice(SQL_CODES)
            raise error


@dataclass(slots=True)
class Segments:
    """Stands for `store.segment`: a segment is there whole, under its name, or it is not there."""

    health: Health
    life: Callable[[], Life]
    BLOOM_SUFFIX: str = ".bloom"

    def write(self, directory: Path, parts: Sequence[Part], first: int, last: int) -> Segment:
        self.life().step("before segment")
        name = f"seg-{first}-{last}"
        if self.health.is_full or self.health.fails():
            raise RetryableError(f"segment {name} cannot be written")
        numbers = [number for part in parts for number in part.clean.spans["trace_lo"].tolist()]
        path = directory / (name + SUFFIX)
        path.write_text(" ".join(map(str, numbers)))
        self.life().step("after segment")
        return Segment(
            path=path.name,
            first_sequence=first,
            last_sequence=last,
            rows=len(numbers),
            traces=len(numbers),
            bytes=8 * len(numbers),
            start_ns_min=0,
            start_ns_max=0,
            arrival_ns_max=max(int(part.arrival_ns.max()) for part in parts),
            summary=Summary(),
        )


def numbers_in(directory: Path, segments: Sequence[Segment]) -> list[int]:
    """Read the numbers of all spans that the catalogue's segments hold."""
    return [int(word) for each in segments for word in (directory / each.path).read_text().split()]
