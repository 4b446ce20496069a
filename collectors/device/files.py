"""Files that must be whole after a crash.

Law: a file is written beside, synced, renamed, and its directory is synced; a byte range is
written entirely or raises.
"""

import json
import os
from pathlib import Path
from typing import Any


def sync_directory(directory: Path) -> None:
    """Make a rename or a new file in a directory durable."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes, offset: int) -> None:
    """Write a byte range of an open file.

    Raises OSError, also when the disk takes only a part.
    """
    written = os.pwrite(handle, data, offset)
    if written != len(data):
        raise OSError(f"disk took {written} of {len(data)} bytes")


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    beside = path.with_suffix(".tmp")
    with beside.open("w", encoding="utf-8") as file:
        json.dump(value, file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    sync_directory(path.parent)


def read_json(path: Path) -> Any:
    """Read a JSON file; None when it is missing or not readable as JSON."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
