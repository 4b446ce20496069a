"""The recorder with the real SDK: what the ring holds and what is exported."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from collectors.device import recorder as recorder_module
from collectors.device.recorder import POINTER_KEY, RingSpanProcessor, RingWriter
from collectors.device.ring import Ring
from collectors.device.segment import DATA_OFFSET, Flag


class Kept(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class Bench:
    """A provider with a ring behind it."""

    def __init__(self, directory: Path, queue_records_max: int = 100) -> None:
        self.ring = Ring(directory, now_ns=1, segments=4, segment_bytes=8 * DATA_OFFSET)
        self.writer = RingWriter(lambda: 1_000, queue_records_max=queue_records_max)
        self.kept = Kept()
        self.recorder = RingSpanProcessor(self.ring, self.kept, self.writer)
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.recorder)

    @property
    def tracer(self) -> Tracer:
        return self.provider.get_tracer("test")

    def records(self, trace_id: int) -> list[tuple[list[str], int]]:
        assert self.recorder.force_flush()
        key = trace_id.to_bytes(16, "big")
        return [
            (names(self.ring.read(entry)), entry.flags & ~Flag.COMPRESSED)
            for entry in self.ring.find([key]).get(key, ())
        ]

    def close(self) -> None:
        self.provider.shutdown()
        self.writer.stop()
        self.ring.close()


def names(body: bytes) -> list[str]:
    return [
        span.name
        for resource in TracesData.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_the_full_trace_is_in_the_ring_and_only_the_root_leaves(bench: Bench) -> None:
    with bench.tracer.start_as_current_span("root", attributes={"a": 1}) as root:
        root.add_event("seen")
        with bench.tracer.start_as_current_span("child"):
            pass
    trace_id = root.get_span_context().trace_id
    assert bench.records(trace_id) == [(["child", "root"], Flag.FIRST | Flag.LAST)]
    (sent,) = bench.kept.spans
    assert sent.name == "root"
    assert sent.attributes == {"a": 1, POINTER_KEY: "ring:1/1"}
    assert (len(sent.events), sent.dropped_events) == (0, 1)


def test_a_late_span_follows_as_a_record_of_its_own(bench: Bench) -> None:
    root = bench.tracer.start_span("root")
    late = bench.tracer.start_span("late", context=set_span_in_context(root))
    root.end()
    late.end()
    assert bench.records(root.get_span_context().trace_id) == [
        (["root"], Flag.FIRST),
        (["late"], Flag.LAST),
    ]
    assert [span.name for span in bench.kept.spans] == ["root"]


def test_a_trace_from_elsewhere_does_not_claim_to_begin_here(bench: Bench) -> None:
    remote = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1))
    context = set_span_in_context(NonRecordingSpan(remote))
    bench.tracer.start_span("local root", context=context).end()
    assert bench.records(7) == [(["local root"], 0)]
    assert [span.name for span in bench.kept.spans] == ["local root"]


def test_a_very_long_trace_is_written_in_parts_and_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "SPANS_PER_RECORD_MAX", 4)
    with bench.tracer.start_as_current_span("root") as root:
        for number in range(10):
            bench.tracer.start_span(f"child-{number}").end()
    written = bench.records(root.get_span_context().trace_id)
    assert [flags for _, flags in written] == [Flag.FIRST, 0, Flag.LAST]
    assert len({name for part, _ in written for name in part}) == 11
    assert bench.recorder.counts.null_records == 0


def test_traces_that_never_end_are_bounded_and_still_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "OPEN_TRACES_MAX", 2)
    roots = [bench.tracer.start_span(f"root-{number}") for number in range(3)]
    for root in roots:
        bench.tracer.start_span("child", context=set_span_in_context(root)).end()
    assert len(bench.recorder._open) <= 3
    for root in roots:
        root.end()
        assert bench.records(root.get_span_context().trace_id)
    assert len(bench.kept.spans) == 3


def test_a_full_queue_never_blocks_and_every_loss_is_counted_and_declared(tmp_path: Path) -> None:
    bench = Bench(tmp_path, queue_records_max=1)
    with bench.ring.still():  # the writer waits for the ring, as for a slow disk
        done = threading.Event()

        def infer() -> None:
            for number in range(5):
                bench.tracer.start_span(f"root-{number}").end()
            done.set()

        threading.Thread(target=infer).start()
        assert done.wait(5)
    assert bench.recorder.force_flush()
    bench.recorder.settle(2_000)
    lost = bench.recorder.counts.null_records
    assert lost >= 3
    assert bench.recorder.counts.records + lost == 5
    assert len(bench.kept.spans) == 5
    assert sum(POINTER_KEY not in (span.attributes or {}) for span in bench.kept.spans) == lost
    assert bench.ring.missing_between(1_000, 2_000)
    bench.close()


def test_a_broken_disk_costs_the_record_not_the_export(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(bench.ring, "append", broken)
    root = bench.tracer.start_span("root")
    root.end()
    assert bench.records(root.get_span_context().trace_id) == []
    assert len(bench.kept.spans) == 1
    assert bench.recorder.counts.null_records == 1


def test_a_failed_trace_is_synced_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = threading.Event()
    monkeypatch.setattr(bench.ring, "sync", synced.set)
    root = bench.tracer.start_span("root")
    root.set_status(Status(StatusCode.ERROR))
    root.end()
    assert synced.wait(5)
