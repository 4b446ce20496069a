"""The store: pending rows, sealed segments, and questions over both.

Law: a row is answered from exactly one place. It is pending from `add` until `settle`, and in a
segment afterwards; `settle` is called when the transaction that holds the catalogue row is
committed. If that transaction fails nothing was lost: the rows are still pending, and the next
`write_segment` writes them again.

Threads: `add` runs in the core thread, writing in the storage thread, questions in any. One lock
guards the two lists; it is never held while a file is read or written.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import pyarrow as pa

from gateway.batch import Batch, Clean, Findings, Verdict
from gateway.errors import CorruptDataError, InvalidQueryError, StartError
from gateway.store import catalogue, query, segment
from gateway.store.bloom import Bloom
from gateway.store.catalogue import Operation, Segment
from gateway.store.columns import Part, build, join, make_part
from gateway.store.query import Found, Hit, Query, TraceRows

ARROW_CPU_THREADS: Final = 1  # the two cores belong to the network and to the core thread
ARROW_IO_THREADS: Final = 1


def limit_threads() -> None:
    """Set the size of pyarrow's thread pools for the whole process; `app` calls it once."""
    pa.set_cpu_count(ARROW_CPU_THREADS)
    pa.set_io_thread_count(ARROW_IO_THREADS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What `recover` found: files it deleted, and files that are gone although catalogued."""

    segments: int
    deleted: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """What retention removed. Counts add up over the life of the process."""

    segments: int = 0
    rows: int = 0
    bytes: int = 0


class Store:
    """Rows of this site, found by trace id and by name and time."""

    def __init__(self, directory: Path, *, bytes_max: int, age_max_s: float) -> None:
        self._directory = directory
        self._bytes_max = bytes_max
        self._age_max_ns = int(age_max_s * 1e9)
        self._contracts: tuple[str, ...] = ()
        self._lock = Lock()
        self._pending: list[Part] = []
        self._segments: dict[int, Segment] = {}  # by first sequence, oldest first
        self._blooms: dict[int, Bloom] = {}
        self._writing_through = -1
        self._stale: list[str] = []  # files whose transaction failed
        self._retired = Retired()

    @staticmethod
    def open(
        directory: Path, *, bytes_max: int, age_max_s: float, contracts: Sequence[str] = ()
    ) -> "Store":
        """Open the folder and create it when missing.

        Raises: StartError.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StartError(f"store folder {directory} cannot be made: {error}") from error
        store = Store(directory, bytes_max=bytes_max, age_max_s=age_max_s)
        store.use_contracts(contracts)
        return store

    def use_contracts(self, contracts: Sequence[str]) -> None:
        """Name the contracts that `Findings.contract` of later batches points to."""
        self._contracts = tuple(contracts)

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Create the catalogue's table."""
        catalogue.prepare(connection)

    # Filling and sealing

    def add(self, clean: Clean, batch: Batch, findings: Findings, verdict: Verdict) -> None:
        """Keep the rows of one batch until they are sealed; they can be found at once."""
        if len(clean.spans) == 0:
            return
        part = make_part(clean, batch, findings, verdict, self._contracts)
        with self._lock:
            self._pending.append(part)

    @property
    def pending_rows(self) -> int:
        """Count the rows that no segment that is written or being written holds."""
        with self._lock:
            return sum(part.rows for part in self._unwritten())

    @property
    def pending_bytes(self) -> int:
        """Sum the memory of the rows that `pending_rows` counts."""
        with self._lock:
            return sum(part.bytes for part in self._unwritten())

    def _unwritten(self) -> Iterable[Part]:
        return (part for part in self._pending if part.sequence > self._writing_through)

    def write_segment(self, first_sequence: int, last_sequence: int) -> Segment | None:
        """Write the pending rows of these batches to disk; None when there are none.

        Raises: RetryableError when the disk does not take it; the rows stay pending.
        """
        with self._lock:
            parts = [
                part for part in self._pending if first_sequence <= part.sequence <= last_sequence
            ]
            before, self._writing_through = self._writing_through, last_sequence
        written: Segment | None = None
        try:
            if parts:
                written = segment.write(self._directory, parts, first_sequence, last_sequence)
        finally:
            if written is None:
                with self._lock:
                    self._writing_through = before
            del parts
            pa.default_memory_pool().release_unused()
        return written

    def publish(self, connection: sqlite3.Connection, sealed: Segment) -> None:
        """Add the catalogue row, in the caller's transaction."""
        catalogue.insert(connection, sealed)

    def take_back(self, written: Segment) -> None:
        """Count the rows of a segment as pending again, because its transaction failed.

        The file stays until the next commit: after a crash the disk may yet show a commit that was
        said to have failed.
        """
        with self._lock:
            self._writing_through = written.first_sequence - 1
            self._stale.append(written.path)

    def settle(self, sealed: Segment) -> None:
        """Serve these rows from the file from now on; call it after the commit."""
        with self._lock:
            stale, self._stale = {*self._stale} - {sealed.path}, []
            self._segments[sealed.first_sequence] = sealed
            self._pending = [
                part
                for part in self._pending
                if not sealed.first_sequence <= part.sequence <= sealed.last_sequence
            ]
        for name in stale:
            path = self._directory / name
            with suppress(OSError):  # what stays is deleted at the next start
                path.unlink(missing_ok=True)
                path.with_suffix(segment.BLOOM_SUFFIX).unlink(missing_ok=True)

    # Start and retention

    def recover(self, connection: sqlite3.Connection) -> Recovered:
        """Read the catalogue, delete files it does not know, name files that are missing."""
        present: dict[int, Segment] = {}
        known: set[str] = set()
        missing: list[str] = []
        for row in catalogue.load(connection):
            path = self._directory / row.path
            known |= {path.name, path.with_suffix(segment.BLOOM_SUFFIX).name}
            if path.exists():
                present[row.first_sequence] = row
            else:
                missing.append(row.path)
        deleted: list[str] = []
        for path in sorted(self._directory.iterdir()):
            if path.name.startswith("seg-") and path.name not in known:
                path.unlink()
                deleted.append(path.name)
        with self._lock:
            self._segments = present
            self._blooms = {}
        return Recovered(segments=len(present), deleted=tuple(deleted), missing=tuple(missing))

    def retain(self, connection: sqlite3.Connection, now_ns: int) -> Retired:
        """Remove the oldest segments until size and age are within their limits.

        A crash between unlink and commit leaves a row without a file, which `recover` names.
        """
        rows = catalogue.load(connection)
        total = sum(row.bytes for row in rows)
        old: list[Segment] = []
        for row in rows:
            if total <= self._bytes_max and row.arrival_ns_max >= now_ns - self._age_max_ns:
                continue
            old.append(row)
            total -= row.bytes
        catalogue.delete(connection, old)
        with self._lock:
            for row in old:
                self._segments.pop(row.first_sequence, None)
                self._blooms.pop(row.first_sequence, None)
        for row in old:
            path = self._directory / row.path
            path.unlink(missing_ok=True)
            path.with_suffix(segment.BLOOM_SUFFIX).unlink(missing_ok=True)
        retired = Retired(
            segments=len(old),
            rows=sum(row.rows for row in old),
            bytes=sum(row.bytes for row in old),
        )
        self._retired = Retired(
            segments=self._retired.segments + retired.segments,
            rows=self._retired.rows + retired.rows,
            bytes=self._retired.bytes + retired.bytes,
        )
        return retired

    @property
    def retired(self) -> Retired:
        """Tell what retention removed since the process started."""
        return self._retired

    @property
    def bytes_used(self) -> int:
        """Sum the size of all segments on disk."""
        with self._lock:
            return sum(item.bytes for item in self._segments.values())

    @property
    def segments(self) -> tuple[Segment, ...]:
        """List the segments, oldest first."""
        with self._lock:
            return tuple(self._segments.values())

    # Questions

    def find_trace(self, trace_id: str) -> TraceRows:
        """Collect the rows of one trace, oldest start first; no rows when it is not known.

        Raises: InvalidQueryError when the id is not hexadecimal.
        """
        pair = query.words(trace_id)
        return self.find_traces([trace_id])[query.text_of(pair)]

    def find_traces(self, trace_ids: Sequence[str]) -> Mapping[str, TraceRows]:
        """Collect the rows of several traces, by id in full lower-case form.

        Raises: InvalidQueryError when an id is not hexadecimal or there are too many.
        """
        if len(trace_ids) > query.TRACES_MAX:
            raise InvalidQueryError(f"ask for at most {query.TRACES_MAX} traces at a time")
        traces = list(dict.fromkeys(query.words(trace_id) for trace_id in trace_ids))
        with self._lock:
            pending, segments = list(self._pending), list(self._segments.values())
        tables: dict[bytes, list[Any]] = {_key(trace): [] for trace in traces}
        problems: list[str] = []
        for item in segments:
            maybe = self._maybe_in(item, traces, problems)
            found = self._read(item, partial(query.read_traces, keys=maybe), problems)
            for key, table in (found or {}).items():
                tables[key].append(table)
        _find_pending(pending, tables)
        return {
            query.text_of(trace): query.gathered(
                query.text_of(trace), tables[_key(trace)], problems
            )
            for trace in traces
        }

    def search(self, wanted: Query) -> Found:
        """Find the newest traces with a row that matches."""
        wanted = replace(wanted, limit=max(1, min(wanted.limit, query.TRACES_MAX)))
        with self._lock:
            pending, segments = list(self._pending), list(self._segments.values())
        problems: list[str] = []
        hits: list[Hit] = []
        if pending:
            hits = query.to_hits(query.matching(build(join(pending), fields=False), wanted))
        chosen = query.candidates(segments, wanted)
        for index, item in enumerate(chosen):
            hits = query.newest(hits, wanted.limit)
            if len(hits) == wanted.limit and hits[-1].start_ns >= item.start_ns_max:
                break
            if index == query.SEGMENTS_PER_SEARCH_MAX:
                problems.append(f"only the newest {index} of {len(chosen)} segments were searched")
                break
            table = self._read(
                item, partial(query.read_columns, columns=query.HIT_COLUMNS), problems
            )
            if table is not None:
                hits += query.to_hits(query.matching(table, wanted))
        return Found(hits=tuple(query.newest(hits, wanted.limit)), problems=tuple(problems))

    def operations(self) -> frozenset[Operation]:
        """List the services and span names of all rows that the summaries name."""
        with self._lock:
            pending, segments = list(self._pending), list(self._segments.values())
        out: set[Operation] = set()
        for item in segments:
            out |= item.summary.operations or frozenset()
        if pending:
            summary = catalogue.summarize(build(join(pending), fields=False))
            out |= summary.operations or frozenset()
        return frozenset(out)

    def _maybe_in(
        self, item: Segment, traces: list[tuple[int, int]], problems: list[str]
    ) -> list[bytes]:
        """Keep the traces that a segment may hold; all of them when its filter is damaged."""
        bloom = self._blooms.get(item.first_sequence)
        try:
            if bloom is None:
                path = (self._directory / item.path).with_suffix(segment.BLOOM_SUFFIX)
                bloom = Bloom.open(path)
                with self._lock:
                    if item.first_sequence in self._segments:
                        self._blooms[item.first_sequence] = bloom
            answers = bloom.maybe_holds(traces)
        except CorruptDataError as error:
            if (self._directory / item.path).exists():
                problems.append(str(error))
            answers = [True] * len(traces)
        return [_key(trace) for trace, maybe in zip(traces, answers, strict=True) if maybe]

    def _read(self, item: Segment, read: Callable[[Path], Any], problems: list[str]) -> Any | None:
        """Read from a segment; None when retention removed it or it is damaged."""
        try:
            return read(self._directory / item.path)
        except FileNotFoundError:
            with self._lock:
                if item.first_sequence in self._segments:
                    problems.append(f"segment {item.path} is missing")
        except (OSError, pa.ArrowException) as error:
            problems.append(f"segment {item.path} is damaged: {error}")
        return None


def _key(trace: tuple[int, int]) -> bytes:
    return (trace[0] << 64 | trace[1]).to_bytes(16, "big")


def _find_pending(pending: Sequence[Part], tables: Mapping[bytes, list[Any]]) -> None:
    """Add the rows of some traces that are not sealed yet."""
    low = np.array([int.from_bytes(key[8:], "big") for key in tables], dtype=np.uint64)
    for part in pending:
        lows = part.clean.spans["trace_lo"]
        rows = np.flatnonzero(lows == low[0] if len(low) == 1 else np.isin(lows, low))
        if len(rows) == 0:
            continue
        table = build(join([part]), rows)
        ids = table.column("trace_id").to_pylist()
        for key in {*ids} & tables.keys():
            mine = np.array([index for index, value in enumerate(ids) if value == key])
            tables[key].append(table.take(pa.array(mine)))
