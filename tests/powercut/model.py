"""What a power cut can leave of a directory, from the log of all calls that changed it.

Law: a file's bytes survive surely when the file was synced after they were written; a name survives
surely when its folder was synced after it was made, changed or removed. Of everything else any part
may have reached the disk: none, all, or some writes and not others, each perhaps only up to a
border of 512 bytes. This is weaker than what any file system promises that orders its changes.

The index that SQLite keeps beside its log in shared memory (`-shm`) is made anew at every start and
is left out.

Source: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014 (ALICE).
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final

SECTOR_BYTES: Final = 512
IGNORED_SUFFIX: Final = "-shm"

_HEAD: Final = struct.Struct("=IIIIQQQQ")


class Kind(IntEnum):
    """Calls, as in recorder.c."""

    OPEN = 1
    CLOSE = 2
    WRITE = 3
    TRUNCATE = 4
    SYNC = 5
    RENAME = 6
    UNLINK = 7
    MKDIR = 8
    RMDIR = 9
    MARK = 10


CREATED: Final = 1
EMPTIED: Final = 2
FOLDER: Final = 4


@dataclass(frozen=True, slots=True)
class Call:
    """One entry of the log."""

    kind: Kind
    handle: int
    flag: int
    offset: int
    path: str
    second: str
    data: bytes


def read_log(path: Path) -> list[Call]:
    """Read the recorder's log, up to an entry that was cut off."""
    raw = path.read_bytes()
    calls, at = [], 0
    while at + _HEAD.size <= len(raw):
        kind, handle, flag, _, offset, *sizes = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        texts = []
        for size in sizes:
            texts.append(raw[at : at + size])
            at += size
        if at > len(raw):
            break
        first, second = texts[0].decode(), texts[1].decode()
        calls.append(Call(Kind(kind), handle, flag, offset, first, second, texts[2]))
    return calls


@dataclass(slots=True, eq=False)
class Inode:
    """A file or folder: what is surely on the disk, and the changes since then."""

    folder: bool
    durable: bytes = b""
    changes: list[tuple[int, bytes | None]] = field(default_factory=list)  # None cuts at the offset
    # Of a folder: names, and changes of several names at once.
    names: dict[str, "Inode"] = field(default_factory=dict)
    renames: list[dict[str, "Inode | None"]] = field(default_factory=list)


class Choice:
    """Decides what of the unsynced changes reached the disk."""

    def __init__(self, rng: random.Random | None, *, everything: bool = False) -> None:
        self._rng = rng
        self._everything = everything

    def taken(self) -> bool:
        """Say whether a change is there."""
        return self._everything if self._rng is None else self._rng.random() < 0.5

    def part(self, data: bytes) -> bytes:
        """Cut a write at a sector now and then."""
        if self._rng is None or self._rng.random() < 0.7:
            return data
        return data[: SECTOR_BYTES * self._rng.randint(0, len(data) // SECTOR_BYTES)]


class Disk:
    """The directory as the calls so far left it."""

    def __init__(self, root: str) -> None:
        self._root = root
        # The directory was there before; it is the nameless child of the top.
        directory = Inode(folder=True)
        self._top = Inode(folder=True, names={"": directory})
        self._now: dict[Inode, dict[str, Inode]] = {self._top: {"": directory}}
        self._open: dict[int, Inode] = {}

    def apply(self, call: Call) -> None:
        """Take one call."""
        if call.kind is Kind.OPEN:
            inode = self._find(call.path)
            if inode is None:
                inode = Inode(folder=bool(call.flag & FOLDER))
                self._change(call.path, inode)
            if call.flag & EMPTIED:
                inode.changes.append((0, None))
            self._open[call.handle] = inode
        elif call.kind is Kind.CLOSE:
            del self._open[call.handle]
        elif call.kind is Kind.WRITE:
            self._open[call.handle].changes.append((call.offset, call.data))
        elif call.kind is Kind.TRUNCATE:
            self._open[call.handle].changes.append((call.offset, None))
        elif call.kind is Kind.SYNC:
            self._sync(self._open[call.handle])
        elif call.kind is Kind.RENAME:
            self._rename(call.path, call.second)
        elif call.kind in (Kind.UNLINK, Kind.RMDIR):
            self._change(call.path, None)
        elif call.kind is Kind.MKDIR:
            self._change(call.path, Inode(folder=True))

    def leave(self, target: Path, choice: Choice) -> None:
        """Write what a power cut now would leave into a new folder."""
        self._write(self._top.names[""], target, choice)

    def _write(self, folder: Inode, target: Path, choice: Choice) -> None:
        target.mkdir()
        for name, inode in _names(folder, choice).items():
            if inode.folder:
                self._write(inode, target / name, choice)
            elif not name.endswith(IGNORED_SUFFIX):
                (target / name).write_bytes(_bytes(inode, choice))
                (target / name).chmod(0o400 if name == "site.key" else 0o600)

    def _split(self, path: str) -> tuple[Inode, str]:
        """Find the folder that holds a path, and the path's name in it."""
        assert path.startswith(self._root)
        parts = path[len(self._root) :].split("/")
        folder = self._top
        for part in parts[:-1]:
            folder = self._seen(folder)[part]
        return folder, parts[-1]

    def _seen(self, folder: Inode) -> dict[str, Inode]:
        return self._now.setdefault(folder, {})

    def _find(self, path: str) -> Inode | None:
        folder, name = self._split(path)
        return self._seen(folder).get(name)

    def _change(self, path: str, inode: Inode | None) -> None:
        folder, name = self._split(path)
        _put(self._seen(folder), {name: inode})
        folder.renames.append({name: inode})

    def _rename(self, path: str, second: str) -> None:
        folder, name = self._split(path)
        other, other_name = self._split(second)
        assert folder is other, "only within a folder"
        change = {name: None, other_name: self._seen(folder)[name]}
        _put(self._seen(folder), change)
        folder.renames.append(change)

    def _sync(self, inode: Inode) -> None:
        inode.durable = _bytes(inode, Choice(None, everything=True))
        inode.changes.clear()
        for change in inode.renames:
            _put(inode.names, change)
        inode.renames.clear()


def _put(names: dict[str, Inode], change: dict[str, Inode | None]) -> None:
    for name, inode in change.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def _names(folder: Inode, choice: Choice) -> dict[str, Inode]:
    names = dict(folder.names)
    for change in folder.renames:
        if choice.taken():
            _put(names, change)
    return names


def _bytes(inode: Inode, choice: Choice) -> bytes:
    content = bytearray(inode.durable)
    for offset, data in inode.changes:
        if not choice.taken():
            continue
        if data is None:
            del content[offset:]
            content.extend(bytes(offset - len(content)))
            continue
        part = choice.part(data)
        if part:
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(part)] = part
    return bytes(content)


def choices(seed: int, count: int) -> Iterator[Choice]:
    """List what may have survived: nothing, everything, and some random parts."""
    yield Choice(None)
    yield Choice(None, everything=True)
    for number in range(count):
        yield Choice(random.Random(f"{seed}/{number}"))
