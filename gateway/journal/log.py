"""The journal: append-only segments in which every acknowledged request is on disk.

Law: what `append` returned for is replayed exactly once and in order after any crash; a damaged
frame costs itself and nothing else. A file is written only by the process that created it: every
open starts a new segment, whose header says where the one before it ended, so that bytes behind
that end, left by a write or a sync that failed, never come back.

Threads: `append` belongs to one thread, `release` to another; replay comes before both.
"""

import contextlib
import logging
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import zstandard

from gateway.errors import (
    CorruptDataError,
    JournalUnavailableError,
    PayloadTooLargeError,
    StartError,
)
from gateway.journal.cipher import SALT_BYTES, Keys, Sealer, missing_key
from gateway.journal.files import Files
from gateway.journal.frame import (
    SEGMENT_HEADER_BYTES_MAX,
    ZSTD_LEVEL,
    Entry,
    GroupRecord,
    SegmentHeader,
    build_frame,
    pack,
    pack_segment,
    seed_of,
)
from gateway.journal.quarantine import Quarantine
from gateway.journal.scan import read_record, stretches
from gateway.journal.segment import (
    Segment,
    find_segments,
    inspect,
    learn_id,
    only_ours,
    segment_name,
    write_all,
)

__all__ = ["Entry", "GroupRecord", "Journal"]

log = logging.getLogger(__name__)

SEGMENT_BYTES: Final = 64 << 20
# A segment can be given back only as a whole, so at least this many must fit below the limit.
SEGMENTS_MIN: Final = 4

_LOCK_NAME: Final = "lock"
_NEW_NAME: Final = "segment.new"


