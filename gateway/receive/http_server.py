"""OTLP/HTTP: `POST /v1/{traces,metrics,logs}` and the routes that the app adds, on aiohttp.

Law: a request passes credential, media type, size, quota and room, in this order, before its body
is read; every answer of 400 and above is a `google.rpc.Status`.
Its low-level server has no router, no middleware and no decompression of its own, which halves
the time per request and leaves the ceilings to `inflate`.
Source: OTLP specification 1.x, "OTLP/HTTP".
"""

import asyncio
import math
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11

from gateway.batch import Receipt, Signal, Transport
from gateway.config import ReceiveSection
from gateway.errors import (
    MalformedPayloadError,
    MethodNotAllowedError,
    PayloadTooLargeError,
    RequestError,
    RetryableError,
    UnauthenticatedError,
    UnknownPathError,
    UnsupportedMediaError,
    WeirError,
    answer_of,
)
from gateway.otlp import reply
from gateway.otlp.screen import to_protobuf
from gateway.receive.admission import NO_SIGNAL, Hold, Reason
from gateway.receive.http_wire import Acknowledgement, Wire
from gateway.receive.inflate import Encoding, Inflater
from gateway.receive.intake import Intake
from gateway.receive.listening import (
    Material,
    address_text,
    cannot_listen,
    host_and_port,
    read_material,
)

PROTOCOL: Final = "OTLP/HTTP"
EXPORTS: Final = {
    "/v1/traces": Signal.TRACES,
    "/v1/metrics": Signal.METRICS,
    "/v1/logs": Signal.LOGS,
}
PROFILES: Final = "/v1development/profiles"

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
SERVER: Final = "weir"  # in place of the versions that aiohttp would tell
ACCEPTED_ENCODINGS: Final = ", ".join(reversed(Encoding))

INLINE_BYTES: Final = 256 * 1024  # inflated on the loop in well under a millisecond
STEP_BYTES: Final = 4 * 1024 * 1024  # at most, in a thread, before the account is asked again
INFLATERS_MAX: Final = 2  # threads
BODY_TIMEOUT_S: Final = 30.0
BACKLOG: Final = 1_024
HANDSHAKE_TIMEOUT_S: Final = 10.0

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
IDENTITY: Final = web.RequestKey("identity", str)

_HTTP: Final = Transport.HTTP
_CONTENT_TYPE: Final = hdrs.CONTENT_TYPE
_CONTENT_ENCODING: Final = hdrs.CONTENT_ENCODING
_EXPECT: Final = hdrs.EXPECT


class _EncodingError(UnsupportedMediaError):
    """The content encoding is not served; the answer lists those that are."""


