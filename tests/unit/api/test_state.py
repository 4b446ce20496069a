"""Health, readiness and current state are JSON of the snapshots."""

from dataclasses import replace
from typing import Any

import pytest

from gateway.api.problem import SECURITY_HEADERS
from gateway.api.sources import Check
from tests.unit.api.fakes import MEASURE, World
from tests.unit.api.http import Client


async def _json(client: Client, path: str, status: int = 200) -> Any:
    async with client.get(path) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)


async def test_alive_and_ready(client: Client, world: World) -> None:
    async with client.get("/healthz") as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")
    assert (await _json(client, "/readyz"))["ready"] is True
    world.checks.append(Check(check="disk", ok=False, detail="is full"))
    body = await _json(client, "/readyz", status=503)
    assert body["ready"] is False
    assert {"check": "disk", "ok": False, "detail": "is full"} in body["checks"]


async def test_status_shows_the_accounting(client: Client) -> None:
    body = await _json(client, "/api/v1/status")
    assert body["site"] == "dock-7"
    row = body["accounting"][0]
    parts = ("forwarded", "sampled_out", "dropped", "quarantined", "pending")
    assert row["received"] == sum(row[part] for part in parts)
    assert body["contracts"][0]["model"] == "damage-net"


async def test_models_have_ratio_and_quantiles(client: Client) -> None:
    body = await _json(client, "/api/v1/models")
    model = body["items"][0]
    assert body["total"] == 1
    assert model["success_ratio"] == 0.98
    assert model["recent"] is None, "nothing came in the last minutes"
    assert model["all_time"] == {"p50_s": 0.05, "p95_s": 0.2, "p99_s": 0.4}
    assert model["classes"] == {"ok": 90, "torn": 10}
    assert model["weights"] == {"mean": 4.5, "effective_inferences": 60.0}


async def test_slo_drift_devices_and_baselines(client: Client) -> None:
    slo = (await _json(client, "/api/v1/slo"))["items"][0]
    assert slo["windows"][0] == {"window": "5m", "good": 10, "bad": 2, "burn_rate": 14.5}
    assert slo["windows"][1]["burn_rate"] is None  # JSON has no NaN
    drift = (await _json(client, "/api/v1/drift"))["items"]
    assert [item["psi"] for item in drift] == [0.4, None]
    split = {"class": 0.1, "confidence_given_class": 0.3}
    assert [item["attribution"] for item in drift] == [split, {}]
    assert [item["relative_drift_index"] for item in drift] == [7.5, None]
    devices = (await _json(client, "/api/v1/devices"))["items"]
    assert [item["device"] for item in devices] == ["cam-2", "cam-1", "cam-0"]
    assert (await _json(client, "/api/v1/baselines"))["items"][0]["state"] == "learning"


async def test_pages_are_bounded(client: Client) -> None:
    body = await _json(client, "/api/v1/devices?limit=1&offset=1")
    assert ([item["device"] for item in body["items"]], body["total"]) == (["cam-1"], 3)
    for query in ("limit=0", "limit=1001", "limit=x", "offset=-1", "limit=1&limit=2"):
        assert (await _json(client, f"/api/v1/devices?{query}", 400))["status"] == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("POST", "/api/v1/rollouts", 415),
        ("GET", "/api/v1/anomalies/none", 404),
        ("GET", "/api/v1/dives/none", 404),
        ("DELETE", "/api/v1/dives/none", 404),
        ("GET", "/api/v1/dives/none/traces", 404),
        ("GET", "/api/v1/provenance/abcd", 404),
        ("GET", "/api/v1/provenance/xyz", 400),
        ("POST", "/api/v1/status", 405),
        ("GET", "/api/v1/status?unknown=1", 400),
        ("GET", "/api/v1/anomalies?state=odd", 400),
        ("GET", "/api/v1/anomalies?state=" + "x" * 600, 400),
    ],
)
async def test_errors_are_problem_documents(
    client: Client, method: str, path: str, status: int
) -> None:
    async with client.request(method, path) as answer:
        body = await answer.json(content_type="application/problem+json")
        assert answer.status == body["status"] == status
        assert set(body) == {"type", "title", "status", "detail"}
        assert body["detail"]
        if status == 405:
            assert "GET" in answer.headers["Allow"]


async def test_every_answer_has_the_security_headers(client: Client) -> None:
    for path in ("/", "/metrics", "/api/v1/status", "/api/v1/nothing", "/jaeger/api/services"):
        async with client.get(path) as answer:
            for name in SECURITY_HEADERS:
                assert name in answer.headers, (path, name)


async def test_an_empty_site_answers_too(client: Client, world: World) -> None:
    world.measure = replace(MEASURE, series=(), slos=(), drift=(), devices=(), baselines=())
    for name in ("models", "slo", "devices", "baselines"):
        assert await _json(client, f"/api/v1/{name}") == {"items": [], "total": 0}
    assert await _json(client, "/api/v1/drift") == {
        "items": [],
        "total": 0,
        "budget": {"per": "signal", "detectors": 0},
        "reported": {"promise": "", "signals": []},
    }
