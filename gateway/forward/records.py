"""The rows of the outbox: its tables, and what is read from and written to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gateway.batch import Frame, Signal

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS outbox_body (
        id INTEGER PRIMARY KEY AUTOINCREMENT, -- in sending order, with room between for parts
        signal TEXT NOT NULL,
        items INTEGER NOT NULL,
        raw_bytes INTEGER NOT NULL,
        body_bytes INTEGER NOT NULL,
        first_sequence INTEGER NOT NULL,
        last_sequence INTEGER NOT NULL,
        body BLOB NOT NULL,
        added_ns INTEGER NOT NULL DEFAULT 0
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
        body_id INTEGER, -- NULL when there is nothing that could be sent again
        cause TEXT NOT NULL DEFAULT 'undeliverable',
        first_ns INTEGER NOT NULL DEFAULT 0,
        last_ns INTEGER NOT NULL DEFAULT 0
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
    # What dead_items is made of. Older databases have none: their rest has the default cause.
    """CREATE TABLE IF NOT EXISTS outbox_cause (
        destination TEXT NOT NULL,
        signal TEXT NOT NULL,
        cause TEXT NOT NULL,
        items INTEGER NOT NULL,
        PRIMARY KEY (destination, signal, cause)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS outbox_size (
        id INTEGER PRIMARY KEY CHECK (id = 1), bytes INTEGER NOT NULL
    ) STRICT""",
    "INSERT OR IGNORE INTO outbox_size VALUES (1, 0)",
    """CREATE TABLE IF NOT EXISTS outbox_dead_size (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        letters INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        forgotten_items INTEGER NOT NULL
    ) STRICT""",
    """INSERT OR IGNORE INTO outbox_dead_size SELECT 1, count(*), coalesce(sum(b.body_bytes), 0), 0
        FROM outbox_dead d LEFT JOIN outbox_body b ON b.id = d.body_id""",
)
# Columns that tables of older databases lack, and what needs them.
COLUMNS: Final = (
    ("outbox_body", "added_ns", "INTEGER NOT NULL DEFAULT 0"),
    ("outbox_dead", "cause", "TEXT NOT NULL DEFAULT 'undeliverable'"),
    ("outbox_dead", "first_ns", "INTEGER NOT NULL DEFAULT 0"),
    ("outbox_dead", "last_ns", "INTEGER NOT NULL DEFAULT 0"),
)
INDICES: Final = (
    "CREATE INDEX IF NOT EXISTS outbox_body_added ON outbox_body (added_ns)",
    """CREATE INDEX IF NOT EXISTS outbox_dead_bare ON outbox_dead
        (destination, signal, cause, reason) WHERE body_id IS NULL""",
)


class Cause(StrEnum):
    """Why items will not be forwarded."""

    REFUSED = "refused"  # a whole frame, for good; its body is kept
    REJECTED = "rejected"  # some items of a frame that was taken
    OUTBOX_FULL = "outbox_full"
    REMOVED = "destination_removed"
    ABSENT = "destination_absent"  # kept before the destination was there
    UNDELIVERABLE = "undeliverable"  # given up before causes were told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """One frame that a destination has not taken yet."""

    id: int
    signal: Signal
    items: int
    body: bytes
    raw_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """Which pending frames to read: at least one, then while they fit `bytes_max`.

    Without `live_since_ns`, the oldest. With it, what was added later is live and what was added
    before is backlog: live frames come first, and when there is also `backlog` it gets at least
    half of the bytes.
    """

    bytes_max: int
    live_since_ns: int | None = None
    backlog: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Totals since the database was made; dead items stay counted when their letter is dropped."""

    pending_items: int = 0
    forwarded_items: int = 0
    dead_items: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Items that will not be forwarded to a destination.

    Units: time_ns when the last of them died, first_ns and last_ns when the oldest and the newest
    of them came into the outbox; body_bytes is 0 when no body is kept, and then the letter cannot
    be replayed.
    """

    id: int
    destination: str
    signal: Signal
    items: int
    cause: str
    reason: str
    time_ns: int
    first_ns: int
    last_ns: int
    body_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters are meant; None is any.

    `reason` is a part of the cause or the reason, in any case; `through` the largest id.
    """

    ids: tuple[int, ...] | None = None
    destination: str | None = None
    signal: str | None = None
    reason: str | None = None
    through: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """A page of dead letters, and how many there are in all.

    `forgotten_items` are items whose letter had to make room for a newer one.
    """

    letters: tuple[DeadLetter, ...]
    total: int
    total_items: int
    total_bytes: int
    newest: int  # id of the newest letter that was selected, 0 when there is none
    forgotten_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of selected dead letters; `left` still wait, `kept` cannot be replayed."""

    letters: int
    items: int
    left: int
    kept: int


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
