"""The two routes that devices call: the OpAMP doorbell and the chunk upload.

Law: the gateway never opens a connection to a device. A poll may be held until there is a command;
losing the answer, the bell or the connection loses nothing, because the command table is the truth.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from aiohttp import web

from gateway.config import RetrieveSection
from gateway.errors import (
    ForbiddenError,
    MalformedPayloadError,
    OverloadedError,
    PayloadTooLargeError,
    UnauthenticatedError,
)
from gateway.otlp import opamp
from gateway.otlp.opamp import (
    CAPABILITY,
    AgentToServer,
    CustomMessage,
    ErrorType,
    MessageType,
    ServerError,
    ServerToAgent,
)
from gateway.retrieve.chunks import CHUNK_BYTES_MAX, Chunk
from gateway.retrieve.messages import write
from gateway.retrieve.retriever import Retriever

CHUNK_PATH: Final = "/v1/retrieval"
SESSIONS_MAX: Final = 100_000
HELD_POLLS_MAX: Final = 20_000
DEVICE_LENGTH_MAX: Final = 256
DEVICE_KEY: Final = "device.id"

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
IdentityOf = Callable[[web.BaseRequest], str]
ReadBody = Callable[[web.BaseRequest, int], Awaitable[bytes]]
Result = TypeVar("Result")

_WAIT: Final = re.compile(r"(?:^|[,;\s])wait=(\d{1,4})(?:$|[,;\s])")
_REQUEST_ID: Final = re.compile(r"[0-9a-f-]{1,64}")
_SEQUENCE: Final = re.compile(r"[0-9]{1,9}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_INSTANCE_UID: Final = re.compile(r"[0-9a-f]{32}")


class Doorbell:
    """Held polls by device. The newest poll of a device replaces the one before it."""

    def __init__(self) -> None:
        self._held: dict[str, asyncio.Future[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def listen(self, device: str) -> asyncio.Future[None]:
        """Begin to wait for a device's bell.

        Raises OverloadedError.
        """
        self._loop = asyncio.get_running_loop()
        before = self._held.pop(device, None)
        if before is not None and not before.done():
            before.set_result(None)
        if len(self._held) >= HELD_POLLS_MAX:
            raise OverloadedError(f"{HELD_POLLS_MAX} polls are held")
        waiter: asyncio.Future[None] = self._loop.create_future()
        if self._closed:
            waiter.set_result(None)
        self._held[device] = waiter
        return waiter

    def leave(self, device: str, waiter: asyncio.Future[None]) -> None:
        """Stop waiting."""
        if self._held.get(device) is waiter:
            del self._held[device]

    def ring(self, device: str) -> None:
        """Wake a device's poll; safe to call from any thread, at any time."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, device)

    def close(self) -> None:
        """Answer all held polls now and hold none from here on."""
        self._closed = True
        for device in list(self._held):
            self._wake(device)

    def _wake(self, device: str) -> None:
        waiter = self._held.get(device)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


@dataclass(frozen=True, slots=True)
class _Session:
    """What a device said of itself: its name and whether it can be asked."""

    device: str
    capable: bool


