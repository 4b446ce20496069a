"""One task per destination: take from the outbox, send, mark, and wait when it does not answer.

Law: a frame is marked only after the destination answered for it, and what was answered is never
sent again while this process lives. Frames leave oldest first, in waves of IN_FLIGHT_MAX that are
answered and marked whole before the next one begins. A frame that has to be tried again goes alone,
before all newer ones, and so does each part of one that was cut. So a frame is overtaken by the
rest of one wave at most, and metrics, of which a wave holds one frame, by none: their order is what
a time series means. While the destination is unreachable one frame at a time asks whether it is
back. Bulk windows divide frames into two classes, and all this holds within each.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.batch import Frame, Signal
from gateway.errors import DeliveryError, WeirError
from gateway.forward.answers import FrameTooLargeError, Sent
from gateway.forward.backoff import Backoff, TokenBucket
from gateway.forward.halve import maybe_halves
from gateway.forward.otlp_client import Sender
from gateway.forward.records import Pending, Settlement, Want
from gateway.forward.rows import ID_STEP
from gateway.forward.windows import LOOK_S, Windows

log = logging.getLogger(__name__)

FETCH_BYTES_MAX: Final = 8 << 20
IN_FLIGHT_MAX: Final = 4
# More frames than this are not on their way again at once: a wave holds four, and a frame of 1 MiB
# is cut 63 times at most before its parts are too small.
AGAIN_MAX: Final = 64

Fetch = Callable[[str, Want], Awaitable[Sequence[Pending]]]
Mark = Callable[[str, Settlement], Awaitable[None]]
Outcome = Sent | DeliveryError | tuple[Frame, Frame]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardStatus:
    """How one destination is doing, since the process started.

    Units: next_try_ns Unix nanoseconds, None when nothing is waited for.
    """

    destination: str
    reachable: bool | None = None  # None before the first answer
    last_error: str = ""
    next_try_ns: int | None = None
    sent_frames: int = 0
    sent_items: int = 0
    sent_bytes: int = 0
    rejected_items: int = 0
    dead_items: int = 0
    held: bool = False  # backlog waits for its hours, and nothing is wrong


class Forwarder:
    """The sending side of one destination."""

    def __init__(
        self,
        destination: str,
        sender: Sender,
        *,
        fetch: Fetch,
        mark: Mark,
        rng: random.Random,
        bytes_per_second: int | None = None,
        windows: Windows | None = None,
        clock: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.destination = destination
        self.status = ForwardStatus(destination=destination)
        self._sender = sender
        self._fetch = fetch
        self._mark = mark
        self._backoff = Backoff(rng=rng)
        self._bucket = TokenBucket(bytes_per_second=bytes_per_second)
        self._windows = windows or Windows()
        self._failed: set[int] = set()  # frames that have to be tried again
        self._cut: deque[int] = deque(maxlen=AGAIN_MAX)  # frames that were replaced by parts
        self._clock = clock
        self._now_ns = now_ns
        self._sleep = sleep
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._limit: asyncio.Timeout | None = None
        self._drain_s = 0.0

    def wake(self) -> None:
        """Say that the outbox has new frames; call it in the event loop's thread."""
        self._wake.set()

    def stop(self, deadline_s: float) -> None:
        """Ask `run` to send what is left and return, at the latest after `deadline_s`.

        A destination that does not answer is not waited for: its frames stay in the outbox.
        """
        self._drain_s = deadline_s
        self._stop.set()
        self._wake.set()
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + deadline_s)

    async def run(self) -> None:
        """Forward until stopped."""
        try:
            async with asyncio.timeout(self._drain_s if self._stop.is_set() else None) as limit:
                self._limit = limit
                while await self._round():
                    pass
        except TimeoutError:
            log.warning("forwarding stopped at its deadline destination=%s", self.destination)
        finally:
            await self._sender.close()

    async def _round(self) -> bool:
        """Send what one fetch brings; False when stopped and nothing is left to do."""
        self._wake.clear()
        # One frame asks whether the destination is back; more would be read for nothing.
        size = 1 if self.status.reachable is False else FETCH_BYTES_MAX
        want = self._want(size)
        try:
            pending = await self._fetch(self.destination, want)
        except WeirError as error:
            return await self._wait("outbox cannot be read", str(error), None)
        if not pending:
            self._windows.emptied(self._clock())
            if self._stop.is_set():
                return False
            await self._idle()
            return True
        while pending:
            wave = self._wave(pending)
            pending = pending[len(wave) :]
            outcomes = await asyncio.gather(*(self._deliver(frame) for frame in wave))
            if not await self._settle(wave, outcomes):
                return False
            self._failed.difference_update(frame.id for frame in wave)
            self._failed.update(
                frame.id
                for frame, outcome in zip(wave, outcomes, strict=True)
                if _is_retryable(outcome)
            )
            # A full outbox may have given some of them up; those are the oldest.
            self._failed = set(sorted(self._failed)[-AGAIN_MAX:])
            failure = next((o for o in outcomes if _is_retryable(o)), None)
            if isinstance(failure, DeliveryError):
                reason, hint_s = str(failure), failure.retry_after_s
                waited = await self._wait("destination unreachable", reason, hint_s)
                return waited and not self._stop.is_set()
            self._reached()
            cut = [f.id for f, o in zip(wave, outcomes, strict=True) if isinstance(o, tuple)]
            if cut:
                self._cut.extend(cut)
                return True  # the parts come next, and only the outbox has them
        return True

    def _wave(self, pending: Sequence[Pending]) -> Sequence[Pending]:
        """Take what is sent side by side from the front: at most one frame of metrics."""
        if not self.status.reachable or self._goes_alone(pending[0].id):
            return pending[:1]
        metrics = 0
        for count, frame in enumerate(pending[:IN_FLIGHT_MAX]):
            metrics += frame.signal is Signal.METRICS
            if metrics > 1 or self._goes_alone(frame.id):
                return pending[:count]
        return pending[:IN_FLIGHT_MAX]

    def _goes_alone(self, frame_id: int) -> bool:
        """Tell whether a frame was sent before, whole or as part of another."""
        return frame_id in self._failed or any(
            whole - ID_STEP < frame_id < whole for whole in self._cut
        )

    def _want(self, bytes_max: int) -> Want:
        """Ask the windows what may leave now."""
        was_overdue = self._windows.is_overdue
        want = self._windows.want(bytes_max, now_ns=self._now_ns(), clock_s=self._clock())
        if self._windows.is_overdue and not was_overdue:
            name = self.destination
            log.warning("window did not come for a day, is the clock wrong? destination=%s", name)
        self._hold()
        return want

    def _hold(self) -> None:
        held = not self._windows.is_open and self.status.reachable is not False
        self.status = replace(self.status, held=held)

    async def _idle(self) -> None:
        """Wait for new frames, or for hours that may have come."""
        if self._windows.hours:
            await self._sleep_or(self._wake, LOOK_S)
        else:
            await self._wake.wait()

    async def _deliver(self, frame: Pending) -> Outcome:
        wait = self._bucket.delay_s(len(frame.body), self._clock())
        if wait > 0.0:
            await self._sleep(wait)
        try:
            return await self._sender.send(frame)
        except FrameTooLargeError as error:
            halves = await asyncio.to_thread(maybe_halves, frame)
            return error if halves is None else halves
        except DeliveryError as error:
            return error

    async def _settle(self, wave: Sequence[Pending], outcomes: Sequence[Outcome]) -> bool:
        """Mark what was answered; tried until it holds, False when stopped without that."""
        settlement = _settlement(wave, outcomes)
        if settlement != Settlement():
            while True:
                try:
                    await self._mark(self.destination, settlement)
                    break
                except WeirError as error:
                    if not await self._wait("outbox cannot be written", str(error), None):
                        return False
        self._count(wave, outcomes)
        return True

    async def _wait(self, what: str, reason: str, hint_s: float | None) -> bool:
        """Wait out a failure; False when there is no time: a stop was asked for before.

        A stop ends the wait. What the own disk refused is then tried once more, or a destination
        would get again what it has taken.
        """
        delay = self._backoff.next_s(hint_s)
        if self.status.reachable is not False:
            name = self.destination
            log.warning("forwarding waits destination=%s what=%s error=%s", name, what, reason)
        self.status = replace(
            self.status,
            reachable=False,
            last_error=reason,
            next_try_ns=self._now_ns() + int(delay * 1e9),
            held=False,
        )
        if self._stop.is_set():
            return False
        await self._sleep_or(self._stop, delay)
        return True

    async def _sleep_or(self, event: asyncio.Event, seconds: float) -> None:
        """Sleep until the time is over or the event comes."""
        sleep = asyncio.ensure_future(self._sleep(seconds))
        called = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({sleep, called}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            called.cancel()

    def _reached(self) -> None:
        if self.status.reachable is False:
            log.info("forwarding goes on destination=%s", self.destination)
        self._backoff.reset()
        self.status = replace(self.status, reachable=True, next_try_ns=None)

    def _count(self, wave: Sequence[Pending], outcomes: Sequence[Outcome]) -> None:
        status = self.status
        for frame, outcome in zip(wave, outcomes, strict=True):
            if isinstance(outcome, Sent):
                rejected = min(outcome.rejected, frame.items)
                status = replace(
                    status,
                    sent_frames=status.sent_frames + 1,
                    sent_items=status.sent_items + frame.items - rejected,
                    sent_bytes=status.sent_bytes + len(frame.body),
                    rejected_items=status.rejected_items + rejected,
                )
                if rejected:
                    status = replace(status, last_error=f"items rejected: {outcome.message}")
            elif isinstance(outcome, DeliveryError) and outcome.permanent:
                status = replace(
                    status, dead_items=status.dead_items + frame.items, last_error=str(outcome)
                )
        if status.dead_items > self.status.dead_items and self.status.dead_items == 0:
            log.error(
                "destination refuses frames for good destination=%s error=%s",
                self.destination,
                status.last_error,
            )
        self.status = status


def _is_retryable(outcome: Outcome) -> bool:
    return isinstance(outcome, DeliveryError) and not outcome.permanent


def _settlement(wave: Sequence[Pending], outcomes: Sequence[Outcome]) -> Settlement:
    delivered: list[int] = []
    rejected: dict[int, tuple[int, str]] = {}
    dead: list[tuple[int, str]] = []
    split: list[tuple[int, tuple[Frame, ...]]] = []
    for frame, outcome in zip(wave, outcomes, strict=True):
        if isinstance(outcome, Sent):
            delivered.append(frame.id)
            if outcome.rejected:
                rejected[frame.id] = (outcome.rejected, outcome.message)
        elif isinstance(outcome, tuple):
            split.append((frame.id, outcome))
        elif outcome.permanent:
            dead.append((frame.id, str(outcome)))
    return Settlement(
        delivered=tuple(delivered), rejected=rejected, dead=tuple(dead), split=tuple(split)
    )
