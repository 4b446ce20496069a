"""Handlers that show the current state: health, metrics, status and measurements."""

import asyncio
from collections.abc import Sequence
from typing import Final, TypeVar

from aiohttp import web

from gateway.api import metrics, params
from gateway.api.call import PAGE_DEFAULT, PAGE_MAX, Call
from gateway.api.sources import Series
from gateway.api.views import (
    Accuracies,
    Baselines,
    Costs,
    Devices,
    Drifts,
    Models,
    ModelView,
    Readiness,
    Slos,
    respond,
)

OFFSET_MAX: Final = 1_000_000

_T = TypeVar("_T")


def page(call: Call, items: Sequence[_T]) -> tuple[_T, ...]:
    """Cut out the part that `limit` and `offset` ask for."""
    limit = params.maybe_integer(call.request, "limit", 1, PAGE_MAX) or PAGE_DEFAULT
    offset = params.maybe_integer(call.request, "offset", 0, OFFSET_MAX) or 0
    return tuple(items[offset : offset + limit])


async def healthz(call: Call) -> web.Response:
    """Answer as long as the event loop turns."""
    return web.Response(text="ok\n")


async def readyz(call: Call) -> web.Response:
    """Answer 200 when every check passes, else 503 with the ones that do not."""
    checks = tuple(call.context.sources.readiness())
    ready = all(check.ok for check in checks)
    return respond(Readiness(ready=ready, checks=checks), status=200 if ready else 503)


async def metrics_text(call: Call) -> web.Response:
    """Write all metrics; a thread does it, because text takes long with many series."""
    samples = await metrics.read(call.context.sources)
    accept = call.request.headers.get("Accept", "")
    body, content_type = await asyncio.to_thread(metrics.render, samples, accept)
    return web.Response(body=body, headers={"Content-Type": content_type})


async def status(call: Call) -> web.Response:
    """Show versions, digests and the accounting identity."""
    return respond(call.context.sources.status())


def _model(series: Series) -> ModelView:
    total = series.succeeded + series.failed
    return ModelView(
        model=series.model,
        version=series.version,
        succeeded=series.succeeded,
        failed=series.failed,
        success_ratio=series.succeeded / total if total else None,
        cold_starts=series.cold_starts,
        recent=series.recent,
        all_time=series.all_time,
        classes=series.classes,
        last_event_ns=series.last_event_ns,
        weights=series.weights,
    )


async def models(call: Call) -> web.Response:
    """List models and versions."""
    series = (await call.context.sources.measure()).series
    return respond(
        Models(items=tuple(_model(item) for item in page(call, series)), total=len(series))
    )


async def devices(call: Call) -> web.Response:
    """List devices, the stalest first."""
    measured = await call.context.sources.measure()
    found = sorted(measured.devices, key=lambda item: (-item.freshness_s, item.device))
    return respond(Devices(items=page(call, found), total=len(found)))


async def slo(call: Call) -> web.Response:
    """List objectives with burn rates and what is left of their budgets."""
    found = (await call.context.sources.measure()).slos
    return respond(Slos(items=page(call, found), total=len(found)))


async def accuracy(call: Call) -> web.Response:
    """List how often models were right, where labels tell."""
    found = (await call.context.sources.measure()).accuracy
    return respond(Accuracies(items=page(call, found), total=len(found)))


async def costs(call: Call) -> web.Response:
    """List what models cost this month, and how their allowances of bytes stand."""
    found = await call.context.sources.measure()
    return respond(
        Costs(items=page(call, found.costs), bandwidth=found.bandwidth, total=len(found.costs))
    )


async def drift(call: Call) -> web.Response:
    """List signals against their baselines."""
    found = await call.context.sources.measure()
    return respond(
        Drifts(
            items=page(call, found.drift),
            total=len(found.drift),
            budget=found.budget,
            reported=found.reported,
        )
    )


async def baselines(call: Call) -> web.Response:
    """List baselines that are learned or frozen."""
    found = (await call.context.sources.measure()).baselines
    return respond(Baselines(items=page(call, found), total=len(found)))
