"""Every file operation of the journal, in one small class that a test can replace.

Law: each method is one system call and raises OSError as the system does; nothing here retries,
buffers or decides. `log.py` touches the disk only through this class, so that a double can fail or
cut the power at any call.
"""

import fcntl
import os
from pathlib import Path

# Segments hold bodies as they were received, before any contract took something out.
DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


class Files:
    """The real file system."""

    def make_directory(self, path: Path) -> None:
        """Create a directory and its parents; an existing one is fine."""
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)

    def names(self, directory: Path) -> list[str]:
        """List the names in a directory, in no particular order."""
        return os.listdir(directory)

    def create(self, path: Path) -> int:
        """Open an empty file for appending; what stood there before is gone."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        return os.open(path, flags, FILE_MODE)

    def open_read(self, path: Path) -> int:
        """Open an existing file for reading."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def open_write(self, path: Path) -> int:
        """Open a file for reading and appending, created when missing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)

    def close(self, handle: int) -> None:
        """Close a file."""
        os.close(handle)

    def size(self, handle: int) -> int:
        """Return the size of an open file in bytes."""
        return os.fstat(handle).st_size

    def free_bytes(self, directory: Path) -> int:
        """Return the space that this user may still fill on the disk of a directory."""
        state = os.statvfs(directory)
        return state.f_bavail * state.f_frsize

    def read_at(self, handle: int, count: int, offset: int) -> bytes:
        """Read up to count bytes from an offset; fewer at the end of the file."""
        return os.pread(handle, count, offset)

    def write(self, handle: int, data: memoryview) -> int:
        """Append bytes; returns how many were taken, which may be fewer."""
        return os.write(handle, data)

    def truncate(self, handle: int, size: int) -> None:
        """Cut an open file to a size in bytes."""
        os.ftruncate(handle, size)

    def fdatasync(self, handle: int) -> None:
        """Make the bytes of a file, and its size, durable."""
        os.fdatasync(handle)

    def fsync_directory(self, directory: Path) -> None:
        """Make created, renamed and unlinked names of a directory durable."""
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, atomically."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def lock(self, handle: int) -> None:
        """Take the exclusive lock of a file until it is closed; BlockingIOError when taken."""
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
