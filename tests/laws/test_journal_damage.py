"""Law: flipped bits in the journal never stop a replay and cost only the frame they hit."""

import random
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.log import GroupRecord, Journal
from tests.laws.journal_disk import MemoryDisk
from tests.laws.test_journal_crash import BYTES_MAX, ROOT, SEGMENT_BYTES, record

RECORDS = 12


def written() -> tuple[MemoryDisk, list[GroupRecord]]:
    disk = MemoryDisk()
    rng = random.Random(7)
    records = [record(n, rng.randint(0, 300), rng) for n in range(1, RECORDS + 1)]
    journal = open_journal(disk)
    for one in records[:7]:
        journal.append(one)
    journal.close()
    journal = open_journal(disk)
    for one in records[7:]:
        journal.append(one)
    journal.close()
    return disk, records


def open_journal(disk: MemoryDisk) -> Journal:
    return Journal.open(ROOT, bytes_max=BYTES_MAX, segment_bytes=SEGMENT_BYTES, files=disk)


def files_of(disk: MemoryDisk) -> list[Path]:
    return sorted(path for path in disk.inodes if path.parent == ROOT and disk.inodes[path].data)


def check(disk: MemoryDisk, records: list[GroupRecord], lost_max: int) -> None:
    journal = open_journal(disk)
    seen = list(journal.replay(0))
    rest = iter(records)
    assert all(one in rest for one in seen), "only what was written, in order"
    assert len(records) - len(seen) <= lost_max
    if len(seen) < len(records):
        assert journal.damaged + journal.torn_bytes > 0
    new = record(journal.next_sequence, 20, random.Random(1))
    assert new.sequence > max((one.sequence for one in seen), default=0)
    journal.append(new)
    journal.close()
    again = open_journal(disk)
    assert list(again.replay(0)) == [*seen, new]
    again.close()


@settings(max_examples=3 * settings().max_examples)
@given(data=st.data())
def test_one_flipped_bit_costs_at_most_one_record(data: st.DataObject) -> None:
    disk, records = written()
    path = data.draw(st.sampled_from(files_of(disk)))
    content = disk.inodes[path].data
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << (bit % 8)
    check(disk, records, 1)


def test_a_flip_in_every_byte_of_a_header_costs_at_most_one_record() -> None:
    sizes = [len(written()[0].inodes[path].data) for path in files_of(written()[0])]
    for number, size in enumerate(sizes):
        for position in range(min(size, 100)):
            disk, records = written()
            disk.inodes[files_of(disk)[number]].data[position] ^= 0x55
            check(disk, records, 1)


@given(data=st.data())
def test_many_flipped_bits_cost_at_most_as_many_records(data: st.DataObject) -> None:
    disk, records = written()
    flips = data.draw(st.integers(1, 6))
    for _ in range(flips):
        path = data.draw(st.sampled_from(files_of(disk)))
        content = disk.inodes[path].data
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    journal = open_journal(disk)
    seen = list(journal.replay(0))
    rest = iter(records)
    assert all(one in rest for one in seen)
    journal.close()


@given(data=st.data())
def test_any_bytes_in_a_segment_never_raise(data: st.DataObject) -> None:
    disk, _ = written()
    path = data.draw(st.sampled_from(files_of(disk)))
    disk.inodes[path].data[:] = data.draw(st.binary(max_size=300))
    journal = open_journal(disk)
    list(journal.replay(0))
    journal.append(record(journal.next_sequence, 20, random.Random(1)))
    journal.close()
