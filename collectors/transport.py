"""Two ways to the gateway, OTLP/HTTP and OTLP/gRPC, on request bytes that are already encoded.

Law: every attempt ends within its time limit with an `Outcome`; nothing is retried here. Redirects
and proxies of the environment are not followed: telemetry goes only where it was told to go. No
header value, body or token is ever in a message.
"""

import asyncio
import gzip
import os
import ssl
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import grpc

from collectors.answers import (
    Later,
    Outcome,
    outcome_of_grpc,
    outcome_of_http,
    taken,
)
from gateway.batch import Signal
from gateway.errors import StartError
from gateway.otlp.answers import maybe_retry_after_s, plain

RESPONSE_BYTES_MAX: Final = 1 << 20
TOKEN_BYTES_MAX: Final = 64 << 10
# Smaller bodies do not get smaller.
GZIP_BYTES_MIN: Final = 1024
GZIP_LEVEL: Final = 6
TIMEOUT_S: Final = 10.0
# gRPC's own wait before it connects again; ours sits on top and must not be outlasted by it.
RECONNECT_MS_MAX: Final = 5_000
USER_AGENT: Final = "weir-collector"

HTTP_PORT: Final = 4318
GRPC_PORT: Final = 4317
_PROTOBUF: Final = "application/x-protobuf"
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


class WireProtocol(StrEnum):
    """How OTLP is spoken."""

    HTTP = "http/protobuf"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the gateway is and how it knows this collector.

    Units: timeout_s is for one attempt. `token_file` is read anew for each attempt, so that a token
    can be exchanged while the collector runs. `ca` replaces the system's authorities.
    """

    endpoint: str
    protocol: WireProtocol = WireProtocol.HTTP
    headers: Mapping[str, str] = field(default_factory=dict)
    token_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    insecure: bool = False
    timeout_s: float = TIMEOUT_S


class Transport(Protocol):
    """One connection's way of sending; `close` may be called from the thread that sends only."""

    async def send(self, signal: Signal, body: bytes) -> Outcome:
        """Try once."""
        ...

    async def close(self) -> None:
        """Close all connections, also under a call that still waits."""
        ...


def open_transport(access: Access) -> Transport:
    """Check the access and make its transport; nothing is connected yet.

    Raises: StartError that says what to write instead.
    """
    host, port, secure = _target(access)
    _check_headers(access.headers)
    if access.token_file is not None:
        _authorization(access.token_file)
    if (access.cert is None) is not (access.key is None):
        raise StartError("a client certificate needs both: write --cert and --key")
    if not secure and (access.ca is not None or access.cert is not None):
        raise StartError("certificates are for TLS: write the endpoint with https://")
    try:
        if access.protocol is WireProtocol.GRPC:
            return GrpcTransport(access, f"{host}:{port}", _credentials(access, secure))
        scheme = "https" if secure else "http"
        base = urlsplit(access.endpoint).path.rstrip("/") if "://" in access.endpoint else ""
        return HttpTransport(access, f"{scheme}://{host}:{port}{base}", _context(access, secure))
    except (OSError, ValueError) as error:
        # An ssl.SSLError is an OSError; its text names no secret.
        raise StartError(f"the certificates cannot be used: {error}") from error


class HttpTransport:
    """OTLP/HTTP with protobuf bodies."""

    def __init__(
        self,
        access: Access,
        base: str,
        tls: ssl.SSLContext | None,
        *,
        now_unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._access = access
        self._base = base
        self._tls = tls
        self._now_unix_s = now_unix_s
        self._session: aiohttp.ClientSession | None = None

    async def send(self, signal: Signal, body: bytes) -> Outcome:
        """POST once and read the answer."""
        try:
            headers = _headers(self._access)
        except StartError as error:
            return Later(message=str(error))
        headers["Content-Type"] = _PROTOBUF
        if len(body) >= GZIP_BYTES_MIN:
            body = gzip.compress(body, compresslevel=GZIP_LEVEL)
            headers["Content-Encoding"] = "gzip"
        try:
            async with self._connected().post(
                self._base + _HTTP_PATHS[signal],
                data=body,
                headers=headers,
                allow_redirects=False,
                ssl=self._tls if self._tls is not None else True,
            ) as response:
                answer = await _read(response)
        except TimeoutError:
            return Later(message="no answer in time")
        except aiohttp.ClientConnectorError as error:
            return Later(message=f"no connection: {plain(str(error))}")
        except (aiohttp.ClientError, OSError) as error:
            # The text may hold the URL and what is in it; the type says enough.
            return Later(message=f"the request failed: {type(error).__name__}")
        hint_s = maybe_retry_after_s(response.headers.get("Retry-After"), self._now_unix_s())
        return outcome_of_http(response.status, answer, response.content_type == _PROTOBUF, hint_s)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=self._access.timeout_s),
            )
        return self._session


