"""OTLP/gRPC at the wire: official exporter, official classes, real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from gateway.batch import Receipt, Signal, Transport
from gateway.config import DeviceSection, GrpcSection
from gateway.errors import (
    ForbiddenError,
    JournalUnavailableError,
    MalformedPayloadError,
    PayloadTooLargeError,
    QuotaExceededError,
    RequestError,
    StartError,
)
from gateway.receive import grpc_server
from gateway.receive.admission import Reason
from gateway.receive.grpc_server import EXPORTS, PROFILES
from tests.unit.receive.support import (
    EXPORT,
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

RESPONSES: dict[Signal, tuple[str, Any]] = {
    Signal.TRACES: ("rejected_spans", ExportTraceServiceResponse),
    Signal.METRICS: ("rejected_data_points", ExportMetricsServiceResponse),
    Signal.LOGS: ("rejected_log_records", ExportLogsServiceResponse),
}
TOKEN = (("authorization", "Bearer secret"),)


@asynccontextmanager
async def calling(address: str, **channel: Any) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address, **channel) as made:
        yield made


async def export(
    site: Site,
    body: bytes,
    *,
    method: str = EXPORT,
    metadata: tuple[tuple[str, str], ...] = (),
    compression: Any = None,
) -> bytes:
    async with calling(site.grpc_address) as channel:
        reply: bytes = await channel.unary_unary(method)(
            body, metadata=metadata, compression=compression, timeout=WAIT_S
        )
        return reply


async def refused(site: Site, body: bytes, **call: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Make a call that must fail; return its code, its Status and its trailers."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await export(site, body, **call)
    trailers = dict(caught.value.trailing_metadata())
    details = trailers.get("grpc-status-details-bin")
    return caught.value.code(), details and status_in(details), trailers


async def test_the_official_exporter_delivers_every_span() -> None:
    def run(address: str) -> None:
        provider = TracerProvider()
        exporter = OTLPSpanExporter(endpoint=f"http://{address}", insecure=True)
        provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=64))
        tracer = provider.get_tracer("test")
        for _ in range(300):
            tracer.start_span("inference").end()
        provider.shutdown()

    async with serving() as site:
        await asyncio.to_thread(run, site.grpc_address)
        payloads = site.commit.payloads
        assert sum(spans_in(payload.body) for payload in payloads) == 300
        assert {payload.transport for payload in payloads} == {Transport.GRPC}
        assert {payload.arrival_ns for payload in payloads} == {NOW_NS}
        counters = site.admission.counters
        assert counters.accepted_items == [300, 0]
        assert counters.requests == [len(payloads), 0]
        assert site.admission.held_bytes == sum(len(payload.body) for payload in payloads)


async def test_full_success_is_the_empty_message() -> None:
    async with serving() as site:
        assert await export(site, request_bytes(3)) == b""


async def test_an_empty_request_succeeds() -> None:
    async with serving() as site:
        assert await export(site, b"") == b""


async def test_gzip_is_inflated() -> None:
    async with serving() as site:
        body = request_bytes(500)
        await export(site, body, compression=grpc.Compression.Gzip)
        assert site.commit.payloads[0].body == body


async def test_rejected_items_are_told() -> None:
    async with serving() as site:
        site.commit.receipt = Receipt(accepted=1, rejected=2, reason="trace_id is all zero")
        reply = ExportTraceServiceResponse.FromString(await export(site, request_bytes(3)))
        assert reply.partial_success.rejected_spans == 2
        assert reply.partial_success.error_message == "trace_id is all zero"


@pytest.mark.parametrize(
    ("error", "code", "retryable", "reason"),
    [
        (MalformedPayloadError("cut", 3), grpc.StatusCode.INVALID_ARGUMENT, 0, Reason.MALFORMED),
        (PayloadTooLargeError("big"), grpc.StatusCode.RESOURCE_EXHAUSTED, 0, Reason.TOO_LARGE),
        (QuotaExceededError("yours"), grpc.StatusCode.RESOURCE_EXHAUSTED, 1, Reason.QUOTA),
        (JournalUnavailableError("disk"), grpc.StatusCode.UNAVAILABLE, 1, Reason.JOURNAL),
        (ForbiddenError("not you"), grpc.StatusCode.PERMISSION_DENIED, 0, Reason.FORBIDDEN),
        (RequestError("surprise"), grpc.StatusCode.UNAVAILABLE, 1, Reason.UNEXPECTED),
    ],
)
async def test_each_refusal_has_its_code_and_a_delay_only_if_it_may_be_repeated(
    error: RequestError, code: Any, retryable: int, reason: Reason
) -> None:
    async with serving() as site:
        site.commit.error = error
        got, status, trailers = await refused(site, request_bytes())
        assert got is code
        number, message, delay_s, fields = status
        assert (number, message) == (code.value[0], str(error))
        assert fields == (["body"] if reason is Reason.MALFORMED else [])
        if retryable:
            assert 1.0 <= delay_s <= 4.0
            bare = error_details_pb2.RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"])
            assert bare.retry_delay.ToTimedelta().total_seconds() == delay_s
        else:
            assert delay_s is None
            assert "google.rpc.retryinfo-bin" not in trailers
        assert site.admission.counters.refused["traces", reason] == 1
        assert site.admission.held_bytes == 0


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_a_message_over_the_limit_is_exhausted_without_a_delay(compression: Any) -> None:
    receive = section(grpc=GrpcSection(listen="127.0.0.1:0", message_max=10_000))
    async with serving(receive=receive) as site:
        code, _, trailers = await refused(site, bytes(20_000), compression=compression)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "google.rpc.retryinfo-bin" not in trailers
        assert site.commit.payloads == []


@pytest.mark.parametrize(("method", "signal"), EXPORTS.items())
async def test_each_service_takes_its_signal_and_tells_what_it_rejected(
    method: str, signal: Signal
) -> None:
    rejected, response = RESPONSES[signal]
    async with serving() as site:
        assert await export(site, request_bytes(), method=method) == b""
        assert [payload.signal for payload in site.commit.payloads] == [signal]
        site.commit.receipt = Receipt(accepted=1, rejected=2, reason="trace_id is all zero")
        partial = response.FromString(
            await export(site, request_bytes(), method=method)
        ).partial_success
        assert getattr(partial, rejected) == 2
        assert partial.error_message == "trace_id is all zero"
        assert site.admission.counters.refused[signal, Reason.INVALID_ITEM] == 2


async def test_profiles_are_unimplemented_and_said_so() -> None:
    async with serving() as site:
        code, status, _ = await refused(site, b"", method=PROFILES)
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert "profiles are not served" in status[1]


async def test_an_unknown_method_is_unimplemented() -> None:
    async with serving() as site:
        code, _, _ = await refused(site, b"", method="/some.Service/Call")
        assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_full_account_asks_to_come_back() -> None:
    async with serving(receive=section(queue_max=50_000)) as site:
        held = fill(site.admission, 49_999)
        code, status, trailers = await refused(site, request_bytes())
        assert code is grpc.StatusCode.UNAVAILABLE
        assert 1.0 <= status[2] <= 4.0
        assert "google.rpc.retryinfo-bin" in trailers
        for hold in held:
            hold.close()
        assert await export(site, request_bytes()) == b""


async def test_draining_asks_to_come_back_and_finishes_what_is_under_way() -> None:
    async with serving() as site:
        site.commit.gate = asyncio.Event()
        under_way = asyncio.create_task(export(site, request_bytes()))
        await site.commit.entered.wait()
        site.admission.drain()
        code, status, _ = await refused(site, request_bytes())
        assert code is grpc.StatusCode.UNAVAILABLE
        assert status[1] == "the gateway is shutting down"
        site.commit.gate.set()
        assert await under_way == b""


async def test_stop_waits_for_requests_under_way() -> None:
    async with serving() as site:
        site.commit.gate = asyncio.Event()
        under_way = asyncio.create_task(export(site, request_bytes()))
        await site.commit.entered.wait()
        stopping = asyncio.create_task(site.grpc.stop(WAIT_S))
        site.commit.gate.set()
        assert await under_way == b""
        await stopping


async def test_a_client_that_gives_up_leaves_its_bytes_to_the_core() -> None:
    async with serving() as site:
        site.commit.gate = asyncio.Event()
        under_way = asyncio.create_task(export(site, request_bytes()))
        await site.commit.entered.wait()
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        assert site.admission.held_bytes == len(request_bytes())


async def test_a_token_gives_the_identity() -> None:
    async with serving(tokens=token_table("secret")) as site:
        await export(site, request_bytes(), metadata=TOKEN)
        assert site.commit.payloads[0].identity == "device-secret"


@pytest.mark.parametrize(
    "metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", "Basic secret"),)]
)
async def test_no_or_a_wrong_token_is_refused(metadata: tuple[tuple[str, str], ...]) -> None:
    async with serving(tokens=token_table("secret")) as site:
        code, status, _ = await refused(site, request_bytes(), metadata=metadata)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert status[0] == 16
        assert site.commit.payloads == []
        assert site.admission.counters.unauthenticated_sources == {"127.0.0.1": 1}


async def test_an_unauthenticated_peer_is_answered_before_its_message_arrives() -> None:
    async with serving(tokens=token_table("secret")) as site, calling(site.grpc_address) as channel:
        call = channel.stream_unary(EXPORT)(timeout=WAIT_S)  # sends headers and no message
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "CONNECTIONS_MAX", 1)
    alone: Any = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        serving() as site,
        calling(site.grpc_address, options=alone) as first,
        calling(site.grpc_address, options=alone) as second,
    ):
        assert await first.unary_unary(EXPORT)(b"", timeout=WAIT_S) == b""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await second.unary_unary(EXPORT)(b"", timeout=WAIT_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await first.unary_unary(EXPORT)(b"", timeout=WAIT_S) == b""


async def test_a_port_in_use_is_said_in_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError) as caught:
            async with serving(receive=section(grpc=GrpcSection(listen=listen))):
                pass
        assert str(caught.value) == f"cannot listen on {listen} for OTLP/gRPC: the port is in use"


async def test_two_gateways_do_not_share_a_port() -> None:
    async with serving() as site:
        receive = section(grpc=GrpcSection(listen=site.grpc_address))
        with pytest.raises(StartError, match="in use"):
            async with serving(receive=receive):
                pass


async def test_a_device_over_its_quota_is_told_when_to_come_back_and_others_go_on() -> None:
    receive = section(device=DeviceSection(requests_per_second=1, burst=2.0))
    other = (("authorization", "Bearer other"),)
    async with serving(
        receive=receive, tokens=token_table("secret", "other"), clock=lambda: 5.0
    ) as site:
        for _ in range(2):
            await export(site, request_bytes(), metadata=TOKEN)
        code, status, trailers = await refused(site, request_bytes(), metadata=TOKEN)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 1.0 <= status[2] <= 4.0
        assert "google.rpc.retryinfo-bin" in trailers
        assert site.admission.counters.refused["traces", Reason.QUOTA] == 1
        await export(site, request_bytes(), metadata=other)


async def test_a_device_over_its_quota_is_answered_before_its_message_arrives() -> None:
    receive = section(device=DeviceSection(requests_per_second=1, burst=1.0))
    async with (
        serving(receive=receive, tokens=token_table("secret"), clock=lambda: 5.0) as site,
        calling(site.grpc_address) as channel,
    ):
        await export(site, request_bytes(), metadata=TOKEN)
        call = channel.stream_unary(EXPORT)(metadata=TOKEN, timeout=WAIT_S)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_bytes_of_a_device_are_those_after_inflation() -> None:
    body = request_bytes(200)
    receive = section(device=DeviceSection(bytes_per_second=len(body), burst=1.0))
    async with serving(receive=receive, clock=lambda: 5.0) as site:
        await export(site, body, compression=grpc.Compression.Gzip)
        code, status, _ = await refused(site, b"\x0a", compression=grpc.Compression.Gzip)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "quota" in status[1]
