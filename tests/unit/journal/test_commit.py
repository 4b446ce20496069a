"""The group commit: durable before acknowledged, one group at a time, refused as a whole."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.batch import Batch, Payload, Receipt
from gateway.errors import (
    JournalUnavailableError,
    MalformedPayloadError,
    OverloadedError,
    WeirError,
)
from gateway.journal import commit
from gateway.journal.commit import GroupCommit
from gateway.journal.log import GroupRecord
from gateway.otlp.decode import OpenBatch
from tests.oracle import payload
from tests.plans import add_span

WAIT_S = 5.0
SOON_S = 0.001
LATE_S = 3600.0
TICKET = 7


def body(*numbers: int) -> bytes:
    request = ExportTraceServiceRequest()
    for number in numbers:
        add_span(request, number)
    return request.SerializeToString()


def ticketed(content: bytes) -> Payload:
    return replace(payload(content), ticket=TICKET)


@dataclass(slots=True)
class Bench:
    """A group commit whose journal does what the test says."""

    delay_s: float = SOON_S
    first_sequence: int = 1
    journal_bytes_max: int = 1 << 30
    records: list[GroupRecord] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    observed: list[tuple[list[float], int]] = field(default_factory=list)
    forsaken: list[int] = field(default_factory=list)
    behind: Iterator[bool] = field(default_factory=lambda: repeat(False))
    asked: int = 0
    queued_rows: int = 0
    events: list[str] = field(default_factory=list)
    failures: list[WeirError] = field(default_factory=list)
    under_way: asyncio.Event = field(default_factory=asyncio.Event)
    may_write: asyncio.Event = field(default_factory=asyncio.Event)
    commit: GroupCommit = field(init=False)

    async def append(self, record: GroupRecord) -> None:
        self.under_way.set()
        await self.may_write.wait()
        if self.failures:
            raise self.failures.pop()
        self.records.append(record)
        self.bodies.append(bytes(record.body))
        self.events.append("durable")

    def is_behind(self) -> bool:
        self.asked += 1
        return next(self.behind)

    def hand_over(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.events.append("handed over")

    def observe(self, waits_s: Sequence[float], spans: int) -> None:
        self.observed.append((list(waits_s), spans))

    async def submit(self, request: Payload) -> Receipt:
        receipt = await self.commit.submit(request)
        self.events.append("acknowledged")
        return receipt

    @asynccontextmanager
    async def running(self, *, clock: Callable[[], float] | None = None) -> AsyncIterator[None]:
        """Run the writer for a block, then close it and let it end."""
        extra: dict[str, Any] = {"clock": clock} if clock else {}
        self.commit = GroupCommit(
            open_batch=OpenBatch(()),
            append=self.append,
            hand_over=self.hand_over,
            next_sequence=self.first_sequence,
            delay_s=self.delay_s,
            observe=self.observe,
            forsake=self.forsaken.append,
            is_behind=self.is_behind,
            queued_rows=lambda: self.queued_rows,
            journal_bytes_max=self.journal_bytes_max,
            **extra,
        )
        self.may_write.set()
        writer = asyncio.create_task(self.commit.run())
        try:
            yield
        finally:
            self.may_write.set()
            self.commit.close()
            await asyncio.wait_for(writer, WAIT_S)

    async def start(self, *requests: Payload) -> list[asyncio.Task[Receipt]]:
        """Submit and let each reach the open group, in order."""
        tasks = [asyncio.create_task(self.submit(each)) for each in requests]
        await asyncio.sleep(0)
        return tasks


async def finished(tasks: Sequence[asyncio.Task[Receipt]]) -> list[Receipt | BaseException]:
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), WAIT_S)


async def test_requests_of_one_moment_are_one_record_and_one_batch() -> None:
    bench = Bench(first_sequence=7)
    async with bench.running():
        requests = [
            payload(body(1, 2), identity="cam-1", arrival_ns=10),
            payload(body(3), identity="cam-2", arrival_ns=11),
            payload(body(4), identity="cam-1", arrival_ns=12),
        ]
        receipts = await finished(await bench.start(*requests))
    assert [each.accepted for each in receipts if isinstance(each, Receipt)] == [2, 1, 1]
    (record,), (batch,) = bench.records, bench.batches
    assert record.sequence == batch.sequence == 7
    assert bench.bodies == [b"".join(each.body for each in requests)]
    assert [each.length for each in record.entries] == [len(each.body) for each in requests]
    assert [each.identity for each in record.entries] == ["cam-1", "cam-2", "cam-1"]
    assert [each.arrival_ns for each in record.entries] == [10, 11, 12]
    assert (len(batch.spans), batch.arrival_ns) == (4, 12)


async def test_acknowledgement_comes_after_the_disk_and_after_the_core() -> None:
    bench = Bench()
    async with bench.running():
        await finished(await bench.start(payload(body(1)), payload(body(2))))
    assert bench.events == ["durable", "handed over", "acknowledged", "acknowledged"]


async def test_nothing_is_acknowledged_while_the_disk_is_slow_and_the_next_group_gathers() -> None:
    bench = Bench()
    async with bench.running():
        bench.may_write.clear()
        first = await bench.start(payload(body(1)))
        await asyncio.wait_for(bench.under_way.wait(), WAIT_S)
        later = await bench.start(payload(body(2)), payload(body(3)))
        assert not any(task.done() for task in (*first, *later))
        bench.may_write.set()
        await finished([*first, *later])
    assert [record.sequence for record in bench.records] == [1, 2]
    assert bench.bodies == [body(1), body(2) + body(3)]


async def test_refusal_of_the_journal_refuses_the_group_and_uses_the_sequence_again() -> None:
    bench = Bench()
    async with bench.running():
        bench.failures.append(JournalUnavailableError("disk full"))
        refused = await finished(await bench.start(payload(body(1)), payload(body(2))))
        assert all(isinstance(each, JournalUnavailableError) for each in refused)
        assert bench.batches == []
        assert bench.observed == []
        (receipt,) = await finished(await bench.start(payload(body(3))))
    assert isinstance(receipt, Receipt)
    assert [record.sequence for record in bench.records] == [1]
    assert bench.bodies == [body(3)], "nothing of the refused group may come back"
    assert len(bench.batches[0].spans) == 1


async def test_malformed_request_is_refused_at_once_and_its_neighbours_pass() -> None:
    bench = Bench()
    async with bench.running():
        tasks = await bench.start(
            payload(body(1)), payload(body(2)[:-3]), payload(body(3), identity="cam-3")
        )
        good, bad, other = await finished(tasks)
    assert isinstance(bad, MalformedPayloadError)
    assert isinstance(good, Receipt)
    assert isinstance(other, Receipt)
    assert bench.bodies == [body(1) + body(3)]
    assert len(bench.records[0].entries) == 2
    assert len(bench.batches[0].spans) == 2


async def test_malformed_request_alone_writes_nothing() -> None:
    bench = Bench()
    async with bench.running():
        with pytest.raises(MalformedPayloadError):
            await bench.submit(payload(b"\x0a\x7f"))
    assert bench.records == []


@pytest.mark.parametrize(
    ("limit", "most"), [("GROUP_SPANS_MAX", 2), ("GROUP_BYTES_MAX", len(body(1)) + 1)]
)
async def test_full_group_does_not_wait_for_its_delay(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(commit, limit, most)
    bench = Bench(delay_s=LATE_S)
    async with bench.running():
        await finished(await bench.start(payload(body(1)), payload(body(2))))
    assert len(bench.records) == 1


async def test_group_stays_open_longer_while_the_core_is_behind() -> None:
    bench = Bench(behind=iter((True, True, False)))
    async with bench.running():
        await finished(await bench.start(payload(body(1))))
    assert bench.asked == 3


async def test_group_is_written_at_last_although_the_core_stays_behind() -> None:
    bench = Bench(behind=repeat(True))
    async with bench.running():
        (receipt,) = await finished(await bench.start(payload(body(1))))
    assert isinstance(receipt, Receipt)
    assert bench.asked == 1 + commit.PATIENCE_DELAYS


async def test_closing_writes_the_open_group_and_refuses_what_comes_later() -> None:
    bench = Bench(delay_s=LATE_S)
    async with bench.running():
        tasks = await bench.start(payload(body(1)))
        bench.commit.close()
        with pytest.raises(OverloadedError, match="stopping"):
            await bench.commit.submit(payload(body(2)))
    (receipt,) = await finished(tasks)
    assert isinstance(receipt, Receipt)
    assert bench.bodies == [body(1)]


async def test_closing_while_a_group_is_written_writes_the_next_one_too() -> None:
    bench = Bench()
    async with bench.running():
        bench.may_write.clear()
        first = await bench.start(payload(body(1)))
        await asyncio.wait_for(bench.under_way.wait(), WAIT_S)
        later = await bench.start(payload(body(2)))
        bench.commit.close()
        bench.may_write.set()
        receipts = await finished([*first, *later])
    assert all(isinstance(each, Receipt) for each in receipts)
    assert bench.bodies == [body(1), body(2)]


async def test_closing_an_idle_commit_ends_it() -> None:
    bench = Bench(delay_s=LATE_S)
    async with bench.running():
        pass
    assert bench.records == []


async def test_request_whose_client_left_is_stored_with_its_group() -> None:
    bench = Bench()
    async with bench.running():
        bench.may_write.clear()
        gone, stays = await bench.start(payload(body(1)), payload(body(2)))
        await asyncio.wait_for(bench.under_way.wait(), WAIT_S)
        gone.cancel()
        bench.may_write.set()
        lost, kept = await finished([gone, stays])
    assert isinstance(lost, asyncio.CancelledError)
    assert isinstance(kept, Receipt)
    assert bench.bodies == [body(1) + body(2)]


async def test_bytes_of_a_client_that_left_a_refused_group_are_given_back() -> None:
    bench = Bench(failures=[JournalUnavailableError("disk full")])
    async with bench.running():
        bench.may_write.clear()
        gone, stays = await bench.start(ticketed(body(1)), payload(body(2)))
        await asyncio.wait_for(bench.under_way.wait(), WAIT_S)
        gone.cancel()
        bench.may_write.set()
        _, refused = await finished([gone, stays])
    assert isinstance(refused, JournalUnavailableError)
    assert bench.forsaken == [TICKET]


async def test_bytes_of_a_client_that_leaves_as_its_group_is_refused_are_given_back() -> None:
    """The cancellation comes after the refusal is set and before the request has heard of it."""
    bench = Bench(failures=[JournalUnavailableError("disk full")])
    async with bench.running():
        bench.may_write.clear()
        (gone,) = await bench.start(ticketed(body(1)))
        await asyncio.wait_for(bench.under_way.wait(), WAIT_S)
        bench.may_write.set()
        await asyncio.sleep(0)  # one turn: the writer has met the failure, the request has not
        assert not bench.failures
        gone.cancel()
        (lost,) = await finished([gone])
    assert isinstance(lost, asyncio.CancelledError)
    assert bench.forsaken == [TICKET]


@pytest.mark.parametrize(
    ("limit", "value"), [("OPEN_BYTES_MAX", len(body(2))), ("OPEN_REQUESTS_MAX", 1)]
)
async def test_what_gathers_behind_a_slow_disk_is_limited_and_may_come_back(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(commit, limit, value)
    bench = Bench()
    async with bench.running():
        bench.may_write.clear()
        first = await bench.start(payload(body(1)))
        await asyncio.wait_for(bench.under_way.wait(), WAIT_S)
        second = await bench.start(payload(body(2)))
        with pytest.raises(OverloadedError):
            await asyncio.wait_for(bench.submit(payload(body(3))), WAIT_S)
        bench.may_write.set()
        answers = await finished([*first, *second])
    assert all(isinstance(each, Receipt) for each in answers)
    assert bench.bodies == [body(1), body(2)]


async def test_waits_are_told_once_for_each_group() -> None:
    times = iter([1.0, 1.25, 2.0])
    bench = Bench()
    async with bench.running(clock=lambda: next(times)):
        await finished(await bench.start(payload(body(1, 2)), payload(body(3))))
    assert bench.observed == [([1.0, 0.75], 3)]


async def test_empty_request_is_acknowledged_without_a_span() -> None:
    bench = Bench()
    async with bench.running():
        request = ExportTraceServiceRequest()
        request.resource_spans.add().schema_url = "x"
        receipt = await asyncio.wait_for(bench.submit(payload(request.SerializeToString())), WAIT_S)
    assert (receipt.accepted, receipt.rejected) == (0, 0)


async def test_a_small_journal_makes_small_groups_and_still_takes_a_large_request() -> None:
    """A group above the journal's limit would be refused for ever, whoever tries again."""
    size = len(body(1))
    bench = Bench(journal_bytes_max=commit.JOURNAL_SHARES * 2 * size)
    async with bench.running():
        bench.may_write.clear()
        first = await bench.start(payload(body(1)))
        await asyncio.wait_for(bench.under_way.wait(), WAIT_S)
        later = await bench.start(payload(body(2)), payload(body(3)), payload(body(4)))
        assert isinstance((await finished(later[2:]))[0], OverloadedError)
        bench.may_write.set()
        await finished([*first, *later[:2]])
        large = await bench.start(payload(body(*range(10, 30))))
        (receipt,) = await finished(large)
        assert isinstance(receipt, Receipt)
    assert max(len(each) for each in bench.bodies[:-1]) <= 2 * size


