"""A disk in memory for the journal: it can fail at any call, die at any byte and lose power.

It keeps two states of everything: what the system shows, and what is on the platter. Only
`fdatasync` and `fsync_directory` move the one into the other.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

from gateway.journal.files import Files


class CrashError(BaseException):
    """The process is gone; nothing may catch this on the way."""


@dataclass(slots=True)
class Inode:
    """One file: visible bytes and durable bytes."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


class MemoryDisk(Files):
    """The journal's file layer over dictionaries.

    `crash_after_bytes` kills the process within the write that reaches it; `faults` maps the
    running number of a mutating call to the error it raises; `short_bytes` limits one write.
    """

    def __init__(self) -> None:
        self.inodes: dict[Path, Inode] = {}
        self.on_platter: dict[Path, Inode] = {}
        self.changes: list[tuple[Path, Inode | None]] = []
        self.handles: dict[int, Inode] = {}
        self.paths: dict[int, Path] = {}
        self.locked: set[Path] = set()
        self.calls: list[str] = []
        self.faults: dict[int, OSError] = {}
        self.crash_after_bytes: int | None = None
        self.short_bytes: int | None = None
        self._next = 3

    def reboot(self, rng: random.Random | None = None) -> None:
        """Forget the process; with a generator also lose power, which drops unsynced bytes."""
        self.handles.clear()
        self.locked.clear()
        self.faults.clear()
        self.crash_after_bytes = None
        self.short_bytes = None
        if rng is None:
            return
        for path, inode in self.changes[: rng.randint(0, len(self.changes))]:
            _apply(self.on_platter, path, inode)
        self.inodes = dict(self.on_platter)
        self.changes.clear()
        for inode in self.inodes.values():
            inode.durable = _survivor(inode, rng)
            inode.data = bytearray(inode.durable)

    def make_directory(self, path: Path) -> None:
        self._call("make_directory")

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in self.inodes if path.parent == directory]

    def create(self, path: Path) -> int:
        self._call("create")
        inode = Inode()
        self._change(path, inode)
        return self._open(path, inode)

    def open_read(self, path: Path) -> int:
        if path not in self.inodes:
            raise FileNotFoundError(path)
        return self._open(path, self.inodes[path])

    def open_write(self, path: Path) -> int:
        self._call("open_write")
        if path not in self.inodes:
            self._change(path, Inode())
        return self._open(path, self.inodes[path])

    def close(self, handle: int) -> None:
        self.locked.discard(self.paths[handle])
        del self.handles[handle]

    def size(self, handle: int) -> int:
        return len(self.handles[handle].data)

    def read_at(self, handle: int, count: int, offset: int) -> bytes:
        return bytes(self.handles[handle].data[offset : offset + count])

    def write(self, handle: int, data: memoryview) -> int:
        taken = bytes(data[: self.short_bytes])
        if self.crash_after_bytes is not None:
            if len(taken) >= self.crash_after_bytes:
                self.handles[handle].data += taken[: self.crash_after_bytes]
                raise CrashError
            self.crash_after_bytes -= len(taken)
        try:
            self._call("write")
        except OSError:
            # A full disk takes what still fits.
            self.handles[handle].data += taken[: len(taken) // 2]
            raise
        self.handles[handle].data += taken
        return len(taken)

    def truncate(self, handle: int, size: int) -> None:
        self._call("truncate")
        del self.handles[handle].data[size:]

    def fdatasync(self, handle: int) -> None:
        self._call("fdatasync")
        inode = self.handles[handle]
        inode.durable = bytes(inode.data)

    def fsync_directory(self, directory: Path) -> None:
        self._call("fsync_directory")
        for path, inode in self.changes:
            _apply(self.on_platter, path, inode)
        self.changes.clear()

    def rename(self, source: Path, target: Path) -> None:
        self._call("rename")
        inode = self.inodes[source]
        self._change(source, None)
        self._change(target, inode)

    def unlink(self, path: Path) -> None:
        self._call("unlink")
        if path not in self.inodes:
            raise FileNotFoundError(path)
        self._change(path, None)

    def lock(self, handle: int) -> None:
        path = self.paths[handle]
        if path in self.locked:
            raise BlockingIOError(path)
        self.locked.add(path)

    def _open(self, path: Path, inode: Inode) -> int:
        self._next += 1
        self.handles[self._next] = inode
        self.paths[self._next] = path
        return self._next

    def _change(self, path: Path, inode: Inode | None) -> None:
        _apply(self.inodes, path, inode)
        self.changes.append((path, inode))

    def _call(self, name: str) -> None:
        number = len(self.calls)
        self.calls.append(name)
        if number in self.faults:
            raise self.faults[number]


def _apply(names: dict[Path, Inode], path: Path, inode: Inode | None) -> None:
    if inode is None:
        names.pop(path, None)
    else:
        names[path] = inode


def _survivor(inode: Inode, rng: random.Random) -> bytes:
    """Choose what of the unsynced bytes reached the platter: a prefix, perhaps with holes."""
    data = bytes(inode.data)
    if not data.startswith(inode.durable):
        return rng.choice((data, inode.durable))
    end = rng.randint(len(inode.durable), len(data))
    hole = rng.randint(len(inode.durable), end)
    return data[:hole] + rng.choice((data[hole:end], bytes(end - hole)))
