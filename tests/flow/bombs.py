"""Hostile bodies and a raw HTTP/2 client, made by hand because no well-meant library makes them."""

import gzip
import socket
import struct
from collections.abc import Callable
from typing import Final

import zstandard

MIB: Final = 1 << 20
ATTACKER: Final = "127.0.0.2"
ZEROS_BYTES: Final = 56 * MIB  # what gzip turns into less than one HTTP/2 window


def field(number: int, body: bytes) -> bytes:
    """Encode a length-delimited field."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def varint(value: int) -> bytes:
    """Encode a varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def request_of(span: bytes) -> bytes:
    """Wrap an encoded span into an export request."""
    return field(1, field(2, field(2, span)))


def gzip_bomb() -> bytes:
    """A thousand to one."""
    return gzip.compress(bytes(ZEROS_BYTES), 9)


def gzip_in_gzip() -> bytes:
    """Two layers, a million to one in all."""
    return gzip.compress(gzip_bomb(), 9)


def gzip_members() -> bytes:
    """Sixty members of a mebibyte each, every one small enough by itself."""
    return gzip.compress(bytes(MIB), 9) * 60


def gzip_empty_members() -> bytes:
    """Thousands of empty members, each of which costs an engine."""
    return gzip.compress(b"") * 3000


def zstd_bomb() -> bytes:
    """Thirty thousand to one."""
    engine = zstandard.ZstdCompressor(level=19).compressobj()
    return b"".join(engine.compress(bytes(MIB)) for _ in range(256)) + engine.flush()


def zstd_window() -> bytes:
    """A few bytes that claim a window of two gibibytes."""
    block = struct.pack("<I", 1 | 1 << 1 | 128 << 3)[:3] + b"\0"
    return struct.pack("<I", 0xFD2FB528) + bytes([0, 21 << 3]) + block


def zstd_frames() -> bytes:
    """Sixty frames of a mebibyte each."""
    return zstandard.ZstdCompressor(level=19).compress(bytes(MIB)) * 60


def empty_spans() -> bytes:
    """Four mebibytes of spans of two bytes, which objects would make hundreds of."""
    return field(1, field(2, b"\x12\x00" * (2 * MIB - 64)))


def deep_value() -> bytes:
    """An attribute of ten thousand lists in one another."""
    value = b""
    for _ in range(10_000):
        value = field(5, field(1, value))
    return request_of(field(9, field(1, b"k") + field(2, value)))


def empty_attributes(count: int) -> bytes:
    """Attributes of two bytes on one span."""
    return request_of(b"\x4a\x00" * count)


def million_attributes() -> bytes:
    """More attributes than a request may hold, in two megabytes."""
    return empty_attributes(1_000_000)


def huge_varints() -> bytes:
    """A length of ten bytes, beyond everything."""
    return b"\x0a" + b"\xff" * 9 + b"\x01" + b"\0" * 64


def gzip_with_a_tail() -> bytes:
    """A good member with megabytes of nothing behind it."""
    return gzip.compress(b"") + bytes(MIB)


Bombs = tuple[tuple[str, str, Callable[[], bytes]], ...]
# Name, content encoding, body: those that inflate, and those that are scanned.
INFLATING: Final[Bombs] = (
    ("gzip 1000:1", "gzip", gzip_bomb),
    ("gzip in gzip", "gzip", gzip_in_gzip),
    ("gzip twice declared", "gzip, gzip", gzip_in_gzip),
    ("gzip members", "gzip", gzip_members),
    ("gzip empty members", "gzip", gzip_empty_members),
    ("gzip with a tail", "gzip", gzip_with_a_tail),
    ("zstd 30000:1", "zstd", zstd_bomb),
    ("zstd window of 2 GiB", "zstd", zstd_window),
    ("zstd frames", "zstd", zstd_frames),
    ("empty spans in gzip", "gzip", lambda: gzip.compress(empty_spans())),
)
SCANNED: Final[Bombs] = (
    ("empty spans", "identity", empty_spans),
    ("million attributes", "identity", million_attributes),
    ("deep value", "identity", deep_value),
    ("huge varints", "identity", huge_varints),
)

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_BYTES: Final = 16_384
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


def connect(address: str, timeout_s: float) -> socket.socket:
    """Connect from the attacker's own address, which is another device than the good clients'."""
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout_s, (ATTACKER, 0))


class Http2:
    """One HTTP/2 connection to a gRPC server, without any of the manners of a client."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self._socket = connect(address, timeout_s)
        self._data = b""
        self._next = 1
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def open(self, method: str, *, encoding: str = "identity") -> int:
        """Send the headers of a call; return its stream."""
        stream, self._next = self._next, self._next + 2
        self._socket.sendall(_frame(_HEADERS, _END_HEADERS, stream, _headers(method, encoding)))
        return stream

    def flood(self, method: str, count: int, *, reset: bool) -> None:
        """Open many calls at once, and cancel each at once when asked."""
        out = bytearray()
        for _ in range(count):
            out += _frame(_HEADERS, _END_HEADERS, self._next, _headers(method, "identity"))
            if reset:
                out += _frame(_RESET, 0, self._next, struct.pack(">I", 8))
            self._next += 2
        self._socket.sendall(out)

    def message(self, stream: int, body: bytes, *, compressed: bool) -> None:
        """Send the only message of a call; it must fit into one flow-control window."""
        data = struct.pack(">BI", compressed, len(body)) + body
        assert len(data) < 65_535
        for first in range(0, len(data), _FRAME_BYTES):
            piece = data[first : first + _FRAME_BYTES]
            last = first + _FRAME_BYTES >= len(data)
            self._socket.sendall(_frame(_DATA, _END_STREAM if last else 0, stream, piece))

    def ping(self) -> bool:
        """Ask for a sign of life; False when the server ends the connection."""
        self._socket.sendall(_frame(_PING, 0, 0, bytes(8)))
        return self._wait(lambda kind, flags, _: kind == _PING and bool(flags & _ACK))

    def wait_end(self, stream: int) -> bool:
        """Read until the server ends a call; False when it ends the connection."""

        def is_end(kind: int, flags: int, number: int) -> bool:
            return number == stream and (kind == _RESET or bool(flags & _END_STREAM))

        return self._wait(is_end)

    def _wait(self, is_it: Callable[[int, int, int], bool]) -> bool:
        while True:
            while len(self._data) < 9 or len(self._data) < 9 + _length(self._data):
                try:
                    piece = self._socket.recv(65_536)
                except ConnectionError:
                    return False
                if not piece:
                    return False
                self._data += piece
            size = _length(self._data)
            kind, flags = self._data[3], self._data[4]
            number = int.from_bytes(self._data[5:9], "big")
            body, self._data = self._data[9 : 9 + size], self._data[9 + size :]
            if kind == _SETTINGS and not flags & _ACK:
                self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                self._socket.sendall(_frame(_PING, _ACK, 0, body))
            elif kind == _GOAWAY:
                return False
            elif is_it(kind, flags, number):
                return True


def _length(data: bytes) -> int:
    return int.from_bytes(data[:3], "big")


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _headers(method: str, encoding: str) -> bytes:
    """Encode headers with HPACK's plainest form: literal, never indexed, not compressed."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "gateway"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-encoding", encoding),
    )
    return b"".join(
        b"\x10" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields
    )


def fits_one_window(body: bytes) -> bool:
    """Tell whether `Http2.message` can send it."""
    return len(body) + 5 < 65_535
