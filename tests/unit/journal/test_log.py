"""The journal on a real file system: restart, tears, damage, limits and foreign files."""

import random
from pathlib import Path

import pytest
import zstandard

from gateway.batch import Signal, Transport
from gateway.errors import JournalUnavailableError, PayloadTooLargeError, StartError
from gateway.journal import frame, quarantine
from gateway.journal.frame import pack_frame, seed_of
from gateway.journal.log import Entry, GroupRecord, Journal

LIMIT = 1 << 20


def record(sequence: int, *bodies: bytes, identity: str = "dock-camera") -> GroupRecord:
    entries = tuple(
        Entry(
            arrival_ns=10_000 + sequence,
            transport=Transport.HTTP,
            identity=identity,
            length=len(body),
            wire_bytes=7,
            signal=Signal.TRACES,
        )
        for body in bodies
    )
    return GroupRecord(sequence=sequence, entries=entries, body=b"".join(bodies))


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.segment"))


def filled(directory: Path, count: int, segment_bytes: int = LIMIT) -> list[GroupRecord]:
    journal = Journal.open(directory, bytes_max=LIMIT, segment_bytes=segment_bytes)
    first = journal.next_sequence
    records = [record(first + n, noise(100, n), b"b" * n) for n in range(count)]
    for one in records:
        journal.append(one)
    journal.close()
    return records


def replayed(directory: Path, after: int = 0) -> list[GroupRecord]:
    journal = Journal.open(directory, bytes_max=LIMIT)
    try:
        return list(journal.replay(after))
    finally:
        journal.close()


def test_what_was_appended_is_replayed_after_a_restart(tmp_path: Path) -> None:
    first = filled(tmp_path, 3)
    second = filled(tmp_path, 2)
    assert [one.sequence for one in second] == [4, 5]
    assert replayed(tmp_path) == first + second
    assert replayed(tmp_path, after=2) == first[2:] + second
    assert replayed(tmp_path, after=9) == []


def test_a_body_may_be_a_view_of_memory_that_is_not_copied_before(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, bytes_max=LIMIT)
    entry = Entry(arrival_ns=1, transport=Transport.GRPC, identity="", length=4)
    journal.append(GroupRecord(sequence=1, entries=(entry,), body=memoryview(b"body")))
    [back] = journal.replay(0)
    assert back.body == b"body"
    journal.close()


def test_append_reports_the_bytes_on_disk(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, bytes_max=LIMIT)
    written = journal.append(record(1, noise(1000)))
    assert journal.bytes_used == written + frame.SEGMENT_HEADER_BYTES
    [segment] = segments(tmp_path)
    assert segment.stat().st_size == journal.bytes_used
    journal.close()


def test_an_empty_group_and_an_unsynced_journal_work(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, bytes_max=LIMIT, fsync=False)
    journal.append(GroupRecord(sequence=1, entries=(), body=b""))
    assert list(journal.replay(0)) == [GroupRecord(sequence=1, entries=(), body=b"")]
    journal.close()


def test_a_tail_torn_at_any_byte_is_cut_and_the_rest_is_kept(tmp_path: Path) -> None:
    records = filled(tmp_path / "whole", 3)
    [source] = segments(tmp_path / "whole")
    content = source.read_bytes()
    ends = [frame.SEGMENT_HEADER_BYTES]
    for one in records:
        packed = pack_frame(one, 0, zstandard.ZstdCompressor(level=frame.ZSTD_LEVEL))
        ends.append(ends[-1] + len(packed))
    assert ends[-1] == len(content)
    directory = tmp_path / "torn"
    directory.mkdir()
    (directory / "lock").write_bytes((tmp_path / "whole" / "lock").read_bytes())
    for size in range(frame.SEGMENT_HEADER_BYTES, len(content)):
        for old in segments(directory):
            old.unlink()
        (directory / source.name).write_bytes(content[:size])
        whole = sum(end <= size for end in ends) - 1
        journal = Journal.open(directory, bytes_max=LIMIT, fsync=False)
        assert list(journal.replay(0)) == records[:whole]
        assert journal.torn_bytes == size - ends[whole]
        assert journal.damaged == 0 or size - ends[whole] >= frame.FRAME_HEADER_BYTES
        new = record(journal.next_sequence, b"new")
        journal.append(new)
        assert list(journal.replay(0)) == [*records[:whole], new]
        journal.close()


