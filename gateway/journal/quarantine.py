"""Keep what could not be read: damaged stretches are copied aside, once, below a limit.

Law: nothing here raises; a disk that cannot take the copy costs the copy, never the replay. The
copy's name is the place the bytes came from, so that a second replay finds it made.
"""

import logging
from pathlib import Path
from typing import Final

from gateway.journal.files import Files
from gateway.journal.scan import Stretch, read_fully

log = logging.getLogger(__name__)

QUARANTINE_BYTES_MAX: Final = 64 << 20


class Quarantine:
    """Side files of one journal."""

    def __init__(self, directory: Path, files: Files) -> None:
        self._directory = directory
        self._files = files
        self._seen: set[tuple[int, int]] = set()
        self._names: set[str] | None = None
        self._bytes = 0

    @property
    def count(self) -> int:
        """Distinct damaged places that were met."""
        return len(self._seen)

    def note(self, segment: int, offset: int, reason: str) -> None:
        """Count a damaged place that has no bytes worth keeping."""
        if (segment, offset) not in self._seen:
            self._seen.add((segment, offset))
            log.error("journal damaged segment=%d offset=%d reason=%s", segment, offset, reason)

    def keep(self, segment: int, handle: int, stretch: Stretch) -> bool:
        """Count a damaged stretch and copy it into a side file; tells whether there is a copy."""
        self.note(segment, stretch.start, "damaged frame quarantined")
        try:
            return self._copy(f"{segment:016d}-{stretch.start:012d}.bin", handle, stretch)
        except OSError:
            return False

    def _copy(self, name: str, handle: int, stretch: Stretch) -> bool:
        length = stretch.stop - stretch.start
        if name in self._known():
            return True
        if self._bytes + length > QUARANTINE_BYTES_MAX:
            return False
        target = self._files.create(self._directory / name)
        try:
            view = memoryview(read_fully(self._files, handle, stretch.start, stretch.stop))
            while view:
                view = view[self._files.write(target, view) :]
            self._files.fdatasync(target)
            self._files.fsync_directory(self._directory)
            self._bytes += length
            self._known().add(name)
            return True
        finally:
            self._files.close(target)

    def _known(self) -> set[str]:
        """List the copies that earlier runs made, and count their bytes."""
        if self._names is None:
            self._files.make_directory(self._directory)
            names = set(self._files.names(self._directory))
            for name in names:
                handle = self._files.open_read(self._directory / name)
                try:
                    self._bytes += self._files.size(handle)
                finally:
                    self._files.close(handle)
            self._names = names
        return self._names
