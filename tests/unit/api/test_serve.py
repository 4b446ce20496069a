"""The listener binds what the site file says, and says in one sentence when it cannot."""

from pathlib import Path

import aiohttp
import aiohttp.web
import pytest

from gateway.api.application import make_application
from gateway.api.serve import listen
from gateway.config import ApiSection, TlsSection
from gateway.errors import StartError
from tests.unit.api.fakes import NOW_NS, World


async def test_port_zero_means_any_and_closing_frees_it(tmp_path: Path) -> None:
    def application() -> aiohttp.web.Application:
        return make_application(
            sources=World().sources(),
            audit=tmp_path / "log",
            now_ns=lambda: NOW_NS,
            version="1",
            loopback=True,
        )

    listener = await listen(application(), ApiSection(listen="127.0.0.1:0"))
    assert listener.port > 0
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{listener.address}/healthz") as answer,
    ):
        assert answer.status == 200
    with pytest.raises(StartError, match="the port is in use"):
        await listen(application(), ApiSection(listen=listener.address))
    await listener.close()
    again = await listen(application(), ApiSection(listen=listener.address))
    await again.close()


async def test_broken_tls_files_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    section = ApiSection(
        listen="127.0.0.1:0",
        tls=TlsSection(cert=tmp_path / "cert.pem", key=tmp_path / "cert.pem"),
    )
    application = make_application(
        sources=World().sources(), audit=tmp_path / "log", now_ns=lambda: NOW_NS, version="1"
    )
    with pytest.raises(StartError, match="TLS files"):
        await listen(application, section)