async def test_another_batch_takes_over_between_two_groups_and_nothing_is_refused() -> None:
    bench = Bench()
    async with bench.running():
        bench.may_write.clear()
        first = await bench.start(payload(body(1)))
        await bench.under_way.wait()
        second = await bench.start(payload(body(2)), payload(body(3)))
        bench.commit.exchange(OpenBatch((b"key",)), lambda: bench.events.append("exchanged"))
        bench.may_write.set()
        await asyncio.gather(*first, *second)
        (third,) = await bench.start(payload(body(4)))
        await third
    assert [len(batch.slots) for batch in bench.batches] == [0, 0, 1]
    assert [len(batch.spans) for batch in bench.batches] == [1, 2, 1]
    handed = [event for event in bench.events if event in ("handed over", "exchanged")]
    assert handed == ["handed over", "handed over", "exchanged", "handed over"]


async def test_another_batch_takes_over_at_once_while_nothing_is_open() -> None:
    bench = Bench(delay_s=LATE_S)
    exchanged = asyncio.Event()
    async with bench.running():
        bench.commit.exchange(OpenBatch((b"key",)), exchanged.set)
        async with asyncio.timeout(WAIT_S):
            await exchanged.wait()
        (only,) = await bench.start(payload(body(1)))
        bench.commit.close()
        await only
    assert [len(batch.slots) for batch in bench.batches] == [1]


