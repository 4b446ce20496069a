"""Claims about the ring that the law's random schedules do not name one by one."""

import os
from pathlib import Path

import pytest

from collectors.device import files
from collectors.device.evictions import ROWS_MAX, Evicted, Evictions, Reason
from collectors.device.pins import Pin, Pins
from collectors.device.ring import Ring
from collectors.device.segment import (
    DATA_OFFSET,
    Entry,
    maybe_record,
    pack_record,
    record_bytes,
)
from gateway.errors import CorruptDataError, StartError

SEGMENTS = 5
SEGMENT_BYTES = 2 * DATA_OFFSET
RECORD = 1_000


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def open_ring(directory: Path, now_ns: int = 1, segments: int = SEGMENTS) -> Ring:
    return Ring(
        directory, now_ns=now_ns, segments=segments, segment_bytes=SEGMENT_BYTES, compress=False
    )


def fill(ring: Ring, first: int, count: int) -> None:
    for number in range(first, first + count):
        assert ring.append(
            key(number), os.urandom(RECORD), written_ns=number, first=True, last=True
        )


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return open_ring(tmp_path)


def test_a_pointer_names_segment_and_sequence(ring: Ring) -> None:
    assert str(ring.append(key(1), b"x", written_ns=1)) == "ring:1/1"


def test_space_is_fixed_at_creation(tmp_path: Path, ring: Ring) -> None:
    before = sum(path.stat().st_size for path in tmp_path.glob("*.seg"))
    fill(ring, 1, 100)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.seg")) == before
    assert before == SEGMENTS * SEGMENT_BYTES


def test_a_payload_larger_than_a_segment_is_refused_and_counted(ring: Ring) -> None:
    assert ring.append(key(1), bytes(SEGMENT_BYTES), written_ns=1) is None
    assert ring.stats().refused == 1
    assert ring.stats().records == 0


def test_a_pinned_segment_outlives_the_ring(ring: Ring) -> None:
    fill(ring, 1, 3)
    assert ring.pin("r1", ring.find([key(1)])[key(1)], priority=1, until_ns=10_000)
    fill(ring, 10, 200)
    assert key(1) in ring.find([key(1)])
    ring.unpin("r1")
    fill(ring, 300, 200)
    assert not ring.find([key(1)])


def test_a_pin_ends_with_its_lease(ring: Ring) -> None:
    fill(ring, 1, 3)
    assert ring.pin("r1", ring.find([key(1)])[key(1)], priority=1, until_ns=50)
    fill(ring, 10, 200)
    assert not ring.find([key(1)])
    assert not ring.pinned()


def test_pins_survive_a_restart(tmp_path: Path) -> None:
    ring = open_ring(tmp_path)
    fill(ring, 1, 3)
    ring.pin("r1", ring.find([key(1)])[key(1)], priority=1, until_ns=10_000)
    ring.close()
    ring = open_ring(tmp_path)
    fill(ring, 10, 200)
    assert key(1) in ring.find([key(1)])
    ring.close()


def test_overwritten_data_is_refused_not_guessed(ring: Ring) -> None:
    fill(ring, 1, 1)
    (entry,) = ring.find([key(1)])[key(1)]
    fill(ring, 10, 200)
    with pytest.raises(CorruptDataError):
        ring.read(entry)


def test_a_damaged_record_is_declared(tmp_path: Path, ring: Ring) -> None:
    fill(ring, 1, 2)
    (entry,) = ring.find([key(1)])[key(1)]
    path = sorted(tmp_path.glob("*.seg"))[0]
    with path.open("r+b") as file:
        file.seek(entry.offset + 100)
        file.write(b"\xff\x00\xff")
    with pytest.raises(CorruptDataError):
        ring.read(entry)
    assert [row.reason for row in ring.evicted()] == [Reason.CORRUPT]
    assert ring.missing(())
    assert ring.broken() == []  # only sealed segments have a hash yet


def test_a_changed_segment_breaks_the_chain(tmp_path: Path, ring: Ring) -> None:
    fill(ring, 1, 10)
    assert ring.broken() == []
    path = sorted(tmp_path.glob("*.seg"))[0]
    image = bytearray(path.read_bytes())
    image[DATA_OFFSET + 200] ^= 1
    path.write_bytes(image)
    assert ring.broken() == [1]


def test_sealed_segments_are_named_by_their_hash(ring: Ring) -> None:
    fill(ring, 1, 10)
    hashes = ring.hashes([1, 2, 3, 4])
    assert [generation for generation, _ in hashes] == [1, 2, 3]
    assert len({digest for _, digest in hashes}) == 3