class DeviceRoutes:
    """Handlers for the OTLP/HTTP listener.

    `identity_of` gives the name that the receive room established, empty when peers are anonymous;
    `read_body` reads and inflates a body under a ceiling.
    """

    def __init__(
        self,
        retriever: Retriever,
        section: RetrieveSection,
        *,
        identity_of: IdentityOf,
        read_body: ReadBody,
    ) -> None:
        self._retriever = retriever
        self._poll_hold_s = section.poll_hold
        self._identity_of = identity_of
        self._read_body = read_body
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()
        self._doorbell = Doorbell()
        # One thread, because the table has one writer anyway; it keeps commits off the loop.
        self._executor = ThreadPoolExecutor(1, "retrieve")
        retriever.ring_with(self._doorbell.ring)

    def routes(self) -> list[tuple[str, str, Handler]]:
        """List (method, path, handler)."""
        return [("POST", opamp.PATH, self._opamp), ("POST", CHUNK_PATH, self._chunk)]

    def drain(self) -> None:
        """Answer held polls now, so that a stop need not wait for them."""
        self._doorbell.close()

    def close(self) -> None:
        """End the thread; call it after the listener has stopped."""
        self._executor.shutdown(wait=True)

    async def _opamp(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await self._read_body(request, opamp.MESSAGE_BYTES_MAX)
        message = opamp.parse_agent(body)
        session = self._introduce(message, self._identity_of(request))
        reply = ServerToAgent(instance_uid=message.instance_uid, capabilities=opamp.ACCEPTS_STATUS)
        if session is None:
            reply = ServerToAgent(
                instance_uid=message.instance_uid,
                flags=opamp.REPORT_FULL_STATE,
                capabilities=opamp.ACCEPTS_STATUS,
            )
        elif session.capable and not message.disconnect:
            try:
                said = await self._talk(session.device, message, _wait_s(request))
            except (MalformedPayloadError, PayloadTooLargeError) as error:
                reply = ServerToAgent(
                    instance_uid=message.instance_uid,
                    error=ServerError(type=ErrorType.BAD_REQUEST, message=str(error)),
                )
            else:
                reply = ServerToAgent(
                    instance_uid=message.instance_uid,
                    capabilities=opamp.ACCEPTS_STATUS,
                    custom_capabilities=(CAPABILITY,),
                    custom_message=said,
                )
        return web.Response(
            body=opamp.encode_server(reply), headers={"Content-Type": opamp.CONTENT_TYPE}
        )

    async def _talk(
        self, device: str, message: AgentToServer, wait_s: float
    ) -> CustomMessage | None:
        custom = message.custom_message
        if custom is None:
            return await self._poll(device, min(wait_s, self._poll_hold_s))
        if custom.capability != CAPABILITY:
            return None
        said = await self._run(
            partial(
                self._retriever.on_message,
                device,
                custom.type,
                custom.data,
                self._retriever.clock(),
            )
        )
        if said is None:
            return None
        return CustomMessage(capability=CAPABILITY, type=said[0], data=said[1])

    async def _poll(self, device: str, hold_s: float) -> CustomMessage | None:
        # The waiter is there before the table is asked, so that no bell falls in between.
        waiter = self._doorbell.listen(device)
        try:
            found = await self._next(device)
            if found is None and hold_s > 0:
                await asyncio.wait([waiter], timeout=hold_s)
                found = await self._next(device) if waiter.done() else None
        finally:
            self._doorbell.leave(device, waiter)
        return found

    async def _next(self, device: str) -> CustomMessage | None:
        now_ns = self._retriever.clock()
        body = await self._run(partial(self._retriever.on_poll, device, now_ns))
        if body is None:
            return None
        return CustomMessage(capability=CAPABILITY, type=MessageType.RETRIEVE, data=write(body))

    async def _chunk(self, request: web.BaseRequest) -> web.StreamResponse:
        device = self._device_of(request)
        fields = _chunk_headers(request)
        body = await self._read_body(request, CHUNK_BYTES_MAX)
        chunk = Chunk(
            request_id=fields["id"],
            seq=int(fields["seq"]),
            sha256=fields["sha256"],
            last=request.headers.get("retrieval-last", "") == "true",
            body=body,
        )
        answer = await self._run(
            partial(self._retriever.on_chunk, device, chunk, self._retriever.clock())
        )
        return web.Response(
            status=answer.status,
            headers={
                "retrieval-next-seq": str(answer.next_seq),
                "retrieval-state": answer.state,
            },
        )

    def _introduce(self, message: AgentToServer, identity: str) -> _Session | None:
        """Know a device again by its instance, or learn it from its description.

        Raises ForbiddenError when it claims a name that its credential does not give it.
        """
        uid = message.instance_uid
        description = message.description
        if description is not None:
            announced = description.get(DEVICE_KEY, "") or identity
            if identity and announced != identity:
                raise ForbiddenError("the credential is not that of the announced device")
            if not 0 < len(announced) <= DEVICE_LENGTH_MAX:
                raise MalformedPayloadError(f"the description has no {DEVICE_KEY}")
            capable = CAPABILITY in (message.custom_capabilities or ())
            self._sessions[uid] = _Session(announced, capable)
            while len(self._sessions) > SESSIONS_MAX:
                self._sessions.popitem(last=False)
        session = self._sessions.get(uid)
        if session is None or (identity and session.device != identity):
            return None
        self._sessions.move_to_end(uid)
        return session

    def _device_of(self, request: web.BaseRequest) -> str:
        """Name the device that uploads: by its credential, else by its introduced instance.

        Raises UnauthenticatedError.
        """
        identity = self._identity_of(request)
        if identity:
            return identity
        text = request.headers.get("retrieval-instance-uid", "")
        session = None
        if _INSTANCE_UID.fullmatch(text):
            session = self._sessions.get(bytes.fromhex(text))
        if session is None:
            raise UnauthenticatedError("the device has not introduced itself")
        return session.device

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _wait_s(request: web.BaseRequest) -> float:
    """Read how long the device says it can wait. Source: RFC 7240, section 4.3."""
    found = _WAIT.search(request.headers.get("Prefer", ""))
    return float(found.group(1)) if found else 0.0


def _chunk_headers(request: web.BaseRequest) -> dict[str, str]:
    forms = {
        "id": ("retrieval-request-id", _REQUEST_ID),
        "seq": ("retrieval-chunk-seq", _SEQUENCE),
        "sha256": ("retrieval-chunk-sha256", _SHA256),
    }
    fields = {}
    for name, (header, form) in forms.items():
        text = request.headers.get(header, "")
        if not form.fullmatch(text):
            raise MalformedPayloadError(f"the header {header} is missing or not valid")
        fields[name] = text
    return fields
