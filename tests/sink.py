"""An OTLP backend for tests: takes all three signals over gRPC and HTTP (protobuf and JSON).

Law: it parses with the official protobuf classes and stores the bytes beside the result, so that a
test may count items and search for what must not be there. It can be told to refuse.
"""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, TypeVar

import grpc
import zstandard
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToJson
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.otlp import (
    JSON,
    PROTOBUF,
    SIGNALS,
    TRACES,
    DataPoint,
    Request,
    Response,
    SignalType,
    data_points_of,
    encode_response,
    item_count,
    log_records_of,
    parse_request,
    spans_of,
)

__all__ = [
    "BY_PATH",
    "EXPORT_METHOD",
    "PROTOBUF",
    "TRACES_PATH",
    "Received",
    "Refusal",
    "Sink",
    "inflate",
    "otlp_sink",
]

WAIT_S: Final = 30.0
POLL_S: Final = 0.05
STOP_S: Final = 2.0
GRPC_WORKERS: Final = 4
MESSAGE_BYTES_MAX: Final = 64 << 20
EXPORT_METHOD: Final = TRACES.method
TRACES_PATH: Final = TRACES.path
BY_PATH: Final = {signal.path: signal for signal in SIGNALS}

M = TypeVar("M", ExportTraceServiceRequest, ExportMetricsServiceRequest, ExportLogsServiceRequest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """How the sink answers instead of accepting.

    Units: retry_after_s in seconds, None sends no hint.
    """

    http_status: int = 503
    grpc_code: int = grpc.StatusCode.UNAVAILABLE.value[0]
    message: str = "refused by the test"
    retry_after_s: int | None = None

    def status(self) -> Status:
        """Return the `google.rpc.Status` of this refusal."""
        status = Status(code=self.grpc_code, message=self.message)
        if self.retry_after_s is not None:
            detail = AnyMessage()
            detail.Pack(RetryInfo(retry_delay=Duration(seconds=self.retry_after_s)))
            status.details.append(detail)
        return status


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One accepted request: headers in lower case, body as inflated protobuf or JSON bytes."""

    signal: SignalType
    transport: str
    media_type: str
    headers: Mapping[str, str]
    body: bytes
    message: Request


@dataclass(slots=True, kw_only=True)
class Sink:
    """What has arrived so far, and the switch to refuse; all methods are thread-safe."""

    grpc_address: str = ""
    http_url: str = ""
    requests: list[Received] = field(default_factory=list)
    refused: int = 0
    malformed: list[str] = field(default_factory=list)
    _refusal: Refusal | None = None
    _refusals_left: int | None = None
    _rejected_items: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def refuse(self, refusal: Refusal, count: int | None = None) -> None:
        """Refuse the next `count` requests, or all until `accept` is called."""
        with self._changed:
            self._refusal, self._refusals_left = refusal, count

    def accept(self, rejected_items: int = 0) -> None:
        """Accept again; `rejected_items` is told in every answer as a partial success."""
        with self._changed:
            self._refusal, self._refusals_left = None, None
            self._rejected_items = rejected_items

    def messages(self, kind: type[M]) -> list[M]:
        """Return every accepted request of one signal as its message, in order of arrival."""
        with self._changed:
            found = [request.message for request in self.requests]
        return [message for message in found if isinstance(message, kind)]

    def spans(self) -> list[Span]:
        """Return every span of every accepted request, in order of arrival."""
        return [s for each in self.messages(ExportTraceServiceRequest) for s in spans_of(each)]

    def data_points(self) -> list[DataPoint]:
        """Return every data point of every accepted request, in order of arrival."""
        found = self.messages(ExportMetricsServiceRequest)
        return [point for each in found for point in data_points_of(each)]

    def log_records(self) -> list[LogRecord]:
        """Return every log record of every accepted request, in order of arrival."""
        found = self.messages(ExportLogsServiceRequest)
        return [record for each in found for record in log_records_of(each)]

    def span_count(self) -> int:
        """Count the spans of all accepted requests."""
        return self.item_count(TRACES)

    def item_count(self, signal: SignalType, transport: str | None = None) -> int:
        """Count the items of all accepted requests of one signal, of one transport if named."""
        with self._changed:
            return sum(
                item_count(request.message)
                for request in self.requests
                if request.signal is signal and transport in (None, request.transport)
            )

    def contains(self, needle: bytes) -> bool:
        """Tell whether a byte string occurs in the body or the headers of any request."""
        with self._changed:
            return any(
                needle in request.body
                or any(needle in f"{k}: {v}".encode() for k, v in request.headers.items())
                for request in self.requests
            )

    def wait_for_spans(self, count: int, timeout_s: float = WAIT_S) -> list[Span]:
        """Wait until at least `count` spans have arrived, and return all."""
        self._wait(lambda: self.span_count() >= count, timeout_s)
        spans = self.spans()
        assert len(spans) >= count, f"{len(spans)} of {count} spans within {timeout_s:g} s"
        return spans

    def wait_for_items(self, signal: SignalType, count: int, timeout_s: float = WAIT_S) -> None:
        """Wait until at least `count` items of a signal have arrived."""
        self._wait(lambda: self.item_count(signal) >= count, timeout_s)
        found = self.item_count(signal)
        assert found >= count, f"{found} of {count} {signal.name} items within {timeout_s:g} s"

    def wait_for_refusals(self, count: int, timeout_s: float = WAIT_S) -> None:
        """Wait until at least `count` requests have been refused."""
        self._wait(lambda: self.refused >= count, timeout_s)
        assert self.refused >= count, f"{self.refused} of {count} refusals in {timeout_s:g} s"

    def _wait(self, reached: Callable[[], bool], timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(reached, timeout_s)

    def take(
        self,
        signal: SignalType,
        transport: str,
        headers: Mapping[str, str],
        body: bytes,
        media_type: str = PROTOBUF,
    ) -> Refusal | Response:
        """Decide about one request and keep it when it is accepted.

        A body that is not what its media type says is refused for good, and told in `malformed`.
        """
        try:
            message = parse_request(signal, media_type, body)
        except ValueError as error:
            with self._changed:
                self.malformed.append(str(error))
                self._changed.notify_all()
            return Refusal(
                http_status=400,
                grpc_code=grpc.StatusCode.INVALID_ARGUMENT.value[0],
                message=str(error),
            )
        with self._changed:
            self._changed.notify_all()
            if self._refusal is not None and self._refusals_left != 0:
                if self._refusals_left is not None:
                    self._refusals_left -= 1
                self.refused += 1
                return self._refusal
            self.requests.append(
                Received(
                    signal=signal,
                    transport=transport,
                    media_type=media_type,
                    headers=headers,
                    body=body,
                    message=message,
                )
            )
            answer = signal.response()
            if self._rejected_items:
                setattr(answer.partial_success, signal.rejected_field, self._rejected_items)
                answer.partial_success.error_message = "rejected by the test"
            return answer


def inflate(body: bytes, encoding: str) -> bytes:
    """Undo an HTTP content encoding."""
    match encoding:
        case "" | "identity":
            return body
        case "gzip":
            return gzip.decompress(body)
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    raise ValueError(f"content encoding {encoding!r}")


def _http_handler(sink: Sink) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            headers = {name.lower(): value for name, value in self.headers.items()}
            signal, kind = BY_PATH.get(self.path), headers.get("content-type", "")
            if signal is None or kind not in (PROTOBUF, JSON):
                self._answer(404 if signal is None else 415, b"", None)
                return
            inflated = inflate(body, headers.get("content-encoding", ""))
            answer = sink.take(signal, "http", headers, inflated, kind)
            if isinstance(answer, Refusal):
                status = answer.status()
                said = (
                    MessageToJson(status).encode() if kind == JSON else status.SerializeToString()
                )
                self._answer(answer.http_status, said, answer.retry_after_s, kind)
            else:
                self._answer(200, encode_response(answer, kind), None, kind)

        def _body(self) -> bytes:
            """Read a body of stated length, or of chunks, as the JavaScript exporters send it."""
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"]))
            chunks = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
            return b"".join(chunks)

        def _answer(
            self, status: int, body: bytes, retry_after_s: int | None, kind: str = PROTOBUF
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if retry_after_s is not None:
                self.send_header("Retry-After", str(retry_after_s))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: tests look at what was kept."""

    return Handler


class _Listener(ThreadingHTTPServer):
    """A listener that ends open connections with itself, as a backend that goes down does."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end(self) -> None:
        """Stop listening and end every open connection."""
        self.shutdown()
        for connection in tuple(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _grpc_handler(sink: Sink, signal: SignalType) -> grpc.GenericRpcHandler:
    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        headers = {key: str(value) for key, value in context.invocation_metadata()}
        answer = sink.take(signal, "grpc", headers, body)
        if isinstance(answer, Refusal):
            context.abort_with_status(rpc_status.to_status(answer.status()))
            raise AssertionError("abort_with_status does not return")
        return answer.SerializeToString()

    service, method = signal.method.strip("/").split("/")
    # Without (de)serializers the handler sees and returns the message's bytes.
    handlers = {method: grpc.unary_unary_rpc_method_handler(export)}
    return grpc.method_handlers_generic_handler(service, handlers)


@contextmanager
def otlp_sink(grpc_port: int = 0, http_port: int = 0) -> Iterator[Sink]:
    """Run a sink on loopback for a block; port 0 means any free port.

    A fixed port lets a test stop the destination and bring it back at the same address.
    """
    sink = Sink()
    server = grpc.server(
        futures.ThreadPoolExecutor(GRPC_WORKERS),
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.so_reuseport", 0),
        ],
    )
    server.add_generic_rpc_handlers(tuple(_grpc_handler(sink, signal) for signal in SIGNALS))
    port = server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    sink.grpc_address = f"127.0.0.1:{port}"
    server.start()
    try:
        with _Listener(http_port, _http_handler(sink)) as listener:
            sink.http_url = f"http://127.0.0.1:{listener.server_port}"
            thread = threading.Thread(target=listener.serve_forever, args=(POLL_S,))
            thread.start()
            try:
                yield sink
            finally:
                listener.end()
                thread.join()
    finally:
        server.stop(STOP_S).wait()
