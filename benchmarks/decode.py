"""Decode: the kernel's scan into columns beside the walk over official protobuf objects.

Law: both sides read the same bytes in the same run, and both look at every span and every
attribute value.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.clock import seconds_each
from benchmarks.report import MILLION, Report, Summary, Table, spread, summarize
from benchmarks.traffic import ATTRIBUTES, make_bodies
from gateway.batch import Payload, Signal, Transport
from gateway.contract.plan import STANDARD_KEYS
from gateway.otlp.decode import OpenBatch

SIZES: Final = (1, 8, 64, 512)
# A group commit under load holds a few thousand spans; both sides work through as many at a time.
GROUP_SPANS: Final = 4_096
SEED: Final = 7


def payload(body: bytes, arrival_ns: int = 1_900_000_000_000_000_000) -> Payload:
    """Wrap a body as the intake does."""
    return Payload(
        body=body,
        signal=Signal.TRACES,
        transport=Transport.GRPC,
        identity="",
        arrival_ns=arrival_ns,
        wire_bytes=len(body),
    )


def _scan(bodies: Sequence[bytes]) -> Callable[[], int]:
    open_batch = OpenBatch([key.encode() for key in STANDARD_KEYS])
    payloads = [payload(body) for body in bodies]

    def work() -> int:
        for each in payloads:
            open_batch.add(each)
        return len(open_batch.take(1).spans)

    return work


def _walk(bodies: Sequence[bytes]) -> Callable[[], int]:
    def work() -> int:
        seen = 0
        for body in bodies:
            request = ExportTraceServiceRequest.FromString(body)
            for resource_spans in request.resource_spans:
                for pair in resource_spans.resource.attributes:
                    _visit(pair)
                for scope_spans in resource_spans.scope_spans:
                    for span in scope_spans.spans:
                        _ = (span.trace_id, span.span_id, span.name, span.status.code)
                        _ = (span.start_time_unix_nano, span.end_time_unix_nano)
                        for pair in span.attributes:
                            _visit(pair)
                        seen += 1
        return seen

    return work


def _visit(pair: Any) -> None:
    value = pair.value
    case = value.WhichOneof("value")
    if case is not None:
        _ = (pair.key, getattr(value, case))


def _rates(work: Callable[[], int], spans: int, budget_s: float) -> Summary:
    assert work() == spans
    return summarize([spans / each for each in seconds_each(work, budget_s)])


def run(*, budget_s: float, sizes: Sequence[int] = SIZES) -> Report:
    """Measure all request sizes; `budget_s` is what each of the two sides may use per size."""
    rows, figures = [], {}
    for size in sizes:
        bodies = make_bodies(size, max(1, GROUP_SPANS // size), SEED)
        spans, span_bytes = size * len(bodies), len(bodies[0]) / size
        scan = _rates(_scan(bodies), spans, budget_s)
        walk = _rates(_walk(bodies), spans, budget_s)
        figures[f"{size}"] = {
            "span_bytes": span_bytes,
            "scan_spans_per_s": scan,
            "walk_spans_per_s": walk,
            "ratio": scan.over(walk),
        }
        rows.append(
            (
                f"{size} spans, {len(bodies[0])} B",
                spread(scan),
                f"{scan.median * span_bytes / MILLION:.0f}",
                spread(walk),
                f"{walk.median * span_bytes / MILLION:.0f}",
                f"{scan.over(walk):.1f} x",
            )
        )
    table = Table(
        title=f"Decode, per core: {ATTRIBUTES} attributes a span, groups of {GROUP_SPANS} spans",
        columns=("request", "kernel, spans/s", "MB/s", "protobuf walk, spans/s", "MB/s", "ratio"),
        rows=tuple(rows),
        notes=("median [quartiles] of CPU time; the scan includes copy into the arena and pivot",),
    )
    return Report(tables=(table,), figures=figures)
