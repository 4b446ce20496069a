"""A training is asked for at most once for each anomaly, by a call that outlasts failures."""

import asyncio
import logging
import ssl
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.batch import Severity
from gateway.forward import retrain
from gateway.forward.calls import CallState, load
from gateway.forward.retrain import AGE_S, LOOK_S
from tests.process import free_port
from tests.unit.forward.anomalies import NOW_NS, SECOND_NS, anomaly
from tests.unit.forward.servers import Seen, http_server
from tests.unit.forward.training import TIMEOUT_S, Pipeline, World, hook_of
from tests.unit.receive.support import Authority

PERMANENT = [400, 401, 403, 404, 410, 422]
RETRYABLE = [302, 307, 408, 425, 429, 500, 502, 503, 504]


async def asked(statuses: list[int], **headers: str) -> tuple[World, Pipeline]:
    """Let a pipeline answer so to the call of one anomaly, until the call ends."""
    world = World()
    pipeline = Pipeline(world.now_s, statuses=statuses, headers=headers)
    async with http_server(pipeline.answer) as server:
        world.start(hook_of(server.url))
        async with world.running():
            world.sender.take([anomaly()])
            await world.until_ended()
    return world, pipeline


async def test_a_call_is_on_disk_before_its_first_attempt_and_delivered_once() -> None:
    world, before = World(), []

    def answer(seen: Seen) -> web.Response:
        before.append(world.states)
        return pipeline.answer(seen)

    pipeline = Pipeline(world.now_s)
    async with http_server(answer) as server:
        world.start(hook_of(server.url + "/start?token=x"))
        async with world.running():
            [made] = world.sender.take([anomaly()])
            await world.until_ended()
        assert [seen.path for seen in server.seen] == ["/start"]
    assert before == [[("a1", CallState.WAITING, 0)]]
    assert world.states == [("a1", CallState.DELIVERED, 1)]
    assert pipeline.bodies == {made.body.encode()}
    assert world.slept == []


@pytest.mark.parametrize("status", RETRYABLE)
async def test_what_may_pass_later_is_tried_again_under_the_same_id(status: int) -> None:
    world, pipeline = await asked([status, status])
    assert world.states == [("a1", CallState.DELIVERED, 3)]
    assert pipeline.ids == ["a1"] * 3
    assert len(pipeline.bodies) == 1
    assert len(world.slept) == 2
    # Full jitter: anything up to 1 s, then up to 2 s.
    assert all(0.0 <= each <= most for each, most in zip(world.slept, (1.0, 2.0), strict=True))


