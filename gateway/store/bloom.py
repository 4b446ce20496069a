"""A blocked Bloom filter over trace ids, one per segment, in a file beside it.

Law: a trace id that was added is always answered "maybe"; one that was not is answered "maybe" in
at most FALSE_POSITIVE_RATIO_MAX of cases. All bits of one id lie in one block of 64 bytes, so that
a question reads one block and nothing else.
Source: Putze, Sanders, Singler, "Cache-, hash- and space-efficient Bloom filters" (2007).
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from gateway.errors import CorruptDataError
from gateway.tables import UInt8, UInt64

BITS_PER_TRACE: Final = 10
BLOCK_BITS: Final = 512
BLOCK_BYTES: Final = BLOCK_BITS // 8
PROBES: Final = 6  # six positions of nine bits come from one 64-bit hash
# Poisson(51.2) ids share a block: the expectation of (share of set bits)^6 is 0.0105.
FALSE_POSITIVE_RATIO_MAX: Final = 0.015
FILE_BYTES_MAX: Final = 64 << 20

_MAGIC: Final = b"WEIRBLM1"
_HEADER: Final = struct.Struct("<8sII")  # magic, blocks, CRC-32 of the blocks
HEADER_BYTES: Final = _HEADER.size


def _mix(value: UInt64) -> UInt64:
    """Scramble 64 bits. Source: Steele, Lea, Flood, "splitmix64" (2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _places(hi: UInt64, lo: UInt64, blocks: int) -> tuple[UInt64, UInt64]:
    """Choose each id's block and the hash that its bit positions are cut from."""
    first = _mix(hi + _mix(lo + np.uint64(0x9E3779B97F4A7C15)))
    block = ((first >> np.uint64(32)) * np.uint64(blocks)) >> np.uint64(32)
    return block, _mix(first + np.uint64(0x9E3779B97F4A7C15))


def build(hi: UInt64, lo: UInt64) -> bytes:
    """Make the file's bytes from the two words of each distinct trace id."""
    blocks = max(1, -(-len(hi) * BITS_PER_TRACE // BLOCK_BITS))
    block, positions = _places(hi, lo, blocks)
    bits: UInt8 = np.zeros(blocks * BLOCK_BITS, dtype=np.uint8)
    for probe in range(PROBES):
        inside = (positions >> np.uint64(9 * probe)) & np.uint64(BLOCK_BITS - 1)
        bits[block * np.uint64(BLOCK_BITS) + inside] = 1
    body = np.packbits(bits, bitorder="little").tobytes()
    return _HEADER.pack(_MAGIC, blocks, zlib.crc32(body)) + body


@dataclass(frozen=True, slots=True, kw_only=True)
class Bloom:
    """A filter file whose checksum was verified once.

    Raises: CorruptDataError when the file is missing or damaged.
    """

    path: Path
    blocks: int

    @staticmethod
    def open(path: Path) -> "Bloom":
        """Read the whole file once and check it."""
        try:
            with path.open("rb") as file:
                raw = file.read(FILE_BYTES_MAX)
        except OSError as error:
            raise CorruptDataError(f"bloom filter {path.name} is not readable: {error}") from error
        if len(raw) < HEADER_BYTES:
            raise CorruptDataError(f"bloom filter {path.name} is too short")
        magic, blocks, checksum = _HEADER.unpack_from(raw)
        body = memoryview(raw)[HEADER_BYTES:]
        if magic != _MAGIC or len(body) != blocks * BLOCK_BYTES or zlib.crc32(body) != checksum:
            raise CorruptDataError(f"bloom filter {path.name} fails its checksum")
        return Bloom(path=path, blocks=blocks)

    def maybe_holds(self, trace_ids: list[tuple[int, int]]) -> list[bool]:
        """Answer for each (hi, lo) whether the segment may hold the trace."""
        hi = np.array([pair[0] for pair in trace_ids], dtype=np.uint64)
        lo = np.array([pair[1] for pair in trace_ids], dtype=np.uint64)
        block, positions = _places(hi, lo, self.blocks)
        answers: list[bool] = []
        try:
            with self.path.open("rb", buffering=0) as file:
                for index, word in zip(block.tolist(), positions.tolist(), strict=True):
                    file.seek(HEADER_BYTES + index * BLOCK_BYTES)
                    bits = int.from_bytes(file.read(BLOCK_BYTES), "little")
                    answers.append(
                        all(
                            bits >> (word >> 9 * probe & BLOCK_BITS - 1) & 1
                            for probe in range(PROBES)
                        )
                    )
        except OSError as error:
            raise CorruptDataError(
                f"bloom filter {self.path.name} is not readable: {error}"
            ) from error
        return answers
