"""Call an export method over gRPC with the bytes of a message."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from tests.conformance.http_driver import ANSWER_S
from tests.conformance.request import Request, Sends
from tests.conformance.signals import Signal

DETAILS_KEY: Final = "grpc-status-details-bin"
RETRY_KEY: Final = "google.rpc.retryinfo-bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcAnswer:
    """How a call ended. Shape: trailers as they came, binary ones as bytes."""

    code: grpc.StatusCode
    details: str
    body: bytes
    trailers: Sequence[tuple[str, str | bytes]]

    def trailer(self, key: str) -> bytes | None:
        """Return a binary trailer, which may occur once."""
        found = [value for name, value in self.trailers if name == key]
        assert len(found) <= 1, f"{key} occurs {len(found)} times"
        if not found:
            return None
        assert isinstance(found[0], bytes)
        return found[0]

    def everything(self) -> bytes:
        """Return all that came back, to search in."""
        binary = [
            value if isinstance(value, bytes) else value.encode() for _, value in self.trailers
        ]
        return b"\n".join([self.body, self.details.encode(), *binary])


def call(channel: grpc.Channel, signal: Signal, request: Request) -> GrpcAnswer:
    """Call once; an error of the call is an answer."""
    rpc = request.rpc or signal.rpc
    metadata = []
    if request.authorization is not None:
        metadata.append(("authorization", request.authorization))
    if request.sends is Sends.HEAD:
        return _call_without_message(channel, rpc, metadata)
    compression = grpc.Compression.Gzip if request.encodings else grpc.Compression.NoCompression
    try:
        body, done = channel.unary_unary(rpc).with_call(
            request.body, timeout=ANSWER_S, metadata=metadata, compression=compression
        )
    except grpc.RpcError as error:
        return _answer(b"", error)
    return _answer(body, done)


def _call_without_message(
    channel: grpc.Channel, rpc: str, metadata: Sequence[tuple[str, str]]
) -> GrpcAnswer:
    """Send headers and no message: what is answered was decided by the headers."""
    ended = threading.Event()

    def messages() -> Iterator[bytes]:
        ended.wait(2 * ANSWER_S)
        yield from ()

    done = channel.stream_unary(rpc).future(messages(), timeout=ANSWER_S, metadata=metadata)
    try:
        body = done.result(2 * ANSWER_S)
    except grpc.RpcError as error:
        return _answer(b"", error)
    finally:
        ended.set()
    return _answer(body, done)


def _answer(body: bytes, done: Any) -> GrpcAnswer:
    return GrpcAnswer(
        code=done.code(),
        details=done.details() or "",
        body=body,
        trailers=tuple((key, value) for key, value in done.trailing_metadata() or ()),
    )
