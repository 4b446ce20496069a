"""Write OTLP bytes from clean columns.

Law: nothing but a `Clean` or a `CleanPart` can be encoded, so whatever leaves was classified
first. A chunk never exceeds the byte limit unless a single span or part does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import zstandard

from gateway.batch import Clean, CleanPart, Frame, Signal
from gateway.otlp.kernel import encode_spans
from gateway.otlp.protobuf import varint
from gateway.tables import Int32

# Below the 4 MiB that stock gRPC receivers accept, with room for resources and growth.
CHUNK_BYTES_MAX: Final = 1 << 20
# zstd level 3 is the best ratio per CPU for OTLP batches in the collector's published table.
ZSTD_LEVEL: Final = 3


@dataclass(frozen=True, slots=True)
class Chunk:
    """One export request of one signal and the count of its items."""

    body: bytes
    items: int


def _write(clean: Clean, order: Int32) -> bytes:
    return encode_spans(
        clean.text,
        clean.spans.view(np.uint8),
        clean.resources.view(np.uint8),
        clean.scopes.view(np.uint8),
        clean.keys.view(np.uint8),
        clean.kinds,
        clean.values,
        clean.present,
        order,
    )


def _pieces(clean: Clean, order: Int32, bytes_max: int) -> Iterator[Chunk]:
    body = _write(clean, order)
    if len(body) <= bytes_max or len(order) == 1:
        yield Chunk(body, len(order))
        return
    middle = len(order) // 2
    yield from _pieces(clean, order[:middle], bytes_max)
    yield from _pieces(clean, order[middle:], bytes_max)


def encode(clean: Clean, bytes_max: int = CHUNK_BYTES_MAX) -> list[Chunk]:
    """Encode all rows, grouped by resource and scope, in chunks of at most `bytes_max`."""
    rows = len(clean.spans)
    if rows == 0:
        return []
    group = clean.spans["resource"].astype(np.int64) * len(clean.scopes) + clean.spans["scope"]
    order = np.argsort(group, kind="stable").astype(np.int32)
    return list(_pieces(clean, order, bytes_max))


def encode_parts(parts: Sequence[CleanPart], bytes_max: int = CHUNK_BYTES_MAX) -> list[Chunk]:
    """Join parts of one signal to requests of at most `bytes_max`."""
    chunks: list[Chunk] = []
    fields: list[bytes] = []
    size = items = 0
    for part in parts:
        # The resources of a request are its field 1, in every signal.
        each = b"\x0a" + varint(len(part.body)) + part.body
        if fields and size + len(each) > bytes_max:
            chunks.append(Chunk(b"".join(fields), items))
            fields, size, items = [], 0, 0
        fields.append(each)
        size += len(each)
        items += part.items
    if fields:
        chunks.append(Chunk(b"".join(fields), items))
    return chunks


class FrameBuilder:
    """Gather chunks of one signal into compressed frames. Not thread safe: one owner."""

    def __init__(self, signal: Signal, bytes_max: int = CHUNK_BYTES_MAX) -> None:
        self._signal = signal
        self._bytes_max = bytes_max
        self._compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
        self._bodies: list[bytes] = []
        self._bytes = 0
        self._items = 0
        self._first = 0
        self._last = 0

    def add(self, sequence: int, chunks: list[Chunk]) -> list[Frame]:
        """Add the chunks of one batch; returns the frames that became full."""
        frames = []
        for chunk in chunks:
            if self._bodies and self._bytes + len(chunk.body) > self._bytes_max:
                frames.extend(self.close())
            if not self._bodies:
                self._first = sequence
            # Serialized messages concatenate: repeated fields append.
            self._bodies.append(chunk.body)
            self._bytes += len(chunk.body)
            self._items += chunk.items
            self._last = sequence
        return frames

    def close(self) -> list[Frame]:
        """Return what is left as a frame, if anything is."""
        if not self._bodies:
            return []
        frame = Frame(
            signal=self._signal,
            items=self._items,
            body=self._compressor.compress(b"".join(self._bodies)),
            raw_bytes=self._bytes,
            first_sequence=self._first,
            last_sequence=self._last,
        )
        self._bodies, self._bytes, self._items = [], 0, 0
        return [frame]