def test_lost_records_make_their_time_incomplete(ring: Ring) -> None:
    fill(ring, 1, 1)
    ring.declare_lost(100, 200)
    assert ring.missing_between(150, 160)
    assert not ring.missing_between(201, 300)


@pytest.mark.parametrize("segments", [SEGMENTS - 1, SEGMENTS + 1])
def test_another_shape_is_refused(tmp_path: Path, segments: int) -> None:
    open_ring(tmp_path).close()
    if segments > SEGMENTS:
        open_ring(tmp_path, segments=segments).close()
    else:
        with pytest.raises(StartError, match="more than"):
            open_ring(tmp_path, segments=segments)
    with pytest.raises(StartError, match="bytes"):
        Ring(tmp_path, now_ns=1, segments=segments + 1, segment_bytes=2 * SEGMENT_BYTES)


def test_a_second_process_is_refused(tmp_path: Path, ring: Ring) -> None:
    with pytest.raises(StartError):
        open_ring(tmp_path)
    ring.close()
    open_ring(tmp_path).close()


def test_a_disk_error_reaches_the_caller_and_changes_nothing(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(ring, 1, 1)

    def full(handle: int, data: bytes, offset: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_all", full)
        with pytest.raises(OSError, match="space"):
            ring.append(key(2), b"x", written_ns=2)
    assert not ring.find([key(2)])
    fill(ring, 3, 1)
    assert len(ring.read(ring.find([key(3)])[key(3)][0])) == RECORD


def test_the_table_of_evictions_stays_short_and_covers_all() -> None:
    table = Evictions()
    for number in range(0, 400, 4):
        table.add(
            Evicted(
                first_sequence=number,
                last_sequence=number,
                from_ns=number,
                to_ns=number,
                count=1,
                reason=Reason.LOST,
            )
        )
    assert len(table.rows) == ROWS_MAX
    assert table.count <= 100
    for number in range(0, 400, 4):
        assert any(row.first_sequence <= number <= row.last_sequence for row in table.rows)


def test_over_the_cap_the_same_pins_go_on_every_device(tmp_path: Path) -> None:
    kept = []
    for device in ("a", "b"):
        (tmp_path / device).mkdir()
        pins = Pins(tmp_path / device, segments_max=3)
        order = range(10) if device == "a" else reversed(range(10))
        for number in order:
            pins.add(
                Pin(
                    name=f"r{number}",
                    priority=number * 7 % 10,
                    until_ns=10,
                    generations=frozenset({number}),
                )
            )
        kept.append(pins.names)
    assert kept[0] == kept[1]
    assert len(kept[0]) == 3


def test_a_record_of_an_earlier_generation_never_passes() -> None:
    entry = Entry(
        generation=3,
        sequence=1,
        written_ns=1,
        offset=0,
        stored_bytes=5,
        raw_bytes=5,
        flags=0,
        trace_id=key(1),
    )
    record = pack_record(entry, b"bytes")
    assert maybe_record(record, 0, 3) == entry
    assert maybe_record(record, 0, 4) is None


def test_a_trace_whose_later_part_is_gone_is_not_whole(ring: Ring) -> None:
    ring.append(key(1), b"root", written_ns=1, first=True)
    found = ring.find([key(1)])[key(1)]
    assert not ring.missing(found)
    assert ring.pin("r1", found, priority=1, until_ns=10_000)
    fill(ring, 10, 5)
    ring.append(key(1), b"late", written_ns=20, last=True)
    assert not ring.missing(ring.find([key(1)])[key(1)])
    fill(ring, 30, 200)
    assert ring.find([key(1)])[key(1)] == found
    assert ring.missing(found)


def test_records_behind_a_damaged_one_do_not_come_back(tmp_path: Path) -> None:
    ring = open_ring(tmp_path)
    for number in (1, 2, 3):
        ring.append(key(number), bytes(500), written_ns=number)
    (second,) = ring.find([key(2)])[key(2)]
    (third,) = ring.find([key(3)])[key(3)]
    path = sorted(tmp_path.glob("*.seg"))[0]

    def crash() -> None:
        handles = ring._slots._files
        while handles:
            os.close(handles.pop())

    crash()
    with path.open("r+b") as file:
        file.seek(second.offset + 100)
        file.write(b"\xff\x00\xff")
    ring = open_ring(tmp_path, now_ns=10)
    assert not ring.find([key(2), key(3)])
    ring.append(key(4), bytes(500), written_ns=11)
    (fourth,) = ring.find([key(4)])[key(4)]
    assert fourth.offset + record_bytes(fourth.stored_bytes) == third.offset
    crash()
    ring = open_ring(tmp_path, now_ns=12)
    assert set(ring.find(map(key, range(9)))) == {key(1), key(4)}
    ring.close()
