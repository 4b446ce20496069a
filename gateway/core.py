"""The core thread: batches in, one at a time; frames, rows and checkpoints out.

Law: the state of the core depends only on the sequence of batches, so that replaying the journal
from the last checkpoint gives the state again, byte for byte; idle time only brings forward what
the next batch would do first. A *flush* puts frames and the
outbox cursor into the database; a *seal* does that and also writes the Parquet segment, the whole
state and the journal cursor, in one transaction. Frames of batches up to the outbox cursor exist
already when they are made again by a replay, and are thrown away. The ledger goes with the outbox
cursor: it says what was decided about those batches, even if a replay under other contracts would
decide otherwise.

Threads: `hand_over` and `between_batches` may be called from any thread; all else runs in the core
thread, except the two jobs at the end, which run in the storage thread, one at a time.
"""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, Final

from numpy.typing import NDArray

from gateway.batch import Anomaly, Batch, Frame, Json, Parcel, Signal
from gateway.errors import StartError, WeirError
from gateway.forward.outbox import Outbox
from gateway.journal.checkpoint import Checkpoint, Saved
from gateway.journal.log import Journal
from gateway.ledger import Ledger
from gateway.otlp.encode import Chunk, FrameBuilder
from gateway.pipeline import (
    Process,
    Stages,
    batch_items,
    note_shadows,
    parcel_items,
    span_items,
)
from gateway.recovery import Reread, split_state
from gateway.store.store import Store
from gateway.tally import Tally

log = logging.getLogger(__name__)

# Forwarded data waits at most this long for its place in the outbox.
FLUSH_S: Final = 0.25
# Rows in memory also bound what a restart has to replay.
SEAL_BYTES_MAX: Final = 32 << 20
# A failing disk is asked again after this.
RETRY_S: Final = 1.0
# When storage fails the core goes on until this much waits, then stops taking batches, so that the
# intake refuses with a delay hint instead of memory growing.
BACKLOG_SEGMENTS_MAX: Final = 2
# A start waits this many times for a disk that does not take what a replay makes.
REPLAY_TRIES_MAX: Final = 10


