"""Law: whatever byte of a journal is flipped or cut off, the next start is quick and names it.

A start reads every record that is intact; a damaged stretch has a copy in the quarantine, named by
its place, or is a torn tail; the second start after it is like the first. Small journals are
damaged at every byte, a large one at random places: a few in the short run, 10,000 in the fuzz run.
"""

import random
import shutil
import time
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from gateway.batch import Transport
from gateway.journal.cipher import Keys
from gateway.journal.frame import FRAME_HEADER_BYTES
from gateway.journal.log import Entry, GroupRecord, Journal
from gateway.journal.scan import stretches
from gateway.journal.segment import find_segments
from tests.conftest import FUZZ
from tests.unit.test_core import crash, make_config, opened

START_S_MAX: Final = 5.0
LIMIT: Final = 64 << 20
# With encryption every third place is enough: the bytes differ, the code does not.
STRIDES: Final = {"plain": 1, "encrypted": 1 if FUZZ else 3}
KEYS: Final = {"plain": Keys(), "encrypted": Keys([bytes(32)])}
SMALL_SEGMENT: Final = 400
LARGE_SEGMENT: Final = 1 << 20
LARGE_RECORDS: Final = 1_500
LARGE_BYTES: Final = 8_000  # of a record
LARGE_DAMAGES: Final = 10_000 if FUZZ else 40
WHOLE_DAMAGES: Final = 200 if FUZZ else 6


@dataclass(slots=True)
class Written:
    """A journal on disk, and where each record lies: (path, start, stop) in order."""

    directory: Path
    keys: Keys
    records: list[GroupRecord]
    places: list[tuple[Path, int, int]]

    def open(self) -> Journal:
        return Journal.open(self.directory, bytes_max=LIMIT, fsync=False, keys=self.keys)

    def intact(self, path: Path, start: int, stop: int) -> list[GroupRecord]:
        """List the records that no byte of [start, stop) of a segment belongs to."""
        return [
            record
            for record, (other, first, last) in zip(self.records, self.places, strict=True)
            if other != path or last <= start or first >= stop
        ]


