"""Handlers of the paths that Grafana's Jaeger data source calls.

Law: an unknown trace is a 404 with Jaeger's body, never a 200 without traces; a search answers no
trace without spans; a search is bounded in traces and in time.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from gateway.api import jaeger, params, traces
from gateway.api.call import Call
from gateway.api.sources import SearchQuery, TraceAnswer
from gateway.batch import Json
from gateway.errors import RetryableError

SEARCH_TRACES_DEFAULT: Final = 20
SEARCH_TRACES_MAX: Final = 200
DEPENDENCY_TRACES_MAX: Final = 200  # the newest ones of the time range
SEARCH_TIMEOUT_S: Final = 10.0

_US_MAX: Final = params.NS_MAX // 1_000
_MS_MAX: Final = params.NS_MAX // 1_000_000


def _json(document: Json, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        text=json.dumps(document, separators=(",", ":")),
        content_type="application/json",
    )


async def _search(call: Call, query: SearchQuery) -> Sequence[TraceAnswer]:
    try:
        async with asyncio.timeout(SEARCH_TIMEOUT_S):
            return await call.context.sources.search(query)
    except TimeoutError as error:
        raise RetryableError(
            f"the search took longer than {SEARCH_TIMEOUT_S:g} s; ask for a shorter time range"
        ) from error


async def services(call: Call) -> web.Response:
    """List services."""
    found = await call.context.sources.operations()
    return _json(jaeger.envelope(sorted({item.service for item in found if item.service})))


async def operations(call: Call) -> web.Response:
    """List the span names of a service."""
    service = call.request.match_info["service"]
    found = await call.context.sources.operations()
    return _json(jaeger.envelope(sorted({item.name for item in found if item.service == service})))


async def search(call: Call) -> web.Response:
    """Find traces; tags are compared on the traces that the other filters found."""
    request = call.request
    limit = params.maybe_integer(request, "limit", 1, 1_000_000) or SEARCH_TRACES_DEFAULT
    limit = min(limit, SEARCH_TRACES_MAX)
    wanted = params.tags(request)
    start_us = params.maybe_integer(request, "start", 0, _US_MAX)
    end_us = params.maybe_integer(request, "end", 0, _US_MAX)
    answers = await _search(
        call,
        SearchQuery(
            service=params.maybe_text(request, "service"),
            name=params.maybe_text(request, "operation"),
            duration_ns_min=params.maybe_go_duration_ns(request, "minDuration"),
            duration_ns_max=params.maybe_go_duration_ns(request, "maxDuration"),
            from_ns=None if start_us is None else start_us * 1_000,
            to_ns=None if end_us is None else end_us * 1_000 + 999,
            limit=SEARCH_TRACES_MAX if wanted else limit,
        ),
    )
    found = [
        trace
        for answer in answers
        for trace in jaeger.to_jaeger(traces.merged(answer.parts))
        if jaeger.has_tags(trace, wanted)
    ][:limit]
    await call.audit_traces([trace["traceID"] for trace in found])
    return _json(jaeger.envelope(found))


async def trace(call: Call) -> web.Response:
    """Show one trace; time hints are ignored, because clients disagree about their unit."""
    trace_id = traces.read_trace_id(call.request.match_info["trace_id"])
    answer = await call.context.sources.maybe_trace(trace_id)
    found = [] if answer is None else jaeger.to_jaeger(traces.merged(answer.parts))
    if not found:
        return _json(jaeger.not_found(), status=404)
    await call.audit_traces([trace_id])
    return _json(jaeger.envelope(found))


async def dependencies(call: Call) -> web.Response:
    """Count calls between services in the newest traces of a time range."""
    end_ms = params.maybe_integer(call.request, "endTs", 0, _MS_MAX)
    lookback_ms = params.maybe_integer(call.request, "lookback", 0, _MS_MAX)
    to_ns = call.context.now_ns() if end_ms is None else end_ms * 1_000_000
    from_ns = None if lookback_ms is None else max(0, to_ns - lookback_ms * 1_000_000)
    answers = await _search(
        call, SearchQuery(from_ns=from_ns, to_ns=to_ns, limit=DEPENDENCY_TRACES_MAX)
    )
    found = jaeger.dependencies(traces.merged(answer.parts) for answer in answers)
    return _json({"data": found, "errors": None})


async def services_v3(call: Call) -> web.Response:
    """List services, in the newer shape."""
    found = await call.context.sources.operations()
    return _json({"services": sorted({item.service for item in found if item.service})})


async def operations_v3(call: Call) -> web.Response:
    """List the span names and kinds of a service, in the newer shape."""
    service = params.maybe_text(call.request, "service")
    found = await call.context.sources.operations()
    pairs = sorted(
        {
            (item.name, jaeger.kind_name(item.kind))
            for item in found
            if service in (None, item.service)
        }
    )
    return _json({"operations": [{"name": name, "spanKind": kind} for name, kind in pairs]})


async def trace_v3(call: Call) -> web.Response:
    """Show one trace as OTLP JSON, in the newer shape."""
    trace_id = traces.read_trace_id(call.request.match_info["trace_id"])
    answer = await call.context.sources.maybe_trace(trace_id)
    data = None if answer is None else traces.merged(answer.parts)
    if data is None or not data.resource_spans:
        error = {"grpcCode": 5, "httpCode": 404, "message": "trace not found"}
        return _json({"error": {**error, "httpStatus": "Not Found"}}, status=404)
    await call.audit_traces([trace_id])
    return _json({"result": traces.to_grafana_json(data)})
