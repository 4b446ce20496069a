"""The rows of the outbox: its tables, and what is read from and written to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.batch import Frame, Signal

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS outbox_body (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        signal TEXT NOT NULL,
        items INTEGER NOT NULL,
        raw_bytes INTEGER NOT NULL,
        body_bytes INTEGER NOT NULL,
        first_sequence INTEGER NOT NULL,
        last_sequence INTEGER NOT NULL,
        body BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE IF NOT EXISTS outbox_delivery (
        destination TEXT NOT NULL,
        body_id INTEGER NOT NULL,
        PRIMARY KEY (destination, body_id)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS outbox_dead (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        destination TEXT NOT NULL,
        signal TEXT NOT NULL,
        items INTEGER NOT NULL,
        reason TEXT NOT NULL,
        time_ns INTEGER NOT NULL,
        body_id INTEGER -- NULL when only some items of a delivered frame were refused
    ) STRICT""",
    """CREATE INDEX IF NOT EXISTS outbox_dead_body ON outbox_dead (body_id)
        WHERE body_id IS NOT NULL""",
    """CREATE TABLE IF NOT EXISTS outbox_count (
        destination TEXT NOT NULL,
        signal TEXT NOT NULL,
        pending_items INTEGER NOT NULL DEFAULT 0,
        forwarded_items INTEGER NOT NULL DEFAULT 0,
        dead_items INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (destination, signal)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS outbox_size (
        id INTEGER PRIMARY KEY CHECK (id = 1), bytes INTEGER NOT NULL
    ) STRICT""",
    "INSERT OR IGNORE INTO outbox_size VALUES (1, 0)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """One frame that a destination has not taken yet."""

    id: int
    signal: Signal
    items: int
    body: bytes
    raw_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Totals since the database was made; dead items stay counted when their letter is dropped."""

    pending_items: int = 0
    forwarded_items: int = 0
    dead_items: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Items that a destination refused for good.

    Units: body_bytes is 0 when no body is kept, and then the letter cannot be replayed.
    """

    id: int
    destination: str
    signal: Signal
    items: int
    reason: str
    time_ns: int
    body_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What became of some pending frames of one destination.

    `rejected` names for delivered frames how many items were refused and why; `split` replaces a
    frame by smaller ones.
    """

    delivered: tuple[int, ...] = ()
    rejected: Mapping[int, tuple[int, str]] = field(default_factory=dict)
    dead: tuple[tuple[int, str], ...] = ()
    split: tuple[tuple[int, tuple[Frame, ...]], ...] = ()
