"""A site in one process: real SDK, ring, uplink, HTTP on port 0, retriever. Only time is driven."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import zstandard
from aiohttp import web
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import Tracer, format_trace_id

from collectors.device.manifest import Signer
from collectors.device.recorder import RingSpanProcessor, RingWriter
from collectors.device.ring import Ring
from collectors.device.segment import DATA_OFFSET
from collectors.device.uplink import Uplink, UplinkOptions
from gateway.config import RetrieveSection
from gateway.errors import RequestError, RetryableError, answer_of
from gateway.retrieve.dive import Dive
from gateway.retrieve.manifest import KeysOf, no_keys
from gateway.retrieve.retriever import Retriever
from gateway.retrieve.routes import DeviceRoutes, Handler

TIMEOUT_S = 10.0
IDENTITY_HEADER = "x-test-identity"


class Kept(SpanProcessor):
    """Keep what would be exported."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class Gateway:
    """Retriever and routes on a real listener, with every change of a dive on a queue."""

    def __init__(
        self, data_dir: Path, section: RetrieveSection | None = None, keys_of: KeysOf = no_keys
    ) -> None:
        self.section = section or RetrieveSection(poll_hold=TIMEOUT_S)
        self.changes: asyncio.Queue[Dive] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.retriever = Retriever(
            data_dir, self.section, clean=self.clean, on_change=self.changed, keys_of=keys_of
        )
        self.routes = DeviceRoutes(
            self.retriever,
            self.section,
            identity_of=lambda request: request.headers.get(IDENTITY_HEADER, ""),
            read_body=read_body,
        )
        self.endpoint = ""
        self.port = 0
        self.requests = 0
        self.clean_failures = 0
        self.clean_budget = -1  # chunks that are taken before the disk is full; -1 is no limit
        self.seen = asyncio.Condition()

    def clean(self, body: bytes) -> bytes:
        if self.clean_budget == 0:
            raise RetryableError("no room for another clean copy")
        self.clean_budget -= 1
        if self.clean_failures:
            self.clean_failures -= 1
            raise RetryableError("no room for a clean copy")
        return body

    def changed(self, dive: Dive) -> None:
        self.loop.call_soon_threadsafe(self.changes.put_nowait, dive)

    async def wait_for(self, dive_id: str, done: Callable[[Dive], bool]) -> Dive:
        async with asyncio.timeout(TIMEOUT_S):
            while not done(dive := self.retriever.get(dive_id)):
                await self.changes.get()
        return dive

    async def wait_for_requests(self, count: int) -> None:
        async with asyncio.timeout(TIMEOUT_S), self.seen:
            await self.seen.wait_for(lambda: self.requests >= count)

    def answering(self, handler: Handler) -> Handler:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await handler(request)
            except RequestError as error:
                return web.Response(status=answer_of(error).http_status, text=str(error))
            finally:
                self.requests += 1
                async with self.seen:
                    self.seen.notify_all()

        return handle

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["Gateway"]:
        app = web.Application()
        for method, path, handler in self.routes.routes():
            app.router.add_route(method, path, self.answering(handler))
        runner = web.AppRunner(app, auto_decompress=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
        await site.start()
        self.port = runner.addresses[0][1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        try:
            yield self
        finally:
            self.routes.drain()
            await runner.cleanup()
            self.routes.close()
            self.retriever.close()


async def read_body(request: web.BaseRequest, bytes_max: int) -> bytes:
    """Read and inflate as the receive room does, without its ceilings."""
    body = await request.read()
    if request.headers.get("Content-Encoding") == "zstd":
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=bytes_max)
    return body


@dataclass(slots=True)
class Device:
    """One device: recorder and ring on, uplink when asked."""

    name: str
    directory: Path
    segments: int = 8
    segment_bytes: int = 8 * DATA_OFFSET
    signer: Signer | None = None
    policy: str | None = None
    ring: Ring = field(init=False)
    writer: RingWriter = field(init=False)
    recorder: RingSpanProcessor = field(init=False)
    provider: TracerProvider = field(init=False)
    kept: Kept = field(init=False)

    def __post_init__(self) -> None:
        self.kept = Kept()
        self.writer = RingWriter()
        self.ring = Ring(
            self.directory,
            now_ns=self.writer.now_ns(),
            segments=self.segments,
            segment_bytes=self.segment_bytes,
        )
        self.recorder = RingSpanProcessor(self.ring, self.kept, self.writer)
        self.provider = TracerProvider(
            resource=Resource({"device.id": self.name, "service.name": "camera"}),
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(self.recorder)

    @property
    def tracer(self) -> Tracer:
        return self.provider.get_tracer("camera", "1.0")

    def infer(self, count: int, note: str = "") -> list[str]:
        """Record traces and return their ids."""
        ids = []
        for number in range(count):
            with self.tracer.start_as_current_span("inference") as root:
                root.set_attribute("edgeai.note", f"{number} {note}")
                for name in ("preprocess", "postprocess"):
                    with self.tracer.start_as_current_span(name) as child:
                        child.add_event("step", {"number": number})
            ids.append(format_trace_id(root.get_span_context().trace_id))
        assert self.recorder.force_flush()
        return ids

    def payload(self, trace_id: str) -> bytes:
        """Read a full trace from the ring."""
        entries = self.ring.find([bytes.fromhex(trace_id)])[bytes.fromhex(trace_id)]
        return b"".join(self.ring.read(entry) for entry in entries)

    def uplink(self, endpoint: str, headers: dict[str, str] | None = None) -> Uplink:
        options = UplinkOptions(
            endpoint=endpoint,
            device=self.name,
            instance_uid=self.name.encode().ljust(16, b"\0")[:16],
            headers=headers or {},
            hold_s=TIMEOUT_S,
            poll_s=0.01,
            backoff_min_s=0.01,
            backoff_max_s=0.05,
        )
        policy = self.policy
        return Uplink(
            self.ring,
            self.directory,
            options,
            signer=self.signer,
            policy=None if policy is None else lambda command: policy,
        )

    @asynccontextmanager
    async def linked(
        self, endpoint: str, headers: dict[str, str] | None = None
    ) -> AsyncIterator[Uplink]:
        uplink = self.uplink(endpoint, headers)
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            task = asyncio.create_task(uplink.run(session))
            try:
                yield uplink
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def close(self) -> None:
        self.provider.shutdown()
        self.writer.stop()
        self.ring.close()
