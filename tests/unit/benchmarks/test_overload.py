"""The overload run counts what stock exporters say, and fails when a promise was broken."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult

from benchmarks import overload
from benchmarks.exporters import Device, Watched
from benchmarks.overload import BrokenPromiseError, check_promises, memory_of
from tests.sink import Refusal, otlp_sink

MEBI = 1 << 20


class Collect(SimpleSpanProcessor):
    """Keeps ended spans."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)

    def shutdown(self) -> None:
        """Have nothing to end."""


def some_spans(count: int) -> Sequence[ReadableSpan]:
    provider, kept = TracerProvider(shutdown_on_exit=False), Collect()
    provider.add_span_processor(kept)
    for _ in range(count):
        provider.get_tracer("test").start_span("inference").end()
    return kept.spans


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_exporter_is_only_watched(transport: str) -> None:
    device = Device()
    with otlp_sink() as sink:
        address = sink.grpc_address if transport == "grpc" else sink.http_url.partition("//")[2]
        exporter = Watched(transport, address, device)
        assert exporter.export(some_spans(3)) is SpanExportResult.SUCCESS
        # Longer than the exporter allows in all, so that it gives up at once.
        sink.refuse(Refusal(retry_after_s=60), count=1)
        exporter.export(some_spans(2))
        sink.refuse(Refusal(http_status=400, grpc_code=3), count=1)
        assert exporter.export(some_spans(5)) is SpanExportResult.FAILURE
        exporter.shutdown()
        body_bytes = [len(request.body) for request in sink.requests]
    assert device.accepted_bytes == sum(body_bytes) < device.sent_bytes
    assert device.unanswered == 0 or transport == "grpc"
    if transport == "grpc":
        assert (device.answers["gRPC INVALID_ARGUMENT"], device.answers["gRPC OK"]) == (1, 2)
    else:
        assert device.answers == {"HTTP 200": 1, "HTTP 503, hint": 1, "HTTP 400": 1}
        assert (device.exported, device.given_up) == (3, 7)


def test_final_refusal_and_missing_spans_break_the_promise() -> None:
    good = Device(exported=10, unanswered=5, answers={"gRPC OK": 2, "HTTP 503, hint": 9})
    for received in (10, 15):
        check_promises(good, received)
    for received in (9, 16):
        with pytest.raises(BrokenPromiseError, match="received"):
            check_promises(good, received)
    for said in ("HTTP 400", "HTTP 413", "gRPC INTERNAL", "gRPC RESOURCE_EXHAUSTED"):
        with pytest.raises(BrokenPromiseError, match="for good"):
            check_promises(Device(answers={said: 1}), 0)
    check_promises(Device(answers={"gRPC RESOURCE_EXHAUSTED, hint": 1}), 0)


def test_memory_is_told_at_three_times_with_its_slope() -> None:
    seconds = np.arange(0, 120, 0.5)
    flat = memory_of([(at, 100 * MEBI) for at in seconds])
    assert (flat.rss_start, flat.rss_middle, flat.rss_end) == (100 * MEBI,) * 3
    assert abs(flat.slope_per_minute) < 1
    rising = memory_of([(at, int((100 + at / 6) * MEBI)) for at in seconds])
    assert rising.slope_per_minute == pytest.approx(10 * MEBI, rel=1e-3)
    assert rising.rss_start < rising.rss_middle < rising.rss_end


@pytest.mark.flow
def test_overloaded_gateway_keeps_its_promises() -> None:
    report = overload.run(run_s=3.0, calibrate_s=2.0, processes=2)
    figures = report.figures
    total = figures["total"]
    answers = Counter(total["answers"]) + Counter(figures["closed_loop"]["answers"])
    # In the closed loop eight batches come at once, and the gateway may hold four.
    assert answers["gRPC UNAVAILABLE, hint"] + answers["HTTP 503, hint"] > 0
    assert figures["received"] >= total["exported"] > 0
    assert figures["queue_dropped"] >= 0
    assert len(report.tables) == 2
