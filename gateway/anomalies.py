"""The book of anomalies: what was raised, acknowledged and resolved, kept over restarts.

Law: an anomaly is known by its id, so one that a replay raises again changes nothing. The book in
memory is what people see; every change is written to the database before it is told to others.

Threads: `load` and `write` run in the storage thread, everything else on the event loop.
"""

import dataclasses
import json
import sqlite3
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from gateway.batch import Anomaly, AnomalyId, AnomalyKind, DiveId, Evidence, Severity, Team
from gateway.errors import ConflictError, NotFoundError

# The oldest resolved ones are forgotten first; open ones never are.
ANOMALIES_MAX: Final = 1_000

SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS anomaly ("
    " id TEXT PRIMARY KEY, raised_ns INTEGER NOT NULL, body TEXT NOT NULL) STRICT"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An anomaly and what people and dives have done about it."""

    anomaly: Anomaly
    acknowledged_by: str = ""
    acknowledged_ns: int | None = None
    dives: tuple[DiveId, ...] = ()

    @property
    def state(self) -> str:
        """firing, acknowledged or resolved."""
        if self.anomaly.resolved_ns is not None:
            return "resolved"
        return "acknowledged" if self.acknowledged_ns is not None else "firing"


@dataclass(slots=True)
class AnomalyBook:
    """All anomalies that are remembered, by id, oldest first."""

    entries: dict[AnomalyId, Entry] = field(default_factory=dict)

    def take(self, anomalies: Iterable[Anomaly]) -> tuple[list[Entry], list[Entry]]:
        """Add what is new, follow what changed or ended: (all changed entries, the new ones)."""
        changed, new = [], []
        for anomaly in anomalies:
            known = self.entries.get(anomaly.id)
            if known is None:
                entry = Entry(anomaly=anomaly)
                new.append(entry)
            elif known.anomaly != anomaly:
                # It became louder, ended, or burns again after all: the newest word counts.
                entry = replace(known, anomaly=anomaly)
            else:
                continue
            self.entries[anomaly.id] = entry
            changed.append(entry)
        self._forget()
        return changed, new

    def reconcile(self, open_ids: Container[AnomalyId], now_ns: int) -> list[Anomaly]:
        """End what the book still calls open and the measurements do not, after a crash.

        One of them may be raised again under its id at once; `take` opens it again then.
        """
        return [
            replace(anomaly, resolved_ns=now_ns)
            for anomaly in self.unresolved()
            if anomaly.id not in open_ids
        ]

    def acknowledge(self, anomaly_id: AnomalyId, principal: str, now_ns: int) -> Entry:
        """Note who looks after an anomaly.

        Raises: NotFoundError, ConflictError when it is resolved.
        """
        entry = self.get(anomaly_id)
        if entry.state == "resolved":
            raise ConflictError(f"anomaly {anomaly_id} is resolved already")
        if entry.acknowledged_ns is None:
            entry = replace(entry, acknowledged_by=principal, acknowledged_ns=now_ns)
            self.entries[anomaly_id] = entry
        return entry

    def link(self, anomaly_id: AnomalyId, dive: DiveId) -> Entry | None:
        """Note a dive that an anomaly opened; None when the anomaly is not known."""
        entry = self.entries.get(anomaly_id)
        if entry is None or dive in entry.dives:
            return entry
        self.entries[anomaly_id] = replace(entry, dives=(*entry.dives, dive))
        return self.entries[anomaly_id]

    def get(self, anomaly_id: AnomalyId) -> Entry:
        """Find one. Raises: NotFoundError."""
        if anomaly_id not in self.entries:
            raise NotFoundError(f"no anomaly {anomaly_id}")
        return self.entries[anomaly_id]

    def newest(self, state: str | None = None) -> list[Entry]:
        """List anomalies, newest first."""
        found = [e for e in self.entries.values() if state is None or e.state == state]
        return sorted(found, key=lambda entry: entry.anomaly.raised_ns, reverse=True)

    def unresolved(self) -> list[Anomaly]:
        """List the anomalies that are not resolved."""
        return [e.anomaly for e in self.entries.values() if e.anomaly.resolved_ns is None]

    def _forget(self) -> None:
        over = len(self.entries) - ANOMALIES_MAX
        if over <= 0:
            return
        resolved = [key for key, entry in self.entries.items() if entry.state == "resolved"]
        for key in resolved[:over]:
            del self.entries[key]


def prepare(connection: sqlite3.Connection) -> None:
    """Create the table."""
    connection.execute(SCHEMA)


def write(connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """Store changed entries and forget the oldest rows above the limit."""
    connection.executemany(
        "INSERT INTO anomaly VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        [
            (entry.anomaly.id, entry.anomaly.raised_ns, json.dumps(dataclasses.asdict(entry)))
            for entry in entries
        ],
    )
    connection.execute(
        "DELETE FROM anomaly WHERE id IN"
        " (SELECT id FROM anomaly ORDER BY raised_ns DESC LIMIT -1 OFFSET ?)",
        (2 * ANOMALIES_MAX,),
    )


def load(connection: sqlite3.Connection) -> AnomalyBook:
    """Read the book."""
    book = AnomalyBook()
    for anomaly_id, body in connection.execute("SELECT id, body FROM anomaly ORDER BY raised_ns"):
        data = json.loads(body)
        anomaly = data["anomaly"]
        book.entries[anomaly_id] = Entry(
            anomaly=Anomaly(
                **{
                    **anomaly,
                    "kind": AnomalyKind(anomaly["kind"]),
                    "severity": Severity(anomaly["severity"]),
                    "team": Team(anomaly["team"]),
                    "evidence": tuple(Evidence(**each) for each in anomaly["evidence"]),
                }
            ),
            acknowledged_by=data["acknowledged_by"],
            acknowledged_ns=data["acknowledged_ns"],
            dives=tuple(data["dives"]),
        )
    return book
