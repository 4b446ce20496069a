"""Tell every Alertmanager which alerts fire: at once on a change, and again as long as they do.

Law: each endpoint has its own queue of labels, not of messages: what is sent is the state at the
moment of sending, so a resolve overtakes every repeat and the queue is as small as the set of
alerts. One endpoint's trouble never delays another. An alert that an endpoint refuses is isolated
by bisection and counted; the others pass.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from gateway.batch import Anomaly, Json
from gateway.errors import DeliveryError
from gateway.forward.alerts import RESEND_S, AlertBook, AlertContext, Labels
from gateway.forward.backoff import Backoff
from gateway.otlp.answers import maybe_retry_after_s

log = logging.getLogger(__name__)

BATCH_ALERTS_MAX: Final = 256
TIMEOUT_S: Final = 10.0
SILENT_AFTER_RESENDS: Final = 2

# The request as such is wrong or unwelcome there; smaller ones would be, too.
CONFIGURATION_STATUSES: Final = frozenset({401, 403, 404, 405, 407, 415})
RETRYABLE_STATUSES: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """How one Alertmanager is doing, since the process started.

    Units: accepted_ns Unix nanoseconds of the last accepted request, None before the first.
    """

    endpoint: str  # scheme, host and port only
    reachable: bool | None = None
    last_error: str = ""
    accepted_ns: int | None = None
    sent_alerts: int = 0
    refused_alerts: int = 0
    failed_requests: int = 0
    queued_alerts: int = 0


class AlertRefusedError(DeliveryError):
    """The endpoint answered 4xx to the content of a request."""


class Endpoint:
    """One Alertmanager: its queue and its worker."""

    def __init__(
        self,
        url: str,
        book: AlertBook,
        *,
        rng: random.Random,
        now_ns: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]],
        timeout_s: float,
    ) -> None:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
        self._url = url.rstrip("/") + "/api/v2/alerts"
        self._book = book
        self._backoff = Backoff(rng=rng)
        self._now_ns = now_ns
        self._sleep = sleep
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._queue: dict[Labels, None] = {}
        self._refused_names: set[str] = set()
        self._wake = asyncio.Event()
        self._status = EndpointStatus(endpoint=f"{parts.scheme}://{parts.hostname}{port}")

    @property
    def status(self) -> EndpointStatus:
        """Read the endpoint's state."""
        return replace(self._status, queued_alerts=len(self._queue))

    def enqueue(self, changed: Iterable[Labels]) -> None:
        """Add alerts to what has to be sent."""
        self._queue.update(dict.fromkeys(changed))
        self._wake.set()

    def enqueue_only(self, everything: Iterable[Labels]) -> None:
        """Replace what has to be sent, which also forgets alerts that are no longer known."""
        self._queue = dict.fromkeys(everything)
        self._wake.set()

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Send what is queued, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                delay = await self.send_some(session)
                if delay > 0.0:
                    await self._sleep(delay)

    async def send_some(self, session: aiohttp.ClientSession) -> float:
        """Send one request's worth of the queue; returns the seconds to wait before the next."""
        batch = tuple(self._queue)[:BATCH_ALERTS_MAX]
        for labels in batch:
            del self._queue[labels]
        now_ns = self._now_ns()
        rendered = [self._book.maybe_render(labels, now_ns) for labels in batch]
        alerts = [alert for alert in rendered if alert is not None]
        if not alerts:
            return 0.0
        try:
            await self._send(session, alerts)
        except asyncio.CancelledError:
            self._put_back(batch)
            raise
        except DeliveryError as error:
            self._put_back(batch)
            return self._failed(error)
        if self._status.reachable is False:
            log.info("alertmanager back endpoint=%s", self._status.endpoint)
        self._backoff.reset()
        self._status = replace(self._status, reachable=True)
        return 0.0

    async def _send(self, session: aiohttp.ClientSession, alerts: Sequence[Json]) -> None:
        """Send alerts, halving a refused request until the bad ones are alone."""
        try:
            await self._post(session, alerts)
        except AlertRefusedError as error:
            if len(alerts) > 1:
                middle = len(alerts) // 2
                await self._send(session, alerts[:middle])
                await self._send(session, alerts[middle:])
                return
            self._status = replace(
                self._status,
                refused_alerts=self._status.refused_alerts + 1,
                last_error=str(error),
            )
            name = alerts[0]["labels"]["alertname"]
            if name not in self._refused_names:
                self._refused_names.add(name)
                endpoint = self._status.endpoint
                log.error("alert refused endpoint=%s alert=%s error=%s", endpoint, name, error)

    def _put_back(self, batch: Sequence[Labels]) -> None:
        # As names only: what is sent later is the state of later.
        self._queue = dict.fromkeys((*batch, *self._queue))

    async def _post(self, session: aiohttp.ClientSession, alerts: Sequence[Json]) -> None:
        try:
            async with session.post(
                self._url,
                data=json.dumps(alerts).encode(),
                headers={"Content-Type": "application/json"},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                status, headers = response.status, response.headers
        except TimeoutError as error:
            raise DeliveryError("no answer in time", permanent=False) from error
        except (aiohttp.ClientError, OSError) as error:
            raise DeliveryError(f"no answer: {type(error).__name__}", permanent=False) from error
        if 200 <= status < 300:
            self._status = replace(
                self._status,
                accepted_ns=self._now_ns(),
                sent_alerts=self._status.sent_alerts + len(alerts),
            )
            return
        if 400 <= status < 500 and status not in CONFIGURATION_STATUSES | RETRYABLE_STATUSES:
            raise AlertRefusedError(f"HTTP {status}", permanent=True)
        hint_s = maybe_retry_after_s(headers.get("Retry-After"), self._now_ns() / 1e9)
        raise DeliveryError(f"HTTP {status}", permanent=False, retry_after_s=hint_s)

    def _failed(self, error: DeliveryError) -> float:
        if self._status.reachable is not False:
            endpoint = self._status.endpoint
            log.warning("alertmanager unreachable endpoint=%s error=%s", endpoint, error)
        self._status = replace(
            self._status,
            reachable=False,
            last_error=str(error),
            failed_requests=self._status.failed_requests + 1,
        )
        return self._backoff.next_s(error.retry_after_s)


class AlertSender:
    """All Alertmanagers of a site."""

    def __init__(
        self,
        endpoints: Sequence[str],
        context: AlertContext,
        *,
        rng: random.Random,
        resend_s: float = RESEND_S,
        timeout_s: float = TIMEOUT_S,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._now_ns = now_ns
        self._sleep = sleep
        self._resend_s = resend_s
        self._started_ns = now_ns()
        self._book = AlertBook(context, started_ns=self._started_ns, resend_s=resend_s)
        self._stop = asyncio.Event()
        self._endpoints = tuple(
            Endpoint(url, self._book, rng=rng, now_ns=now_ns, sleep=sleep, timeout_s=timeout_s)
            for url in endpoints
        )

    def submit(self, anomalies: Iterable[Anomaly]) -> None:
        """Take new, changed and resolved anomalies; at start, those that are still open.

        Call it in the event loop's thread.
        """
        changed = self._book.update(anomalies, self._now_ns())
        if changed:
            for endpoint in self._endpoints:
                endpoint.enqueue(changed)

    @property
    def statuses(self) -> tuple[EndpointStatus, ...]:
        """Read the state of every endpoint."""
        return tuple(endpoint.status for endpoint in self._endpoints)

    @property
    def firing(self) -> int:
        """How many alerts fire, without the watchdog."""
        return self._book.firing

    def silent(self) -> bool:
        """Tell whether no endpoint accepted anything for too long."""
        if not self._endpoints:
            return False
        heard_ns = max(status.accepted_ns or self._started_ns for status in self.statuses)
        return self._now_ns() - heard_ns > SILENT_AFTER_RESENDS * self._resend_s * 1e9

    def stop(self) -> None:
        """Ask `run` to send what is queued once more and return."""
        self._stop.set()

    async def run(self) -> None:
        """Send and re-send until stopped."""
        if not self._endpoints:
            await self._stop.wait()
            return
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(endpoint.run(session)) for endpoint in self._endpoints]
                tasks.append(group.create_task(self._tick()))
                await self._stop.wait()
                for task in tasks:
                    task.cancel()
            # A cancelled request may be half sent; sending it again changes nothing there.
            await asyncio.gather(*(endpoint.send_some(session) for endpoint in self._endpoints))

    async def _tick(self) -> None:
        while True:
            everything = self._book.everything(self._now_ns())
            for endpoint in self._endpoints:
                endpoint.enqueue_only(everything)
            await self._sleep(self._resend_s)