def test_a_damaged_frame_in_the_middle_is_quarantined_once(tmp_path: Path) -> None:
    records = filled(tmp_path, 5)
    [segment] = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    start = frame.SEGMENT_HEADER_BYTES + len(content) // 4
    content[start] ^= 0xFF
    segment.write_bytes(content)
    for _ in range(2):
        journal = Journal.open(tmp_path, bytes_max=LIMIT)
        assert len(list(journal.replay(0))) == len(records) - 1
        assert list(journal.replay(0)) == list(journal.replay(0))
        assert journal.damaged == 1
        journal.close()
    [copy] = (tmp_path / "quarantine").iterdir()
    assert copy.read_bytes() in bytes(content)
    assert content[start] in copy.read_bytes()


def test_a_frame_planted_in_a_body_is_never_taken_for_a_frame(tmp_path: Path) -> None:
    compressor = zstandard.ZstdCompressor(level=frame.ZSTD_LEVEL)
    forged = pack_frame(record(99, b"forged", identity="admin"), seed_of(0), compressor)
    journal = Journal.open(tmp_path, bytes_max=LIMIT)
    journal.append(record(1, noise(3000), forged, noise(3000, 1)))
    journal.append(record(2, b"after"))
    journal.close()
    [segment] = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    assert forged in content, "incompressible bytes are stored as they are"
    content[frame.SEGMENT_HEADER_BYTES + 8] ^= 1  # the sequence in the first frame's header
    segment.write_bytes(content)
    assert [one.sequence for one in replayed(tmp_path)] == [2]


def test_past_its_limit_the_journal_refuses_until_something_is_released(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, bytes_max=8000)
    count = 0
    with pytest.raises(JournalUnavailableError) as caught:  # noqa: PT012
        while True:
            journal.append(record(journal.next_sequence, noise(400, count)))
            count += 1
    assert caught.value.retry_after_s is not None
    assert 8 <= count <= 20
    assert journal.bytes_used <= 8000
    before = len(segments(tmp_path))
    journal.release(journal.next_sequence - 2)
    assert len(segments(tmp_path)) < before
    journal.append(record(journal.next_sequence, noise(400)))
    assert journal.bytes_used <= 8000
    journal.close()


def test_release_keeps_every_segment_with_a_record_above_the_cursor(tmp_path: Path) -> None:
    records = filled(tmp_path, 12, segment_bytes=500)
    journal = Journal.open(tmp_path, bytes_max=LIMIT)
    for one in records:
        journal.release(one.sequence)
        assert list(journal.replay(one.sequence)) == records[one.sequence :]
    assert len(segments(tmp_path)) == 1
    journal.close()


def test_a_record_that_is_no_longer_needed_does_not_stay_on_disk(tmp_path: Path) -> None:
    """Bodies are kept as they were sent; what a contract forbids the site shall not stay here."""
    journal = Journal.open(tmp_path, bytes_max=LIMIT)
    for sequence in (1, 2):
        journal.append(record(sequence, noise(4_000, sequence)))
        journal.release(sequence)
    assert journal.bytes_used < 2 * 4_000, "the first record left with the append of the second"
    journal.close()
    assert sum(path.stat().st_size for path in segments(tmp_path)) < 4_000
    after = Journal.open(tmp_path, bytes_max=LIMIT)
    assert after.next_sequence == 3
    assert list(after.replay(0)) == []
    after.close()


def test_sequences_go_on_after_everything_was_released(tmp_path: Path) -> None:
    filled(tmp_path, 6, segment_bytes=300)
    for _ in range(2):
        journal = Journal.open(tmp_path, bytes_max=LIMIT)
        journal.release(6)
        assert journal.next_sequence == 7
        journal.close()


def test_sequences_never_fall_below_what_a_checkpoint_names(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, bytes_max=LIMIT, after=41)
    assert journal.next_sequence == 42
    list(journal.replay(50))
    assert journal.next_sequence == 51
    journal.close()


