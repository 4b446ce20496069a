"""The bytes of the journal: segment header, frame header, payload.

Law: a frame is valid only if both checksums fit and they are seeded with the journal's own id, so
that frame bytes which a client planted inside a body never pass for a frame when a damaged file is
searched. The header checksum covers the lengths: a flipped length cannot swallow its neighbours.
All integers are little endian. The format is only ever added to, under a new version number:
version 1 is plain, version 2 encrypted, and one journal may hold both. docs/journal.md says all of
it in words and is compared with this module by a test.

    segment  header, frame*
    frame    header, payload, CRC32C of header and payload
    payload  one zstd frame over: entry count, entry*, bodies; in version 2 encrypted (cipher.py)
"""

import struct
from dataclasses import dataclass
from typing import Final

import google_crc32c
import zstandard

from gateway.batch import Signal, Transport
from gateway.errors import CorruptDataError, PayloadTooLargeError
from gateway.journal.cipher import OVERHEAD_BYTES, Keys, Sealer

VERSION: Final = 1
VERSION_ENCRYPTED: Final = 2
CODEC_ZSTD: Final = 1
CODEC_ZSTD_GCM: Final = 2
# Which codec a frame of a version must name.
CODECS: Final = {VERSION: CODEC_ZSTD, VERSION_ENCRYPTED: CODEC_ZSTD_GCM}
# Level 1: a third fewer bytes on the disk than without, at a cost below that of the write itself.
ZSTD_LEVEL: Final = 1

# A frame is held in memory several times: raw, compressed, decoded.
RAW_BYTES_MAX: Final = 256 << 20
ENTRIES_MAX: Final = 1 << 20
IDENTITY_BYTES_MAX: Final = 1024

SEGMENT_MAGIC: Final = b"WEIRSEG\n"
FRAME_MAGIC: Final = b"\xf3Wj\x9a"

# magic, version, reserved, journal id, number, first sequence, previous number, previous bytes
_SEGMENT: Final = struct.Struct("<8sHHIQQQQQ")
# Version 2 goes on behind that with: key id, salt.
_SEGMENT_KEY: Final = struct.Struct("<8s16s")
# magic, version, codec, reserved, sequence, payload bytes, raw bytes
_FRAME: Final = struct.Struct("<4sBBHQII")
_CHECKSUM: Final = struct.Struct("<I")
_COUNT: Final = struct.Struct("<I")
# arrival_ns, body length, wire bytes, identity length, transport, signal
_ENTRY: Final = struct.Struct("<QIIHBB")

SEGMENT_HEADER_BYTES: Final = _SEGMENT.size + _CHECKSUM.size
SEGMENT_HEADER_BYTES_MAX: Final = SEGMENT_HEADER_BYTES + _SEGMENT_KEY.size
FRAME_HEADER_BYTES: Final = _FRAME.size + _CHECKSUM.size
FRAME_EXTRA_BYTES: Final = FRAME_HEADER_BYTES + _CHECKSUM.size

