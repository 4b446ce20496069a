"""The data directory: where everything that outlives the process is kept.

Law: the directory and all that is in it belong to one process and to its user alone. The site key
is made once, readable by no one else, and never leaves this file and memory.
"""

import errno
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import JournalUnavailableError, StartError

SITE_KEY_BYTES: Final = 32
# Below this much free space the intake refuses with a delay hint, while checkpoints still fit.
FREE_BYTES_MIN: Final = 64 << 20
# A defect that one kind of batch always meets must not fill the disk with copies.
QUARANTINE_BYTES_MAX: Final = 256 << 20
QUARANTINE_FILES_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below the data directory."""

    root: Path

    @property
    def journal(self) -> Path:
        """Folder of journal segments."""
        return self.root / "journal"

    @property
    def store(self) -> Path:
        """Folder of Parquet segments."""
        return self.root / "store"

    @property
    def database(self) -> Path:
        """Checkpoint, outbox, catalogue and anomalies."""
        return self.root / "state.db"

    @property
    def audit(self) -> Path:
        """Log of accesses to trace content."""
        return self.root / "audit.jsonl"

    @property
    def dives(self) -> Path:
        """Folder of deep dives."""
        return self.root / "dives"

    @property
    def quarantine(self) -> Path:
        """Folder of batches that could not be processed."""
        return self.root / "quarantine"

    def free_bytes(self) -> int:
        """Space that this user may still fill; none when the directory cannot be asked."""
        try:
            state = os.statvfs(self.root)
        except OSError:
            return 0
        return state.f_bavail * state.f_frsize

    def set_aside(self, name: str, body: bytes) -> None:
        """Keep a body in the quarantine, durably and for this user alone.

        Raises: OSError when the disk does not take it or the quarantine is full.
        """
        path = self.quarantine / name
        held = [each.stat().st_size for each in self.quarantine.iterdir() if each != path]
        if len(held) >= QUARANTINE_FILES_MAX or sum(held) + len(body) > QUARANTINE_BYTES_MAX:
            raise OSError(errno.EDQUOT, "the quarantine is full")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())

    def probe(self) -> None:
        """Write and sync a few bytes.

        Raises: JournalUnavailableError when the disk does not take them.
        """
        path = self.root / ".probe"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(handle, bytes(4096))
                os.fdatasync(handle)
            finally:
                os.close(handle)
                path.unlink(missing_ok=True)
        except OSError as error:
            raise JournalUnavailableError(
                f"{self.root} cannot be written: {error.strerror}"
            ) from error


def open_home(root: Path) -> Home:
    """Create the data directory when missing and check that it can be written.

    Raises: StartError.
    """
    home = Home(root.absolute())
    try:
        _make_root(home.root)
        for folder in (home.dives, home.journal, home.quarantine, home.store):
            folder.mkdir(exist_ok=True, mode=0o700)
        sync_folder(home.root)
    except OSError as error:
        raise StartError(
            f"the data directory {root} cannot be used: {error.strerror}; "
            "choose another with --data-dir"
        ) from error
    try:
        home.probe()
    except JournalUnavailableError as error:
        raise StartError(f"{error}; choose another data directory with --data-dir") from error
    return home


def _make_root(root: Path) -> None:
    """Create a folder whose name survives a power cut, with those above it."""
    missing = [each for each in (root, *root.parents) if not each.exists()]
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The last start may have ended between making the folder and this.
    for folder in {root, *missing}:
        # A folder that this user may not read was not made by this user either.
        with suppress(PermissionError):
            sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable.

    Raises: OSError.
    """
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def site_key(home: Home) -> bytes:
    """Read the key of the site's tokens, or make it at the first start.

    Raises: StartError when it cannot be read or others could read it.
    """
    path = home.root / "site.key"
    try:
        if not path.exists():
            new = path.with_suffix(".new")
            # What a crash left here cannot be opened for writing, except by root.
            new.unlink(missing_ok=True)
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
            try:
                os.write(handle, secrets.token_bytes(SITE_KEY_BYTES))
                os.fsync(handle)
            finally:
                os.close(handle)
            new.rename(path)
        # Also when it was there: without its name the site would get other tokens.
        sync_folder(home.root)
        if path.stat().st_mode & 0o077:
            raise StartError(f"{path} can be read by others; run: chmod 0400 {path}")
        key = path.read_bytes()
    except OSError as error:
        raise StartError(f"the site key {path} cannot be used: {error.strerror}") from error
    if len(key) != SITE_KEY_BYTES:
        raise StartError(f"the site key {path} has {len(key)} bytes instead of {SITE_KEY_BYTES}")
    return key
