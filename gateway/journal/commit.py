"""The group commit: requests of a few milliseconds become one batch, one write and one sync.

Law: a future resolves to a Receipt only after the journal returned; if the journal refuses, every
request of the group is refused with its reason and nothing of the group goes on. Groups are
written in the order in which they were opened, one at a time, so that a slow disk makes groups
larger and not more numerous.

Threads: everything here runs on the event loop; only `append` runs in the journal's own thread.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from gateway.batch import Batch, Payload, Receipt, Transport
from gateway.errors import OverloadedError, WeirError
from gateway.journal.log import Entry, GroupRecord
from gateway.otlp.decode import OpenBatch

# A group is closed early at these sizes: the pure rooms like batches of some thousand rows, and
# the journal's frame stays far below its limit.
GROUP_SPANS_MAX: Final = 32_768
GROUP_BYTES_MAX: Final = 16 << 20
# What may gather while the group before is being written, however slow the disk. Half of what a
# batch and a journal frame can hold, which would refuse the request or the whole group for good.
OPEN_BYTES_MAX: Final = 128 << 20
OPEN_REQUESTS_MAX: Final = 65_536
# An attribute of two bytes on the wire is a row of 48 bytes in memory, so rows are bounded too: of
# one group, and of all that the core has not processed yet, which is 200 MB at the most.
GROUP_ROWS_MAX: Final = 1 << 20
QUEUED_ROWS_MAX: Final = 4 << 20
# While the core is behind, a group stays open this many delays longer: fewer and larger batches
# cost the core less for each span, which is what it needs then.
PATIENCE_DELAYS: Final = 4
# A group takes at most this share of the journal, or a small journal would refuse large groups for
# ever: what was released and the segment that is being left take as much each.
JOURNAL_SHARES: Final = 4

Append = Callable[[GroupRecord], Awaitable[None]]
Handover = Callable[[Batch], None]
# Told once per group: seconds from each request's submission to its acknowledgement, and spans.
Observe = Callable[[Sequence[float], int], None]


class GroupCommit:
    """The open group and the one that is being written.

    `forsake` is given the ticket of a payload whose client has gone and whose group was refused;
    `is_behind` says whether the core has not yet begun with the groups before; `queued_rows` counts
    the rows of those that it has not processed.
    """

    def __init__(
        self,
        *,
        open_batch: OpenBatch,
        append: Append,
        hand_over: Handover,
        next_sequence: int,
        delay_s: float,
        observe: Observe,
        forsake: Callable[[int], None],
        is_behind: Callable[[], bool],
        queued_rows: Callable[[], int],
        journal_bytes_max: int = JOURNAL_SHARES * OPEN_BYTES_MAX,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._open = open_batch
        self._append = append
        self._hand_over = hand_over
        self._sequence = next_sequence
        self._delay_s = delay_s
        self._observe = observe
        self._forsake = forsake
        self._is_behind = is_behind
        self._queued_rows = queued_rows
        self._open_bytes_max = min(OPEN_BYTES_MAX, journal_bytes_max // JOURNAL_SHARES)
        self._group_bytes_max = min(GROUP_BYTES_MAX, self._open_bytes_max // 2)
        self._clock = clock
        # Of each request its future and receipt, when it came, and the ticket of its payload.
        self._waiting: list[tuple[asyncio.Future[Receipt], Receipt, float, int]] = []
        self._full = asyncio.Event()
        self._opened = asyncio.Event()
        self._closing = False
        self._next: tuple[OpenBatch, Callable[[], None]] | None = None

    async def submit(self, payload: Payload) -> Receipt:
        """Take one request into the open group and wait until it is durable.

        Raises: MalformedPayloadError, PayloadTooLargeError, JournalUnavailableError,
        OverloadedError while closing.
        """
        if self._closing:
            raise OverloadedError("the gateway is stopping")
        if (
            # One request alone is for the journal to refuse: waiting does not make it smaller.
            (self._waiting and self._open.bytes + len(payload.body) > self._open_bytes_max)
            or len(self._waiting) >= OPEN_REQUESTS_MAX
        ):
            raise OverloadedError("the group before is still being written")
        if self._open.rows + self._queued_rows() > QUEUED_ROWS_MAX:
            raise OverloadedError("the core has not processed the attributes sent before")
        receipt = self._open.add(payload)
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, receipt, self._clock(), payload.ticket))
        if len(self._waiting) == 1:
            self._opened.set()
        if (
            self._open.spans >= GROUP_SPANS_MAX
            or self._open.bytes >= self._group_bytes_max
            or self._open.rows >= GROUP_ROWS_MAX
        ):
            self._full.set()
        try:
            return await future
        except asyncio.CancelledError:
            # Refused and cancelled in one turn of the loop: the caller hears of the second only.
            if not future.cancelled() and future.exception() is not None:
                self._forsake(payload.ticket)
            raise

    def exchange(self, open_batch: OpenBatch, announce: Callable[[], None]) -> None:
        """Scan requests into another open batch from the next group on.

        `announce` is called once, after the last group of the old batch was handed over and
        before the first of the new one is. Requests wait for nothing but their group.
        """
        assert self._next is None
        self._next = open_batch, announce
        self._opened.set()
        self._full.set()

    def _exchange(self) -> Callable[[], None]:
        """Take the other batch into use, if there is one; return its announcement."""
        if self._next is None:
            return _nothing
        (self._open, announce), self._next = self._next, None
        return announce

    def close(self) -> None:
        """Refuse new requests; `run` returns once the open group is durable."""
        self._closing = True
        self._opened.set()
        self._full.set()

    async def run(self) -> None:
        """Write group after group until closed."""
        while True:
            await self._opened.wait()
            if not self._waiting:
                self._exchange()()
                if self._closing:
                    return
                self._full.clear()
                self._opened.clear()
                continue
            for _ in range(1 + PATIENCE_DELAYS):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._delay_s):
                        await self._full.wait()
                if self._full.is_set() or not self._is_behind():
                    break
            await self._write()

    async def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not self._closing:
            self._full.clear()
            self._opened.clear()
        batch = self._open.take(self._sequence)
        announce = self._exchange()
        try:
            await self._append(record_of(batch))
        except WeirError as error:
            announce()
            for future, _, _, ticket in waiting:
                if future.done():  # its client is gone, so nobody else gives the bytes back
                    self._forsake(ticket)
                else:
                    future.set_exception(error)
            return
        self._sequence += 1
        # Handed on before the acknowledgements, so that a scrape that follows an answer counts it.
        self._hand_over(batch)
        announce()
        for future, receipt, _, _ in waiting:
            if not future.done():
                future.set_result(receipt)
        now = self._clock()
        self._observe([now - start for _, _, start, _ in waiting], len(batch.spans))


def _nothing() -> None:
    """Announce nothing."""


def record_of(batch: Batch) -> GroupRecord:
    """Make the journal record of a group: the requests with spans, then the parcels."""
    requests = batch.requests
    entries = [
        Entry(
            arrival_ns=arrival_ns,
            transport=Transport(transport),
            identity=batch.identities[identity],
            length=length,
            wire_bytes=wire_bytes,
        )
        for arrival_ns, transport, identity, length, wire_bytes in zip(
            *(
                requests[name].tolist()
                for name in ("arrival_ns", "transport", "identity", "body_length", "wire_bytes")
            ),
            strict=True,
        )
    ]
    entries += [
        Entry(
            arrival_ns=parcel.arrival_ns,
            transport=parcel.transport,
            identity=parcel.identity,
            length=len(parcel.body),
            wire_bytes=parcel.wire_bytes,
            signal=parcel.signal,
        )
        for parcel in batch.parcels
    ]
    body: bytes | memoryview = batch.arena.data
    if batch.parcels:
        body = b"".join((body, *(parcel.body for parcel in batch.parcels)))
    return GroupRecord(sequence=batch.sequence, entries=tuple(entries), body=body)
