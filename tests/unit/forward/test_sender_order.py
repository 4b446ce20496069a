"""Frames keep their order over failures, real servers are waited for, windows hold backlog."""

import asyncio
import logging
import random
from dataclasses import replace
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from aiohttp import web
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from gateway.batch import Frame, Signal
from gateway.config.hours import Hours
from gateway.forward.halve import SPLIT_BYTES_MIN
from gateway.forward.otlp_client import Encoded, GrpcSender, HttpSender, Sent
from gateway.forward.outbox import Counts, Selection
from gateway.forward.sender import IN_FLIGHT_MAX
from gateway.forward.windows import LOOK_S, Windows
from tests.unit.forward.servers import (
    Seen,
    frame_of,
    grpc_server,
    http_server,
    names_of,
    partial,
    protobuf,
    success,
)
from tests.unit.forward.world import NAME, TIMEOUT_S, Script, World, down

# --- order --------------------------------------------------------------------------------------


def numbered(signal: Signal, number: int) -> Frame:
    return replace(frame_of([f"n{number}"]), signal=signal, items=number)


@pytest.mark.parametrize("seed_offset", range(5))
async def test_a_frame_that_fails_is_taken_before_any_of_a_later_wave(
    seed: int, seed_offset: int
) -> None:
    rng = random.Random(seed + seed_offset)
    answers = [down() if rng.random() < 0.3 else Sent(rejected=0, message="") for _ in range(300)]
    script = Script(answers=list(answers))
    taken: list[tuple[Signal, int]] = []

    async def send(frame: Encoded) -> Sent:
        answer = await Script.send(script, frame)
        taken.append((frame.signal, frame.items))
        return answer

    world = World(script)
    world.forwarder._sender = cast(Any, SimpleNamespace(send=send, close=script.close))
    signals = [rng.choice(list(Signal)) for _ in range(100)]
    frames = [numbered(signal, number + 1) for number, signal in enumerate(signals)]
    world.box.add(world.connection, frames)
    world.forwarder.wake()
    await world.run()
    assert sorted(number for _, number in taken) == list(range(1, 101)), "each once"
    for place, (signal, number) in enumerate(taken):
        before = [other for _, other in taken[:place] if other > number]
        assert len(before) < IN_FLIGHT_MAX, "overtaken by the rest of its wave at most"
        if signal is Signal.METRICS:
            assert not [n for s, n in taken[:place] if s is signal and n > number]


async def test_parts_of_a_frame_are_sent_before_what_came_after_it() -> None:
    names = [f"n{index}" for index in range(4)]
    limit = 3 * SPLIT_BYTES_MIN

    def answer(one: Seen) -> web.Response:
        return success(one) if len(one.body) < limit else protobuf(b"", 413)

    async with http_server(answer) as server:
        world = World(Script())
        world.forwarder._sender = HttpSender(server.url, compression="none")
        large = frame_of(names, padding=SPLIT_BYTES_MIN)
        world.box.add(world.connection, [large, frame_of(["later"])])
        await world.run()
    small = [one.request() for one in server.seen if len(one.body) < limit]
    taken = [name for request in small for name in names_of(request)]
    assert sorted(taken[:4]) == names
    assert taken[4:] == ["later"]


# --- real servers that fail ---------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_a_server_that_is_down_is_asked_with_full_jitter(protocol: str) -> None:
    failures = 6

    def http_answer(_: Seen) -> web.Response:
        count[0] += 1
        return success(_) if count[0] > failures else web.Response(status=503)

    async def grpc_answer(body: bytes, context: Any) -> bytes:
        count[0] += 1
        if count[0] <= failures:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        return partial(0, "")

    count = [0]
    async with http_server(http_answer) as over_http, grpc_server(grpc_answer) as over_grpc:
        world = World(Script())
        world.forwarder._sender = (
            HttpSender(over_http.url) if protocol == "http" else GrpcSender(over_grpc.url)
        )
        world.add(3)
        await world.run()
    assert count[0] == failures + 1
    assert len(world.slept) == failures
    for delay, ceiling in zip(world.slept, (1, 2, 4, 8, 16, 32), strict=True):
        assert 0.0 <= delay <= ceiling
    assert len(set(world.slept)) == failures
    assert world.counts_at_end == Counts(forwarded_items=3)


