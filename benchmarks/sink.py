"""A destination that costs next to nothing: it reads requests to their end and answers 200.

Usage: `python -m benchmarks.sink`; prints its port, ends with its standard input.
"""

import asyncio
import sys
from typing import Final, cast

import uvloop

ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
)


class Connection(asyncio.Protocol):
    """One connection of a forwarder. Keeps the head only, and counts the body."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection for answers."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Count a body down; answer at its end."""
        while data:
            if self._left == 0:
                self._head += data
                head, found, data = self._head.partition(b"\r\n\r\n")
                if not found:
                    return
                self._head = b""
                self._left = _length(head)
            taken = min(self._left, len(data))
            self._left -= taken
            data = data[taken:]
            if self._left == 0:
                assert self._transport is not None
                self._transport.write(ANSWER)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    server.close()


def main() -> None:
    """Serve until standard input ends."""
    uvloop.run(_serve())


if __name__ == "__main__":
    main()
