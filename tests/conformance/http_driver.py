"""Send a request over HTTP/1.1 as bytes on a socket, and read what comes back.

Law: nothing is sent that the request does not say; the response is read by the standard library.
"""

import http.client
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tests.conformance.request import Request, Sends, media_type
from tests.conformance.signals import Signal, Via

ANSWER_S: Final = 10.0
CONTINUE: Final = b"HTTP/1.1 100"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """One response. `continued`: 100 came before it; `closes`: the server ends the connection."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    continued: bool
    closes: bool

    def everything(self) -> bytes:
        """Return all that came back, to search in."""
        lines = [f"{name}: {value}" for name, value in self.headers.items()]
        return "\n".join(lines).encode() + b"\n\n" + self.body


def _head(address: str, signal: Signal, via: Via, request: Request) -> bytes:
    lines = [f"{request.method} {request.path or signal.path} HTTP/1.1", f"Host: {address}"]
    if request.has_content_type:
        lines.append(f"Content-Type: {request.content_type or media_type(via)}")
    lines += [f"Content-Encoding: {encoding}" for encoding in request.encodings]
    if request.authorization is not None:
        lines.append(f"Authorization: {request.authorization}")
    if request.expects_continue:
        lines.append("Expect: 100-continue")
    if request.chunk_bytes:
        lines.append("Transfer-Encoding: chunked")
    else:
        declared = request.declared_bytes
        length = len(request.body) if declared is None else declared
        # A GET without a body has no length, as usual clients send it.
        if length or request.method in ("POST", "PUT"):
            lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _framed(request: Request) -> bytes:
    if not request.chunk_bytes:
        return request.body
    size = request.chunk_bytes
    pieces = [request.body[at : at + size] for at in range(0, len(request.body), size)]
    chunks = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces]
    return b"".join(chunks) + b"0\r\n\r\n"


class HttpConnection:
    """One connection, for one request after the other."""

    def __init__(self, address: str, source: str = "") -> None:
        host, _, port = address.rpartition(":")
        self._address = address
        # To the gateway, whoever has another address is another device.
        self._socket = socket.create_connection((host, int(port)), ANSWER_S, (source, 0))

    def send(self, signal: Signal, via: Via, request: Request) -> HttpAnswer:
        """Send one request and read its answer."""
        head, body = _head(self._address, signal, via, request), _framed(request)
        continued = False
        match request.sends:
            case Sends.ALL:
                self.put(head + body)
            case Sends.HEAD:
                self.put(head)
                continued = self._starts_with_continue()
            case Sends.HEAD_FIRST:
                self.put(head)
                continued = self._starts_with_continue()
                if continued:
                    self.put(body)
        return self._read(request.method, continued)

    def close(self) -> None:
        """Close the connection, whatever was sent on it."""
        self._socket.close()

    def put(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # The server has answered before it was sent everything; the answer says why.
            return

    def is_answered(self) -> bool:
        """Say whether there is something to read, or the end of the connection."""
        readable, _, _ = select.select([self._socket], [], [], 0)
        return bool(readable)

    def _starts_with_continue(self) -> bool:
        return self._socket.recv(len(CONTINUE), socket.MSG_PEEK) == CONTINUE

    def _read(self, method: str, continued: bool) -> HttpAnswer:
        response = http.client.HTTPResponse(self._socket, method=method)
        try:
            response.begin()
            body = response.read()
        finally:
            response.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return HttpAnswer(
            status=response.status,
            headers=headers,
            body=body,
            continued=continued,
            closes=response.will_close,
        )


@contextmanager
def http_connection(address: str) -> Iterator[HttpConnection]:
    """Open a connection for a block."""
    connection = HttpConnection(address)
    try:
        yield connection
    finally:
        connection.close()


class UnfinishedBodies:
    """Requests that stay open, because their bodies have arrived but for the end.

    Each comes from a device of its own, because one device alone may not fill the intake.
    """

    def __init__(self, address: str, signal: Signal, sizes: Sequence[int]) -> None:
        self._address = address
        self._data = [
            _head(address, signal, Via.PROTOBUF, Request(declared_bytes=size)) + bytes(size - 1)
            for size in sizes
        ]
        self._connections = [self._begin(place) for place in range(len(sizes))]

    def renew(self) -> int:
        """Begin those again that were answered, for want of room; returns how many."""
        renewed = 0
        for place, connection in enumerate(self._connections):
            if connection.is_answered():
                connection.close()
                self._connections[place] = self._begin(place)
                renewed += 1
        return renewed

    def close(self) -> None:
        """Give all of them up."""
        for connection in self._connections:
            connection.close()

    def _begin(self, place: int) -> HttpConnection:
        connection = HttpConnection(self._address, f"127.0.1.{place + 1}")
        connection.put(self._data[place])
        return connection
