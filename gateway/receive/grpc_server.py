"""OTLP/gRPC: the export services of all signals over raw request bytes.

Law: who is refused by its headers is refused before its message is taken off the wire, and every
refusal that may be sent again says when, in both places where clients look for it.

What gRPC's core refuses by itself never reaches this module and cannot be counted here: a message
above `message_max` (RESOURCE_EXHAUSTED without a delay, before and after inflation), an encoding it
does not know, broken HTTP/2. Its Python layer shows neither such calls nor a counter of them: the
refusal ends the call between the headers, which `requests` counts, and the handler.
Source: OTLP specification 1.x, "OTLP/gRPC".
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import unquote

import grpc
import grpc.aio
from grpc_status import rpc_status

from gateway.batch import Receipt, Signal, Transport
from gateway.config import ReceiveSection
from gateway.errors import (
    MalformedPayloadError,
    RequestError,
    RetryableError,
    StartError,
    UnknownPathError,
    WeirError,
)
from gateway.otlp import reply
from gateway.receive.admission import NO_SIGNAL, Counters
from gateway.receive.intake import Intake
from gateway.receive.listening import (
    Material,
    address_text,
    grpc_certificates,
    host_and_port,
    probe,
    read_material,
)
from gateway.receive.readers import Readers

PROTOCOL: Final = "OTLP/gRPC"
_SERVICES: Final = "/opentelemetry.proto.collector."
EXPORTS: Final = {
    f"{_SERVICES}trace.v1.TraceService/Export": Signal.TRACES,
    f"{_SERVICES}metrics.v1.MetricsService/Export": Signal.METRICS,
    f"{_SERVICES}logs.v1.LogsService/Export": Signal.LOGS,
}
PROFILES: Final = f"{_SERVICES}profiles.v1development.ProfilesService/Export"

METADATA_BYTES_MAX: Final = 16 * 1024
CONNECTIONS_MAX: Final = 4_096
STREAMS_MAX: Final = 256  # concurrent requests of one connection
# Dead peers are noticed, live ones may keep their connection open through a quiet night.
KEEPALIVE_MS: Final = 60_000
KEEPALIVE_TIMEOUT_MS: Final = 20_000
PING_INTERVAL_MIN_MS: Final = 10_000
MESSAGE_TIMEOUT_S: Final = 30.0  # of one call, from its headers to its whole message

_GRPC: Final = Transport.GRPC


class GrpcServer:
    """Listen for OTLP/gRPC."""

    def __init__(self, section: ReceiveSection, intake: Intake) -> None:
        self._section = section
        self._intake = intake
        self._server: Any = None
        self._renewed: Any = None

    async def start(self) -> str:
        """Bind and serve; return `host:port` with the real port.

        Raises: StartError.
        """
        listen = self._section.grpc.listen
        host, port = host_and_port(listen)
        material = read_material(self._section.tls)
        probe(listen, PROTOCOL)
        server = grpc.aio.server(options=self._options())
        server.add_generic_rpc_handlers((_Services(self._intake),))
        address = address_text(host, port)
        try:
            if material is None:
                bound = server.add_insecure_port(address)
            else:
                bound = server.add_secure_port(address, self._credentials(material))
        except RuntimeError as error:
            raise StartError(f"cannot listen on {listen} for {PROTOCOL}") from error
        await server.start()
        self._server = server
        return address_text(host, bound)

    async def stop(self, grace_s: float) -> None:
        """Take no new request; give those under way grace_s seconds, then cancel them."""
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    def use_tls(self, material: Material) -> None:
        """Use another certificate, and another authority for clients, for new connections."""
        self._renewed = grpc_certificates(material)

    def _credentials(self, material: Material) -> Any:
        return grpc.dynamic_ssl_server_credentials(
            grpc_certificates(material),
            self._renewal,
            require_client_authentication=material.client_ca is not None,
        )

    def _renewal(self) -> Any:
        """Hand over a renewed certificate once; gRPC asks at each handshake."""
        renewed, self._renewed = self._renewed, None
        return renewed

    def _options(self) -> list[tuple[str, int]]:
        return [
            # With port sharing a second gateway would silently take half of the requests.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self._section.grpc.message_max),
            ("grpc.max_metadata_size", METADATA_BYTES_MAX),
            ("grpc.max_allowed_incoming_connections", CONNECTIONS_MAX),
            ("grpc.max_concurrent_streams", STREAMS_MAX),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN_MS),
        ]


class _Services:
    """Choose the handler of a call by its headers; grpc asks before it reads the message."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._admission = intake.admission
        self._gate = intake.gate
        self._counters: Counters = intake.counters
        self._readers = Readers()
        self._handlers = {method: self._exporting(EXPORTS[method]) for method in EXPORTS}
        self._profiles = self._refusing(UnknownPathError("profiles are not served here"), NO_SIGNAL)

    def service(self, details: Any) -> Any:
        """Return the handler of one call; None is answered UNIMPLEMENTED by grpc."""
        method = details.method
        signal = EXPORTS.get(method)
        if signal is None:
            return self._profiles if method == PROFILES else None
        self._counters.requests[_GRPC] += 1
        try:
            if self._gate.tokens_only:
                identity = self._gate.identify(_authorization(details.invocation_metadata), None)
                self._admission.check(identity)
            else:
                self._admission.check()
        except RequestError as error:
            return self._refusing(error, signal)
        return self._handlers[method]

    def _exporting(self, signal: Signal) -> Any:
        """Make the handler of a signal: the message is asked for once its sender is known.

        gRPC calls an ordinary unary handler with the message, when those of as many calls as there
        are lie in memory already. To ask for it costs a tenth of a call.
        """

        async def export(messages: AsyncIterator[bytes], context: Any) -> bytes:
            try:
                receipt = await self._export(signal, messages, context)
            except RequestError as error:
                return self._refuse(context, error, signal)
            return reply.export_reply(signal, receipt)

        return grpc.stream_unary_rpc_method_handler(export)

    async def _export(
        self, signal: Signal, messages: AsyncIterator[bytes], context: Any
    ) -> Receipt:
        gate = self._gate
        identity = "" if gate.open else gate.identify(*_credentials_of(context))
        device = identity or _source(context)
        with self._admission.enter(device) as hold:
            await self._readers.enter(device)
            try:
                body = await _message(messages)
                hold.grow(len(body))
            finally:
                self._readers.leave(device)
            return await self._intake.accept(signal, body, _GRPC, identity, len(body), hold)

    def _refusing(self, error: WeirError, signal: str) -> Any:
        """Make a handler that answers without asking for the message."""

        async def refuse(_messages: AsyncIterator[bytes], context: Any) -> None:
            self._refuse(context, error, signal)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _refuse(self, context: Any, error: WeirError, signal: str) -> bytes:
        """Count a refusal and set its status; return the response, which gRPC then leaves out.

        Not `context.abort`: its exception and gRPC's state hold each other and, through the
        frames, the body, until the garbage collector comes by, which is seldom.
        """
        self._intake.refuse(error, signal, _source(context), _GRPC)
        delay_s = self._admission.delay_s(error)
        answer = rpc_status.to_status(reply.status_message(error, delay_s))
        trailers = [*answer.trailing_metadata]
        if delay_s is not None:
            trailers.append(("google.rpc.retryinfo-bin", reply.retry_info(delay_s)))
        context.set_code(answer.code)
        context.set_details(answer.details)
        context.set_trailing_metadata(tuple(trailers))
        return b""


async def _message(messages: Any) -> bytes:
    """Wait for the message of a call, and let gRPC's generator forget it.

    Raises: RetryableError when it does not come in time, MalformedPayloadError when none comes.
    """
    try:
        async with asyncio.timeout(MESSAGE_TIMEOUT_S):
            async with aclosing(aiter(messages)) as reading:
                async for message in reading:
                    body: bytes = message
                    return body
    except TimeoutError as error:
        raise RetryableError(
            f"the message did not arrive within {MESSAGE_TIMEOUT_S:g} seconds"
        ) from error
    raise MalformedPayloadError("the call has no message")


def _credentials_of(context: Any) -> tuple[str | None, bytes | None]:
    certificates = context.auth_context().get("x509_pem_cert")
    certificate = certificates[0] if certificates else None
    return _authorization(context.invocation_metadata()), certificate


def _authorization(metadata: Sequence[tuple[str, str]]) -> str | None:
    for key, value in metadata:
        if key == "authorization":
            return value
    return None


def _source(context: Any) -> str:
    """Take the address out of `ipv4:10.0.0.1:5000` or `ipv6:%5B::1%5D:5000`."""
    peer: str = context.peer()
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")
