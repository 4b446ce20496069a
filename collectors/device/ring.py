"""The bounded on-disk ring that remembers every full trace until its space is needed again.

Law: a record is served exactly as it was appended or not at all, and whatever was once appended
and cannot be served lies in the evictions table, through any crash. Space is fixed at creation;
the oldest unpinned segment is overwritten whole. Append, find and read are O(1) per record.

The ring has no clock and no thread: time is an argument, callers may come from any thread.
"""

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import zstandard

from collectors.device.evictions import Evicted, overlaps
from collectors.device.pins import Pin, Pins
from collectors.device.segment import (
    DATA_OFFSET,
    RECORD_HEAD_BYTES,
    TRACE_ID_BYTES,
    Entry,
    Flag,
    maybe_record,
    pack_record,
    record_bytes,
)
from collectors.device.slots import Slots
from gateway.errors import CorruptDataError

SEGMENTS: Final = 64
SEGMENT_BYTES: Final = 1 << 20
SEGMENTS_MIN: Final = 4
SEGMENT_BYTES_MIN: Final = 2 * DATA_OFFSET
PINNED_SHARE_MAX: Final = 0.4
COMPRESSION_LEVEL: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """The name of one record, as the compact span carries it."""

    generation: int
    sequence: int

    def __str__(self) -> str:
        return f"ring:{self.generation}/{self.sequence}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RingStats:
    """How the ring is. Units: horizon_ns Unix nanoseconds of the oldest readable record."""

    records: int
    evicted: int
    refused: int
    horizon_ns: int | None


