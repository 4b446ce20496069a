"""TLS and client certificates on both listeners."""

import ssl
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from cryptography import x509

from gateway.config import ReceiveSection, TlsSection
from gateway.errors import StartError
from gateway.receive.listening import read_material
from tests.unit.receive.support import (
    EXPORT,
    WAIT_S,
    Authority,
    Site,
    request_bytes,
    section,
    serving,
    token_table,
)

DEVICE = x509.UniformResourceIdentifier("spiffe://dock-7/device/camera-3")
Pair = tuple[Path, Path]


def receive(tls: TlsSection) -> ReceiveSection:
    return section(tls=tls)


async def send(site: Site, authority: Authority, client: Pair | None = None) -> int:
    context = ssl.create_default_context(cafile=str(authority.path))
    if client is not None:
        context.load_cert_chain(*client)
    headers = {"Content-Type": "application/x-protobuf"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.post(site.url, data=request_bytes(), headers=headers) as answer,
    ):
        return answer.status


async def call(
    site: Site,
    authority: Authority,
    client: Pair | None = None,
    metadata: tuple[tuple[str, str], ...] = (),
) -> bytes:
    cert, key = (path.read_bytes() for path in client) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(
        authority.path.read_bytes(), private_key=key, certificate_chain=cert
    )
    options: Any = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(site.grpc_address, credentials, options) as channel:
        reply: bytes = await channel.unary_unary(EXPORT)(
            request_bytes(), metadata=metadata, timeout=WAIT_S
        )
        return reply


def renew(site: Site, tls: TlsSection) -> None:
    material = read_material(tls)
    assert material is not None
    site.http.use_tls(material)
    site.grpc.use_tls(material)


async def test_requests_arrive_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(receive=receive(authority.tls())) as site:
        assert await send(site, authority) == 200
        assert await call(site, authority) == b""
        assert [payload.identity for payload in site.commit.payloads] == ["", ""]


async def test_a_token_over_tls_gives_the_identity(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(receive=receive(authority.tls()), tokens=token_table("t")) as site:
        await call(site, authority, metadata=(("authorization", "Bearer t"),))
        assert site.commit.payloads[0].identity == "device-t"


async def test_a_client_certificate_gives_the_identity(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = authority.issue("client", DEVICE)
    tls = authority.tls(clients=True)
    async with serving(receive=receive(tls), certificates=True, now_ns=lambda: 0) as site:
        assert await send(site, authority, client) == 200
        assert await call(site, authority, client) == b""
        assert [payload.identity for payload in site.commit.payloads] == ["camera-3"] * 2


async def test_without_a_client_certificate_there_is_no_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.tls(clients=True)
    async with serving(receive=receive(tls), certificates=True, now_ns=lambda: 0) as site:
        with pytest.raises(aiohttp.ClientError):
            await send(site, authority)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(site, authority)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert site.commit.payloads == []


async def test_a_certificate_of_another_authority_makes_no_connection(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    client = stranger.issue("foreign", DEVICE)
    tls = authority.tls(clients=True)
    async with serving(receive=receive(tls), certificates=True, now_ns=lambda: 0) as site:
        with pytest.raises(aiohttp.ClientError):
            await send(site, authority, client)
        with pytest.raises(grpc.aio.AioRpcError):
            await call(site, authority, client)
        assert site.commit.payloads == []


@pytest.mark.parametrize(
    ("name", "http", "code"),
    [
        (x509.UniformResourceIdentifier("spiffe://dock-8/device/camera-3"), 403, 7),
        (x509.UniformResourceIdentifier("https://example.com/"), 401, 16),
    ],
)
async def test_a_certificate_for_something_else_is_refused(
    tmp_path: Path, name: x509.GeneralName, http: int, code: int
) -> None:
    authority = Authority(tmp_path)
    client = authority.issue("client", name)
    tls = authority.tls(clients=True)
    async with serving(receive=receive(tls), certificates=True, now_ns=lambda: 0) as site:
        assert await send(site, authority, client) == http
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(site, authority, client)
        assert caught.value.code().value[0] == code
        assert site.commit.payloads == []


async def test_a_renewed_certificate_is_used_for_new_connections(tmp_path: Path) -> None:
    authority, successor = Authority(tmp_path), Authority(tmp_path, "successor")
    tls = authority.tls()
    async with serving(receive=receive(tls)) as site:
        assert await send(site, authority) == 200
        successor.server()  # writes over the files of the first one
        renew(site, tls)
        assert await send(site, successor) == 200
        assert await call(site, successor) == b""
        with pytest.raises(aiohttp.ClientError):
            await send(site, authority)


async def test_a_renewed_authority_of_clients_takes_the_place_of_the_old_one(
    tmp_path: Path,
) -> None:
    authority, successor = Authority(tmp_path), Authority(tmp_path, "successor")
    old, new = authority.issue("old", DEVICE), successor.issue("new", DEVICE)
    tls = authority.tls(clients=True)
    async with serving(receive=receive(tls), certificates=True, now_ns=lambda: 0) as site:
        assert await send(site, authority, old) == 200
        with pytest.raises(aiohttp.ClientError):
            await send(site, authority, new)
        renew(site, tls.model_copy(update={"client_ca": successor.path}))
        assert await send(site, authority, new) == 200
        assert await call(site, authority, new) == b""
        with pytest.raises(aiohttp.ClientError):
            await send(site, authority, old)
        with pytest.raises(grpc.aio.AioRpcError):
            await call(site, authority, old)


async def test_a_renewal_that_cannot_be_read_leaves_the_old_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.tls()
    assert tls.key is not None
    async with serving(receive=receive(tls)) as site:
        tls.key.write_text("nonsense")
        with pytest.raises(StartError, match="not a PEM certificate"):
            renew(site, tls)
        assert await send(site, authority) == 200
        assert await call(site, authority) == b""


async def test_plain_http_on_a_tls_port_is_not_answered(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(receive=receive(authority.tls())) as site, aiohttp.ClientSession() as plain:
        with pytest.raises(aiohttp.ClientError):
            await plain.get(f"http://{site.http_address}/")


async def test_missing_or_broken_tls_files_are_said_in_one_sentence(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path).server()
    missing = tmp_path / "missing.pem"
    for tls, message in (
        (TlsSection(cert=missing, key=key), "cannot read the TLS file .*missing.pem: No such file"),
        (TlsSection(cert=cert, key=missing), "cannot read the TLS file .*missing.pem"),
        (TlsSection(cert=cert, key=key, client_ca=missing), "cannot read the TLS file"),
        (TlsSection(cert=key, key=cert), "not a PEM certificate and its key"),
    ):
        with pytest.raises(StartError, match=message):
            async with serving(receive=receive(tls)):
                pass
