"""Cut a frame in two, for a destination that takes only smaller requests.

Law: both halves together hold every item once, in order, with its resource, scope and metric. This
is the slow path: it runs once per refused frame, on the official protobuf classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import zstandard
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.batch import Frame, Signal
from gateway.errors import CorruptDataError
from gateway.forward.otlp_client import Encoded, inflate

# A destination that refuses even this is not short of room: it means something else.
SPLIT_BYTES_MIN: Final = 16 << 10
ZSTD_LEVEL: Final = 3

# The repeated fields that lead from a request to its items; metrics have points of five kinds.
_PATHS: Final[Mapping[Signal, tuple[type[Any], tuple[str, ...]]]] = {
    Signal.TRACES: (ExportTraceServiceRequest, ("resource_spans", "scope_spans", "spans")),
    Signal.METRICS: (
        ExportMetricsServiceRequest,
        ("resource_metrics", "scope_metrics", "metrics", "data_points"),
    ),
    Signal.LOGS: (ExportLogsServiceRequest, ("resource_logs", "scope_logs", "log_records")),
}


@dataclass(slots=True)
class _Cut:
    """Which items stay in a part, and the running number of the next one."""

    start: int
    stop: int
    number: int = 0


def maybe_halves(frame: Encoded) -> tuple[Frame, Frame] | None:
    """Return two frames of half the items each, None when it cannot or should not be cut."""
    if frame.items < 2 or frame.raw_bytes < SPLIT_BYTES_MIN:
        return None
    kind, path = _PATHS[frame.signal]
    request = kind()
    try:
        request.ParseFromString(inflate(frame.body, frame.raw_bytes))
    except (DecodeError, CorruptDataError):
        return None
    middle = frame.items // 2
    first, count = _part(request, path, 0, middle)
    second, _ = _part(request, path, middle, frame.items)
    if count != frame.items:
        return None  # it is not what it says, and halves would not be either
    return _pack(frame, first, middle), _pack(frame, second, frame.items - middle)


def _part(request: Any, path: tuple[str, ...], start: int, stop: int) -> tuple[Any, int]:
    """Copy a request with only the items whose running number is in [start, stop); count all."""
    part, cut = type(request)(), _Cut(start, stop)
    part.CopyFrom(request)
    _keep(part, path, cut)
    return part, cut.number


def _keep(message: Any, path: tuple[str, ...], cut: _Cut) -> bool:
    """Delete the other items below a message, and what holds none; says whether any stays."""
    if path[0] == "data_points":
        kind = message.WhichOneof("data")
        if kind is None:
            return False
        message = getattr(message, kind)
    children = getattr(message, path[0])
    if len(path) == 1:
        low = max(0, cut.start - cut.number)
        high = max(low, cut.stop - cut.number)
        cut.number += len(children)
        del children[high:]
        del children[:low]
    else:
        empty = [at for at, child in enumerate(children) if not _keep(child, path[1:], cut)]
        for at in reversed(empty):
            del children[at]
    return len(children) > 0


def _pack(frame: Encoded, request: Any, items: int) -> Frame:
    raw = request.SerializeToString()
    return Frame(
        signal=frame.signal,
        items=items,
        body=zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(raw),
        raw_bytes=len(raw),
        first_sequence=0,
        last_sequence=0,
    )
