"""The route table: every path of the API, who may use it, and what it takes and gives.

Law: what is not here does not exist; the OpenAPI document and the router are both made from it.
"""

from typing import Final

from gateway.api import console, incidents, jaeger_routes, state, views
from gateway.api.access import Role
from gateway.api.body import DiveBody
from gateway.api.call import PAGE, Parameter, Route
from gateway.api.declarations import DECLARATION_ROUTES
from gateway.api.letters import LETTER_ROUTES
from gateway.api.sources import AnomalyView, DiveState, StatusSnapshot
from gateway.api.traces import JSON_TYPE, PROTOBUF_TYPES

JAEGER: Final = "/jaeger"
API: Final = "/api/v1"

_TIME: Final = (
    Parameter(name="start", type="integer", help="Unix microseconds"),
    Parameter(name="end", type="integer", help="Unix microseconds"),
)


def _text(name: str, text: str) -> Parameter:
    return Parameter(name=name, type="string", help=text)


_OPEN: Final = (
    Route(
        method="GET",
        path="/",
        handler=console.page,
        role=Role.NOBODY,
        summary="The site console.",
        types=("text/html",),
    ),
    Route(
        method="GET",
        path="/healthz",
        handler=state.healthz,
        role=Role.NOBODY,
        summary="The process is alive.",
        types=("text/plain",),
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=state.readyz,
        role=Role.NOBODY,
        summary="The gateway takes data; 503 names what is missing.",
        response=views.Readiness,
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=state.metrics_text,
        role=Role.VIEWER,
        summary="Metrics in Prometheus text or OpenMetrics, by Accept.",
        types=("text/plain", "application/openmetrics-text"),
        strict=False,
    ),
)

_STATE: Final = (
    Route(
        method="GET",
        path=f"{API}/status",
        handler=state.status,
        role=Role.VIEWER,
        summary="Versions, digests, uptime and the accounting identity.",
        response=StatusSnapshot,
    ),
    Route(
        method="GET",
        path=f"{API}/models",
        handler=state.models,
        role=Role.VIEWER,
        summary="Models and versions: counts, success ratio, latency, classes.",
        query=PAGE,
        response=views.Models,
    ),
    Route(
        method="GET",
        path=f"{API}/devices",
        handler=state.devices,
        role=Role.VIEWER,
        summary="Devices, the stalest first.",
        query=PAGE,
        response=views.Devices,
    ),
    Route(
        method="GET",
        path=f"{API}/slo",
        handler=state.slo,
        role=Role.VIEWER,
        summary="Objectives: windows, burn rates, remaining budget.",
        query=PAGE,
        response=views.Slos,
    ),
    Route(
        method="GET",
        path=f"{API}/accuracy",
        handler=state.accuracy,
        role=Role.VIEWER,
        summary="Accuracy by model and version, where labels tell.",
        query=PAGE,
        response=views.Accuracies,
    ),
    Route(
        method="GET",
        path=f"{API}/costs",
        handler=state.costs,
        role=Role.VIEWER,
        summary="Cost of the month by model, and allowances of bytes.",
        query=PAGE,
        response=views.Costs,
    ),
    Route(
        method="GET",
        path=f"{API}/drift",
        handler=state.drift,
        role=Role.VIEWER,
        summary="Signals against their baselines.",
        query=PAGE,
        response=views.Drifts,
    ),
    Route(
        method="GET",
        path=f"{API}/baselines",
        handler=state.baselines,
        role=Role.VIEWER,
        summary="Baselines that are learned or frozen.",
        query=PAGE,
        response=views.Baselines,
    ),
)

