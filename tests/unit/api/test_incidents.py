"""Anomalies, deep dives and provenance do what the table of paths says."""

import json
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from gateway.api.sources import TraceAnswer
from tests.unit.api.fakes import NOW_NS, TRACE, World, make_trace
from tests.unit.api.http import Client

DIVES = "/api/v1/dives"


async def _json(client: Client, path: str, status: int = 200, **more: Any) -> Any:
    async with client.get(path, **more) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(content_type=None)


async def test_anomalies_are_listed_shown_and_acknowledged_once(client: Client) -> None:
    page = await _json(client, "/api/v1/anomalies?state=firing")
    anomaly = page["items"][0]["anomaly"]
    assert (anomaly["id"], anomaly["kind"], anomaly["severity"]) == ("a1", "drift", "page")
    assert anomaly["numbers"] == {"psi": 0.4, "bad": None}
    assert anomaly["evidence"][0]["trace_id"] == TRACE
    assert (await _json(client, "/api/v1/anomalies?state=resolved"))["total"] == 0
    async with client.post("/api/v1/anomalies/a1/ack") as answer:
        body = await answer.json()
        assert (answer.status, body["state"], body["acknowledged_by"]) == (
            200,
            "acknowledged",
            "local",
        )
    assert (await _json(client, "/api/v1/anomalies/a1"))["state"] == "acknowledged"
    async with client.post("/api/v1/anomalies/a1/ack") as answer:
        assert answer.status == 409
    async with client.post("/api/v1/anomalies/a2/ack") as answer:
        assert answer.status == 404


async def test_a_dive_is_accepted_listed_shown_and_deleted(client: Client, world: World) -> None:
    body = {
        "trace_ids": [TRACE.upper(), TRACE],
        "query": {
            "model": "damage-net",
            "from": "2026-01-01T00:00:00.000001Z",
            "to": NOW_NS,
            "where": "confidence < 0.5",
        },
        "max_bytes": 1000,
        "not_after": "15m",
        "reason": "why",
    }
    async with client.post(DIVES, json=body) as answer:
        assert answer.status == 202
        assert await answer.json() == {"id": "d1", "state": "queued"}
        assert answer.headers["Location"] == f"{DIVES}/d1"
    wish = world.dives.wishes[0]
    assert wish.trace_ids == (TRACE,)
    assert wish.query is not None
    assert (wish.query.from_ns, wish.query.to_ns) == (1_767_225_600_000_001_000, NOW_NS)
    assert (wish.query.model, wish.query.where) == ("damage-net", "confidence < 0.5")
    assert wish.not_after_ns == NOW_NS + 900 * 1_000_000_000
    assert (wish.bytes_max, wish.reason, wish.requested_by) == (1000, "why", "local")
    assert (await _json(client, f"{DIVES}?state=queued"))["total"] == 1
    assert (await _json(client, f"{DIVES}/d1"))["state"] == "queued"
    async with client.delete(f"{DIVES}/d1") as answer:
        assert (answer.status, await answer.read()) == (204, b"")
    assert (await _json(client, f"{DIVES}/d1", 404))["status"] == 404


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "name an anomaly_id"),
        ({"anomaly_id": ""}, "anomaly_id"),
        ({"trace_ids": ["xyz"]}, "trace_ids.0"),
        ({"trace_ids": [TRACE] * 201}, "trace_ids"),
        ({"query": {"colour": "red"}}, "query.colour"),
        ({"query": {"from": "yesterday"}}, "query.from"),
        ({"query": {"from": "2026-01-01T00:00:00"}}, "time zone"),
        ({"query": {"to": -1}}, "query.to"),
        ({"anomaly_id": "a1", "max_bytes": 0}, "max_bytes"),
        ({"anomaly_id": "a1", "max_bytes": "1000"}, "max_bytes"),
        ({"anomaly_id": "a1", "not_after": "15 parsecs"}, "not_after"),
        ({"anomaly_id": "a1", "not_after": "1.2.3s"}, "not_after"),
        ({"anomaly_id": "a1", "reason": "x" * 501}, "reason"),
        ([], "body"),
    ],
)
async def test_a_wrong_dive_says_which_field(client: Client, body: Any, says: str) -> None:
    async with client.post(DIVES, json=body) as answer:
        found = await answer.json(content_type="application/problem+json")
        assert answer.status == 400
        assert says in found["detail"]


