"""Credentials of every kind, the answers they must get, and a client that shows them."""

import contextlib
import hashlib
import json
import random
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.api.audit import verify
from tests.flow.load import fill_inference, new_resource
from tests.process import Json
from tests.servers import Gateway
from tests.sink import EXPORT_METHOD, PROTOBUF, TRACES_PATH
from tests.unit.receive.support import Authority

ANSWER_S: Final = 20.0
SPANS: Final = 3
DEVICE: Final = "camera-3"
TOKEN: Final = "correct horse battery staple"
OLD_TOKEN: Final = "yesterday's token"


class Kind(StrEnum):
    """What a gateway asks of its peers."""

    TOKENS = "tokens"
    MTLS = "mtls"
    BOTH = "both"


class Credential(StrEnum):
    """What a peer shows. Where both are asked for, a certificate is shown besides the token."""

    NONE = "none"
    MALFORMED = "malformed"
    WRONG = "wrong"
    EXPIRED = "expired"
    OTHER_SITE = "other_site"
    OTHER_AUTHORITY = "other_authority"
    NAMELESS = "nameless"
    RIGHT = "right"
    OTHER_DEVICE = "other_device"


# 0: no connection is made. A certificate with a name stands for its device even where tokens are
# taken too, so that only a nameless one needs a token.
Answers = dict[Credential, tuple[int, grpc.StatusCode]]
_OK: Final = (200, grpc.StatusCode.OK)
_UNKNOWN: Final = (401, grpc.StatusCode.UNAUTHENTICATED)
_FORBIDDEN: Final = (403, grpc.StatusCode.PERMISSION_DENIED)
_NO_CONNECTION: Final = (0, grpc.StatusCode.UNAVAILABLE)
EXPECTED: Final[dict[Kind, Answers]] = {
    Kind.TOKENS: {
        Credential.NONE: _UNKNOWN,
        Credential.MALFORMED: _UNKNOWN,
        Credential.WRONG: _UNKNOWN,
        Credential.EXPIRED: _UNKNOWN,
        Credential.RIGHT: _OK,
        Credential.OTHER_DEVICE: _OK,
    },
    Kind.MTLS: {
        Credential.NONE: _NO_CONNECTION,
        Credential.EXPIRED: _NO_CONNECTION,
        Credential.OTHER_AUTHORITY: _NO_CONNECTION,
        Credential.OTHER_SITE: _FORBIDDEN,
        Credential.NAMELESS: _UNKNOWN,
        Credential.RIGHT: _OK,
        Credential.OTHER_DEVICE: _OK,
    },
    Kind.BOTH: {
        Credential.NONE: _UNKNOWN,
        Credential.MALFORMED: _UNKNOWN,
        Credential.WRONG: _UNKNOWN,
        Credential.EXPIRED: _UNKNOWN,
        Credential.OTHER_SITE: _FORBIDDEN,
        Credential.OTHER_AUTHORITY: _NO_CONNECTION,
        Credential.RIGHT: _OK,
        Credential.OTHER_DEVICE: _OK,
    },
}
CASES: Final = [(kind, credential) for kind in Kind for credential in EXPECTED[kind]]
REFUSED: Final = [case for case in CASES if EXPECTED[case[0]][case[1]] in (_UNKNOWN, _FORBIDDEN)]
SHOWN: Final = {
    Credential.MALFORMED: "Basic dXNlcjpwYXNz",
    Credential.WRONG: "Bearer guess",
    Credential.EXPIRED: f"Bearer {OLD_TOKEN}",
    Credential.RIGHT: f"Bearer {TOKEN}",
    Credential.OTHER_DEVICE: f"Bearer {TOKEN}",
}


@dataclass(frozen=True, slots=True)
class Papers:
    """Certificates, by what they stand for."""

    authority: Authority
    clients: dict[Credential, tuple[Path, Path]]

    def client(self, kind: Kind, credential: Credential) -> tuple[Path, Path] | None:
        """Choose the certificate that a peer shows."""
        if kind is Kind.TOKENS:
            return None
        if kind is Kind.BOTH:
            known = (Credential.OTHER_SITE, Credential.OTHER_AUTHORITY)
            return self.clients[credential if credential in known else Credential.NAMELESS]
        return self.clients.get(credential)

    def header(self, kind: Kind, credential: Credential) -> str | None:
        """Choose the authorization header that a peer shows."""
        return None if kind is Kind.MTLS else SHOWN.get(credential)


