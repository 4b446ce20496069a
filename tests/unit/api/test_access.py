"""Each route answers exactly the roles it is for, and trace content is written down first."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.access import Role, load_tokens
from gateway.api.application import make_application
from gateway.api.audit import verify
from gateway.api.routes import ROUTES
from gateway.errors import InvalidConfigError
from tests.unit.api.fakes import NOW_NS, TRACE, World
from tests.unit.api.http import Client

CONTENT = {
    "/jaeger/api/traces",
    "/jaeger/api/traces/{trace_id}",
    "/jaeger/api/v3/traces/{trace_id}",
    "/api/v1/dives/{id}/traces",
    "/api/v1/provenance/{trace_id}",
}


def _line(token: str, role: str, expires: str = "2099-01-01T00:00:00Z", name: str = "") -> str:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return f"- {{sha256: '{digest}', role: {role}, name: {name or role}, expires: {expires}}}\n"


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.yaml"
    path.write_text(
        _line("v", "viewer")
        + _line("o", "operator")
        + _line("a", "auditor")
        + _line("old", "auditor", "2020-01-01T00:00:00Z", "old")
    )
    return path


@pytest.fixture
async def guarded(tokens_file: Path, world: World, audit_path: Path) -> AsyncIterator[Client]:
    application = make_application(
        sources=world.sources(),
        audit=audit_path,
        now_ns=lambda: NOW_NS,
        version="0.1.0",
        tokens=load_tokens(tokens_file),
    )
    async with TestClient(TestServer(application)) as client:
        yield client


def _lines_and_mode(path: Path) -> tuple[list[dict[str, Any]], int]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return lines, path.stat().st_mode & 0o777


def _make_unwritable(path: Path) -> None:
    path.unlink()
    path.mkdir()  # cannot be opened for writing, not even by root


def _url(path: str) -> str:
    return path.replace("{trace_id}", TRACE).replace("{id}", "d1").replace("{service:.+}", "dock")


@pytest.mark.parametrize("token", ["", "v", "o", "a", "old", "wrong"])
async def test_every_route_asks_for_its_role(guarded: Client, token: str) -> None:
    role = {"v": Role.VIEWER, "o": Role.OPERATOR, "a": Role.AUDITOR}.get(token)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for route in ROUTES:
        async with guarded.request(route.method, _url(route.path), headers=headers) as answer:
            place = (route.method, route.path, answer.status)
            if route.role is Role.NOBODY:
                assert answer.status == 200, place
            elif role is None:
                assert answer.status == 401, place
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            elif role < route.role:
                assert answer.status == 403, place
            else:
                assert answer.status not in (401, 403), place


def test_trace_content_needs_more_than_a_viewer() -> None:
    for route in ROUTES:
        changes = route.method != "GET"
        if route.path in CONTENT or changes:
            assert route.role >= Role.OPERATOR, route.path
        elif route.path not in ("/", "/healthz", "/readyz"):
            assert route.role is Role.VIEWER, route.path
    assert {route.path for route in ROUTES} >= CONTENT


@pytest.mark.parametrize(
    "header", ["Basic bzpv", "Bearer", "Bearer ", "bearer wrong", "Bearer " + "x" * 5000, "o"]
)
async def test_odd_credentials_are_refused(guarded: Client, header: str) -> None:
    async with guarded.get("/api/v1/status", headers={"Authorization": header}) as answer:
        assert answer.status == 401


async def test_the_scheme_is_read_in_any_case(guarded: Client) -> None:
    async with guarded.get("/api/v1/status", headers={"Authorization": "bEARER v"}) as answer:
        assert answer.status == 200


async def test_each_look_at_content_is_in_the_audit_log(
    guarded: Client, world: World, audit_path: Path
) -> None:
    headers = {"Authorization": "Bearer o"}
    body = {"trace_ids": [TRACE]}
    async with guarded.post("/api/v1/dives", json=body, headers=headers) as answer:
        assert answer.status == 202
    for path in sorted(CONTENT):
        async with guarded.get(_url(path), headers=headers) as answer:
            assert answer.status == 200
    lines, mode = _lines_and_mode(audit_path)
    assert [line["path"] for line in lines] == [_url(path) for path in sorted(CONTENT)]
    assert all(line["traces"] == [TRACE] for line in lines)
    assert all(line["principal"] == line["role"] == "operator" for line in lines)
    assert verify(audit_path).problems == ()
    assert mode == 0o600


async def test_without_an_audit_log_content_is_refused(
    guarded: Client, world: World, audit_path: Path
) -> None:
    headers = {"Authorization": "Bearer o"}
    async with guarded.post("/api/v1/dives", json={"anomaly_id": "a1"}, headers=headers):
        pass
    _make_unwritable(audit_path)
    for path in sorted(CONTENT):
        async with guarded.get(_url(path), headers=headers) as answer:
            text = await answer.text()
            assert answer.status == 503, path
            assert "audit log" in text
            assert "damage-net" not in text
    async with guarded.get("/api/v1/status", headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\n", "is not a list"),
        ("- [\n", "is not valid YAML"),
        ("- 5\n", "not a mapping"),
        ("- {sha256: aa, role: viewer, name: x}\n", "has the keys"),
        ("- {sha256: aa, role: viewer, name: x, expires: 2099-01-01}\n", "64 hex digits"),
        (_line("t", "king"), "role is not"),
        (_line("t", "viewer", name="'a b'"), "name is not"),
        (_line("t", "viewer", expires="soon"), "ISO 8601"),
        (_line("t", "viewer") + _line("t", "operator"), "occurs twice"),
    ],
)
def test_a_wrong_tokens_file_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "tokens.yaml"
    path.write_text(text)
    with pytest.raises(InvalidConfigError, match=says) as caught:
        load_tokens(path)
    assert caught.value.findings[0].line >= 1


def test_a_missing_tokens_file_is_refused_and_an_empty_one_admits_nobody(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="cannot be read"):
        load_tokens(tmp_path / "none.yaml")
    path = tmp_path / "tokens.yaml"
    path.write_text("")
    assert load_tokens(path) == {}


async def test_pages_of_other_sites_cannot_act(client: Client) -> None:
    body = {"anomaly_id": "a1"}
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 202)):
        headers = {"Sec-Fetch-Site": site}
        async with client.post("/api/v1/dives", json=body, headers=headers) as answer:
            assert answer.status == status


async def test_a_loopback_listener_without_tokens_refuses_foreign_names(
    world: World, audit_path: Path
) -> None:
    application: web.Application = make_application(
        sources=world.sources(),
        audit=audit_path,
        now_ns=lambda: NOW_NS,
        version="0.1.0",
        loopback=True,
    )
    async with TestClient(TestServer(application)) as client:
        for host, status in (
            ("127.0.0.1:9464", 200),
            ("localhost:9464", 200),
            ("[::1]:9464", 200),
            ("rebound.example.com", 403),
        ):
            async with client.get("/api/v1/status", headers={"Host": host}) as answer:
                assert answer.status == status, host