async def test_another_batch_takes_over_although_the_journal_refuses() -> None:
    bench = Bench(failures=[JournalUnavailableError("full")])
    async with bench.running():
        bench.may_write.clear()
        (refused,) = await bench.start(payload(body(1)))
        await bench.under_way.wait()
        bench.commit.exchange(OpenBatch((b"key",)), lambda: bench.events.append("exchanged"))
        bench.may_write.set()
        with pytest.raises(JournalUnavailableError):
            await refused
        (taken,) = await bench.start(payload(body(2)))
        await taken
    assert "exchanged" in bench.events


async def test_rows_that_wait_are_bounded_and_refused_with_a_delay() -> None:
    bench = Bench()
    async with bench.running():
        bench.queued_rows = commit.QUEUED_ROWS_MAX
        (taken,) = await bench.start(payload(body(1)))
        await finished([taken])
        bench.queued_rows += 1
        with pytest.raises(OverloadedError, match="attributes") as caught:
            await bench.submit(payload(body(2)))
        assert caught.value.retry_after_s is not None
    assert bench.bodies == [body(1)]


async def test_group_with_many_rows_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "GROUP_ROWS_MAX", 1)
    bench = Bench(delay_s=LATE_S)
    async with bench.running():
        await asyncio.wait_for(bench.submit(payload(body(1))), WAIT_S)
    assert bench.bodies == [body(1)]