@pytest.mark.parametrize(
    ("protocol", "hint_s"), [("http", 40), ("http date", 40), ("grpc", 40), ("grpc status", 40)]
)
async def test_a_server_says_when_to_come_back(protocol: str, hint_s: int) -> None:
    count = [0]
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds = hint_s

    def http_answer(one: Seen) -> web.Response:
        count[0] += 1
        if count[0] > 1:
            return success(one)
        hint = str(hint_s) if protocol == "http" else formatdate(1000 + hint_s, usegmt=True)
        return web.Response(status=429, headers={"Retry-After": hint})

    async def grpc_answer(body: bytes, context: Any) -> bytes:
        count[0] += 1
        if count[0] == 1:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            packed = any_pb2.Any()
            packed.Pack(info)
            status = status_pb2.Status(code=8, message="busy", details=[packed])
            trailer = (
                ("google.rpc.retryinfo-bin", info.SerializeToString())
                if protocol == "grpc"
                else ("grpc-status-details-bin", status.SerializeToString())
            )
            await context.abort(code, "busy", (trailer,))
        return partial(0, "")

    async with http_server(http_answer) as over_http, grpc_server(grpc_answer) as over_grpc:
        world = World(Script())
        world.forwarder._sender = (
            HttpSender(over_http.url, now_unix_s=lambda: 1000.0)
            if protocol.startswith("http")
            else GrpcSender(over_grpc.url)
        )
        world.add(3)
        await world.run()
    [slept] = world.slept
    assert hint_s <= slept <= 1.1 * hint_s
    assert count[0] == 2
    assert world.counts_at_end == Counts(forwarded_items=3)


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_rejected_items_of_any_signal_are_dead_letters_with_their_reason(
    signal: Signal, protocol: str
) -> None:
    async def grpc_answer(body: bytes, context: Any) -> bytes:
        return partial(2, "too old")

    async with (
        http_server(lambda _: protobuf(partial(2, "too old"))) as over_http,
        grpc_server(grpc_answer) as over_grpc,
    ):
        world = World(Script())
        world.forwarder._sender = (
            HttpSender(over_http.url) if protocol == "http" else GrpcSender(over_grpc.url)
        )
        world.box.add(world.connection, [numbered(signal, 5)])
        async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
            group.create_task(world.forwarder.run())
            await world.idle.wait()
            world.forwarder.stop(TIMEOUT_S)
    assert world.box.counts(world.connection)[NAME][signal] == Counts(
        forwarded_items=3, dead_items=2
    )
    [letter] = world.box.dead_letters(world.connection, Selection(), 9).letters
    assert (letter.signal, letter.items, letter.reason) == (signal, 2, "too old")
    world.connection.close()


# --- windows ------------------------------------------------------------------------------------

DAY_S = 86_400.0
HOUR_S = 3600.0


def nightly(live_age_s: float) -> Windows:
    return Windows(hours=[Hours.parse("01:00-05:00Z")], live_age_s=live_age_s)


async def test_backlog_waits_for_its_hours_while_live_data_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script()
    world = World(script, windows=nightly(900.0))
    times: list[tuple[int, float]] = []

    async def send(frame: Encoded) -> Sent:
        times.append((frame.items, world.now_s))
        return await Script.send(script, frame)

    async def sleep(seconds: float) -> None:
        world.now_s += seconds
        if world.now_s >= 21 * HOUR_S and len(times) == 0:
            world.box.add(world.connection, [frame_of(["n"] * 9)])
        if world.now_s >= DAY_S + 6 * HOUR_S:
            world.forwarder.stop(TIMEOUT_S)
        await asyncio.sleep(0)

    world.forwarder._sender = cast(Any, SimpleNamespace(send=send, close=script.close))
    world.forwarder._sleep = sleep
    world.now_s = 12 * HOUR_S
    world.box.add(world.connection, [frame_of(["n"] * n) for n in (1, 2, 3)])
    world.now_s = 20 * HOUR_S
    async with asyncio.timeout(TIMEOUT_S):
        await world.forwarder.run()
    assert [items for items, _ in times] == [9, 1, 2, 3]
    assert times[0][1] <= 21 * HOUR_S + LOOK_S, "live data at once"
    assert all(DAY_S + HOUR_S <= at <= DAY_S + HOUR_S + LOOK_S for _, at in times[1:])
    assert world.forwarder.status.held, "closed again"
    assert caplog.messages == []
    world.connection.close()


async def test_a_bulk_destination_sends_in_its_hours_only_but_no_clock_holds_it_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script()
    world = World(script, windows=nightly(0.0))
    noon_ns = int(12 * HOUR_S * 1e9)
    world.forwarder._now_ns = lambda: noon_ns  # the wall clock stands still

    async def sleep(seconds: float) -> None:
        world.now_s += seconds
        if world.now_s >= 3 * DAY_S:
            world.forwarder.stop(TIMEOUT_S)
        await asyncio.sleep(0)

    world.forwarder._sleep = sleep
    world.box.add(world.connection, [frame_of(["n"])])
    async with asyncio.timeout(TIMEOUT_S):
        with caplog.at_level(logging.WARNING, "gateway.forward"):
            await world.forwarder.run()
    assert script.sent == [1]
    assert "is the clock wrong?" in caplog.messages[0]
    world.connection.close()


async def test_a_destination_that_fails_is_not_called_held() -> None:
    world = World(Script(answers=[down()]), windows=nightly(900.0))
    held: list[bool] = []

    async def sleep(seconds: float) -> None:
        held.append(world.forwarder.status.held)
        await World.sleep(world, seconds)
        world.forwarder.stop(TIMEOUT_S)

    world.forwarder._sleep = sleep
    world.now_s = 12 * HOUR_S
    world.add(1)
    async with asyncio.timeout(TIMEOUT_S):
        await world.forwarder.run()
    assert held == [False]
    world.connection.close()
