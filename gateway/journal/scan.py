"""Find frames in a segment file, whatever happened to it.

Law: every byte between the segment header and the end belongs to exactly one stretch; a damaged
stretch ends where the next intact frame header of this journal begins. The work is linear in the
file, because a frame header is trusted with its length only when its checksum fits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway.errors import CorruptDataError
from gateway.journal.cipher import Keys
from gateway.journal.files import Files
from gateway.journal.frame import (
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    FrameHeader,
    GroupRecord,
    maybe_frame,
    unpack_payload,
    verify_payload,
)

SEARCH_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Bytes [start, stop) of a segment: a frame, or what is left of some.

    `whole` is False when there is no intact header, or its frame runs over the end.
    """

    start: int
    stop: int
    header: FrameHeader | None
    whole: bool


def stretches(files: Files, handle: int, start: int, end: int, seed: int) -> Iterator[Stretch]:
    """Walk a segment from `start` up to `end` without reading payloads.

    Raises: OSError when the disk cannot be read.
    """
    offset = start
    while offset < end:
        head = files.read_at(handle, min(FRAME_HEADER_BYTES, end - offset), offset)
        header = maybe_frame(head, seed)
        if header is None:
            stop = _next_header(files, handle, offset + 1, end, seed)
            yield Stretch(start=offset, stop=stop, header=None, whole=False)
        else:
            stop = offset + header.frame_bytes
            # A frame with an intact header is never searched for frames inside it.
            yield Stretch(start=offset, stop=min(stop, end), header=header, whole=stop <= end)
        offset = stop


def read_record(
    files: Files, handle: int, stretch: Stretch, keys: Keys, journal_id: int
) -> GroupRecord:
    """Read and verify the frame of a whole stretch.

    Raises: CorruptDataError, OSError, StartError when a key is missing.
    """
    header, data = _read(files, handle, stretch)
    return unpack_payload(header, data, keys, journal_id)


def verify(files: Files, handle: int, stretch: Stretch) -> None:
    """Check the frame of a whole stretch against its checksums, which takes no key.

    Raises: CorruptDataError, OSError.
    """
    verify_payload(*_read(files, handle, stretch))


def _read(files: Files, handle: int, stretch: Stretch) -> tuple[FrameHeader, bytes]:
    if stretch.header is None or not stretch.whole:
        raise CorruptDataError("no intact frame header")
    start = stretch.start + FRAME_HEADER_BYTES
    return stretch.header, read_fully(files, handle, start, stretch.stop)


def read_fully(files: Files, handle: int, start: int, stop: int) -> bytes:
    """Read [start, stop); shorter only where the file ends."""
    parts: list[bytes] = []
    while start < stop:
        part = files.read_at(handle, stop - start, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _next_header(files: Files, handle: int, offset: int, end: int, seed: int) -> int:
    while offset < end:
        # Windows overlap by one header, so that none is missed on a border.
        window = files.read_at(handle, min(SEARCH_BYTES, end - offset), offset)
        if not window:
            return end
        at = window.find(FRAME_MAGIC)
        while at >= 0 and at + FRAME_HEADER_BYTES <= len(window):
            if maybe_frame(window[at : at + FRAME_HEADER_BYTES], seed) is not None:
                return offset + at
            at = window.find(FRAME_MAGIC, at + 1)
        if offset + len(window) >= end:
            return end
        offset += max(1, len(window) - FRAME_HEADER_BYTES + 1)
    return end