def make_papers(folder: Path) -> Papers:
    """Make an authority, one that nobody knows, and a certificate for each case."""
    folder.mkdir()
    authority, stranger = Authority(folder), Authority(folder, "stranger")

    def device(site: str) -> x509.GeneralName:
        return x509.UniformResourceIdentifier(f"spiffe://{site}/device/{DEVICE}")

    right = authority.issue("right", device("dock-7"))
    return Papers(
        authority,
        {
            Credential.RIGHT: right,
            Credential.OTHER_DEVICE: right,
            Credential.EXPIRED: authority.issue("expired", device("dock-7"), days=-1),
            Credential.OTHER_SITE: authority.issue("other-site", device("dock-8")),
            Credential.OTHER_AUTHORITY: stranger.issue("foreign", device("dock-7")),
            Credential.NAMELESS: authority.issue(
                "nameless", x509.UniformResourceIdentifier("https://example.com/")
            ),
        },
    )


def write_tokens(path: Path, *tokens: tuple[str, float]) -> None:
    """Write a tokens file; each token is good for so many days."""
    now = datetime.now(UTC)
    path.write_text(
        json.dumps(
            [
                {
                    "sha256": hashlib.sha256(token.encode()).hexdigest(),
                    "device": DEVICE,
                    "expires": (now + timedelta(days=days)).isoformat(),
                }
                for token, days in tokens
            ]
        )
    )


@dataclass(frozen=True, slots=True)
class Site:
    """A gateway of one kind, and what is needed to talk to it."""

    kind: Kind
    target: Gateway
    papers: Papers

    def context(self, credential: Credential) -> ssl.SSLContext:
        """Make the TLS of a client."""
        context = ssl.create_default_context(cafile=str(self.papers.authority.path))
        client = self.papers.client(self.kind, credential)
        if client is not None:
            context.load_cert_chain(*client)
        return context

    @contextlib.contextmanager
    def channel(self, credential: Credential) -> Iterator[grpc.Channel]:
        """Open a gRPC channel of its own."""
        client = self.papers.client(self.kind, credential)
        cert, key = (each.read_bytes() for each in client) if client else (None, None)
        made = grpc.ssl_channel_credentials(
            self.papers.authority.path.read_bytes(), private_key=key, certificate_chain=cert
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(self.target.otlp_grpc, made, options) as channel:
            yield channel

    def metadata(self, credential: Credential) -> tuple[tuple[str, str], ...]:
        """Make the metadata of a gRPC call."""
        header = self.papers.header(self.kind, credential)
        return () if header is None else (("authorization", header),)

    def head(self, credential: Credential, length: int) -> bytes:
        """Make the head of an HTTP request."""
        header = self.papers.header(self.kind, credential)
        more = "" if header is None else f"Authorization: {header}\r\n"
        return (
            f"POST {TRACES_PATH} HTTP/1.1\r\nHost: gateway\r\nContent-Type: {PROTOBUF}\r\n"
            f"{more}Content-Length: {length}\r\n\r\n"
        ).encode()

    def post(self, credential: Credential, body: bytes, *, whole: bool = True) -> tuple[int, bytes]:
        """Send a request, or its head alone; status 0 when there was no connection."""
        host, port = self.target.otlp_http.rsplit(":", 1)
        try:
            with (
                socket.create_connection((host, int(port)), ANSWER_S) as plain,
                self.context(credential).wrap_socket(plain, server_hostname=host) as stream,
            ):
                stream.sendall(self.head(credential, len(body)) + (body if whole else b""))
                return read_answer(stream)
        except (ssl.SSLError, ConnectionError):
            return 0, b""

    def call(self, credential: Credential, body: bytes) -> tuple[grpc.StatusCode, bytes]:
        """Make a call over gRPC."""
        with self.channel(credential) as channel:
            try:
                answer = channel.unary_unary(EXPORT_METHOD)(
                    body, metadata=self.metadata(credential), timeout=ANSWER_S
                )
            except grpc.RpcError as error:
                return error.code(), b""
        return grpc.StatusCode.OK, answer

    def audited(self, event: str) -> list[Json]:
        """Read the lines of one event in the audit log, which must be whole."""
        path = self.target.data_dir / "audit.jsonl"
        assert verify(path).problems == ()
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in lines if line["ev"] == event]


def read_answer(stream: Any) -> tuple[int, bytes]:
    """Read one HTTP answer of a declared length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = stream.recv(65_536)
        if not piece:
            return 0, data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    length = int({key.lower(): value for key, value in fields.items()}[b"content-length"])
    while len(body) < length:
        body += stream.recv(65_536)
    return int(head.split(b" ")[1]), body


def request(credential: Credential) -> bytes:
    """Build a request of a device that says who it is, or whom it wants to be."""

    made = ExportTraceServiceRequest()
    name = "camera-4" if credential is Credential.OTHER_DEVICE else DEVICE
    scope = new_resource(made, name).scope_spans.add()
    for number in range(SPANS):
        fill_inference(scope.spans.add(), random.Random(number), number + 1)
    return made.SerializeToString()
