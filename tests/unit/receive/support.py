"""A fake commit, real listeners on free ports, and certificates made for the test."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from gateway.batch import Payload, Receipt, Signal
from gateway.config import GrpcSection, HttpSection, ReceiveSection, TlsSection
from gateway.errors import RequestError
from gateway.receive.admission import SMALL_BODY_BYTES, Admission, Hold
from gateway.receive.grpc_server import GrpcServer
from gateway.receive.http_server import Handler, HttpServer
from gateway.receive.identity import Credential, Gate
from gateway.receive.intake import Intake

NOW_NS = 1_800_000_000_000_000_000
YEAR_NS = 365 * 86_400 * 1_000_000_000
WAIT_S = 10.0
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Commit:
    """Stand in for the group commit: keep what came, answer what the test says."""

    def __init__(self) -> None:
        self.payloads: list[Payload] = []
        self.receipt: Receipt | None = None
        self.error: RequestError | None = None
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()

    async def __call__(self, payload: Payload) -> Receipt:
        self.payloads.append(payload)
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if self.receipt is not None:
            return self.receipt
        known = payload.signal is Signal.TRACES
        accepted = spans_in(payload.body) if known else 1
        return Receipt(accepted=accepted, rejected=0, reason="")


@dataclass(kw_only=True)
class Site:
    """Both listeners over one fake commit."""

    commit: Commit
    admission: Admission
    gate: Gate
    grpc: GrpcServer
    http: HttpServer
    grpc_address: str = ""
    http_address: str = ""
    url: str = ""
    routes: list[tuple[str, str, Handler]] = field(default_factory=list)


def token_table(*tokens: str, expires_ns: int = NOW_NS + YEAR_NS) -> dict[bytes, Credential]:
    """Make a table in which each token belongs to `device-<token>`."""
    table = {}
    for token in tokens:
        digest = hashlib.sha256(token.encode()).digest()
        table[digest] = Credential(digest=digest, device=f"device-{token}", expires_ns=expires_ns)
    return table


def section(**changes: Any) -> ReceiveSection:
    """Make the intake's section of a site file with free ports."""
    changes.setdefault("grpc", GrpcSection(listen="127.0.0.1:0"))
    changes.setdefault("http", HttpSection(listen="127.0.0.1:0"))
    return ReceiveSection(**changes)


@asynccontextmanager
async def serving(
    *,
    receive: ReceiveSection | None = None,
    tokens: dict[bytes, Credential] | None = None,
    certificates: bool = False,
    routes: Sequence[tuple[str, str, Handler]] = (),
    now_ns: Callable[[], int] = lambda: NOW_NS,
    body_timeout_s: float = WAIT_S,
    clock: Callable[[], float] | None = None,
) -> AsyncIterator[Site]:
    """Run both listeners until the block ends."""
    receive = receive or section()
    commit = Commit()
    admission = Admission(
        bytes_max=receive.queue_max,
        rng=random.Random(7),
        device=receive.device,
        clock=clock or time.monotonic,
    )
    gate = Gate(now_ns=now_ns, tokens=tokens, certificates=certificates, site="dock-7")
    intake = Intake(submit=commit, now_ns=now_ns, admission=admission, gate=gate)
    grpc_server = GrpcServer(receive, intake)
    http_server = HttpServer(receive, intake, routes, body_timeout_s=body_timeout_s)
    site = Site(commit=commit, admission=admission, gate=gate, grpc=grpc_server, http=http_server)
    try:
        site.grpc_address = await grpc_server.start()
        site.http_address = await http_server.start()
        scheme = "http" if receive.tls.cert is None else "https"
        site.url = f"{scheme}://{site.http_address}/v1/traces"
        yield site
    finally:
        if commit.gate is not None:
            commit.gate.set()
        await grpc_server.stop(0.0)
        await http_server.stop(0.2)


def fill(admission: Admission, size_bytes: int) -> list[Hold]:
    """Hold so many bytes of an account in small bodies of nobody."""
    holds = []
    while size_bytes > 0:
        holds.append(Hold(admission))
        holds[-1].grow(min(size_bytes, SMALL_BODY_BYTES))
        size_bytes -= holds[-1].size_bytes
    return holds


def request_bytes(spans: int = 1, name: str = "inference") -> bytes:
    """Encode an export request with the official classes."""
    made = [
        Span(trace_id=bytes([1] * 16), span_id=(i + 1).to_bytes(8, "big"), name=name)
        for i in range(spans)
    ]
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=made)])]
    ).SerializeToString()


def spans_in(body: bytes) -> int:
    """Count the spans of an export request with the official classes."""
    parsed = ExportTraceServiceRequest.FromString(body)
    return sum(len(s.spans) for r in parsed.resource_spans for s in r.scope_spans)


def status_in(body: bytes) -> tuple[int, str, float | None, list[str]]:
    """Read a Status: (code, message, retry delay in seconds, violated fields)."""
    status = status_pb2.Status.FromString(body)
    delay_s, fields = None, []
    for detail in status.details:
        retry = error_details_pb2.RetryInfo()
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(retry):
            delay_s = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(bad):
            fields = [violation.field for violation in bad.field_violations]
    return status.code, status.message, delay_s, fields


class Authority:
    """A certificate authority that lives as long as the test."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(self._name, self._name, self._key, days=1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, file: str, *names: x509.GeneralName, days: float = 1) -> tuple[Path, Path]:
        """Write a certificate with these alternative names; return its file and its key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file)])
        builder = _builder(subject, self._name, key, days=days)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        cert_path, key_path = self._folder / f"{file}.pem", self._folder / f"{file}.key"
        cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert_path, key_path

    def server(self, file: str = "server") -> tuple[Path, Path]:
        """Write a certificate for 127.0.0.1."""
        return self.issue(file, x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("localhost"))

    def tls(self, *, clients: bool = False) -> TlsSection:
        """Make a TLS section, with the authority for clients too when asked."""
        cert, key = self.server()
        return TlsSection(cert=cert, key=key, client_ca=self.path if clients else None)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: float
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(time.time(), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
    )
