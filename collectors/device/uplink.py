"""The doorbell client: asks the gateway for commands, answers them, uploads what was pinned.

Law: the device opens every connection. Whatever is answered is pinned and on disk first; every
message and chunk may be sent twice without harm, so after any failure it is simply sent again.

Half-duplex as OpAMP over HTTP wants it: one request, its answer, then the next.
"""

import asyncio
import hashlib
import json
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import zstandard

from collectors.device.command import Command, parse_command, parse_reference
from collectors.device.manifest import (
    Answer,
    Signer,
    answer,
    chunk_plan,
    envelope,
    read_chunk,
)
from collectors.device.memory import Memory
from collectors.device.ring import Ring
from gateway.errors import (
    CorruptDataError,
    MalformedPayloadError,
    RetryableError,
    UnauthenticatedError,
)
from gateway.otlp import opamp
from gateway.otlp.opamp import CAPABILITY, AgentToServer, CustomMessage, MessageType

CHUNK_PATH: Final = "/v1/retrieval"
HOLD_S: Final = 25.0
POLL_S: Final = 30.0
# An empty answer after less than this was not held.
HELD_MIN_S: Final = 1.0
BACKOFF_MIN_S: Final = 0.5
BACKOFF_MAX_S: Final = 60.0
REQUEST_TIMEOUT_S: Final = 30.0
ANSWER_BYTES_MAX: Final = 1 << 20
COMPRESSION_LEVEL: Final = 3
RETRY_AFTER_MAX_S: Final = 3_600.0
SEQUENCE_DIGITS_MAX: Final = 9
NS_PER_S: Final = 1_000_000_000
# 200: stored; 409: another chunk is wanted first. Both name the next one.
_CHUNK_ANSWERS: Final = frozenset({200, 409})
# The request is final or this device may not serve it: nothing more is wanted.
_FINAL_ANSWERS: Final = frozenset({400, 403, 404, 410})
_FAILURES: Final = (
    aiohttp.ClientError,
    TimeoutError,
    OSError,
    MalformedPayloadError,
    RetryableError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkOptions:
    """Where the gateway is and how it is spoken to.

    Units: hold_s is how long the gateway may hold a poll; poll_s the pause when it does not.
    """

    endpoint: str  # base URL of the gateway's OTLP/HTTP listener
    device: str
    instance_uid: bytes
    description: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    hold_s: float = HOLD_S
    poll_s: float = POLL_S
    backoff_min_s: float = BACKOFF_MIN_S
    backoff_max_s: float = BACKOFF_MAX_S


@dataclass(slots=True)
class UplinkCounts:
    """What one uplink did."""

    polls: int = 0
    failures: int = 0
    commands: int = 0
    refused: int = 0
    chunks: int = 0
    chunk_bytes: int = 0


class Uplink:
    """One device's connection; `run` it in any event loop until it is cancelled.

    `policy` may refuse a command by returning a reason. Jitter comes from `rng`.
    """

    def __init__(
        self,
        ring: Ring,
        directory: Path,
        options: UplinkOptions,
        *,
        signer: Signer | None = None,
        policy: Callable[[Command], str | None] | None = None,
        clock: Callable[[], int] = time.time_ns,
        rng: random.Random | None = None,
    ) -> None:
        self._ring = ring
        self._options = options
        self._memory = Memory(directory)
        self._signer = signer
        self._policy = policy
        self._clock = clock
        self._rng = rng or random.Random(options.instance_uid)  # noqa: S311 - jitter
        self._outbox: deque[CustomMessage] = deque()
        self._sequence = 0
        self._introduce = True
        self.counts = UplinkCounts()

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Serve the gateway until cancelled; begin with what was not released before."""
        failures = in_a_row = 0
        for request_id, known in self._memory.answers().items():
            self._say_answer(request_id, known)
        while True:
            begin_s = time.monotonic()
            polling = not self._outbox
            try:
                await self._react(session, await self._exchange(session))
                failures = 0
            except _FAILURES as error:
                failures += 1
                await self._recover(error, failures)
                continue
            held = time.monotonic() - begin_s >= min(HELD_MIN_S, self._options.hold_s / 2)
            empty = polling and not held and not self._outbox and not self._introduce
            in_a_row = in_a_row + 1 if empty else 0
            # One empty answer may be a bell whose command went elsewhere; a gateway that does not
            # hold polls answers all of them at once.
            if in_a_row > 1:
                await asyncio.sleep(self._options.poll_s * self._rng.uniform(0.5, 1.0))

    async def _recover(self, error: Exception, failures: int) -> None:
        self.counts.failures += 1
        hint_s = error.retry_after_s if isinstance(error, RetryableError) else None
        await asyncio.sleep(max(hint_s or 0.0, self._backoff_s(failures)))

    def _backoff_s(self, failures: int) -> float:
        """Draw a pause with full jitter, so that a fleet does not come back in one wave."""
        ceiling = self._options.backoff_min_s * 2.0 ** min(failures, 16)
        return self._rng.uniform(
            self._options.backoff_min_s / 2, min(ceiling, self._options.backoff_max_s)
        )

    async def _exchange(self, session: aiohttp.ClientSession) -> opamp.ServerToAgent:
        introduce = self._introduce
        self._sequence += 1
        message = AgentToServer(
            instance_uid=self._options.instance_uid,
            sequence_num=self._sequence,
            description={"device.id": self._options.device, **self._options.description}
            if introduce
            else None,
            custom_capabilities=(CAPABILITY,) if introduce else None,
            custom_message=self._outbox[0] if self._outbox else None,
        )
        wait_s = 0.0 if self._outbox else self._options.hold_s
        reply = opamp.parse_server(await self._post(session, opamp.encode_agent(message), wait_s))
        self.counts.polls += 1
        if reply.error is not None and reply.error.type is not opamp.ErrorType.BAD_REQUEST:
            raise RetryableError("the gateway asks to come back later", _hint_s(reply.error))
        self._introduce = bool(reply.flags & opamp.REPORT_FULL_STATE)
        if introduce and self._introduce:
            raise RetryableError("the gateway does not take the introduction")
        # A message that came before an introduction was not processed and is sent again.
        if message.custom_message is not None and not self._introduce:
            self._outbox.popleft()
        return reply

    async def _post(self, session: aiohttp.ClientSession, body: bytes, wait_s: float) -> bytes:
        headers = {
            **self._options.headers,
            "Content-Type": opamp.CONTENT_TYPE,
            "Accept-Encoding": "identity",
        }
        if wait_s > 0:
            headers["Prefer"] = f"wait={int(wait_s)}"
        async with session.post(
            self._options.endpoint + opamp.PATH,
            data=body,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S + wait_s),
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise _unwilling(response)
            return await _read(response)

    async def _react(self, session: aiohttp.ClientSession, reply: opamp.ServerToAgent) -> None:
        message = reply.custom_message
        if message is None or message.capability != CAPABILITY:
            return
        if message.type == MessageType.RETRIEVE:
            await self._retrieve(parse_command(message.data))
        elif message.type == MessageType.ACK:
            await self._upload(session, *parse_reference(message.data))
        elif message.type == MessageType.RELEASE:
            await asyncio.to_thread(self._release, parse_reference(message.data)[0])

    async def _retrieve(self, command: Command) -> None:
        self.counts.commands += 1
        found = await asyncio.to_thread(self._answer, command)
        self._say(MessageType.ACK, {"request_id": command.request_id})
        self._say_answer(command.request_id, found)

    def _say_answer(self, request_id: str, found: Answer) -> None:
        if found.refusal is not None:
            self.counts.refused += 1
            self._say(MessageType.REFUSE, {"request_id": request_id, "reason": found.refusal})
            return
        signed = envelope(found.manifest, self._signer)
        self._say(MessageType.MANIFEST, {"request_id": request_id, **signed})

    def _answer(self, command: Command) -> Answer:
        known = self._memory.get(command.request_id)
        if known is not None:
            return known
        refusal = self._policy(command) if self._policy else None
        found = (
            Answer(refusal=refusal)
            if refusal is not None
            else answer(self._ring, command, device=self._options.device, now_ns=self._clock())
        )
        self._memory.put(command.request_id, found)
        return found

    def _release(self, request_id: str) -> None:
        self._ring.unpin(request_id)
        self._memory.drop(request_id)

    async def _upload(self, session: aiohttp.ClientSession, request_id: str, next_seq: int) -> None:
        """Send chunks until none is left or the gateway wants no more, then say so."""
        known = self._memory.get(request_id)
        if known is None:
            self._done(request_id, "forgotten")
            return
        plan = chunk_plan(known.parts, known.chunk_bytes)
        failures = 0
        wanted: int | None = next_seq
        while wanted is not None and wanted < len(plan):
            try:
                body = await asyncio.to_thread(read_chunk, self._ring, plan[wanted])
                last = wanted == len(plan) - 1
                wanted = await self._send_chunk(session, request_id, wanted, body, last)
                failures = 0
            except CorruptDataError:
                self._done(request_id, "pin_lost")
                return
            except UnauthenticatedError:
                # The gateway was restarted: introduce the device, then ask where to go on.
                self._introduce = True
                self._say_answer(request_id, known)
                return
            except _FAILURES as error:
                if request_id not in self._ring.pinned():
                    self._done(request_id, "pin_lost")
                    return
                failures += 1
                await self._recover(error, failures)
        self._done(request_id, None)

    async def _send_chunk(
        self,
        session: aiohttp.ClientSession,
        request_id: str,
        seq: int,
        body: bytes,
        last: bool,
    ) -> int | None:
        """Send one chunk; return the number of the next one wanted, None when none is."""
        headers = {
            **self._options.headers,
            "Content-Type": opamp.CONTENT_TYPE,
            "Content-Encoding": "zstd",
            "Accept-Encoding": "identity",
            "retrieval-instance-uid": self._options.instance_uid.hex(),
            "retrieval-request-id": request_id,
            "retrieval-chunk-seq": str(seq),
            "retrieval-chunk-sha256": hashlib.sha256(body).hexdigest(),
            "retrieval-last": "true" if last else "false",
        }
        wire = await asyncio.to_thread(
            zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress, body
        )
        async with session.post(
            self._options.endpoint + CHUNK_PATH,
            data=wire,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            allow_redirects=False,
        ) as response:
            await _read(response)
            if response.status in _FINAL_ANSWERS:
                return None
            if response.status == 401:
                raise UnauthenticatedError("the gateway does not know this device")
            if response.status not in _CHUNK_ANSWERS:
                raise _unwilling(response)
            wanted = _next_seq(response)
            if wanted == seq:
                raise RetryableError("the gateway wants the chunk that it was just sent")
            self.counts.chunks += response.status == 200
            self.counts.chunk_bytes += len(wire)
            return wanted

    def _done(self, request_id: str, reason: str | None) -> None:
        body = {"request_id": request_id}
        if reason is not None:
            body["reason"] = reason
        self._say(MessageType.DONE, body)

    def _say(self, type_: MessageType, body: Mapping[str, Any]) -> None:
        data = json.dumps(body, separators=(",", ":")).encode()
        self._outbox.append(CustomMessage(capability=CAPABILITY, type=type_, data=data))


def _hint_s(error: opamp.ServerError) -> float:
    return (error.retry_after_ns or 0) / NS_PER_S


def _unwilling(response: aiohttp.ClientResponse) -> RetryableError:
    """Turn an answer that is not a success into a pause; the gateway's hint is honoured."""
    try:
        hint_s = float(response.headers.get("Retry-After", "0"))
    except ValueError:
        hint_s = 0.0
    return RetryableError(
        f"the gateway answered {response.status}", min(max(hint_s, 0.0), RETRY_AFTER_MAX_S)
    )


def _next_seq(response: aiohttp.ClientResponse) -> int:
    """Read which chunk the gateway wants next.

    Raises MalformedPayloadError.
    """
    text = response.headers.get("retrieval-next-seq", "")
    if not text.isdecimal() or len(text) > SEQUENCE_DIGITS_MAX:
        raise MalformedPayloadError("the gateway does not say which chunk it wants next")
    return int(text)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read a bounded answer.

    Raises MalformedPayloadError when it is longer than any honest one.
    """
    body = await response.content.read(ANSWER_BYTES_MAX + 1)
    while len(body) <= ANSWER_BYTES_MAX and not response.content.at_eof():
        body += await response.content.read(ANSWER_BYTES_MAX + 1 - len(body))
    if len(body) > ANSWER_BYTES_MAX:
        raise MalformedPayloadError("the gateway's answer is too long")
    return body
