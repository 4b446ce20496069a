"""The calls of webhooks: one row for each hook and anomaly, kept over restarts.

Law: a row is made once and never again, so that an anomaly that is told again, by an escalation or
by a replay, makes no second call. A row goes from waiting to one end and stays there; the database
refuses every step back, in whatever order changes reach it. Rows of anomalies that are over are
forgotten, the oldest first; of open ones only those of calls that were never made, and only where
there is no room. Cost: a call is entered and ended in constant time; `forget` reads all rows.

Threads: `prepare`, `load` and `write` run in the storage thread, everything else on the event loop.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from gateway.batch import AnomalyId

# Calls that are remembered, but for those that wait and those of open anomalies.
CALLS_MAX: Final = 4096
# Calls that are remembered with those; while there are so many, a further one ends at once.
ALL_CALLS_MAX: Final = 4 * CALLS_MAX
# Calls that wait for one hook; a further one ends at once.
WAITING_MAX: Final = 256

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS retrain_call (
        hook TEXT NOT NULL, -- digest of the URL, which may hold a secret
        anomaly TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        created_ns INTEGER NOT NULL,
        changed_ns INTEGER NOT NULL,
        error TEXT NOT NULL,
        body TEXT NOT NULL, -- empty when nothing waits any more
        PRIMARY KEY (hook, anomaly)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS retrain_total (
        state TEXT PRIMARY KEY, calls INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
)

Key = tuple[str, AnomalyId]


class CallState(StrEnum):
    """What became of a call."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    REFUSED = "refused"  # for good, by the receiver
    EXPIRED = "expired"  # nobody took it in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One anomaly for one hook.

    Units: created_ns and changed_ns Unix nanoseconds; `attempts` are those that were answered or
    failed.
    """

    hook: str
    anomaly_id: AnomalyId
    endpoint: str  # scheme, host and port only
    created_ns: int
    changed_ns: int
    body: str
    state: CallState = CallState.WAITING
    attempts: int = 0
    error: str = ""

    @property
    def key(self) -> Key:
        """Hook and anomaly."""
        return self.hook, self.anomaly_id


@dataclass(slots=True)
class CallBook:
    """All calls that are remembered, oldest first, and how many ever ended in which state.

    `queues` has for each hook the calls that wait, `hooks` are those of all calls, `open` the
    anomalies that are not over; `unsaved` are calls that are not in the database yet, `forgotten`
    those to be deleted there.
    """

    calls: dict[Key, Call] = field(default_factory=dict)
    totals: Counter[CallState] = field(default_factory=Counter)
    queues: defaultdict[str, dict[Key, None]] = field(default_factory=lambda: defaultdict(dict))
    hooks: set[str] = field(default_factory=set)
    open: set[AnomalyId] = field(default_factory=set)
    unsaved: dict[Key, None] = field(default_factory=dict)
    forgotten: dict[Key, None] = field(default_factory=dict)

    def enter(self, call: Call) -> None:
        """Take a call that is in the database, once."""
        assert call.key not in self.calls
        self.calls[call.key] = call
        self.hooks.add(call.hook)
        if call.state is CallState.WAITING:
            self.queues[call.hook][call.key] = None

    def add(self, call: Call) -> None:
        """Take a new call, once."""
        self.enter(call)
        self.unsaved[call.key] = None
        self.forgotten.pop(call.key, None)
        if call.state is not CallState.WAITING:
            self.totals[call.state] += 1

    def change(self, call: Call) -> None:
        """Take the newer state of a call that waited."""
        assert self.calls[call.key].state is CallState.WAITING
        self.calls[call.key] = call
        if call.state is not CallState.WAITING:
            self.totals[call.state] += 1
            del self.queues[call.hook][call.key]

    def has_room(self, hook: str) -> bool:
        """Tell whether one more call of a hook may wait."""
        return len(self.queues[hook]) < WAITING_MAX and len(self.calls) < ALL_CALLS_MAX

    def waiting(self, hook: str | None = None) -> list[Call]:
        """List the calls that wait, of one hook or of all, oldest first."""
        if hook is not None:
            return [self.calls[key] for key in self.queues[hook]]
        return [call for call in self.calls.values() if call.state is CallState.WAITING]

    def of(self, anomaly_id: AnomalyId) -> list[Call]:
        """List the calls of one anomaly, in the order of their hooks."""
        keys = [(hook, anomaly_id) for hook in sorted(self.hooks)]
        return [self.calls[key] for key in keys if key in self.calls]

    def forget(self) -> None:
        """Make room: forget what is over, then what was never made of what is not."""
        if len(self.calls) <= CALLS_MAX:
            return
        ended = [
            call
            for key, call in self.calls.items()
            if call.state is not CallState.WAITING and key not in self.unsaved
        ]
        over = [call for call in ended if call.anomaly_id not in self.open]
        self._drop(over[: len(self.calls) - CALLS_MAX])
        if len(self.calls) > ALL_CALLS_MAX:
            unmade = [call for call in ended if call.anomaly_id in self.open and not call.attempts]
            self._drop(unmade[: len(self.calls) - ALL_CALLS_MAX])

    def _drop(self, calls: Iterable[Call]) -> None:
        for call in calls:
            del self.calls[call.key]
            self.forgotten[call.key] = None


def prepare(connection: sqlite3.Connection) -> None:
    """Create the tables."""
    for statement in SCHEMA:
        connection.execute(statement)


def write(
    connection: sqlite3.Connection, calls: Iterable[Call], forgotten: Sequence[Key] = ()
) -> None:
    """Store calls as they are now, unless the database knows more; delete what is forgotten."""
    for call in calls:
        changed = connection.execute(
            "INSERT INTO retrain_call VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (hook, anomaly) DO UPDATE SET state = excluded.state,"
            " attempts = excluded.attempts, changed_ns = excluded.changed_ns,"
            " error = excluded.error, body = excluded.body"
            " WHERE state = 'waiting' AND attempts <= excluded.attempts",
            (
                call.hook,
                call.anomaly_id,
                call.endpoint,
                call.state.value,
                call.attempts,
                call.created_ns,
                call.changed_ns,
                call.error,
                call.body,
            ),
        ).rowcount
        if changed == 1 and call.state is not CallState.WAITING:
            connection.execute(
                "INSERT INTO retrain_total VALUES (?, 1)"
                " ON CONFLICT (state) DO UPDATE SET calls = calls + 1",
                (call.state.value,),
            )
    connection.executemany("DELETE FROM retrain_call WHERE hook = ? AND anomaly = ?", forgotten)


def load(connection: sqlite3.Connection) -> CallBook:
    """Read the book."""
    book = CallBook()
    for row in connection.execute(
        "SELECT hook, anomaly, endpoint, state, attempts, created_ns, changed_ns, error, body"
        " FROM retrain_call ORDER BY created_ns, hook, anomaly"
    ):
        hook, anomaly, endpoint, state, attempts, created_ns, changed_ns, error, body = row
        call = Call(
            hook=hook,
            anomaly_id=AnomalyId(anomaly),
            endpoint=endpoint,
            state=CallState(state),
            attempts=attempts,
            created_ns=created_ns,
            changed_ns=changed_ns,
            error=error,
            body=body,
        )
        book.enter(call)
    for state, count in connection.execute("SELECT state, calls FROM retrain_total"):
        book.totals[CallState(state)] = count
    return book
