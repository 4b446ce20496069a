"""One file of the journal, and what is learnt about all of them when the journal is opened.

Law: nothing here changes a segment; only the lock file, which also keeps the journal's id, may be
written, and only when the id was lost.
"""

import errno
import logging
import re
import secrets
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.errors import CorruptDataError
from gateway.journal.files import Files
from gateway.journal.frame import (
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    SEGMENT_HEADER_BYTES_MAX,
    SegmentHeader,
    checksum,
    maybe_segment,
)
from gateway.journal.quarantine import Quarantine
from gateway.journal.scan import Stretch, stretches, verify

log = logging.getLogger(__name__)

# Sequences that a tail without a readable header may have used are never used again. No segment
# holds as many frames.
SEQUENCE_SKIP: Final = 1 << 24

_NAME: Final = re.compile(r"(\d{16})\.segment")
_ID_BYTES: Final = 8
_CHECKSUM_BYTES: Final = 4


class Segment:
    """One file: `size` on the disk, `end` of the last good frame, `last` bounds its sequences.

    `kept` is False when damage behind `end` has no copy in the quarantine.
    """

    __slots__ = ("end", "header", "kept", "last", "number", "path", "size")

    def __init__(self, path: Path, number: int, header: SegmentHeader | None, size: int) -> None:
        self.path = path
        self.number = number
        self.header = header
        self.size = size
        self.end = size
        self.last = 0
        self.kept = True

    @property
    def start(self) -> int:
        """Where frames begin; behind a damaged header they are searched for."""
        return SEGMENT_HEADER_BYTES if self.header is None else self.header.header_bytes


def segment_name(number: int) -> str:
    """Name a segment file."""
    return f"{number:016d}.segment"


def find_segments(files: Files, directory: Path, quarantine: Quarantine) -> list[Segment]:
    """Read the headers of all segments of a directory, in order of their numbers.

    Raises: OSError.
    """
    found: list[Segment] = []
    for name in sorted(files.names(directory)):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        number = int(match.group(1))
        handle = files.open_read(directory / name)
        try:
            header = maybe_segment(files.read_at(handle, SEGMENT_HEADER_BYTES_MAX, 0))
            found.append(Segment(directory / name, number, header, files.size(handle)))
        finally:
            files.close(handle)
        if header is None:
            quarantine.note(number, 0, "segment header damaged")
    return found


def only_ours(found: Sequence[Segment], journal_id: int, quarantine: Quarantine) -> list[Segment]:
    """Leave out segments of another journal or under a wrong name, and count gaps."""
    ours: list[Segment] = []
    for segment in found:
        header = segment.header
        if header and (header.journal_id != journal_id or header.number != segment.number):
            quarantine.note(segment.number, 0, "segment of another journal or under a wrong name")
            continue
        # The first one's predecessor was released; a later one's must be there.
        if ours and header and all(s.number != header.previous_number for s in ours):
            quarantine.note(header.previous_number, 0, "segment missing")
        ours.append(segment)
    return ours


def learn_id(files: Files, lock: int, segments: Sequence[Segment]) -> tuple[int, bool]:
    """Read the journal's id from the lock file, else from the segments, else invent one.

    Returns the id and whether the lock file was written. Raises: OSError.
    """
    data = files.read_at(lock, _ID_BYTES + _CHECKSUM_BYTES, 0)
    known, check = data[:_ID_BYTES], data[_ID_BYTES:]
    if len(check) == _CHECKSUM_BYTES and checksum(known) == int.from_bytes(check, "little"):
        return int.from_bytes(known, "little"), False
    ids = Counter(segment.header.journal_id for segment in segments if segment.header)
    journal_id = ids.most_common(1)[0][0] if ids else secrets.randbits(8 * _ID_BYTES)
    known = journal_id.to_bytes(_ID_BYTES, "little")
    files.truncate(lock, 0)
    write_all(files, lock, known + checksum(known).to_bytes(_CHECKSUM_BYTES, "little"))
    return journal_id, True


def inspect(files: Files, segments: Sequence[Segment], seed: int, quarantine: Quarantine) -> int:
    """Set end and last of all segments; returns the next free sequence."""
    following, unknown, known = 1, False, 0
    for segment in reversed(segments):
        first, uncertain = _inspect_tail(files, segment, seed, quarantine)
        following, unknown, known = max(following, first), unknown or uncertain, known + 1
        if segment.header is not None:
            break  # what is older is bounded by this header
    _set_bounds(segments, len(segments) - known, quarantine)
    return following + (SEQUENCE_SKIP if unknown else 0)


def _set_bounds(segments: Sequence[Segment], count: int, quarantine: Quarantine) -> None:
    """Set end and last of the first `count` segments from the headers that follow them."""
    ends = {s.header.previous_number: s.header.previous_bytes for s in segments if s.header}
    bound = 0
    for index in reversed(range(len(segments))):
        segment = segments[index]
        if index < count:
            segment.last = bound
            end = ends.get(segment.number, segment.size)
            segment.end = min(segment.size, end)
            if segment.size < end:
                quarantine.note(segment.number, segment.size, "segment shorter than it was")
        # Sequences only rise, so a segment ends below the first one of its successor.
        bound = segment.header.first_sequence - 1 if segment.header else bound


def _inspect_tail(
    files: Files, segment: Segment, seed: int, quarantine: Quarantine
) -> tuple[int, bool]:
    """Set end and last of one segment from its frames.

    Returns the next free sequence and whether more of them may have been used.
    """
    first = segment.header.first_sequence if segment.header else 1
    unknown = segment.header is None
    end = min(segment.end, segment.start)
    try:
        handle = files.open_read(segment.path)
        try:
            for stretch in stretches(files, handle, segment.start, segment.end, seed):
                if stretch.header is not None:
                    first = max(first, stretch.header.sequence + 1)
                try:
                    verify(files, handle, stretch)
                except CorruptDataError:
                    unknown |= stretch.header is None
                    if not _is_torn(stretch):
                        kept = quarantine.keep(segment.number, handle, stretch)
                        segment.kept = segment.kept and kept
                else:
                    end, unknown, segment.kept = stretch.stop, False, True
        finally:
            files.close(handle)
    except OSError as error:
        log.error("journal segment unreadable path=%s error=%s", segment.path, error)
        quarantine.note(segment.number, segment.end, "segment unreadable")
        segment.last = first + SEQUENCE_SKIP - 1
        return first, True
    segment.end = end
    segment.last = first - 1
    return first, unknown


def write_all(files: Files, handle: int, data: bytes) -> None:
    """Append all bytes, however few the system takes at a time.

    Raises: OSError.
    """
    view = memoryview(data)
    while view:
        taken = files.write(handle, view)
        if taken <= 0:
            raise OSError(errno.EIO, "nothing was written")
        view = view[taken:]


def _is_torn(stretch: Stretch) -> bool:
    """Tell a write that a crash cut short from bytes that may once have been acknowledged."""
    if stretch.header is not None:
        return not stretch.whole
    return stretch.stop - stretch.start < FRAME_HEADER_BYTES
