"""Which segments exist: one SQLite row per Parquet file, and the same list in memory.

Law: a file counts as part of the store only once its row is committed. The connection belongs to
the caller, who owns the transaction; nothing here begins or commits one.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from gateway.batch import Json

SUMMARY_DEVICES_MAX: Final = 256  # past it a segment says "any device"
SUMMARY_NAMES_MAX: Final = 512  # (service, operation, kind) triples and (model, version) pairs

_SPACE_MAX: Final = 1 << 20  # combinations that are ticked off in a table instead of sorted

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS segments (
    first_sequence INTEGER PRIMARY KEY,
    last_sequence  INTEGER NOT NULL,
    path           TEXT NOT NULL UNIQUE,
    rows           INTEGER NOT NULL,
    traces         INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    start_ns_min   TEXT NOT NULL, -- decimal: a device may claim any 64-bit time
    start_ns_max   TEXT NOT NULL,
    arrival_ns_max INTEGER NOT NULL,
    summary        TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A span name of a service; `kind` is the OTLP enum number."""

    service: str
    name: str
    kind: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Which names occur in a segment; None means that there are too many to list."""

    models: frozenset[tuple[str, str]] | None = field(default_factory=frozenset)
    devices: frozenset[str] | None = field(default_factory=frozenset)
    operations: frozenset[Operation] | None = field(default_factory=frozenset)

    def may_hold(
        self, *, model: str | None, version: str | None, device: str | None, service: str | None
    ) -> bool:
        """Tell whether a row with these names may be in the segment."""
        if self.devices is not None and device is not None and device not in self.devices:
            return False
        asked = model is not None or version is not None
        if asked and self.models is not None:
            pairs = self.models
            if not any(model in (None, m) and version in (None, v) for m, v in pairs):
                return False
        return (
            self.operations is None
            or service is None
            or any(operation.service == service for operation in self.operations)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One sealed Parquet file.

    Units: bytes counts the file and its Bloom filter; times are Unix nanoseconds.
    """

    path: str  # file name in the store's folder
    first_sequence: int
    last_sequence: int
    rows: int
    traces: int
    bytes: int
    start_ns_min: int
    start_ns_max: int
    arrival_ns_max: int
    summary: Summary


def _distinct(table: Any, names: list[str]) -> list[tuple[Any, ...]]:
    """List the distinct combinations of some columns, dictionaries read by index."""
    values: list[list[Any]] = []
    space = 1
    code = np.zeros(table.num_rows, dtype=np.int64)
    for name in names:
        column = table.column(name).combine_chunks()
        if hasattr(column, "dictionary"):
            known = [*column.dictionary.to_pylist(), None]
            index = column.indices.fill_null(len(known) - 1).to_numpy()
        else:
            found, index = np.unique(column.to_numpy(), return_inverse=True)
            known = found.tolist()
        values.append(known)
        code = code * len(known) + index
        space *= len(known)
    rows: list[tuple[Any, ...]] = []
    if space <= _SPACE_MAX:
        used = np.zeros(space, dtype=np.bool_)
        used[code] = True
        distinct = np.flatnonzero(used)
    else:
        distinct = np.unique(code)
    for number in distinct.tolist():
        row: list[Any] = []
        for known in reversed(values):
            number, place = divmod(number, len(known))
            row.append(known[place])
        rows.append(tuple(reversed(row)))
    return rows


def summarize(table: Any) -> Summary:
    """List the names that occur in a table of rows."""
    devices = [row[0] for row in _distinct(table, ["device"]) if row[0] is not None]
    models = [row for row in _distinct(table, ["model", "version"]) if row[0] is not None]
    operations = [
        Operation(service=row[0] or "", name=row[1] or "", kind=int(row[2]))
        for row in _distinct(table, ["service", "name", "kind"])
    ]
    return Summary(
        models=frozenset(models) if len(models) <= SUMMARY_NAMES_MAX else None,
        devices=frozenset(devices) if len(devices) <= SUMMARY_DEVICES_MAX else None,
        operations=frozenset(operations) if len(operations) <= SUMMARY_NAMES_MAX else None,
    )


def _to_json(summary: Summary) -> str:
    document: dict[str, Json] = {
        "models": None if summary.models is None else sorted(summary.models),
        "devices": None if summary.devices is None else sorted(summary.devices),
        "operations": None
        if summary.operations is None
        else sorted((item.service, item.name, item.kind) for item in summary.operations),
    }
    return json.dumps(document, separators=(",", ":"))


def _from_json(text: str) -> Summary:
    document: Mapping[str, Json] = json.loads(text)
    models, devices, operations = (document[key] for key in ("models", "devices", "operations"))
    return Summary(
        models=None if models is None else frozenset((pair[0], pair[1]) for pair in models),
        devices=None if devices is None else frozenset(devices),
        operations=None
        if operations is None
        else frozenset(Operation(service=s, name=n, kind=k) for s, n, k in operations),
    )


def prepare(connection: sqlite3.Connection) -> None:
    """Create the table when it is not there."""
    connection.execute(_TABLE)


def insert(connection: sqlite3.Connection, segment: Segment) -> None:
    """Add a sealed file to the catalogue."""
    connection.execute(
        "INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            segment.first_sequence,
            segment.last_sequence,
            segment.path,
            segment.rows,
            segment.traces,
            segment.bytes,
            str(segment.start_ns_min),
            str(segment.start_ns_max),
            segment.arrival_ns_max,
            _to_json(segment.summary),
        ),
    )


def delete(connection: sqlite3.Connection, segments: Iterable[Segment]) -> None:
    """Forget files."""
    connection.executemany(
        "DELETE FROM segments WHERE first_sequence = ?",
        [(segment.first_sequence,) for segment in segments],
    )


def load(connection: sqlite3.Connection) -> list[Segment]:
    """Read all rows, oldest first."""
    rows = connection.execute(
        "SELECT path, first_sequence, last_sequence, rows, traces, bytes, start_ns_min,"
        " start_ns_max, arrival_ns_max, summary FROM segments ORDER BY first_sequence"
    )
    return [
        Segment(
            path=row[0],
            first_sequence=row[1],
            last_sequence=row[2],
            rows=row[3],
            traces=row[4],
            bytes=row[5],
            start_ns_min=int(row[6]),
            start_ns_max=int(row[7]),
            arrival_ns_max=row[8],
            summary=_from_json(row[9]),
        )
        for row in rows
    ]
