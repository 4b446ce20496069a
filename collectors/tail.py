"""Lines of a file that may grow, be cut or be replaced, and the mark of how far they were done.

Law: every line is given once, in order, with its number and the place behind it; a line that is
longer than its limit is given cut, so that memory is bounded. The mark is replaced in one step and
names the file's first bytes: a mark of another file is not believed.
"""

import hashlib
import os
import select
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from collectors.device.files import read_json, write_json
from gateway.errors import StartError

CHUNK_BYTES: Final = 256 << 10
HEAD_BYTES_MAX: Final = 4096
POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line with its line end, if it has one. Units: `end` is the byte offset behind it."""

    data: bytes
    number: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a file was done: bytes and lines from its beginning."""

    offset: int = 0
    line: int = 0


class Lines:
    """Reads lines of an open file from a place on; never waits longer than `POLL_S`."""

    def __init__(self, handle: int, place: Place, line_bytes_max: int) -> None:
        self._handle = handle
        self._line_bytes_max = line_bytes_max
        self._number = place.line
        self._end = place.offset  # of the last line that was given
        self._buffer = bytearray()
        self._cut = 0  # bytes of the unfinished line that are not in the buffer
        self._seekable = stat.S_ISREG(os.fstat(handle).st_mode)
        if self._seekable:
            os.lseek(handle, place.offset, os.SEEK_SET)
        self.at_end = False

    def maybe_next(self) -> Line | None:
        """Give the next whole line; None when there is none yet, or `at_end`."""
        while True:
            at = self._buffer.find(b"\n")
            if at >= 0:
                return self._give(at + 1)
            if len(self._buffer) > self._line_bytes_max:
                self._cut += len(self._buffer) - self._line_bytes_max - 1
                del self._buffer[self._line_bytes_max + 1 :]
            if not self._fill():
                return None

    def maybe_rest(self) -> Line | None:
        """Give what stands behind the last line end, when nothing will follow it."""
        return self._give(len(self._buffer)) if self._buffer else None

    def seen_bytes(self) -> int:
        """Say how far the file was read."""
        return self._end + len(self._buffer) + self._cut

    def _fill(self) -> bool:
        if not self._seekable and not select.select([self._handle], [], [], POLL_S)[0]:
            return False
        piece = os.read(self._handle, CHUNK_BYTES)
        self.at_end = not piece
        if self._cut:
            # Of a line that is too long already, only its end is of interest.
            at = piece.find(b"\n")
            skipped = len(piece) if at < 0 else at
            self._cut += skipped
            piece = piece[skipped:]
            if not piece:
                return not self.at_end
        self._buffer += piece
        return bool(piece)

    def _give(self, size: int) -> Line:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._end += size + self._cut
        self._cut = 0
        self._number += 1
        return Line(data=data, number=self._number, end=self._end)


class Mark:
    """The checkpoint file of one input file, which is named by its open handle."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, handle: int) -> tuple[Place, bool]:
        """Read the place to go on from, and whether there was a mark that is not of this file."""
        found = read_json(self._path)
        if found is None:
            return Place(), self._path.exists()
        match found:
            case {"offset": int(offset), "line": int(line), "head": str(head)} if (
                0 <= line <= offset <= os.fstat(handle).st_size and head == _head(handle, offset)
            ):
                return Place(offset=offset, line=line), False
        return Place(), True

    def save(self, handle: int, place: Place) -> None:
        """Replace the mark. Raises: StartError when the disk does not take it."""
        head = _head(handle, place.offset)
        try:
            write_json(self._path, {"offset": place.offset, "line": place.line, "head": head})
        except OSError as error:
            raise StartError(
                f"checkpoint {self._path} cannot be written: {error.strerror};"
                " write --checkpoint FILE where it can"
            ) from error


def _head(handle: int, offset: int) -> str:
    return hashlib.sha256(os.pread(handle, min(offset, HEAD_BYTES_MAX), 0)).hexdigest()


def is_replaced(file: Path, handle: int, seen_bytes: int) -> bool:
    """Tell whether a path now holds another file than the open one, or the same one cut short."""
    try:
        now, then = file.stat(), os.fstat(handle)
    except FileNotFoundError:
        return False  # between the two steps of a rotation
    if (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino):
        return True
    return now.st_size < seen_bytes
