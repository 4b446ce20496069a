"""The OpenAPI 3.1 document, made from the route table and the dataclasses of the answers."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from pydantic import TypeAdapter

from gateway.api.access import Role
from gateway.api.call import Route
from gateway.batch import Json

PATH: Final = "/api/v1/openapi.json"

_REFERENCE: Final = "#/components/schemas/"
_PLACE: Final = re.compile(r"\{([a-z_]+)(?::[^}]+)?\}")


def template(path: str) -> str:
    """Write a router's path as OpenAPI does, without patterns."""
    return _PLACE.sub(r"{\1}", path)


def _take(schemas: dict[str, Json], name: str, schema: dict[str, Json]) -> dict[str, Json]:
    """Move a schema and what it refers to into the common table."""
    schemas.update(schema.pop("$defs", {}))
    schemas[name] = schema
    return {"$ref": _REFERENCE + name}


def _content(route: Route, schemas: dict[str, Json]) -> dict[str, Json]:
    if route.response is None:
        return {kind: {} for kind in route.types}
    adapter: TypeAdapter[object] = TypeAdapter(route.response)
    schema = adapter.json_schema(ref_template=_REFERENCE + "{model}", mode="serialization")
    return {"application/json": {"schema": _take(schemas, route.response.__name__, schema)}}


def _operation(route: Route, schemas: dict[str, Json]) -> dict[str, Json]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PLACE.findall(route.path)
    ]
    parameters += [
        {
            "name": parameter.name,
            "in": "query",
            "description": parameter.help,
            "schema": {"type": parameter.type},
        }
        for parameter in route.query
    ]
    good: dict[str, Json] = {"description": HTTPStatus(route.status).phrase}
    if route.types:
        good["content"] = _content(route, schemas)
    operation: dict[str, Json] = {
        "summary": route.summary,
        "operationId": route.handler.__name__,
        "parameters": parameters,
        "responses": {
            str(route.status): good,
            "default": {"$ref": "#/components/responses/Problem"},
        },
        "security": [] if route.role is Role.NOBODY else [{"bearer": []}],
        "x-role": route.role.name.lower(),
    }
    if route.body is not None:
        described = route.body.model_json_schema(ref_template=_REFERENCE + "{model}")
        schema = _take(schemas, route.body.__name__, described)
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    return operation


def document(routes: Sequence[Route], version: str) -> dict[str, Json]:
    """Describe all routes."""
    schemas: dict[str, Json] = {}
    paths: dict[str, dict[str, Json]] = {}
    for route in routes:
        operations = paths.setdefault(template(route.path), {})
        operations[route.method.lower()] = _operation(route, schemas)
    problem = {
        "type": "object",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
        "required": ["type", "title", "status", "detail"],
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Weir", "version": version},
        "paths": paths,
        "components": {
            "schemas": dict(sorted({**schemas, "Problem": problem}.items())),
            "responses": {
                "Problem": {
                    "description": "What went wrong (RFC 9457).",
                    "content": {
                        "application/problem+json": {"schema": {"$ref": _REFERENCE + "Problem"}}
                    },
                }
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
