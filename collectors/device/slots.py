"""The segments on disk: writing records, turning over to the next slot, sealing, hashing.

Law: the header that declares a victim gone is durable before the victim is touched. Sealed
segments form a chain: each names the SHA-256 of the one before it, so that history cannot be
changed or reordered without showing.
"""

import hashlib
import os
import struct
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from collectors.device import files
from collectors.device.evictions import Evicted, Reason
from collectors.device.recovery import Segment, open_files, recover
from collectors.device.segment import (
    DATA_OFFSET,
    NO_HASH,
    Entry,
    Header,
    State,
    block_offset,
    pack_header,
    record_bytes,
)

_CHAIN_HEAD: Final = struct.Struct("<QQ32s")


class Slots:
    """All segments of one ring; not safe for threads by itself."""

    def __init__(self, directory: Path, segments: int, segment_bytes: int, now_ns: int) -> None:
        self._files = open_files(directory, segments, segment_bytes)
        self._segment_bytes = segment_bytes
        found = recover(self._files, segment_bytes, now_ns)
        self._segments = found.segments
        self._revisions = found.revisions
        self._next_generation = found.next_generation
        self.next_sequence = found.next_sequence
        self.evictions = found.evictions
        self._current = None if found.current is None else found.segments[found.current]
        self._hasher = hashlib.sha256()
        if self._current is not None:
            self._hasher = self._hash_of(self._current)
            # What recovery declared must be durable before anything is appended.
            self._write_header(self._current, State.OPEN)

    @property
    def record_bytes_max(self) -> int:
        """Size of the largest record that fits."""
        return self._segment_bytes - DATA_OFFSET

    @property
    def generations(self) -> frozenset[int]:
        """Generations that can be read."""
        return frozenset(self._segments)

    def entries(self) -> Iterator[Entry]:
        """Walk all readable records in order of sequence."""
        for generation in sorted(self._segments):
            yield from self._segments[generation].entries

    def oldest(self) -> Entry | None:
        """Find the readable record with the lowest sequence number."""
        return next(self.entries(), None)

    def place(self, size: int, held: Collection[int]) -> tuple[int, int, list[Entry]]:
        """Make room for one record of a size.

        Shape: (generation, offset, records that were overwritten for it).
        """
        assert size <= self.record_bytes_max
        overwritten: list[Entry] = []
        if self._current is None or self._current.end + size > self._segment_bytes:
            overwritten = self._turn(held)
        assert self._current is not None
        return self._current.header.generation, self._current.end, overwritten

    def write(self, record: bytes, entry: Entry) -> None:
        """Write one record where `place` said.

        Raises OSError; then nothing has changed.
        """
        segment = self._segments[entry.generation]
        assert segment is self._current
        files.write_all(self._files[segment.slot], record, entry.offset)
        self._hasher.update(record)
        segment.entries.append(entry)
        segment.end += len(record)
        self.next_sequence = entry.sequence + 1

    def read(self, entry: Entry) -> bytes | None:
        """Read the bytes of a record as they are; None when its segment is gone."""
        segment = self._segments.get(entry.generation)
        if segment is None:
            return None
        return os.pread(self._files[segment.slot], record_bytes(entry.stored_bytes), entry.offset)

    def forget(self, entry: Entry) -> None:
        """Declare one record damaged."""
        self._segments[entry.generation].entries.remove(entry)
        self.evictions.add(
            Evicted(
                first_sequence=entry.sequence,
                last_sequence=entry.sequence,
                from_ns=entry.written_ns,
                to_ns=entry.written_ns,
                count=1,
                reason=Reason.CORRUPT,
            )
        )

    def declare_lost(self, from_ns: int, to_ns: int) -> None:
        """Spend one sequence number on records of a time that never reached the disk.

        Raises OSError when the declaration could not be made durable.
        """
        self.evictions.add(
            Evicted(
                first_sequence=self.next_sequence,
                last_sequence=self.next_sequence,
                from_ns=min(from_ns, to_ns),
                to_ns=max(from_ns, to_ns),
                count=1,
                reason=Reason.LOST,
            )
        )
        self.next_sequence += 1
        if self._current is not None:
            self._write_header(self._current, State.OPEN)

    def sealed_hash(self, generation: int) -> bytes | None:
        """Return the SHA-256 of a sealed segment; None for any other."""
        segment = self._segments.get(generation)
        if segment is None or segment.header.state is not State.SEALED:
            return None
        return segment.header.hash

    def broken(self) -> list[int]:
        """List generations whose bytes or whose place in the chain do not match their hash."""
        wrong = []
        for generation, segment in sorted(self._segments.items()):
            sealed = segment.header.state is State.SEALED
            before = self._segments.get(generation - 1)
            changed = sealed and self._hash_of(segment).digest() != segment.header.hash
            moved = before is not None and before.header.hash != segment.header.previous
            if changed or moved:
                wrong.append(generation)
        return wrong

    def sync(self) -> None:
        """Make all records durable."""
        if self._current is not None:
            os.fdatasync(self._files[self._current.slot])

    def close(self) -> None:
        """Mark the current segment as left cleanly and close the files; safe to call twice."""
        if self._files and self._current is not None:
            self._write_header(self._current, State.CLOSED)
        while self._files:
            os.close(self._files.pop())

    def _turn(self, held: Collection[int]) -> list[Entry]:
        slot = self._free_slot(held)
        overwritten = self._evict(slot)
        if self._current is not None:
            self._write_header(self._current, State.SEALED)
        before = self._segments.get(self._next_generation - 1)
        header = Header(
            state=State.OPEN,
            revision=self._revisions[slot],
            generation=self._next_generation,
            first_sequence=self.next_sequence,
            last_sequence=0,
            used_bytes=0,
            first_ns=0,
            last_ns=0,
            previous=NO_HASH if before is None else before.header.hash,
            hash=NO_HASH,
            evicted=self.evictions.rows,
        )
        segment = Segment(slot, header, [], DATA_OFFSET)
        # Twice, so that both blocks know this generation and damage to one loses nothing.
        self._write_header(segment, State.OPEN)
        self._write_header(segment, State.OPEN)
        self._segments[header.generation] = segment
        self._next_generation += 1
        self._current = segment
        self._hasher = hashlib.sha256(_chain_head(header))
        return overwritten

    def _free_slot(self, held: Collection[int]) -> int:
        taken = {segment.slot: generation for generation, segment in self._segments.items()}
        for slot in range(len(self._files)):
            if slot not in taken:
                return slot
        free = [
            (generation, slot)
            for slot, generation in taken.items()
            if generation not in held and self._segments[generation] is not self._current
        ]
        assert free, "pins are capped below the number of segments"
        return min(free)[1]

    def _evict(self, slot: int) -> list[Entry]:
        for generation, segment in list(self._segments.items()):
            if segment.slot != slot:
                continue
            del self._segments[generation]
            if segment.entries:
                times = [entry.written_ns for entry in segment.entries]
                # Numbers between its records that are not readable have a row of their own.
                for first, last in _runs(segment.entries):
                    self.evictions.add(
                        Evicted(
                            first_sequence=first,
                            last_sequence=last,
                            from_ns=min(times),
                            to_ns=max(times),
                            count=last - first + 1,
                            reason=Reason.OVERWRITTEN,
                        )
                    )
            return segment.entries
        return []

    def _write_header(self, segment: Segment, state: State) -> None:
        handle = self._files[segment.slot]
        times = [entry.written_ns for entry in segment.entries]
        revision = self._revisions[segment.slot] + 1
        header = replace(
            segment.header,
            state=state,
            revision=revision,
            last_sequence=self.next_sequence - 1,
            used_bytes=segment.end - DATA_OFFSET,
            first_ns=min(times, default=0),
            last_ns=max(times, default=0),
            hash=self._hasher.digest() if state is State.SEALED else NO_HASH,
            evicted=self.evictions.rows,
        )
        if state is not State.OPEN:
            os.fdatasync(handle)  # records before the header that counts them
        files.write_all(handle, pack_header(header), block_offset(revision))
        os.fdatasync(handle)
        self._revisions[segment.slot] = revision
        segment.header = header

    def _hash_of(self, segment: Segment) -> "hashlib._Hash":
        hasher = hashlib.sha256(_chain_head(segment.header))
        hasher.update(os.pread(self._files[segment.slot], segment.end - DATA_OFFSET, DATA_OFFSET))
        return hasher


def _chain_head(header: Header) -> bytes:
    return _CHAIN_HEAD.pack(header.generation, header.first_sequence, header.previous)


def _runs(entries: list[Entry]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for entry in entries:
        if runs and runs[-1][1] + 1 == entry.sequence:
            runs[-1] = (runs[-1][0], entry.sequence)
        else:
            runs.append((entry.sequence, entry.sequence))
    return runs
