"""JSON bodies that a person or a program writes.

Law: a body is checked whole before anything happens; unknown fields are refused by name.
"""

import re
from datetime import datetime
from typing import Annotated, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from gateway.api.sources import DiveQuery, DiveWish
from gateway.batch import AnomalyId
from gateway.config.units import parse_duration
from gateway.errors import InvalidQueryError

BODY_BYTES_MAX: Final = 64 * 1024
DIVE_TRACES_MAX: Final = 200
DIVE_BYTES_MAX: Final = 1 << 30

_Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_TraceId = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$")]
_SECOND_NS: Final = 1_000_000_000
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DiveQueryBody(_Body):
    """Traces to select on the devices."""

    model: _Name | None = None
    version: _Name | None = None
    device: _Name | None = None
    from_: str | int | None = Field(
        default=None, alias="from", description="ISO 8601 time with a zone, or Unix nanoseconds"
    )
    to: str | int | None = Field(
        default=None, description="ISO 8601 time with a zone, or Unix nanoseconds"
    )
    where: _Name | None = Field(
        default=None, description="a rule as in a contract, such as `confidence < 0.5`"
    )


class DiveBody(_Body):
    """An on-demand deep dive; at least one of anomaly_id, trace_ids and query."""

    anomaly_id: _Name | None = None
    trace_ids: Annotated[list[_TraceId], Field(max_length=DIVE_TRACES_MAX)] = []
    query: DiveQueryBody | None = None
    max_bytes: Annotated[int, Field(ge=1, le=DIVE_BYTES_MAX)] | None = None
    not_after: str | int | None = Field(
        default=None,
        description="ISO 8601 time with a zone, Unix nanoseconds, or a duration such as `15m`",
    )
    reason: Annotated[str, StringConstraints(max_length=500)] = ""


def _time_ns(name: str, value: str | int | None, now_ns: int | None = None) -> int | None:
    """Read a time; with `now_ns` a duration counts from there."""
    if value is None:
        return None
    if isinstance(value, int):
        if not 0 <= value < 1 << 63:
            raise InvalidQueryError(f"{name} is not a time in Unix nanoseconds")
        return value
    if now_ns is not None and re.fullmatch(r"[0-9.]{1,18}(ms|s|m|h|d)", value):
        try:
            return now_ns + int(parse_duration(value) * _SECOND_NS)
        except ValueError as error:
            raise InvalidQueryError(f"{name}: {error}") from error
    try:
        time = datetime.fromisoformat(value)
    except ValueError as error:
        raise InvalidQueryError(f"{name} is an ISO 8601 time or Unix nanoseconds") from error
    if time.tzinfo is None:
        raise InvalidQueryError(f"{name} needs a time zone, such as a Z at its end")
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * _SECOND_NS + since.microseconds * 1_000


def reasons(error: ValidationError) -> str:
    """Say what is wrong with a body, place by place."""
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False)[:8]:
        place = ".".join(str(part) for part in item["loc"]) or "body"
        lines.append(f"{place}: {item['msg']}")
    return "; ".join(lines)


async def read_dive(request: web.Request, principal: str, now_ns: int) -> DiveWish:
    """Read the body of a new dive.

    Raises: InvalidQueryError.
    """
    raw = await request.read()
    try:
        body = DiveBody.model_validate_json(raw)
    except ValidationError as error:
        raise InvalidQueryError(reasons(error)) from error
    if body.anomaly_id is None and not body.trace_ids and body.query is None:
        raise InvalidQueryError("name an anomaly_id, trace_ids or a query")
    query = body.query
    return DiveWish(
        anomaly_id=None if body.anomaly_id is None else AnomalyId(body.anomaly_id),
        trace_ids=tuple(dict.fromkeys(trace_id.lower() for trace_id in body.trace_ids)),
        query=None
        if query is None
        else DiveQuery(
            model=query.model,
            version=query.version,
            device=query.device,
            from_ns=_time_ns("query.from", query.from_),
            to_ns=_time_ns("query.to", query.to),
            where=query.where,
        ),
        bytes_max=body.max_bytes,
        not_after_ns=_time_ns("not_after", body.not_after, now_ns),
        reason=body.reason,
        requested_by=principal,
    )
