"""Stock OpenTelemetry exporters under watch: a process of several devices that send traces.

Law: what watches only looks. Retries, waits and giving up are the exporter's own; each request that
it sends is counted under its answer, and each span under what became of it.

Usage: `python -m benchmarks.exporters '{"transport": …}'`; one line of JSON when it starts to send,
one with the result.
"""

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import grpc
import numpy as np
import requests
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer
from requests.adapters import HTTPAdapter

OK: Final = frozenset({"gRPC OK", "HTTP 200"})
HINT: Final = ", hint"
# Source: OTLP specification 1.x, "Failures"; RESOURCE_EXHAUSTED only beside a hint.
RETRYABLE: Final = frozenset(
    {
        f"{name}{hint}"
        for hint in ("", HINT)
        for name in (
            *("gRPC CANCELLED", "gRPC DEADLINE_EXCEEDED", "gRPC ABORTED", "gRPC OUT_OF_RANGE"),
            *("gRPC UNAVAILABLE", "gRPC DATA_LOSS"),
            *("HTTP 429", "HTTP 502", "HTTP 503", "HTTP 504"),
        )
    }
    | {f"gRPC RESOURCE_EXHAUSTED{HINT}"}
)
# The client has seen no answer of the server: what it sent may have been accepted.
UNANSWERED: Final = frozenset(
    {"gRPC DEADLINE_EXCEEDED", "gRPC CANCELLED", "gRPC UNAVAILABLE", "HTTP nothing"}
)
RETRY_KEY: Final = "google.rpc.retryinfo-bin"

