"""The durable command table: dives, commands, chunks and what happened to them, in SQLite.

Law: it is committed and synced before anything is answered or any bell rings. It holds no decision,
only rows; a change is one transaction or none.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from gateway.batch import AnomalyId, DiveId
from gateway.errors import RetryableError, StartError
from gateway.retrieve.dive import (
    Command,
    Dive,
    Evicted,
    Listed,
    Manifest,
    Missing,
    Selector,
)
from gateway.retrieve.states import OPEN, State, state_of_dive

FILE_NAME: Final = "retrieve.db"
FILE_MODE: Final = 0o600
BUSY_TIMEOUT_S: Final = 5.0
HISTORY_ROWS_MAX: Final = 100_000

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS dive (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, reason TEXT NOT NULL, requested_by TEXT NOT NULL,
    anomaly_id TEXT, created_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
    not_after_ns INTEGER NOT NULL, max_bytes INTEGER NOT NULL, refusal TEXT NOT NULL,
    unplaced TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS dive_anomaly ON dive (anomaly_id) WHERE kind <> 'manual';
CREATE TABLE IF NOT EXISTS command (
    request_id TEXT PRIMARY KEY, home TEXT NOT NULL, device TEXT NOT NULL, kind TEXT NOT NULL,
    selector TEXT NOT NULL, priority INTEGER NOT NULL, max_bytes INTEGER NOT NULL,
    not_after_ns INTEGER NOT NULL, created_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL,
    state TEXT NOT NULL, reason TEXT NOT NULL, attempts INTEGER NOT NULL,
    lease_until_ns INTEGER NOT NULL, manifest TEXT, next_chunk INTEGER NOT NULL,
    next_trace INTEGER NOT NULL, received_bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS command_device ON command (device, state);
CREATE INDEX IF NOT EXISTS command_state ON command (state);
CREATE TABLE IF NOT EXISTS part (
    dive_id TEXT NOT NULL REFERENCES dive (id) ON DELETE CASCADE,
    request_id TEXT NOT NULL REFERENCES command (request_id) ON DELETE CASCADE,
    PRIMARY KEY (dive_id, request_id)
) STRICT;
CREATE INDEX IF NOT EXISTS part_request ON part (request_id);
CREATE TABLE IF NOT EXISTS chunk (
    request_id TEXT NOT NULL REFERENCES command (request_id) ON DELETE CASCADE,
    seq INTEGER NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (request_id, seq)
) STRICT;
CREATE TABLE IF NOT EXISTS opened (
    kind TEXT NOT NULL, at_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS history (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at_ns INTEGER NOT NULL, subject TEXT NOT NULL,
    before TEXT NOT NULL, after TEXT NOT NULL, reason TEXT NOT NULL, who TEXT NOT NULL
) STRICT;
"""

_COMMAND_COLUMNS: Final = (
    "request_id, home, device, kind, selector, priority, max_bytes, not_after_ns, created_ns,"
    " changed_ns, state, reason, attempts, lease_until_ns, manifest, next_chunk, next_trace,"
    " received_bytes"
)
_OPEN_STATES: Final = ", ".join(f"'{state}'" for state in sorted(OPEN))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRow:
    """One stored chunk. Units: bytes of OTLP before compression."""

    request_id: str
    seq: int
    sha256: str
    bytes: int