def write(directory: Path, keys: Keys, count: int, size: int, segment_bytes: int) -> Written:
    """Write a journal in two lives of its process."""
    rng = random.Random(11)
    records: list[GroupRecord] = []
    for life in range(2):
        journal = Journal.open(
            directory, bytes_max=LIMIT, fsync=False, segment_bytes=segment_bytes, keys=keys
        )
        for _ in range((count + life) // 2):
            body = rng.randbytes(rng.randrange(size)) + bytes(size // 4)
            entry = Entry(arrival_ns=1, transport=Transport.GRPC, identity="a", length=len(body))
            record = GroupRecord(sequence=journal.next_sequence, entries=(entry,), body=body)
            journal.append(record)
            records.append(record)
        journal.close()
    written = Written(directory, keys, records, [])
    journal = written.open()
    files, seed = journal._files, journal._seed
    for segment in find_segments(files, directory, journal._quarantine):
        handle = files.open_read(segment.path)
        for stretch in stretches(files, handle, segment.start, segment.size, seed):
            written.places.append((segment.path, stretch.start, stretch.stop))
        files.close(handle)
    journal.close()
    _drop_new(directory, {path for path, _, _ in written.places})
    assert len(written.places) == len(records)
    return written


def _drop_new(directory: Path, kept: set[Path]) -> None:
    """Forget what a start added, so that the next damage meets the same journal."""
    for path in directory.glob("*.segment"):
        if path not in kept:
            path.unlink()
    shutil.rmtree(directory / "quarantine", ignore_errors=True)


def start(
    written: Written, expected: list[GroupRecord], *, told: bool = True, starts: int = 2
) -> float:
    """Start, and start again; returns the slowest start in seconds."""
    slowest, torn = 0.0, False
    for _ in range(starts):
        began = time.perf_counter()
        journal = written.open()
        seen = list(journal.replay(0))
        slowest = max(slowest, time.perf_counter() - began)
        sequences = {record.sequence for record in seen}
        assert len(sequences) == len(seen), "none twice"
        missing = [record.sequence for record in expected if record.sequence not in sequences]
        assert missing == [], "intact and not read"
        known = {record.sequence: record for record in written.records}
        assert all(known[record.sequence] == record for record in seen), "never written"
        if told and len(seen) < len(written.records):
            assert journal.damaged or journal.torn_bytes or torn, "the damage is told"
        torn |= journal.torn_bytes > 0
        assert journal.next_sequence > max(sequences, default=0)
        journal.close()
    return slowest


def damage(
    written: Written, path: Path, content: bytes, start_at: int, stop: int, *, starts: int = 2
) -> float:
    """Put damaged bytes in place of a segment, start, and put the old ones back."""
    last_path = written.places[-1][0]
    borders = {first for other, first, _ in written.places if other == last_path}
    # The newest segment ends where it ends: without the frames behind a border it is a good one.
    told = path != last_path or len(content) not in borders
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        return start(written, written.intact(path, start_at, stop), told=told, starts=starts)
    finally:
        path.write_bytes(before)
        _drop_new(written.directory, {each for each, _, _ in written.places})


@pytest.mark.parametrize("kind", KEYS)
def test_a_flip_of_every_byte(tmp_path: Path, kind: str, seed: int) -> None:
    written = write(tmp_path, KEYS[kind], 8, 120, SMALL_SEGMENT)
    rng = random.Random(seed)
    slowest = 0.0
    for path in sorted({path for path, _, _ in written.places}):
        whole = path.read_bytes()
        for position in range(0, len(whole), STRIDES[kind]):
            content = bytearray(whole)
            content[position] ^= 1 << rng.randrange(8)
            slowest = max(slowest, damage(written, path, bytes(content), position, position + 1))
    assert slowest < START_S_MAX


@pytest.mark.parametrize("kind", KEYS)
def test_a_cut_at_every_byte(tmp_path: Path, kind: str) -> None:
    written = write(tmp_path, KEYS[kind], 8, 120, SMALL_SEGMENT)
    slowest = 0.0
    for path in sorted({path for path, _, _ in written.places}):
        whole = path.read_bytes()
        for size in range(0, len(whole), STRIDES[kind]):
            slowest = max(slowest, damage(written, path, whole[:size], size, len(whole)))
    assert slowest < START_S_MAX


def test_damage_anywhere_in_a_large_journal(tmp_path: Path, seed: int) -> None:
    written = write(tmp_path, Keys(), LARGE_RECORDS, LARGE_BYTES, LARGE_SEGMENT)
    paths = sorted({path for path, _, _ in written.places})
    ends = [0]
    for path in paths:
        ends.append(ends[-1] + path.stat().st_size)
    rng = random.Random(seed)
    times = []
    for number in range(LARGE_DAMAGES):
        starts = 1 if number % 8 else 2
        at = rng.randrange(ends[-1])
        index = bisect_right(ends, at) - 1
        path, position = paths[index], at - ends[index]
        content = bytearray(path.read_bytes())
        if rng.random() < 0.2:
            times.append(
                damage(
                    written, path, bytes(content[:position]), position, len(content), starts=starts
                )
            )
            continue
        stop = min(len(content), position + rng.choice((1, 1, 1, 512, 4096)))
        for place in range(position, stop):
            content[place] ^= rng.randrange(1, 256)
        times.append(damage(written, path, bytes(content), position, stop, starts=starts))
    print(  # noqa: T201  the figures of a run, shown with -rP
        f"{len(times)} damages in {ends[-1] >> 20} MiB: start median "
        f"{sorted(times)[len(times) // 2]:.3f} s, slowest {max(times):.3f} s"
    )
    assert max(times) < START_S_MAX


def test_a_damaged_stretch_is_copied_under_the_name_of_its_place(tmp_path: Path) -> None:
    written = write(tmp_path, Keys(), 8, 120, 1 << 16)
    path, first, last = written.places[1]
    content = bytearray(path.read_bytes())
    content[first + FRAME_HEADER_BYTES] ^= 1
    path.write_bytes(content)
    start(written, written.intact(path, first, last))
    (copy,) = (tmp_path / "quarantine").iterdir()
    assert copy.name == f"{1:016d}-{first:012d}.bin"
    assert copy.read_bytes() == content[first:last]


def test_a_site_starts_with_any_damage_and_its_books_balance(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with opened(make_config(tmp_path / "data")) as bench:
        for number in range(1, 9):
            bench.journal(number)
        config = crash(bench, tmp_path / "crash")
    rows = 8 * 50
    slowest = 0.0
    for number in range(WHOLE_DAMAGES):
        target = tmp_path / f"damaged-{number}"
        shutil.copytree(config.data_dir, target)
        (path,) = (target / "journal").glob("*.segment")
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        damaged = config.model_copy(update={"data_dir": target})
        for _ in range(2):
            began = time.perf_counter()
            with opened(damaged) as again:
                slowest = max(slowest, time.perf_counter() - began)
                assert again.balance.received in (rows, rows - 50)
                assert again.balance.residue == 0
                with again.running():
                    pass
                assert again.rows() == again.balance.received
        shutil.rmtree(target)
    assert slowest < START_S_MAX
