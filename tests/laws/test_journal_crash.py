"""Law: every record that was acknowledged is replayed exactly, in order, whatever happened since.

The disk is a model that dies at any byte, loses power with unsynced bytes, fails calls and takes
short writes. A record whose append raised may come back or not; an acknowledged one must.
"""

import errno
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.batch import Signal, Transport
from gateway.errors import JournalUnavailableError
from gateway.journal.log import Entry, GroupRecord, Journal
from tests.laws.journal_disk import CrashError, MemoryDisk

ROOT = Path("/journal")
BYTES_MAX = 1 << 20
SEGMENT_BYTES = 700


def record(sequence: int, size: int, rng: random.Random) -> GroupRecord:
    first = rng.randbytes(size)
    second = b"x" * (size // 2)
    entries = tuple(
        Entry(
            arrival_ns=1_000 + sequence,
            transport=Transport(sequence % 2),
            identity=f"device-{sequence % 3}",
            length=len(body),
            wire_bytes=len(body) // 2,
            signal=Signal.TRACES,
        )
        for body in (first, second)
    )
    return GroupRecord(sequence=sequence, entries=entries, body=first + second)


class World:
    """A journal on a memory disk beside the list of what was acknowledged."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.disk = MemoryDisk()
        self.acknowledged: list[GroupRecord] = []
        self.doubtful: list[GroupRecord] = []
        self.cursor = 0
        self.journal = self._open()

    def _open(self) -> Journal:
        return Journal.open(
            ROOT,
            bytes_max=BYTES_MAX,
            segment_bytes=SEGMENT_BYTES,
            after=self.cursor,
            files=self.disk,
        )

    def append(self, size: int) -> bool:
        new = record(self.journal.next_sequence, size, self.rng)
        try:
            self.journal.append(new)
        except JournalUnavailableError:
            self.doubtful.append(new)
            return False
        except CrashError:
            self.doubtful.append(new)
            self.reopen(power_cut=bool(self.rng.getrandbits(1)))
            return False
        self.acknowledged.append(new)
        return True

    def reopen(self, *, power_cut: bool) -> None:
        self.disk.reboot(self.rng if power_cut else None)
        self.journal = self._open()
        self.check()

    def check(self) -> None:
        seen = list(self.journal.replay(self.cursor))
        sequences = [r.sequence for r in seen]
        assert sequences == sorted(set(sequences))
        expected = [r for r in self.acknowledged if r.sequence > self.cursor]
        known = {r.sequence: r for r in expected}
        assert [r for r in seen if r.sequence in known] == expected
        for extra in (r for r in seen if r.sequence not in known):
            assert extra in self.doubtful
        assert self.journal.damaged == 0 or not expected or self.doubtful
        assert self.journal.next_sequence > max([0, *sequences])


ACTIONS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 400)),
    st.tuples(st.just("crash"), st.integers(1, 600)),
    st.tuples(st.just("fail"), st.integers(0, 5)),
    st.tuples(st.just("short"), st.integers(1, 50)),
    st.tuples(st.just("kill"), st.just(0)),
    st.tuples(st.just("power"), st.just(0)),
    st.tuples(st.just("release"), st.integers(0, 8)),
)


@settings(max_examples=3 * settings().max_examples)
@given(seed=st.integers(0, 2**32), actions=st.lists(ACTIONS, max_size=25))
def test_acknowledged_records_survive_any_history(
    seed: int, actions: list[tuple[str, int]]
) -> None:
    world = World(seed)
    for name, number in actions:
        if name == "append":
            world.append(number)
        elif name == "crash":
            world.disk.crash_after_bytes = number
            world.append(world.rng.randint(0, 400))
            world.disk.crash_after_bytes = None
        elif name == "fail":
            at = len(world.disk.calls) + number
            world.disk.faults[at] = OSError(world.rng.choice((errno.EIO, errno.ENOSPC)), "failed")
            world.append(world.rng.randint(0, 400))
        elif name == "short":
            world.disk.short_bytes = number
            world.append(100)
            world.disk.short_bytes = None
        elif name == "release" and world.acknowledged:
            world.cursor = max(world.cursor, world.acknowledged[-1].sequence - number)
            world.journal.release(world.cursor)
        elif name in ("kill", "power"):
            world.reopen(power_cut=name == "power")
    world.disk.faults.clear()
    assert world.append(10), "the journal heals by itself"
    world.reopen(power_cut=True)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_fault_at_every_call_costs_no_acknowledged_record(code: int) -> None:
    baseline = World(1)
    start = len(baseline.disk.calls)
    for size in (10, 300, 500, 20):
        assert baseline.append(size)
    calls = len(baseline.disk.calls) - start
    assert calls > 12
    for index in range(calls):
        world = World(1)
        world.disk.faults[start + index] = OSError(code, "failed")
        results = [world.append(size) for size in (10, 300, 500, 20)]
        assert results.count(False) <= 1
        assert world.append(30)
        world.reopen(power_cut=True)
        assert len(world.acknowledged) >= 4


def test_two_faults_in_a_row_cost_no_acknowledged_record() -> None:
    for first in range(14):
        for gap in range(1, 5):
            world = World(2)
            at = len(world.disk.calls) + first
            world.disk.faults[at] = OSError(errno.EIO, "failed")
            world.disk.faults[at + gap] = OSError(errno.EIO, "failed")
            for size in (10, 300, 500, 20, 30):
                world.append(size)
            world.disk.faults.clear()
            assert world.append(30)
            world.reopen(power_cut=True)


def test_a_crash_at_every_byte_costs_no_acknowledged_record() -> None:
    baseline = World(3)
    for size in (10, 400, 5):
        assert baseline.append(size)
    written = sum(len(inode.data) for inode in baseline.disk.inodes.values())
    for position in range(1, written, 3):
        world = World(3)
        world.disk.crash_after_bytes = position
        for size in (10, 400, 5):
            world.append(size)
        world.disk.crash_after_bytes = None
        assert world.append(7)
        world.reopen(power_cut=False)


@pytest.mark.parametrize("cut_fails", [False, True])
def test_a_file_whose_sync_failed_is_never_written_again(cut_fails: bool) -> None:
    world = World(4)
    assert world.append(10)
    [segment] = [p for p in world.disk.inodes if p.suffix == ".segment"]
    before = bytes(world.disk.inodes[segment].data)
    at = len(world.disk.calls)
    world.disk.faults[at + 1] = OSError(errno.EIO, "sync")
    if cut_fails:
        world.disk.faults[at + 2] = OSError(errno.EIO, "cut")
    assert not world.append(20)
    assert world.disk.calls[at:] == ["write", "fdatasync", "truncate"]
    left = bytes(world.disk.inodes[segment].data)
    assert left.startswith(before)
    assert (len(left) > len(before)) == cut_fails
    assert world.append(30)
    assert bytes(world.disk.inodes[segment].data) == left
    world.reopen(power_cut=False)
    assert [len(r.body) for r in world.journal.replay(0)] == [15, 45]


@pytest.mark.parametrize("at", ["fdatasync", "fsync_directory"])
def test_a_record_that_a_start_has_read_is_not_taken_by_the_next_power_cut(at: str) -> None:
    """What a replay makes of it may be in the outbox, although it was never acknowledged."""
    for seed in range(20):
        world = World(seed)
        assert world.append(10)
        left = SEGMENT_BYTES if at == "fsync_directory" else 10  # a new segment, or the same
        end = world.disk.calls.count(at)

        def dying(name: str, end: int = end, disk: MemoryDisk = world.disk) -> None:
            disk.calls.append(name)
            if name == at and disk.calls.count(at) > end:
                raise CrashError

        new = record(world.journal.next_sequence, left, world.rng)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(world.disk, "_call", dying)
            with pytest.raises(CrashError):
                world.journal.append(new)
        world.doubtful.append(new)
        world.reopen(power_cut=False)
        seen = list(world.journal.replay(0))
        world.reopen(power_cut=True)
        assert list(world.journal.replay(0)) == seen
