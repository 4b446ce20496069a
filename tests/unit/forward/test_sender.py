"""Frames leave in order, once answered are never sent again, and wait out failures."""

import asyncio
import logging

import pytest
from aiohttp import web

from gateway.errors import CorruptDataError, DeliveryError, JournalUnavailableError
from gateway.forward.answers import FrameTooLargeError
from gateway.forward.halve import SPLIT_BYTES_MIN
from gateway.forward.otlp_client import HttpSender, Sent
from gateway.forward.outbox import Counts, Settlement
from tests.unit.forward.servers import (
    Seen,
    frame_of,
    http_server,
    names_of,
    protobuf,
    success,
)
from tests.unit.forward.world import TIMEOUT_S, Script, World, down


async def test_frames_leave_oldest_first_and_are_marked() -> None:
    world = World(Script())
    world.add(1, 2, 3, 4, 5, 6, 7)
    await world.run()
    assert world.script.sent == [1, 2, 3, 4, 5, 6, 7]
    assert world.counts_at_end == Counts(forwarded_items=28)
    status = world.forwarder.status
    assert (status.reachable, status.sent_frames, status.sent_items) == (True, 7, 28)
    assert status.sent_bytes > 0
    assert world.script.closed


async def test_new_frames_wake_the_forwarder() -> None:
    world = World(Script())
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
        group.create_task(world.forwarder.run())
        await world.idle.wait()
        world.add(3)
        await world.idle.wait()
        assert world.script.sent == [3]
        world.forwarder.stop(1.0)


async def test_an_unreachable_destination_is_asked_with_one_frame_at_a_time() -> None:
    world = World(Script(answers=[down(), down(), down()]))
    world.add(1, 2, 3, 4, 5)
    await world.run()
    assert world.script.sent == [1, 1, 1, 1, 2, 3, 4, 5]
    assert len(world.slept) == 3
    assert all(
        0.0 <= delay <= ceiling for delay, ceiling in zip(world.slept, (1, 2, 4), strict=True)
    )


async def test_frames_are_sent_side_by_side_when_the_destination_answers() -> None:
    world = World(Script())
    world.add(*range(1, 12))
    await world.run()
    assert world.script.most == 4


async def test_a_hint_of_the_destination_is_waited_for() -> None:
    world = World(Script(answers=[down(30.0)]))
    world.add(1)
    await world.run()
    assert 30.0 <= world.slept[0] <= 33.0


async def test_a_state_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World(Script(answers=[down(), down(), down()]))
    world.add(1, 2)
    with caplog.at_level(logging.INFO, "gateway.forward"):
        await world.run()
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO"]
    assert "HTTP 503" in caplog.messages[0]


async def test_a_status_tells_the_error_and_the_next_try() -> None:
    script = Script(answers=[down(10.0)])
    world = World(script)
    seen: list[tuple[bool | None, str, int | None]] = []

    async def sleep(seconds: float) -> None:
        status = world.forwarder.status
        seen.append((status.reachable, status.last_error, status.next_try_ns))

    world.forwarder._sleep = sleep
    world.add(1)
    await world.run()
    [(reachable, error, next_try_ns)] = seen
    assert (reachable, error) == (False, "HTTP 503")
    assert next_try_ns is not None
    assert 10.0 <= next_try_ns / 1e9 <= 11.0
    assert world.forwarder.status.next_try_ns is None


async def test_a_permanent_refusal_is_a_dead_letter_and_the_rest_goes_on() -> None:
    refusal = DeliveryError("HTTP 400: bad", permanent=True)
    world = World(Script(answers=[Sent(rejected=0, message=""), refusal]))
    world.add(1, 2, 4)
    await world.run()
    assert world.letters_at_end == ["HTTP 400: bad"]
    assert world.counts_at_end == Counts(forwarded_items=5, dead_items=2)
    assert world.forwarder.status.dead_items == 2
    assert world.forwarder.status.sent_items == 5
    assert world.slept == []


async def test_rejected_items_are_counted() -> None:
    world = World(Script(answers=[Sent(rejected=2, message="no name")]))
    world.add(5)
    await world.run()
    status = world.forwarder.status
    assert (status.sent_items, status.rejected_items) == (3, 2)
    assert "no name" in status.last_error