BATCH_SPANS: Final = 512  # the default of the batch processor
TICK_S: Final = 0.01
KINDS: Final = 64
CLASSES: Final = ("okay", "wet-", "torn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the process is asked to do.

    Units: spans_per_s of all devices together; 0 is a closed loop, in which each device exports
    the next batch as soon as the exporter has done with the last one.
    """

    transport: str  # "grpc" or "http"
    address: str
    devices: int
    first: int  # number of the first device
    run_s: float
    spans_per_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Device:
    """What became of the spans of one device, and of its requests by their answer.

    Shape: answers counts requests; made = dropped by the processor + given_up + exported.
    Units: spans; bytes of request bodies, as sent again and again, and of those accepted.
    """

    made: int = 0
    exported: int = 0
    given_up: int = 0  # the exporter said that it failed
    unanswered: int = 0  # spans of requests without an answer
    sent_bytes: int = 0
    accepted_bytes: int = 0
    answers: dict[str, int] = field(default_factory=dict)

    def answered(self, said: str, spans: int, body_bytes: int) -> None:
        """Count one request."""
        self.answers[said] = self.answers.get(said, 0) + 1
        self.sent_bytes += body_bytes
        if said in OK:
            self.accepted_bytes += body_bytes
        elif said in UNANSWERED:
            self.unanswered += spans


Answered = Callable[[str, int], None]


class _Interceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]  # grpc has no types
    """Looks at each answer and passes it on."""

    def __init__(self, answered: Answered) -> None:
        self._answered = answered

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = continuation(details, request)
        keys = {key for key, _ in call.trailing_metadata() or ()}
        hint = HINT if RETRY_KEY in keys else ""
        self._answered(f"gRPC {call.code().name}{hint}", request.ByteSize())
        return call


class _Grpc(GrpcExporter):
    """The stock exporter; each channel that it makes goes through the interceptor."""

    def __init__(self, address: str, answered: Answered) -> None:
        self._answered = answered
        super().__init__(endpoint=f"http://{address}", insecure=True)

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]  # as published
        watched = grpc.intercept_channel(self._channel, _Interceptor(self._answered))
        self._client = self._stub(watched)


class _Adapter(HTTPAdapter):
    """The adapter that every session has, which looks at each answer and passes it on."""

    def __init__(self, answered: Answered) -> None:
        super().__init__()
        self._answered = answered

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        size = len(request.body)
        try:
            response = super().send(request, *args, **options)
        except requests.RequestException:
            self._answered("HTTP nothing", size)
            raise
        hint = HINT if "Retry-After" in response.headers else ""
        self._answered(f"HTTP {response.status_code}{hint}", size)
        return response


def _http(address: str, answered: Answered) -> HttpExporter:
    session = requests.Session()
    session.mount("http://", _Adapter(answered))
    return HttpExporter(endpoint=f"http://{address}/v1/traces", session=session)


class Watched(SpanExporter):
    """A stock exporter whose verdict over each batch is counted."""

    def __init__(self, transport: str, address: str, device: Device) -> None:
        self._device = device
        self._spans = 0
        make = _Grpc if transport == "grpc" else _http
        self._exporter: SpanExporter = make(address, self._answered)

    def _answered(self, said: str, body_bytes: int) -> None:
        self._device.answered(said, self._spans, body_bytes)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export; a device has one batch under way at a time."""
        self._spans = len(spans)
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._device.exported += len(spans)
        else:
            self._device.given_up += len(spans)
        return result

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()


def _resource(number: int) -> Resource:
    named = {"device.id": f"dock-cam-{number:04d}", "service.name": "damage-detector"}
    return Resource.create(named)


def _attributes(seed: int) -> list[dict[str, str | float | bool | int]]:
    """Make what the spans of a device carry: ten attributes, as in `benchmarks.traffic`."""
    rng = np.random.default_rng(seed)
    return [
        {
            "edgeai.model.name": "damage-net",
            "edgeai.model.version": "1.4.2",
            "edgeai.inference.confidence": float(rng.uniform(0.55, 0.999)),
            "edgeai.inference.class": str(rng.choice(CLASSES)),
            "edgeai.input.brightness": float(rng.beta(4, 3)),
            "edgeai.inference.cold_start": False,
            "edgeai.input.width": int(rng.integers(640, 4096)),
            "enduser.id": f"operator-{rng.integers(1000, 9999)}",
            "edgeai.note": "pallet scanned at gate, no remark",
            "edgeai.provenance.pointer": f"ring:{rng.integers(10**9, 10**10 - 1)}",
        }
        for _ in range(KINDS)
    ]


def _make(tracer: Tracer, kinds: Sequence[dict[str, Any]], first: int, count: int) -> None:
    for number in range(first, first + count):
        tracer.start_span("inference", attributes=kinds[number % KINDS]).end()


def _paced(order: Order, devices: list[Device], started: Callable[[], None]) -> None:
    """Make spans at the asked rate; the SDK does the rest. A late tick is made up for."""
    providers = []
    for number, device in enumerate(devices, order.first):
        provider = TracerProvider(resource=_resource(number), shutdown_on_exit=False)
        exporter = Watched(order.transport, order.address, device)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        providers.append(provider)
    tracers = [provider.get_tracer("edge.inference") for provider in providers]
    kinds = _attributes(order.first)
    pause = threading.Event()
    each_per_s = order.spans_per_s / order.devices
    started()
    start = time.monotonic()
    while (now := time.monotonic() - start) < order.run_s:
        due = math.floor(now * each_per_s)
        for device, tracer in zip(devices, tracers, strict=True):
            _make(tracer, kinds, device.made, due - device.made)
            device.made = due
        pause.wait(TICK_S)
    # All at once, because each may wait for its own refusals.
    threads = [threading.Thread(target=provider.shutdown) for provider in providers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Keep(SpanExporter):
    """Keeps spans, so that a closed loop has a batch to send."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep a batch."""
        self.spans += spans
        return SpanExportResult.SUCCESS


def _closed(order: Order, devices: list[Device], started: Callable[[], None]) -> None:
    """Export batch after batch, each device in its thread."""

    def run(number: int, device: Device, end: float) -> None:
        provider, kept = TracerProvider(resource=_resource(number), shutdown_on_exit=False), _Keep()
        provider.add_span_processor(BatchSpanProcessor(kept))
        _make(provider.get_tracer("edge.inference"), _attributes(number), 0, BATCH_SPANS)
        provider.shutdown()
        exporter = Watched(order.transport, order.address, device)
        while time.monotonic() < end:
            device.made += len(kept.spans)
            exporter.export(kept.spans)
        exporter.shutdown()

    end = time.monotonic() + order.run_s
    numbered = enumerate(devices, order.first)
    threads = [threading.Thread(target=run, args=(*each, end)) for each in numbered]
    started()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """Take an order from the command line."""
    order = Order(**json.loads(sys.argv[1]))
    # A line for each refusal and each dropped span would cost more than the exporting.
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    logging.getLogger("opentelemetry").propagate = False
    devices = [Device() for _ in range(order.devices)]
    run = _paced if order.spans_per_s else _closed
    run(order, devices, lambda: print('{"started": true}', flush=True))
    print(json.dumps([asdict(device) for device in devices]), flush=True)


if __name__ == "__main__":
    main()
