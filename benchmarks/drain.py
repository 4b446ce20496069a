"""The sending side of a gateway alone: fill an outbox, then drain it to a destination.

Usage: `python -m benchmarks.drain`, with an order as one line of JSON on standard input; tells each
phase as a line of JSON on standard output. It is a process of its own, so that its memory is that
of outbox, forwarder and their libraries, and of nothing else.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from gateway.batch import Frame, Signal
from gateway.forward.otlp_client import HttpSender
from gateway.forward.outbox import Outbox
from gateway.forward.records import Pending, Settlement, Want
from gateway.forward.sender import Forwarder
from gateway.journal.checkpoint import Checkpoint

NAME: Final = "cloud"
ITEMS: Final = 1000
FRAMES_PER_FLUSH: Final = 4
SIGNALS: Final = (Signal.TRACES, Signal.TRACES, Signal.LOGS, Signal.METRICS)
DRAIN_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to do. Units: body_bytes of one frame, fill_bytes of all; limit_bytes of the outbox."""

    folder: str
    url: str
    body_bytes: int
    fill_bytes: int
    limit_bytes: int


class Drain:
    """Outbox, storage thread and forwarder, joined as in the gateway."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._checkpoint = Checkpoint.open(Path(order.folder) / "state.db")
        self._outbox = Outbox([NAME], bytes_max=order.limit_bytes)
        self._storage = ThreadPoolExecutor(1, "storage")
        with self._checkpoint.transaction() as connection:
            self._outbox.prepare(connection)
        self._forwarder = Forwarder(
            NAME,
            HttpSender(order.url),
            fetch=self._fetch,
            mark=self._mark,
            rng=random.Random(1),
        )
        self.mark_s = 0.0
        self.fetch_s = 0.0
        self.vacuum_s = 0.0

    def fill(self) -> None:
        """Add frames as flushes do, more than the limit when the order says so."""
        rng = random.Random(1)
        bodies = [rng.randbytes(self._order.body_bytes) for _ in range(16)]
        count = self._order.fill_bytes // self._order.body_bytes
        for start in range(0, count, FRAMES_PER_FLUSH):
            frames = [
                Frame(
                    signal=SIGNALS[number % len(SIGNALS)],
                    items=ITEMS,
                    body=bodies[number % len(bodies)],
                    raw_bytes=4 * self._order.body_bytes,
                    first_sequence=start,
                    last_sequence=start,
                )
                for number in range(start, min(start + FRAMES_PER_FLUSH, count))
            ]
            with self._checkpoint.transaction() as connection:
                self._outbox.add(connection, frames)

    async def run(self) -> None:
        """Send everything."""
        async with asyncio.timeout(DRAIN_S):
            self._forwarder.stop(DRAIN_S)
            await self._forwarder.run()

    def totals(self) -> dict[str, int]:
        """Add up all signals."""
        counts = self._outbox.counts(self._checkpoint.connection)[NAME].values()
        return {
            "pending": sum(each.pending_items for each in counts),
            "forwarded": sum(each.forwarded_items for each in counts),
            "dead": sum(each.dead_items for each in counts),
        }

    async def _fetch(self, destination: str, want: Want) -> Sequence[Pending]:
        def work() -> Sequence[Pending]:
            began = time.perf_counter()
            with self._checkpoint.transaction() as connection:
                found = self._outbox.next(connection, destination, want)
            self.fetch_s += time.perf_counter() - began
            return found

        found: Sequence[Pending] = await self._in_storage(work)
        return found

    async def _mark(self, destination: str, settlement: Settlement) -> None:
        def work() -> None:
            began = time.perf_counter()
            with self._checkpoint.transaction() as connection:
                self._outbox.settle(connection, destination, settlement)
                self._outbox.look(connection)
            marked = time.perf_counter()
            self._outbox.vacuum(self._checkpoint.connection)
            self.mark_s += marked - began
            self.vacuum_s += time.perf_counter() - marked

        await self._in_storage(work)

    async def _in_storage(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._storage, work)

    def close(self) -> None:
        """Close the database."""
        self._storage.shutdown()
        self._checkpoint.close()


def _tell(phase: str, **figures: float) -> None:
    print(json.dumps({"phase": phase, **figures}), flush=True)


def main() -> None:
    """Do what the order says."""
    order = Order(**json.loads(sys.stdin.readline()))
    drain = Drain(order)
    _tell("idle")
    sys.stdin.readline()  # whoever watches has seen it idle
    began = time.perf_counter()
    drain.fill()
    _tell("full", seconds=time.perf_counter() - began, **drain.totals())
    sys.stdin.readline()
    began = time.perf_counter()
    uvloop.run(drain.run())
    _tell(
        "drained",
        seconds=time.perf_counter() - began,
        mark_s=drain.mark_s,
        fetch_s=drain.fetch_s,
        vacuum_s=drain.vacuum_s,
        **drain.totals(),
    )
    sys.stdin.readline()
    drain.close()


if __name__ == "__main__":
    main()
