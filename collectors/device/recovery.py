"""Opening the ring's files: what is intact, what is gone, where writing goes on.

Law: after any crash every sequence number ever given out is either an intact record or lies in
the evictions table. Where the time of what is gone cannot be known, all of time is claimed.
"""

import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from collectors.device import files
from collectors.device.evictions import (
    TIME_MAX_NS,
    TIME_MIN_NS,
    Evicted,
    Evictions,
    Reason,
    gaps,
)
from collectors.device.segment import (
    DATA_OFFSET,
    Entry,
    Header,
    State,
    newest_header,
    record_bytes,
    scan,
)
from gateway.errors import StartError

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700


@dataclass(slots=True)
class Segment:
    """One slot's segment in memory; `end` is the offset behind its last record."""

    slot: int
    header: Header
    entries: list[Entry]
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What the files hold.

    Shape: segments by generation; revisions[slot] is the newest revision seen there. `current` is
    the generation to write on, None when the next record needs a new segment.
    """

    segments: dict[int, Segment]
    revisions: list[int]
    evictions: Evictions
    current: int | None
    next_sequence: int
    next_generation: int


def open_files(directory: Path, segments: int, segment_bytes: int) -> list[int]:
    """Open or create all segment files at their full size, for one process at a time.

    Raises StartError when the directory is not writable or holds a ring of another shape.
    """
    handles: list[int] = []
    try:
        directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if (directory / _name(segments)).exists():
            raise StartError(f"ring in {directory} has more than {segments} segments")
        for slot in range(segments):
            handle = os.open(directory / _name(slot), os.O_RDWR | os.O_CREAT, FILE_MODE)
            handles.append(handle)
            size = os.fstat(handle).st_size
            if size == 0:
                os.posix_fallocate(handle, 0, segment_bytes)
            elif size != segment_bytes:
                raise StartError(f"ring in {directory} has segments of {size} bytes")
        fcntl.flock(handles[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        files.sync_directory(directory)
    except (OSError, StartError) as error:
        for handle in handles:
            os.close(handle)
        if isinstance(error, StartError):
            raise
        raise StartError(f"ring in {directory} cannot be opened: {error.strerror}") from error
    return handles


def recover(handles: list[int], segment_bytes: int, now_ns: int) -> Recovered:
    """Scan all segments and account for every sequence number.

    Units: now_ns is the time of opening; what was lost in a crash was written before it.
    """
    segments: dict[int, Segment] = {}
    revisions = [0] * len(handles)
    for slot, handle in enumerate(handles):
        buffer = os.pread(handle, segment_bytes, 0)
        header = newest_header(buffer[:DATA_OFFSET])
        if header is not None:
            revisions[slot] = header.revision
            segments[header.generation] = Segment(slot, header, *scan(buffer, header))
    if not segments:
        return Recovered(
            segments={},
            revisions=revisions,
            evictions=Evictions(),
            current=None,
            next_sequence=1,
            next_generation=1,
        )
    newest = segments[max(segments)]
    table = Evictions(newest.header.evicted)
    last = _last_sequence(segments.values(), table)
    _account(segments.values(), table, last)
    if newest.header.state is State.OPEN:
        row = _lost(last, segments, segment_bytes, now_ns)
        last = row.last_sequence
        table.add(row)
    return Recovered(
        segments={
            generation: segment
            for generation, segment in segments.items()
            if segment.entries or segment is newest
        },
        revisions=revisions,
        evictions=table,
        current=None if newest.header.state is State.SEALED else newest.header.generation,
        next_sequence=last + 1,
        next_generation=newest.header.generation + 1,
    )


def _name(slot: int) -> str:
    return f"ring-{slot:04d}.seg"


def _last_sequence(segments: Iterable[Segment], table: Evictions) -> int:
    last = max((row.last_sequence for row in table.rows), default=0)
    for segment in segments:
        last = max(last, segment.header.first_sequence - 1)
        if segment.header.state is not State.OPEN:
            last = max(last, segment.header.last_sequence)
        if segment.entries:
            last = max(last, segment.entries[-1].sequence)
    return last


def _account(segments: Iterable[Segment], table: Evictions, last: int) -> None:
    """Declare every sequence number up to `last` that is neither readable nor declared."""
    known = [(entry.sequence, entry.sequence) for item in segments for entry in item.entries]
    headers = [item.header for item in segments if item.header.state is not State.OPEN]
    for first, final in gaps([*known, (last + 1, last + 1)], table):
        row = Evicted(
            first_sequence=first,
            last_sequence=final,
            from_ns=TIME_MIN_NS,
            to_ns=TIME_MAX_NS,
            count=final - first + 1,
            reason=Reason.CORRUPT,
        )
        for header in headers:
            if header.first_sequence <= first and final <= header.last_sequence:
                row = replace(row, from_ns=header.first_ns, to_ns=header.last_ns)
        table.add(row)


def _lost(last: int, segments: dict[int, Segment], segment_bytes: int, now_ns: int) -> Evicted:
    """Claim the time between the last record that is safe and now.

    How many records followed is not known, so every number that the open segment could have given
    out is claimed and never given again; numbers are not scarce. The clock is trusted not to have
    run backwards in between.
    """
    safe = [entry for generation in sorted(segments) for entry in segments[generation].entries]
    latest_ns = safe[-1].written_ns if safe else TIME_MIN_NS
    return Evicted(
        first_sequence=last + 1,
        last_sequence=last + (segment_bytes - DATA_OFFSET) // record_bytes(1),
        from_ns=min(latest_ns, now_ns),
        to_ns=max(latest_ns, now_ns),
        count=1,
        reason=Reason.LOST,
    )
