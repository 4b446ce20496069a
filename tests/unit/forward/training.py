"""A training pipeline that answers as a test says, and a sender whose clock only sleeping moves."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from gateway.config import RetrainSection
from gateway.errors import JournalUnavailableError
from gateway.forward.calls import Call, CallState, Key, load, prepare, write
from gateway.forward.hooks import Hook, make_hook
from gateway.forward.retrain import LOOK_S, RetrainSender
from gateway.forward.signing import verify
from tests.unit.forward.anomalies import NOW_NS
from tests.unit.forward.servers import Seen

TIMEOUT_S = 10.0
KEY = bytes(range(32))


def hook_of(url: str, **knobs: object) -> Hook:
    """Make a hook with the key of the tests."""
    section = {"url": url, "key_file": Path("hook.key"), **knobs}
    return make_hook(RetrainSection.model_validate(section), KEY)


@dataclass(slots=True)
class Pipeline:
    """Answers calls with `statuses`, then 200, and checks the signature of each."""

    now_s: Callable[[], float]
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    ids: list[str] = field(default_factory=list)
    stamps: list[str] = field(default_factory=list)
    bodies: set[bytes] = field(default_factory=set)

    def answer(self, seen: Seen) -> web.Response:
        """Note a call and answer it."""
        assert verify(KEY, seen.headers, seen.body, now_s=self.now_s())
        assert seen.headers["content-type"] == "application/json"
        self.ids.append(seen.headers["webhook-id"])
        self.stamps.append(seen.headers["webhook-timestamp"])
        self.bodies.add(seen.body)
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers=self.headers, text=self.text or None)


class World:
    """A sender over a database in memory."""

    def __init__(self, *hooks: Hook, connection: sqlite3.Connection | None = None) -> None:
        self.connection = connection or sqlite3.connect(":memory:", isolation_level=None)
        prepare(self.connection)
        self.now_ns = NOW_NS
        self.slept: list[float] = []
        self.failures = 0  # of the disk, to come
        self.stored = asyncio.Condition()
        self.looks = asyncio.Semaphore(0)
        self.start(*hooks)

    def start(self, *hooks: Hook) -> None:
        """Begin as after a restart: only the database is left."""
        self.book = load(self.connection)
        self.sender = RetrainSender(
            hooks,
            self.book,
            site="dock-7",
            store=self._store,
            rng=random.Random(1),
            now_ns=lambda: self.now_ns,
            sleep=self._sleep,
        )

    def now_s(self) -> float:
        """Read the clock in seconds."""
        return self.now_ns / 1e9

    async def _store(self, calls: Sequence[Call], forgotten: Sequence[Key]) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise JournalUnavailableError("the database cannot be written: disk I/O error")
        write(self.connection, calls, forgotten)
        async with self.stored:
            self.stored.notify_all()

    async def _sleep(self, seconds: float) -> None:
        if seconds == LOOK_S:
            await self.looks.acquire()
            return
        self.slept.append(seconds)
        self.now_ns += int(seconds * 1e9)
        await asyncio.sleep(0)

    @property
    def states(self) -> list[tuple[str, CallState, int]]:
        """List anomaly, state and attempts of every row on disk."""
        found = load(self.connection).calls.values()
        return [(call.anomaly_id, call.state, call.attempts) for call in found]

    @property
    def attempts(self) -> int:
        """Count the attempts of the oldest call."""
        return self.states[0][2] if self.states else 0

    async def until(self, test: Callable[[], bool]) -> None:
        """Wait until the disk has what the test wants."""
        async with asyncio.timeout(TIMEOUT_S), self.stored:
            await self.stored.wait_for(test)

    async def until_ended(self, count: int = 1) -> None:
        """Wait until so many rows wait no more, and none does."""
        await self.until(
            lambda: [state is CallState.WAITING for _, state, _ in self.states] == [False] * count
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the sender for a block."""
        task = asyncio.create_task(self.sender.run())
        try:
            yield
        finally:
            self.sender.stop()
            async with asyncio.timeout(TIMEOUT_S):
                await task