Work = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the core tells the rest of the process. Called from the core or storage thread."""

    anomalies: Callable[[Sequence[Anomaly]], None]
    flushed: Callable[[], None]
    released: Callable[[int], None]  # bytes of bodies that are out of the queue


@dataclass(slots=True)
class Job:
    """What one flush or seal writes."""

    first: int
    last: int
    frames: list[Frame]
    ledger: Json  # as of `last`
    state: dict[str, NDArray[Any]] | None = None  # None for a flush
    meta: dict[str, Json] = field(default_factory=dict)


class Core:
    """Owner of all state that batches change."""

    def __init__(
        self,
        *,
        stages: Stages,
        process: Process,
        store: Store,
        checkpoint: Checkpoint,
        outbox: Outbox,
        journal: Journal,
        ledger: Ledger,
        tally: Tally,
        storage: Executor,
        hooks: Hooks,
        segment_rows: int,
        segment_age_s: float,
    ) -> None:
        self._stages = stages
        self._process = process
        self._store = store
        self._checkpoint = checkpoint
        self._outbox = outbox
        self._journal = journal
        self._ledger = ledger
        self._tally = tally
        self._storage = storage
        self._hooks = hooks
        self._segment_rows = segment_rows
        self._segment_age_s = segment_age_s
        self._queue: queue.SimpleQueue[Batch | Work | None] = queue.SimpleQueue()
        self._builders = {signal: FrameBuilder(signal) for signal in Signal}
        self._full: list[Frame] = []
        self._fresh = False  # whether anything waits for a flush
        self._done = 0  # sequence of the newest processed batch
        # Each is written by one thread: the one that hands over, and the core's.
        self._rows_taken = self._rows_done = 0
        self._sealed = 0
        self._outbox_cursor = 0
        self._outbox_ledger: Json = None  # as of the outbox cursor
        self._first_unsealed_s: float | None = None
        self._running: tuple[Job, Future[None]] | None = None
        self._failed: Job | None = None
        self._next_store_s = 0.0
        self._abandoned = threading.Event()
        self._oldest_ns: Callable[[], int | None] | None = None
        self.storage_error = ""

    # --- recovery, before the thread starts ---------------------------------------------------

    def restore(self, saved: Saved | None) -> None:
        """Load the state of the last seal."""
        if saved is None:
            return
        self._outbox_cursor = saved.outbox_cursor
        self._outbox_ledger = saved.outbox_note
        if not saved.arrays:
            return
        self._done = self._sealed = saved.cursor
        measure, decide = split_state(saved.arrays)
        self._stages.measure.restore(measure)
        self._stages.decide.restore(decide)
        self._ledger.restore(saved.meta["ledger"])
        self._tally.restore(saved.meta["tally"])

    def replay(self, found: Iterable[Reread]) -> int:
        """Process every journal record after the last seal; returns the count of batches.

        Raises: StartError when the disk does not take what the replay makes.
        """
        count = 0
        for each in found:
            batch = each.batch
            if batch.sequence > self._outbox_cursor:
                self._trust_outbox()
            self._ledger.received(batch_items(batch))
            for reason, items in each.lost.items():
                self._ledger.received(items)
                self._ledger.quarantined(items, reason)
            if len(batch.requests) or batch.parcels:
                self._one(batch)
            else:
                self._begin(batch.sequence)
            each.done()
            self._store_if_due(wait=True)
            self._relieve()
            count += 1
        self._trust_outbox()
        return count

    def _relieve(self) -> None:
        """Let a failing disk rest while too much waits in memory, and give the start up at last."""
        for _ in range(REPLAY_TRIES_MAX):
            if not self._backlogged():
                return
            self._pause()
        raise StartError(
            f"the state cannot be written: {self.storage_error or 'the disk is too slow'}; "
            "nothing is lost, the journal keeps it for the next start"
        )

    def _trust_outbox(self) -> None:
        """Take the ledger that belongs to the frames in the outbox, once all of them were met."""
        if self._outbox_ledger is not None:
            self._ledger.restore(self._outbox_ledger)
            self._outbox_ledger = None

    # --- the thread ---------------------------------------------------------------------------

    def hand_over(self, batch: Batch) -> None:
        """Queue an acknowledged batch. The intake bounds the queue in bytes."""
        self._ledger.received(batch_items(batch))
        self._rows_taken += batch.rows
        self._queue.put(batch)

    def follow(self, oldest_ns: Callable[[], int | None]) -> None:
        """Ask this for the arrival of the oldest request that is acknowledged next, before idling.

        A replay meets that request first, however long its group takes to become durable. Until
        this is called no idle time passes.
        """
        self._oldest_ns = oldest_ns

    def between_batches(self, work: Work) -> None:
        """Queue work that runs in the core thread behind the batches of now, after a seal.

        So a restart replays under another plan only what came after the change of plan.
        """
        self._queue.put(work)

    @property
    def processed(self) -> int:
        """Sequence of the newest batch that went through; whoever sees it change asks again."""
        return self._done

    @property
    def queued_rows(self) -> int:
        """Rows of the batches that were handed over and are not processed."""
        return self._rows_taken - self._rows_done

    def is_behind(self) -> bool:
        """Say whether a batch waits that was not begun."""
        return not self._queue.empty()

    def stop(self) -> None:
        """Let `run` finish what is queued, seal, and return."""
        self._queue.put(None)

    def abandon(self) -> None:
        """Let `run` return although the disk fails; the journal keeps what is not sealed."""
        self._abandoned.set()

    def run(self) -> None:
        """Process batches until stopped."""
        while True:
            try:
                item = self._queue.get(timeout=FLUSH_S)
            except queue.Empty:
                self._idle()
                continue
            if item is None:
                break
            if not isinstance(item, Batch):
                self.seal()
                item()
                continue
            while self._backlogged() and not self._abandoned.is_set():
                self._pause()
            if self._abandoned.is_set():
                return
            self._one(item)
            self._rows_done += item.rows
            self._hooks.released(item.held_bytes)
            self._store_if_due()
        self.seal()

    def _idle(self) -> None:
        """Do what time alone makes due, but nothing that a group under way comes before."""
        if self._oldest_ns is None:
            self._store_if_due()
            return
        # In this order: what was handed over since is in the queue, what was not is the oldest.
        now_ns, oldest_ns = time.time_ns(), self._oldest_ns()
        if self.is_behind():
            return
        with self._stages.lock:
            raised = self._stages.measure.advance(
                now_ns if oldest_ns is None else min(now_ns, oldest_ns)
            )
        self._raise_anomalies(raised)
        note_shadows(self._stages)
        self._store_if_due()

    def seal(self) -> None:
        """Write everything that is in memory, and wait for it."""
        self._wait()
        self._submit(seal=True)
        self._wait()
        if self._failed is not None:
            log.error("last seal failed, the journal keeps the rest error=%s", self.storage_error)

    def _one(self, batch: Batch) -> None:
        outcome = self._process.spans(batch)
        self._begin(batch.sequence)
        sizes = self._tally.bytes
        sizes["wire"] += int(batch.requests["wire_bytes"].sum())
        sizes["inflated"] += int(batch.requests["body_length"].sum())
        for parcel in batch.parcels:
            sizes["wire"] += parcel.wire_bytes
            sizes["inflated"] += len(parcel.body)
            self._parcel(parcel, batch.sequence)
        if outcome is None:
            return
        self._store.add(outcome.site, batch, outcome.findings, outcome.verdict)
        traces = Signal.TRACES
        sampled_out = {(traces, rule): count for rule, count in outcome.sampled_out.items()}
        self._ledger.processed(span_items(batch), sampled_out, {traces: outcome.kept})
        self._send(traces, outcome.chunks, outcome.kept, batch.sequence)
        self._raise_anomalies(outcome.findings.anomalies)

    def _begin(self, sequence: int) -> None:
        """Note the newest batch, and that something waits for a seal."""
        self._done = sequence
        if self._first_unsealed_s is None:
            self._first_unsealed_s = time.monotonic()

    def _parcel(self, parcel: Parcel, sequence: int) -> None:
        outcome = self._process.parcel(parcel, sequence)
        if outcome is None:
            return
        self._raise_anomalies(outcome.anomalies)
        withheld = {(parcel.signal, rule): count for rule, count in outcome.withheld.items()}
        self._ledger.processed(parcel_items(parcel), withheld, {parcel.signal: outcome.kept})
        self._send(parcel.signal, outcome.chunks, outcome.kept, sequence)

    def _send(self, signal: Signal, chunks: list[Chunk], kept: int, sequence: int) -> None:
        """Gather what leaves; what a replay made again is in the outbox already."""
        if not self._outbox.destinations or not kept:
            return
        if sequence > self._outbox_cursor:
            self._full += self._builders[signal].add(sequence, chunks)
            self._fresh = True
        else:
            self._ledger.already_delivered({signal: kept})

    def _raise_anomalies(self, anomalies: Sequence[Anomaly]) -> None:
        if anomalies:
            self._hooks.anomalies(anomalies)

    # --- storing ------------------------------------------------------------------------------

    def _backlogged(self) -> bool:
        limit = BACKLOG_SEGMENTS_MAX * self._segment_rows
        return self._store.pending_rows > limit or (
            (self._running is not None or self._failed is not None)
            and self._store.pending_bytes > BACKLOG_SEGMENTS_MAX * SEAL_BYTES_MAX
        )

    def _pause(self) -> None:
        """Let the running job end, or a failing disk rest, before the next try."""
        if self._running is not None:
            self._wait()
        else:
            self._abandoned.wait(max(0.0, self._next_store_s - time.monotonic()))
        self._store_if_due()

    def _store_if_due(self, *, wait: bool = False) -> None:
        if self._running is not None and not self._running[1].done() and not wait:
            return
        self._wait()
        now = time.monotonic()
        rows, size = self._store.pending_rows, self._store.pending_bytes
        age = now - self._first_unsealed_s if self._first_unsealed_s is not None else 0.0
        full = rows >= self._segment_rows or size >= SEAL_BYTES_MAX
        if now < self._next_store_s and (self._failed is not None or not full):
            return
        if full or age >= self._segment_age_s:
            self._submit(seal=True)
        elif self._fresh or self._failed is not None:
            self._submit(seal=False)

    def _submit(self, *, seal: bool) -> None:
        """Hand the storage thread a job with all frames so far, those of a failed job first."""
        earlier = self._failed
        frames = [*(earlier.frames if earlier else ()), *self._full]
        for builder in self._builders.values():
            frames += builder.close()
        job = Job(
            first=self._sealed + 1, last=self._done, frames=frames, ledger=self._ledger.state()
        )
        self._failed, self._full, self._fresh = None, [], False
        if seal:
            job.state = self._stages.state()
            job.meta = {"ledger": job.ledger, "tally": self._tally.state()}
            self._first_unsealed_s = None
        self._next_store_s = time.monotonic() + FLUSH_S
        self._running = (job, self._storage.submit(self._write, job))

    def _wait(self) -> None:
        """Take the result of the running job; a failed one is kept for the next try."""
        if self._running is None:
            return
        (job, future), self._running = self._running, None
        try:
            future.result()
        except WeirError as error:
            if not self.storage_error:
                log.error("storage failed, trying again error=%s", error)
            self.storage_error = str(error)
            self._failed = job
            self._next_store_s = time.monotonic() + RETRY_S
            if job.state is not None and self._first_unsealed_s is None:
                self._first_unsealed_s = time.monotonic()
            return
        if self.storage_error:
            log.info("storage works again")
            self.storage_error = ""
        if job.state is not None:
            self._sealed = job.last

    def _write(self, job: Job) -> None:
        """Run a job. Storage thread."""
        segment = None
        if job.state is not None and job.last >= job.first:
            segment = self._store.write_segment(job.first, job.last)
        try:
            with self._checkpoint.transaction() as connection:
                self._outbox.add(connection, job.frames)
                self._checkpoint.set_outbox_cursor(connection, job.last, job.ledger)
                if job.state is not None:
                    if segment is not None:
                        self._store.publish(connection, segment)
                    self._checkpoint.save(connection, job.last, job.state, job.meta)
                deliveries = self._outbox.deliveries(connection)
        except WeirError:
            if segment is not None:
                self._store.take_back(segment)
            raise
        items: Counter[Signal] = Counter()
        for frame in job.frames:
            items[frame.signal] += frame.items
        self._ledger.flushed(items, deliveries)
        if job.state is not None:
            if segment is not None:
                self._store.settle(segment)
                self._tally.bytes["store"] += segment.bytes
            self._tidy(job.last)
        if job.frames:
            self._hooks.flushed()

    def _tidy(self, through: int) -> None:
        """Give back what a seal has made needless. Storage thread.

        The seal is committed: if this fails it must not count as failed, or its frames would be
        stored again. The next seal tidies up for both.
        """
        try:
            self._journal.release(through)
            with self._checkpoint.transaction() as connection:
                self._store.retain(connection, time.time_ns())
            self._outbox.vacuum(self._checkpoint.connection)
        except (WeirError, OSError) as error:
            log.warning("space not given back, the next seal tries again error=%s", error)
