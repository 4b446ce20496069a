"""The Jaeger routes answer in the shapes that Grafana decodes: integers are integers."""

import asyncio
import json
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from gateway.api import jaeger, jaeger_routes
from gateway.api.sources import TraceAnswer
from tests.unit.api.fakes import NOW_NS, TRACE, World, make_trace
from tests.unit.api.http import Client

KINDS_OF_TAG: dict[str, type] = {"string": str, "bool": bool, "int64": int, "float64": float}


async def _json(client: Client, path: str, status: int = 200) -> Any:
    async with client.get("/jaeger/api" + path) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


def _check_tags(tags: list[dict[str, Any]]) -> None:
    for tag in tags:
        assert set(tag) == {"key", "type", "value"}
        assert type(tag["value"]) is KINDS_OF_TAG[tag["type"]]


def _check_trace(trace: dict[str, Any]) -> None:
    """Mirror what Grafana's decoder accepts."""
    assert set(trace) == {"traceID", "spans", "processes", "warnings"}
    assert trace["spans"]
    for span in trace["spans"]:
        assert len(span["traceID"]) == 32
        assert len(span["spanID"]) == 16
        assert span["processID"] in trace["processes"]
        for name in ("startTime", "duration", "flags"):
            assert type(span[name]) is int
        for log in span["logs"]:
            assert type(log["timestamp"]) is int
            _check_tags(log["fields"])
        _check_tags(span["tags"])
        for reference in span["references"]:
            assert set(reference) == {"refType", "traceID", "spanID"}
    for process in trace["processes"].values():
        assert isinstance(process["serviceName"], str)
        _check_tags(process["tags"])


async def test_services_and_operations(client: Client) -> None:
    assert await _json(client, "/services") == {
        "data": ["dock", "vision/night"],
        "total": 2,
        "limit": 0,
        "offset": 0,
        "errors": None,
    }
    assert (await _json(client, "/services/vision/night/operations"))["data"] == ["infer"]
    assert (await _json(client, "/services/vision%2Fnight/operations"))["data"] == ["infer"]
    assert (await _json(client, "/services/other/operations"))["data"] == []


@pytest.mark.parametrize("text", [TRACE, TRACE.upper(), "abc", "0abc"])
async def test_a_trace_has_the_decoded_shape(client: Client, text: str) -> None:
    body = await _json(client, f"/traces/{text}?start=1&end=2")
    assert len(body["data"]) == 1
    trace = body["data"][0]
    _check_trace(trace)
    first, second = trace["spans"]
    assert (first["operationName"], second["operationName"]) == ("request", "infer")
    assert first["startTime"] == NOW_NS // 1000
    assert first["duration"] == 5000
    assert first["references"] == []
    assert second["references"][0] == {
        "refType": "CHILD_OF",
        "traceID": TRACE,
        "spanID": "0000000000000001",
    }
    assert second["references"][1]["refType"] == "FOLLOWS_FROM"
    tags = {tag["key"]: tag["value"] for tag in second["tags"]}
    assert (tags["span.kind"], tags["error"], tags["otel.status_code"]) == ("server", True, "ERROR")
    assert (tags["count"], tags["score"], tags["cold"]) == (1 << 60, 0.5, True)
    assert tags["raw"] == "AAE="
    assert json.loads(tags["list"]) == {"values": [{"intValue": "3"}]}
    assert second["logs"][0]["fields"][0]["value"] == "exception"
    assert trace["processes"][second["processID"]]["serviceName"] == "vision"


async def test_an_unknown_trace_is_404_with_jaegers_body(client: Client, world: World) -> None:
    expected = {
        "data": None,
        "total": 0,
        "limit": 0,
        "offset": 0,
        "errors": [{"code": 404, "msg": "trace not found"}],
    }
    assert await _json(client, "/traces/1", status=404) == expected
    world.traces["0" * 31 + "1"] = TraceAnswer(parts=())  # known, and nothing is left of it
    assert await _json(client, "/traces/1", status=404) == expected
    async with client.get("/jaeger/api/traces/xyz") as answer:
        assert answer.status == 400


