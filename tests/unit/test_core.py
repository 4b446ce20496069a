"""The core: batches in; frames, rows and checkpoints out, once each, over crashes and bad disks.

A crash is a copy of the data directory at a moment when no job is running: what a process that ends
there leaves behind.
"""

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.batch import Batch, Signal, Transport
from gateway.config import ForwardSection, OtlpSection, SamplingSection, SiteConfig, StoreSection
from gateway.contract.load import load_contracts
from gateway.contract.plan import Plan, compile_plan
from gateway.core import Hooks
from gateway.errors import JournalUnavailableError, RetryableError
from gateway.forward.records import Want
from gateway.journal.log import Entry, GroupRecord
from gateway.ledger import Balance
from gateway.rooms import Guard, Made, Rooms, open_rooms
from tests.flow.load import fill_inference, new_resource
from tests.oracle import payload
from tests.process import wait_until

WAIT_S = 10.0
ROWS = 50
RATE = 0.4
# The idle core tells the measurements the time, so batches are of the present.
NOW_NS = time.time_ns() - 60_000_000_000
# Later than this file can still be running.
LATER_NS = NOW_NS + 4 * 3600_000_000_000
EXAMPLE = Path(__file__).resolve().parents[2] / "gateway/contract/examples/damage-net.yaml"


def make_config(data_dir: Path, *, segment_age_s: float = 3600.0) -> SiteConfig:
    otlp = OtlpSection(endpoint="http://127.0.0.1:1")
    return SiteConfig(
        data_dir=data_dir,
        store=StoreSection(segment_age=segment_age_s),
        sampling=SamplingSection(rate=RATE),
        forward=(ForwardSection(name="cloud", otlp=otlp),),
    )


def plan_of(config: SiteConfig, *contracts: Path) -> Plan:
    return compile_plan(load_contracts(contracts), config.sampling)


def trusting(work: Callable[[], Made], _: Callable[[Exception], None]) -> Made | None:
    """Run a step without a net: an exception fails the test."""
    return work()


