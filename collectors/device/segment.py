"""The bytes of one ring segment: two header blocks, then records.

Law: nothing is believed without its CRC32C. A header is written alternately to two blocks, so that
a torn write leaves the one before; a record's checksum also covers the generation, so that
what an earlier one left in the file can never pass for a record of this one.

Layout, little-endian: block 0 at 0, block 1 at 2048, records from 4096 to the end of the file.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import google_crc32c

from collectors.device.evictions import ROWS_MAX, Evicted, Reason

BLOCK_BYTES: Final = 2048
DATA_OFFSET: Final = 2 * BLOCK_BYTES
MAGIC: Final = b"WEIRRNG1"
HASH_BYTES: Final = 32
NO_HASH: Final = bytes(HASH_BYTES)
TRACE_ID_BYTES: Final = 16

# magic, crc of the rest
_PREFIX: Final = struct.Struct("<8sI")
# state, rows, revision, generation, first and last sequence, used bytes, first and last time,
# hash of the previous segment, hash of this one
_HEADER: Final = struct.Struct("<HHQQQQQQQ32s32s")
_ROW: Final = struct.Struct("<QQQQQQ")
assert _PREFIX.size + _HEADER.size + ROWS_MAX * _ROW.size <= BLOCK_BYTES

# stored length, crc of the rest and the payload
_RECORD_PREFIX: Final = struct.Struct("<II")
# sequence, written time, raw length, flags, trace id
_RECORD: Final = struct.Struct("<QQII16s")
# The checksum starts from the generation, which is not stored again in each record.
_SEED: Final = struct.Struct("<Q")
RECORD_HEAD_BYTES: Final = _RECORD_PREFIX.size + _RECORD.size


class State(IntEnum):
    """How far a segment is."""

    OPEN = 0  # being written
    CLOSED = 1  # left cleanly, may be written on
    SEALED = 2  # full, hashed


class Flag(IntEnum):
    """Bits of `Record.flags`."""

    COMPRESSED = 1
    FIRST = 2  # no earlier record of this trace exists
    LAST = 4  # no later record of this trace will exist


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a segment says of itself. last_*, used_bytes and hash count only when not OPEN.

    Units: first_ns and last_ns are the least and greatest time of writing, Unix nanoseconds.
    """

    state: State
    revision: int
    generation: int
    first_sequence: int
    last_sequence: int
    used_bytes: int
    first_ns: int
    last_ns: int
    previous: bytes
    hash: bytes
    evicted: tuple[Evicted, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where one record is. Units: offset and stored_bytes in the file; raw_bytes of the payload."""

    generation: int
    sequence: int
    written_ns: int
    offset: int
    stored_bytes: int
    raw_bytes: int
    flags: int
    trace_id: bytes


def pack_header(header: Header) -> bytes:
    """Write one header block."""
    body = _HEADER.pack(
        header.state,
        len(header.evicted),
        header.revision,
        header.generation,
        header.first_sequence,
        header.last_sequence,
        header.used_bytes,
        header.first_ns,
        header.last_ns,
        header.previous,
        header.hash,
    ) + b"".join(
        _ROW.pack(
            row.first_sequence, row.last_sequence, row.from_ns, row.to_ns, row.count, row.reason
        )
        for row in header.evicted
    )
    body = body.ljust(BLOCK_BYTES - _PREFIX.size, b"\0")
    return _PREFIX.pack(MAGIC, google_crc32c.value(body)) + body


def maybe_header(block: bytes) -> Header | None:
    """Read one header block; None unless its magic and checksum are right."""
    if len(block) != BLOCK_BYTES:
        return None
    magic, crc = _PREFIX.unpack_from(block)
    body = block[_PREFIX.size :]
    if magic != MAGIC or crc != google_crc32c.value(body):
        return None
    state, rows, *numbers, previous, digest = _HEADER.unpack_from(body)
    revision, generation, first, last, used, first_ns, last_ns = numbers
    return Header(
        state=State(state),
        revision=revision,
        generation=generation,
        first_sequence=first,
        last_sequence=last,
        used_bytes=used,
        first_ns=first_ns,
        last_ns=last_ns,
        previous=previous,
        hash=digest,
        evicted=tuple(_unpack_row(body, _HEADER.size + index * _ROW.size) for index in range(rows)),
    )


def _unpack_row(body: bytes, offset: int) -> Evicted:
    first, last, from_ns, to_ns, count, reason = _ROW.unpack_from(body, offset)
    return Evicted(
        first_sequence=first,
        last_sequence=last,
        from_ns=from_ns,
        to_ns=to_ns,
        count=count,
        reason=Reason(reason),
    )


def newest_header(blocks: bytes) -> Header | None:
    """Choose the valid block with the highest revision out of the first 4096 bytes."""
    found = [
        header
        for header in (maybe_header(blocks[:BLOCK_BYTES]), maybe_header(blocks[BLOCK_BYTES:]))
        if header is not None
    ]
    return max(found, key=lambda header: header.revision) if found else None


def block_offset(revision: int) -> int:
    """Place revisions alternately, so that a torn write never hits the newest valid block."""
    return revision % 2 * BLOCK_BYTES


def pack_record(entry: Entry, stored: bytes) -> bytes:
    """Write one record: a checksum over everything but itself, and the length it spans."""
    head = _RECORD.pack(
        entry.sequence, entry.written_ns, entry.raw_bytes, entry.flags, entry.trace_id
    )
    crc = google_crc32c.extend(_seeded_crc(entry.generation, head), stored)
    return _RECORD_PREFIX.pack(len(stored), crc) + head + stored


def _seeded_crc(generation: int, data: bytes) -> int:
    crc: int = google_crc32c.extend(google_crc32c.value(_SEED.pack(generation)), data)
    return crc


def maybe_record(buffer: bytes, offset: int, generation: int) -> Entry | None:
    """Read the record that starts at an offset of a whole segment; None unless it is intact.

    Shape: `Entry.offset` is where `buffer` has it, so a buffer must start with the file.
    """
    if offset + RECORD_HEAD_BYTES > len(buffer):
        return None
    length, crc = _RECORD_PREFIX.unpack_from(buffer, offset)
    end = offset + RECORD_HEAD_BYTES + length
    # The CRC covers the length by way of what it spans: a wrong length covers other bytes.
    if length == 0 or end > len(buffer):
        return None
    head = offset + _RECORD_PREFIX.size
    if _seeded_crc(generation, buffer[head:end]) != crc:
        return None
    sequence, written_ns, raw_bytes, flags, trace_id = _RECORD.unpack_from(buffer, head)
    return Entry(
        generation=generation,
        sequence=sequence,
        written_ns=written_ns,
        offset=offset,
        stored_bytes=length,
        raw_bytes=raw_bytes,
        flags=flags,
        trace_id=trace_id,
    )


def record_bytes(stored_bytes: int) -> int:
    """Size of a record on disk."""
    return RECORD_HEAD_BYTES + stored_bytes


def scan(buffer: bytes, header: Header) -> tuple[list[Entry], int]:
    """Read records until the first that is not intact or not later than the one before.

    What an earlier writing left behind a damaged record has lower numbers than all that follows.

    Shape: (entries, offset behind the last one).
    """
    limit = DATA_OFFSET + header.used_bytes if header.state is not State.OPEN else len(buffer)
    entries: list[Entry] = []
    offset = DATA_OFFSET
    sequence = header.first_sequence
    while offset < limit:
        entry = maybe_record(buffer, offset, header.generation)
        if entry is None or entry.sequence < sequence:
            break
        entries.append(entry)
        offset += record_bytes(entry.stored_bytes)
        sequence = entry.sequence + 1
    return entries, offset