def test_a_full_journal_whose_only_segment_is_released_heals(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, bytes_max=4000)
    journal.append(record(1, noise(2500)))
    with pytest.raises(JournalUnavailableError):
        journal.append(record(2, noise(2500)))
    journal.close()
    journal = Journal.open(tmp_path, bytes_max=4000)
    with pytest.raises(JournalUnavailableError):
        journal.append(record(2, noise(2500)))
    journal.release(1)
    journal.append(record(2, noise(2500)))
    with pytest.raises(PayloadTooLargeError, match=r"above journal\.bytes_max"):
        journal.append(record(3, noise(5000)))
    assert [one.sequence for one in journal.replay(0)] == [2]
    journal.close()


def test_a_second_process_on_the_directory_is_refused(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, bytes_max=LIMIT)
    with pytest.raises(StartError, match="another process"):
        Journal.open(tmp_path, bytes_max=LIMIT)
    journal.close()
    Journal.open(tmp_path, bytes_max=LIMIT).close()


def test_an_unusable_directory_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be opened: Not a directory"):
        Journal.open(tmp_path / "file" / "journal", bytes_max=LIMIT)


def test_a_closed_journal_refuses(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, bytes_max=LIMIT)
    journal.close()
    with pytest.raises(JournalUnavailableError, match="closed"):
        journal.append(record(1, b""))


def test_a_group_above_the_frame_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "RAW_BYTES_MAX", 100)
    journal = Journal.open(tmp_path, bytes_max=LIMIT)
    with pytest.raises(PayloadTooLargeError):
        journal.append(record(1, noise(101)))
    journal.append(record(1, b"small"))
    journal.close()


def test_foreign_empty_and_copied_segments_are_left_alone(tmp_path: Path) -> None:
    records = filled(tmp_path / "a", 3)
    filled(tmp_path / "b", 2)
    [own] = segments(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("not ours")
    (tmp_path / "a" / f"{7:016d}.segment").write_bytes(own.read_bytes())
    (tmp_path / "a" / f"{8:016d}.segment").write_bytes(segments(tmp_path / "b")[0].read_bytes())
    (tmp_path / "a" / f"{9:016d}.segment").write_bytes(b"")
    journal = Journal.open(tmp_path / "a", bytes_max=LIMIT)
    assert list(journal.replay(0)) == records
    assert journal.damaged == 3
    assert journal.next_sequence > 3
    journal.append(record(journal.next_sequence, b"on"))
    assert len(list(journal.replay(0))) == 4
    journal.close()


def test_a_missing_and_a_shortened_segment_are_counted(tmp_path: Path) -> None:
    records = filled(tmp_path, 6, segment_bytes=300)
    found = segments(tmp_path)
    assert len(found) >= 4
    found[1].unlink()
    found[2].write_bytes(found[2].read_bytes()[:-1])
    journal = Journal.open(tmp_path, bytes_max=LIMIT)
    seen = list(journal.replay(0))
    assert records[0] in seen
    assert records[-1] in seen
    assert journal.damaged >= 2
    journal.close()


def test_the_id_survives_the_loss_of_the_lock_file(tmp_path: Path) -> None:
    records = filled(tmp_path, 3)
    (tmp_path / "lock").unlink()
    assert replayed(tmp_path) == records
    assert replayed(tmp_path) == records


def test_a_damaged_tail_that_cannot_be_copied_is_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been acknowledged; the only bytes of it are those in the segment."""
    records = filled(tmp_path, 2)
    [segment] = segments(tmp_path)
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(quarantine, "QUARANTINE_BYTES_MAX", 10)
        journal = Journal.open(tmp_path, bytes_max=LIMIT)
        new = record(journal.next_sequence, b"new")
        journal.append(new)
        assert list(journal.replay(0)) == [records[0], new]
        assert (journal.damaged, journal.torn_bytes) == (1, 0)
        journal.close()
    assert segment.read_bytes() == content
    again = Journal.open(tmp_path, bytes_max=LIMIT)
    assert list(again.replay(0)) == [records[0], new]
    again.close()