_INCIDENTS: Final = (
    Route(
        method="GET",
        path=f"{API}/anomalies",
        handler=incidents.list_anomalies,
        role=Role.VIEWER,
        summary="Anomalies, the newest first.",
        query=(*PAGE, _text("state", ", ".join(incidents.ANOMALY_STATES))),
        response=views.AnomalyPage,
    ),
    Route(
        method="GET",
        path=f"{API}/anomalies/{{id}}",
        handler=incidents.get_anomaly,
        role=Role.VIEWER,
        summary="One anomaly with its evidence.",
        response=AnomalyView,
    ),
    Route(
        method="POST",
        path=f"{API}/anomalies/{{id}}/ack",
        handler=incidents.acknowledge_anomaly,
        role=Role.OPERATOR,
        summary="Acknowledge an anomaly.",
        response=AnomalyView,
    ),
    Route(
        method="POST",
        path=f"{API}/dives",
        handler=incidents.create_dive,
        role=Role.OPERATOR,
        summary="Ask the devices for full traces.",
        body=DiveBody,
        response=views.Accepted,
        status=202,
    ),
    Route(
        method="GET",
        path=f"{API}/dives",
        handler=incidents.list_dives,
        role=Role.VIEWER,
        summary="Deep dives, the newest first.",
        query=(*PAGE, _text("state", "a state of a deep dive")),
        response=views.DivePage,
    ),
    Route(
        method="GET",
        path=f"{API}/dives/{{id}}",
        handler=incidents.get_dive,
        role=Role.VIEWER,
        summary="State, progress and manifests of one deep dive.",
        response=DiveState,
    ),
    Route(
        method="GET",
        path=f"{API}/dives/{{id}}/traces",
        handler=incidents.dive_traces,
        role=Role.OPERATOR,
        summary="The traces fetched so far, as OTLP JSON or protobuf by Accept.",
        types=(JSON_TYPE, PROTOBUF_TYPES[0]),
    ),
    Route(
        method="DELETE",
        path=f"{API}/dives/{{id}}",
        handler=incidents.delete_dive,
        role=Role.OPERATOR,
        summary="Cancel a deep dive and delete what it fetched.",
        types=(),
        status=204,
    ),
    Route(
        method="GET",
        path=f"{API}/provenance/{{trace_id}}",
        handler=incidents.provenance,
        role=Role.OPERATOR,
        summary="What a trace says of the model, device and software that made it.",
        response=views.Provenance,
    ),
)

_JAEGER: Final = (
    Route(
        method="GET",
        path=f"{JAEGER}/api/services",
        handler=jaeger_routes.services,
        role=Role.VIEWER,
        summary="Services, in Jaeger's shape.",
        strict=False,
    ),
    Route(
        method="GET",
        path=f"{JAEGER}/api/services/{{service:.+}}/operations",
        handler=jaeger_routes.operations,
        role=Role.VIEWER,
        summary="Span names of a service, in Jaeger's shape.",
        strict=False,
    ),
    Route(
        method="GET",
        path=f"{JAEGER}/api/traces",
        handler=jaeger_routes.search,
        role=Role.OPERATOR,
        summary="Search for traces, in Jaeger's shape.",
        query=(
            _text("service", "service name"),
            _text("operation", "span name"),
            _text("tags", "JSON object of strings"),
            _text("minDuration", "Go duration, such as 1.2s"),
            _text("maxDuration", "Go duration, such as 100ms"),
            Parameter(name="limit", type="integer", help="traces, default 20"),
            *_TIME,
        ),
        strict=False,
    ),
    Route(
        method="GET",
        path=f"{JAEGER}/api/traces/{{trace_id}}",
        handler=jaeger_routes.trace,
        role=Role.OPERATOR,
        summary="One trace, in Jaeger's shape.",
        query=_TIME,
        strict=False,
    ),
    Route(
        method="GET",
        path=f"{JAEGER}/api/dependencies",
        handler=jaeger_routes.dependencies,
        role=Role.VIEWER,
        summary="Calls between services, in Jaeger's shape.",
        query=(
            Parameter(name="endTs", type="integer", help="Unix milliseconds"),
            Parameter(name="lookback", type="integer", help="milliseconds"),
        ),
        strict=False,
    ),
    Route(
        method="GET",
        path=f"{JAEGER}/api/v3/services",
        handler=jaeger_routes.services_v3,
        role=Role.VIEWER,
        summary="Services, in Jaeger's newer shape.",
        strict=False,
    ),
    Route(
        method="GET",
        path=f"{JAEGER}/api/v3/operations",
        handler=jaeger_routes.operations_v3,
        role=Role.VIEWER,
        summary="Span names and kinds of a service, in Jaeger's newer shape.",
        query=(_text("service", "service name"),),
        strict=False,
    ),
    Route(
        method="GET",
        path=f"{JAEGER}/api/v3/traces/{{trace_id}}",
        handler=jaeger_routes.trace_v3,
        role=Role.OPERATOR,
        summary="One trace as OTLP JSON, in Jaeger's newer shape.",
        strict=False,
    ),
)

ROUTES: Final = (*_OPEN, *_STATE, *_INCIDENTS, *DECLARATION_ROUTES, *LETTER_ROUTES, *_JAEGER)