async def test_what_was_answered_is_not_sent_again_when_marking_fails() -> None:
    world = World(Script())
    world.add(1)
    full = JournalUnavailableError("disk full")

    async def mark(destination: str, settlement: Settlement) -> None:
        if len(world.slept) < 3:
            raise full
        await World.mark(world, destination, settlement)

    world.forwarder._mark = mark
    await world.run()
    assert world.script.sent == [1]
    assert world.forwarder.status.sent_items == 1


async def test_a_failing_fetch_is_tried_again() -> None:
    world = World(Script())
    world.add(1)
    world.trouble = [CorruptDataError("damaged"), JournalUnavailableError("busy")]
    await world.run()
    assert world.script.sent == [1]
    assert len(world.slept) == 2


async def test_the_byte_rate_holds() -> None:
    world = World(Script(), bytes_per_second=100)
    world.add(*([3] * 20))
    await world.run()
    status = world.forwarder.status
    last = status.sent_bytes // 20
    assert status.sent_bytes - last <= 100 * (sum(world.slept) + 1.0) + 1e-6
    assert sum(world.slept) > 0.0


async def test_stopping_sends_what_is_left() -> None:
    world = World(Script())
    world.add(1, 2, 3)
    world.forwarder.stop(TIMEOUT_S)
    async with asyncio.timeout(TIMEOUT_S):
        await world.forwarder.run()
    assert world.script.sent == [1, 2, 3]


async def test_stopping_does_not_wait_for_an_unreachable_destination() -> None:
    world = World(Script(answers=[down()] * 99))
    world.add(1)
    forever = asyncio.Event()
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await forever.wait()

    world.forwarder._sleep = sleep
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
        group.create_task(world.forwarder.run())
        await asleep.wait()
        world.forwarder.stop(TIMEOUT_S)
    assert world.counts == Counts(pending_items=1)


@pytest.mark.parametrize("troubles", [1, 2])
async def test_stopping_tries_once_more_what_the_own_disk_refused(troubles: int) -> None:
    """A disk that healed during the wait takes the mark and the rest; a broken one is left."""
    world = World(Script())
    world.add(1)
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    async def mark(destination: str, settlement: Settlement) -> None:
        if len(failures) < troubles:
            failures.append(settlement)
            raise JournalUnavailableError("disk full")
        await World.mark(world, destination, settlement)

    failures: list[Settlement] = []
    world.forwarder._sleep = sleep
    world.forwarder._mark = mark
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
        group.create_task(world.forwarder.run())
        await asleep.wait()
        world.add(2)
        world.forwarder.stop(TIMEOUT_S)
    if troubles == 1:
        assert (world.script.sent, world.counts) == ([1, 2], Counts(forwarded_items=3))
    else:
        assert (world.script.sent, world.counts) == ([1], Counts(pending_items=3))


async def test_stopping_ends_at_the_deadline_and_leaves_the_frame_pending() -> None:
    world = World(Script(hold=asyncio.Event()))
    world.add(1)
    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as group:
        group.create_task(world.forwarder.run())
        await asyncio.sleep(0)
        world.forwarder.stop(0.02)
    assert world.script.sent == []
    assert world.script.closed
    assert world.counts == Counts(pending_items=1)


async def test_a_frame_that_is_too_large_is_halved_until_it_fits() -> None:
    names = [f"n{index}" for index in range(8)]
    limit = 3 * SPLIT_BYTES_MIN

    def answer(one: Seen) -> web.Response:
        return success(one) if len(one.body) < limit else protobuf(b"", 413)

    async with http_server(answer) as server:
        world = World(Script())
        world.forwarder._sender = HttpSender(server.url, compression="none")
        world.box.add(world.connection, [frame_of(names, padding=SPLIT_BYTES_MIN)])
        await world.run()
    taken = [one for one in server.seen if len(one.body) < limit]
    assert sorted(name for one in taken for name in names_of(one.request())) == names
    assert len(taken) == 4
    assert world.forwarder.status.sent_items == 8
    assert world.forwarder.status.dead_items == 0


async def test_a_frame_that_cannot_be_halved_is_a_dead_letter() -> None:
    world = World(Script(answers=[FrameTooLargeError("HTTP 413", permanent=True)]))
    world.add(2)
    await world.run()
    assert world.forwarder.status.dead_items == 2