class Ring:
    """See the module. One process at a time owns a directory."""

    def __init__(
        self,
        directory: Path,
        *,
        now_ns: int,
        segments: int = SEGMENTS,
        segment_bytes: int = SEGMENT_BYTES,
        compress: bool = True,
    ) -> None:
        """Create the ring in a directory, or recover the one that is there.

        Raises StartError when the files cannot be made or have another size.
        """
        assert segments >= SEGMENTS_MIN
        assert segment_bytes >= SEGMENT_BYTES_MIN
        self._lock = threading.RLock()
        self._slots = Slots(directory, segments, segment_bytes, now_ns)
        self.pins_max = int(segments * PINNED_SHARE_MAX)  # segments
        self._pins = Pins(directory, self.pins_max)
        self._index: dict[bytes, list[Entry]] = {}
        self._records = 0
        for entry in self._slots.entries():
            self._index.setdefault(entry.trace_id, []).append(entry)
            self._records += 1
        self._refused = 0
        self._compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL) if compress else None

    # Writing

    def append(
        self,
        trace_id: bytes,
        payload: bytes,
        *,
        written_ns: int,
        first: bool = False,
        last: bool = False,
    ) -> Pointer | None:
        """Write one record; None when it is empty or does not fit into a segment.

        `first` promises that no earlier record of this trace exists, `last` that none will follow.
        Raises OSError when the device's disk fails.
        """
        assert len(trace_id) == TRACE_ID_BYTES
        flags = (Flag.FIRST if first else 0) | (Flag.LAST if last else 0)
        with self._lock:
            stored = payload
            if self._compressor is not None:
                stored = self._compressor.compress(payload)
                flags |= Flag.COMPRESSED
            size = record_bytes(len(stored))
            if not payload or size > self._slots.record_bytes_max:
                self._refused += 1
                return None
            generation, offset, gone = self._slots.place(size, self._pins.held(written_ns))
            self._drop(gone)
            entry = Entry(
                generation=generation,
                sequence=self._slots.next_sequence,
                written_ns=written_ns,
                offset=offset,
                stored_bytes=len(stored),
                raw_bytes=len(payload),
                flags=flags,
                trace_id=trace_id,
            )
            self._slots.write(pack_record(entry, stored), entry)
            self._index.setdefault(trace_id, []).append(entry)
            self._records += 1
            return Pointer(generation=generation, sequence=entry.sequence)

    def declare_lost(self, from_ns: int, to_ns: int) -> None:
        """State that records of a time were dropped before they came here.

        Raises OSError when the device's disk fails.
        """
        with self._lock:
            self._slots.declare_lost(from_ns, to_ns)

    def sync(self) -> None:
        """Make everything appended so far survive a loss of power."""
        with self._lock:
            self._slots.sync()

    def close(self) -> None:
        """Leave the ring so that the next opening finds nothing lost."""
        with self._lock:
            self._slots.close()

    # Reading

    @contextmanager
    def still(self) -> Iterator[None]:
        """Hold the ring still, so that what is found is also what gets pinned."""
        with self._lock:
            yield

    def find(self, trace_ids: Iterable[bytes]) -> dict[bytes, tuple[Entry, ...]]:
        """Find the records of traces; ids without a record are left out."""
        with self._lock:
            return {key: tuple(self._index[key]) for key in trace_ids if key in self._index}

    def find_written(self, from_ns: int, to_ns: int) -> dict[bytes, tuple[Entry, ...]]:
        """Find the records written in [from_ns, to_ns], in order of sequence."""
        found: dict[bytes, list[Entry]] = {}
        with self._lock:
            for entry in self._slots.entries():
                if from_ns <= entry.written_ns <= to_ns:
                    found.setdefault(entry.trace_id, []).append(entry)
        return {key: tuple(entries) for key, entries in found.items()}

    def read(self, entry: Entry) -> bytes:
        """Read one record's payload.

        Raises CorruptDataError when it was overwritten or is damaged.
        """
        with self._lock:
            buffer = self._slots.read(entry)
            if buffer is None:
                raise CorruptDataError(f"record {entry.sequence} was overwritten")
            found = maybe_record(buffer, 0, entry.generation)
            if found is None or replace(found, offset=entry.offset) != entry:
                self._forget(entry)
                raise CorruptDataError(f"record {entry.sequence} fails its checksum")
        stored = buffer[RECORD_HEAD_BYTES:]
        if not entry.flags & Flag.COMPRESSED:
            return stored
        return zstandard.ZstdDecompressor().decompress(stored)

    def evicted(self) -> tuple[Evicted, ...]:
        """List what is gone."""
        with self._lock:
            return self._slots.evictions.rows

    def missing(self, entries: Collection[Entry]) -> bool:
        """Tell whether a record of a trace may be gone, given all that were found of it.

        With its first record here, only something written later can be missing.
        """
        with self._lock:
            begin = next((entry for entry in entries if entry.flags & Flag.FIRST), None)
            if begin is None:
                return bool(self._slots.evictions.rows)
            if begin.flags & Flag.LAST:
                return False
            return self._slots.evictions.after(begin.sequence)

    def missing_between(self, from_ns: int, to_ns: int) -> bool:
        """Tell whether a record written in [from_ns, to_ns] may be gone."""
        return any(overlaps(row, from_ns, to_ns) for row in self.evicted())

    def hashes(self, generations: Iterable[int]) -> list[tuple[int, bytes]]:
        """List (generation, SHA-256) of those segments that are sealed."""
        with self._lock:
            found = [(entry, self._slots.sealed_hash(entry)) for entry in sorted(set(generations))]
        return [(generation, digest) for generation, digest in found if digest is not None]

    def broken(self) -> list[int]:
        """List generations that were changed behind the ring's back; reads every segment."""
        with self._lock:
            return self._slots.broken()

    def stats(self) -> RingStats:
        """Count what is held and what is gone."""
        with self._lock:
            oldest = self._slots.oldest()
            return RingStats(
                records=self._records,
                evicted=self._slots.evictions.count,
                refused=self._refused,
                horizon_ns=None if oldest is None else oldest.written_ns,
            )

    @property
    def next_sequence(self) -> int:
        """Sequence number of the next record; 1 in a new ring."""
        return self._slots.next_sequence

    # Pins

    def pin(self, name: str, entries: Iterable[Entry], *, priority: int, until_ns: int) -> bool:
        """Keep the segments of these records until a time; False when the cap says no."""
        generations = frozenset(entry.generation for entry in entries)
        with self._lock:
            if not generations <= self._slots.generations:
                return False
            return self._pins.add(
                Pin(name=name, priority=priority, until_ns=until_ns, generations=generations)
            )

    def unpin(self, name: str) -> None:
        """Let go; unknown names are ignored."""
        with self._lock:
            self._pins.remove(name)

    def pinned(self) -> frozenset[str]:
        """Name all present pins."""
        with self._lock:
            return self._pins.names

    def _drop(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            rest = self._index[entry.trace_id]
            rest.remove(entry)
            if not rest:
                del self._index[entry.trace_id]
            self._records -= 1

    def _forget(self, entry: Entry) -> None:
        # A second reader may find the same damage after the first one has told it.
        if entry in self._index.get(entry.trace_id, ()):
            self._slots.forget(entry)
            self._drop([entry])
