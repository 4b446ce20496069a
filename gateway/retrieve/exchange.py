"""The talk with one device: what it is asked, what it says, what it uploads.

Law: every message may come twice, late or out of order, and is answered the same way; a state is
committed before the answer. A device speaks only for itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final

from gateway.config import RetrieveSection
from gateway.errors import (
    ForbiddenError,
    MalformedPayloadError,
    PayloadTooLargeError,
)
from gateway.otlp.opamp import MessageType
from gateway.retrieve import chunks
from gateway.retrieve.chunks import Chunk
from gateway.retrieve.dive import Command
from gateway.retrieve.manifest import (
    BAD_SIGNATURE,
    KeysOf,
    check_manifest,
    incomplete_reason,
)
from gateway.retrieve.messages import (
    AckBody,
    DoneBody,
    EnvelopeBody,
    RefuseBody,
    ReleaseBody,
    RetrieveBody,
    WindowBody,
    read,
    write,
)
from gateway.retrieve.room import Change, Room
from gateway.retrieve.states import FINAL, State
from gateway.retrieve.table import ChunkRow

NS_PER_S: Final = 1_000_000_000
ATTEMPTS_MAX: Final = 100
UNKNOWN: Final = "unknown"

# Turns the OTLP bytes of a chunk into what the site may keep of them.
Cleaner = Callable[[bytes], bytes]
Said = tuple[MessageType, bytes]


class ChunkStatus(IntEnum):
    """HTTP status of an answer to an upload."""

    STORED = 200
    NOT_AS_PROMISED = 400
    ANOTHER_FIRST = 409
    FINAL = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkAnswer:
    """What an upload is told. next_seq is the chunk wanted next."""

    status: ChunkStatus
    next_seq: int
    state: str


class Exchange:
    """Answers devices; safe to call from any thread."""

    def __init__(
        self, room: Room, section: RetrieveSection, clean: Cleaner, keys_of: KeysOf
    ) -> None:
        self._room = room
        self._lease_ns = int(section.lease * NS_PER_S)
        self._clean = clean
        self._keys_of = keys_of

    def poll(self, device: str, now_ns: int) -> RetrieveBody | None:
        """Choose the command that a device is asked next; None when there is none.

        A device polls only when it has nothing to say, so whatever is not streaming under a lease
        was lost on the way and is asked again.
        """
        with self._room.hold():
            waiting = [
                command
                for command in self._room.table.open_commands(device)
                if now_ns < command.not_after_ns
                and (command.state is not State.STREAMING or now_ns >= command.lease_until_ns)
            ]
            if not waiting:
                return None
            command = min(waiting, key=lambda one: (one.attempts, one.priority))
            if command.attempts >= ATTEMPTS_MAX:
                return None
            with self._room.change(now_ns, device) as change:
                self._room.save(change, replace(command, attempts=command.attempts + 1))
            return _ask(command, now_ns)

    def message(self, device: str, type_: str, data: bytes, now_ns: int) -> Said | None:
        """Answer one message of a device.

        Raises MalformedPayloadError, PayloadTooLargeError, ForbiddenError.
        """
        handlers = {
            MessageType.ACK: self._ack,
            MessageType.REFUSE: self._refuse,
            MessageType.MANIFEST: self._manifest,
            MessageType.DONE: self._done,
        }
        handler = handlers.get(MessageType(type_)) if type_ in set(MessageType) else None
        if handler is None:
            raise MalformedPayloadError("the message type is not one that a device sends")
        with self._room.hold():
            return handler(device, data, now_ns)

    def chunk(self, device: str, chunk: Chunk, now_ns: int) -> ChunkAnswer:
        """Take one chunk: verified, on disk and kept before it is acknowledged.

        Raises MalformedPayloadError when it was damaged on the way, ForbiddenError.
        """
        with self._room.hold():
            command = self._command(device, chunk.request_id)
            if command is None:
                return ChunkAnswer(status=ChunkStatus.FINAL, next_seq=0, state=UNKNOWN)
            chunks.check_digest(chunk)
            if chunk.seq < command.next_chunk:
                return self._again(command, chunk, now_ns)
            if command.state not in (State.PINNED, State.STREAMING):
                final = command.state in FINAL
                status = ChunkStatus.FINAL if final else ChunkStatus.ANOTHER_FIRST
                return _told(command, status)
            if chunk.seq > command.next_chunk:
                return _told(command, ChunkStatus.ANOTHER_FIRST)
            return self._take(device, command, chunk, now_ns)

    def _ack(self, device: str, data: bytes, now_ns: int) -> Said | None:
        command = self._command(device, read(AckBody, data).request_id)
        if command is None or command.state in FINAL:
            return _release(read(AckBody, data).request_id, command)
        if command.state is State.QUEUED:
            self._move(command, State.DELIVERED, now_ns)
        return None

    def _refuse(self, device: str, data: bytes, now_ns: int) -> Said | None:
        body = read(RefuseBody, data)
        command = self._command(device, body.request_id)
        if command is not None and command.state is State.QUEUED:
            command = self._move(command, State.DELIVERED, now_ns)
        if command is not None and command.state is State.DELIVERED:
            command = self._move(command, State.REFUSED, now_ns, body.reason)
        return _release(body.request_id, command)

    def _manifest(self, device: str, data: bytes, now_ns: int) -> Said | None:
        envelope = read(EnvelopeBody, data)
        command = self._command(device, envelope.request_id)
        if command is None or command.state in FINAL:
            return _release(envelope.request_id, command)
        if command.state is State.QUEUED:
            command = self._move(command, State.DELIVERED, now_ns)
        try:
            manifest = check_manifest(envelope, command, self._keys_of)
        except (MalformedPayloadError, PayloadTooLargeError):
            return _release(envelope.request_id, self._distrust(command, now_ns, "bad_manifest"))
        if manifest.verdict == BAD_SIGNATURE:
            return _release(envelope.request_id, self._distrust(command, now_ns, "bad_signature"))
        if command.manifest is None:
            command = self._move(command, State.PINNED, now_ns, manifest=manifest)
            if not manifest.traces:
                command = self._finish(command, now_ns)
        elif (command.manifest.traces, command.manifest.complete) != (
            manifest.traces,
            manifest.complete,
        ):
            command = self._distrust(command, now_ns, "manifest_changed")
        if command.state in FINAL:
            return _release(envelope.request_id, command)
        return MessageType.ACK, write(
            AckBody(request_id=command.request_id, next_seq=command.next_chunk)
        )

    def _done(self, device: str, data: bytes, now_ns: int) -> Said | None:
        body = read(DoneBody, data)
        command = self._command(device, body.request_id)
        if command is not None and command.state in (State.PINNED, State.STREAMING):
            # All chunks would have finished it already.
            command = self._move(command, State.PARTIAL, now_ns, body.reason or "incomplete")
        if command is not None and command.state not in FINAL:
            return None
        return _release(body.request_id, command)

    def _take(self, device: str, command: Command, chunk: Chunk, now_ns: int) -> ChunkAnswer:
        assert command.manifest is not None
        try:
            traces = chunks.split(chunk.body, command.manifest.traces[command.next_trace :])
        except (MalformedPayloadError, PayloadTooLargeError):
            moved = self._move(command, State.PARTIAL, now_ns, "not_as_promised")
            return _told(moved, ChunkStatus.NOT_AS_PROMISED)
        # What was uploaded is checked byte for byte; only its clean copy reaches the disk.
        chunks.store(self._room.path(command, chunk.seq), self._clean(chunk.body))
        with self._room.change(now_ns, device) as change:
            self._room.table.insert_chunk(
                ChunkRow(
                    request_id=command.request_id,
                    seq=chunk.seq,
                    sha256=chunk.sha256,
                    bytes=len(chunk.body),
                )
            )
            if command.state is State.PINNED:
                command = self._room.move(change, command, State.STREAMING)
            command = self._room.save(
                change,
                replace(
                    command,
                    next_chunk=command.next_chunk + 1,
                    next_trace=command.next_trace + traces,
                    received_bytes=command.received_bytes + len(chunk.body),
                    lease_until_ns=now_ns + self._lease_ns,
                ),
            )
            if command.manifest is not None and command.next_trace == len(command.manifest.traces):
                command = self._end(change, command)
            elif chunk.last:
                command = self._room.move(change, command, State.PARTIAL, "incomplete")
        return _told(command, ChunkStatus.STORED)

    def _again(self, command: Command, chunk: Chunk, now_ns: int) -> ChunkAnswer:
        stored = self._room.table.chunks(command.request_id)[chunk.seq]
        if stored.sha256 == chunk.sha256:
            return _told(command, ChunkStatus.STORED)
        return _told(self._distrust(command, now_ns, "conflict"), ChunkStatus.NOT_AS_PROMISED)

    def _command(self, device: str, request_id: str) -> Command | None:
        command = self._room.table.maybe_command(request_id)
        if command is not None and command.device != device:
            raise ForbiddenError("this request is another device's")
        return command

    def _move(
        self, command: Command, state: State, now_ns: int, reason: str = "", **fields: Any
    ) -> Command:
        fields.setdefault("lease_until_ns", now_ns + self._lease_ns)
        with self._room.change(now_ns, command.device) as change:
            return self._room.move(change, command, state, reason, **fields)

    def _finish(self, command: Command, now_ns: int) -> Command:
        with self._room.change(now_ns, command.device) as change:
            return self._end(change, command)

    def _end(self, change: Change, command: Command) -> Command:
        """End a command whose listed traces are all here, each compared with its digest."""
        manifest = command.manifest
        assert manifest is not None
        if manifest.complete:
            return self._room.move(change, command, State.COMPLETE)
        return self._room.move(change, command, State.PARTIAL, incomplete_reason(manifest))

    def _distrust(self, command: Command, now_ns: int, reason: str) -> Command:
        """End a command whose device contradicts itself; what is here stays."""
        if command.state in FINAL:
            return command
        known = command.state in (State.PINNED, State.STREAMING)
        return self._move(command, State.PARTIAL if known else State.REFUSED, now_ns, reason)


def _ask(command: Command, now_ns: int) -> RetrieveBody:
    selector = command.selector
    window = None
    if selector.from_ns is not None and selector.to_ns is not None:
        window = WindowBody(from_ns=selector.from_ns, to_ns=selector.to_ns)
    return RetrieveBody(
        request_id=command.request_id,
        trace_ids=selector.trace_ids,
        window=window,
        max_bytes=command.max_bytes,
        chunk_bytes=chunks.CHUNK_BYTES,
        priority=command.priority,
        # A duration, because the device's clock may be wrong by hours.
        pin_s=max(1, (command.not_after_ns - now_ns) // NS_PER_S),
        reason=command.reason,
    )


def _release(request_id: str, command: Command | None) -> Said:
    state = UNKNOWN if command is None else command.state
    return MessageType.RELEASE, write(ReleaseBody(request_id=request_id, state=state))


def _told(command: Command, status: ChunkStatus) -> ChunkAnswer:
    return ChunkAnswer(status=status, next_seq=command.next_chunk, state=command.state)
