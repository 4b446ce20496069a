"""Halves of a frame hold every span once."""

import pytest
import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.batch import Frame, Signal
from gateway.forward.halve import SPLIT_BYTES_MIN, maybe_halves
from tests.unit.forward.servers import frame_of, names_of


def decoded(frame: Frame) -> ExportTraceServiceRequest:
    raw = zstandard.ZstdDecompressor().decompress(frame.body)
    assert len(raw) == frame.raw_bytes
    return ExportTraceServiceRequest.FromString(raw)


def homes(request: ExportTraceServiceRequest) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            span.name,
            resource.resource.attributes[0].value.string_value,
            resource.schema_url,
            scope.scope.name,
            scope.schema_url,
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@pytest.mark.parametrize("count", [2, 3, 4, 7, 13])
def test_both_halves_together_are_the_whole(count: int) -> None:
    whole = frame_of([f"n{index}" for index in range(count)], padding=SPLIT_BYTES_MIN)
    halves = maybe_halves(whole)
    assert halves is not None
    first, second = halves
    assert first.items == count // 2
    assert first.items + second.items == count
    assert len(names_of(decoded(first))) == first.items
    assert homes(decoded(first)) + homes(decoded(second)) == homes(decoded(whole))
    for half in halves:
        for resource in decoded(half).resource_spans:
            assert all(len(scope.spans) for scope in resource.scope_spans)


def test_small_single_foreign_and_damaged_frames_are_not_cut() -> None:
    assert maybe_halves(frame_of(["a", "b"])) is None
    assert maybe_halves(frame_of(["a"], padding=SPLIT_BYTES_MIN)) is None
    large = Span(name="x" * SPLIT_BYTES_MIN).SerializeToString()

    def frame(signal: Signal, body: bytes) -> Frame:
        return Frame(
            signal=signal,
            items=2,
            body=body,
            raw_bytes=len(large),
            first_sequence=1,
            last_sequence=1,
        )

    body = zstandard.ZstdCompressor().compress(large)
    assert maybe_halves(frame(Signal.LOGS, body)) is None
    assert maybe_halves(frame(Signal.TRACES, b"no zstd")) is None
