"""Law: through any writes, pins, crashes at any byte and one damaged byte, the ring serves a record
exactly or not at all, and never says that nothing is missing when something is."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from collectors.device import files
from collectors.device.ring import PINNED_SHARE_MAX, Ring
from collectors.device.segment import DATA_OFFSET
from gateway.errors import CorruptDataError

SEGMENTS = 6
SEGMENT_BYTES = 2 * DATA_OFFSET
TRACES = 12
LEASE_NS = 10_000


@dataclass(frozen=True, slots=True)
class Written:
    trace_id: bytes
    payload: bytes
    written_ns: int


class Disk:
    """What reached the disk and when: bytes written, moments of sync and of acknowledgement."""

    def __init__(self) -> None:
        self.writes: list[tuple[int, bytes, int]] = []  # inode, data, offset
        self.synced = [0]
        self.acked: list[tuple[int, int]] = []  # position, sequence
        self.position = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        write_all, sync = files.write_all, os.fdatasync

        def log_write(handle: int, data: bytes, offset: int) -> None:
            self.writes.append((os.fstat(handle).st_ino, data, offset))
            self.position += len(data)
            write_all(handle, data, offset)

        def log_sync(handle: int) -> None:
            self.synced.append(self.position)
            sync(handle)

        with patch.object(files, "write_all", log_write), patch.object(os, "fdatasync", log_sync):
            yield

    def survive(self, images: dict[int, bytearray], moment: float, share: float) -> set[int]:
        """Apply what is left of a crash at a moment when a share of the unsynced bytes was out.

        Returns the sequence numbers that had been acknowledged.
        """
        crash = int(moment * self.position)
        durable = max(position for position in self.synced if position <= crash)
        left = durable + int(share * (crash - durable))
        for inode, data, offset in self.writes:
            data, left = data[:left], max(0, left - len(data))
            images[inode][offset : offset + len(data)] = data
        return {sequence for position, sequence in self.acked if position <= crash}


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


class RingMachine(RuleBasedStateMachine):
    @initialize(compress=st.booleans())
    def start(self, compress: bool) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ring-law-"))
        self.compress = compress
        self.now_ns = 1_000_000
        self.written: dict[int, Written] = {}
        self.finished: set[int] = set()
        self.damaged = False
        self.numbers = 0
        self.pins: dict[str, set[int]] = {}
        self.ring = self.open()

    def open(self) -> Ring:
        return Ring(
            self.directory,
            now_ns=self.now_ns,
            segments=SEGMENTS,
            segment_bytes=SEGMENT_BYTES,
            compress=self.compress,
        )

    def fresh(self) -> int:
        self.numbers += 1
        return TRACES + self.numbers

    def append(self, number: int, size: int, step_ns: int, last: bool) -> int:
        self.now_ns = max(1, self.now_ns + step_ns)
        seen = any(item.trace_id == trace_id(number) for item in self.written.values())
        payload = os.urandom(size)
        pointer = self.ring.append(
            trace_id(number), payload, written_ns=self.now_ns, first=not seen, last=last
        )
        if last:
            self.finished.add(number)
        assert pointer is not None
        assert pointer.sequence not in self.written, "a sequence number was given out twice"
        self.written[pointer.sequence] = Written(trace_id(number), payload, self.now_ns)
        return pointer.sequence

    @rule(
        number=st.integers(0, TRACES - 1),
        size=st.integers(1, 1800),
        step_ns=st.integers(-50, 1000),
        last=st.booleans(),
    )
    def write(self, number: int, size: int, step_ns: int, last: bool) -> None:
        if number not in self.finished:
            self.append(number, size, step_ns, last)

    @rule(sizes=st.lists(st.integers(1, 1800), min_size=1, max_size=12))
    def write_many(self, sizes: list[int]) -> None:
        for size in sizes:
            self.append(self.fresh(), size, 7, last=True)

    @rule(number=st.integers(0, TRACES - 1), priority=st.integers(0, 9))
    def pin(self, number: int, priority: int) -> None:
        name = f"pin-{number}"
        with self.ring.still():
            found = self.ring.find([trace_id(number)]).get(trace_id(number), ())
            if found and self.ring.pin(
                name, found, priority=priority, until_ns=self.now_ns + LEASE_NS
            ):
                self.pins[name] = {entry.sequence for entry in found}

    @rule(number=st.integers(0, TRACES - 1))
    def unpin(self, number: int) -> None:
        self.ring.unpin(f"pin-{number}")

    @rule()
    def sync(self) -> None:
        self.ring.sync()

    @rule(wait_ns=st.integers(0, 1000))
    def reopen(self, wait_ns: int) -> None:
        self.ring.close()
        before = len(self.ring.evicted())
        self.now_ns += wait_ns
        self.ring = self.open()
        if not self.damaged:
            assert len(self.ring.evicted()) == before, "a clean restart loses nothing"

    @rule(
        sizes=st.lists(st.integers(1, 1800), min_size=1, max_size=6),
        moment=st.floats(0, 1),
        share=st.floats(0, 1),
        wait_ns=st.integers(0, 1000),
    )
    def crash(self, sizes: list[int], moment: float, share: float, wait_ns: int) -> None:
        self.ring.sync()
        paths = sorted(self.directory.glob("*.seg"))
        images = {path.stat().st_ino: bytearray(path.read_bytes()) for path in paths}
        before = set(self.written)
        disk = Disk()
        with disk.watched():
            for size in sizes:
                sequence = self.append(self.fresh(), size, 1, last=True)
                disk.acked.append((disk.position, sequence))
        self.abandon()
        acked = disk.survive(images, moment, share)
        for path in paths:
            path.write_bytes(images[path.stat().st_ino])
        self.now_ns += wait_ns
        self.ring = self.open()
        held = {
            entry.sequence
            for entries in self.ring.find(item.trace_id for item in self.written.values()).values()
            for entry in entries
        }
        # What was in flight may be there or not; nobody was told.
        for sequence in set(self.written) - before - acked - held:
            del self.written[sequence]

    def abandon(self) -> None:
        handles = self.ring._slots._files
        while handles:
            os.close(handles.pop())

    @precondition(lambda self: not self.damaged)
    @rule(slot=st.integers(0, SEGMENTS - 1), offset=st.integers(0, SEGMENT_BYTES - 1))
    def damage(self, slot: int, offset: int) -> None:
        current = self.ring._slots._current
        if current is not None and current.slot == slot and offset < DATA_OFFSET:
            return  # the header being written again and again has one spare copy, not two
        path = sorted(self.directory.glob("*.seg"))[slot]
        image = bytearray(path.read_bytes())
        image[offset] ^= 0x10
        path.write_bytes(image)
        self.damaged = True

    @invariant()
    def serves_exactly_or_not_at_all(self) -> None:
        ids = {item.trace_id for item in self.written.values()}
        served: set[int] = set()
        for key, entries in self.ring.find(ids).items():
            for entry in entries:
                expected = self.written[entry.sequence]
                assert expected.trace_id == key
                try:
                    assert self.ring.read(entry) == expected.payload
                except CorruptDataError:
                    assert self.damaged
                    continue
                assert entry.written_ns == expected.written_ns
                served.add(entry.sequence)
        rows = self.ring.evicted()
        for sequence in self.written.keys() - served:
            assert any(row.first_sequence <= sequence <= row.last_sequence for row in rows)

    @invariant()
    def never_claims_too_much(self) -> None:
        for key in {item.trace_id for item in self.written.values()}:
            every = {seq for seq, item in self.written.items() if item.trace_id == key}
            found = self.ring.find([key]).get(key, ())
            if not self.ring.missing(found):
                assert {entry.sequence for entry in found} == every
        times = [item.written_ns for item in self.written.values()]
        for from_ns, to_ns in zip(times[::3], times[1::3], strict=False):
            if from_ns <= to_ns and not self.ring.missing_between(from_ns, to_ns):
                every = {
                    seq for seq, item in self.written.items() if from_ns <= item.written_ns <= to_ns
                }
                found_all = self.ring.find_written(from_ns, to_ns).values()
                assert {entry.sequence for group in found_all for entry in group} == every

    @invariant()
    def pinned_records_stay(self) -> None:
        held = self.ring._pins.held(self.now_ns)
        assert len(held) <= int(SEGMENTS * PINNED_SHARE_MAX)
        alive = self.ring.pinned()
        readable = {
            entry.sequence
            for entries in self.ring.find(
                {item.trace_id for item in self.written.values()}
            ).values()
            for entry in entries
        }
        if not self.damaged:
            for name in alive & self.pins.keys():
                assert self.pins[name] <= readable

    @invariant()
    def chain_holds_unless_damaged(self) -> None:
        assert self.damaged or not self.ring.broken()

    def teardown(self) -> None:
        if hasattr(self, "ring"):
            self.ring.close()
            shutil.rmtree(self.directory)


RingMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


TestRing = RingMachine.TestCase


@pytest.mark.parametrize("count", [1, 40, 400])
def test_plain_ring_keeps_the_newest_and_declares_the_rest(tmp_path: Path, count: int) -> None:
    ring = Ring(tmp_path, now_ns=1, segments=SEGMENTS, segment_bytes=SEGMENT_BYTES, compress=False)
    for number in range(count):
        ring.append(trace_id(number), bytes(300), written_ns=number + 1, first=True, last=True)
    kept = ring.find(trace_id(number) for number in range(count))
    gone = sum(row.count for row in ring.evicted())
    assert len(kept) + gone == count
    assert trace_id(count - 1) in kept
    ring.close()
