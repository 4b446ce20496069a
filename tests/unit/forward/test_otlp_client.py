"""Frames arrive at real servers, and every answer is judged as specified."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from gateway.batch import Frame, Signal
from gateway.errors import DeliveryError
from gateway.forward import otlp_client
from gateway.forward.answers import FrameTooLargeError
from gateway.forward.otlp_client import GrpcSender, HttpSender, Sent, target_of
from tests.unit.forward.servers import (
    LOOPBACK,
    Seen,
    frame_of,
    grpc_server,
    http_server,
    partial,
    protobuf,
    request_of,
    success,
)

FRAME = frame_of(["inference", "preprocess", "other"])
REQUEST = request_of(["inference", "preprocess", "other"])
SECRET = "Bearer-3f9a"


async def failure_of(sender: HttpSender | GrpcSender, frame: Frame = FRAME) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        await sender.send(frame)
    await sender.close()
    assert SECRET not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
async def test_http_delivers_the_frame_in_any_encoding(compression: str) -> None:
    async with http_server(success) as server:
        sender = HttpSender(
            server.url + "/", compression=compression, headers={"Authorization": SECRET}
        )
        assert await sender.send(FRAME) == Sent(rejected=0, message="")
        assert await sender.send(FRAME) == Sent(rejected=0, message="")
        await sender.close()
    assert len(server.seen) == 2
    seen = server.seen[0]
    assert seen.path == "/v1/traces"
    assert seen.request() == REQUEST
    assert seen.headers["content-type"] == "application/x-protobuf"
    assert seen.headers.get("content-encoding", "none") == compression
    assert seen.headers["authorization"] == SECRET


async def test_http_reads_a_partial_success() -> None:
    answer = partial(2, "bad\nname")
    async with http_server(lambda _: protobuf(answer)) as server:
        sender = HttpSender(server.url)
        assert await sender.send(FRAME) == Sent(rejected=2, message="bad name")
        await sender.close()


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        (302, False),
        (400, True),
        (401, True),
        (403, True),
        (404, True),
        (408, True),
        (413, True),
        (415, True),
        (429, False),
        (500, True),
        (501, True),
        (502, False),
        (503, False),
        (504, False),
    ],
)
async def test_http_statuses_are_permanent_or_retryable_as_specified(
    status: int, permanent: bool
) -> None:
    body = status_pb2.Status(message="because").SerializeToString()
    answer = protobuf(body, status, Location="http://127.0.0.1:1/", Retry_After="7")
    async with http_server(lambda _: answer) as server:
        error = await failure_of(HttpSender(server.url, headers={"x-token": SECRET}))
    assert error.permanent == permanent
    assert error.retry_after_s == (None if permanent else 7.0)
    assert f"HTTP {status}" in str(error)
    assert "because" in str(error)
    assert isinstance(error, FrameTooLargeError) == (status == 413)
    assert len(server.seen) == 1, "redirects are not followed"


async def test_http_reads_a_retry_after_date() -> None:
    answer = web.Response(status=503, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:42 GMT"})
    async with http_server(lambda _: answer) as server:
        error = await failure_of(HttpSender(server.url, now_unix_s=lambda: 40.0))
    assert error.retry_after_s == 2.0


async def test_a_web_page_is_no_success() -> None:
    def portal(_: Seen) -> web.Response:
        return web.Response(text="<h1>log in</h1>", content_type="text/html")

    async with http_server(portal) as server:
        error = await failure_of(HttpSender(server.url))
    assert not error.permanent


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=200),
        web.Response(status=201, text="created", content_type="text/plain"),
        web.Response(status=200, body=b"\xff\xff", content_type="application/x-protobuf"),
    ],
    ids=["empty", "201", "unreadable"],
)
async def test_any_other_2xx_is_a_success(answer: web.Response) -> None:
    async with http_server(lambda _: answer) as server:
        sender = HttpSender(server.url)
        assert (await sender.send(FRAME)).rejected == 0
        await sender.close()


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_client, "RESPONSE_BYTES_MAX", 1000)
    answer = web.Response(body=b"x" * 100_000, content_type="application/x-protobuf")
    async with http_server(lambda _: answer) as server:
        sender = HttpSender(server.url)
        assert await sender.send(FRAME) == Sent(
            rejected=0, message="the answer was too long to read"
        )
        await sender.close()


async def test_nobody_listening_is_retryable() -> None:
    async with http_server(success) as server:
        url = server.url
    secret_url = url.replace("http://", f"http://user:{SECRET}@")
    error = await failure_of(HttpSender(secret_url))
    assert not error.permanent
    assert "no connection" in str(error)


@pytest.fixture
async def silent() -> AsyncIterator[str]:
    """A server that takes a connection and never answers."""
    done = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    server = await asyncio.start_server(hold, LOOPBACK, 0)
    yield f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    done.set()
    server.close()
    await server.wait_closed()


async def test_a_silent_server_is_retryable_after_the_timeout(silent: str) -> None:
    error = await failure_of(HttpSender(silent, timeout_s=0.05))
    assert (error.permanent, str(error)) == (False, "no answer in time")
    error = await failure_of(GrpcSender(silent, timeout_s=0.05))
    assert not error.permanent


@pytest.mark.parametrize("compression", ["gzip", "none", "zstd"])
async def test_a_damaged_frame_is_permanent_where_it_is_inflated(compression: str) -> None:
    damaged = Frame(
        signal=Signal.TRACES,
        items=1,
        body=b"damaged",
        raw_bytes=5,
        first_sequence=1,
        last_sequence=1,
    )
    async with http_server(success) as server:
        sender = HttpSender(server.url, compression=compression)
        if compression == "zstd":
            await sender.send(damaged)
            await sender.close()
        else:
            assert (await failure_of(sender, damaged)).permanent


async def take(body: bytes, context: Any) -> bytes:
    return bytes(ExportTraceServiceResponse().SerializeToString())


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
async def test_grpc_delivers_the_frame(compression: str) -> None:
    async with grpc_server(take) as server:
        sender = GrpcSender(
            server.url, compression=compression, headers={"X-Token": SECRET}, timeout_s=10
        )
        assert await sender.send(FRAME) == Sent(rejected=0, message="")
        await sender.close()
    assert ExportTraceServiceRequest.FromString(server.bodies[0]) == REQUEST
    assert server.metadata[0]["x-token"] == SECRET


async def test_grpc_reads_a_partial_success() -> None:
    async def answer(body: bytes, context: Any) -> bytes:
        return partial(1, "no name")

    async with grpc_server(answer) as server:
        sender = GrpcSender(server.url)
        assert await sender.send(FRAME) == Sent(rejected=1, message="no name")
        await sender.close()


RETRYABLE = {
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNAVAILABLE",
    "DATA_LOSS",
}


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.name != "OK"])
async def test_grpc_codes_are_permanent_or_retryable_as_specified(code: grpc.StatusCode) -> None:
    async def answer(body: bytes, context: Any) -> None:
        await context.abort(code, "because")

    async with grpc_server(answer) as server:
        error = await failure_of(GrpcSender(server.url, headers={"x-token": SECRET}))
    assert error.permanent == (code.name not in RETRYABLE)
    assert str(error) == f"gRPC {code.name}: because"
    assert isinstance(error, FrameTooLargeError) == (code.name == "RESOURCE_EXHAUSTED")


def retry_info(seconds: int, nanos: int) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.seconds = seconds
    info.retry_delay.nanos = nanos
    return info


def details(info: error_details_pb2.RetryInfo) -> tuple[tuple[str, bytes], ...]:
    packed = any_pb2.Any()
    packed.Pack(info)
    status = status_pb2.Status(code=8, message="slow down", details=[any_pb2.Any(), packed])
    return (("grpc-status-details-bin", status.SerializeToString()),)


@pytest.mark.parametrize(
    ("trailer", "hint"),
    [
        (details(retry_info(2, 500_000_000)), 2.5),
        ((("google.rpc.retryinfo-bin", retry_info(3, 0).SerializeToString()),), 3.0),
        (details(retry_info(-5, 0)), 0.0),
        (details(retry_info(10**9, 0)), 3600.0),
    ],
)
@pytest.mark.parametrize("name", ["RESOURCE_EXHAUSTED", "UNAVAILABLE"])
async def test_grpc_honours_retry_info(
    name: str, trailer: tuple[tuple[str, bytes], ...], hint: float
) -> None:
    async def answer(body: bytes, context: Any) -> None:
        await context.abort(grpc.StatusCode[name], "slow down", trailer)

    async with grpc_server(answer) as server:
        error = await failure_of(GrpcSender(server.url))
    assert (error.permanent, error.retry_after_s) == (False, hint)


async def test_an_unreadable_trailer_gives_no_hint() -> None:
    async def answer(body: bytes, context: Any) -> None:
        trailer = (("grpc-status-details-bin", b"\xff\xff"), ("other", "text"))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "x", trailer)

    async with grpc_server(answer) as server:
        error = await failure_of(GrpcSender(server.url))
    assert (error.permanent, error.retry_after_s) == (False, None)


@pytest.mark.parametrize(
    ("endpoint", "target"),
    [
        ("http://collector:4317", ("collector:4317", False)),
        ("https://collector", ("collector:4317", True)),
        ("collector:5000", ("collector:5000", False)),
        ("http://[::1]:4317", ("[::1]:4317", False)),
    ],
)
def test_a_grpc_endpoint_is_split_into_target_and_tls(
    endpoint: str, target: tuple[str, bool]
) -> None:
    assert target_of(endpoint) == target


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_https_is_verified(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(cert, key)
    trusting = ssl.create_default_context(cafile=str(cert))
    async with http_server(success, server_side) as server:
        url = server.url.replace(LOOPBACK, "localhost")
        error = await failure_of(HttpSender(url))
        assert not error.permanent
        sender = HttpSender(url, tls=trusting)
        await sender.send(FRAME)
        await sender.close()
    assert len(server.seen) == 1


async def test_grpc_over_tls_is_verified(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    pair = ((key.read_bytes(), cert.read_bytes()),)
    async with grpc_server(take, grpc.ssl_server_credentials(pair)) as server:
        url = f"https://localhost:{server.port}"
        error = await failure_of(GrpcSender(url, timeout_s=5))
        assert not error.permanent
        sender = GrpcSender(url, root_certificates=cert.read_bytes(), timeout_s=10)
        await sender.send(FRAME)
        await sender.close()
    assert len(server.bodies) == 1
