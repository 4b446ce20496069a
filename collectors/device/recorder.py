"""The recorder: every full trace goes to the ring, only its compact root goes to the exporter.

Law: the instrumented thread never waits for the disk or the network. It puts records on a bounded
queue; when that is full the spans are null records, counted and declared in the ring, and the root
is exported without a pointer. A record is in the ring before a pointer to it can leave the device.

A trace is written when its local root ends. Spans that end later follow as records of their own;
since OTLP messages may be concatenated, all records of a trace together are one OTLP message.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import SpanContext, StatusCode

from collectors.device.ring import Pointer, Ring
from collectors.device.segment import TRACE_ID_BYTES

POINTER_KEY: Final = "edgeai.provenance.pointer"
OPEN_TRACES_MAX: Final = 1_024
SPANS_PER_RECORD_MAX: Final = 512
QUEUE_RECORDS_MAX: Final = 4_096
SYNC_S: Final = 1.0
STOP_TIMEOUT_S: Final = 10.0


@dataclass(slots=True)
class RecorderCounts:
    """What one recorder did; `null_records` counts spans that reached no ring."""

    spans: int = 0
    records: int = 0
    roots: int = 0
    null_records: int = 0


@dataclass(slots=True)
class _OpenTrace:
    """Spans of one trace; `begun_here` when the root of the whole trace is on this device."""

    begun_here: bool
    running: int = 0
    whole: bool = True
    records: int = 0
    ended: list[ReadableSpan] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What the writer puts into the ring; the root is exported with the pointer afterwards."""

    spans: list[ReadableSpan]
    root: ReadableSpan | None
    first: bool
    last: bool


class RingWriter:
    """The thread that encodes and writes; several recorders may share one.

    Units: clock gives Unix nanoseconds; sync_s is how long a record may be at risk of power loss.
    """

    def __init__(
        self,
        clock: Callable[[], int] = time.time_ns,
        *,
        queue_records_max: int = QUEUE_RECORDS_MAX,
        sync_s: float = SYNC_S,
    ) -> None:
        self._clock = clock
        self._sync_s = sync_s
        self._queue: Queue[_Job] = Queue(queue_records_max)
        self._recorders: tuple[RingSpanProcessor, ...] = ()
        self._thread = threading.Thread(target=self._run, name="ring-writer", daemon=True)
        self._thread.start()

    def join(self, recorder: "RingSpanProcessor") -> None:
        """Look after a recorder's ring from now on."""
        self._recorders += (recorder,)

    def leave(self, recorder: "RingSpanProcessor") -> None:
        """Stop looking after a recorder's ring, which may be closed after this."""
        self._recorders = tuple(one for one in self._recorders if one is not recorder)

    def now_ns(self) -> int:
        """Read the clock that stamps records."""
        return self._clock()

    def offer(self, recorder: "RingSpanProcessor", record: _Record) -> bool:
        """Take a record unless the queue is full; never waits."""
        try:
            self._queue.put_nowait((recorder, record))
        except Full:
            return False
        return True

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything offered before is in the ring."""
        reached = threading.Event()
        try:
            self._queue.put(reached, timeout=timeout_s)
        except Full:
            return False
        return reached.wait(timeout_s)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Write what is queued and end the thread."""
        if self._thread.is_alive():
            self._queue.put(None, timeout=timeout_s)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        due_s = time.monotonic() + self._sync_s
        running = True
        while running:
            with suppress(Empty):
                running = self._do(self._queue.get(timeout=max(0.0, due_s - time.monotonic())))
            if time.monotonic() >= due_s or not running:
                for recorder in self._recorders:
                    recorder.settle(self._clock())
                due_s = time.monotonic() + self._sync_s

    def _do(self, job: "_Job") -> bool:
        if job is None:
            return False
        if isinstance(job, threading.Event):
            job.set()
        else:
            recorder, record = job
            recorder.write(record, self._clock())
        return True


