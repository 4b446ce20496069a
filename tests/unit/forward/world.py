"""An outbox in memory, a scripted destination and a clock that only sleeping moves."""

import asyncio
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.batch import Signal
from gateway.errors import DeliveryError, WeirError
from gateway.forward.otlp_client import Encoded, Sent
from gateway.forward.outbox import Counts, Outbox, Pending, Selection, Settlement, Want
from gateway.forward.sender import Forwarder
from gateway.forward.windows import Windows
from tests.unit.forward.servers import (
    frame_of,
)

TIMEOUT_S = 10.0
NAME = "cloud"


@dataclass(slots=True)
class Script:
    """A sender that answers what the test scripted, then success."""

    answers: list[Sent | DeliveryError] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    hold: asyncio.Event | None = None
    closed: bool = False
    most: int = 0
    _now: int = 0

    async def send(self, frame: Encoded) -> Sent:
        answer = self.answers.pop(0) if self.answers else Sent(rejected=0, message="")
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await (self.hold.wait() if self.hold else asyncio.sleep(0))
        finally:
            self._now -= 1
        self.sent.append(frame.items)
        if isinstance(answer, DeliveryError):
            raise answer
        return answer

    async def close(self) -> None:
        self.closed = True


class World:
    """An outbox in memory, a scripted sender and a clock that only sleeping moves."""

    def __init__(
        self,
        script: Script,
        bytes_per_second: int | None = None,
        windows: Windows | None = None,
    ) -> None:
        self.box = Outbox([NAME], now_ns=lambda: int(self.now_s * 1e9))
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.box.prepare(self.connection)
        self.script = script
        self.now_s = 0.0
        self.slept: list[float] = []
        self.trouble: list[WeirError] = []
        self.idle = asyncio.Event()
        self.counts_at_end = Counts()
        self.letters_at_end: list[str] = []
        self.forwarder = Forwarder(
            NAME,
            script,
            fetch=self.fetch,
            mark=self.mark,
            rng=random.Random(1),
            bytes_per_second=bytes_per_second,
            windows=windows,
            clock=lambda: self.now_s,
            now_ns=lambda: int(self.now_s * 1e9),
            sleep=self.sleep,
        )

    async def fetch(self, destination: str, want: Want) -> Sequence[Pending]:
        if self.trouble:
            raise self.trouble.pop(0)
        pending = self.box.next(self.connection, destination, want)
        if not pending:
            self.idle.set()
        return pending

    async def mark(self, destination: str, settlement: Settlement) -> None:
        if self.trouble:
            raise self.trouble.pop(0)
        self.box.settle(self.connection, destination, settlement)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)

    def add(self, *items: int) -> None:
        self.box.add(self.connection, [frame_of([f"n{n}" for n in range(i)]) for i in items])
        self.idle.clear()
        self.forwarder.wake()

    @property
    def counts(self) -> Counts:
        return self.box.counts(self.connection)[NAME][Signal.TRACES]

    async def run(self) -> None:
        """Forward until the outbox is empty, then stop."""
        async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
            group.create_task(self.forwarder.run())
            await self.idle.wait()
            self.forwarder.stop(TIMEOUT_S)
        self.counts_at_end = self.counts
        page = self.box.dead_letters(self.connection, Selection(), 1000)
        self.letters_at_end = [letter.reason for letter in page.letters]
        self.connection.close()


def down(hint_s: float | None = None) -> DeliveryError:
    return DeliveryError("HTTP 503", permanent=False, retry_after_s=hint_s)
