"""Official messages of all signals, drawn from their descriptors, and the slow oracle of screening.

Law: the oracle looks at official objects only. Text that is not UTF-8 cannot stand in one, so it is
planted: a message carries MARK, and `plant` turns that into invalid bytes of the same length.
"""

import math
import random
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.batch import Signal
from gateway.otlp.schemas import REQUESTS

MARK: Final = "\x7f~mark~\x7f"
DEVICE: Final = "edge-1"
OTHER_DEVICE: Final = "edge-2"
ITEMS: Final = frozenset(
    {"Span", "LogRecord", "NumberDataPoint", "HistogramDataPoint", "SummaryDataPoint"}
    | {"ExponentialHistogramDataPoint"}
)
CARRIERS: Final = frozenset(
    {"ResourceSpans", "ScopeSpans", "ResourceLogs", "ScopeLogs", "ResourceMetrics", "ScopeMetrics"}
    | {"Metric", "Gauge", "Sum", "Histogram", "ExponentialHistogram", "Summary"}
)
ID_BYTES: Final[Mapping[str, int]] = MappingProxyType(
    {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
)
PROFILES_ONLY: Final = frozenset({"key_strindex", "string_value_strindex"})
NESTED_MAX: Final = 4
INTEGERS: Final[Mapping[int, tuple[int, int]]] = MappingProxyType(
    {
        FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
        FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
        FieldDescriptor.TYPE_ENUM: (-(2**31), 2**31 - 1),
        FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
        FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
        FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
        FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
        FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
        FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
    }
)
TEXTS: Final = ("", "a", "größe", '😀\x00\n"\\/', "k" * 130, "model", "\u2028</script>")
DOUBLES: Final = (0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308)


# --- drawing --------------------------------------------------------------------------------


def draw(rng: random.Random, signal: Signal, *, marked: bool = False, legal: bool = False) -> Any:
    """Draw a request; `marked` plants MARK here and there, `legal` leaves all ids legal."""
    request = REQUESTS[signal]()
    _fill(rng, request, marks=0.02 if marked else 0.0, legal=legal, nested=0)
    return request


def _fill(rng: random.Random, message: Any, *, marks: float, legal: bool, nested: int) -> None:
    descriptor: Descriptor = message.DESCRIPTOR
    carries = descriptor.name in CARRIERS or descriptor.name.startswith("Export")
    nested += descriptor.name == "AnyValue"
    taken = set()
    for field in rng.sample(list(descriptor.fields), len(descriptor.fields)):
        likely = 0.9 if carries or field.name in ID_BYTES else 0.35
        if legal and field.name in ID_BYTES:
            likely = 1.0
        if field.name in PROFILES_ONLY or rng.random() > likely:
            continue
        oneof = field.containing_oneof
        if oneof is not None and oneof.name in taken:
            continue
        if nested > NESTED_MAX and field.message_type is not None:
            continue
        if oneof is not None:
            taken.add(oneof.name)
        for _ in range(rng.randrange(4 if carries else 3) if field.is_repeated else 1):
            if field.message_type is None:
                value = _scalar(rng, field, marks, legal)
                if field.is_repeated:
                    getattr(message, field.name).append(value)
                else:
                    setattr(message, field.name, value)
                continue
            child = getattr(message, field.name)
            child = child.add() if field.is_repeated else child
            child.SetInParent()
            _fill(rng, child, marks=marks, legal=legal, nested=nested)
    if descriptor.name == "Resource" and rng.random() < 0.3:
        pair = message.attributes.add(key="device.id")
        pair.value.string_value = rng.choice((DEVICE, DEVICE, OTHER_DEVICE))


def _scalar(rng: random.Random, field: FieldDescriptor, marks: float, legal: bool) -> Any:
    if field.name in ID_BYTES:
        size = ID_BYTES[field.name]
        if legal:
            return b"\x01" + rng.randbytes(size - 1)
        if rng.random() < 0.03:
            return bytes(size)
        return rng.randbytes(size if rng.random() < 0.9 else rng.randrange(size + 2))
    if field.type == FieldDescriptor.TYPE_STRING:
        return rng.choice(TEXTS) + (MARK if rng.random() < marks else "")
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.randbytes(rng.randrange(9))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        if rng.random() < 0.5:
            return rng.choice(DOUBLES)
        (value,) = struct.unpack("<d", rng.randbytes(8))
        return math.nan if math.isnan(value) else value
    low, high = INTEGERS[field.type]
    return rng.choice((0, 1, low, high, rng.randint(low, high)))


def plant(body: bytes) -> bytes:
    """Turn each MARK into bytes that are not UTF-8."""
    mark = MARK.encode()
    return body.replace(mark, b"\xff" + mark[1:])


# --- what screening has to do ---------------------------------------------------------------


def plain(message: Any) -> bytes:
    """Return a message as comparable bytes; NaN is equal to itself."""
    return bytes(message.SerializeToString(deterministic=True))


def count(message: Any) -> int:
    """Count the items below a message."""
    if message.DESCRIPTOR.name in ITEMS:
        return 1
    return sum(count(child) for child in _below(message))


def _below(message: Any) -> list[Any]:
    """List the carriers and items that stand directly in a message."""
    found: list[Any] = []
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is not None and kind.name in CARRIERS | ITEMS:
            found.extend(value if field.is_repeated else [value])
    return found


def sift(message: Any, device: str = "") -> int:
    """Remove from a request what has to be refused; returns the count of items that went."""
    gone = 0
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None or kind.name not in CARRIERS | ITEMS:
            continue
        if not field.is_repeated:
            gone += sift(value, device)
            continue
        kept = []
        for child in value:
            if (is_refused if kind.name in ITEMS else is_condemned)(child, device):
                gone += count(child)
            else:
                gone += 0 if kind.name in ITEMS else sift(child, device)
                kept.append(type(child).FromString(child.SerializeToString()))
        message.ClearField(field.name)
        getattr(message, field.name).extend(kept)
    return gone


def is_condemned(carrier: Any, device: str) -> bool:
    """Say whether all items below a carrier go, for what stands around them."""
    around = type(carrier)()
    around.CopyFrom(carrier)
    for field, _ in carrier.ListFields():
        if field.message_type is not None and field.message_type.name in CARRIERS | ITEMS:
            around.ClearField(field.name)
    if MARK.encode() in plain(around):
        return True
    if not device or "resource" not in carrier.DESCRIPTOR.fields_by_name:
        return False
    return any(
        pair.key == "device.id"
        and (pair.value.WhichOneof("value") != "string_value" or pair.value.string_value != device)
        for pair in carrier.resource.attributes
    )


def is_refused(item: Any, device: str = "") -> bool:
    """Say whether an item goes for what stands in it."""
    if MARK.encode() in plain(item):
        return True
    name = item.DESCRIPTOR.name
    if name == "Span":
        ids = (item.trace_id, 16), (item.span_id, 8)
        parent = len(item.parent_span_id) in (0, 8)
        return not parent or any(len(value) != n or not any(value) for value, n in ids)
    holders = [item] if name == "LogRecord" else list(getattr(item, "exemplars", ()))
    return any(len(h.trace_id) not in (0, 16) or len(h.span_id) not in (0, 8) for h in holders)
