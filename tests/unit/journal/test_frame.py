"""The bytes of a frame are as documented, and every flipped bit is noticed."""

import struct

import google_crc32c
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Signal, Transport
from gateway.errors import CorruptDataError
from gateway.journal.frame import (
    FRAME_HEADER_BYTES,
    Entry,
    GroupRecord,
    SegmentHeader,
    maybe_frame,
    maybe_segment,
    pack_frame,
    pack_segment,
    seed_of,
    unpack_payload,
)

SEED = seed_of(0x1122334455667788)
ONE = GroupRecord(
    sequence=5,
    entries=(
        Entry(
            arrival_ns=1_700_000_000_000_000_000,
            transport=Transport.HTTP,
            identity="cam-é",
            length=3,
            wire_bytes=2,
            signal=Signal.TRACES,
        ),
        Entry(arrival_ns=1, transport=Transport.GRPC, identity="", length=2),
    ),
    body=b"abcde",
)

# Written by format version 1 and never changed: later versions must still read it.
GOLDEN_SEGMENT = (
    "574549525345470a010000000000000088776655443322110300000000000000090000000000000002000000"
    "00000000e8030000000000006f31a2a2"
)
GOLDEN_FRAME = (
    "f3576a9a010100000500000000000000390000003700000047e7c00a28b52ffd203785010074020200000000"
    "002a36fe9c971703000000020000000600010063616d2dc3a9010002006162636465020060630ce009b6a0fc"
    "b1"
)


def read(data: bytes) -> GroupRecord:
    header = maybe_frame(data[:FRAME_HEADER_BYTES], SEED)
    assert header is not None
    assert header.frame_bytes == len(data)
    return unpack_payload(header, data[FRAME_HEADER_BYTES:])


entries = st.builds(
    Entry,
    arrival_ns=st.integers(0, 2**64 - 1),
    transport=st.sampled_from(Transport),
    identity=st.text(max_size=40),
    length=st.integers(0, 60),
    wire_bytes=st.integers(0, 2**32 - 1),
    signal=st.sampled_from(Signal),
)


@given(entries=st.lists(entries, max_size=8), sequence=st.integers(0, 2**64 - 1))
def test_any_record_comes_back_as_it_was(entries: list[Entry], sequence: int) -> None:
    body = bytes(index % 251 for index in range(sum(entry.length for entry in entries)))
    record = GroupRecord(sequence=sequence, entries=tuple(entries), body=body)
    assert read(pack_frame(record, SEED, zstandard.ZstdCompressor(level=1))) == record


def test_a_frame_is_built_as_documented() -> None:
    data = pack_frame(ONE, SEED, zstandard.ZstdCompressor(level=1))
    magic, version, codec, reserved, sequence, size, raw_size = struct.unpack_from(
        "<4sBBHQII", data
    )
    assert (magic, version, codec, reserved, sequence) == (b"\xf3Wj\x9a", 1, 1, 0, 5)
    head = google_crc32c.extend(SEED, data[:24])
    assert data[24:28] == head.to_bytes(4, "little")
    payload = data[28 : 28 + size]
    assert data[28 + size :] == google_crc32c.extend(head, payload).to_bytes(4, "little")
    raw = zstandard.ZstdDecompressor().decompress(payload)
    assert len(raw) == raw_size
    assert raw == (
        struct.pack("<I", 2)
        + struct.pack("<QIIHBB", 1_700_000_000_000_000_000, 3, 2, 6, 1, 0)
        + "cam-é".encode()
        + struct.pack("<QIIHBB", 1, 2, 0, 0, 0, 0)
        + b"abcde"
    )


def test_the_segment_header_has_its_golden_bytes() -> None:
    header = SegmentHeader(
        journal_id=0x1122334455667788,
        number=3,
        first_sequence=9,
        previous_number=2,
        previous_bytes=1000,
    )
    assert pack_segment(header).hex() == GOLDEN_SEGMENT
    assert maybe_segment(bytes.fromhex(GOLDEN_SEGMENT)) == header


def test_the_golden_frame_is_still_read() -> None:
    assert read(bytes.fromhex(GOLDEN_FRAME)) == ONE


def test_a_frame_of_another_journal_is_no_frame() -> None:
    data = pack_frame(ONE, SEED, zstandard.ZstdCompressor(level=1))
    assert maybe_frame(data[:FRAME_HEADER_BYTES], seed_of(1)) is None


def test_every_flipped_bit_is_noticed() -> None:
    data = pack_frame(ONE, SEED, zstandard.ZstdCompressor(level=1))
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << (bit % 8)
        header = maybe_frame(bytes(flipped[:FRAME_HEADER_BYTES]), SEED)
        if header is not None:
            with pytest.raises(CorruptDataError):
                unpack_payload(header, bytes(flipped[FRAME_HEADER_BYTES:]))


def test_a_long_identity_is_cut_and_stays_readable() -> None:
    entry = Entry(arrival_ns=1, transport=Transport.GRPC, identity="é" * 600, length=0)
    record = GroupRecord(sequence=1, entries=(entry,), body=b"")
    back = read(pack_frame(record, SEED, zstandard.ZstdCompressor(level=1)))
    assert back.entries[0].identity == "é" * 512


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "entry table"),
        (struct.pack("<I", 2), "entry table"),
        (struct.pack("<IQIIHBB", 1, 0, 0, 0, 0, 9, 0), "entry table"),
        (struct.pack("<IQIIHBB", 1, 0, 0, 0, 0, 0, 9), "entry table"),
        (struct.pack("<IQIIHBB", 1, 0, 5, 0, 0, 0, 0) + b"abc", "bodies"),
    ],
)
def test_a_payload_that_makes_no_sense_is_corrupt(raw: bytes, message: str) -> None:
    payload = zstandard.ZstdCompressor().compress(raw)
    fixed = struct.pack("<4sBBHQII", b"\xf3Wj\x9a", 1, 1, 0, 1, len(payload), len(raw))
    head = google_crc32c.extend(SEED, fixed)
    header = maybe_frame(fixed + head.to_bytes(4, "little"), SEED)
    assert header is not None
    check = google_crc32c.extend(head, payload).to_bytes(4, "little")
    with pytest.raises(CorruptDataError, match=message):
        unpack_payload(header, payload + check)
