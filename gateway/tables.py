"""The tables that a batch is made of: one numpy structured array each.

Law: a field's name, dtype and unit are written here once, and the kernel checks at import that its
C structs agree. Text is never a Python object on the way: it is an (offset, length) pair into the
byte arena that travels with the table.
"""

from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Table = NDArray[np.void]
Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
UInt32 = NDArray[np.uint32]
UInt64 = NDArray[np.uint64]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

# Ids are integers here: the 16 bytes of a trace id are two big-endian words, a span id is one,
# and a parent of 0 means that there is none. All times are Unix nanoseconds.
SPAN: Final = np.dtype(
    [
        ("trace_hi", "<u8"),
        ("trace_lo", "<u8"),
        ("span_id", "<u8"),
        ("parent_id", "<u8"),
        ("start_ns", "<u8"),
        ("end_ns", "<u8"),
        ("name_offset", "<u4"),
        ("name_length", "<u4"),
        ("state_offset", "<u4"),  # W3C tracestate text
        ("state_length", "<u4"),
        ("message_offset", "<u4"),  # status message text
        ("message_length", "<u4"),
        ("flags", "<u4"),
        ("kind", "<i4"),  # enum number as sent
        ("status", "<i4"),  # enum number as sent: 0 unset, 1 ok, 2 error
        ("dropped_attributes", "<u4"),
        ("dropped_events", "<u4"),
        ("dropped_links", "<u4"),
        ("resource", "<i4"),  # row in `resources`
        ("scope", "<i4"),  # row in `scopes`
        ("request", "<i4"),  # row in `requests`
        ("attribute_first", "<i4"),  # rows [first, first + count) of `span_attributes`
        ("attribute_count", "<i4"),
        ("event_first", "<i4"),
        ("event_count", "<i4"),
        ("link_first", "<i4"),
        ("link_count", "<i4"),
        ("padding", "<u4"),
    ]
)


class ValueKind(IntEnum):
    """What an attribute value is, with the field numbers of `AnyValue`; EMPTY is no value."""

    EMPTY = 0
    STRING = 1
    BOOL = 2
    INT = 3
    DOUBLE = 4
    ARRAY = 5
    KVLIST = 6
    BYTES = 7


ATTRIBUTE: Final = np.dtype(
    [
        ("number", "<u8"),  # bits of an int64, a double or a bool
        ("owner", "<i4"),  # row in the table that owns the attribute
        ("key", "<i4"),  # interned key, -1 when the key table was full
        ("offset", "<u4"),  # text or bytes; for ARRAY and KVLIST the whole AnyValue message
        ("length", "<u4"),
        ("raw_offset", "<u4"),  # the KeyValue message as received
        ("raw_length", "<u4"),
        ("kind", "<i4"),  # ValueKind
        ("padding", "<u4"),
    ]
)

RESOURCE: Final = np.dtype(
    [
        ("attribute_first", "<i4"),
        ("attribute_count", "<i4"),
        ("dropped_attributes", "<u4"),
        ("schema_offset", "<u4"),
        ("schema_length", "<u4"),
        ("padding", "<u4"),
    ]
)

SCOPE: Final = np.dtype(
    [
        ("name_offset", "<u4"),
        ("name_length", "<u4"),
        ("version_offset", "<u4"),
        ("version_length", "<u4"),
        ("schema_offset", "<u4"),
        ("schema_length", "<u4"),
        ("attribute_first", "<i4"),
        ("attribute_count", "<i4"),
        ("dropped_attributes", "<u4"),
        ("padding", "<u4"),
    ]
)

EVENT: Final = np.dtype(
    [
        ("time_ns", "<u8"),
        ("span", "<i4"),
        ("name_offset", "<u4"),
        ("name_length", "<u4"),
        ("attribute_first", "<i4"),
        ("attribute_count", "<i4"),
        ("dropped_attributes", "<u4"),
        ("raw_offset", "<u4"),  # the Event message as received
        ("raw_length", "<u4"),
    ]
)

LINK: Final = np.dtype(
    [
        ("trace_hi", "<u8"),
        ("trace_lo", "<u8"),
        ("span_id", "<u8"),
        ("span", "<i4"),
        ("state_offset", "<u4"),
        ("state_length", "<u4"),
        ("flags", "<u4"),
        ("attribute_first", "<i4"),
        ("attribute_count", "<i4"),
        ("dropped_attributes", "<u4"),
        ("raw_offset", "<u4"),
        ("raw_length", "<u4"),
        ("padding", "<u4"),
    ]
)

REQUEST: Final = np.dtype(
    [
        ("arrival_ns", "<u8"),
        ("body_offset", "<u4"),  # the inflated body, in the arena
        ("body_length", "<u4"),
        ("spans", "<u4"),  # accepted
        ("rejected", "<u4"),  # refused one by one, see `otlp.decode`
        ("identity", "<i4"),  # index into `Batch.identities`
        ("transport", "<i4"),  # Transport
        ("wire_bytes", "<u4"),  # as received, before inflation
        ("padding", "<u4"),
    ]
)

MISSING: Final = -1
DUPLICATE: Final = -2

NO_THRESHOLD: Final = (1 << 64) - 1
NO_RANDOMNESS: Final = (1 << 64) - 1

CLEAN_SPAN: Final = np.dtype(
    [
        ("trace_hi", "<u8"),
        ("trace_lo", "<u8"),
        ("span_id", "<u8"),
        ("parent_id", "<u8"),
        ("start_ns", "<u8"),
        ("end_ns", "<u8"),
        ("threshold", "<u8"),  # NO_THRESHOLD writes no `th`
        ("randomness", "<u8"),  # NO_RANDOMNESS writes no `rv`
        ("name_offset", "<u4"),
        ("name_length", "<u4"),
        ("message_offset", "<u4"),
        ("message_length", "<u4"),
        ("fields_offset", "<u4"),  # Span fields that are already encoded, e.g. attributes
        ("fields_length", "<u4"),
        ("flags", "<u4"),
        ("kind", "<i4"),
        ("status", "<i4"),
        ("resource", "<i4"),  # row in Clean.resources
        ("scope", "<i4"),  # row in Clean.scopes
        ("padding", "<u4"),
    ]
)

# An encoded `Resource` or `InstrumentationScope` message in Clean.text.
EXTENT: Final = np.dtype([("offset", "<u4"), ("length", "<u4")])
