"""OTLP/HTTP against bodies that are too large, not what they say, or never come."""

import asyncio
import random
import tracemalloc
import zlib
from collections.abc import AsyncIterator

import pytest
import zstandard

from gateway.batch import Receipt
from gateway.config import DeviceSection, HttpSection
from gateway.receive import http_wire
from gateway.receive.admission import Reason
from tests.unit.receive.http_client import encoded, raw, send
from tests.unit.receive.support import (
    WAIT_S,
    fill,
    request_bytes,
    section,
    serving,
    status_in,
    token_table,
)

MIB = 1024 * 1024
SMALL = section(http=HttpSection(listen="127.0.0.1:0", body_max=10_000))


async def test_a_declared_length_over_the_limit_is_refused_before_the_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_wire, "LINGER_S", 0.05)
    async with serving(receive=SMALL) as site:
        answer = await raw(
            site.http_address,
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            b"Content-Length: 10001\r\n\r\n",
        )
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close" in head
        code, message, delay_s, _ = status_in(body)
        assert (code, delay_s) == (8, None)
        assert "10001" in message
        assert "10000" in message


async def test_a_body_without_length_is_counted_while_it_is_read() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1_000)

    async with serving(receive=SMALL) as site:
        status, _, body = await send(site.url, endless())
        assert (status, status_in(body)[0]) == (413, 8)
        assert site.admission.held_bytes == 0


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_the_inflated_size_is_limited_too(encoding: str) -> None:
    async with serving(receive=SMALL) as site:
        fits, headers = encoded(encoding, request_bytes(100))
        assert (await send(site.url, fits, headers))[0] == 200
        held = site.admission.held_bytes
        too_large, headers = encoded(encoding, bytes(10_001))
        assert (await send(site.url, too_large, headers))[0] == 413
        assert site.admission.held_bytes == held


