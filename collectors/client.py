"""The client that all collectors send with: a bounded buffer, a thread that empties it, and counts.

Law: `send` never waits for the network. Every item that was handed over is delivered, rejected or
refused by the gateway, dropped under a named reason, or still waits; the counts say which at any
moment. Requests go out one after the other, in order, each at least once: an answer that was lost
or a process that died between delivery and mark makes a second one.

The exporters of the SDK give a request up after ten seconds, take redirects for success, drop
what waits at shutdown and do not read partial success; so only their messages are used here.
"""

import asyncio
import logging
import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from collectors.answers import Later, Refused, Taken, pause_s
from collectors.buffer import Drop, Waiting, open_buffer
from collectors.messages import Request, items_of, signal_of
from collectors.transport import Access, Transport, is_exposed, open_transport
from gateway.errors import StartError

logger = logging.getLogger(__name__)

BUFFER_BYTES_MAX: Final = 16 << 20
BACKOFF_S_MIN: Final = 1.0
BACKOFF_S_MAX: Final = 60.0
DRAIN_S: Final = 10.0
# Between attempts while the time of `close` runs.
LAST_PAUSE_S: Final = 0.5
# How long a thread may need after it was told to let go of everything.
STOP_S: Final = 10.0


@dataclass(slots=True, kw_only=True)
class Counts:
    """What became of the items. `found` were left in the buffer by an earlier process.

    offered + found = delivered + rejected + refused + dropped + waiting.
    """

    offered: int = 0
    found: int = 0
    delivered: int = 0
    rejected: int = 0
    refused: int = 0
    waiting: int = 0
    dropped: dict[Drop, int] = field(default_factory=dict)
    requests: int = 0
    retries: int = 0
    refusal: str = ""

    @property
    def lost(self) -> int:
        """Items that the gateway does not have and will not get."""
        return self.rejected + self.refused + sum(self.dropped.values())


