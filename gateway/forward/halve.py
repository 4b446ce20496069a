"""Cut a frame of traces in two, for a destination that takes only smaller requests.

Law: both halves together hold every span once, with its resource and scope. This is the slow path:
it runs once per refused frame, on the official protobuf classes.
"""

from typing import Final

import zstandard
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.batch import Frame, Signal
from gateway.errors import CorruptDataError
from gateway.forward.otlp_client import Encoded, inflate

# A destination that refuses even this is not short of room: it means something else.
SPLIT_BYTES_MIN: Final = 16 << 10
ZSTD_LEVEL: Final = 3


def maybe_halves(frame: Encoded) -> tuple[Frame, Frame] | None:
    """Return two frames of half the items each, None when it cannot or should not be cut."""
    if frame.signal is not Signal.TRACES or frame.items < 2 or frame.raw_bytes < SPLIT_BYTES_MIN:
        return None
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(inflate(frame.body, frame.raw_bytes))
    except (DecodeError, CorruptDataError):
        return None
    middle = frame.items // 2
    first, second = _part(request, 0, middle), _part(request, middle, frame.items)
    return _pack(frame, first, middle), _pack(frame, second, frame.items - middle)


def _part(request: ExportTraceServiceRequest, start: int, stop: int) -> ExportTraceServiceRequest:
    """Copy the spans whose running number is in [start, stop)."""
    part = ExportTraceServiceRequest()
    number = 0
    for resource in request.resource_spans:
        resource_copy = None
        for scope in resource.scope_spans:
            low = max(0, start - number)
            chosen = scope.spans[low : max(low, stop - number)]
            number += len(scope.spans)
            if not chosen:
                continue
            if resource_copy is None:
                resource_copy = part.resource_spans.add(schema_url=resource.schema_url)
                resource_copy.resource.CopyFrom(resource.resource)
            scope_copy = resource_copy.scope_spans.add(schema_url=scope.schema_url)
            scope_copy.scope.CopyFrom(scope.scope)
            scope_copy.spans.extend(chosen)
    return part


def _pack(frame: Encoded, request: ExportTraceServiceRequest, items: int) -> Frame:
    raw = request.SerializeToString()
    return Frame(
        signal=frame.signal,
        items=items,
        body=zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(raw),
        raw_bytes=len(raw),
        first_sequence=0,
        last_sequence=0,
    )
