"""Real OTLP and Alertmanager-like servers on free ports, answering what a test tells them."""

import gzip
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import zstandard
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from gateway.batch import Frame, Signal

LOOPBACK = "127.0.0.1"


@dataclass(slots=True)
class Seen:
    """One request as it came over the wire."""

    path: str
    headers: dict[str, str]
    body: bytes

    def request(self) -> ExportTraceServiceRequest:
        """Decode the body with the official classes."""
        encoding = self.headers.get("content-encoding", "")
        raw = self.body
        if encoding == "gzip":
            raw = gzip.decompress(raw)
        elif encoding == "zstd":
            raw = zstandard.ZstdDecompressor().decompress(raw)
        return ExportTraceServiceRequest.FromString(raw)


Answering = Callable[[Seen], web.Response]


@dataclass(slots=True)
class HttpServer:
    """Answers every POST with `answer`; swap it while the server runs."""

    answer: Answering
    url: str = ""
    seen: list[Seen] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        """Record the request and answer it."""
        headers = {name.lower(): text for name, text in request.headers.items()}
        # The raw stream: aiohttp would undo the content encoding.
        body = await request.content.read(-1)
        one = Seen(path=request.path, headers=headers, body=body)
        self.seen.append(one)
        return self.answer(one)


@asynccontextmanager
async def http_server(
    answer: Answering, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttpServer]:
    """Run an HTTP server on a free port."""
    server = HttpServer(answer=answer)
    application = web.Application(client_max_size=64 << 20)
    application.router.add_route("*", "/{tail:.*}", server.handle)
    runner = web.AppRunner(application, auto_decompress=False, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    server.url = f"{'https' if tls else 'http'}://{LOOPBACK}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class GrpcServer:
    """Answers Export with `answer`, which may abort through the context."""

    answer: Callable[[bytes, Any], Any]
    port: int = 0
    bodies: list[bytes] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Endpoint as a site file names it."""
        return f"http://{LOOPBACK}:{self.port}"

    async def handle(self, body: bytes, context: Any) -> bytes:
        """Record the call and answer it."""
        self.bodies.append(body)
        self.metadata.append(dict(context.invocation_metadata()))
        answer: bytes = await self.answer(body, context)
        return answer


@asynccontextmanager
async def grpc_server(
    answer: Callable[[bytes, Any], Any], credentials: Any = None
) -> AsyncIterator[GrpcServer]:
    """Run a gRPC server on a free port."""
    server = GrpcServer(answer=answer)
    handlers = tuple(
        grpc.method_handlers_generic_handler(
            f"opentelemetry.proto.collector.{package}.v1.{service}",
            {"Export": grpc.unary_unary_rpc_method_handler(server.handle)},
        )
        for package, service in (
            ("trace", "TraceService"),
            ("metrics", "MetricsService"),
            ("logs", "LogsService"),
        )
    )
    real = grpc.aio.server()
    real.add_generic_rpc_handlers(handlers)
    if credentials is None:
        server.port = real.add_insecure_port(f"{LOOPBACK}:0")
    else:
        server.port = real.add_secure_port(f"{LOOPBACK}:0", credentials)
    await real.start()
    try:
        yield server
    finally:
        await real.stop(None)


def success(_: Seen) -> web.Response:
    """Answer as a server that took everything."""
    return protobuf(ExportTraceServiceResponse().SerializeToString())


def partial(rejected: int, message: str) -> bytes:
    """Encode an answer that refuses some items."""
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    answer.partial_success.error_message = message
    return bytes(answer.SerializeToString())


def protobuf(body: bytes, status: int = 200, **headers: str) -> web.Response:
    """Answer with a protobuf body."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return web.Response(
        status=status, body=body, content_type="application/x-protobuf", headers=named
    )


def request_of(names: Sequence[str], padding: int = 0) -> ExportTraceServiceRequest:
    """Build a request with one span per name, over two resources and two scopes each."""
    request = ExportTraceServiceRequest()
    for number, name in enumerate(names):
        if number % 3 == 0 or not request.resource_spans:
            resource = request.resource_spans.add(schema_url=f"r{number}")
            resource.resource.attributes.add(key="device.id").value.string_value = f"d{number}"
        if number % 2 == 0 or not request.resource_spans[-1].scope_spans:
            scope = request.resource_spans[-1].scope_spans.add(schema_url=f"s{number}")
            scope.scope.name = f"scope-{number}"
        span = request.resource_spans[-1].scope_spans[-1].spans.add(name=name)
        if padding:
            span.attributes.add(key="padding").value.string_value = "p" * padding
    return request


def frame_of(names: Sequence[str], padding: int = 0) -> Frame:
    """Build a frame with one span per name."""
    raw = request_of(names, padding).SerializeToString()
    return Frame(
        signal=Signal.TRACES,
        items=len(names),
        body=zstandard.ZstdCompressor().compress(raw),
        raw_bytes=len(raw),
        first_sequence=1,
        last_sequence=1,
    )


def names_of(request: ExportTraceServiceRequest) -> list[str]:
    """List the span names of a request in order."""
    return [
        span.name
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
