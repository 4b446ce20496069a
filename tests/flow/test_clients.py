"""OTLP clients that this project did not write: the stock SDKs of OpenTelemetry, all three signals.

Law: a client that exported without one complaint is believed only when both ends agree: what it
made is what the gateway says it received, item for item, by signal and transport. That the clients
send what they claim is shown first against a sink that parses with the official classes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import SummaryDataPoint

from tests.clients import javascript_sdk, python_sdk
from tests.clients.told import Told
from tests.flow.site import scrape, site_file
from tests.ledger_check import check_identity
from tests.otlp import JSON, PROTOBUF, SIGNALS
from tests.process import wait_until
from tests.servers import Gateway, gateway
from tests.sink import Sink, otlp_sink

pytestmark = pytest.mark.flow

# Twice this many traces and logs of two items fill more than one batch of the SDKs (512), and
# stay below their queues (2,048).
ROUNDS: Final = 300
KINDS: Final = {"sum", "gauge", "histogram", "exponential_histogram"}
SETTLED_S: Final = 30.0

Export = Callable[[str, str, int], Told]

CLIENTS: Final = pytest.mark.parametrize(
    ("export", "protocol"),
    [
        pytest.param(python_sdk.export, "grpc", id="python-grpc"),
        pytest.param(python_sdk.export, "proto", id="python-http-protobuf"),
        pytest.param(javascript_sdk.export, "grpc", id="javascript-grpc"),
        pytest.param(javascript_sdk.export, "proto", id="javascript-http-protobuf"),
        pytest.param(javascript_sdk.export, "json", id="javascript-http-json"),
    ],
)


def transport_of(protocol: str) -> str:
    """Name the transport under which the gateway counts a protocol."""
    return "grpc" if protocol == "grpc" else "http"


def metric_kinds(sink: Sink) -> set[str | None]:
    """List the kinds of all metrics that arrived."""
    return {
        metric.WhichOneof("data")
        for request in sink.messages(ExportMetricsServiceRequest)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@CLIENTS
def test_client_sends_what_it_says(export: Export, protocol: str) -> None:
    with otlp_sink() as sink:
        endpoint = f"http://{sink.grpc_address}" if protocol == "grpc" else sink.http_url
        told = export(protocol, endpoint, ROUNDS)
        told.check_all_exported()
        assert sink.malformed == []
    assert {each.name: sink.item_count(each) for each in SIGNALS} == told.made
    assert {each.transport for each in sink.requests} == {transport_of(protocol)}
    assert {each.media_type for each in sink.requests} == {JSON if protocol == "json" else PROTOBUF}
    assert metric_kinds(sink) == KINDS
    spans = {(span.trace_id, span.span_id) for span in sink.spans()}
    assert len(spans) == told.made["traces"]
    of_spans = [(each.trace_id, each.span_id) for each in sink.log_records() if each.span_id]
    assert len(of_spans) == told.made["logs"] / 2
    assert set(of_spans) <= spans
    if export is python_sdk.export:  # the JavaScript SDK makes no exemplars
        points = [each for each in sink.data_points() if not isinstance(each, SummaryDataPoint)]
        exemplars = [each for point in points for each in point.exemplars]
        assert {(each.trace_id, each.span_id) for each in exemplars if each.span_id} <= spans
        assert any(each.span_id for each in exemplars)


def check_received(target: Gateway, told: Told, transport: str) -> None:
    """Compare the gateway's counts with what the client made; nothing was refused."""
    page = scrape(target)
    for signal, made in told.made.items():
        for each in ("grpc", "http"):
            received = page.total("weir_received_items_total", signal=signal, transport=each)
            assert received == (made if each == transport else 0), (signal, each)
    assert page.total("weir_refused_items_total") == 0, target.metrics()
    assert page.total("weir_json_ignored_fields_total") == 0


@CLIENTS
def test_gateway_receives_what_the_client_made(
    tmp_path: Path, export: Export, protocol: str
) -> None:
    with otlp_sink() as sink:
        config = site_file(tmp_path, sink.http_url)
        with gateway(tmp_path, config=config) as target:
            address = target.otlp_grpc if protocol == "grpc" else target.otlp_http
            told = export(protocol, f"http://{address}", ROUNDS)
            told.check_all_exported()
            check_received(target, told, transport_of(protocol))

            def settled() -> bool:
                accounts = check_identity(target.metrics())
                return all(each.pending == 0 for each in accounts.values())

            wait_until(settled, timeout_s=SETTLED_S, what=lambda: target.metrics())
        assert sink.malformed == []
