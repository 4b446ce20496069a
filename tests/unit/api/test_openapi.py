"""The OpenAPI document lists exactly the routes and describes their answers."""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from gateway.api.application import make_application
from gateway.api.openapi import template
from gateway.api.sources import StatusSnapshot
from gateway.api.views import plain
from tests.unit.api.fakes import NOW_NS, STATUS, World
from tests.unit.api.http import Client


async def _document(client: Client) -> Any:
    async with client.get("/api/v1/openapi.json") as answer:
        assert answer.status == 200
        return await answer.json()


async def test_it_lists_exactly_the_routes(client: Client, tmp_path: Path) -> None:
    document = await _document(client)
    listed = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    application = make_application(
        sources=World().sources(), audit=tmp_path / "log", now_ns=lambda: NOW_NS, version="1"
    )
    served = set()
    for route in application.router.routes():
        assert route.resource is not None
        served.add((route.method, template(route.resource.canonical)))
    assert listed == served


async def test_references_lead_somewhere_and_ids_are_unique(client: Client) -> None:
    document = await _document(client)
    assert document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in schemas
    ids = [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    assert len(ids) == len(set(ids))


async def test_path_parameters_are_declared(client: Client) -> None:
    for path, operations in (await _document(client))["paths"].items():
        for operation in operations.values():
            declared = {item["name"] for item in operation["parameters"] if item["in"] == "path"}
            assert declared == set(re.findall(r"\{(\w+)\}", path))


async def test_an_answer_has_the_fields_of_its_schema(client: Client) -> None:
    schemas = (await _document(client))["components"]["schemas"]
    async with client.get("/api/v1/status") as answer:
        body = await answer.json()
    assert set(body) == set(schemas["StatusSnapshot"]["properties"])
    assert TypeAdapter(StatusSnapshot).validate_python(body) == STATUS
    assert plain(STATUS) == body
    assert schemas["DiveBody"]["additionalProperties"] is False
    assert "from" in schemas["DiveQueryBody"]["properties"]
