"""The HTTP connections of the intake and its one common answer, as bytes made in advance.

Law: the number of connections is limited, and an idle or half-sent one is closed in time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from time import time
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

CONNECTIONS_MAX: Final = 4_096
KEEPALIVE_S: Final = 75.0  # above the idle limit of common proxies and of OTLP exporters
HEAD_TIMEOUT_S: Final = 10.0  # from the connection to the first whole head of a request
LINGER_S: Final = 2.0  # how long an unwanted body is read and dropped, so that the answer arrives
# What a connection buffers before its handler takes it into the account is at most twice this
# and one read of the loop.
READ_BUFFER_BYTES: Final = 64 * 1024
LINE_BYTES_MAX: Final = 8_190
HEADERS_MAX: Final = 64

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Failed = Callable[[web.BaseRequest, int], web.StreamResponse]


class Acknowledgement(web.StreamResponse):
    """200 with an empty message on a connection that stays open.

    It holds nothing of a request, so that one object answers all of one content type.
    """

    def __init__(self, content_type: str, message: bytes) -> None:
        super().__init__(status=200)
        self._kind = content_type
        self._message = message
        self._second = -1
        self._bytes = b""

    @property
    def keep_alive(self) -> bool:
        """Always: a request that closes its connection gets an ordinary response."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write head and body at once."""
        second = int(time())
        if second != self._second:
            self._second = second
            self._bytes = (
                f"HTTP/1.1 200 OK\r\nContent-Type: {self._kind}\r\n"
                f"Content-Length: {len(self._message)}\r\n"
                f"Date: {formatdate(second, usegmt=True)}\r\n\r\n"
            ).encode("ascii") + self._message
        writer = request.writer
        await writer.write(self._bytes)
        # A peer that sends without reading must not grow our output without limit.
        if request.protocol.writing_paused:
            await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: all was written."""


class Wire(web.Server):
    """Make one protocol object for each connection."""

    def __init__(self, handle: Handle, failed: Failed) -> None:
        super().__init__(handle)
        self.failed = failed
        self.connected = 0

    def __call__(self) -> web.RequestHandler:
        """Build the protocol of a new connection."""
        return _Connection(self)


class _Connection(web.RequestHandler):
    """aiohttp's HTTP/1.1 protocol with our limits and our error answers."""

    __slots__ = ("_wire",)

    def __init__(self, wire: Wire) -> None:
        super().__init__(
            wire,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            # None turns it off, as aiohttp's own runner does.
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
        )
        self._wire = wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close at once what is over the limit."""
        self._wire.connected += 1
        super().connection_made(transport)
        if self._wire.connected > CONNECTIONS_MAX:
            self.force_close()
        else:
            asyncio.get_running_loop().call_later(HEAD_TIMEOUT_S, self._close_if_mute)

    def _close_if_mute(self) -> None:
        """Close a connection whose first request has not come; later ones have `KEEPALIVE_S`."""
        if self._request_count == 0:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count the connection out."""
        self._wire.connected -= 1
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer with a Status instead of a page of text.

        Raises: ConnectionError when part of an answer was already sent.
        """
        if status >= 500 and not isinstance(exc, ConnectionError):
            self.log_exception("request failed", exc_info=exc)
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("the connection cannot be answered any more")
        return self._wire.failed(request, status)
