"""Call the webhooks of a site when an anomaly asks for a training.

Law: a call is in the database before its first attempt, and every attempt has the id of the
anomaly, so a receiver can drop a repeat. What was answered is never sent again while this process
lives, also while the disk does not take the answer; a repeat is possible only when an answer was
lost. A call outlives its anomaly: drift that has passed is still worth a training. Hooks do not
wait for each other, and of one hook the call with the fewest attempts comes first, so that one that
always fails does not keep the others from their turn. Of an answer the status alone is kept: many
servers repeat the path in its body, and a path may hold a secret.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

import aiohttp

from gateway import __version__
from gateway.batch import Anomaly
from gateway.errors import DeliveryError, WeirError
from gateway.forward.alertmanager import RETRYABLE_STATUSES
from gateway.forward.backoff import Backoff
from gateway.forward.calls import Call, CallBook, CallState, Key
from gateway.forward.hooks import Hook, body_of
from gateway.forward.signing import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from gateway.otlp.answers import maybe_retry_after_s

log = logging.getLogger(__name__)

# A training that nobody could start for so long is not worth an attempt any more.
AGE_S: Final = 3 * 86_400.0
# One attempt, and the part of it until there is a connection.
TIMEOUT_S: Final = 20.0
CONNECT_S: Final = 5.0
# How long a stop waits for an attempt under way.
STOP_GRACE_S: Final = 5.0
# How often calls of hooks that are gone, and what the disk has not taken, are looked at.
LOOK_S: Final = 60.0
ERROR_FULL: Final = "too many calls already"
ERROR_AGE: Final = "not taken in time"

# Writes calls and deletes rows; raises WeirError when the disk does not take it now.
Store = Callable[[Sequence[Call], Sequence[Key]], Awaitable[None]]


class HookWorker:
    """One hook and what waits for it."""

    def __init__(
        self,
        hook: Hook,
        book: CallBook,
        store: Store,
        *,
        rng: random.Random,
        now_ns: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.hook = hook
        self.busy = False
        self.stopping = False
        self._book = book
        self._store = store
        self._backoff = Backoff(rng=rng)
        self._now_ns = now_ns
        self._sleep = sleep
        self._timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_S)
        self._wake = asyncio.Event()
        self._wake.set()
        self._is_down = False

    def wake(self) -> None:
        """Say that there may be a new call."""
        self._wake.set()

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Make the calls that wait, until told to stop."""
        while not self.stopping:
            await self._wake.wait()
            self._wake.clear()
            while not self.stopping and (call := self._maybe_next()) is not None:
                self.busy = True
                delay_s = await self._attempt(session, call)
                self.busy = False
                if delay_s > 0.0 and not self.stopping:
                    await self._sleep(delay_s)

    def _maybe_next(self) -> Call | None:
        """Choose what is too old, else what was tried least, else the oldest."""
        waiting = self._book.waiting(self.hook.id)
        old = [call for call in waiting if is_old(call, self._now_ns())]
        if old:
            return old[0]
        return min(waiting, key=lambda call: (call.attempts, call.created_ns), default=None)

    async def _attempt(self, session: aiohttp.ClientSession, call: Call) -> float:
        """Try one call; returns the seconds to wait before the next."""
        if call.key in self._book.unsaved:
            try:
                await self._store([call], ())
            except WeirError as error:
                log.error("retrain call not stored, tried again error=%s", error)
                return self._backoff.next_s()
            self._book.unsaved.pop(call.key, None)
        if is_old(call, self._now_ns()):
            await self._settle(_ended(call, CallState.EXPIRED, self._now_ns(), ERROR_AGE))
            log.error("retrain call expired %s", self._name(call))
            return 0.0
        tried = replace(call, attempts=call.attempts + 1, changed_ns=self._now_ns())
        try:
            await self._post(session, call)
        except DeliveryError as error:
            if error.permanent:
                now_ns = self._now_ns()
                await self._settle(_ended(tried, CallState.REFUSED, now_ns, str(error)))
                log.error("retrain call refused %s error=%s", self._name(call), error)
                return 0.0
            if not self._is_down:
                self._is_down = True
                log.warning("retrain call failed %s error=%s", self._name(call), error)
            delay_s = self._backoff.next_s(error.retry_after_s)
            await self._settle(replace(tried, error=str(error)))
            return delay_s
        self._backoff.reset()
        self._is_down = False
        await self._settle(_ended(tried, CallState.DELIVERED, self._now_ns()))
        log.info("retrain call delivered %s attempts=%d", self._name(call), tried.attempts)
        return 0.0

    async def _settle(self, call: Call) -> None:
        """Keep what became of an attempt; nothing else is called before the disk has it."""
        self._book.change(call)
        failures = Backoff(rng=self._backoff.rng)
        while True:
            try:
                await self._store([call], ())
            except WeirError as error:
                if not failures.failures:
                    log.error("retrain state not stored, tried again error=%s", error)
                await self._sleep(failures.next_s())
            else:
                return

    async def _post(self, session: aiohttp.ClientSession, call: Call) -> None:
        """Make one request. Raises: DeliveryError."""
        now_ns, body = self._now_ns(), call.body.encode()
        timestamp_s = now_ns // 1_000_000_000
        signature = sign(self.hook.key, call_id=call.anomaly_id, timestamp_s=timestamp_s, body=body)
        try:
            async with session.post(
                self.hook.url,
                data=body,
                headers={
                    "Content-Type": "application/json",
                    ID_HEADER: call.anomaly_id,
                    TIMESTAMP_HEADER: str(timestamp_s),
                    SIGNATURE_HEADER: signature,
                },
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                # An answer is one whatever becomes of its body.
                status, headers = response.status, response.headers
        except TimeoutError as error:
            raise DeliveryError("no answer in time", permanent=False) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise DeliveryError(f"no answer: {type(error).__name__}", permanent=False) from error
        if 200 <= status < 300:
            return
        # A redirect is no word of the receiver: often a portal on the way.
        permanent = 400 <= status < 500 and status not in RETRYABLE_STATUSES
        hint_s = maybe_retry_after_s(headers.get("Retry-After"), now_ns / 1e9)
        raise DeliveryError(f"HTTP {status}", permanent=permanent, retry_after_s=hint_s)

    def _name(self, call: Call) -> str:
        return f"endpoint={self.hook.endpoint} anomaly={call.anomaly_id}"


class RetrainSender:
    """All hooks of a site."""

    def __init__(
        self,
        hooks: Sequence[Hook],
        book: CallBook,
        *,
        site: str,
        store: Store,
        rng: random.Random,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._hooks = tuple(hooks)
        self._book = book
        self._site = site
        self._store = store
        self._now_ns = now_ns
        self._sleep = sleep
        self._stop = asyncio.Event()
        self._workers = tuple(
            HookWorker(hook, book, store, rng=rng, now_ns=now_ns, sleep=sleep) for hook in hooks
        )

    def take(self, anomalies: Iterable[Anomaly]) -> list[Call]:
        """Enter the calls of new and louder anomalies; at start, of those that are still open.

        Returns what is new and should be stored together with the anomalies. Call it in the event
        loop's thread.
        """
        made = []
        refused: Counter[str] = Counter()
        for anomaly in anomalies:
            if anomaly.resolved_ns is not None:
                self._book.open.discard(anomaly.id)
                continue
            self._book.open.add(anomaly.id)
            for hook in self._hooks:
                if hook.wants(anomaly) and (hook.id, anomaly.id) not in self._book.calls:
                    made.append(self._make(hook, anomaly))
                    refused[hook.endpoint] += made[-1].state is CallState.EXPIRED
        for endpoint, count in (+refused).items():
            log.error(
                "retrain calls expired endpoint=%s calls=%d error=%s", endpoint, count, ERROR_FULL
            )
        self._book.forget()
        if made:
            for worker in self._workers:
                worker.wake()
        return made

    def stop(self) -> None:
        """Ask `run` to end with the attempt under way; what waits is called after the restart."""
        self._stop.set()

    async def run(self) -> None:
        """Call until stopped."""
        async with (
            aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"weir/{__version__}"},
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            looking = group.create_task(self._look())
            running = {group.create_task(worker.run(session)): worker for worker in self._workers}
            await self._stop.wait()
            looking.cancel()
            for task, worker in running.items():
                worker.stopping = True
                if not worker.busy:
                    task.cancel()
            if running:
                await asyncio.wait(running, timeout=STOP_GRACE_S)
            for task in running:
                task.cancel()

    def _make(self, hook: Hook, anomaly: Anomaly) -> Call:
        now_ns = self._now_ns()
        has_room = self._book.has_room(hook.id)
        call = Call(
            hook=hook.id,
            anomaly_id=anomaly.id,
            endpoint=hook.endpoint,
            created_ns=now_ns,
            changed_ns=now_ns,
            body=body_of(anomaly, self._site) if has_room else "",
            state=CallState.WAITING if has_room else CallState.EXPIRED,
            error="" if has_room else ERROR_FULL,
        )
        self._book.add(call)
        return call

    async def _look(self) -> None:
        """Expire calls of hooks that are gone, and store what no worker stores."""
        known = {hook.id for hook in self._hooks}
        book = self._book
        while True:
            now_ns = self._now_ns()
            for call in book.waiting():
                if call.hook not in known and is_old(call, now_ns):
                    book.change(_ended(call, CallState.EXPIRED, now_ns, ERROR_AGE))
                    book.unsaved[call.key] = None
                    log.error("retrain call expired endpoint=%s, no such hook", call.endpoint)
            unsaved = [book.calls[key] for key in book.unsaved if key in book.calls]
            forgotten = tuple(book.forgotten)
            if unsaved or forgotten:
                try:
                    await self._store(unsaved, forgotten)
                except WeirError as error:
                    log.error("retrain calls not stored, tried again error=%s", error)
                else:
                    for call in unsaved:
                        book.unsaved.pop(call.key, None)
                    for key in forgotten:
                        book.forgotten.pop(key, None)
            await self._sleep(LOOK_S)


def is_old(call: Call, now_ns: int) -> bool:
    """Tell whether a call has waited for too long."""
    return now_ns - call.created_ns >= AGE_S * 1e9


def _ended(call: Call, state: CallState, now_ns: int, error: str = "") -> Call:
    return replace(call, state=state, changed_ns=now_ns, error=error, body="")