class GrpcTransport:
    """OTLP/gRPC.

    Calls run in a thread of their own: gRPC's own event loop glue is for one loop per process, and
    a collector may live in a program that has one already. Closing the channel ends a call at once.
    """

    def __init__(
        self, access: Access, target: str, credentials: grpc.ChannelCredentials | None
    ) -> None:
        self._access = access
        self._target = target
        self._credentials = credentials
        self._channel: grpc.Channel | None = None

    async def send(self, signal: Signal, body: bytes) -> Outcome:
        """Call Export once and read the answer."""
        try:
            headers = _headers(self._access)
        except StartError as error:
            return Later(message=str(error))
        call = self._connected().unary_unary(_GRPC_METHODS[signal])
        metadata = tuple((name.lower(), value) for name, value in headers.items())
        try:
            answer: bytes = await asyncio.to_thread(
                call,
                body,
                timeout=self._access.timeout_s,
                metadata=metadata,
                compression=grpc.Compression.Gzip if len(body) >= GZIP_BYTES_MIN else None,
            )
        except grpc.RpcError as error:
            return outcome_of_grpc(error)
        except ValueError:
            return Later(message="the channel was closed")
        return taken(answer)

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _connected(self) -> grpc.Channel:
        if self._channel is None:
            options = [
                ("grpc.max_receive_message_length", RESPONSE_BYTES_MAX),
                ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
                ("grpc.primary_user_agent", USER_AGENT),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0),
            ]
            if self._credentials is not None:
                self._channel = grpc.secure_channel(self._target, self._credentials, options)
            else:
                self._channel = grpc.insecure_channel(self._target, options)
        return self._channel


def _target(access: Access) -> tuple[str, int, bool]:
    """Split the endpoint into host, port and whether it uses TLS.

    Raises: StartError when it cannot be read, or would send in the clear over a network.
    """
    endpoint = access.endpoint
    parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port in (-1, 0):
        raise StartError(
            f"endpoint {plain(endpoint)!r} is not understood: write https://gateway.example:4318"
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise StartError("the endpoint holds more than an address: use --header or --token-file")
    grpc_spoken = access.protocol is WireProtocol.GRPC
    if grpc_spoken and parts.path.strip("/"):
        raise StartError("a gRPC endpoint has no path: write https://gateway.example:4317")
    secure = parts.scheme == "https"
    if not secure and not access.insecure and not _is_loopback(parts.hostname):
        raise StartError(
            f"{parts.hostname} is not this machine and http:// is readable on the way:"
            " write https://, or --insecure if the network is trusted"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return host, port or (GRPC_PORT if grpc_spoken else HTTP_PORT), secure


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        named = name and all(c.isascii() and (c.isalnum() or c in "-_.") for c in name)
        if not named or not value.isprintable() or not value.isascii():
            raise StartError(f"header {plain(name)!r} cannot be sent: write --header name=value")


def _headers(access: Access) -> dict[str, str]:
    """Make the headers of one attempt.

    Raises: StartError when the token cannot be read now.
    """
    headers = dict(access.headers)
    if access.token_file is not None:
        headers["Authorization"] = _authorization(access.token_file)
    return headers


def _authorization(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"token file {path} cannot be read: {type(error).__name__}") from error
    if not text or not text.isprintable():
        raise StartError(f"token file {path} must hold the token alone, on one line")
    return f"Bearer {text}"


def is_exposed(path: Path) -> bool:
    """Tell whether others than its owner and group may read a file."""
    return bool(os.stat(path).st_mode & stat.S_IROTH)


def _context(access: Access, secure: bool) -> ssl.SSLContext | None:
    if not secure:
        return None
    context = ssl.create_default_context(cafile=access.ca)
    if access.cert is not None and access.key is not None:
        context.load_cert_chain(access.cert, access.key)
    return context


def _credentials(access: Access, secure: bool) -> grpc.ChannelCredentials | None:
    if not secure:
        return None
    # The context is only made to find out now what gRPC would say at the first call.
    _context(access, secure)
    return grpc.ssl_channel_credentials(
        root_certificates=access.ca.read_bytes() if access.ca else None,
        private_key=access.key.read_bytes() if access.key else None,
        certificate_chain=access.cert.read_bytes() if access.cert else None,
    )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read the body up to the limit; what is longer says nothing that is wanted."""
    parts = bytearray()
    async for part in response.content.iter_any():
        parts += part
        if len(parts) > RESPONSE_BYTES_MAX:
            response.close()
            return b""
    return bytes(parts)
