"""Compressed bodies: whole ones come out exactly, everything else is refused under the ceiling."""

import gzip
import random
import tracemalloc
import zlib
from contextlib import suppress
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MalformedPayloadError, PayloadTooLargeError
from gateway.receive.inflate import (
    BLOCKS_MAX,
    MEMBERS_MAX,
    PIECE_BYTES,
    RATIO_FREE_BYTES,
    RATIO_MAX,
    Encoding,
    Inflater,
    inflate,
)

MIB = 1024 * 1024
LIMIT = 20 * MIB
COMPRESSED = [Encoding.GZIP, Encoding.ZSTD]


def compress(encoding: Encoding, data: bytes) -> bytes:
    if encoding is Encoding.GZIP:
        return gzip.compress(data, 6, mtime=0)
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def streamed(data: bytes, *, flush_every: int, window_log: int = 19) -> bytes:
    """A zstd frame without content size, in many blocks."""
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
    engine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    out = []
    for first in range(0, len(data), flush_every):
        out.append(engine.compress(data[first : first + flush_every]))
        out.append(engine.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    return b"".join([*out, engine.flush()])


def spans_like(size: int) -> bytes:
    """Bytes that compress about as telemetry does."""
    rng = random.Random(5)
    words = [rng.randbytes(12) for _ in range(64)]
    return b"".join(rng.choice(words) + rng.randbytes(2) for _ in range(size // 14))


@pytest.mark.parametrize("encoding", list(Encoding))
@given(data=st.binary(max_size=3_000))
def test_what_was_compressed_comes_out(encoding: Encoding, data: bytes) -> None:
    wire = data if encoding is Encoding.IDENTITY else compress(encoding, data)
    assert inflate(encoding, wire, LIMIT) == data


@pytest.mark.parametrize("encoding", COMPRESSED)
@given(parts=st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_members_and_frames_are_one_stream(encoding: Encoding, parts: list[bytes]) -> None:
    wire = b"".join(compress(encoding, part) for part in parts)
    assert inflate(encoding, wire, LIMIT) == b"".join(parts)


@pytest.mark.parametrize("encoding", COMPRESSED)
@pytest.mark.parametrize("step_bytes", [1_000, PIECE_BYTES, 10 * MIB])
def test_steps_of_any_size_give_the_same(encoding: Encoding, step_bytes: int) -> None:
    data = spans_like(600_000)
    inflater = Inflater(encoding, compress(encoding, data), LIMIT)
    sizes = [0]
    while not inflater.done:
        inflater.step(step_bytes)
        sizes.append(inflater.size_bytes)
    assert max(b - a for a, b in pairwise(sizes)) <= step_bytes
    assert inflater.body == data


def test_zstd_frames_without_size_and_with_many_blocks_come_out() -> None:
    data = spans_like(300_000)
    assert inflate(Encoding.ZSTD, streamed(data, flush_every=5_000), LIMIT) == data


def test_skippable_zstd_frames_are_skipped() -> None:
    skippable = (0x184D2A53).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"abc"
    wire = skippable + compress(Encoding.ZSTD, b"one") + skippable + compress(Encoding.ZSTD, b"two")
    assert inflate(Encoding.ZSTD, wire, LIMIT) == b"onetwo"


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_body_cut_anywhere_is_malformed(encoding: Encoding) -> None:
    data = spans_like(2_000)
    wire = compress(encoding, data)
    for cut in range(len(wire)):
        with pytest.raises(MalformedPayloadError):
            inflate(encoding, wire[:cut], LIMIT)


def test_a_streamed_zstd_body_cut_anywhere_is_malformed() -> None:
    wire = streamed(spans_like(2_000), flush_every=300)
    for cut in range(len(wire)):
        with pytest.raises(MalformedPayloadError):
            inflate(Encoding.ZSTD, wire[:cut], LIMIT)


@pytest.mark.parametrize("encoding", COMPRESSED)
@pytest.mark.parametrize("tail", [b"\x00", b"garbage", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"])
def test_anything_after_the_stream_is_malformed(encoding: Encoding, tail: bytes) -> None:
    with pytest.raises(MalformedPayloadError):
        inflate(encoding, compress(encoding, b"data") + tail, LIMIT)


@pytest.mark.parametrize("encoding", COMPRESSED)
@given(seed=st.integers(0, 2**32))
def test_damaged_bytes_are_refused_or_never_reach_past_the_ceiling(
    encoding: Encoding, seed: int
) -> None:
    rng = random.Random(seed)
    wire = bytearray(compress(encoding, spans_like(1_000)))
    for _ in range(rng.randint(1, 4)):
        wire[rng.randrange(len(wire))] = rng.randrange(256)
    with suppress(MalformedPayloadError, PayloadTooLargeError):
        assert len(inflate(encoding, bytes(wire), 100_000)) <= 100_000


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_the_limit_itself_fits_and_one_byte_more_does_not(encoding: Encoding) -> None:
    assert len(inflate(encoding, compress(encoding, b"a" * 5_000), 5_000)) == 5_000
    with pytest.raises(PayloadTooLargeError, match="5000"):
        inflate(encoding, compress(encoding, b"a" * 5_001), 5_000)


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_the_limit_holds_for_the_sum_of_members(encoding: Encoding) -> None:
    with pytest.raises(PayloadTooLargeError):
        inflate(encoding, compress(encoding, b"a" * 3_000) * 2, 5_000)


def bomb(encoding: Encoding) -> bytes:
    """64 MiB of zeros, made without holding them."""
    zeros = bytes(MIB)
    if encoding is Encoding.GZIP:
        packer = zlib.compressobj(9, wbits=31)
        return b"".join([packer.compress(zeros) for _ in range(64)]) + packer.flush()
    engine = zstandard.ZstdCompressor().compressobj()
    return b"".join([engine.compress(zeros) for _ in range(64)]) + engine.flush()


@pytest.mark.parametrize("encoding", COMPRESSED)
@pytest.mark.parametrize("limit", [MIB, LIMIT])
def test_a_bomb_is_refused_within_bounded_memory(encoding: Encoding, limit: int) -> None:
    wire = bomb(encoding)
    assert len(wire) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLargeError):
            inflate(encoding, wire, limit)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Above a few MiB the ratio stops it, long before the limit does.
    ratio_bytes = max(RATIO_FREE_BYTES, RATIO_MAX * len(wire))
    assert peak_bytes < min(limit, ratio_bytes) + 4 * PIECE_BYTES


def test_a_huge_declared_window_is_refused_before_it_is_allocated() -> None:
    wire = streamed(b"small", flush_every=5, window_log=27)
    with pytest.raises(PayloadTooLargeError, match="window"):
        Inflater(Encoding.ZSTD, wire, LIMIT)


def test_a_huge_declared_size_sizes_no_buffer() -> None:
    # Single segment, 8-byte content size, one empty last raw block.
    header = b"\x28\xb5\x2f\xfd" + bytes([0b1110_0000]) + (1 << 60).to_bytes(8, "little")
    with pytest.raises(PayloadTooLargeError, match="window"):
        inflate(Encoding.ZSTD, header + b"\x01\x00\x00", LIMIT)


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_members_are_limited_in_number(encoding: Encoding) -> None:
    one = compress(encoding, b"")
    assert inflate(encoding, one * MEMBERS_MAX, LIMIT) == b""
    with pytest.raises(MalformedPayloadError, match=str(MEMBERS_MAX)):
        inflate(encoding, one * (MEMBERS_MAX + 1), LIMIT)


def test_zstd_blocks_are_limited_in_number() -> None:
    frame = b"\x28\xb5\x2f\xfd" + bytes([0, 0x40])  # window of 256 KiB, no size, no checksum
    empty, last = b"\x00\x00\x00", b"\x01\x00\x00"
    assert inflate(Encoding.ZSTD, frame + empty * (BLOCKS_MAX - 1) + last, LIMIT) == b""
    with pytest.raises(MalformedPayloadError, match=str(BLOCKS_MAX)):
        inflate(Encoding.ZSTD, frame + empty * BLOCKS_MAX + last, LIMIT)


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"\x28",
        b"\x28\xb5\x2f\xfd",
        b"\x28\xb5\x2f\xfd\x00\x40\x07\x00\x00",  # reserved block type
        b"\x50\x2a\x4d\x18\xff\xff\xff\xff",  # skippable frame longer than the body
        b"\x53\x2a\x4d\x18",
    ],
)
def test_broken_zstd_structures_are_malformed(wire: bytes) -> None:
    with pytest.raises(MalformedPayloadError):
        inflate(Encoding.ZSTD, wire, LIMIT)
