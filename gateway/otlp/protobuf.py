"""The few protobuf bytes that Python writes: once per resource, scope or part, never per span.

Source: protobuf encoding guide.
"""


def varint(value: int) -> bytes:
    """Encode a length."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(tag: int, content: bytes) -> bytes:
    """Encode a length-delimited field with a one-byte tag."""
    return bytes((tag,)) + varint(len(content)) + content


def key_value(key: bytes, text: bytes) -> bytes:
    """Encode a KeyValue message whose value is a string."""
    return field(0x0A, key) + field(0x12, field(0x0A, text))
