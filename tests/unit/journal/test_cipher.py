"""An encrypted journal: unreadable without its key, never a nonce twice, damage costs one frame."""

import errno
import random
from pathlib import Path
from typing import Final

import google_crc32c
import pytest
import zstandard

from gateway.batch import Transport
from gateway.errors import CorruptDataError, JournalUnavailableError, StartError
from gateway.journal import frame
from gateway.journal.cipher import OVERHEAD_BYTES, PREFIX_BYTES, Keys, Sealer, key_id
from gateway.journal.frame import (
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES_MAX,
    Entry,
    GroupRecord,
    maybe_frame,
    maybe_segment,
    pack_frame,
    seed_of,
    unpack_payload,
)
from gateway.journal.log import Journal
from tests.laws.journal_disk import MemoryDisk

LIMIT: Final = 1 << 20
OLD: Final = bytes(range(32))
NEW: Final = bytes(range(32, 64))
JOURNAL_ID: Final = 0x1122334455667788
SEED: Final = seed_of(JOURNAL_ID)
GOLDEN: Final = Path(__file__).resolve().parents[2] / "golden"


def record(sequence: int, body: bytes) -> GroupRecord:
    entry = Entry(
        arrival_ns=1_700_000_000_000_000_000,
        transport=Transport.HTTP,
        identity="cam-é",
        length=len(body),
        wire_bytes=2,
    )
    return GroupRecord(sequence=sequence, entries=(entry,), body=body)


def append(directory: Path, keys: Keys, *bodies: bytes) -> list[GroupRecord]:
    journal = Journal.open(directory, bytes_max=LIMIT, keys=keys)
    records = [record(journal.next_sequence + n, body) for n, body in enumerate(bodies)]
    for one in records:
        journal.append(one)
    journal.close()
    return records


def replayed(directory: Path, keys: Keys, after: int = 0) -> list[GroupRecord]:
    journal = Journal.open(directory, bytes_max=LIMIT, keys=keys)
    try:
        return list(journal.replay(after))
    finally:
        assert journal.damaged == 0
        journal.close()


def test_an_encrypted_journal_holds_no_body_and_comes_back(tmp_path: Path) -> None:
    keys = Keys([OLD])
    body = random.Random(1).randbytes(2_000)  # does not compress, so a plain frame shows it
    written = append(tmp_path, keys, body, b"second")
    segments = sorted(tmp_path.glob("*.segment"))
    for path in segments:
        assert body[:32] not in path.read_bytes()
        header = maybe_segment(path.read_bytes()[:SEGMENT_HEADER_BYTES_MAX])
        assert header is not None
        assert header.key_id == key_id(OLD)
    assert replayed(tmp_path, Keys([OLD])) == written
    append(tmp_path / "plain", Keys(), body)
    [plain] = (tmp_path / "plain").glob("*.segment")
    assert body[:32] in plain.read_bytes()


def test_append_tells_the_bytes_of_an_encrypted_frame(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, bytes_max=LIMIT, keys=Keys([OLD]))
    size = journal.append(record(1, b"body"))
    assert journal.bytes_used == size + SEGMENT_HEADER_BYTES_MAX
    [segment] = tmp_path.glob("*.segment")
    assert segment.stat().st_size == journal.bytes_used
    journal.close()


def test_keys_are_changed_segment_by_segment(tmp_path: Path) -> None:
    plain = append(tmp_path, Keys(), b"plain")
    old = append(tmp_path, Keys([OLD]), b"old")
    new = append(tmp_path, Keys([NEW, OLD]), b"new")
    assert replayed(tmp_path, Keys([NEW, OLD])) == plain + old + new
    assert replayed(tmp_path, Keys([OLD, NEW])) == plain + old + new
    assert replayed(tmp_path, Keys([NEW]), after=2) == new, "what is sealed needs no key"


@pytest.mark.parametrize("keys", [Keys(), Keys([NEW])], ids=["no key", "wrong key"])
def test_a_missing_key_is_said_and_costs_nothing(tmp_path: Path, keys: Keys) -> None:
    written = append(tmp_path, Keys([OLD]), b"one", b"two")
    for _ in range(2):
        with pytest.raises(StartError, match=key_id(OLD).hex()) as caught:
            replayed(tmp_path, keys)
        assert "0000000000000001.segment" in str(caught.value)
        assert "journal.encryption.key_files" in str(caught.value)
    assert not (tmp_path / "quarantine").exists()
    assert replayed(tmp_path, Keys([NEW, OLD])) == written


def test_a_missing_key_is_said_even_without_the_segment_header(tmp_path: Path) -> None:
    append(tmp_path, Keys([OLD]), b"one")
    [segment] = tmp_path.glob("*.segment")
    content = bytearray(segment.read_bytes())
    content[60] ^= 1
    segment.write_bytes(content)
    journal = Journal.open(tmp_path, bytes_max=LIMIT, keys=Keys([NEW]))
    with pytest.raises(StartError, match=key_id(OLD).hex()):
        list(journal.replay(0))
    journal.close()


