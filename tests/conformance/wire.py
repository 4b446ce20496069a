"""Write protobuf by hand, for what the official classes cannot be made to write.

Source: protobuf.dev, "Encoding".
"""

from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
GROUP_START: Final = 3
GROUP_END: Final = 4
FIXED32: Final = 5

VARINT_BYTES_MAX: Final = 10


def varint(value: int, bytes_min: int = 1) -> bytes:
    """Write a number in groups of seven bits, padded with empty groups up to bytes_min."""
    written = bytearray()
    while value > 0x7F or len(written) + 1 < bytes_min:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def tag(number: int, wire_type: int) -> bytes:
    """Write the tag of a field."""
    return varint(number << 3 | wire_type)


def field(number: int, data: bytes) -> bytes:
    """Write a text, bytes or message field."""
    return tag(number, LENGTH) + varint(len(data)) + data


def number_field(number: int, value: int) -> bytes:
    """Write a varint field."""
    return tag(number, VARINT) + varint(value)


def fixed64_field(number: int, value: int) -> bytes:
    """Write a field of eight bytes."""
    return tag(number, FIXED64) + value.to_bytes(8, "little")


def fixed32_field(number: int, value: int) -> bytes:
    """Write a field of four bytes."""
    return tag(number, FIXED32) + value.to_bytes(4, "little")
