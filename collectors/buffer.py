"""What waits to be sent: requests in order, bounded in bytes, in memory or on disk.

Law: a request that was put in is taken out in order, or counted as dropped under one reason. Past
the limit the oldest go first. On disk, what was put in and not told `done` is taken again by the
next process: each request is sent at least once. Put and take are O(1). Not safe for threads by
itself: the client calls it under its lock, all but `done` and `sync`.

The disk buffer is the ring that devices keep traces in, with a mark of how far it was sent.
"""

import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from collectors.device.files import read_json, write_json
from collectors.device.ring import SEGMENTS_MIN, Ring
from collectors.device.segment import DATA_OFFSET, RECORD_HEAD_BYTES, Entry
from gateway.batch import Signal
from gateway.errors import CorruptDataError, StartError

BUFFER_BYTES_MIN: Final = 256 << 10
SEGMENT_BYTES: Final = 1 << 20
# A small buffer is cut into so many segments, as each is overwritten whole.
SEGMENTS_AIM: Final = 16
SEGMENT_BYTES_MIN: Final = 64 << 10
# What zstd may add to bytes that do not get smaller, generously.
_EXPANSION_BYTES: Final = 4 << 10
_MARK_FILE: Final = "sent.json"
_TIME_MAX_NS: Final = (1 << 63) - 1
# Key of a record in the ring: signal, items, its own number, so that each is found by its key.
_KEY: Final = struct.Struct("<III4x")
_SIGNALS: Final = (Signal.TRACES, Signal.METRICS, Signal.LOGS)


class Drop(StrEnum):
    """Why items were dropped before the gateway was asked, or without its answer."""

    BUFFER_FULL = "buffer_full"  # newer ones needed the space
    TOO_LARGE = "too_large"  # one request larger than the buffer takes
    DAMAGED = "damaged"  # a checksum failed, or the disk did
    STOPPED = "stopped"  # the process ended and the buffer was in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One encoded request and how many spans, data points or log records are in it."""

    signal: Signal
    items: int
    body: bytes
    sequence: int = 0


Count = Callable[[Drop, int], None]  # reason, items


class Buffer(Protocol):
    """What the client needs."""

    @property
    def items(self) -> int:
        """Items that wait, without the request that was taken last."""
        ...

    def put(self, signal: Signal, items: int, body: bytes) -> bool:
        """Add a request; False when it could not be kept, which is counted."""
        ...

    def maybe_take(self) -> Waiting | None:
        """Take the oldest request."""
        ...

    def done(self, waiting: Waiting) -> None:
        """Forget the request that was taken: it needs not be sent again."""
        ...

    def sync(self) -> None:
        """Make what waits survive a loss of power, if anything can."""
        ...

    def close(self, taken: Waiting | None) -> bool:
        """End; tell whether `taken`, which is not done, stays for the next process."""
        ...


class MemoryBuffer:
    """A queue of bodies; the one that is under way is not counted against the limit."""

    def __init__(self, bytes_max: int, count: Count) -> None:
        self._bytes_max = bytes_max
        self._count = count
        self._queue: deque[Waiting] = deque()
        self._bytes = 0
        self._items = 0

    @property
    def items(self) -> int:
        """Items that wait, without the request that was taken last."""
        return self._items

    def put(self, signal: Signal, items: int, body: bytes) -> bool:
        """Add a request, dropping the oldest until there is room."""
        if len(body) > self._bytes_max:
            self._count(Drop.TOO_LARGE, items)
            return False
        while self._bytes + len(body) > self._bytes_max:
            self._count(Drop.BUFFER_FULL, self._pop().items)
        self._queue.append(Waiting(signal=signal, items=items, body=body))
        self._bytes += len(body)
        self._items += items
        return True

    def maybe_take(self) -> Waiting | None:
        """Take the oldest request."""
        return self._pop() if self._queue else None

    def done(self, waiting: Waiting) -> None:
        """Nothing is left of what was taken."""

    def sync(self) -> None:
        """Nothing in memory survives."""

    def close(self, taken: Waiting | None) -> bool:
        """Count what nobody will send any more."""
        left = self._items + (taken.items if taken is not None else 0)
        if left:
            self._count(Drop.STOPPED, left)
        self._queue.clear()
        self._bytes = self._items = 0
        return False

    def _pop(self) -> Waiting:
        waiting = self._queue.popleft()
        self._bytes -= len(waiting.body)
        self._items -= waiting.items
        return waiting


