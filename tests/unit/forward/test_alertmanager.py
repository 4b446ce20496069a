"""Every Alertmanager is told the newest state, whatever the others do."""

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from gateway.forward import alertmanager
from gateway.forward.alertmanager import AlertSender, EndpointStatus
from gateway.forward.alerts import AlertContext
from tests.unit.forward.anomalies import NOW_NS, SECOND_NS, anomaly
from tests.unit.forward.servers import HttpServer, Seen, http_server

TIMEOUT_S = 10.0
RESEND_S = 60.0


class Time:
    """A clock in which every sleeper waits until the test lets time pass."""

    def __init__(self) -> None:
        self.now_ns = NOW_NS
        self.sleepers: list[tuple[int, asyncio.Event]] = []
        self.changed = asyncio.Condition()

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self.sleepers.append((self.now_ns + int(seconds * 1e9), woken))
        async with self.changed:
            self.changed.notify_all()
        await woken.wait()

    async def pass_by(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)
        for entry in tuple(self.sleepers):
            if entry[0] <= self.now_ns:
                self.sleepers.remove(entry)
                entry[1].set()
        await asyncio.sleep(0)

    async def until_sleepers(self, count: int) -> None:
        async with asyncio.timeout(TIMEOUT_S), self.changed:
            await self.changed.wait_for(lambda: len(self.sleepers) >= count)


class Box:
    """What an Alertmanager double got, and how it answers."""

    def __init__(self) -> None:
        self.requests: list[list[dict[str, Any]]] = []
        self.news = asyncio.Condition()
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.refuse: Callable[[dict[str, Any]], bool] = lambda _: False

    def answer(self, seen: Seen) -> web.Response:
        assert seen.path == "/api/v2/alerts"
        assert seen.headers["content-type"] == "application/json"
        self.requests.append(json.loads(seen.body))
        asyncio.ensure_future(self._tell())  # noqa: RUF006
        status = self.statuses.pop(0) if self.statuses else 200
        if any(self.refuse(alert) for alert in self.requests[-1]):
            status = 400
        return web.Response(status=status, headers=self.headers)

    async def _tell(self) -> None:
        async with self.news:
            self.news.notify_all()

    async def until(self, test: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S), self.news:
            await self.news.wait_for(test)

    def names(self) -> list[list[str]]:
        return [[alert["labels"]["alertname"] for alert in one] for one in self.requests]

    def latest(self, name: str) -> dict[str, Any]:
        found = [a for one in self.requests for a in one if a["labels"]["alertname"] == name]
        return found[-1]


@asynccontextmanager
async def running(
    *boxes: Box, clock: Time, extra: tuple[str, ...] = ()
) -> AsyncIterator[tuple[AlertSender, list[HttpServer]]]:
    async with asyncio.TaskGroup() as group:
        stack = [http_server(box.answer) for box in boxes]
        servers = [await one.__aenter__() for one in stack]
        sender = AlertSender(
            [*(server.url for server in servers), *extra],
            AlertContext(site="dock-7"),
            rng=random.Random(1),
            resend_s=RESEND_S,
            now_ns=lambda: clock.now_ns,
            sleep=clock.sleep,
        )
        task = group.create_task(sender.run())
        yield sender, servers
        sender.stop()
        async with asyncio.timeout(TIMEOUT_S):
            await task
        for one in stack:
            await one.__aexit__(None, None, None)


async def test_every_endpoint_is_told_at_once_and_again() -> None:
    clock, first, second = Time(), Box(), Box()
    async with running(first, second, clock=clock) as (sender, _):
        for box in (first, second):
            await box.until(lambda box=box: box.names() == [["Watchdog"]])  # type: ignore[misc]
        sender.submit([anomaly()])
        for box in (first, second):
            await box.until(lambda box=box: box.names()[-1:] == [["WeirDrift"]])  # type: ignore[misc]
        await clock.until_sleepers(1)
        before = first.latest("WeirDrift")
        await clock.pass_by(RESEND_S)
        for box in (first, second):
            await box.until(lambda box=box: len(box.requests) == 3)  # type: ignore[misc]
            assert box.names()[-1] == ["Watchdog", "WeirDrift"]
        after = first.latest("WeirDrift")
        assert after["startsAt"] == before["startsAt"]
        assert after["endsAt"] > before["endsAt"]
        assert not sender.silent()


async def test_a_resolve_is_told_at_once_and_repeated() -> None:
    clock, box = Time(), Box()
    async with running(box, clock=clock) as (sender, _):
        sender.submit([anomaly()])
        await box.until(lambda: any("WeirDrift" in names for names in box.names()))
        sender.submit([anomaly(resolved_ns=NOW_NS)])
        ended = "2027-01-15T08:00:00.000000Z"
        await box.until(lambda: box.latest("WeirDrift")["endsAt"] == ended)
        await clock.until_sleepers(1)
        count = len(box.requests)
        await clock.pass_by(RESEND_S)
        await box.until(lambda: len(box.requests) > count)
        assert box.names()[-1] == ["Watchdog", "WeirDrift"]
        assert box.latest("WeirDrift")["endsAt"] == ended
        assert sender.firing == 0


