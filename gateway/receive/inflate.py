"""Compressed bodies inflated piece by piece under a ceiling.

Law: no step makes more than `output_max` bytes, no length that the sender declares sizes a buffer,
and the sum over all gzip members or zstd frames stays under the ceiling. A stream that ends early,
is damaged, or is followed by anything that is not another member or frame is malformed.
Source: RFC 1952, RFC 8878 (sections 3.1.1 and 3.1.2).
"""

import zlib
from enum import StrEnum
from typing import Final, Protocol

import zstandard

from gateway.errors import MalformedPayloadError, PayloadTooLargeError


class Encoding(StrEnum):
    """Content encodings that are served."""

    IDENTITY = "identity"
    GZIP = "gzip"
    ZSTD = "zstd"


PIECE_BYTES: Final = 256 * 1024  # one read of output
SLICE_BYTES: Final = 64 * 1024  # one feed of gzip input: bounds the copy of its unread rest

# A level 19 encoder needs 8 MiB; above it a few bytes could claim a window of gigabytes.
WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
# An empty member is 20 bytes and costs an engine; real senders use one.
MEMBERS_MAX: Final = 64
# A block makes at most 128 KiB, so that this is 2 GiB of output; an empty one is 3 bytes.
BLOCKS_MAX: Final = 16_384

# Telemetry reaches 50:1. What is above this and large is a bomb.
RATIO_MAX: Final = 100
RATIO_FREE_BYTES: Final = 4 * 1024 * 1024

_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS

_ZSTD_MAGIC: Final = 0xFD2FB528
_ZSTD_SKIPPABLE_MAGIC: Final = 0x184D2A50  # the low four bits are free
_ZSTD_BLOCK_RLE: Final = 1
_ZSTD_BLOCK_RESERVED: Final = 3
_ZSTD_BLOCK_HEADER_BYTES: Final = 3
_ZSTD_CHECKSUM_BYTES: Final = 4


class Engine(Protocol):
    """One decoder over one whole body."""

    def read(self, output_max: int) -> bytes:
        """Return at most output_max bytes; none at the end of the stream."""


class Inflater:
    """Inflate one body in steps.

    `size_bytes` grows with each step; `body` is there when `done`.
    """

    def __init__(self, encoding: Encoding, wire: bytes, bytes_max: int) -> None:
        self._wire_bytes = len(wire)
        self._bytes_max = bytes_max
        self._engine: Engine = _Gzip(wire) if encoding is Encoding.GZIP else _Zstd(wire)
        self._pieces: list[bytes] = []
        self.size_bytes = 0
        self.done = False
        self.body = b""

    def step(self, output_max: int) -> None:
        """Inflate about output_max more bytes, or to the end.

        Raises: MalformedPayloadError, PayloadTooLargeError.
        """
        target_bytes = self.size_bytes + output_max
        while self.size_bytes < target_bytes:
            piece = self._engine.read(min(PIECE_BYTES, target_bytes - self.size_bytes))
            if not piece:
                self.done = True
                pieces = self._pieces
                self.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                self._pieces = []
                return
            self._pieces.append(piece)
            self.size_bytes += len(piece)
            self._check()

    def _check(self) -> None:
        size_bytes = self.size_bytes
        if size_bytes > self._bytes_max:
            raise PayloadTooLargeError(
                f"the body inflates to more than the limit of {self._bytes_max} bytes"
            )
        if size_bytes > RATIO_FREE_BYTES and size_bytes > RATIO_MAX * self._wire_bytes:
            raise PayloadTooLargeError(
                f"the body inflates to more than {RATIO_MAX} times its {self._wire_bytes} bytes"
            )


def inflate(encoding: Encoding, wire: bytes, bytes_max: int) -> bytes:
    """Inflate a whole body at once.

    Raises: MalformedPayloadError, PayloadTooLargeError.
    """
    if encoding is Encoding.IDENTITY:
        return wire
    inflater = Inflater(encoding, wire, bytes_max)
    while not inflater.done:
        inflater.step(PIECE_BYTES)
    return inflater.body


