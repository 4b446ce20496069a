"""OTLP/HTTP at the wire: official exporter, plain client, raw sockets."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import pytest
from aiohttp import web
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from gateway.batch import Receipt, Signal, Transport
from gateway.config import HttpSection
from gateway.errors import (
    ConflictError,
    ForbiddenError,
    JournalUnavailableError,
    MalformedPayloadError,
    PayloadTooLargeError,
    QuotaExceededError,
    RequestError,
    StartError,
)
from gateway.receive import http_server, http_wire
from gateway.receive.admission import Reason
from gateway.receive.http_server import identity_of
from tests.unit.receive.http_client import encoded, raw, send
from tests.unit.receive.support import (
    NOW_NS,
    WAIT_S,
    Site,
    fill,
    request_bytes,
    section,
    serving,
    spans_in,
    status_in,
    token_table,
)

MIB = 1024 * 1024


@pytest.mark.parametrize(
    "compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate]
)
async def test_the_official_exporter_delivers_every_span(compression: Compression) -> None:
    def run(url: str) -> None:
        provider = TracerProvider()
        exporter = OTLPSpanExporter(endpoint=url, compression=compression)
        provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=64))
        tracer = provider.get_tracer("test")
        for _ in range(300):
            tracer.start_span("inference").end()
        provider.shutdown()

    async with serving() as site:
        await asyncio.to_thread(run, site.url)
        payloads = site.commit.payloads
        if compression is Compression.Deflate:  # optional in OTLP, not served
            assert payloads == []
            assert site.admission.counters.refused["traces", Reason.UNSUPPORTED_MEDIA] > 0
            return
        assert sum(spans_in(payload.body) for payload in payloads) == 300
        assert {payload.transport for payload in payloads} == {Transport.HTTP}
        assert {payload.arrival_ns for payload in payloads} == {NOW_NS}
        counters = site.admission.counters
        assert counters.accepted_items == [0, 300]
        assert counters.requests == [0, len(payloads)]
        assert counters.wire_bytes == sum(payload.wire_bytes for payload in payloads)
        assert site.admission.held_bytes == sum(len(payload.body) for payload in payloads)


@pytest.mark.parametrize("encoding", [None, "identity", "gzip", "zstd", "GZIP"])
@pytest.mark.parametrize("spans", [1, 500, 40_000])
async def test_full_success_in_every_encoding_and_size(encoding: str | None, spans: int) -> None:
    body = request_bytes(spans)
    wire, headers = encoded(encoding, body)
    async with serving() as site:
        status, answer, reply = await send(site.url, wire, headers)
        assert (status, reply) == (200, b"")
        assert answer["Content-Type"] == "application/x-protobuf"
        assert parsedate_to_datetime(answer["Date"])
        (payload,) = site.commit.payloads
        assert payload.body == body
        assert payload.wire_bytes == len(wire)
        assert site.admission.held_bytes == len(body)


async def test_a_body_without_length_is_read() -> None:
    body = request_bytes(1_000)

    async def pieces() -> AsyncIterator[bytes]:
        for first in range(0, len(body), 7_000):
            yield body[first : first + 7_000]

    async with serving() as site:
        status, _, _ = await send(site.url, pieces())
        assert status == 200
        assert site.commit.payloads[0].body == body


async def test_a_body_that_arrives_byte_by_byte_is_read() -> None:
    body = request_bytes(1)
    head = (
        f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: application/x-protobuf\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    async with serving() as site:
        pieces = [bytes([byte]) for byte in head + body]
        answer = await raw(site.http_address, *pieces)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Connection: close" in answer
        assert site.commit.payloads[0].body == body


async def test_an_empty_request_succeeds() -> None:
    async with serving() as site:
        assert (await send(site.url))[0] == 200


async def test_requests_in_a_row_on_one_connection_are_answered_in_order() -> None:
    body = request_bytes(2)
    one = (
        f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        f"Content-Length: {len(body)}\r\n"
    ).encode()
    async with serving() as site:
        answer = await raw(
            site.http_address,
            (one + b"\r\n" + body) * 20 + one + b"Connection: close\r\n\r\n" + body,
        )
        assert answer.count(b"HTTP/1.1 200 OK") == 21
        assert len(site.commit.payloads) == 21


async def test_http_1_0_is_answered_and_closed() -> None:
    body = request_bytes(1)
    head = (
        f"POST /v1/traces HTTP/1.0\r\nContent-Type: application/x-protobuf\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    async with serving() as site:
        assert b" 200 OK\r\n" in await raw(site.http_address, head + body)


async def test_a_client_that_asks_first_is_told_to_continue() -> None:
    body = request_bytes(1)
    head = (
        f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        f"Expect: 100-continue\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    async with serving() as site:
        reader, writer = await asyncio.open_connection(*site.http_address.split(":"))
        writer.write(head)
        async with asyncio.timeout(WAIT_S):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()


async def test_rejected_items_are_told() -> None:
    async with serving() as site:
        site.commit.receipt = Receipt(accepted=1, rejected=2, reason="trace_id is all zero")
        status, _, reply = await send(site.url, request_bytes(3))
        partial = ExportTraceServiceResponse.FromString(reply).partial_success
        assert (status, partial.rejected_spans) == (200, 2)
        assert partial.error_message == "trace_id is all zero"


@pytest.mark.parametrize(
    ("error", "http", "code", "retryable", "reason"),
    [
        (MalformedPayloadError("cut", 3), 400, 3, False, Reason.MALFORMED),
        (PayloadTooLargeError("big"), 413, 8, False, Reason.TOO_LARGE),
        (QuotaExceededError("yours"), 429, 8, True, Reason.QUOTA),
        (JournalUnavailableError("disk"), 503, 14, True, Reason.JOURNAL),
        (ForbiddenError("not you"), 403, 7, False, Reason.FORBIDDEN),
        (RequestError("surprise"), 503, 14, True, Reason.UNEXPECTED),
    ],
)
async def test_each_refusal_has_its_status_and_a_delay_only_if_it_may_be_repeated(
    error: RequestError, http: int, code: int, retryable: bool, reason: Reason
) -> None:
    async with serving() as site:
        site.commit.error = error
        status, headers, body = await send(site.url, request_bytes())
        number, message, delay_s, fields = status_in(body)
        assert (status, number, message) == (http, code, str(error))
        assert headers["Content-Type"] == "application/x-protobuf"
        assert fields == (["body"] if reason is Reason.MALFORMED else [])
        assert ("Retry-After" in headers) is (delay_s is not None) is retryable
        if delay_s is not None:
            assert 1.0 <= delay_s <= int(headers["Retry-After"]) <= 4
        assert site.admission.counters.refused["traces", reason] == 1
        assert site.admission.held_bytes == 0


@pytest.mark.parametrize(
    ("method", "path", "headers", "http", "code", "expected"),
    [
        ("GET", "/v1/traces", {}, 405, 12, {"Allow": "POST"}),
        ("PUT", "/v1/traces", {}, 405, 12, {"Allow": "POST"}),
        ("GET", "/v1/metrics", {}, 405, 12, {"Allow": "POST"}),
        ("PUT", "/v1/logs", {}, 405, 12, {"Allow": "POST"}),
        ("POST", "/v1development/profiles", {}, 404, 12, {}),
        ("POST", "/v1/traces/", {}, 404, 12, {}),
        ("GET", "/", {}, 404, 12, {}),
        ("POST", "/v1/traces", {"Content-Type": "text/plain"}, 415, 12, {}),
        ("POST", "/v1/traces", {"Content-Type": ""}, 415, 12, {}),
        (
            "POST",
            "/v1/traces",
            {"Content-Encoding": "br"},
            415,
            12,
            {"Accept-Encoding": "zstd, gzip, identity"},
        ),
        ("POST", "/v1/traces", {"Content-Encoding": "gzip, zstd"}, 415, 12, {}),
        ("POST", "/v1/traces", {"Content-Encoding": "gzip"}, 400, 3, {}),
        ("POST", "/v1/traces", {"Content-Encoding": "zstd"}, 400, 3, {}),
    ],
)
async def test_what_is_not_served_is_refused_with_a_status(
    method: str, path: str, headers: dict[str, str], http: int, code: int, expected: dict[str, str]
) -> None:
    async with serving() as site:
        url = f"http://{site.http_address}{path}"
        status, answer, body = await send(url, request_bytes(), headers, method)
        assert (status, status_in(body)[0]) == (http, code)
        assert answer["Content-Type"] == "application/x-protobuf"
        assert {key: answer[key] for key in expected} == expected
        assert site.commit.payloads == []


@pytest.mark.parametrize(
    "text", ["application/x-protobuf; charset=utf-8", "Application/X-Protobuf "]
)
async def test_the_content_type_is_read_as_http_wants(text: str) -> None:
    async with serving() as site:
        assert (await send(site.url, request_bytes(), {"Content-Type": text}))[0] == 200


JSON = {"Content-Type": "Application/JSON; charset=utf-8"}
BIG_JSON = b'{"resourceSpans":[],"%s":[%s]}' % (b"x" * 10, b"0," * http_server.INLINE_BYTES + b"0")


@pytest.mark.parametrize(("text", "ignored"), [(b'{"resourceSpans":[]}', 0), (BIG_JSON, 1)])
async def test_json_becomes_protobuf_and_is_answered_in_json(text: bytes, ignored: int) -> None:
    async with serving() as site:
        status, headers, body = await send(site.url, text, JSON)
        assert (status, headers["Content-Type"], body) == (200, "application/json", b"{}")
        # An empty request needs no commit.
        assert site.commit.payloads == []
        assert site.admission.held_bytes == 0
        assert site.admission.counters.ignored_fields[Signal.TRACES] == ignored


async def test_bytes_of_a_json_body_are_those_of_its_protobuf() -> None:
    span = b'{"traceId":"%s","spanId":"%s","name":"inference"}' % (b"ab" * 16, b"cd" * 8)
    text = b'{"resourceSpans":[{"scopeSpans":[{"spans":[%s]}]}]}' % span
    async with serving() as site:
        status, _, _ = await send(site.url, text, JSON)
        assert status == 200
        (payload,) = site.commit.payloads
        made = ExportTraceServiceRequest.FromString(payload.body)
        assert made.resource_spans[0].scope_spans[0].spans[0].span_id == bytes([0xCD] * 8)
        assert site.admission.held_bytes == len(payload.body) < len(text) == payload.wire_bytes


async def test_refusals_of_json_are_json() -> None:
    async with serving() as site:
        status, headers, body = await send(site.url, b'{"resourceSpans":{}}', JSON)
        assert (status, headers["Content-Type"]) == (400, "application/json")
        told = json.loads(body)
        assert told["code"] == 3
        assert "resourceSpans" in told["message"]
        assert site.admission.held_bytes == 0
        site.commit.receipt = Receipt(accepted=1, rejected=2, reason="trace_id is all zero")
        text = b'{"resourceSpans":[{"schemaUrl":"x"}]}'
        status, headers, body = await send(site.url, text, JSON)
        told = json.loads(body)["partialSuccess"]
        assert told == {"rejectedSpans": "2", "errorMessage": "trace_id is all zero"}
        assert headers["Content-Type"] == "application/json"


async def test_a_missing_content_type_is_refused() -> None:
    async with serving() as site:
        head = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
        answer = await raw(site.http_address, head + b"Connection: close\r\n\r\nx")
        assert answer.startswith(b"HTTP/1.1 415 ")


async def test_a_full_account_asks_to_come_back() -> None:
    async with serving(receive=section(queue_max=50_000)) as site:
        held = fill(site.admission, 49_999)
        status, headers, body = await send(site.url, request_bytes())
        assert (status, status_in(body)[0]) == (503, 14)
        assert 1 <= int(headers["Retry-After"]) <= 4
        for hold in held:
            hold.close()
        assert (await send(site.url, request_bytes()))[0] == 200


async def test_draining_asks_to_come_back_and_finishes_what_is_under_way() -> None:
    async with serving() as site:
        site.commit.gate = asyncio.Event()
        under_way = asyncio.create_task(send(site.url, request_bytes()))
        await site.commit.entered.wait()
        site.admission.drain()
        status, _, body = await send(site.url, request_bytes())
        assert (status, status_in(body)[1]) == (503, "the gateway is shutting down")
        stopping = asyncio.create_task(site.http.stop(WAIT_S))
        site.commit.gate.set()
        assert (await under_way)[0] == 200
        await stopping


async def test_a_token_gives_the_identity() -> None:
    async with serving(tokens=token_table("secret")) as site:
        status, _, _ = await send(site.url, request_bytes(), {"authorization": "bearer secret"})
        assert status == 200
        assert site.commit.payloads[0].identity == "device-secret"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
async def test_no_or_a_wrong_token_is_refused(headers: dict[str, str]) -> None:
    async with serving(tokens=token_table("secret")) as site:
        status, answer, body = await send(site.url, request_bytes(), headers)
        assert (status, status_in(body)[0]) == (401, 16)
        assert answer["WWW-Authenticate"] == "Bearer"
        assert site.commit.payloads == []
        assert site.admission.counters.unauthenticated_sources == {"127.0.0.1": 1}


async def test_an_unauthenticated_peer_is_answered_before_its_body_arrives() -> None:
    async with serving(tokens=token_table("secret")) as site:
        reader, writer = await asyncio.open_connection(*site.http_address.split(":"))
        writer.write(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            b"Content-Length: 1000\r\n\r\n"
        )
        async with asyncio.timeout(WAIT_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
        writer.close()


async def test_added_routes_get_the_identity_and_their_body_under_a_ceiling() -> None:
    servers: list[Site] = []

    async def device(request: web.BaseRequest) -> web.StreamResponse:
        body = await servers[0].http.read_body(request, 1_000)
        return web.Response(text=f"{identity_of(request)} {request.path} {len(body)}")

    async def conflict(request: web.BaseRequest) -> web.StreamResponse:
        raise MalformedPayloadError("not for you")

    routes = [
        ("POST", "/v1/opamp", device),
        ("GET", "/v1/opamp", conflict),
        ("PUT", "/v1/chunks/*", device),
    ]
    async with serving(tokens=token_table("secret"), routes=routes) as site:
        servers.append(site)
        base, token = f"http://{site.http_address}", {"Authorization": "Bearer secret"}
        status, _, body = await send(f"{base}/v1/opamp", b"12345", token)
        assert (status, body) == (200, b"device-secret /v1/opamp 5")
        packed = {**token, "Content-Encoding": "gzip"}
        status, _, body = await send(
            f"{base}/v1/chunks/9?a=b", gzip.compress(b"123"), packed, "PUT"
        )
        assert (status, body) == (200, b"device-secret /v1/chunks/9 3")
        assert (await send(f"{base}/v1/opamp", bytes(1_001), token))[0] == 413
        assert (await send(f"{base}/v1/opamp", gzip.compress(bytes(1_001)), packed))[0] == 413
        assert (await send(f"{base}/v1/opamp", b"", token, "GET"))[0] == 400
        assert (await send(f"{base}/v1/opamp", b""))[0] == 401
        status, headers, _ = await send(f"{base}/v1/opamp", b"", token, "DELETE")
        assert (status, headers["Allow"]) == (405, "GET, POST")
        assert site.admission.held_bytes == 0


async def test_an_error_of_our_own_asks_to_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(request: web.BaseRequest) -> web.StreamResponse:
        raise ConflictError("a fault that no table of requests knows")

    async with serving(routes=[("GET", "/broken", broken)]) as site:
        url = f"http://{site.http_address}/broken"
        status, headers, body = await send(url, method="GET")
        assert (status, status_in(body)[0]) == (503, 14)
        assert "fault" not in status_in(body)[1]
        assert "Retry-After" in headers
        assert "request failed" in caplog.text


async def test_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_wire, "CONNECTIONS_MAX", 1)
    async with serving() as site:
        host, port = site.http_address.split(":")
        first_reader, first = await asyncio.open_connection(host, port)
        first.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            assert (await first_reader.readline()).startswith(b"HTTP/1.1 404")
            second_reader, second = await asyncio.open_connection(host, port)
            assert await second_reader.read() == b""
        first.close()
        second.close()


async def test_a_port_in_use_is_said_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError) as caught:
            async with serving(receive=section(http=HttpSection(listen=listen))):
                pass
        assert str(caught.value) == f"cannot listen on {listen} for OTLP/HTTP: the port is in use"


async def test_an_address_of_another_machine_is_said_in_one_sentence() -> None:
    receive = section(http=HttpSection(listen="192.0.2.1:4318"))
    with pytest.raises(StartError, match="this machine does not have the address"):
        async with serving(receive=receive):
            pass