@dataclass(slots=True)
class Bench:
    """Open rooms, the core in a thread of its own, and what it told."""

    config: SiteConfig
    rooms: Rooms
    flushed: threading.Event = field(default_factory=threading.Event)
    released: list[int] = field(default_factory=list)

    def journal(self, number: int, rows: int = ROWS) -> Batch:
        """Make one group durable, as the group commit would."""
        rng = random.Random(number)
        request = ExportTraceServiceRequest()
        scope = new_resource(request, f"cam-{number}").scope_spans.add()
        for row in range(rows):
            span = scope.spans.add()
            fill_inference(span, rng, number * 1000 + row + 1)
            span.end_time_unix_nano = NOW_NS + number
            span.start_time_unix_nano = NOW_NS + number - 5_000_000
        each = payload(request.SerializeToString(), arrival_ns=NOW_NS + number * 1_000_000_000)
        self.rooms.open_batch.add(each)
        entry = Entry(
            arrival_ns=each.arrival_ns,
            transport=Transport.GRPC,
            identity="",
            length=len(each.body),
            wire_bytes=each.wire_bytes,
        )
        sequence = self.rooms.journal.next_sequence
        batch = self.rooms.open_batch.take(sequence)
        self.rooms.journal.append(
            GroupRecord(sequence=sequence, entries=(entry,), body=batch.arena.data)
        )
        return batch

    def feed(self, *numbers: int) -> None:
        """Make groups durable and queue them."""
        for number in numbers:
            self.rooms.core.hand_over(self.journal(number))

    @property
    def balance(self) -> Balance:
        balances = self.rooms.ledger.snapshot().balances()
        (only,) = [each for each in balances if each.signal is Signal.TRACES]
        return only

    def rows(self) -> int:
        """Count the rows in Parquet files."""
        files = self.rooms.home.store.glob("*.parquet")
        return sum(pq.read_metadata(path).num_rows for path in files)

    def state(self) -> dict[str, Any]:
        """Copy the state of measurements and sampler, all brought to the same time."""
        stages = self.rooms.stages
        stages.measure.advance(LATER_NS)
        return {**stages.measure.state(), **stages.decide.state()}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the core for a block, then stop and seal it."""
        core = threading.Thread(target=self.rooms.core.run)
        core.start()
        try:
            yield
        finally:
            self.rooms.core.stop()
            core.join(WAIT_S)
            assert not core.is_alive()

    def wait_flushed(self, items: int) -> None:
        """Wait until all frames are in the outbox."""
        wait_until(
            lambda: (
                self.balance.received == items
                and not any(self.rooms.ledger.snapshot().undelivered.values())
                and not any(self.rooms.ledger.snapshot().unprocessed.values())
            ),
            timeout_s=WAIT_S,
            what=lambda: f"flushed {self.rooms.ledger.snapshot()}",
        )


@contextmanager
def opened(
    config: SiteConfig, *, contracts: tuple[Path, ...] = (EXAMPLE,), guard: Guard = trusting
) -> Iterator[Bench]:
    """Open and recover the rooms of a data directory for a block."""
    flushed, released = threading.Event(), list[int]()
    hooks = Hooks(anomalies=lambda _: None, flushed=flushed.set, released=released.append)
    rooms = open_rooms(config, plan_of(config, *contracts), hooks, guard)
    try:
        yield Bench(config, rooms, flushed, released)
    finally:
        rooms.close()


def crash(bench: Bench, target: Path) -> SiteConfig:
    """Leave behind what is on disk now."""
    shutil.copytree(bench.config.data_dir, target)
    return bench.config.model_copy(update={"data_dir": target})


def pending_frames(bench: Bench) -> list[int]:
    """List the items of all frames in the outbox."""
    connection = bench.rooms.checkpoint.connection
    return [
        each.items for each in bench.rooms.outbox.next(connection, "cloud", Want(bytes_max=1 << 30))
    ]


def different(left: dict[str, Any], right: dict[str, Any]) -> set[str]:
    """Name the arrays that differ."""
    assert left.keys() == right.keys()
    return {
        name
        for name in left
        if not np.array_equal(left[name], right[name], equal_nan=left[name].dtype.kind == "f")
    }


def test_stop_processes_what_is_queued_and_seals_it(tmp_path: Path) -> None:
    config = make_config(tmp_path / "data")
    with opened(config) as bench:
        bench.feed(1, 2, 3)
        bench.rooms.core.stop()
        bench.rooms.core.run()
        before = bench.balance
        assert (before.received, before.residue, bench.rows()) == (3 * ROWS, 0, 3 * ROWS)
        assert sum(pending_frames(bench)) == before.pending > 0
        state = bench.state()
    with opened(config) as again:
        assert again.balance == before
        assert different(again.state(), state) == set()
        assert again.rooms.journal.next_sequence == 4


def test_bytes_to_forward_are_those_of_the_compressed_frames(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        bench.feed(1)
        with bench.running():
            pass
        connection, outbox = bench.rooms.checkpoint.connection, bench.rooms.outbox
        (frame,) = outbox.next(connection, "cloud", Want(bytes_max=1 << 30))
        assert outbox.body_bytes(connection, [frame.id, frame.id + 1]) == len(frame.body) > 0


def test_bytes_leave_the_queue_once_they_are_processed(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        sizes = []
        for number in (1, 2):
            batch = bench.journal(number)
            sizes.append(len(batch.arena))
            bench.rooms.core.hand_over(batch)
        with bench.running():
            pass
        assert bench.released == sizes


def test_crash_between_flush_and_seal_repeats_nothing(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench, bench.running():
        bench.feed(1, 2)
        bench.wait_flushed(2 * ROWS)
        before, frames = bench.balance, pending_frames(bench)
        config = crash(bench, tmp_path / "crash")
        assert bench.rows() == 0, "nothing was sealed yet"
    with opened(config) as again:
        assert again.balance == before
        assert pending_frames(again) == frames
        assert different(again.state(), bench.state()) == set()
        with again.running():
            pass
        assert again.rows() == 2 * ROWS
        assert again.balance == before


def test_crash_before_the_flush_makes_the_frames_from_the_journal(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        bench.journal(1)
        config = crash(bench, tmp_path / "crash")
        bench.rooms.core.replay(())
    with opened(config) as again:
        assert again.balance.received == ROWS
        with again.running():
            pass
        assert again.balance.residue == 0
        assert sum(pending_frames(again)) == again.balance.pending > 0
        assert again.rows() == ROWS


def test_crash_in_recovery_changes_nothing(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench, bench.running():
        bench.feed(1, 2)
        bench.wait_flushed(2 * ROWS)
        config = crash(bench, tmp_path / "crash")
    balances = []
    for _ in range(3):
        with opened(config) as again:
            balances.append((again.balance, pending_frames(again)))
    assert balances[0] == balances[1] == balances[2]


def test_replay_under_other_contracts_keeps_what_was_decided(tmp_path: Path) -> None:
    """The frames are in the outbox already; the ledger must say what they say."""
    with opened(make_config(tmp_path / "data")) as bench, bench.running():
        bench.feed(1, 2)
        bench.wait_flushed(2 * ROWS)
        before, frames = bench.balance, pending_frames(bench)
        late = bench.journal(3)  # acknowledged, and then the crash
        config = crash(bench, tmp_path / "crash")
        bench.rooms.core.hand_over(late)
    with opened(config, contracts=()) as again:
        with again.running():
            pass
        assert again.balance.residue == 0
        assert again.balance.received == 3 * ROWS
        assert pending_frames(again)[: len(frames)] == frames
        assert sum(pending_frames(again)) == again.balance.pending >= before.pending


def test_seal_that_fails_is_tried_again_and_nothing_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path / "data", segment_age_s=0.1)
    failures = [RetryableError("disk full"), RetryableError("disk full")]
    with opened(config) as bench:
        store = bench.rooms.store
        write = store.write_segment

        def failing(first: int, last: int) -> Any:
            if failures:
                raise failures.pop()
            return write(first, last)

        monkeypatch.setattr(store, "write_segment", failing)
        with bench.running():
            bench.feed(1)
            wait_until(lambda: not failures, timeout_s=WAIT_S, what="two failures")
            bench.feed(2)
            wait_until(lambda: bench.rows() == 2 * ROWS, timeout_s=WAIT_S, what="a seal")
        assert bench.rooms.core.storage_error == ""
        assert bench.balance.residue == 0
        assert sum(pending_frames(bench)) == bench.balance.pending
        before = bench.balance
    with opened(config) as again:
        assert again.balance == before


def test_transaction_that_fails_keeps_its_frames_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        failures = [JournalUnavailableError("database is locked")]
        outbox = bench.rooms.outbox
        add = outbox.add

        def failing(connection: Any, frames: Any) -> None:
            add(connection, frames)
            if failures:
                raise failures.pop()

        monkeypatch.setattr(outbox, "add", failing)
        with bench.running():
            bench.feed(1)
            wait_until(lambda: not failures, timeout_s=WAIT_S, what="a failure")
            assert bench.balance.residue == 0
            bench.wait_flushed(ROWS)
        assert sum(pending_frames(bench)) == bench.balance.pending
        assert bench.rows() == ROWS


def test_seal_whose_transaction_fails_leaves_its_rows_pending_and_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that no commit names still bound how much the core takes while the database is ill."""
    with opened(make_config(tmp_path / "data", segment_age_s=0.1)) as bench:
        failing, failed = threading.Event(), threading.Event()
        failing.set()
        publish = bench.rooms.store.publish

        def refusing(connection: Any, sealed: Any) -> None:
            publish(connection, sealed)
            if failing.is_set():
                failed.set()
                raise JournalUnavailableError("database is locked")

        monkeypatch.setattr(bench.rooms.store, "publish", refusing)
        with bench.running():
            bench.feed(1)
            assert failed.wait(WAIT_S)
            wait_until(
                lambda: bench.rooms.store.pending_rows == ROWS, timeout_s=WAIT_S, what="pending"
            )
            failed.clear()
            bench.feed(2)
            assert failed.wait(WAIT_S)
            failing.clear()
        assert len(list(bench.rooms.home.store.glob("*.parquet"))) == 1
        assert len(list(bench.rooms.home.store.iterdir())) == 2, "a segment and its filter"
        assert bench.rows() == 2 * ROWS
        assert bench.balance.residue == 0
        assert sum(pending_frames(bench)) == bench.balance.pending