class Table:
    """The rows. One connection, used under the retriever's lock."""

    def __init__(self, directory: Path) -> None:
        """Open or create the table.

        Raises StartError when the file cannot be used.
        """
        try:
            # SQLite gives the files beside it the mode of the database.
            (directory / FILE_NAME).touch(mode=FILE_MODE)
            self._connection = sqlite3.connect(
                directory / FILE_NAME,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise StartError(f"{directory / FILE_NAME} cannot be opened: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inside at once, or nothing.

        Raises RetryableError when the disk does not take it now.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise RetryableError("the command table cannot be written now") from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    # Dives

    def insert_dive(self, dive: Dive) -> None:
        """Insert a dive; its commands are inserted and joined on their own."""
        self._connection.execute(
            "INSERT INTO dive VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                dive.id,
                dive.kind,
                dive.reason,
                dive.requested_by,
                dive.anomaly_id,
                dive.created_ns,
                dive.changed_ns,
                dive.not_after_ns,
                dive.max_bytes,
                dive.refusal,
                json.dumps([asdict(entry) for entry in dive.unplaced]),
            ),
        )

    def maybe_dive(self, dive_id: str) -> Dive | None:
        """Read a dive with its commands."""
        row = self._connection.execute("SELECT * FROM dive WHERE id = ?", (dive_id,)).fetchone()
        return None if row is None else self._dive(row)

    def maybe_dive_of(self, anomaly_id: str) -> Dive | None:
        """Read the dive that an anomaly opened by itself."""
        row = self._connection.execute(
            "SELECT * FROM dive WHERE anomaly_id = ? AND kind <> 'manual'", (anomaly_id,)
        ).fetchone()
        return None if row is None else self._dive(row)

    def dives(self, limit: int) -> list[Dive]:
        """Read the newest dives, newest first."""
        rows = self._connection.execute(
            "SELECT * FROM dive ORDER BY created_ns DESC, rowid DESC LIMIT ?", (limit,)
        ).fetchall()
        return [self._dive(row) for row in rows]

    def oldest_dives(self, beyond: int) -> list[str]:
        """Name the dives beyond the newest `beyond`, oldest first."""
        rows = self._connection.execute(
            "SELECT id FROM dive ORDER BY created_ns DESC, rowid DESC LIMIT -1 OFFSET ?", (beyond,)
        ).fetchall()
        return [row["id"] for row in reversed(rows)]

    def states(self) -> list[State]:
        """Read the state of every dive."""
        rows = self._connection.execute(
            "SELECT dive.id, dive.unplaced, group_concat(command.state) AS states FROM dive"
            " LEFT JOIN part ON part.dive_id = dive.id"
            " LEFT JOIN command ON command.request_id = part.request_id GROUP BY dive.id"
        ).fetchall()
        return [
            state_of_dive(
                [State(text) for text in (row["states"] or "").split(",") if text],
                unplaced=row["unplaced"] != "[]",
            )
            for row in rows
        ]

    def homes(self) -> set[str]:
        """Name the directories that hold chunks of present commands."""
        return {row[0] for row in self._connection.execute("SELECT home FROM command").fetchall()}

    def stored_bytes(self) -> int:
        """Sum the chunks on disk, before compression."""
        row = self._connection.execute("SELECT coalesce(sum(bytes), 0) FROM chunk").fetchone()
        return int(row[0])

    def dives_of(self, request_id: str) -> list[DiveId]:
        """Name the dives that a command serves."""
        rows = self._connection.execute(
            "SELECT dive_id FROM part WHERE request_id = ? ORDER BY dive_id", (request_id,)
        ).fetchall()
        return [DiveId(row["dive_id"]) for row in rows]

    def touch_dive(self, dive_id: str, now_ns: int) -> None:
        """Note the time of a change."""
        self._connection.execute("UPDATE dive SET changed_ns = ? WHERE id = ?", (now_ns, dive_id))

    def delete_dive(self, dive_id: str) -> list[Command]:
        """Delete a dive and those of its commands that serve no other; return these."""
        rows = self._connection.execute(
            f"SELECT {_COMMAND_COLUMNS} FROM command WHERE request_id IN"  # noqa: S608 - constants
            " (SELECT request_id FROM part WHERE dive_id = ?) AND request_id NOT IN"
            " (SELECT request_id FROM part WHERE dive_id <> ?)",
            (dive_id, dive_id),
        ).fetchall()
        for row in rows:
            self._connection.execute(
                "DELETE FROM command WHERE request_id = ?", (row["request_id"],)
            )
        self._connection.execute("DELETE FROM dive WHERE id = ?", (dive_id,))
        return [_command(row) for row in rows]

    # Commands

    def insert_command(self, command: Command) -> None:
        """Insert a command."""
        marks = ", ".join("?" * len(_COMMAND_COLUMNS.split(",")))
        self._connection.execute(f"INSERT INTO command VALUES ({marks})", _values(command))  # noqa: S608

    def update_command(self, command: Command) -> None:
        """Write a command's present state."""
        self._connection.execute(
            "UPDATE command SET changed_ns = ?, state = ?, reason = ?, attempts = ?,"
            " lease_until_ns = ?, manifest = ?, next_chunk = ?, next_trace = ?,"
            " received_bytes = ? WHERE request_id = ?",
            (*_values(command)[9:], command.request_id),
        )

    def join(self, dive_id: str, request_id: str) -> None:
        """Let a command serve a dive."""
        self._connection.execute("INSERT INTO part VALUES (?, ?)", (dive_id, request_id))

    def maybe_command(self, request_id: str) -> Command | None:
        """Read a command."""
        rows = self._select("request_id = ?", (request_id,))
        return rows[0] if rows else None

    def maybe_equal(self, device: str, kind: str, selector: Selector) -> Command | None:
        """Find an open command that asks a device for the same thing."""
        rows = self._select(
            f"device = ? AND kind = ? AND selector = ? AND state IN ({_OPEN_STATES})",
            (device, kind, _selector_text(selector)),
        )
        return rows[0] if rows else None

    def open_commands(self, device: str | None = None) -> list[Command]:
        """Read open commands, of all devices or one, lowest priority number first."""
        if device is None:
            return self._select(f"state IN ({_OPEN_STATES})", ())
        return self._select(f"device = ? AND state IN ({_OPEN_STATES})", (device,))

    # Chunks, budgets, history

    def insert_chunk(self, chunk: ChunkRow) -> None:
        """Insert a chunk that is on disk."""
        self._connection.execute(
            "INSERT INTO chunk VALUES (?, ?, ?, ?)",
            (chunk.request_id, chunk.seq, chunk.sha256, chunk.bytes),
        )

    def chunks(self, request_id: str) -> list[ChunkRow]:
        """Read a command's chunks in order."""
        rows = self._connection.execute(
            "SELECT * FROM chunk WHERE request_id = ? ORDER BY seq", (request_id,)
        ).fetchall()
        return [ChunkRow(**dict(row)) for row in rows]

    def count_opened(self, kind: str, since_ns: int) -> int:
        """Count dives of a class opened since a time; deleting a dive does not give it back."""
        self._connection.execute("DELETE FROM opened WHERE at_ns < ?", (since_ns,))
        row = self._connection.execute(
            "SELECT count(*) FROM opened WHERE kind = ?", (kind,)
        ).fetchone()
        return int(row[0])

    def insert_opened(self, kind: str, now_ns: int) -> None:
        """Count a dive against its class."""
        self._connection.execute("INSERT INTO opened VALUES (?, ?)", (kind, now_ns))

    def insert_history(
        self, now_ns: int, subject: str, before: str, after: str, reason: str, who: str
    ) -> None:
        """Write an audit record; the oldest beyond the limit go."""
        cursor = self._connection.execute(
            "INSERT INTO history (at_ns, subject, before, after, reason, who)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (now_ns, subject, before, after, reason, who),
        )
        self._connection.execute(
            "DELETE FROM history WHERE id <= ?", ((cursor.lastrowid or 0) - HISTORY_ROWS_MAX,)
        )

    def history(self, subject: str) -> list[tuple[int, str, str, str, str]]:
        """Read audit records of a dive or command: (at_ns, before, after, reason, who)."""
        rows = self._connection.execute(
            "SELECT at_ns, before, after, reason, who FROM history WHERE subject = ? ORDER BY id",
            (subject,),
        ).fetchall()
        return [tuple(row) for row in rows]

    def _select(self, where: str, values: Sequence[Any]) -> list[Command]:
        rows = self._connection.execute(
            f"SELECT {_COMMAND_COLUMNS} FROM command WHERE {where}"  # noqa: S608 - constants
            " ORDER BY priority, created_ns, request_id",
            values,
        ).fetchall()
        return [_command(row) for row in rows]

    def _dive(self, row: sqlite3.Row) -> Dive:
        commands = self._select(
            "request_id IN (SELECT request_id FROM part WHERE dive_id = ?)", (row["id"],)
        )
        return Dive(
            id=DiveId(row["id"]),
            kind=row["kind"],
            reason=row["reason"],
            requested_by=row["requested_by"],
            anomaly_id=None if row["anomaly_id"] is None else AnomalyId(row["anomaly_id"]),
            created_ns=row["created_ns"],
            changed_ns=row["changed_ns"],
            not_after_ns=row["not_after_ns"],
            max_bytes=row["max_bytes"],
            refusal=row["refusal"],
            unplaced=tuple(Missing(**entry) for entry in json.loads(row["unplaced"])),
            commands=tuple(sorted(commands, key=lambda command: command.device)),
        )


def _selector_text(selector: Selector) -> str:
    return json.dumps(asdict(selector), separators=(",", ":"))


def _values(command: Command) -> tuple[Any, ...]:
    return (
        command.request_id,
        command.home,
        command.device,
        command.kind,
        _selector_text(command.selector),
        command.priority,
        command.max_bytes,
        command.not_after_ns,
        command.created_ns,
        command.changed_ns,
        command.state,
        command.reason,
        command.attempts,
        command.lease_until_ns,
        None if command.manifest is None else json.dumps(asdict(command.manifest)),
        command.next_chunk,
        command.next_trace,
        command.received_bytes,
    )


def _command(row: sqlite3.Row) -> Command:
    values = dict(row)
    selector = json.loads(values["selector"])
    manifest = values["manifest"]
    return Command(
        **{
            **values,
            "selector": replace(Selector(**selector), trace_ids=tuple(selector["trace_ids"])),
            "state": State(values["state"]),
            "manifest": None if manifest is None else _manifest(json.loads(manifest)),
        }
    )


def _manifest(value: dict[str, Any]) -> Manifest:
    return Manifest(
        **{
            **value,
            "traces": tuple(Listed(**one) for one in value["traces"]),
            "absent": tuple(Missing(**one) for one in value["absent"]),
            "evicted": tuple(Evicted(**one) for one in value["evicted"]),
        }
    )
