"""state.db: the core's state, the cursors, and the transaction that every writer shares.

Law: what one `transaction` writes is on disk after it, wholly, or it never happened. The database
is in WAL mode with synchronous=FULL: SQLite syncs the write-ahead log at each COMMIT, and the
database file before the log is overwritten, so that a commit survives a power cut; with NORMAL it
would survive only a crash of the process. A cursor may lag behind what was done, never lead it:
replay from it repeats work whose effect is not in the same database.

Threads: the connection belongs to the storage thread. Others read through `readonly`.
"""

import io
import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import google_crc32c
import numpy as np
import zstandard
from numpy.typing import NDArray

from gateway.batch import Json
from gateway.errors import CorruptDataError, JournalUnavailableError, StartError

STATE_VERSION: Final = 1
STATE_BYTES_MAX: Final = 1 << 30
ARRAYS_MAX: Final = 65_536
NAME_BYTES_MAX: Final = 4096
ZSTD_LEVEL: Final = 1

BUSY_TIMEOUT_S: Final = 10.0
FILE_MODE: Final = 0o600
# A burst may grow the log; after the next reset it is cut back to this.
WAL_BYTES_KEPT: Final = 16 << 20

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS checkpoint (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    cursor INTEGER NOT NULL,
    outbox_cursor INTEGER NOT NULL,
    meta TEXT NOT NULL,
    state BLOB NOT NULL
) STRICT;
-- Apart from the checkpoint, whose large row a flush must not write again.
CREATE TABLE IF NOT EXISTS outbox_note (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    cursor INTEGER NOT NULL,
    note TEXT NOT NULL
) STRICT;
-- Journal records that are not to be read, because reading them ended the process.
CREATE TABLE IF NOT EXISTS set_aside (sequence INTEGER PRIMARY KEY) STRICT;
"""

# SQLite keeps the kind of an error in the low byte of its code.
_PRIMARY_CODE: Final = 0xFF
_UNAVAILABLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
    }
)
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

# version, checksum of the compressed arrays
_STATE: Final = struct.Struct("<II")
_COUNT: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What the last checkpoint said: everything up to `cursor` is in `arrays` and `meta`.

    `outbox_note` is what was noted with the outbox cursor, None when nothing was.
    """

    cursor: int
    outbox_cursor: int
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Json]
    outbox_note: Json = None


