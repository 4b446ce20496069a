"""The audit log: who looked at trace content, written before the content is given out; and who
tried to send as somebody else.

Law: a line is `body` plus `h`, where h = SHA-256(previous h || canonical body), so that a line that
is changed, moved or removed from the middle is noticed. The file is only ever appended to. If a
line cannot be written, the content is not given out. Lines hold ids and names, never content.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Final

from gateway.api.access import Principal
from gateway.batch import Json
from gateway.errors import RetryableError, StartError

AUDIT_BYTES_MAX: Final = 1 << 30  # past it content is refused until the file is moved away
TRACES_PER_LINE_MAX: Final = 1_000
LINE_BYTES_MAX: Final = 1 << 16
PATH_LENGTH_MAX: Final = 2_048
NO_HASH: Final = bytes(32)


def _canonical(body: Json) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _chained(previous: bytes, body: Json) -> bytes:
    return hashlib.sha256(previous + _canonical(body)).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What checking a log found. `problems` names lines, counted from 1."""

    lines: int
    last: bytes
    problems: tuple[str, ...]


def verify(path: Path) -> Verified:
    """Check the chain of a whole log.

    A log that continues one that was moved away starts with the last hash of that one.
    """
    problems: list[str] = []
    previous: bytes | None = None
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                body = json.loads(line)
                digest = bytes.fromhex(body.pop("h"))
                before = bytes.fromhex(body["prev"])
            except (ValueError, KeyError, TypeError, AttributeError):
                problems.append(f"line {number} is torn or no record")
                continue
            if previous is None:
                previous = before
            if before != previous:
                problems.append(f"line {number} does not follow the line before")
            if _chained(before, body) != digest:
                problems.append(f"line {number} was changed")
            previous = digest
    return Verified(lines=number, last=previous or NO_HASH, problems=tuple(problems))


class AuditLog:
    """Append records to one file, from any thread."""

    def __init__(self, path: Path, now_ns: Callable[[], int]) -> None:
        self._path = path
        self._now_ns = now_ns
        self._lock = Lock()
        self._last = NO_HASH
        self._sequence = 0

    @staticmethod
    def open(path: Path, now_ns: Callable[[], int]) -> "AuditLog":
        """Continue the chain of an existing file, or start one.

        Raises: StartError.
        """
        log = AuditLog(path, now_ns)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                log._continue(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StartError(f"the audit log {path} cannot be opened: {error.strerror}") from error
        return log

    def _continue(self, descriptor: int) -> None:
        """Find the last whole record; a line torn by a crash is ended and stays visible."""
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, 2 * LINE_BYTES_MAX, max(0, size - 2 * LINE_BYTES_MAX))
        if tail and not tail.endswith(b"\n"):
            os.write(descriptor, b"\n")
        for line in reversed(tail.splitlines()):
            try:
                body = json.loads(line)
                self._last, self._sequence = bytes.fromhex(body["h"]), int(body["seq"])
            except (ValueError, KeyError, TypeError):
                continue
            return

    def record(
        self, event: str, principal: Principal, *, path: str, traces: Sequence[str] = ()
    ) -> None:
        """Write one line and sync it; blocks on the disk.

        Raises: RetryableError when it is not durable; the content must not be given out then.
        """
        self.note(
            event,
            {
                "principal": principal.name,
                "role": principal.role.name.lower(),
                "path": path[:PATH_LENGTH_MAX],
                "traces": list(traces[:TRACES_PER_LINE_MAX]),
                "traces_count": len(traces),
            },
        )

    def note(self, event: str, fields: Mapping[str, Json]) -> None:
        """Write one line about something else than an access and sync it; blocks on the disk.

        Raises: RetryableError when it is not durable.
        """
        seconds, rest_ns = divmod(self._now_ns(), 1_000_000_000)
        time = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        body: dict[str, Json] = {"ts": f"{time}.{rest_ns:09d}Z", "ev": event, **fields}
        with self._lock:
            body |= {"seq": self._sequence + 1, "prev": self._last.hex()}
            digest = _chained(self._last, body)
            line = _canonical({**body, "h": digest.hex()}) + b"\n"
            try:
                self._append(line)
            except OSError as error:
                raise RetryableError(
                    f"the audit log cannot be written ({error.strerror}), so nothing is done"
                ) from error
            self._last, self._sequence = digest, self._sequence + 1

    def _append(self, line: bytes) -> None:
        """Open by name each time, so that an administrator may move the file away."""
        assert len(line) <= LINE_BYTES_MAX
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size + len(line) > AUDIT_BYTES_MAX:
                raise OSError(errno.EFBIG, f"{self._path.name} has reached {AUDIT_BYTES_MAX} bytes")
            try:
                if os.write(descriptor, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fdatasync(descriptor)
            except OSError:
                with suppress(OSError):  # a part of a line would break the chain
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