class DiskBuffer:
    """A ring on disk and a mark of the last request that was done with.

    A segment of the ring is overwritten whole: past the limit at most a sixteenth of the buffer, or
    1 MiB, is dropped at once.
    """

    def __init__(
        self,
        directory: Path,
        bytes_max: int,
        count: Count,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open or create the buffer. Raises: StartError."""
        self._count = count
        self._clock = clock
        segment_bytes, segments = _shape(bytes_max)
        self._body_bytes_max = segment_bytes - DATA_OFFSET - RECORD_HEAD_BYTES - _EXPANSION_BYTES
        self._ring = Ring(directory, now_ns=clock(), segments=segments, segment_bytes=segment_bytes)
        self._mark_path = directory / _MARK_FILE
        mark = read_json(self._mark_path)
        self._done = mark if isinstance(mark, int) and 0 <= mark < self._ring.next_sequence else 0
        found = self._ring.find_written(0, _TIME_MAX_NS)
        self._queue: deque[Entry] = deque(
            sorted(
                (each for entries in found.values() for each in entries),
                key=lambda entry: entry.sequence,
            )
        )
        while self._queue and self._queue[0].sequence <= self._done:
            self._queue.popleft()
        self._items = sum(_items_of(entry) for entry in self._queue)

    @property
    def items(self) -> int:
        """Items that wait, without the request that was taken last."""
        return self._items

    def put(self, signal: Signal, items: int, body: bytes) -> bool:
        """Write a request; what it overwrote is dropped."""
        if len(body) > self._body_bytes_max:
            self._count(Drop.TOO_LARGE, items)
            return False
        number = self._ring.next_sequence
        key = _KEY.pack(_SIGNALS.index(signal), items, number & 0xFFFF_FFFF)
        try:
            pointer = self._ring.append(key, body, written_ns=self._clock())
        except OSError:
            pointer = None
        if pointer is None:
            self._count(Drop.DAMAGED, items)
            return False
        self._queue.extend(self._ring.find([key])[key][-1:])
        self._items += items
        self._drop_overwritten()
        return True

    def maybe_take(self) -> Waiting | None:
        """Take and read the oldest request that can be read."""
        while self._queue:
            entry = self._queue.popleft()
            self._items -= _items_of(entry)
            try:
                body = self._ring.read(entry)
            except (CorruptDataError, OSError):
                self._count(Drop.DAMAGED, _items_of(entry))
                continue
            code, items, _ = _KEY.unpack(entry.trace_id)
            return Waiting(signal=_SIGNALS[code], items=items, body=body, sequence=entry.sequence)
        return None

    def done(self, waiting: Waiting) -> None:
        """Move the mark behind a request.

        Raises: OSError when the disk does not take the mark: the request may be sent again.
        """
        write_json(self._mark_path, waiting.sequence)

    def sync(self) -> None:
        """Make what waits survive a loss of power. Raises: OSError."""
        self._ring.sync()

    def close(self, taken: Waiting | None) -> bool:
        """Leave the ring for the next process, which finds everything that is not done."""
        kept = taken is not None and self._is_there(taken.sequence)
        if taken is not None and not kept:
            self._count(Drop.BUFFER_FULL, taken.items)
        self._ring.close()
        return kept

    def _drop_overwritten(self) -> None:
        """Count the oldest that the last append took the space of."""
        while self._queue:
            entry = self._queue[0]
            if entry in self._ring.find([entry.trace_id]).get(entry.trace_id, ()):
                return
            self._queue.popleft()
            self._items -= _items_of(entry)
            self._count(Drop.BUFFER_FULL, _items_of(entry))

    def _is_there(self, sequence: int) -> bool:
        found = self._ring.find_written(0, _TIME_MAX_NS)
        return any(entry.sequence == sequence for rows in found.values() for entry in rows)


def open_buffer(directory: Path | None, bytes_max: int, count: Count) -> Buffer:
    """Make the buffer: in a directory, or in memory without one.

    Raises: StartError when the size is senseless or the directory cannot be used.
    """
    if bytes_max < BUFFER_BYTES_MIN:
        raise StartError(f"a buffer of {bytes_max} bytes is too small: {BUFFER_BYTES_MIN} at least")
    if directory is None:
        return MemoryBuffer(bytes_max, count)
    return DiskBuffer(directory, bytes_max, count)


def _shape(bytes_max: int) -> tuple[int, int]:
    """Choose bytes of a segment and their number; whole pages, never more than the limit."""
    segment = min(SEGMENT_BYTES, max(SEGMENT_BYTES_MIN, bytes_max // SEGMENTS_AIM))
    segment -= segment % DATA_OFFSET
    return segment, max(SEGMENTS_MIN, bytes_max // segment)


def _items_of(entry: Entry) -> int:
    items: int = _KEY.unpack(entry.trace_id)[1]
    return items