class Checkpoint:
    """The one writing connection to state.db."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self.connection = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create the database.

        Raises: StartError when it cannot be opened or is no database.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite gives the files beside it the mode of the database.
            path.touch(mode=FILE_MODE)
            connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            # Must come before the first table, else the file never shrinks.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}").fetchone()
            connection.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise StartError(f"the database {path} cannot be opened: {error}") from error
        return cls(path, connection)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the body in BEGIN IMMEDIATE … COMMIT; any exception rolls back.

        Raises: JournalUnavailableError when the disk or a lock does not allow it now,
        CorruptDataError when the database itself is damaged.
        """
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            finally:
                # After a failed COMMIT, too, nothing may stay open.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
            if code in _UNAVAILABLE:
                raise JournalUnavailableError(f"the database cannot be written: {error}") from error
            if code in _DAMAGED:
                raise CorruptDataError(f"the database is damaged: {error}") from error
            raise

    def load(self) -> Saved | None:
        """Read the last checkpoint, None when there never was one.

        Raises: CorruptDataError.
        """
        try:
            row = self.connection.execute(
                "SELECT c.cursor, c.outbox_cursor, c.meta, c.state, n.note FROM checkpoint c"
                " LEFT JOIN outbox_note n ON n.id = c.id"
            ).fetchone()
        except sqlite3.DatabaseError as error:
            raise CorruptDataError(f"the checkpoint cannot be read: {error}") from error
        if row is None:
            return None
        cursor, outbox_cursor, meta, state, note = row
        try:
            values = json.loads(meta)
            noted = json.loads(note) if note is not None else None
        except ValueError as error:
            raise CorruptDataError("the checkpoint's meta or note is not JSON") from error
        return Saved(
            cursor=cursor,
            outbox_cursor=outbox_cursor,
            arrays=unpack_arrays(state),
            meta=values,
            outbox_note=noted,
        )

    def save(
        self,
        connection: sqlite3.Connection,
        cursor: int,
        arrays: Mapping[str, NDArray[Any]],
        meta: Mapping[str, Json],
    ) -> None:
        """Replace the checkpoint within the caller's transaction; the outbox cursor stays."""
        connection.execute(
            "INSERT INTO checkpoint VALUES (1, ?1, 0, ?2, ?3) ON CONFLICT (id) DO UPDATE"
            " SET cursor = ?1, meta = ?2, state = ?3",
            (cursor, json.dumps(dict(meta), sort_keys=True), pack_arrays(arrays)),
        )
        connection.execute("DELETE FROM set_aside WHERE sequence <= ?", (cursor,))

    def set_aside(self, connection: sqlite3.Connection, sequence: int) -> None:
        """Note a journal record that is not to be read until a checkpoint is past it."""
        connection.execute("INSERT OR IGNORE INTO set_aside VALUES (?)", (sequence,))

    def aside(self) -> frozenset[int]:
        """List the journal records that are not to be read."""
        rows = self.connection.execute("SELECT sequence FROM set_aside").fetchall()
        return frozenset(sequence for (sequence,) in rows)

    def set_outbox_cursor(
        self, connection: sqlite3.Connection, sequence: int, note: Json = None
    ) -> None:
        """Say that the frames of all batches up to `sequence` are in the outbox.

        `note` is kept with the cursor; like the cursor it never goes back to a lower sequence.
        """
        connection.execute(
            "INSERT INTO checkpoint VALUES (1, 0, ?1, '{}', ?2) ON CONFLICT (id) DO UPDATE"
            " SET outbox_cursor = max(outbox_cursor, ?1)",
            (sequence, pack_arrays({})),
        )
        if note is not None:
            connection.execute(
                "INSERT INTO outbox_note VALUES (1, ?1, ?2) ON CONFLICT (id) DO UPDATE"
                " SET cursor = ?1, note = ?2 WHERE cursor <= ?1",
                (sequence, json.dumps(note, sort_keys=True)),
            )

    def readonly(self) -> sqlite3.Connection:
        """Open a connection that can only read, for use in any one other thread."""
        uri = self._path.resolve().as_uri() + "?mode=ro"
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA query_only = ON")
        return connection

    def close(self) -> None:
        """Close the connection; the last one to close folds the log into the database."""
        self.connection.close()


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Write named arrays, each in numpy's own format without pickle, as one zstd blob."""
    buffer = io.BytesIO()
    buffer.write(_COUNT.pack(len(arrays)))
    for name, array in arrays.items():
        text = name.encode()
        buffer.write(_COUNT.pack(len(text)))
        buffer.write(text)
        np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=False)
    body = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(buffer.getbuffer())
    return _STATE.pack(STATE_VERSION, google_crc32c.value(body)) + body


def unpack_arrays(blob: bytes) -> dict[str, NDArray[Any]]:
    """Read what `pack_arrays` wrote.

    Raises: CorruptDataError.
    """
    if len(blob) < _STATE.size:
        raise CorruptDataError("the saved state is cut off")
    version, check = _STATE.unpack_from(blob)
    body = blob[_STATE.size :]
    if version != STATE_VERSION:
        raise CorruptDataError(f"the saved state has version {version}, known is {STATE_VERSION}")
    if google_crc32c.value(body) != check:
        raise CorruptDataError("the saved state does not fit its checksum")
    try:
        raw = zstandard.ZstdDecompressor().decompress(body, max_output_size=STATE_BYTES_MAX)
        return _read_arrays(io.BytesIO(raw))
    except (zstandard.ZstdError, struct.error, ValueError, EOFError) as error:
        raise CorruptDataError(f"the saved state cannot be read: {error}") from error


def _read_arrays(buffer: io.BytesIO) -> dict[str, NDArray[Any]]:
    (count,) = _COUNT.unpack(buffer.read(_COUNT.size))
    if count > ARRAYS_MAX:
        raise ValueError(f"{count} arrays")
    arrays: dict[str, NDArray[Any]] = {}
    for _ in range(count):
        (length,) = _COUNT.unpack(buffer.read(_COUNT.size))
        if length > NAME_BYTES_MAX:
            raise ValueError(f"name of {length} bytes")
        name = buffer.read(length).decode()
        array: NDArray[Any] = np.lib.format.read_array(buffer, allow_pickle=False)
        arrays[name] = array
    return arrays
