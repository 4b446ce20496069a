"""Count the items of a request body that nothing else can read.

Law: never raises; what follows a broken length is not counted. It is used for the books only, when
an acknowledged body has to be set aside: refused items that are still in it count as well.
"""

from collections.abc import Iterator
from typing import Final

from gateway.batch import Signal

# Resource, scope, and span or log record: field numbers are the same in both messages.
_ITEM_PATH: Final = (1, 2, 2)
# Gauge, sum, histogram, exponential histogram, summary; each has its points in field 1.
_METRIC_DATA: Final = frozenset({5, 7, 9, 10, 11})
_POINTS: Final = 1
_VARINT_BYTES_MAX: Final = 10
# Bytes of the wire types of fixed length.
_FIXED: Final = {1: 8, 5: 4}


def count_items(signal: Signal, body: bytes) -> int:
    """Count spans, log records or data points."""
    items = [body]
    for number in _ITEM_PATH:
        items = [content for item in items for each, content in _fields(item) if each == number]
    if signal is not Signal.METRICS:
        return len(items)
    return sum(
        sum(number == _POINTS for number, _ in _fields(data))
        for metric in items
        for kind, data in _fields(metric)
        if kind in _METRIC_DATA
    )


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """List the length-delimited fields of a message up to the first that is broken.

    Source: protobuf encoding guide.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                return
            yield tag >> 3, message[at : at + length]
            at += length
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            return


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Read a number; a broken one is longer than any message."""
    value = 0
    for index, byte in enumerate(message[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    return 1 << 63, len(message)