@pytest.mark.parametrize("step", ["retain", "vacuum"])
def test_failure_after_the_commit_does_not_store_frames_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    config = make_config(tmp_path / "data", segment_age_s=0.1)
    with opened(config) as bench:
        failures = [JournalUnavailableError("database is full")]
        room = bench.rooms.store if step == "retain" else bench.rooms.outbox
        tidy = getattr(room, step)

        def failing(*arguments: Any) -> Any:
            if failures:
                raise failures.pop()
            return tidy(*arguments)

        monkeypatch.setattr(room, step, failing)
        with bench.running():
            bench.feed(1)
            wait_until(lambda: not failures, timeout_s=WAIT_S, what="a failure")
            bench.feed(2)
            bench.wait_flushed(2 * ROWS)
        assert bench.balance.residue == 0
        assert sum(pending_frames(bench)) == bench.balance.pending
        assert bench.rows() == 2 * ROWS


def test_batch_that_raises_is_set_aside_and_the_core_goes_on(tmp_path: Path) -> None:
    calls = iter([ValueError("a value of the data"), None, None])

    def guard(work: Callable[[], Any], set_aside: Callable[[Exception], None]) -> Any:
        error = next(calls)
        if error is None:
            return work()
        set_aside(error)
        return None

    with opened(make_config(tmp_path / "data"), guard=guard) as bench:
        first = bench.journal(1)
        bench.rooms.core.hand_over(first)
        bench.feed(2)
        with bench.running():
            pass
        assert bench.balance.quarantined == ROWS
        assert bench.balance.residue == 0
        assert bench.rows() == ROWS
        assert bench.rooms.ledger.snapshot().quarantined == {(Signal.TRACES, "ValueError"): ROWS}
        (aside,) = bench.rooms.home.quarantine.iterdir()
        raw = zstandard.ZstdDecompressor().decompress(aside.read_bytes())
        assert raw == first.arena.tobytes()
    with opened(bench.config) as again:
        assert again.balance == bench.balance


def test_abandoned_core_returns_and_the_journal_keeps_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path / "data")
    with opened(config) as bench:

        def failing(_first: int, _last: int) -> Any:
            raise RetryableError("disk full")

        monkeypatch.setattr(bench.rooms.store, "write_segment", failing)
        with bench.running():
            bench.feed(1, 2)
        assert bench.rows() == 0
    with opened(config) as again:
        assert again.balance.received == 2 * ROWS
        with again.running():
            pass
        assert again.rows() == 2 * ROWS
        assert again.balance.residue == 0