def bomb(encoding: str) -> bytes:
    if encoding == "gzip":
        packer = zlib.compressobj(9, wbits=31)
        return b"".join(packer.compress(bytes(MIB)) for _ in range(64)) + packer.flush()
    engine = zstandard.ZstdCompressor().compressobj()
    return b"".join(engine.compress(bytes(MIB)) for _ in range(64)) + engine.flush()


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_many_bombs_at_once_stay_within_the_account(encoding: str) -> None:
    wire, queue_max = bomb(encoding), 12 * MIB
    async with serving(receive=section(queue_max=queue_max)) as site:
        tracemalloc.start()
        try:
            answers = await asyncio.gather(
                *(send(site.url, wire, {"Content-Encoding": encoding}) for _ in range(12))
            )
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert {status for status, _, _ in answers} <= {413, 503}
        assert 413 in {status for status, _, _ in answers}
        # What is not in the account: first steps on the loop, and the clients in this process.
        assert peak_bytes < queue_max + 12 * (MIB // 4 + 4 * len(wire)) + 2 * MIB
        assert site.admission.held_bytes == 0


async def test_large_bodies_inflate_beside_the_loop_within_the_account() -> None:
    body = random.Random(3).randbytes(3 * MIB)
    wire, headers = encoded("gzip", body)
    async with serving(receive=section(queue_max=11 * MIB)) as site:
        site.commit.receipt = Receipt(accepted=1, rejected=0, reason="")
        assert (await send(site.url, wire, headers))[0] == 200
        assert site.commit.payloads[0].body == body
        assert site.admission.held_bytes == len(body)
        fill(site.admission, 5 * MIB)
        status, _, answer = await send(site.url, wire, headers)
        assert (status, status_in(answer)[0]) == (503, 14)
        assert site.admission.held_bytes == len(body) + 5 * MIB


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_a_cut_stream_is_malformed(encoding: str) -> None:
    wire, headers = encoded(encoding, request_bytes(100))
    async with serving() as site:
        status, _, body = await send(site.url, wire[:-3], headers)
        code, message, _, fields = status_in(body)
        assert (status, code, fields) == (400, 3, ["body"])
        assert encoding in message
        assert site.commit.payloads == []


class TestLies:
    """Lengths and framings that are not true."""

    HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"

    async def test_less_than_declared_is_never_submitted(self) -> None:
        async with serving() as site:
            answer = await raw(
                site.http_address, self.HEAD + b"Content-Length: 500\r\n\r\nshort", end=True
            )
            assert answer == b""
            assert site.commit.payloads == []
            await site.http.stop(WAIT_S)
            assert site.admission.held_bytes == 0
            assert site.admission.counters.refused["traces", Reason.DISCONNECTED] == 1

    async def test_less_than_declared_on_an_open_connection_times_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_wire, "LINGER_S", 0.05)
        async with serving(body_timeout_s=0.05) as site:
            answer = await raw(site.http_address, self.HEAD + b"Content-Length: 500\r\n\r\nshort")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert status_in(body)[0] == 14
            assert site.admission.held_bytes == 0

    async def test_a_large_declared_length_holds_no_room(self) -> None:
        async with serving() as site:
            reader, writer = await asyncio.open_connection(*site.http_address.split(":"))
            writer.write(self.HEAD + b"Content-Length: 20000000\r\n\r\n" + bytes(1_000))
            await writer.drain()
            assert (await send(site.url, request_bytes()))[0] == 200
            assert site.admission.held_bytes <= 1_000 + len(request_bytes())
            writer.close()
            await reader.read()

    async def test_more_than_declared_is_malformed(self) -> None:
        body = request_bytes()
        async with serving() as site:
            answer = await raw(
                site.http_address,
                self.HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body + b"\x00\xffrest\r\n",
            )
            assert b" 400 Bad Request\r\n" in answer
            assert status_in(answer.partition(b"\r\n\r\n")[2])[0] == 3
            assert site.admission.held_bytes == sum(len(p.body) for p in site.commit.payloads)

    @pytest.mark.parametrize(
        "headers",
        [
            b"Content-Length: -5\r\n\r\n",
            b"Content-Length: many\r\n\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\nnot a chunk\r\n",
        ],
    )
    async def test_impossible_framing_is_malformed(self, headers: bytes) -> None:
        async with serving() as site:
            answer = await raw(site.http_address, self.HEAD + headers)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b" 400 Bad Request\r\n" in head
            assert status_in(body)[0] == 3
            assert site.commit.payloads == []
            assert site.admission.held_bytes == 0

    async def test_framing_that_breaks_while_it_is_read_ends_with_the_time_for_bodies(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_wire, "LINGER_S", 0.05)
        head = self.HEAD + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        async with serving(body_timeout_s=0.05) as site, asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection(*site.http_address.split(":"))
            writer.write(head)
            await reader.readuntil(b" 100 Continue\r\n\r\n")
            writer.write(b"5\r\nhello\r\nnot a chunk\r\n")
            answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert site.commit.payloads == []
            assert site.admission.held_bytes == 0

    async def test_what_is_not_http_is_answered_with_a_status(self) -> None:
        async with serving() as site:
            answer = await raw(site.http_address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert b" 400 Bad Request\r\n" in answer
            assert status_in(answer.partition(b"\r\n\r\n")[2])[0] == 3


class TestQuotas:
    """One device that asks for more than its part."""

    async def test_it_is_told_when_to_come_back_while_only_its_headers_were_sent(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_wire, "LINGER_S", 0.05)
        receive = section(device=DeviceSection(bytes_per_second=1000, burst=1.0))
        async with serving(receive=receive, clock=lambda: 5.0) as site:
            assert (await send(site.url, request_bytes()))[0] == 200
            head = TestLies.HEAD + b"Content-Length: 1000\r\n\r\n"
            answer = await raw(site.http_address, head)
            assert answer.startswith(b"HTTP/1.1 429 ")
            after = int(answer.partition(b"Retry-After: ")[2].partition(b"\r\n")[0])
            assert 1 <= after <= 4
            code, message, delay_s, _ = status_in(answer.partition(b"\r\n\r\n")[2])
            assert code == 8
            assert delay_s is not None
            assert 1.0 <= delay_s <= after
            assert "1000 bytes per second" in message
            assert site.admission.counters.refused["traces", Reason.QUOTA] == 1

    async def test_what_a_body_inflates_to_is_charged(self) -> None:
        wire, headers = encoded("gzip", request_bytes(1_000))
        receive = section(device=DeviceSection(bytes_per_second=2 * len(wire), burst=1.0))
        async with serving(receive=receive, clock=lambda: 5.0) as site:
            assert (await send(site.url, wire, headers))[0] == 200
            assert (await send(site.url, b"\x0a", {}))[0] == 429

    async def test_a_device_is_its_identity(self) -> None:
        receive = section(device=DeviceSection(requests_per_second=1, burst=1.0))
        tokens = token_table("a", "b")
        async with serving(receive=receive, tokens=tokens, clock=lambda: 5.0) as site:
            for token, status in (("a", 200), ("b", 200), ("a", 429)):
                headers = {"Authorization": f"Bearer {token}"}
                assert (await send(site.url, request_bytes(), headers))[0] == status

    async def test_its_bodies_at_once_are_limited(self) -> None:
        receive = section(device=DeviceSection(bodies_max=1))
        async with serving(receive=receive) as site:
            site.commit.gate = asyncio.Event()
            first = asyncio.create_task(send(site.url, request_bytes()))
            await site.commit.entered.wait()
            assert (await send(site.url, request_bytes()))[0] == 429
            site.commit.gate.set()
            assert (await first)[0] == 200
            assert (await send(site.url, request_bytes()))[0] == 200


async def test_a_connection_that_sends_no_request_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_wire, "HEAD_TIMEOUT_S", 0.05)
    async with serving() as site:
        assert await raw(site.http_address) == b""
        assert await raw(site.http_address, b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nX-") == b""
        # One that has sent a request may be quiet for longer.
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection(*site.http_address.split(":"))
            size = len(request_bytes())
            one = TestLies.HEAD + b"Content-Length: %d\r\n\r\n" % size + request_bytes()
            writer.write(one)
            await reader.readuntil(b"\r\n\r\n")
            assert await raw(site.http_address) == b""
            writer.write(one)
            await reader.readuntil(b"\r\n\r\n")
            writer.close()
