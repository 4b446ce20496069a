"""Chunks: only the next traces of the manifest, exactly, and only with their own spans."""

import hashlib
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from gateway.errors import CorruptDataError, MalformedPayloadError, RetryableError
from gateway.retrieve.chunks import (
    CHUNK_BYTES_MAX,
    Chunk,
    check_digest,
    chunk_path,
    load,
    remove,
    split,
    store,
)
from gateway.retrieve.dive import Listed


def otlp(*trace_ids: bytes) -> bytes:
    data = TracesData()
    for trace_id in trace_ids:
        span = data.resource_spans.add().scope_spans.add().spans.add()
        span.trace_id = trace_id
        span.span_id = trace_id[:8]
    return data.SerializeToString()


def listed(trace_id: bytes, body: bytes) -> Listed:
    digest = hashlib.sha256(body).hexdigest()
    return Listed(trace_id=trace_id.hex(), bytes=len(body), digest=digest, whole=True)


IDS = [bytes([number]) * 16 for number in (1, 2, 3)]
BODIES = [otlp(trace_id) for trace_id in IDS]
EXPECTED = [listed(trace_id, body) for trace_id, body in zip(IDS, BODIES, strict=True)]


def test_a_chunk_is_a_run_of_the_next_traces() -> None:
    assert split(BODIES[0], EXPECTED) == 1
    assert split(b"".join(BODIES), EXPECTED) == 3


@pytest.mark.parametrize(
    "body",
    [b"", BODIES[1], BODIES[0][:-1], BODIES[0] + b"x", BODIES[0] + BODIES[2], b"".join(BODIES) * 2],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedPayloadError):
        split(body, EXPECTED)


@pytest.mark.parametrize("body", [otlp(IDS[1]), otlp(IDS[0], IDS[1]), b"\x0a\x00", b"\xff\xff"])
def test_a_promised_trace_may_not_hold_spans_of_another(body: bytes) -> None:
    with pytest.raises(MalformedPayloadError):
        split(body, [listed(IDS[0], body)])


def test_damage_on_the_way_is_told_from_a_broken_promise() -> None:
    digest = hashlib.sha256(b"body").hexdigest()
    check_digest(Chunk(request_id="1", seq=0, sha256=digest, last=True, body=b"body"))
    with pytest.raises(MalformedPayloadError):
        check_digest(Chunk(request_id="1", seq=0, sha256=digest, last=True, body=b"boby"))


def test_a_stored_chunk_is_whole_and_private(tmp_path: Path) -> None:
    path = chunk_path(tmp_path / "dives", "d1", "r1", 7)
    assert path.name == "r1-000007.otlp.zst"
    (tmp_path / "dives").mkdir()
    store(path, b"body")
    store(path, b"body")
    assert load(path) == b"body"
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert path.parent.stat().st_mode & 0o077 == 0
    remove([path])
    assert not path.parent.exists()


def test_a_damaged_or_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "dives" / "d1" / "r1-000000.otlp.zst"
    with pytest.raises(CorruptDataError):
        load(path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not zstd")
    with pytest.raises(CorruptDataError):
        load(path)
    store(path, bytes(CHUNK_BYTES_MAX + 1))
    with pytest.raises(CorruptDataError, match="larger"):
        load(path)


def test_a_full_disk_asks_the_device_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RetryableError):
        store(tmp_path / "d" / "x.otlp.zst", b"body")
