"""Chunks: what a device uploads, checked against its manifest and kept on disk.

Law: a chunk is a run of the manifest's next traces, byte for byte; each holds spans of that trace
and of no other. A chunk is a file that is whole or not there.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import zstandard

from gateway.batch import Payload, Signal, Transport
from gateway.errors import CorruptDataError, MalformedPayloadError, RetryableError
from gateway.otlp.decode import decode
from gateway.retrieve.dive import Listed

CHUNK_BYTES: Final = 256 * 1024
# A trace larger than a chunk travels alone; a device's ring segment bounds it.
CHUNK_BYTES_MAX: Final = 4 << 20
COMPRESSION_LEVEL: Final = 3
DIRECTORY_MODE: Final = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One upload. Units: body is OTLP before compression, sha256 of it in hex digits."""

    request_id: str
    seq: int
    sha256: str
    last: bool
    body: bytes


def check_digest(chunk: Chunk) -> None:
    """Compare the body with the digest that came with it.

    Raises MalformedPayloadError.
    """
    if hashlib.sha256(chunk.body).hexdigest() != chunk.sha256:
        raise MalformedPayloadError("the chunk is not what its digest says")


def split(body: bytes, expected: Sequence[Listed]) -> int:
    """Count how many of the expected traces a body consists of, exactly.

    Raises MalformedPayloadError when it is anything else than the next ones.
    """
    offset = 0
    count = 0
    for one in expected:
        if offset == len(body):
            break
        piece = body[offset : offset + one.bytes]
        if hashlib.sha256(piece).hexdigest() != one.digest:
            raise MalformedPayloadError("a trace is not what the manifest says", offset)
        _check_trace(piece, one.trace_id, offset)
        offset += one.bytes
        count += 1
    if count == 0 or offset != len(body):
        raise MalformedPayloadError("the chunk does not end with a trace of the manifest", offset)
    return count


def _check_trace(body: bytes, trace_id: str, offset: int) -> None:
    payload = Payload(
        body=body,
        signal=Signal.TRACES,
        transport=Transport.HTTP,
        identity="",
        arrival_ns=0,
        wire_bytes=len(body),
    )
    spans = decode([payload]).spans
    high, low = np.uint64(int(trace_id[:16], 16)), np.uint64(int(trace_id[16:], 16))
    if not len(spans) or not np.all((spans["trace_hi"] == high) & (spans["trace_lo"] == low)):
        raise MalformedPayloadError("a trace holds spans of another trace", offset)


def chunk_path(directory: Path, home: str, request_id: str, seq: int) -> Path:
    """Name the file of a chunk."""
    return directory / home / f"{request_id}-{seq:06d}.otlp.zst"


def store(path: Path, body: bytes) -> None:
    """Write a chunk so that it survives anything that happens after this returns.

    Raises RetryableError when the disk does not take it now.
    """
    beside = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(body))
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
        for directory in (path.parent, path.parent.parent):
            _sync(directory)
    except OSError as error:
        raise RetryableError("the chunk cannot be stored now") from error


def load(path: Path) -> bytes:
    """Read the OTLP bytes of a stored chunk.

    Raises CorruptDataError.
    """
    try:
        with path.open("rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file)
            body = reader.read(CHUNK_BYTES_MAX + 1)
    except (OSError, zstandard.ZstdError) as error:
        raise CorruptDataError(f"{path.name} cannot be read") from error
    if len(body) > CHUNK_BYTES_MAX:
        raise CorruptDataError(f"{path.name} is larger than any chunk")
    return body


def remove(paths: Sequence[Path]) -> None:
    """Delete chunk files, and their directory when it is empty."""
    for path in paths:
        path.unlink(missing_ok=True)
    for directory in {path.parent for path in paths}:
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
