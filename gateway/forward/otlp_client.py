"""Send frames as OTLP over HTTP or gRPC, and say what the destination made of them.

Law: every failure leaves as one DeliveryError that knows whether trying again can help. No header
value, body or credential is ever in a message. Redirects are not followed: telemetry goes only
where the configuration says.
"""

import asyncio
import gzip
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import grpc
import zstandard

from gateway.batch import Signal
from gateway.errors import CorruptDataError, DeliveryError
from gateway.forward.answers import (
    FrameTooLargeError,
    Sent,
    error_of_grpc,
    error_of_status,
)
from gateway.otlp.answers import maybe_retry_after_s, partial_success, plain, status_text

RESPONSE_BYTES_MAX: Final = 1 << 20
GRPC_PORT: Final = 4317
GZIP_LEVEL: Final = 6
# gRPC's own wait before it connects again; ours sits on top and must not be outlasted by it.
RECONNECT_MS_MAX: Final = 5_000
USER_AGENT: Final = "weir"

_HTTP_PATHS: Final = {
    Signal.TRACES: "/v1/traces",
    Signal.METRICS: "/v1/metrics",
    Signal.LOGS: "/v1/logs",
}
_GRPC_METHODS: Final = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
_PROTOBUF: Final = "application/x-protobuf"


class Encoded(Protocol):
    """What is sent: `Frame` and `Pending` both are."""

    @property
    def signal(self) -> Signal: ...
    @property
    def items(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def raw_bytes(self) -> int: ...


class Sender(Protocol):
    """One destination's transport."""

    async def send(self, frame: Encoded) -> Sent:
        """Deliver one frame. Raises: DeliveryError."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class HttpSender:
    """OTLP/HTTP with protobuf bodies."""

    def __init__(
        self,
        endpoint: str,
        *,
        compression: str = "zstd",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
        tls: ssl.SSLContext | None = None,
        now_unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._compression = compression
        self._headers = dict(headers or {})
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._tls = tls
        self._now_unix_s = now_unix_s
        self._session: aiohttp.ClientSession | None = None

    async def send(self, frame: Encoded) -> Sent:
        """POST one frame and read the answer.

        Raises: DeliveryError.
        """
        body = await encoded_for(frame, self._compression)
        headers = {**self._headers, "Content-Type": _PROTOBUF}
        if self._compression != "none":
            headers["Content-Encoding"] = self._compression
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            )
        try:
            async with self._session.post(
                self._endpoint + _HTTP_PATHS[frame.signal],
                data=body,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
                ssl=self._tls if self._tls is not None else True,
            ) as response:
                answer = await _read_limited(response)
        except TimeoutError as error:
            raise DeliveryError("no answer in time", permanent=False) from error
        except aiohttp.ClientConnectorError as error:
            raise DeliveryError(f"no connection: {plain(str(error))}", permanent=False) from error
        except (aiohttp.ClientError, OSError) as error:
            # The text may hold the URL and what is in it; the type says enough.
            name = type(error).__name__
            raise DeliveryError(f"the request failed: {name}", permanent=False) from error
        return self._judge(response, answer)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _judge(self, response: aiohttp.ClientResponse, answer: bytes | None) -> Sent:
        kind = response.content_type
        if 200 <= response.status < 300:
            if kind == "text/html" and answer != b"":
                # A captive portal or a proxy answers anything with a page.
                raise DeliveryError("the answer is a web page, not OTLP", permanent=False)
            if answer is None:
                return Sent(rejected=0, message="the answer was too long to read")
            return _sent(answer) if kind == _PROTOBUF else Sent(rejected=0, message="")
        hint = maybe_retry_after_s(response.headers.get("Retry-After"), self._now_unix_s())
        text = status_text(answer) if answer and kind == _PROTOBUF else ""
        raise error_of_status(response.status, text, hint)


class GrpcSender:
    """OTLP/gRPC on already encoded request bytes."""

    def __init__(
        self,
        endpoint: str,
        *,
        compression: str = "gzip",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
        root_certificates: bytes | None = None,
    ) -> None:
        self._target, self._secure = target_of(endpoint)
        # gRPC knows no zstd: gzip is the nearest that every server understands.
        self._compression = (
            grpc.Compression.NoCompression if compression == "none" else grpc.Compression.Gzip
        )
        self._metadata = tuple((name.lower(), value) for name, value in (headers or {}).items())
        self._timeout_s = timeout_s
        self._root_certificates = root_certificates
        self._channel: grpc.aio.Channel | None = None

    async def send(self, frame: Encoded) -> Sent:
        """Call Export with one frame and read the answer.

        Raises: DeliveryError.
        """
        body = await encoded_for(frame, "none")
        call = self._connected().unary_unary(_GRPC_METHODS[frame.signal])
        try:
            answer: bytes = await call(
                body,
                timeout=self._timeout_s,
                metadata=self._metadata,
                compression=self._compression,
            )
        except grpc.aio.AioRpcError as error:
            raise error_of_grpc(error) from error
        return _sent(answer)

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    def _connected(self) -> grpc.aio.Channel:
        if self._channel is None:
            options = [
                ("grpc.max_receive_message_length", RESPONSE_BYTES_MAX),
                ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
                ("grpc.primary_user_agent", USER_AGENT),
                ("grpc.use_local_subchannel_pool", 1),
            ]
            if self._secure:
                credentials = grpc.ssl_channel_credentials(self._root_certificates)
                self._channel = grpc.aio.secure_channel(self._target, credentials, options)
            else:
                self._channel = grpc.aio.insecure_channel(self._target, options)
        return self._channel


def target_of(endpoint: str) -> tuple[str, bool]:
    """Split a gRPC endpoint into `host:port` and whether it uses TLS."""
    parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    host = parts.hostname or "localhost"
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{parts.port or GRPC_PORT}", parts.scheme == "https"


async def encoded_for(frame: Encoded, compression: str) -> bytes:
    """Return the body in the destination's encoding, working outside the event loop.

    Raises: DeliveryError, permanent, when the stored body is damaged.
    """
    if compression == "zstd":
        return frame.body
    try:
        return await asyncio.to_thread(_recode, frame.body, frame.raw_bytes, compression)
    except CorruptDataError as error:
        raise DeliveryError(str(error), permanent=True) from error


def inflate(body: bytes, raw_bytes: int) -> bytes:
    """Undo the compression of a frame.

    Raises: CorruptDataError.
    """
    try:
        raw = zstandard.ZstdDecompressor().decompress(body, max_output_size=raw_bytes)
    except zstandard.ZstdError as error:
        raise CorruptDataError(f"the stored frame cannot be inflated: {error}") from error
    if len(raw) != raw_bytes:
        raise CorruptDataError("the stored frame is not as long as it was")
    return raw


def _recode(body: bytes, raw_bytes: int, compression: str) -> bytes:
    raw = inflate(body, raw_bytes)
    return gzip.compress(raw, compresslevel=GZIP_LEVEL) if compression == "gzip" else raw


async def _read_limited(response: aiohttp.ClientResponse) -> bytes | None:
    """Read the body up to the limit; None when there is more."""
    parts = bytearray()
    async for part in response.content.iter_any():
        parts += part
        if len(parts) > RESPONSE_BYTES_MAX:
            response.close()
            return None
    return bytes(parts)


def _sent(answer: bytes) -> Sent:
    rejected, message = partial_success(answer)
    return Sent(rejected=rejected, message=message)


__all__ = ["Encoded", "FrameTooLargeError", "GrpcSender", "HttpSender", "Sender", "Sent"]
