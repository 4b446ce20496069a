"""The process: whatever fails in it, it either goes on or ends; it never stays half alive."""

import asyncio
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import anomalies, app
from gateway.app import Addresses, Gateway
from gateway.config import SiteConfig, load_site
from gateway.contract.plan import compile_plan
from gateway.errors import RetryableError
from gateway.measure import Measure
from gateway.retrieve.retriever import Retriever
from tests.unit.forward.anomalies import anomaly

WAIT_S = 30.0
FREE_PORTS = ("receive.grpc.listen", "receive.http.listen", "api.listen")


def make_config(data_dir: Path) -> SiteConfig:
    return load_site(None, [f"{name}=127.0.0.1:0" for name in FREE_PORTS], data_dir)


def serve(config: SiteConfig, stop: asyncio.Event) -> None:
    """Run a gateway until `stop`, at most WAIT_S."""
    plan = compile_plan((), config.sampling)
    gateway = Gateway(config, plan, lambda: (config, plan))

    def on_ready(_: Addresses) -> None:
        pass

    async def run() -> None:
        async with asyncio.timeout(WAIT_S):
            await gateway.run(on_ready, stop)

    asyncio.run(run())


def cores() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "core"]


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "LEASES_S", 0.01)


def test_task_that_raises_ends_the_process_with_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_self: Any, _now_ns: int) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Retriever, "tick", failing)
    with pytest.raises(ExceptionGroup) as caught:
        serve(make_config(tmp_path / "data"), asyncio.Event())
    assert caught.group_contains(RuntimeError, match="a defect")
    assert cores() == []


def test_disk_that_fails_under_a_dive_does_not_end_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = asyncio.Event()
    calls = []

    def failing(_self: Any, now_ns: int) -> None:
        calls.append(now_ns)
        if len(calls) < 3:
            raise RetryableError("the command table cannot be written now")
        loops[0].call_soon_threadsafe(stop.set)

    loops: list[asyncio.AbstractEventLoop] = []
    build = Gateway._build_network

    def building(self: Gateway) -> None:
        loops.append(asyncio.get_running_loop())
        build(self)

    monkeypatch.setattr(Retriever, "tick", failing)
    monkeypatch.setattr(Gateway, "_build_network", building)
    serve(make_config(tmp_path / "data"), stop)
    assert len(calls) >= 3
    assert cores() == []


def test_anomaly_that_was_sealed_but_not_entered_in_the_book_is_entered_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Measure.snapshot

    def with_episode(self: Measure) -> Any:
        return replace(snapshot(self), open_anomalies=(anomaly("a1"),))

    monkeypatch.setattr(Measure, "snapshot", with_episode)
    stop = asyncio.Event()
    stop.set()
    config = make_config(tmp_path / "data")
    serve(config, stop)
    with sqlite3.connect(config.data_dir / "state.db") as connection:
        book = anomalies.load(connection)
    connection.close()
    assert [entry.anomaly.id for entry in book.newest()] == ["a1"]