class HttpServer:
    """Listen for OTLP/HTTP.

    `routes` are (method, path, handler) that the app serves on the same port; a path that ends in
    `/*` takes every last segment. The peer's identity is established before a handler is called,
    see `identity_of`; a RequestError that a handler raises is answered as everywhere.
    """

    def __init__(
        self,
        section: ReceiveSection,
        intake: Intake,
        routes: Sequence[tuple[str, str, Handler]] = (),
        *,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self._section = section
        self._body_max = section.http.body_max
        self._body_timeout_s = body_timeout_s
        self._intake = intake
        self._admission = intake.admission
        self._gate = intake.gate
        self._counters = intake.counters
        self._acknowledgements = {
            PROTOBUF: Acknowledgement(PROTOBUF, reply.EMPTY_SUCCESS),
            JSON: Acknowledgement(JSON, reply.EMPTY_SUCCESS_JSON),
        }
        self._routes: dict[str, dict[str, Handler]] = {
            path: {"POST": self._export} for path in EXPORTS
        }
        for method, path, handler in routes:
            self._routes.setdefault(path, {})[method] = handler
        self._executor = ThreadPoolExecutor(INFLATERS_MAX, "inflate")
        self._inflating = asyncio.Semaphore(INFLATERS_MAX)
        self._wire: Wire | None = None
        self._listener: asyncio.Server | None = None
        self._tls: ssl.SSLContext | None = None
        self._renewed: ssl.SSLContext | None = None

    async def start(self) -> str:
        """Bind and serve; return `host:port` with the real port.

        Raises: StartError.
        """
        listen = self._section.http.listen
        host, port = host_and_port(listen)
        material = read_material(self._section.tls)
        if material is not None:
            self._tls = self._renewed = material.context
            self._tls.sni_callback = self._renew
        self._wire = Wire(self._handle, self._failed)
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                self._wire,
                host,
                port,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if self._tls else None,
                backlog=BACKLOG,
                reuse_address=True,
            )
        except OSError as error:
            raise cannot_listen(listen, PROTOCOL, error) from error
        bound: int = self._listener.sockets[0].getsockname()[1]
        return address_text(host, bound)

    async def stop(self, grace_s: float) -> None:
        """Take no new connection; give requests under way grace_s seconds, then cancel them."""
        if self._listener is None or self._wire is None:
            return
        self._listener.close()
        self._wire.pre_shutdown()
        await self._wire.shutdown(grace_s)
        await self._listener.wait_closed()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._listener = None

    def use(self, section: ReceiveSection) -> None:
        """Take the limits of another section from the next request on."""
        self._body_max = section.http.body_max

    def use_tls(self, material: Material) -> None:
        """Use another certificate, and another authority for clients, for new connections."""
        self._renewed = material.context

    def _renew(self, secured: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Give a handshake the newest context; OpenSSL asks at each, with a server name or not."""
        if self._renewed is not None and self._renewed is not self._tls:
            secured.context = self._renewed

    async def read_body(self, request: web.BaseRequest, bytes_max: int) -> bytes:
        """Read and inflate the body of an added route under a ceiling of its own.

        The bytes leave the account when this returns: what a route reads is small and short-lived.
        Raises: RequestError.
        """
        encoding = _encoding(request)
        self._admission.check(None, _declared(request, bytes_max))
        with Hold(self._admission) as hold:
            wire = await self._read(request, hold, bytes_max)
            return await self._inflate(encoding, wire, hold, bytes_max)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.raw_path in EXPORTS and request.method == "POST":
                return await self._export(request)
            methods = self._find(request.path)
            handler = methods.get(request.method)
            if handler is None:
                allow = ", ".join(sorted(methods))
                error = MethodNotAllowedError(f"write {allow} instead of this method")
                return self._refusal(request, error, {"Allow": allow})
            request[IDENTITY] = self._identify(request)
            return await handler(request)
        except RequestError as error:
            return self._refusal(request, error)
        except ConnectionError:
            self._counters.count(_signal(request), Reason.DISCONNECTED)
            raise

    def _find(self, path: str) -> Mapping[str, Handler]:
        """Look up a path, then the path of everything beside it.

        Raises: UnknownPathError.
        """
        methods = self._routes.get(path)
        if methods is None:
            methods = self._routes.get(path.rpartition("/")[0] + "/*")
        if methods is None:
            raise UnknownPathError(
                "profiles are not served here"
                if path == PROFILES
                else "there is nothing at this path"
            )
        return methods

    async def _export(self, request: web.BaseRequest) -> web.StreamResponse:
        self._counters.requests[_HTTP] += 1
        signal = EXPORTS[request.path]
        identity = "" if self._gate.open else self._identify(request)
        kind = _served_type(request)
        encoding = _encoding(request)
        body_max = self._body_max
        declared = _declared(request, body_max)
        with self._admission.enter(identity or request.remote or "", declared) as hold:
            wire = await self._read(request, hold, body_max)
            body = wire
            if encoding is not Encoding.IDENTITY:
                body = await self._inflate(encoding, wire, hold, body_max)
                hold.shrink_to(len(body))
            if kind == JSON:
                body = await self._transcode(signal, body, hold)
            receipt = await self._intake.accept(signal, body, _HTTP, identity, len(wire), hold)
        return self._success(request, signal, kind, receipt)

    def _success(
        self, request: web.BaseRequest, signal: Signal, kind: str, receipt: Receipt
    ) -> web.StreamResponse:
        whole = not receipt.rejected and not receipt.reason
        if whole and request.keep_alive and request.version == HttpVersion11:
            return self._acknowledgements[kind]
        encode = reply.export_reply_json if kind == JSON else reply.export_reply
        return web.Response(
            body=encode(signal, receipt), headers={"Server": SERVER, _CONTENT_TYPE: kind}
        )

    async def _transcode(self, signal: Signal, text: bytes, hold: Hold) -> bytes:
        """Turn a JSON body into protobuf; the account follows the size."""
        if len(text) <= INLINE_BYTES:
            body, ignored = to_protobuf(signal, text)
        else:
            loop = asyncio.get_running_loop()
            body, ignored = await loop.run_in_executor(self._executor, to_protobuf, signal, text)
        self._counters.ignored_fields[signal] += ignored
        if len(body) > hold.size_bytes:
            hold.grow(len(body) - hold.size_bytes)
        hold.shrink_to(len(body))
        return body

    def _identify(self, request: web.BaseRequest) -> str:
        certificate = None
        if self._gate.certificates:
            transport = request.transport
            secured = transport.get_extra_info("ssl_object") if transport is not None else None
            certificate = secured.getpeercert(binary_form=True) if secured is not None else None
        return self._gate.identify(request.headers.get(hdrs.AUTHORIZATION), certificate)

    async def _read(self, request: web.BaseRequest, hold: Hold, bytes_max: int) -> bytes:
        """Read the body as it is on the wire; the account grows with what has arrived."""
        content = request.content
        if content.is_eof():
            wire = content.read_nowait()
            _check_size(len(wire), bytes_max)
            hold.grow(len(wire))
            return wire
        if request.headers.get(_EXPECT, "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # One buffer, because a peer may send byte by byte and a list would keep an object of each.
        buffer = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while piece := await content.readany():
                    _check_size(len(buffer) + len(piece), bytes_max)
                    hold.grow(len(piece))
                    buffer += piece
        except TimeoutError as error:
            raise RetryableError(
                f"the body did not arrive within {self._body_timeout_s:g} seconds"
            ) from error
        except web.RequestPayloadError as error:
            raise MalformedPayloadError("the body does not follow its HTTP framing") from error
        return bytes(buffer)

    async def _inflate(self, encoding: Encoding, wire: bytes, hold: Hold, bytes_max: int) -> bytes:
        """Inflate on the loop what is small, and the rest in a thread, step by step."""
        if encoding is Encoding.IDENTITY:
            return wire
        if len(wire) <= INLINE_BYTES:
            inflater = Inflater(encoding, wire, bytes_max)
            inflater.step(INLINE_BYTES)
            if inflater.done:
                hold.grow(inflater.size_bytes)
                return inflater.body
            # A decoder has a window of up to 8 MiB, so that it does not wait in line; starting
            # over costs less than a millisecond.
            del inflater
        loop = asyncio.get_running_loop()
        # No more bodies at once than threads: half-inflated ones would fill the account together.
        async with self._inflating:
            inflater = Inflater(encoding, wire, bytes_max)
            while not inflater.done:
                step_bytes = max(INLINE_BYTES, min(STEP_BYTES, self._admission.room_bytes))
                hold.grow(step_bytes)
                await loop.run_in_executor(self._executor, inflater.step, step_bytes)
                hold.shrink_to(len(wire) + inflater.size_bytes)
        return inflater.body

    def _refusal(
        self,
        request: web.BaseRequest,
        error: WeirError,
        extra: Mapping[str, str] | None = None,
    ) -> web.Response:
        """Build the answer to a refused request and count it."""
        self._intake.refuse(error, _signal(request), request.remote or "", _HTTP)
        delay_s = self._admission.delay_s(error)
        headers = {"Server": SERVER, **(extra or {})}
        if delay_s is not None:
            headers["Retry-After"] = str(math.ceil(delay_s))
        if isinstance(error, UnauthenticatedError):
            headers["WWW-Authenticate"] = "Bearer"
        elif isinstance(error, _EncodingError):
            headers["Accept-Encoding"] = ACCEPTED_ENCODINGS
        if _media_type(request) == JSON:
            headers["Content-Type"] = JSON
            body = reply.status_json(error, delay_s)
        else:
            headers["Content-Type"] = PROTOBUF
            body = reply.status(error, delay_s)
        response = web.Response(status=answer_of(error).http_status, body=body, headers=headers)
        # The rest of a body that is not wanted would have to be read before the next request.
        if not request.content.is_eof():
            response.force_close()
        return response

    def _failed(self, request: web.BaseRequest, status: int) -> web.StreamResponse:
        """Answer what failed outside a handler: broken HTTP, or an error of our own."""
        error: WeirError
        if status < 500:
            error = MalformedPayloadError("the HTTP request cannot be parsed")
        else:
            error = RetryableError("the request failed before it was committed")
        response = self._refusal(request, error)
        response.force_close()
        return response


def _declared(request: web.BaseRequest, bytes_max: int) -> int:
    """Return the size that the headers declare, 0 when they do not.

    Raises: PayloadTooLargeError.
    """
    declared = request.content_length or 0
    if declared > bytes_max:
        raise PayloadTooLargeError(f"the body has {declared} bytes, the limit is {bytes_max} bytes")
    return declared


def _check_size(size_bytes: int, bytes_max: int) -> None:
    if size_bytes > bytes_max:
        raise PayloadTooLargeError(f"the body has more than the limit of {bytes_max} bytes")


def _media_type(request: web.BaseRequest) -> str:
    text = request.headers.get(_CONTENT_TYPE, "")
    return text.partition(";")[0].strip().lower()


def _signal(request: web.BaseRequest) -> str:
    return EXPORTS.get(request.path, NO_SIGNAL)


def _served_type(request: web.BaseRequest) -> str:
    """Return the content type of an export request, PROTOBUF or JSON."""
    if request.headers.get(_CONTENT_TYPE) == PROTOBUF:
        return PROTOBUF
    media_type = _media_type(request)
    if media_type in (PROTOBUF, JSON):
        return media_type
    raise UnsupportedMediaError(f"the content type is not served here; send {PROTOBUF} or {JSON}")


def _encoding(request: web.BaseRequest) -> Encoding:
    lines = request.headers.getall(_CONTENT_ENCODING, ())
    if not lines:
        return Encoding.IDENTITY
    try:
        # Several lines are one list, and no list is served.
        return Encoding(", ".join(lines).strip().lower() or Encoding.IDENTITY)
    except ValueError as error:
        raise _EncodingError(
            f"the content encoding is not served here; use one of {ACCEPTED_ENCODINGS}"
        ) from error


def identity_of(request: web.BaseRequest) -> str:
    """Return the identity that was established before an added route was called."""
    return request[IDENTITY]
