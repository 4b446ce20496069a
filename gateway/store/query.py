"""Read rows back: by trace id, or by model, version, device, service, name and time.

Law: every query is bounded in rows and in segments; an answer that is not whole says why. A file
that retention removed while it was read counts as gone, a damaged one is named in `problems`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gateway.errors import InvalidQueryError
from gateway.store.catalogue import Segment
from gateway.store.columns import SCHEMA
from gateway.tables import Bool

TRACE_ROWS_MAX: Final = 10_000  # spans of one answered trace
TRACES_MAX: Final = 1_000  # traces of one query
SEGMENTS_PER_SEARCH_MAX: Final = 64

_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{1,32}")

HIT_COLUMNS: Final = (
    "trace_id",
    "span_id",
    "start_ns",
    "duration_ns",
    "name",
    "service",
    "model",
    "version",
    "device",
    "failed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What rows to look for; None asks nothing. Units: nanoseconds, both ends included."""

    model: str | None = None
    version: str | None = None
    device: str | None = None
    service: str | None = None
    name: str | None = None
    failed: bool | None = None
    duration_ns_min: int | None = None
    duration_ns_max: int | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    limit: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """The newest row of one trace that matched a query."""

    trace_id: str
    span_id: str
    start_ns: int
    duration_ns: int
    name: str
    service: str
    model: str
    version: str
    device: str
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Hits, newest first, one per trace; `problems` names what was not searched."""

    hits: tuple[Hit, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRows:
    """The rows of one trace as an Arrow table with columns SCHEMA."""

    trace_id: str
    table: Any
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.table.num_rows)


def words(trace_id: str) -> tuple[int, int]:
    """Read a trace id of up to 32 hex digits, any case, leading zeros optional.

    Raises: InvalidQueryError.
    """
    if not _TRACE_ID.fullmatch(trace_id):
        raise InvalidQueryError("a trace id is 1 to 32 hexadecimal digits")
    number = int(trace_id, 16)
    return number >> 64, number & (1 << 64) - 1


def text_of(trace: tuple[int, int]) -> str:
    """Write a trace id as 32 lower-case hex digits."""
    return f"{trace[0] << 64 | trace[1]:032x}"


def _open(path: Path) -> Any:
    return pq.ParquetFile(path, pre_buffer=False, memory_map=False)


def read_traces(path: Path, keys: Iterable[bytes]) -> Mapping[bytes, Any]:
    """Read the rows of some traces from one file: row-group bounds first, then one group each.

    Raises: OSError, pyarrow.ArrowException.
    """
    out: dict[bytes, list[Any]] = {}
    with _open(path) as file:
        bounds = [
            file.metadata.row_group(index).column(0).statistics
            for index in range(file.num_row_groups)
        ]
        for key in keys:
            for index, bound in enumerate(bounds):
                if bound is not None and not bound.min <= key <= bound.max:
                    continue
                ids = file.read_row_group(index, columns=["trace_id"], use_threads=False)
                mask = pc.equal(ids.column(0), pa.scalar(key, pa.binary(16)))
                if not pc.any(mask).as_py():
                    continue
                group = file.read_row_group(index, use_threads=False)
                out.setdefault(key, []).append(group.filter(mask))
    return {key: pa.concat_tables(tables) for key, tables in out.items()}


def read_columns(path: Path, columns: Sequence[str]) -> Any:
    """Read some columns of a whole file.

    Raises: OSError, pyarrow.ArrowException.
    """
    with _open(path) as file:
        return file.read(columns=list(columns), use_threads=False)


def gathered(trace_id: str, tables: Sequence[Any], problems: Sequence[str]) -> TraceRows:
    """Join what several places hold of one trace, oldest start first, up to the row limit."""
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    order = np.argsort(table.column("start_ns").to_numpy(), kind="stable")
    notes = list(problems)
    if len(order) > TRACE_ROWS_MAX:
        notes.append(f"the trace has {len(order)} spans, the oldest {TRACE_ROWS_MAX} are shown")
        order = order[:TRACE_ROWS_MAX]
    return TraceRows(trace_id=trace_id, table=table.take(pa.array(order)), problems=tuple(notes))


def _equals(column: Any, value: str) -> Bool:
    """Compare a dictionary column with one text by its indices."""
    masks: list[Bool] = []
    for chunk in column.chunks:
        code = pc.index(chunk.dictionary, pa.scalar(value, pa.string())).as_py()
        masks.append(
            chunk.indices.fill_null(-2).to_numpy() == code
            if code >= 0
            else np.zeros(len(chunk), dtype=np.bool_)
        )
    return np.concatenate(masks) if masks else np.zeros(0, dtype=np.bool_)


def matching(table: Any, query: Query) -> Any:
    """Keep the rows that match, newest first, one per trace, at most `limit`."""
    start = table.column("start_ns").to_numpy()
    mask = np.ones(len(start), dtype=np.bool_)
    if query.from_ns is not None:
        mask &= start >= np.uint64(max(0, query.from_ns))
    if query.to_ns is not None:
        mask &= start <= np.uint64(max(0, query.to_ns))
    for name in ("model", "version", "device", "service", "name"):
        value = getattr(query, name)
        if value is not None:
            mask &= _equals(table.column(name), value)
    if query.failed is not None:
        mask &= table.column("failed").to_numpy() == query.failed
    if query.duration_ns_min is not None or query.duration_ns_max is not None:
        duration = table.column("duration_ns").to_numpy()
        if query.duration_ns_min is not None:
            mask &= duration >= query.duration_ns_min
        if query.duration_ns_max is not None:
            mask &= duration <= query.duration_ns_max
    rows = np.flatnonzero(mask)
    rows = rows[np.argsort(start[rows], kind="stable")[::-1]]
    return table.select(list(HIT_COLUMNS)).take(pa.array(_newest_of_each(table, rows, query.limit)))


def _newest_of_each(table: Any, rows: Any, limit: int) -> Any:
    """Keep the first row of each trace until there are enough.

    Complexity: reads ids in slices, so that a query that matches everything stays cheap.
    """
    ids = table.column("trace_id")
    seen: set[bytes] = set()
    kept: list[int] = []
    for first in range(0, len(rows), 1024):
        some = rows[first : first + 1024]
        for row, key in zip(some.tolist(), ids.take(pa.array(some)).to_pylist(), strict=True):
            if key not in seen:
                seen.add(key)
                kept.append(row)
                if len(kept) == limit:
                    return np.array(kept, dtype=np.int64)
    return np.array(kept, dtype=np.int64)


def to_hits(table: Any) -> list[Hit]:
    """Read a table of HIT_COLUMNS as objects."""
    return [
        Hit(
            trace_id=row["trace_id"].hex(),
            span_id=row["span_id"].hex(),
            start_ns=row["start_ns"],
            duration_ns=row["duration_ns"],
            name=row["name"] or "",
            service=row["service"] or "",
            model=row["model"] or "",
            version=row["version"] or "",
            device=row["device"] or "",
            failed=row["failed"],
        )
        for row in table.to_pylist()
    ]


def newest(hits: Iterable[Hit], limit: int) -> list[Hit]:
    """Keep the newest hit of each trace, newest first."""
    best: dict[str, Hit] = {}
    for hit in sorted(hits, key=lambda item: (-item.start_ns, item.trace_id, item.span_id)):
        best.setdefault(hit.trace_id, hit)
        if len(best) == limit:
            break
    return list(best.values())


def candidates(segments: Iterable[Segment], query: Query) -> list[Segment]:
    """Choose the segments that may hold matching rows, the one with the newest row first."""
    chosen = [
        segment
        for segment in segments
        if (query.from_ns is None or segment.start_ns_max >= query.from_ns)
        and (query.to_ns is None or segment.start_ns_min <= query.to_ns)
        and segment.summary.may_hold(
            model=query.model, version=query.version, device=query.device, service=query.service
        )
    ]
    return sorted(chosen, key=lambda segment: -segment.start_ns_max)
