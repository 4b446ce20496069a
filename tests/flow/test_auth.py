"""Who may send: every transport, kind of gateway and credential, against a real process.

Law: a peer without a good credential is answered from its headers alone, is counted and audited,
and nothing of it is stored. A good credential says who the sender is: what names another device is
rejected, item by item, and audited without the name.
"""

import asyncio
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.flow.auth import (
    ANSWER_S,
    CASES,
    DEVICE,
    EXPECTED,
    OLD_TOKEN,
    REFUSED,
    SPANS,
    TOKEN,
    Credential,
    Kind,
    Site,
    make_papers,
    request,
    write_tokens,
)
from tests.flow.load import fill_inference, set_attribute
from tests.flow.site import scrape, site_file, stored
from tests.process import Json
from tests.servers import gateway, wait_until
from tests.sink import EXPORT_METHOD

pytestmark = pytest.mark.flow

AUDIT_S: Final = 20.0
MISMATCH: Final = "device.id is not the identity of the sender"


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