_SIGNALS: Final = (Signal.TRACES, Signal.METRICS, Signal.LOGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request of a group.

    Units: arrival_ns Unix nanoseconds; length and wire_bytes in bytes, length of the inflated body.
    """

    arrival_ns: int
    transport: Transport
    identity: str
    length: int
    wire_bytes: int = 0
    signal: Signal = Signal.TRACES


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRecord:
    """One group commit: who sent what and when, and the bodies one after the other."""

    sequence: int
    entries: tuple[Entry, ...]
    body: bytes | memoryview  # bytes when read back


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentHeader:
    """What a segment file says of itself and of the one before it.

    `previous_bytes` is the end of the last acknowledged frame of segment `previous_number`; what
    lies behind it was never acknowledged and does not count. A previous number of 0 means none.
    `key_id` and `salt` are empty when the segment is plain.
    """

    journal_id: int
    number: int
    first_sequence: int
    previous_number: int
    previous_bytes: int
    key_id: bytes = b""
    salt: bytes = b""

    @property
    def header_bytes(self) -> int:
        """Size of the header: where the first frame begins."""
        return SEGMENT_HEADER_BYTES_MAX if self.key_id else SEGMENT_HEADER_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """Where a frame ends and what it should become. Units: bytes."""

    version: int
    sequence: int
    payload_bytes: int
    raw_bytes: int
    checksum: int

    @property
    def frame_bytes(self) -> int:
        """Size of the whole frame."""
        return FRAME_EXTRA_BYTES + self.payload_bytes


def checksum(data: bytes, seed: int = 0) -> int:
    """Compute or continue a CRC32C."""
    return int(google_crc32c.extend(seed, data))


def seed_of(journal_id: int) -> int:
    """Derive the checksum seed of all frames of one journal."""
    return checksum(journal_id.to_bytes(8, "little"))


def pack_segment(header: SegmentHeader) -> bytes:
    """Write a segment header."""
    fixed = _SEGMENT.pack(
        SEGMENT_MAGIC,
        VERSION_ENCRYPTED if header.key_id else VERSION,
        0,
        0,
        header.journal_id,
        header.number,
        header.first_sequence,
        header.previous_number,
        header.previous_bytes,
    )
    if header.key_id:
        fixed += _SEGMENT_KEY.pack(header.key_id, header.salt)
    return fixed + _CHECKSUM.pack(checksum(fixed))


def maybe_segment(data: bytes) -> SegmentHeader | None:
    """Read a segment header, None when the bytes are not an intact one."""
    if len(data) < SEGMENT_HEADER_BYTES:
        return None
    magic, version, _, _, journal_id, number, first, previous, length = _SEGMENT.unpack_from(data)
    encrypted = version == VERSION_ENCRYPTED
    size = _SEGMENT.size + (_SEGMENT_KEY.size if encrypted else 0)
    if magic != SEGMENT_MAGIC or version not in CODECS or len(data) < size + _CHECKSUM.size:
        return None
    if _CHECKSUM.unpack_from(data, size)[0] != checksum(data[:size]):
        return None
    key_id, salt = _SEGMENT_KEY.unpack_from(data, _SEGMENT.size) if encrypted else (b"", b"")
    return SegmentHeader(
        journal_id=journal_id,
        number=number,
        first_sequence=first,
        previous_number=previous,
        previous_bytes=length,
        key_id=key_id,
        salt=salt,
    )


def maybe_frame(data: bytes, seed: int) -> FrameHeader | None:
    """Read a frame header, None when the bytes are not an intact one of this journal."""
    if len(data) < FRAME_HEADER_BYTES or not data.startswith(FRAME_MAGIC):
        return None
    expected = checksum(data[: _FRAME.size], seed)
    if _CHECKSUM.unpack_from(data, _FRAME.size)[0] != expected:
        return None
    _, version, codec, _, sequence, payload_bytes, raw_bytes = _FRAME.unpack_from(data)
    if CODECS.get(version) != codec or raw_bytes > RAW_BYTES_MAX:
        return None
    return FrameHeader(
        version=version,
        sequence=sequence,
        payload_bytes=payload_bytes,
        raw_bytes=raw_bytes,
        checksum=expected,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A record as the text of a frame that has no place yet."""

    sequence: int
    text: bytes
    raw_bytes: int

    def frame_bytes(self, *, encrypted: bool) -> int:
        """Size of the frame that `build_frame` makes of it."""
        return FRAME_EXTRA_BYTES + len(self.text) + (OVERHEAD_BYTES if encrypted else 0)


def pack(record: GroupRecord, compressor: zstandard.ZstdCompressor) -> Packed:
    """Compress one record.

    Raises: PayloadTooLargeError when the record is above RAW_BYTES_MAX or ENTRIES_MAX.
    """
    raw = b"".join((_pack_entries(record), record.body))
    if len(raw) > RAW_BYTES_MAX:
        raise PayloadTooLargeError(f"group of {len(raw)} bytes is above {RAW_BYTES_MAX}")
    return Packed(sequence=record.sequence, text=compressor.compress(raw), raw_bytes=len(raw))


def build_frame(packed: Packed, seed: int, sealer: Sealer | None = None) -> bytes:
    """Write a frame, encrypted when its segment has a sealer."""
    version = VERSION if sealer is None else VERSION_ENCRYPTED
    payload = packed.text
    size = len(payload) + (0 if sealer is None else OVERHEAD_BYTES)
    fixed = _pack_fixed(version, packed.sequence, size, packed.raw_bytes)
    if sealer is not None:
        payload = sealer.seal(fixed, payload)
    head = checksum(fixed, seed)
    return b"".join((fixed, _CHECKSUM.pack(head), payload, _CHECKSUM.pack(checksum(payload, head))))


def pack_frame(
    record: GroupRecord,
    seed: int,
    compressor: zstandard.ZstdCompressor,
    sealer: Sealer | None = None,
) -> bytes:
    """Write one record as a frame. Raises: as `pack`."""
    return build_frame(pack(record, compressor), seed, sealer)


def _pack_fixed(version: int, sequence: int, payload_bytes: int, raw_bytes: int) -> bytes:
    codec = CODECS[version]
    return _FRAME.pack(FRAME_MAGIC, version, codec, 0, sequence, payload_bytes, raw_bytes)


def verify_payload(header: FrameHeader, data: bytes) -> bytes:
    """Check the payload and checksum that follow a frame header; returns the payload.

    Raises: CorruptDataError.
    """
    payload = data[: header.payload_bytes]
    if len(data) != header.payload_bytes + _CHECKSUM.size:
        raise CorruptDataError("the frame is cut off")
    if _CHECKSUM.unpack_from(data, header.payload_bytes)[0] != checksum(payload, header.checksum):
        raise CorruptDataError("the payload does not fit its checksum")
    return payload


def unpack_payload(
    header: FrameHeader, data: bytes, keys: Keys | None = None, journal_id: int = 0
) -> GroupRecord:
    """Read the payload and checksum that follow a frame header.

    Raises: CorruptDataError, StartError when a key is missing.
    """
    payload = verify_payload(header, data)
    if header.version == VERSION_ENCRYPTED:
        fixed = _pack_fixed(header.version, header.sequence, header.payload_bytes, header.raw_bytes)
        payload = (keys or Keys.none()).open(fixed, payload, journal_id)
    try:
        raw = zstandard.ZstdDecompressor().decompress(payload, max_output_size=header.raw_bytes)
    except zstandard.ZstdError as error:
        raise CorruptDataError(f"the payload cannot be inflated: {error}") from error
    if len(raw) != header.raw_bytes:
        raise CorruptDataError("the payload is not as long as its header says")
    return _unpack_record(header.sequence, raw)


def _pack_entries(record: GroupRecord) -> bytes:
    if len(record.entries) > ENTRIES_MAX:
        raise PayloadTooLargeError(f"group of {len(record.entries)} requests is above the limit")
    assert sum(entry.length for entry in record.entries) == len(record.body)
    parts = [_COUNT.pack(len(record.entries))]
    for entry in record.entries:
        identity = entry.identity.encode("utf-8", "replace")[:IDENTITY_BYTES_MAX]
        parts.append(
            _ENTRY.pack(
                entry.arrival_ns,
                entry.length,
                entry.wire_bytes,
                len(identity),
                entry.transport,
                _SIGNALS.index(entry.signal),
            )
        )
        parts.append(identity)
    return b"".join(parts)


def _unpack_record(sequence: int, raw: bytes) -> GroupRecord:
    entries: list[Entry] = []
    try:
        (count,) = _COUNT.unpack_from(raw)
        offset = _COUNT.size
        for _ in range(count):
            arrival, length, wire, text_length, transport, signal = _ENTRY.unpack_from(raw, offset)
            offset += _ENTRY.size
            identity = raw[offset : offset + text_length].decode("utf-8", "ignore")
            offset += text_length
            entries.append(
                Entry(
                    arrival_ns=arrival,
                    transport=Transport(transport),
                    identity=identity,
                    length=length,
                    wire_bytes=wire,
                    signal=_SIGNALS[signal],
                )
            )
    except (struct.error, ValueError, IndexError) as error:
        raise CorruptDataError(f"the entry table cannot be read: {error}") from error
    body = raw[offset:]
    if sum(entry.length for entry in entries) != len(body):
        raise CorruptDataError("the bodies are not as long as the entry table says")
    return GroupRecord(sequence=sequence, entries=tuple(entries), body=body)