class Journal:
    """One directory of segments, held by one process."""

    def __init__(
        self,
        directory: Path,
        *,
        bytes_max: int,
        fsync: bool,
        segment_bytes: int,
        free_bytes_min: int,
        keys: Keys,
        files: Files,
    ) -> None:
        self._directory = directory
        self._files = files
        self._fsync = fsync
        self._bytes_max = bytes_max
        self._free_bytes_min = free_bytes_min
        self._keys = keys
        self._sealer: Sealer | None = None
        self._segment_bytes = min(segment_bytes, bytes_max // SEGMENTS_MIN)
        # zstandard objects must not be shared by threads: this one belongs to `append`.
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self._quarantine = Quarantine(directory / "quarantine", files)
        self._guard = threading.Lock()  # over _segments and _released
        self._segments: list[Segment] = []
        self._released = 0
        self._active: Segment | None = None
        self._handle = -1
        self._lock_handle = -1
        self._id = 0
        self._seed = 0
        self._number_next = 1
        self._sequence_next = 1
        self._closed = False
        self.torn_bytes = 0

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        bytes_max: int,
        fsync: bool = True,
        segment_bytes: int = SEGMENT_BYTES,
        after: int = 0,
        free_bytes_min: int = 0,
        keys: Keys | None = None,
        files: Files | None = None,
    ) -> Self:
        """Take the directory, cut the torn tail off and find the next sequence.

        `after` is the highest sequence that any checkpoint names; no new record gets a lower one.
        `free_bytes_min` is what the journal leaves free on the disk, so that the checkpoint that
        gives its space back can be written.
        Raises: StartError when another process holds the directory or it cannot be used.
        """
        journal = cls(
            directory,
            bytes_max=bytes_max,
            fsync=fsync,
            segment_bytes=segment_bytes,
            free_bytes_min=free_bytes_min,
            keys=keys or Keys.none(),
            files=files or Files(),
        )
        try:
            journal._take_directory()
            journal._find_segments()
        except OSError as error:
            journal.close()
            reason = error.strerror or type(error).__name__
            raise StartError(f"the journal in {directory} cannot be opened: {reason}") from error
        journal._sequence_next = max(journal._sequence_next, after + 1)
        return journal

    @property
    def next_sequence(self) -> int:
        """The lowest sequence the next record may have."""
        return self._sequence_next

    @property
    def bytes_used(self) -> int:
        """Bytes of all segments on disk."""
        with self._guard:
            return sum(segment.size for segment in self._segments)

    @property
    def damaged(self) -> int:
        """Damaged frames and segments met since the journal was opened."""
        return self._quarantine.count

    def append(self, record: GroupRecord) -> int:
        """Write one record durably; returns the bytes written.

        Raises: JournalUnavailableError, after which the record is not in the journal and the same
        sequence may be used again; PayloadTooLargeError when even an empty journal cannot take it.
        """
        if self._closed:
            raise JournalUnavailableError("the journal is closed")
        assert record.sequence >= self._sequence_next
        packed = pack(record, self._compressor)
        need = packed.frame_bytes(encrypted=self._keys.encrypt)
        if need + 2 * SEGMENT_HEADER_BYTES_MAX > self._bytes_max:
            raise PayloadTooLargeError(f"a group of {need} bytes is above journal.bytes_max")
        self._check_free(need)
        active = self._segment_for(record.sequence, need)
        # The place comes before the bytes, because each segment has a key of its own.
        frame = build_frame(packed, self._seed, self._sealer)
        self._write(active, frame)
        active.end += len(frame)
        active.size = active.end
        active.last = record.sequence
        self._sequence_next = record.sequence + 1
        return len(frame)

    def replay(self, after: int) -> Iterator[GroupRecord]:
        """Read every record above a sequence, in order; damage is quarantined, never raised.

        Raises: StartError when a segment that is needed was encrypted with a key that is not there.
        """
        self._sequence_next = max(self._sequence_next, after + 1)
        with self._guard:
            segments = tuple(s for s in self._segments if s.last > after)
        for segment in segments:
            header = segment.header
            if header is not None and header.key_id and not self._keys.knows(header.key_id):
                raise missing_key(header.key_id, segment.path.name)
        for segment in segments:
            for record in self._records(segment, after):
                # A segment that was copied under another number brings old sequences again.
                after = record.sequence
                yield record

    def release(self, through: int) -> None:
        """Unlink the segments whose records all have a sequence of at most `through`."""
        with self._guard:
            self._released = max(self._released, through)
            # The newest stays: it says which sequences were used.
            done = [s for s in self._segments[:-1] if s.last <= self._released]
        for segment in done:
            try:
                self._files.unlink(segment.path)
            except FileNotFoundError:
                pass
            except OSError as error:
                log.warning("journal segment not removed path=%s error=%s", segment.path, error)
                return
            with self._guard:
                if segment in self._segments:
                    self._segments.remove(segment)

    def close(self) -> None:
        """Leave no record behind that is not needed, and give the directory free."""
        newest = self._segments[-1] if self._segments else None
        if not self._closed and newest is not None and 0 < newest.last <= self._released:
            # An empty segment takes over to say which sequences were used.
            with contextlib.suppress(JournalUnavailableError):
                self._start_segment(self._sequence_next)
                self.release(self._released)
        self._closed = True
        self._close_active()
        if self._lock_handle >= 0:
            with contextlib.suppress(OSError):
                self._files.close(self._lock_handle)
            self._lock_handle = -1

    def _take_directory(self) -> None:
        files = self._files
        files.make_directory(self._directory)
        self._lock_handle = files.open_write(self._directory / _LOCK_NAME)
        try:
            files.lock(self._lock_handle)
        except BlockingIOError as error:
            self.close()
            raise StartError(
                f"another process uses the journal in {self._directory}; stop it first"
            ) from error
        with contextlib.suppress(OSError):
            files.unlink(self._directory / _NEW_NAME)

    def _find_segments(self) -> None:
        found = find_segments(self._files, self._directory, self._quarantine)
        self._id, written = learn_id(self._files, self._lock_handle, found)
        self._seed = seed_of(self._id)
        if written and self._fsync:
            self._files.fdatasync(self._lock_handle)
            self._files.fsync_directory(self._directory)
        self._number_next = max((segment.number for segment in found), default=0) + 1
        self._segments = only_ours(found, self._id, self._quarantine)
        self._sequence_next = inspect(self._files, self._segments, self._seed, self._quarantine)
        if self._segments:
            self._cut(self._segments[-1])
            if self._fsync:
                self._keep(self._segments[-1])

    def _keep(self, segment: Segment) -> None:
        """Make durable what a replay is going to read, before anything is built on it.

        The process before may have ended between a write and its sync. Its record was not
        acknowledged, but what a replay makes of it goes into the outbox: a power cut must not take
        the record alone.
        """
        try:
            handle = self._files.open_read(segment.path)
        except OSError:
            return  # a replay cannot read it either
        try:
            self._files.fdatasync(handle)
        finally:
            self._files.close(handle)
        self._files.fsync_directory(self._directory)

    def _cut(self, segment: Segment) -> None:
        """Give the space of a torn tail back; the next segment's header says where it ends.

        Damage that the quarantine could not take stays where it is until the segment is released.
        """
        if segment.size <= segment.end or not segment.kept:
            return
        self.torn_bytes += segment.size - segment.end
        log.warning("journal tail cut path=%s bytes=%d", segment.path, segment.size - segment.end)
        with contextlib.suppress(OSError):
            handle = self._files.open_write(segment.path)
            try:
                self._files.truncate(handle, segment.end)
                segment.size = segment.end
            finally:
                self._files.close(handle)

    def _records(self, segment: Segment, after: int) -> Iterator[GroupRecord]:
        try:
            handle = self._files.open_read(segment.path)
        except OSError as error:
            self._quarantine.note(segment.number, 0, f"segment cannot be opened: {error}")
            return
        try:
            for stretch in stretches(self._files, handle, segment.start, segment.end, self._seed):
                header = stretch.header
                if header is not None and stretch.whole and header.sequence <= after:
                    continue
                try:
                    record = read_record(self._files, handle, stretch, self._keys, self._id)
                except CorruptDataError:
                    self._quarantine.keep(segment.number, handle, stretch)
                else:
                    yield record
        except OSError as error:
            self._quarantine.note(segment.number, segment.end, f"segment unreadable: {error}")
        finally:
            self._files.close(handle)

    def _segment_for(self, sequence: int, need: int) -> Segment:
        """Return the segment that takes `need` more bytes, a new one if it must be."""
        active = self._active
        # A segment that is no longer needed is left at once: its bodies are as they were sent, and
        # what the site may not keep shall not stay on its disk.
        needless = active is not None and 0 < active.last <= self._released
        full = active is not None and active.last > 0 and active.end + need > self._segment_bytes
        roll = active is None or needless or full
        if not self._fits(need + (SEGMENT_HEADER_BYTES_MAX if roll else 0)):
            # The newest segment may be all that is left, and no longer needed.
            newest = self._segments[-1] if self._segments else None
            if newest is None or not 0 < newest.last <= self._released:
                raise self._full()
            roll = True
        if active is not None and not roll:
            return active
        active = self._start_segment(sequence)
        self.release(self._released)
        if not self._fits(need):
            raise self._full()
        return active

    def _fits(self, need: int) -> bool:
        return self.bytes_used + need <= self._bytes_max

    def _check_free(self, need: int) -> None:
        """Leave enough of the disk for the checkpoint that gives the journal's space back."""
        if not self._free_bytes_min:
            return
        try:
            free = self._files.free_bytes(self._directory)
        except OSError as error:
            raise _unavailable("the disk of the journal cannot be asked", error) from error
        if free - need < self._free_bytes_min:
            raise JournalUnavailableError(f"only {free} bytes are free on the disk of the journal")

    def _full(self) -> JournalUnavailableError:
        return JournalUnavailableError(f"the journal is at its limit of {self._bytes_max} bytes")

    def _start_segment(self, sequence: int) -> Segment:
        self._close_active()
        before = self._segments[-1] if self._segments else None
        sealer = self._keys.sealer(secrets.token_bytes(SALT_BYTES), self._id)
        header = SegmentHeader(
            journal_id=self._id,
            number=self._number_next,
            first_sequence=sequence,
            previous_number=before.number if before else 0,
            previous_bytes=before.end if before else 0,
            key_id=sealer.key_id if sealer else b"",
            salt=sealer.salt if sealer else b"",
        )
        path = self._directory / segment_name(header.number)
        new = self._directory / _NEW_NAME
        try:
            self._handle = self._files.create(new)
            write_all(self._files, self._handle, pack_segment(header))
            if self._fsync:
                self._files.fdatasync(self._handle)
            self._number_next += 1  # from here on the name may be on the disk
            self._files.rename(new, path)
            if self._fsync:
                self._files.fsync_directory(self._directory)
        except OSError as error:
            self._close_active()
            for name in (new, path):
                with contextlib.suppress(OSError):
                    self._files.unlink(name)
            raise _unavailable("a journal segment cannot be created", error) from error
        self._sealer = sealer
        segment = Segment(path, header.number, header, header.header_bytes)
        with self._guard:
            self._segments.append(segment)
        self._active = segment
        return segment

    def _write(self, active: Segment, frame: bytes) -> None:
        try:
            write_all(self._files, self._handle, frame)
        except OSError as error:
            self._take_back(active, len(frame))
            raise _unavailable("the journal cannot be written", error) from error
        if not self._fsync:
            return
        try:
            self._files.fdatasync(self._handle)
        except OSError as error:
            self._take_back(active, len(frame))
            # The kernel may have dropped the dirty pages: a second sync of this file would lie.
            self._close_active()
            raise _unavailable("the journal cannot be synced", error) from error

    def _take_back(self, active: Segment, length: int) -> None:
        try:
            self._files.truncate(self._handle, active.end)
        except OSError:
            active.size = active.end + length  # the most that can be left
            self._close_active()

    def _close_active(self) -> None:
        self._active = None
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                self._files.close(self._handle)
            self._handle = -1


def _unavailable(what: str, error: OSError) -> JournalUnavailableError:
    return JournalUnavailableError(f"{what}: {error.strerror or type(error).__name__}")