class _Gzip:
    """Members are one stream; each must be whole."""

    def __init__(self, wire: bytes) -> None:
        self._wire = memoryview(wire)
        self._position = 0
        self._members = 1
        self._engine = zlib.decompressobj(_GZIP_WBITS)

    def read(self, output_max: int) -> bytes:
        while True:
            if self._engine.eof and not self._next_member():
                return b""
            source = self._engine.unconsumed_tail or self._take()
            try:
                piece = self._engine.decompress(source, output_max)
            except zlib.error as error:
                raise MalformedPayloadError("the body is not valid gzip") from error
            if piece:
                return piece
            # With no input left an engine that is not at its end will never get there.
            if not source and not self._engine.eof:
                raise MalformedPayloadError("the gzip body ends before its stream does")

    def _take(self) -> memoryview:
        piece = self._wire[self._position : self._position + SLICE_BYTES]
        self._position += len(piece)
        return piece

    def _next_member(self) -> bool:
        self._position -= len(self._engine.unused_data)
        if self._position == len(self._wire):
            return False
        if self._members == MEMBERS_MAX:
            raise MalformedPayloadError(f"the gzip body has more than {MEMBERS_MAX} members")
        self._members += 1
        self._engine = zlib.decompressobj(_GZIP_WBITS)
        return True


class _Zstd:
    """Frames are one stream; the structure of all of them is checked before any is decoded.

    The streaming decoder takes a frame that ends early for one that is still arriving, so that
    only a walk over the block headers can tell.
    """

    def __init__(self, wire: bytes) -> None:
        view = memoryview(wire)
        self._frames = iter([view[first:last] for first, last in _zstd_frames(wire)])
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
        self._reader: zstandard.ZstdDecompressionReader | None = None

    def read(self, output_max: int) -> bytes:
        while True:
            if self._reader is None:
                frame = next(self._frames, None)
                if frame is None:
                    return b""
                self._reader = self._decompressor.stream_reader(frame, read_across_frames=False)
            try:
                piece = self._reader.read(output_max)
            except zstandard.ZstdError as error:
                raise MalformedPayloadError("the body is not valid zstd") from error
            if piece:
                return piece
            self._reader = None


def _zstd_frames(wire: bytes) -> list[tuple[int, int]]:
    """Find the frames that hold data: (first, last) byte offsets, last exclusive."""
    frames = []
    position = 0
    members = 0
    blocks = 0
    while position < len(wire):
        members += 1
        if members > MEMBERS_MAX:
            raise MalformedPayloadError(f"the zstd body has more than {MEMBERS_MAX} frames")
        magic = int.from_bytes(wire[position : position + 4], "little")
        if magic & 0xFFFFFFF0 == _ZSTD_SKIPPABLE_MAGIC:
            last = position + 8 + int.from_bytes(wire[position + 4 : position + 8], "little")
        elif magic == _ZSTD_MAGIC:
            last, count = _zstd_frame_end(wire, position, BLOCKS_MAX - blocks)
            blocks += count
            frames.append((position, last))
        else:
            raise MalformedPayloadError("the body is not valid zstd", position)
        if last > len(wire):
            raise MalformedPayloadError("the zstd body ends before its frame does")
        position = last
    if not members:
        raise MalformedPayloadError("the zstd body is empty")
    return frames


def _zstd_frame_end(wire: bytes, first: int, blocks_max: int) -> tuple[int, int]:
    """Walk the block headers of one frame; return the offset after it and its blocks."""
    # A frame header has at most 18 bytes.
    header = wire[first : first + 18]
    try:
        parameters = zstandard.get_frame_parameters(header)
        position = first + zstandard.frame_header_size(header)
    except zstandard.ZstdError as error:
        raise MalformedPayloadError("the zstd frame header is damaged", first) from error
    if parameters.window_size > WINDOW_BYTES_MAX:
        raise PayloadTooLargeError(
            f"the zstd window is above the limit of {WINDOW_BYTES_MAX} bytes"
        )
    for count in range(1, blocks_max + 1):
        header = wire[position : position + _ZSTD_BLOCK_HEADER_BYTES]
        if len(header) < _ZSTD_BLOCK_HEADER_BYTES:
            raise MalformedPayloadError("the zstd body ends before its frame does")
        word = int.from_bytes(header, "little")
        kind = word >> 1 & 3
        if kind == _ZSTD_BLOCK_RESERVED:
            raise MalformedPayloadError("the zstd block header is damaged", position)
        position += _ZSTD_BLOCK_HEADER_BYTES + (1 if kind == _ZSTD_BLOCK_RLE else word >> 3)
        if word & 1:
            checksum_bytes = _ZSTD_CHECKSUM_BYTES if parameters.has_checksum else 0
            return position + checksum_bytes, count
    raise MalformedPayloadError(f"the zstd body has more than {BLOCKS_MAX} blocks")
