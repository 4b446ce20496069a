"""A local OTLP/HTTP sink: what a backend would see of a site, kept in memory.

Law: a request is answered 200 only after it was parsed with the official classes and counted.
"""

import gzip
import threading
import zlib
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import zstandard
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

BODY_BYTES_MAX: Final = 64 << 20
_KEPT_BYTES_MAX: Final = 256 << 20


@dataclass(slots=True)
class SinkCounts:
    """What arrived. Units: wire_bytes as received, otlp_bytes after inflation."""

    requests: int = 0
    spans: int = 0
    wire_bytes: int = 0
    otlp_bytes: int = 0
    names: Counter[str] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)


class Sink:
    """The sink on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.counts = SinkCounts()
        self._bodies: list[bytes] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="sink", daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, wire: bytes, encoding: str) -> None:
        """Count one body. Raises: ValueError when it is no OTLP."""
        try:
            body = _inflate(wire, encoding)
            request = ExportTraceServiceRequest.FromString(body)
        except (DecodeError, zstandard.ZstdError, zlib.error, EOFError, OSError) as error:
            raise ValueError(str(error)) from error
        with self._lock:
            counts = self.counts
            counts.requests += 1
            counts.wire_bytes += len(wire)
            counts.otlp_bytes += len(body)
            if counts.otlp_bytes <= _KEPT_BYTES_MAX:
                self._bodies.append(body)
            for resource in request.resource_spans:
                counts.keys.update(pair.key for pair in resource.resource.attributes)
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        counts.spans += 1
                        counts.names[span.name] += 1
                        counts.keys.update(pair.key for pair in span.attributes)

    def holds(self, text: bytes) -> bool:
        """Say whether a text is anywhere in what arrived; True when not everything was kept."""
        with self._lock:
            if self.counts.otlp_bytes > _KEPT_BYTES_MAX:
                return True
            return any(text in body for body in self._bodies)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _inflate(wire: bytes, encoding: str) -> bytes:
    if encoding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(wire)
    return gzip.decompress(wire) if encoding == "gzip" else wire


def _handler(sink: Sink) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answer POST /v1/traces."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Take one export."""
            length = int(self.headers.get("Content-Length", 0))
            wire = self.rfile.read(min(length, BODY_BYTES_MAX))
            try:
                sink.take(wire, self.headers.get("Content-Encoding", ""))
            except ValueError as error:
                self.send_error(400, str(error)[:200])
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    return Handler
