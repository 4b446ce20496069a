"""The places of a protocol where something may hide, found by its descriptors and not by a list.

Law: a field that the protocol gains is walked, planted in and filled without a change here.
"""

import base64
import math
import random
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

Steps = tuple[FieldDescriptor, ...]

# Ids are structure and leave, but not those of links and exemplars.
STRUCTURE: Final = ("trace_id", "span_id", "parent_span_id")
STRUCTURE_EXCEPTIONS: Final = ("links", "exemplars")
# An AnyValue within an AnyValue: what holds for two levels holds for more.
VALUE_LEVELS: Final = 2
ANY_VALUE: Final = "opentelemetry.proto.common.v1.AnyValue"
UNKNOWN_TAG: Final = 19_000
EDGES: Final = (0.0, -0.0, 0.5, 1.0, -1.0, 1e300, math.nan, math.inf, -math.inf)
CHILDREN_MAX: Final = 2


# --- walking --------------------------------------------------------------------------------------


def text_paths(descriptor: Descriptor, steps: Steps = (), values: int = 0) -> Iterator[Steps]:
    """Walk to every string and bytes field there is."""
    values += descriptor.full_name == ANY_VALUE
    if values > VALUE_LEVELS:
        return
    for field in descriptor.fields:
        if field.message_type is not None:
            yield from text_paths(field.message_type, (*steps, field), values)
        elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            yield (*steps, field)


def message_paths(descriptor: Descriptor, steps: Steps = (), values: int = 0) -> Iterator[Steps]:
    """Walk to every message there is, itself first."""
    values += descriptor.full_name == ANY_VALUE
    if values > VALUE_LEVELS:
        return
    yield steps
    for field in descriptor.fields:
        if field.message_type is not None:
            yield from message_paths(field.message_type, (*steps, field), values)


def is_structure(path: Steps) -> bool:
    """Say whether a path leads to an id that leaves."""
    names = {field.name for field in path}
    return path[-1].name in STRUCTURE and not names & set(STRUCTURE_EXCEPTIONS)


def name_of(path: Steps) -> str:
    """Write a path for a person."""
    return ".".join(field.name for field in path)


def reach(message: Any, path: Steps) -> Any:
    """Make every message on the way; returns the last one."""
    for field in path:
        child = getattr(message, field.name)
        if field.is_repeated:
            child = child[0] if len(child) else child.add()
        else:
            child.SetInParent()
        message = child
    return message


def put_at(message: Any, path: Steps, value: bytes) -> None:
    """Write a text at the end of a path."""
    owner, field = reach(message, path[:-1]), path[-1]
    content = value if field.type == field.TYPE_BYTES else value.decode()
    if field.is_repeated:
        getattr(owner, field.name).append(content)
    else:
        setattr(owner, field.name, content)


def fields_of(message: Message) -> Iterator[tuple[str, Any]]:
    """Walk the fields that are set, with the texts and numbers they hold."""
    for field, content in message.ListFields():
        for each in content if field.is_repeated else (content,):
            yield field.full_name, None if isinstance(each, Message) else each
            if isinstance(each, Message):
                yield from fields_of(each)


# --- unknown fields -------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def unknown_fields(value: bytes) -> bytes:
    """Encode a value of 16 bytes as fields that no version knows, of each wire type."""
    tag = UNKNOWN_TAG << 3
    return b"".join(
        (
            _varint(tag | 2) + _varint(len(value)) + value,
            *(_varint(tag + 8 | 1) + value[at : at + 8] for at in (0, 8)),
            *(_varint(tag + 16 | 5) + value[at : at + 4] for at in (0, 4, 8, 12)),
            _varint(tag + 24) + _varint(int.from_bytes(value[:8], "little")),
        )
    )


def add_unknown(message: Message, value: bytes) -> None:
    """Give every message of a tree unknown fields; parsing and copying keep them."""
    message.MergeFromString(unknown_fields(value))
    for field, content in message.ListFields():
        if field.message_type is not None:
            for child in content if field.is_repeated else (content,):
                add_unknown(child, value)


# --- what to look for -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Needles:
    """One random value in all the shapes that it could leave in."""

    raw: bytes

    @property
    def text(self) -> str:
        """The value as a text that no rule knows."""
        return self.raw.hex()

    @property
    def shapes(self) -> Mapping[str, bytes]:
        """Every way of writing it, by name."""
        text = self.text
        return {
            "raw": self.raw,
            "first half": self.raw[:8],
            "second half": self.raw[8:],
            "hex": text.encode(),
            "upper hex": text.upper().encode(),
            "part": text[3:19].encode(),
            "reversed": text[::-1].encode(),
            "base64": base64.b64encode(self.raw).rstrip(b"="),
            "base64 of hex": base64.b64encode(text.encode()).rstrip(b"="),
        }

    def found_in(self, content: bytes) -> list[str]:
        """Name the shapes that occur."""
        return [name for name, shape in self.shapes.items() if shape in content]


# --- filling --------------------------------------------------------------------------------------

# Texts to draw from, by the name of their field.
Words = Mapping[str, Sequence[str]]


def fill(message: Any, rng: random.Random, words: Words, values: int = 0) -> None:
    """Give a message any content: each field at random, one field of each oneof."""
    values += message.DESCRIPTOR.full_name == ANY_VALUE
    chosen = {
        group.name: rng.choice(group.fields).name
        for group in message.DESCRIPTOR.oneofs
        if len(group.fields) > 1
    }
    for field in message.DESCRIPTOR.fields:
        group = field.containing_oneof
        if group is not None and len(group.fields) > 1 and chosen[group.name] != field.name:
            continue
        if rng.random() < 0.8:
            fill_field(message, field, rng, words, values)


def fill_field(
    message: Any, field: FieldDescriptor, rng: random.Random, words: Words, values: int = 0
) -> None:
    """Give one field any content."""
    if field.message_type is not None:
        if field.message_type.full_name == ANY_VALUE and values >= VALUE_LEVELS:
            return
        if not field.is_repeated:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), rng, words, values)
            return
        for _ in range(rng.randint(0, CHILDREN_MAX)):
            fill(getattr(message, field.name).add(), rng, words, values)
    elif field.is_repeated:
        for _ in range(rng.randint(0, CHILDREN_MAX)):
            getattr(message, field.name).append(_scalar(field, rng, words))
    else:
        setattr(message, field.name, _scalar(field, rng, words))


def _scalar(field: FieldDescriptor, rng: random.Random, words: Words) -> Any:
    kind = field.cpp_type
    if field.type == FieldDescriptor.TYPE_BYTES:
        size = {"trace_id": 16, "span_id": 8}.get(field.name, 12)
        return rng.choice((rng.randbytes(size), bytes(size), rng.randbytes(size + 1), b""))
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice((*words.get(field.name, ()), "", f"text {rng.getrandbits(32):x}"))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        odd_nan = struct.unpack("<d", b"\1\2\3\4\5\6\xf8\xff")[0]
        return rng.choice((*EDGES, odd_nan, rng.random()))
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        numbers = [each.number for each in field.enum_type.values] if field.enum_type else []
        return rng.choice((*numbers, 77))
    bits = 64 if kind in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64) else 32
    if kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64):
        return rng.choice((0, 1, 2, rng.getrandbits(bits)))
    return rng.choice((0, 1, -1, 42, rng.getrandbits(bits - 1), -rng.getrandbits(bits - 1)))