async def test_an_unreachable_endpoint_gets_the_newest_state_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, box = Time(), Box()
    box.statuses = [503, 500, 429]
    box.headers = {"Retry-After": "5"}
    with caplog.at_level(logging.INFO, "gateway.forward"):
        async with running(box, clock=clock) as (sender, _):
            await clock.until_sleepers(2)
            sender.submit([anomaly()])
            sender.submit([anomaly(resolved_ns=NOW_NS)])
            for _ in range(3):
                await clock.until_sleepers(2)
                await clock.pass_by(6)
            await box.until(lambda: len(box.requests) == 4)
            assert sorted(box.names()[-1]) == ["Watchdog", "WeirDrift"]
            assert box.latest("WeirDrift")["endsAt"] == "2027-01-15T08:00:00.000000Z"
            await asyncio.sleep(0)
        [status] = sender.statuses
        assert (status.failed_requests, status.reachable) == (3, True)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_one_endpoint_that_is_down_delays_no_other() -> None:
    clock, good, bad = Time(), Box(), Box()
    bad.statuses = [503] * 100
    async with running(good, bad, clock=clock, extra=("http://127.0.0.1:1",)) as (sender, _):
        sender.submit([anomaly()])
        await good.until(lambda: any("WeirDrift" in names for names in good.names()))
        await clock.until_sleepers(3)
        by_name: list[EndpointStatus] = list(sender.statuses)
        assert [one.reachable for one in by_name] == [True, False, False]
        assert by_name[1].queued_alerts >= 1
        assert "HTTP 503" in by_name[1].last_error


async def test_a_refused_alert_is_isolated_and_the_others_pass() -> None:
    clock, box = Time(), Box()
    box.refuse = lambda alert: alert["labels"].get("signal") == "s3"
    async with running(box, clock=clock) as (sender, _):
        await box.until(lambda: len(box.requests) == 1)
        sender.submit([anomaly(f"a{n}", subject=f"s{n}") for n in range(8)])
        await box.until(lambda: len(box.requests) == 8)
        single = [one for one in box.requests if len(one) == 1]
        assert [one[0]["labels"]["signal"] for one in single[1:]] == ["s2", "s3"]
        await asyncio.sleep(0)
    [status] = sender.statuses
    assert status.refused_alerts == 1
    assert status.sent_alerts >= 8


@pytest.mark.parametrize("code", [401, 404, 415])
async def test_a_wrong_configuration_is_not_bisected(code: int) -> None:
    clock, box = Time(), Box()
    box.statuses = [code] * 50
    async with running(box, clock=clock) as (sender, _):
        await clock.until_sleepers(2)
        sender.submit([anomaly(f"a{n}", subject=f"s{n}") for n in range(8)])
        await clock.pass_by(2)
        await box.until(lambda: len(box.requests) == 2)
        assert len(box.requests[-1]) == 9


async def test_large_sets_leave_in_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alertmanager, "BATCH_ALERTS_MAX", 4)
    clock, box = Time(), Box()
    async with running(box, clock=clock) as (sender, _):
        await box.until(lambda: len(box.requests) == 1)
        sender.submit([anomaly(f"a{n}", subject=f"s{n}") for n in range(10)])
        await box.until(lambda: len(box.requests) == 4)
        assert [len(one) for one in box.requests] == [1, 4, 4, 2]


async def test_stopping_sends_what_is_queued_once_more() -> None:
    clock, box = Time(), Box()
    async with running(box, clock=clock) as (sender, _):
        await box.until(lambda: len(box.requests) == 1)
        sender.submit([anomaly()])
    assert box.names()[-1] == ["WeirDrift"]


async def test_silence_is_noticed_after_two_resends() -> None:
    clock, box = Time(), Box()
    box.statuses = [503] * 100
    async with running(box, clock=clock) as (sender, _):
        await clock.until_sleepers(2)
        clock.now_ns += int(119 * SECOND_NS)
        assert not sender.silent()
        clock.now_ns += int(2 * SECOND_NS)
        assert sender.silent()


async def test_without_endpoints_it_only_waits_to_be_stopped() -> None:
    sender = AlertSender([], AlertContext(site="s"), rng=random.Random(1))
    sender.submit([anomaly()])
    assert not sender.silent()
    sender.stop()
    async with asyncio.timeout(TIMEOUT_S):
        await sender.run()


async def test_a_status_shows_no_credential() -> None:
    sender = AlertSender(
        ["http://user:secret@127.0.0.1:9093/prefix"], AlertContext(site="s"), rng=random.Random(1)
    )
    assert sender.statuses[0].endpoint == "http://127.0.0.1:9093"