class RingSpanProcessor(SpanProcessor):
    """Record full traces in a ring and hand compact roots to the wrapped processor."""

    def __init__(self, ring: Ring, exporting: SpanProcessor, writer: RingWriter) -> None:
        self._ring = ring
        self._exporting = exporting
        self._writer = writer
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _OpenTrace] = OrderedDict()
        self._undeclared = False
        self._settled_ns = writer.now_ns()
        self._dirty = False
        self.counts = RecorderCounts()
        writer.join(self)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Count a running span, so that the end of the trace is known."""
        context = span.get_span_context()
        if context is None:
            return
        with self._lock:
            trace = self._open.get(context.trace_id)
            if trace is None:
                trace = _OpenTrace(begun_here=span.parent is None)
                self._open[context.trace_id] = trace
            trace.running += 1
            stale = self._open.popitem(last=False)[1] if self._over() else None
            if stale is not None:
                self._offer(stale, None, last=False)

    def on_end(self, span: ReadableSpan) -> None:
        """Keep an ended span, and hand the trace over when its local root has ended."""
        context = span.get_span_context()
        if context is None:
            return
        is_root = span.parent is None or span.parent.is_remote
        with self._lock:
            self.counts.spans += 1
            trace = self._open.get(context.trace_id)
            if trace is None:
                # Its trace was given up because too many were open.
                trace = _OpenTrace(begun_here=False, running=1)
            trace.running -= 1
            trace.ended.append(span)
            over = trace.running <= 0
            if is_root or over or len(trace.ended) >= SPANS_PER_RECORD_MAX:
                self._offer(trace, span if is_root else None, last=over)
            if over:
                self._open.pop(context.trace_id, None)

    def write(self, record: _Record, now_ns: int) -> None:
        """Put a record into the ring and export its root; runs in the writer's thread."""
        context = record.spans[0].get_span_context()
        assert context is not None
        payload = encode_spans(record.spans).SerializeToString()
        pointer: Pointer | None = None
        try:
            pointer = self._ring.append(
                context.trace_id.to_bytes(TRACE_ID_BYTES, "big"),
                payload,
                written_ns=now_ns,
                first=record.first,
                last=record.last,
            )
            self._dirty = True
            if any(span.status.status_code is StatusCode.ERROR for span in record.spans):
                self._ring.sync()
        except OSError:
            pointer = None
        with self._lock:
            if pointer is None:
                self._lose(len(record.spans))
            else:
                self.counts.records += 1
        if record.root is not None:
            self._export(record.root, pointer)

    def settle(self, now_ns: int) -> None:
        """Declare null records and sync the ring; runs in the writer's thread."""
        with self._lock:
            undeclared, self._undeclared = self._undeclared, False
            dirty, self._dirty = self._dirty, False
        try:
            if undeclared:
                self._ring.declare_lost(self._settled_ns, now_ns)
            if dirty:
                self._ring.sync()
            self._settled_ns = now_ns
        except OSError:
            with self._lock:
                self._undeclared |= undeclared
                self._dirty |= dirty

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write everything to the ring, then flush the wrapped processor."""
        begin_s = time.monotonic()
        written = self._writer.flush(timeout_millis / 1e3)
        left_s = timeout_millis / 1e3 - (time.monotonic() - begin_s)
        return written and self._exporting.force_flush(max(1, int(left_s * 1e3)))

    def shutdown(self) -> None:
        """Write everything and shut the wrapped processor down; the ring stays its owner's."""
        self._writer.flush(STOP_TIMEOUT_S)
        self._writer.leave(self)
        self._exporting.shutdown()

    def _over(self) -> bool:
        return len(self._open) > OPEN_TRACES_MAX

    def _offer(self, trace: _OpenTrace, root: ReadableSpan | None, *, last: bool) -> None:
        spans, trace.ended = trace.ended, []
        if not spans:
            return
        record = _Record(
            spans=spans,
            root=root,
            first=trace.begun_here and trace.records == 0,
            last=last and trace.begun_here and trace.whole,
        )
        trace.records += 1
        if self._writer.offer(self, record):
            return
        trace.whole = False
        self._lose(len(spans))
        if root is not None:
            self._export(root, None)

    def _lose(self, spans: int) -> None:
        self.counts.null_records += spans
        self._undeclared = True

    def _export(self, root: ReadableSpan, pointer: Pointer | None) -> None:
        self.counts.roots += 1
        self._exporting.on_end(compact(root, pointer))


# A record to write, a moment to tell that all before it is written, or the end.
_Job = tuple[RingSpanProcessor, _Record] | threading.Event | None


def compact(root: ReadableSpan, pointer: Pointer | None) -> ReadableSpan:
    """Copy a root span without its events and with a pointer to the full trace.

    The events count as dropped on the wire, so that a reader sees that there were some.
    """
    attributes = dict(root.attributes or {})
    if pointer is not None:
        attributes[POINTER_KEY] = str(pointer)
    events: BoundedList[Event] = BoundedList(0)
    events.dropped = root.dropped_events + len(root.events)
    context: SpanContext | None = root.get_span_context()
    return ReadableSpan(
        name=root.name,
        context=context,
        parent=root.parent,
        resource=root.resource,
        attributes=attributes,
        events=events,
        links=root.links,
        kind=root.kind,
        status=root.status,
        start_time=root.start_time,
        end_time=root.end_time,
        instrumentation_scope=root.instrumentation_scope,
    )
