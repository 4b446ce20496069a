"""Requests of the sections "Encodings and content types" and "Sizes"."""

import gzip
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Final

import zstandard

from tests.conformance.cases_items import good
from tests.conformance.request import (
    GRPC_BYTES,
    SMALL_BYTES,
    Make,
    Request,
    Sends,
    media_type,
)
from tests.conformance.signals import MARK, Fault, Signal, Via, body_of
from tests.conformance.wire import field

CHUNK_BYTES: Final = 10_000
HUGE_BYTES: Final = 1 << 40
PADDING_FIELD: Final = 1_000
RATIO_BYTES: Final = 12 << 20
WINDOW_LOG: Final = 27
TRAILING: Final = f" {MARK} trailing".encode()

Change = Callable[[bytes], bytes]


def zstd(body: bytes) -> bytes:
    """Compress into one frame with its size and checksum."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(body)


def _halves(compress: Change) -> Change:
    def change(body: bytes) -> bytes:
        middle = len(body) // 2
        return compress(body[:middle]) + compress(body[middle:])

    return change


def _flip(body: bytes, position: int) -> bytes:
    changed = bytearray(body)
    changed[position] ^= 1
    return bytes(changed)


def changed(change: Change, *encodings: str, items: int = 3) -> Make:
    """Make a case of some items whose body is changed before it is sent under the encodings."""

    def make(signal: Signal, via: Via) -> Request:
        return Request(body=change(body_of(signal, via, items)), encodings=encodings)

    return make


def _plain(body: bytes) -> bytes:
    return body


def _typed(write: Callable[[str], str]) -> Make:
    def make(signal: Signal, via: Via) -> Request:
        return Request(body=body_of(signal, via), content_type=write(media_type(via)))

    return make


def _unserved(write: Callable[[str], str]) -> Make:
    def make(signal: Signal, via: Via) -> Request:
        name = write(media_type(via))
        return Request(body=body_of(signal, via), content_type=name, unrepeated=(name,))

    return make


def _untyped(signal: Signal, via: Via) -> Request:
    return Request(body=body_of(signal, via), has_content_type=False)


# --- sizes -----------------------------------------------------------------------------------


@cache
def padded(signal: Signal, via: Via, size_bytes: int) -> bytes:
    """Make a request of one item that has exactly so many bytes: blanks, or an unknown field."""
    body = body_of(signal, via)
    missing = size_bytes - len(body)
    if via is Via.JSON:
        return body + b" " * missing
    for overhead in range(3, 9):
        padding = field(PADDING_FIELD, bytes(missing - overhead))
        if len(padding) == missing:
            return body + padding
    raise AssertionError(f"no padding of {missing} bytes")


def sized(size_bytes: int, change: Change = _plain, *encodings: str, chunk_bytes: int = 0) -> Make:
    """Make a case of exactly so many bytes, before they are changed."""

    def make(signal: Signal, via: Via) -> Request:
        body = change(padded(signal, via, size_bytes))
        return Request(body=body, encodings=encodings, chunk_bytes=chunk_bytes)

    return make


def declared(size_bytes: int, *, expects_continue: bool = False) -> Make:
    """Make a case of headers that promise so many bytes."""

    def make(signal: Signal, via: Via) -> Request:
        return Request(
            sends=Sends.HEAD, declared_bytes=size_bytes, expects_continue=expects_continue
        )

    return make


def _wide(signal: Signal, via: Via) -> Request:
    parameters = zstandard.ZstdCompressionParameters(
        window_log=WINDOW_LOG, write_content_size=False
    )
    # A frame that is closed with its first write becomes a single segment without a window.
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = stream.compress(body_of(signal, via))
    body += stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) + stream.flush()
    assert zstandard.get_frame_parameters(body).window_size == 1 << WINDOW_LOG
    return Request(body=body, encodings=("zstd",))


def _gzip_of_empty(signal: Signal, via: Via) -> Request:
    return Request(body=gzip.compress(b"") if via is Via.PROTOBUF else b"", encodings=("gzip",))


def _no_bytes(signal: Signal, via: Via) -> Request:
    return Request(encodings=("gzip",))


def gzipped(make: Make) -> Make:
    """Compress the body here, but over gRPC, which does it itself."""

    def inner(signal: Signal, via: Via) -> Request:
        request = make(signal, via)
        body = request.body if via is Via.GRPC else gzip.compress(request.body)
        return Request(body=body, encodings=("gzip",))

    return inner


def _deflate(body: bytes) -> bytes:
    return zlib.compress(body)


_OVER: Final = SMALL_BYTES + 1

CASES: Final[Mapping[str, Make]] = {
    "gzip": gzipped(good(3)),
    "bad-gzip": gzipped(good(5, dict.fromkeys((1, 2), Fault.TRACE_ID_SHORT))),
    "zstd": changed(zstd, "zstd"),
    "identity": changed(_plain, "identity"),
    "encoding-upper-case": changed(gzip.compress, "GZIP"),
    "encoding-mixed-case": changed(zstd, "Zstd"),
    "content-type-parameter": _typed(lambda name: f"{name}; charset=utf-8"),
    "content-type-upper-case": _typed(str.upper),
    "gzip-members": changed(_halves(gzip.compress), "gzip"),
    "zstd-frames": changed(_halves(zstd), "zstd"),
    "gzip-of-empty": _gzip_of_empty,
    "encoding-unknown": changed(_deflate, "br"),
    "encodings-stacked": changed(lambda body: gzip.compress(gzip.compress(body)), "gzip, gzip"),
    "encodings-in-two-lines": changed(
        lambda body: gzip.compress(gzip.compress(body)), "gzip", "gzip"
    ),
    "content-type-unknown": _unserved(lambda _: "text/plain"),
    "content-type-missing": _untyped,
    "content-type-neighbour": _unserved(lambda name: f"{name}-delimited"),
    "gzip-truncated": changed(lambda body: gzip.compress(body)[:-12], "gzip"),
    "gzip-trailing": changed(lambda body: gzip.compress(body) + TRAILING, "gzip"),
    "gzip-wrong-magic": changed(_plain, "gzip"),
    "gzip-bad-checksum": changed(lambda body: _flip(gzip.compress(body), -8), "gzip"),
    "gzip-no-bytes": _no_bytes,
    "zstd-truncated": changed(lambda body: zstd(body)[:-5], "zstd"),
    "zstd-trailing": changed(lambda body: zstd(body) + TRAILING, "zstd"),
    "zstd-wrong-magic": changed(gzip.compress, "zstd"),
    "zstd-bad-checksum": changed(lambda body: _flip(zstd(body), -1), "zstd"),
    "gzip-not-said": changed(gzip.compress),
    "size-at-limit": sized(SMALL_BYTES),
    "size-over-limit": sized(_OVER),
    "size-declared-over": declared(_OVER),
    "size-declared-huge": declared(HUGE_BYTES),
    "size-expect-over": declared(_OVER, expects_continue=True),
    "size-chunked": sized(SMALL_BYTES, chunk_bytes=CHUNK_BYTES),
    "size-chunked-over": sized(_OVER, chunk_bytes=CHUNK_BYTES),
    "size-gzip-at-limit": gzipped(sized(SMALL_BYTES)),
    "size-gzip-over": gzipped(sized(_OVER)),
    "size-zstd-over": sized(_OVER, zstd, "zstd"),
    "size-members-over": sized(_OVER, _halves(gzip.compress), "gzip"),
    "size-frames-over": sized(_OVER, _halves(zstd), "zstd"),
    "size-ratio": sized(RATIO_BYTES, gzip.compress, "gzip"),
    "size-zstd-window": _wide,
    "size-grpc-default": sized(GRPC_BYTES + 1),
    "size-http-above-grpc": sized(GRPC_BYTES + 1),
}
