"""Law: an outage of any length loses nothing by age; only the size limit does, oldest first.

Three days pass on a clock that only sleeping moves. Outbox and forwarder are the real ones; the
destination is a double that is down, then up. Frames come in all the while.
"""

import asyncio
import logging
import random
import re
import sqlite3
from collections.abc import Sequence

import pytest

from gateway.batch import Frame, Signal
from gateway.errors import DeliveryError
from gateway.forward.otlp_client import Encoded, Sent
from gateway.forward.outbox import LOG_NS, Counts, Outbox, Pending, Selection, Settlement, Want
from gateway.forward.records import Cause
from gateway.forward.rows import disk_bytes
from gateway.forward.sender import IN_FLIGHT_MAX, Forwarder

NAME = "cloud"
START_NS = 1_760_000_000 * 10**9
HOUR_S = 3600.0
OUTAGE_S = 72 * HOUR_S
EVERY_S = 60.0
TIMEOUT_S = 120.0
BODY = 64


class Outage:
    """The world of one run. `sent` lists signal and number of each frame that was taken."""

    def __init__(self, seed: int, *, bytes_max: int, step_back_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.step_back_s = step_back_s  # of the wall clock, in the middle of the outage
        self.made = 0
        self.added_ns: list[int] = []
        self.tries = 0
        self.sent: list[tuple[Signal, int]] = []
        self.in_flight = 0
        self.box = Outbox([NAME], bytes_max=bytes_max, now_ns=self.now_ns)
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.box.prepare(self.connection)
        self.forwarder = Forwarder(
            NAME,
            self,
            fetch=self.fetch,
            mark=self.mark,
            rng=random.Random(seed),
            clock=lambda: self.now_s,
            now_ns=self.now_ns,
            sleep=self.sleep,
        )

    def now_ns(self) -> int:
        back_s = self.step_back_s if self.now_s > OUTAGE_S / 2 else 0.0
        return START_NS + int((self.now_s - back_s) * 1e9)

    def produce(self) -> None:
        """Add the frames that are due: one of each signal a minute, each with its number."""
        while self.made * EVERY_S <= min(self.now_s, OUTAGE_S):
            frames = [
                Frame(
                    signal=signal,
                    items=1,
                    body=self.made.to_bytes(BODY, "big"),
                    raw_bytes=BODY,
                    first_sequence=self.made,
                    last_sequence=self.made,
                )
                for signal in Signal
            ]
            self.box.add(self.connection, frames)
            self.added_ns.append(self.now_ns())
            self.made += 1
        self.forwarder.wake()

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.produce()
        await asyncio.sleep(0)

    async def fetch(self, destination: str, want: Want) -> Sequence[Pending]:
        found = self.box.next(self.connection, destination, want)
        if not found and self.now_s > OUTAGE_S:
            self.forwarder.stop(TIMEOUT_S)
        return found

    async def mark(self, destination: str, settlement: Settlement) -> None:
        self.box.settle(self.connection, destination, settlement)

    async def send(self, frame: Encoded) -> Sent:
        if self.now_s < OUTAGE_S:
            self.tries += 1
            raise DeliveryError("HTTP 503", permanent=False)
        self.in_flight += 1
        assert self.in_flight <= IN_FLIGHT_MAX
        await asyncio.sleep(0)
        self.in_flight -= 1
        self.sent.append((frame.signal, int.from_bytes(frame.body, "big")))
        return Sent(rejected=0, message="")

    async def close(self) -> None:
        """Nothing to close."""

    async def run(self) -> None:
        self.produce()
        async with asyncio.timeout(TIMEOUT_S):
            await self.forwarder.run()

    def numbers(self, signal: Signal) -> list[int]:
        return [number for each, number in self.sent if each is signal]

    def counts(self, signal: Signal) -> Counts:
        return self.box.counts(self.connection)[NAME][signal]


@pytest.mark.parametrize("step_back_s", [0.0, 30 * HOUR_S], ids=["steady", "clock set back"])
async def test_three_days_of_outage_lose_nothing(seed: int, step_back_s: float) -> None:
    world = Outage(seed, bytes_max=1 << 30, step_back_s=step_back_s)
    await world.run()
    assert world.made == OUTAGE_S / EVERY_S + 1
    for signal in Signal:
        assert world.numbers(signal) == list(range(world.made)), "each once, in order, from hour 1"
        assert world.counts(signal) == Counts(forwarded_items=world.made)
    # Full jitter waits half a minute on average once the ceiling of a minute is reached.
    mean_tries = OUTAGE_S / 30
    assert 0.9 * mean_tries < world.tries < 1.1 * mean_tries
    world.connection.close()


async def test_at_its_limit_the_outbox_gives_up_the_oldest_and_says_which(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    kept_minutes = 10 * 60
    world = Outage(seed, bytes_max=kept_minutes * len(Signal) * disk_bytes(BODY))
    with caplog.at_level(logging.ERROR, "gateway.forward.outbox"):
        await world.run()
    lost = world.made - kept_minutes
    for signal in Signal:
        assert world.numbers(signal) == list(range(lost, world.made)), "the newest ten hours"
        assert world.counts(signal) == Counts(forwarded_items=kept_minutes, dead_items=lost)
        assert world.box.causes(world.connection)[NAME, signal] == {Cause.OUTBOX_FULL: lost}
    page = world.box.dead_letters(world.connection, Selection(), 100)
    assert page.total == len(Signal), "one letter for each signal, however many frames"
    for letter in page.letters:
        assert (letter.items, letter.cause) == (lost, "outbox_full")
        assert letter.first_ns == START_NS
        assert letter.last_ns == world.added_ns[lost - 1]
    world.now_s += LOG_NS / 1e9
    world.box.add(world.connection, [])
    told = [re.search(r"items=(\d+) first=(\S+) last=(\S+)", line) for line in caplog.messages]
    assert sum(int(found[1]) for found in told if found) == lost * len(Signal)
    assert told[0] is not None
    assert told[0][2] == "2025-10-09T08:53:20Z", "the first frame of the outage"
    assert len(told) <= OUTAGE_S * 1e9 / LOG_NS + 2
    world.connection.close()