async def test_bodies_are_bounded_and_typed(client: Client) -> None:
    async with client.post(DIVES, data="{}") as answer:
        assert answer.status == 415
    headers = {"Content-Type": "application/json"}
    async with client.post(DIVES, data="{", headers=headers) as answer:
        assert answer.status == 400
    async with client.post(DIVES, data="[" * 60_000, headers=headers) as answer:
        assert answer.status == 400
    async with client.post(DIVES, data=" " * 70_000, headers=headers) as answer:
        assert answer.status == 413


@pytest.mark.parametrize(
    ("accept", "protobuf"),
    [
        ("application/json", False),
        ("*/*", False),
        ("application/x-protobuf", True),
        ("application/protobuf, application/json;q=0.5", True),
        ("application/x-protobuf;q=0.1, application/json", False),
        ("text/html", False),
    ],
)
async def test_dive_traces_follow_accept(client: Client, accept: str, protobuf: bool) -> None:
    async with client.post(DIVES, json={"anomaly_id": "a1"}):
        pass
    async with client.get(f"{DIVES}/d1/traces", headers={"Accept": accept}) as answer:
        assert answer.status == 200
        assert answer.headers["Weir-Problems"] == "cam-2 is gone ? later"
        body = await answer.read()
    if protobuf:
        assert answer.content_type == "application/x-protobuf"
        assert TracesData.FromString(body) == make_trace()
        return
    assert answer.content_type == "application/json"
    span = json.loads(body)["resourceSpans"][1]["scopeSpans"][0]["spans"][0]
    assert (span["traceId"], span["spanId"], span["parentSpanId"]) == (
        TRACE,
        "0" * 15 + "2",
        "0" * 15 + "1",
    )
    assert span["links"][0] == {"traceId": "0" * 31 + "7", "spanId": "0" * 14 + "08"}
    assert (span["kind"], span["status"]["code"]) == (2, 2)
    assert span["startTimeUnixNano"] == str(NOW_NS + 1_000_000)
    values = {item["key"]: item["value"] for item in span["attributes"]}
    assert values["count"] == {"intValue": str(1 << 60)}
    assert values["score"] == {"doubleValue": 0.5}


async def test_provenance_lists_what_the_spans_claim(client: Client) -> None:
    body = await _json(client, "/api/v1/provenance/ABC")
    assert body["trace_id"] == TRACE
    claims = {claim["device"]: claim for claim in body["claims"]}
    assert set(claims) == {"cam-0", "cam-1"}
    claim = claims["cam-1"]
    assert (claim["model"], claim["model_digest"]) == ("damage-net", "sha256:ff")
    assert (claim["pointer"], claim["service"], claim["spans"]) == ("ring:7", "vision", 1)
    assert claim["attestation_hash"] == ""


async def test_a_span_held_in_two_places_is_shown_once(client: Client, world: World) -> None:
    compact = make_trace()
    spans = [item.scope_spans[0].spans[0] for item in compact.resource_spans]
    del spans[1].attributes[1:]
    spans[1].ClearField("events")
    del compact.resource_spans[0]
    world.traces[TRACE] = TraceAnswer(
        parts=(compact.SerializeToString(), make_trace().SerializeToString())
    )
    trace = (await _json(client, f"/jaeger/api/traces/{TRACE}"))["data"][0]
    assert [span["operationName"] for span in trace["spans"]] == ["request", "infer"]
    keys = [tag["key"] for tag in trace["spans"][1]["tags"]]
    assert keys.count("edgeai.model.name") == 1
    assert "edgeai.provenance.pointer" in keys
    assert trace["spans"][1]["logs"]