@pytest.mark.parametrize("status", PERMANENT)
async def test_a_call_that_is_refused_for_good_is_told_once_and_not_tried_again(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    world, pipeline = await asked([status])
    assert world.states == [("a1", CallState.REFUSED, 1)]
    assert pipeline.ids == ["a1"]
    [record] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "retrain call refused" in record.getMessage()
    assert f"error=HTTP {status}" in record.getMessage()


async def test_a_hint_of_the_receiver_is_kept_and_every_attempt_is_signed_anew() -> None:
    world, pipeline = await asked([503, 503], **{"Retry-After": "120"})
    assert all(120.0 <= each <= 132.0 for each in world.slept)
    assert len(set(pipeline.stamps)) == 3


@given(statuses=st.lists(st.sampled_from([*RETRYABLE, *PERMANENT, 200, 202, 204]), max_size=6))
@settings(max_examples=30)
def test_a_call_ends_at_the_first_answer_that_is_final(statuses: list[int]) -> None:
    """No attempt follows an end, and all attempts have one id and one body."""
    final = [n for n, status in enumerate(statuses) if status not in RETRYABLE]
    attempts = final[0] + 1 if final else len(statuses) + 1
    refused = bool(final) and statuses[final[0]] in PERMANENT
    world, pipeline = asyncio.run(asked(list(statuses)))
    assert world.states == [("a1", CallState.REFUSED if refused else CallState.DELIVERED, attempts)]
    assert pipeline.ids == ["a1"] * attempts
    assert len(pipeline.bodies) == 1
    assert load(world.connection).totals.total() == 1


async def test_an_anomaly_that_is_told_again_is_not_called_again() -> None:
    world = World()
    pipeline = Pipeline(world.now_s)
    ticket = anomaly(severity=Severity.TICKET)
    async with http_server(pipeline.answer) as server:
        world.start(hook_of(server.url))
        async with world.running():
            assert len(world.sender.take([ticket])) == 1
            assert world.sender.take([ticket, anomaly()]) == []
            await world.until_ended()
            over = replace(ticket, resolved_ns=NOW_NS)
            assert world.sender.take([anomaly(), over, ticket]) == []
            world.sender.take([anomaly("a2")])
            await world.until_ended(2)
    assert pipeline.ids == ["a1", "a2"]


async def test_a_hook_for_pages_is_called_when_a_ticket_becomes_one() -> None:
    world = World()
    pipeline = Pipeline(world.now_s)
    async with http_server(pipeline.answer) as server:
        world.start(hook_of(server.url, severity="page"))
        async with world.running():
            assert world.sender.take([anomaly(severity=Severity.TICKET)]) == []
            assert len(world.sender.take([anomaly(), anomaly()])) == 1
            await world.until_ended()
    assert pipeline.ids == ["a1"]


async def test_drift_that_has_passed_is_still_called_for_and_a_new_end_is_not() -> None:
    world = World()
    pipeline = Pipeline(world.now_s, statuses=[503])
    async with http_server(pipeline.answer) as server:
        world.start(hook_of(server.url))
        world.sender.take([anomaly(), anomaly(resolved_ns=NOW_NS)])
        world.sender.take([anomaly("a2", resolved_ns=NOW_NS)])
        async with world.running():
            await world.until_ended()
    assert world.states == [("a1", CallState.DELIVERED, 2)]


async def test_a_restart_goes_on_where_the_database_is() -> None:
    world = World()
    pipeline = Pipeline(world.now_s, statuses=[503] * 3)
    async with http_server(pipeline.answer) as server:
        hook = hook_of(server.url)
        world.start(hook)
        async with world.running():
            world.sender.take([anomaly()])
            await world.until(lambda: world.states == [("a1", CallState.WAITING, 2)])
        pipeline.statuses.clear()
        world.start(hook)
        assert world.sender.take([anomaly()]) == []
        async with world.running():
            await world.until_ended()
        tried = len(pipeline.ids)
        world.start(hook)
        assert world.sender.take([anomaly()]) == []
        async with world.running():
            world.sender.take([anomaly("a2")])
            await world.until_ended(2)
    assert pipeline.ids == ["a1"] * tried + ["a2"]
    assert len(pipeline.bodies) == 2


async def test_an_answer_that_was_lost_is_followed_by_the_same_id() -> None:
    world, got = World(), []

    async def lose_the_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        got.append(head.lower().partition(b"webhook-id: ")[2].partition(b"\r\n")[0])
        if len(got) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(lose_the_first, "127.0.0.1", 0)
    world.start(hook_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    async with server, world.running():
        world.sender.take([anomaly()])
        await world.until_ended()
    assert got == [b"a1", b"a1"]
    assert world.states == [("a1", CallState.DELIVERED, 2)]


async def test_nothing_is_called_before_the_disk_has_the_row_nor_again_until_it_has_the_end() -> (
    None
):
    world, rows = World(), []

    def answer(seen: Seen) -> web.Response:
        rows.append(world.states)
        world.failures = 3
        return pipeline.answer(seen)

    pipeline = Pipeline(world.now_s)
    world.failures = 3
    async with http_server(answer) as server:
        world.start(hook_of(server.url))
        async with world.running():
            world.sender.take([anomaly()])
            await world.until_ended()
    assert rows == [[("a1", CallState.WAITING, 0)]]
    assert pipeline.ids == ["a1"]


async def test_a_call_that_nobody_takes_expires_and_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.start(hook_of(f"http://127.0.0.1:{free_port()}"))
    async with world.running():
        world.sender.take([anomaly()])
        await world.until(lambda: world.attempts == 3)
        world.now_ns += int(AGE_S * 1e9) - 400 * SECOND_NS
        tried = world.attempts
        await world.until(lambda: world.attempts > tried + 1)
        world.now_ns += 400 * SECOND_NS
        await world.until_ended()
    [(_, state, _)] = world.states
    assert state is CallState.EXPIRED
    assert load(world.connection).totals == {CallState.EXPIRED: 1}
    told = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert ["failed" in told[0], "expired" in told[1], len(told)] == [True, True, 2]
    assert "ClientConnectorError" in told[0]


async def test_a_call_that_always_fails_does_not_keep_others_from_their_turn() -> None:
    world, done = World(), []

    def answer(seen: Seen) -> web.Response:
        if seen.headers["webhook-id"] == "a1":
            return web.Response(status=500)
        done.append(seen.headers["webhook-id"])
        return web.Response(status=202)

    async with http_server(answer) as server:
        world.start(hook_of(server.url))
        async with world.running():
            world.sender.take([anomaly("a1"), anomaly("a2"), anomaly("a3")])
            await world.until(
                lambda: [each[1] for each in world.states].count(CallState.DELIVERED) == 2
            )
    assert done == ["a2", "a3"]


async def test_hooks_do_not_wait_for_each_other() -> None:
    world = World()
    pipeline = Pipeline(world.now_s)
    gone = hook_of(f"http://127.0.0.1:{free_port()}")
    async with http_server(pipeline.answer) as server:
        world.start(gone, hook_of(server.url))
        async with world.running():
            world.sender.take([anomaly()])
            await world.until(lambda: CallState.DELIVERED in [each[1] for each in world.states])
    assert pipeline.ids == ["a1"]


async def test_a_redirect_is_not_followed() -> None:
    world = World()
    pipeline = Pipeline(world.now_s, statuses=[302], headers={"Location": "/elsewhere"})
    async with http_server(pipeline.answer) as server:
        world.start(hook_of(server.url + "/start"))
        async with world.running():
            world.sender.take([anomaly()])
            await world.until_ended()
        assert [seen.path for seen in server.seen] == ["/start", "/start"]


@pytest.mark.parametrize("status", [404, 503])
async def test_of_an_answer_the_status_alone_is_kept(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    world = World()
    echo = "no such path: /v1/start?token=s3cret\n" + "x" * (8 << 20)
    pipeline = Pipeline(world.now_s, statuses=[status], text=echo)
    async with http_server(pipeline.answer) as server:
        world.start(hook_of(server.url + "/v1/start?token=s3cret"))
        async with world.running():
            world.sender.take([anomaly()])
            await world.until(lambda: world.attempts == 1)
            [call] = load(world.connection).calls.values()
            await world.until_ended()
    assert call.error == f"HTTP {status}"
    rows = str(world.connection.execute("SELECT * FROM retrain_call").fetchall())
    for text in (caplog.text, rows, str(world.book)):
        assert "s3cret" not in text
        assert "no such path" not in text


async def test_a_receiver_that_does_not_answer_is_left_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrain, "TIMEOUT_S", 0.05)
    world = World()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    world.start(hook_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    async with server, world.running():
        world.sender.take([anomaly()])
        await world.until(lambda: world.attempts >= 2)
    [call] = load(world.connection).calls.values()
    assert (call.state, call.error) == (CallState.WAITING, "no answer in time")


async def test_a_success_is_one_whatever_becomes_of_its_body() -> None:
    world = World()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    world.start(hook_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    async with server, world.running():
        world.sender.take([anomaly()])
        await world.until_ended()
    assert world.states == [("a1", CallState.DELIVERED, 1)]


async def test_a_stop_waits_for_the_attempt_under_way() -> None:
    world = World()
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        began.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    world.start(hook_of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    async with server, world.running():
        world.sender.take([anomaly("a1"), anomaly("a2")])
        await asyncio.wait_for(began.wait(), TIMEOUT_S)
        world.sender.stop()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    # The other one waits for the restart.
    assert world.states == [("a1", CallState.DELIVERED, 1), ("a2", CallState.WAITING, 0)]


async def test_calls_of_a_hook_that_is_gone_wait_for_it_and_expire() -> None:
    world = World(hook_of("https://gone.example/a"))
    made = world.sender.take([anomaly()])
    await world._store(made, ())
    world.start(hook_of("https://other.example/b"))
    async with world.running():
        world.looks.release()
        await asyncio.sleep(0)
        assert world.states == [("a1", CallState.WAITING, 0)]
        world.now_ns += int(AGE_S * 1e9)
        world.looks.release()
        await world.until_ended()
    assert LOOK_S < AGE_S


async def test_neither_key_nor_path_is_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = World()
    pipeline = Pipeline(world.now_s, statuses=[503, 404])
    async with http_server(pipeline.answer) as server:
        hook = hook_of(server.url + "/s3cret?token=s3cret")
        world.start(hook)
        async with world.running():
            world.sender.take([anomaly(), anomaly("a2")])
            await world.until_ended(2)
    rows = str(world.connection.execute("SELECT * FROM retrain_call").fetchall())
    for text in (caplog.text, rows):
        assert "s3cret" not in text
        assert hook.key.hex() not in text
        assert repr(hook.key) not in text


async def test_a_receiver_with_an_unknown_certificate_is_told_nothing(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*Authority(tmp_path).server())
    world = World()
    pipeline = Pipeline(world.now_s)
    async with http_server(pipeline.answer, context) as server:
        world.start(hook_of(server.url))
        async with world.running():
            world.sender.take([anomaly()])
            await world.until(lambda: world.attempts >= 1)
    [call] = load(world.connection).calls.values()
    assert call.error == f"no answer: {aiohttp.ClientConnectorCertificateError.__name__}"
    assert pipeline.ids == []