class Client:
    """See the module. Make it, `send` from any thread, `close` it.

    Units: backoff in seconds. Without `buffer_dir` the buffer is in memory.
    """

    def __init__(
        self,
        access: Access,
        *,
        buffer_bytes_max: int = BUFFER_BYTES_MAX,
        buffer_dir: Path | None = None,
        backoff_s_min: float = BACKOFF_S_MIN,
        backoff_s_max: float = BACKOFF_S_MAX,
        rng: random.Random | None = None,
    ) -> None:
        """Open the buffer and begin to send what is in it. Raises: StartError."""
        self._transport: Transport = open_transport(access)
        if access.token_file is not None and is_exposed(access.token_file):
            logger.warning("the token file is readable for everyone; file=%s", access.token_file)
        self._state = threading.Condition(threading.RLock())
        self._counts = Counts()
        self._buffer = open_buffer(buffer_dir, buffer_bytes_max, self._drop)
        self._backoff_s = (backoff_s_min, backoff_s_max)
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._taken: Waiting | None = None
        self._trouble = ""
        self._told = ""
        self._closed = False
        self._counts.found = self._buffer.items
        if self._counts.found:
            logger.info("items wait from an earlier run; items=%d", self._counts.found)
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._main, name="otlp-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def counts(self) -> Counts:
        """Copy the counts of this moment."""
        with self._state:
            return replace(
                self._counts, waiting=self._waiting(), dropped=dict(self._counts.dropped)
            )

    @property
    def trouble(self) -> str:
        """Say why nothing gets through now; empty when something does."""
        return self._trouble

    def send(self, request: Request) -> bool:
        """Hand a request over; False when it was dropped at once, which is counted.

        Raises: StartError after `close`, ValueError for a request without items.
        """
        items = items_of(request)
        if items == 0:
            raise ValueError("the request has no items: nothing to send")
        body = request.SerializeToString()
        with self._state:
            if self._closed:
                raise StartError("the client is closed: make another one")
            self._counts.offered += items
            kept = self._buffer.put(signal_of(request), items, body)
            self._state.notify_all()
        self._loop.call_soon_threadsafe(self._wake.set)
        return kept

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing waits any more; False when the time is over before that."""
        with self._state:
            return self._state.wait_for(lambda: self._waiting() == 0, timeout_s)

    def close(self, timeout_s: float = DRAIN_S) -> Counts:
        """Send what waits until the time is over, then end; safe to call twice."""
        with self._state:
            first, self._closed = not self._closed, True
        if first:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._loop.call_soon_threadsafe(self._wake.set)
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                with suppress(RuntimeError):  # it has ended since
                    self._loop.call_soon_threadsafe(self._give_up)
                self._thread.join(STOP_S)
            with self._state:
                if not self._buffer.close(self._taken):
                    self._taken = None
            self._tell_end(self.counts)
        return self.counts

    # The thread

    def _main(self) -> None:
        with (
            asyncio.Runner(loop_factory=lambda: self._loop) as runner,
            suppress(asyncio.CancelledError),
        ):
            runner.run(self._run())

    async def _run(self) -> None:
        self._task = asyncio.current_task()
        try:
            while True:
                self._wake.clear()
                waiting = self._take()
                if waiting is not None:
                    await self._deliver(waiting)
                elif self._stopping.is_set():
                    return
                else:
                    await self._wake.wait()
        finally:
            await self._transport.close()

    async def _deliver(self, waiting: Waiting) -> None:
        """Send until there is an answer that is final."""
        failures = 0
        while True:
            outcome = await self._transport.send(waiting.signal, waiting.body)
            if not isinstance(outcome, Later):
                self._settle(waiting, outcome)
                return
            failures += 1
            self._tell_later(outcome)
            await self._pause(failures, outcome.hint_s)

    async def _pause(self, failures: int, hint_s: float | None) -> None:
        """Wait before the next attempt; the end of the program is a reason to try sooner.

        A wish of the server's is honoured also then, and the deadline ends the waiting.
        """
        least_s, most_s = self._backoff_s
        if self._stopping.is_set():
            least_s = most_s = min(least_s, LAST_PAUSE_S)
        delay_s = pause_s(failures, hint_s, self._rng, least_s=least_s, most_s=most_s)
        if hint_s is not None or self._stopping.is_set():
            await asyncio.sleep(delay_s)
            return
        # Not `wait_for`, which loses a cancellation that comes together with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()

    def _give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    # Books

    def _waiting(self) -> int:
        return self._buffer.items + (self._taken.items if self._taken is not None else 0)

    def _drop(self, reason: Drop, items: int) -> None:
        if reason not in self._counts.dropped:
            logger.warning("items are dropped; reason=%s items=%d", reason, items)
        self._counts.dropped[reason] = self._counts.dropped.get(reason, 0) + items

    def _take(self) -> Waiting | None:
        with self._state:
            self._taken = self._buffer.maybe_take()
            self._state.notify_all()
            return self._taken

    def _settle(self, waiting: Waiting, outcome: Taken | Refused) -> None:
        """Book a final answer and forget the request."""
        try:
            self._buffer.done(waiting)
        except OSError as error:
            logger.warning(
                "the mark of what was sent is not on disk; it may be sent again; error=%s",
                error.strerror,
            )
        with self._state:
            counts, self._taken = self._counts, None
            counts.requests += 1
            if isinstance(outcome, Refused):
                counts.refused += waiting.items
            else:
                rejected = min(outcome.rejected, waiting.items)
                counts.rejected += rejected
                counts.delivered += waiting.items - rejected
            if isinstance(outcome, Refused) or outcome.rejected:
                counts.refusal = outcome.message
            self._state.notify_all()
        self._tell_final(waiting, outcome)

    def _tell_final(self, waiting: Waiting, outcome: Taken | Refused) -> None:
        """Log what changed: trouble is over, or other words than the last ones."""
        if self._trouble:
            logger.info("the gateway takes requests again")
            self._trouble = ""
        if outcome.message and outcome.message != self._told:
            if isinstance(outcome, Refused):
                what, count = "the gateway refused a request for good", waiting.items
            else:
                what, count = "the gateway took a request with a remark", outcome.rejected
            logger.warning(
                "%s; signal=%s items=%d said=%r", what, waiting.signal, count, outcome.message
            )
        self._told = outcome.message

    def _tell_end(self, counts: Counts) -> None:
        if counts.lost or counts.waiting:
            logger.warning("not everything was delivered; %s", counts)

    def _tell_later(self, outcome: Later) -> None:
        """Count an attempt in vain; the first one, or another reason, is logged."""
        with self._state:
            self._counts.retries += 1
            waiting = self._waiting()
        if outcome.message != self._trouble:
            logger.warning(
                "the gateway cannot take requests now; said=%r items_waiting=%d",
                outcome.message,
                waiting,
            )
        self._trouble = outcome.message
        # What has to wait should outlive a loss of power.
        with suppress(OSError):
            self._buffer.sync()


__all__ = ["Access", "Client", "Counts"]
