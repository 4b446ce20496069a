"""What all of the room shares: the table under one lock, steps with their audit, and the bells.

Law: a change is committed before anyone hears of it, and listeners are called without the lock, so
that they may call back.
"""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from gateway.batch import DiveId
from gateway.errors import RetryableError
from gateway.retrieve.chunks import chunk_path
from gateway.retrieve.dive import Command, Dive
from gateway.retrieve.states import State, step
from gateway.retrieve.table import Table

DIVES_DIRECTORY: Final = "dives"
DIRECTORY_MODE: Final = 0o700

OnChange = Callable[[Dive], None]
Ring = Callable[[str], None]


def ignore(_: Any) -> None:
    """Listen to nothing."""


@dataclass(slots=True)
class Change:
    """What one transaction touched: dives to tell of, devices whose bell to ring."""

    now_ns: int
    who: str
    dives: dict[str, None] = field(default_factory=dict)
    devices: dict[str, None] = field(default_factory=dict)


class Room:
    """State of retrieval; every method is safe to call from any thread."""

    def __init__(self, data_dir: Path, on_change: OnChange) -> None:
        self.directory = data_dir / DIVES_DIRECTORY
        self.directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        self.table = Table(data_dir)
        self.ring: Ring = ignore
        self._on_change = on_change
        self._lock = threading.RLock()
        self._depth = 0
        self._untold: list[Change] = []

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep everyone else out; tell of what was committed after the last hold ends.

        Raises RetryableError when the table does not answer.
        """
        dives: list[Dive] = []
        devices: dict[str, None] = {}
        try:
            with self._lock:
                self._depth += 1
                try:
                    yield
                except sqlite3.DatabaseError as error:
                    raise RetryableError("the command table cannot be used now") from error
                finally:
                    self._depth -= 1
                    if self._depth == 0:
                        dives, devices = self._collect()
        finally:
            for dive in dives:
                self._on_change(dive)
            for device in devices:
                self.ring(device)

    @contextmanager
    def change(self, now_ns: int, who: str) -> Iterator[Change]:
        """Commit what is done inside, or nothing of it."""
        change = Change(now_ns, who)
        with self.hold():
            with self.table.transaction():
                yield change
            self._untold.append(change)

    def _collect(self) -> tuple[list[Dive], dict[str, None]]:
        untold, self._untold = self._untold, []
        names = {dive_id: None for change in untold for dive_id in change.dives}
        dives = [self.table.maybe_dive(dive_id) for dive_id in names]
        devices = {device: None for change in untold for device in change.devices}
        return [dive for dive in dives if dive is not None], devices

    def move(
        self, change: Change, command: Command, state: State, reason: str = "", **fields: Any
    ) -> Command:
        """Take one step of a command and write its audit record.

        Raises ConflictError when the step is not allowed.
        """
        before = command.state
        moved = replace(command, state=step(before, state), reason=reason, **fields)
        self.table.insert_history(
            change.now_ns, command.request_id, before, state, reason, change.who
        )
        return self.save(change, moved)

    def save(self, change: Change, command: Command) -> Command:
        """Write a command and note every dive that it serves as changed."""
        saved = replace(command, changed_ns=change.now_ns)
        self.table.update_command(saved)
        for dive_id in self.table.dives_of(saved.request_id):
            self.table.touch_dive(dive_id, change.now_ns)
            change.dives[dive_id] = None
        return saved

    def sweep(self) -> None:
        """Remove directories of dives that a crash left after their deletion."""
        homes = self.table.homes()
        for directory in self.directory.iterdir():
            if directory.name not in homes:
                shutil.rmtree(directory)

    def path(self, command: Command, seq: int) -> Path:
        """Name the file of one chunk."""
        return chunk_path(self.directory, command.home, command.request_id, seq)

    def paths(self, dive_id: DiveId) -> list[Path]:
        """Name the files of a dive in order of command and chunk."""
        with self.hold():
            dive = self.table.maybe_dive(dive_id)
            return [
                self.path(command, chunk.seq)
                for command in (dive.commands if dive is not None else ())
                for chunk in self.table.chunks(command.request_id)
            ]
