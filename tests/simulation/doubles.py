"""Put the doubles of a world in the places of what touches the machine.

Law: only that is replaced: the journal's files, the database file, the Parquet writer, threads,
clocks, random bytes. Besides, what takes time and decides nothing is done once.
"""

import ast
import queue
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from gateway import core as core_module
from gateway import rooms as rooms_module
from gateway.forward import halve
from gateway.forward.outbox import Outbox
from gateway.journal import checkpoint as checkpoint_module
from gateway.journal import log as log_module
from gateway.journal import segment as segment_module
from gateway.journal.checkpoint import unpack_arrays
from gateway.journal.log import GroupRecord, Journal
from gateway.store import store as store_module
from tests.simulation.life import CoreEvent, CoreQueue, Thread
from tests.simulation.machine import Segments
from tests.simulation.prepared import SITE_KEY
from tests.simulation.world import World

# Half of the time of a start is the same few states, read again.
_unpack_once = lru_cache(64)(unpack_arrays)


def _unpacked(blob: bytes) -> dict[str, Any]:
    return {name: array.copy() for name, array in _unpack_once(blob).items()}


_literal = lru_cache(1 << 12)(ast.literal_eval)


class SimulatedJournal(Journal):
    """The real journal, which tells the model what it was asked to write and what it has read."""

    world: World

    def append(self, record: GroupRecord) -> int:
        self.world.model.attempt(record)
        self.world.life.step("append")
        written = super().append(record)
        self.world.life.step("appended")
        return written

    def replay(self, after: int) -> Iterator[GroupRecord]:
        for record in super().replay(after):
            self.world.life.step("replay")
            assert record.sequence not in self.world.replayed
            self.world.replayed[record.sequence] = record
            yield record


@contextmanager
def installed(world: World) -> Iterator[None]:
    """Put the doubles in the places of what touches the machine."""
    clock = world.loop.clock
    journal: Any = type("BoundJournal", (SimulatedJournal,), {"world": world})
    rooms: dict[str, Any] = {
        "open_home": lambda _: world.home,
        "site_key": lambda _: SITE_KEY,
        "load_keys": lambda *_: world.keys,
        "limit_threads": lambda: None,
        "Checkpoint": world.database,
        "Journal": SimpleNamespace(open=partial(journal.open, files=world.disk)),
        "Outbox": partial(Outbox, now_ns=clock.time_ns),
        "ThreadPoolExecutor": lambda *_: Thread(world.loop, world.life, world.delay_s),
        "time": clock,
    }
    secrets = SimpleNamespace(randbits=world.rng.getrandbits, token_bytes=world.rng.randbytes)
    with ExitStack() as stack:
        for name, double in rooms.items():
            stack.enter_context(patch.object(rooms_module, name, double))
        for module, name, each in (
            (core_module, "time", clock),
            (
                core_module,
                "queue",
                SimpleNamespace(SimpleQueue=partial(_queue, world), Empty=queue.Empty),
            ),
            (core_module, "threading", SimpleNamespace(Event=partial(_event, world))),
            (log_module, "secrets", secrets),
            (segment_module, "secrets", secrets),
            (store_module, "segment", Segments(world.health, lambda: world.life)),
            (halve, "SPLIT_BYTES_MIN", 0),
            (checkpoint_module, "unpack_arrays", _unpacked),
            (ast, "literal_eval", _literal),  # of the headers of arrays, always the same few
        ):
            stack.enter_context(patch.object(module, name, each))
        try:
            yield
        finally:
            for connection in world.database.connections:
                connection.close()
            for folder in (world.home.root, world.home.store, world.home.quarantine):
                for path in folder.iterdir():
                    if path.is_file():
                        path.unlink()


def _queue(world: World) -> CoreQueue:
    made = world.core_queue = CoreQueue(world.loop.clock, world.life)
    return made


def _event(world: World) -> CoreEvent:
    return CoreEvent(world.loop.clock, world.life)