async def test_search_passes_its_filters_on(client: Client, world: World) -> None:
    body = await _json(
        client,
        "/traces?service=vision&operation=infer&minDuration=1.2s&maxDuration=1m0.5s"
        "&limit=7&start=1000&end=2000&lookback=custom",
    )
    assert [trace["traceID"] for trace in body["data"]] == [TRACE]
    _check_trace(body["data"][0])
    query = world.queries[0]
    assert (query.service, query.name, query.limit) == ("vision", "infer", 7)
    assert (query.duration_ns_min, query.duration_ns_max) == (1_200_000_000, 60_500_000_000)
    assert (query.from_ns, query.to_ns) == (1_000_000, 2_000_999)


async def test_search_has_limits(client: Client, world: World) -> None:
    await _json(client, "/traces?service=")
    await _json(client, "/traces?limit=100000")
    assert [query.limit for query in world.queries] == [20, 200]
    assert world.queries[0].service is None
    for query_text in (
        "limit=0",
        "start=-1",
        "start=1e9",
        "minDuration=5",
        "minDuration=5parsecs",
        "tags=[1]",
        'tags={"a":1}',
        "tags={",
        "service=" + "x" * 600,
        "tags=" + json.dumps({str(n): "" for n in range(17)}).replace(" ", ""),
    ):
        async with client.get("/jaeger/api/traces?" + query_text) as answer:
            assert answer.status == 400, query_text


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({"error": "true"}, 1),
        ({"error": "true", "device.id": "cam-1"}, 1),
        ({"error": "true", "device.id": "cam-0"}, 0),  # not on the same span
        ({"exception.type": "ValueError"}, 1),
        ({"count": str(1 << 60)}, 1),
        ({"error": "false"}, 0),
    ],
)
async def test_tags_must_be_on_one_span(client: Client, tags: dict[str, str], found: int) -> None:
    async with client.get("/jaeger/api/traces", params={"tags": json.dumps(tags)}) as answer:
        assert len((await answer.json())["data"]) == found


async def test_a_slow_search_is_told_to_try_a_shorter_range(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaeger_routes, "SEARCH_TIMEOUT_S", 0.01)
    world.search_gate = asyncio.Event()
    async with client.get("/jaeger/api/traces") as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert "shorter time range" in (await answer.json())["detail"]


async def test_dependencies_count_calls_between_services(client: Client, world: World) -> None:
    body = await _json(client, "/dependencies?endTs=2000&lookback=500")
    assert body == {
        "data": [{"parent": "dock", "child": "vision", "callCount": 1}],
        "errors": None,
    }
    assert (world.queries[0].from_ns, world.queries[0].to_ns) == (1_500_000_000, 2_000_000_000)


async def test_the_newer_routes(client: Client) -> None:
    assert await _json(client, "/v3/services") == {"services": ["dock", "vision/night"]}
    assert (await _json(client, "/v3/operations?service=vision/night")) == {
        "operations": [
            {"name": "infer", "spanKind": "client"},
            {"name": "infer", "spanKind": "server"},
        ]
    }
    body = await _json(client, f"/v3/traces/{TRACE}?start_time=2026-01-01T00:00:00Z")
    span = body["result"]["resourceSpans"][1]["scopeSpans"][0]["spans"][0]
    assert (span["traceId"], span["spanId"]) == (TRACE, "0000000000000002")
    values = {item["key"]: item["value"] for item in span["attributes"]}
    assert values["count"] == {"intValue": str(1 << 60)}
    assert values["score"] == {"doubleValue": "0.5"}
    assert values["cold"] == {"boolValue": "true"}
    assert values["list"] == {"array_value": {"values": [{"intValue": "3"}]}}
    missing = await _json(client, "/v3/traces/1", status=404)
    assert missing["error"]["httpCode"] == 404


async def test_only_reading_is_possible(client: Client) -> None:
    for path in ("/services", "/traces", f"/traces/{TRACE}", "/v3/services"):
        async with client.post("/jaeger/api" + path) as answer:
            assert answer.status == 405


def test_no_trace_is_empty_and_odd_values_are_text() -> None:
    assert jaeger.to_jaeger(TracesData()) == []
    data = make_trace()
    data.resource_spans[0].scope_spans[0].spans[0].attributes.add(
        key="nan"
    ).value.double_value = float("nan")
    tags = jaeger.to_jaeger(data)[0]["spans"][0]["tags"]
    assert {"key": "nan", "type": "string", "value": "nan"} in tags
    data.resource_spans[0].scope_spans[0].spans[0].end_time_unix_nano = 1
    assert jaeger.to_jaeger(data)[0]["spans"][0]["duration"] == 0
