"""Who may send: every transport, kind of gateway and credential, against a real process.

Law: a peer without a good credential is answered from its headers alone, is counted and audited,
and nothing of it is stored. A good credential says who the sender is: what names another device is
rejected, item by item, and audited without the name.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from cryptography import x509
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from gateway.api.audit import verify
from tests.flow.load import fill_inference, new_resource, set_attribute
from tests.flow.site import scrape, site_file, stored
from tests.process import Json
from tests.servers import Gateway, gateway, wait_until
from tests.sink import EXPORT_METHOD, PROTOBUF, TRACES_PATH
from tests.unit.receive.support import Authority

pytestmark = pytest.mark.flow

ANSWER_S: Final = 20.0
AUDIT_S: Final = 20.0
SPANS: Final = 3
DEVICE: Final = "camera-3"
TOKEN: Final = "correct horse battery staple"
OLD_TOKEN: Final = "yesterday's token"
MISMATCH: Final = "device.id is not the identity of the sender"


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


@pytest.fixture(scope="module", params=list(Kind))
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    kind: Kind = request.param
    directory = tmp_path_factory.mktemp(kind)
    papers = make_papers(directory / "papers")
    cert, key = papers.authority.server()
    tls: dict[str, Json] = {"cert": str(cert), "key": str(key)}
    receive: dict[str, Json] = {"tls": tls}
    if kind is not Kind.TOKENS:
        tls["client_ca"] = str(papers.authority.path)
    if kind is not Kind.MTLS:
        tokens = directory / "tokens.json"
        write_tokens(tokens, (TOKEN, 1), (OLD_TOKEN, -1))
        receive["tokens_file"] = str(tokens)
    config = site_file(directory, None, receive=receive)
    with gateway(directory, config=config) as target:
        yield Site(kind, target, papers)


def cases(kind: Kind) -> list[Credential]:
    return [credential for each, credential in CASES if each is kind]


def refused_cases(kind: Kind) -> list[Credential]:
    return [credential for each, credential in REFUSED if each is kind]


def rejected(answer: bytes) -> tuple[int, str]:
    partial = ExportTraceServiceResponse.FromString(answer).partial_success
    return partial.rejected_spans, partial.error_message


def test_http_answers_each_credential(site: Site) -> None:
    for credential in cases(site.kind):
        status, answer = site.post(credential, request(credential))
        assert status == EXPECTED[site.kind][credential][0], credential
        if credential is Credential.OTHER_DEVICE:
            assert rejected(answer) == (SPANS, MISMATCH)
        elif status == 200:
            assert answer == b""


def test_grpc_answers_each_credential(site: Site) -> None:
    for credential in cases(site.kind):
        code, answer = site.call(credential, request(credential))
        assert code is EXPECTED[site.kind][credential][1], credential
        if credential is Credential.OTHER_DEVICE:
            assert rejected(answer) == (SPANS, MISMATCH)
        elif code is grpc.StatusCode.OK:
            assert answer == b""


def test_http_refuses_while_only_the_headers_were_sent(site: Site) -> None:
    """Not one byte of a declared megabyte is sent: whoever waited for it would not answer."""
    for credential in refused_cases(site.kind):
        status, _ = site.post(credential, bytes(1 << 20), whole=False)
        assert status == EXPECTED[site.kind][credential][0], credential


def test_grpc_refuses_while_only_the_headers_were_sent(site: Site) -> None:
    async def headers_only(credential: Credential) -> grpc.StatusCode:
        client = site.papers.client(site.kind, credential)
        cert, key = (each.read_bytes() for each in client) if client else (None, None)
        made = grpc.ssl_channel_credentials(
            site.papers.authority.path.read_bytes(), private_key=key, certificate_chain=cert
        )
        options: Any = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(site.target.otlp_grpc, made, options) as channel:
            call = channel.stream_unary(EXPORT_METHOD)(
                metadata=site.metadata(credential), timeout=ANSWER_S
            )
            code: grpc.StatusCode = await call.code()
            return code

    for credential in refused_cases(site.kind):
        code = asyncio.run(headers_only(credential))
        assert code is EXPECTED[site.kind][credential][1], credential


def test_only_what_the_right_device_sent_is_counted_and_stored(site: Site) -> None:
    """Once over each transport, in the tests above."""
    counted = scrape(site.target).samples
    received = sum(
        value
        for (name, labels), value in counted.items()
        if name == "weir_received_items_total" and ("signal", "traces") in labels
    )
    assert received == 2 * SPANS


def test_what_was_refused_is_audited_without_any_credential_or_name(site: Site) -> None:
    wait_until(lambda: site.audited("authn_fail"), timeout_s=AUDIT_S, what="lines in the audit log")
    for line in site.audited("authn_fail"):
        assert line["subject"] == "127.0.0.1"
        assert line["transport"] in ("http", "grpc")
        assert line["requests"] >= 1
    text = (site.target.data_dir / "audit.jsonl").read_text()
    log = site.target.server.log_path.read_text()
    for secret in ("guess", TOKEN, OLD_TOKEN, "dXNlcjpwYXNz", "camera-4"):
        assert secret not in text
        assert secret not in log


def test_at_the_end_every_failure_is_in_the_audit_log(tmp_path: Path) -> None:
    """The log is written once a minute and when the gateway stops; the counts add up."""
    papers = make_papers(tmp_path / "papers")
    cert, key = papers.authority.server()
    tokens = tmp_path / "tokens.json"
    write_tokens(tokens, (TOKEN, 1))
    receive = {"tls": {"cert": str(cert), "key": str(key)}, "tokens_file": str(tokens)}
    with gateway(tmp_path, config=site_file(tmp_path, None, receive=receive)) as target:
        site = Site(Kind.TOKENS, target, papers)
        for _ in range(20):
            assert site.post(Credential.WRONG, b"\0")[0] == 401
        for _ in range(5):
            assert site.call(Credential.NONE, b"\0")[0] is grpc.StatusCode.UNAUTHENTICATED
            site.post(Credential.OTHER_DEVICE, request(Credential.OTHER_DEVICE))
        refused = {
            dict(labels)["reason"]: value
            for (name, labels), value in scrape(target).samples.items()
            if name == "weir_refused_items_total" and ("signal", "traces") in labels
        }
        assert refused["unauthenticated"] == 25
    requests = {"http": 0, "grpc": 0}
    for line in site.audited("authn_fail"):
        requests[line["transport"]] += line["requests"]
    assert requests == {"http": 20, "grpc": 5}
    mismatches = site.audited("identity_mismatch")
    assert {line["subject"] for line in mismatches} == {DEVICE}
    assert sum(line["items"] for line in mismatches) == 5 * SPANS
    assert stored(target.data_dir) is None
    assert len(site.audited("authn_fail") + mismatches) < 10


def test_an_absent_device_id_is_the_identity_of_the_sender(tmp_path: Path) -> None:
    papers = make_papers(tmp_path / "papers")
    cert, key = papers.authority.server()
    tls = {"cert": str(cert), "key": str(key), "client_ca": str(papers.authority.path)}
    with gateway(tmp_path, config=site_file(tmp_path, None, receive={"tls": tls})) as target:
        site = Site(Kind.MTLS, target, papers)
        made = ExportTraceServiceRequest()
        resource = made.resource_spans.add()
        set_attribute(resource.resource, "service.name", "dock-camera")

        fill_inference(resource.scope_spans.add().spans.add(), random.Random(1), 1)
        for body in (made.SerializeToString(), request(Credential.RIGHT)):
            assert site.post(Credential.RIGHT, body) == (200, b"")

        def devices() -> Json:
            found = target.get_json("/api/v1/devices")["items"]
            return found if found and found[0]["spans"] == 1 + SPANS else None

        (only,) = wait_until(devices, timeout_s=ANSWER_S, what="one device with all spans")
        assert only["spans"] == 1 + SPANS


def test_tokens_change_without_a_restart(tmp_path: Path) -> None:
    papers = make_papers(tmp_path / "papers")
    cert, key = papers.authority.server()
    tokens = tmp_path / "tokens.json"
    write_tokens(tokens, (OLD_TOKEN, 1))
    receive = {"tls": {"cert": str(cert), "key": str(key)}, "tokens_file": str(tokens)}
    with gateway(tmp_path, config=site_file(tmp_path, None, receive=receive)) as target:
        site = Site(Kind.TOKENS, target, papers)

        def reload(word: bytes) -> None:
            before = target.server.log_path.read_bytes().count(word)
            target.server.process.send_signal(signal.SIGHUP)
            wait_until(
                lambda: target.server.log_path.read_bytes().count(word) > before,
                timeout_s=ANSWER_S,
                what=f"word of the reload\n{target.server.log()}",
            )

        body = request(Credential.RIGHT)
        assert site.post(Credential.RIGHT, body)[0] == 401
        assert site.post(Credential.EXPIRED, body)[0] == 200
        write_tokens(tokens, (TOKEN, 1), (OLD_TOKEN, 1))
        reload(b"reloaded")
        assert site.post(Credential.RIGHT, body)[0] == 200
        assert site.post(Credential.EXPIRED, body)[0] == 200
        tokens.write_text("[{")
        reload(b"reload refused")
        assert site.post(Credential.RIGHT, body)[0] == 200
        write_tokens(tokens, (TOKEN, 1))
        reload(b"reloaded")
        assert site.post(Credential.EXPIRED, body)[0] == 401
        assert site.call(Credential.EXPIRED, body)[0] is grpc.StatusCode.UNAUTHENTICATED
        assert site.call(Credential.RIGHT, body)[0] is grpc.StatusCode.OK