def test_every_flipped_byte_costs_at_most_its_own_record(tmp_path: Path) -> None:
    written = append(tmp_path, Keys([OLD]), b"one", b"two", b"three")
    [segment] = tmp_path.glob("*.segment")
    whole = segment.read_bytes()
    for position in range(len(whole)):
        content = bytearray(whole)
        content[position] ^= 0x55
        for path in tmp_path.glob("*.segment"):
            path.unlink()
        segment.write_bytes(content)
        journal = Journal.open(tmp_path, bytes_max=LIMIT, fsync=False, keys=Keys([OLD]))
        seen = list(journal.replay(0))
        assert len(seen) >= len(written) - (position >= SEGMENT_HEADER_BYTES_MAX)
        assert all(one in written for one in seen)
        assert journal.damaged
        journal.close()


def test_a_nonce_is_never_used_twice_whatever_fails() -> None:
    """Frames of failed writes count too: their bytes may still be on the disk."""
    sealed: list[bytes] = []

    class Disk(MemoryDisk):
        def write(self, handle: int, data: memoryview) -> int:
            if bytes(data[:4]) == frame.FRAME_MAGIC:
                start = FRAME_HEADER_BYTES
                sealed.append(bytes(data[start : start + PREFIX_BYTES]))
            return super().write(handle, data)

    disk, rng = Disk(), random.Random(5)
    for _ in range(4):
        journal = Journal.open(
            Path("/journal"), bytes_max=LIMIT, segment_bytes=900, keys=Keys([OLD]), files=disk
        )
        for _ in range(30):
            disk.faults = {len(disk.calls) + rng.randrange(6): OSError(errno.EIO, "failed")}
            try:
                journal.append(record(journal.next_sequence, rng.randbytes(150)))
            except JournalUnavailableError:
                continue
        disk.reboot(rng)
    assert len(sealed) > 50
    assert len(set(sealed)) == len(sealed)
    assert len({each[:24] for each in sealed}) > 10, "many segments"


def forged(data: bytes, sequence: int | None = None, flip: int | None = None) -> bytes:
    """Change a frame and make its checksums fit again, as one could who writes to the disk."""
    changed = bytearray(data)
    if sequence is not None:
        changed[8:16] = sequence.to_bytes(8, "little")
    if flip is not None:
        changed[flip] ^= 1
    head = google_crc32c.extend(SEED, bytes(changed[:24]))
    changed[24:28] = head.to_bytes(4, "little")
    check = google_crc32c.extend(head, bytes(changed[28:-4]))
    changed[-4:] = check.to_bytes(4, "little")
    return bytes(changed)


def read(data: bytes, journal_id: int = JOURNAL_ID) -> GroupRecord:
    header = maybe_frame(data[:FRAME_HEADER_BYTES], SEED)
    assert header is not None
    return unpack_payload(header, data[FRAME_HEADER_BYTES:], Keys([OLD]), journal_id)


def test_a_frame_that_was_changed_or_moved_is_noticed_although_its_checksums_fit() -> None:
    one = record(5, b"abcde")
    sealer = Sealer(OLD, bytes(16), JOURNAL_ID)
    data = pack_frame(one, SEED, zstandard.ZstdCompressor(level=1), sealer)
    assert read(forged(data)) == one
    with pytest.raises(CorruptDataError, match="changed after it was encrypted"):
        read(forged(data, sequence=6))
    with pytest.raises(CorruptDataError, match="changed after it was encrypted"):
        read(data, JOURNAL_ID + 1)
    prefix = range(FRAME_HEADER_BYTES + 8, FRAME_HEADER_BYTES + PREFIX_BYTES)
    text = range(FRAME_HEADER_BYTES + PREFIX_BYTES, len(data) - 4)
    for position in (*prefix, *text):
        with pytest.raises(CorruptDataError, match="changed after it was encrypted"):
            read(forged(data, flip=position))


def test_an_encrypted_payload_that_is_too_short_is_corrupt() -> None:
    with pytest.raises(CorruptDataError, match="cut off"):
        Keys([OLD]).open(b"", bytes(OVERHEAD_BYTES - 1), JOURNAL_ID)


@pytest.mark.parametrize("version", [1, 2])
def test_golden_segments_are_still_read(tmp_path: Path, version: int) -> None:
    """Written once by each version of the format; a later one must still read them."""
    text = (GOLDEN / f"journal-{version}.hex").read_text()
    (tmp_path / f"{1:016d}.segment").write_bytes(bytes.fromhex(text))
    assert replayed(tmp_path, Keys([OLD])) == [record(1, b"abcde"), record(2, b"")]


@pytest.mark.parametrize(("version", "keys"), [(1, Keys()), (2, Keys([OLD]))])
def test_golden_segments_are_still_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, keys: Keys
) -> None:
    def token_bytes(count: int) -> bytes:
        return bytes(range(count))

    lock = JOURNAL_ID.to_bytes(8, "little")
    (tmp_path / "lock").write_bytes(lock + google_crc32c.value(lock).to_bytes(4, "little"))
    monkeypatch.setattr("secrets.token_bytes", token_bytes)
    append(tmp_path, keys, b"abcde", b"")
    [segment] = tmp_path.glob("*.segment")
    golden = bytes.fromhex((GOLDEN / f"journal-{version}.hex").read_text())
    # The compressor may choose other bytes for the same text, the header may not.
    end = 60 if version == 1 else SEGMENT_HEADER_BYTES_MAX
    assert segment.read_bytes()[: end + 16] == golden[: end + 16]
