"""Handlers of anomalies, deep dives and provenance."""

from typing import Final

from aiohttp import web
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from gateway.api import params, traces
from gateway.api.body import read_dive
from gateway.api.call import Call
from gateway.api.state import page
from gateway.api.views import (
    Accepted,
    AnomalyPage,
    DivePage,
    Provenance,
    ProvenanceClaim,
    respond,
)
from gateway.batch import AnomalyId, DiveId
from gateway.errors import NotFoundError, UnsupportedMediaError
from gateway.vitals import DIVE_STATES

ANOMALY_STATES: Final = ("firing", "acknowledged", "resolved")


async def list_anomalies(call: Call) -> web.Response:
    """List anomalies, the newest first."""
    state = params.maybe_choice(call.request, "state", ANOMALY_STATES)
    found = await call.context.sources.anomalies.list(state)
    return respond(AnomalyPage(items=page(call, found), total=len(found)))


async def get_anomaly(call: Call) -> web.Response:
    """Show one anomaly with its evidence."""
    anomaly_id = AnomalyId(call.request.match_info["id"])
    found = await call.context.sources.anomalies.maybe_get(anomaly_id)
    if found is None:
        raise NotFoundError("there is no anomaly with this id")
    return respond(found)


async def acknowledge_anomaly(call: Call) -> web.Response:
    """Say that somebody looks after it."""
    anomaly_id = AnomalyId(call.request.match_info["id"])
    anomalies = call.context.sources.anomalies
    return respond(await anomalies.acknowledge(anomaly_id, call.principal.name))


async def create_dive(call: Call) -> web.Response:
    """Ask the devices for full traces."""
    if call.request.content_type != "application/json":
        raise UnsupportedMediaError("send the body as application/json")
    wish = await read_dive(call.request, call.principal.name, call.context.now_ns())
    made = await call.context.sources.dives.create(wish)
    return respond(
        Accepted(id=made.id, state=made.state),
        status=202,
        headers={"Location": f"/api/v1/dives/{made.id}"},
    )


async def list_dives(call: Call) -> web.Response:
    """List deep dives, the newest first."""
    state = params.maybe_choice(call.request, "state", DIVE_STATES)
    found = await call.context.sources.dives.list(state)
    return respond(DivePage(items=page(call, found), total=len(found)))


async def get_dive(call: Call) -> web.Response:
    """Show state, progress and manifests of one deep dive."""
    found = await call.context.sources.dives.maybe_get(DiveId(call.request.match_info["id"]))
    if found is None:
        raise NotFoundError("there is no deep dive with this id")
    return respond(found)


async def delete_dive(call: Call) -> web.Response:
    """Cancel a deep dive and delete what it fetched."""
    await call.context.sources.dives.delete(DiveId(call.request.match_info["id"]))
    return web.Response(status=204)


async def dive_traces(call: Call) -> web.Response:
    """Give out the traces that a deep dive has fetched so far."""
    answer = await call.context.sources.dives.traces(DiveId(call.request.match_info["id"]))
    data = traces.merged(answer.parts)
    await call.audit_traces(traces.trace_ids(data))
    return traces.respond(call.request, data, answer)


async def provenance(call: Call) -> web.Response:
    """Show what a trace says of the model, device and software that made it."""
    trace_id = traces.read_trace_id(call.request.match_info["trace_id"])
    answer = await call.context.sources.maybe_trace(trace_id)
    if answer is None:
        raise NotFoundError("there is no trace with this id")
    data = traces.merged(answer.parts)
    await call.audit_traces([trace_id])
    return respond(Provenance(trace_id=trace_id, claims=_claims(data), problems=answer.problems))


_CLAIMS: Final = {
    "device": "device.id",
    "service": "service.name",
    "service_version": "service.version",
    "model": "edgeai.model.name",
    "model_version": "edgeai.model.version",
    "model_digest": "edgeai.model.digest",
    "artifact_hash": "artifact.hash",
    "attestation_hash": "artifact.attestation.hash",
    "pointer": "edgeai.provenance.pointer",
    "rollout": "edgeai.rollout.id",
    "runtime": "edgeai.runtime.name",
    "accelerator": "edgeai.accelerator.type",
}


def _claims(data: TracesData) -> tuple[ProvenanceClaim, ...]:
    """Collect the distinct claims; a span's own attribute wins over its resource's."""
    counts: dict[tuple[str, ...], int] = {}
    for resource_spans, _, span in traces.spans_of(data):
        claim = []
        for key in _CLAIMS.values():
            found = traces.maybe_attribute(span.attributes, key)
            if found is None:
                found = traces.maybe_attribute(resource_spans.resource.attributes, key)
            claim.append(found or "")
        counts[tuple(claim)] = counts.get(tuple(claim), 0) + 1
    return tuple(
        ProvenanceClaim(**dict(zip(_CLAIMS, claim, strict=True)), spans=count)
        for claim, count in sorted(counts.items())
    )
