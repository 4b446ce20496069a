"""The servers that tests use do what the tests rely on."""

import http.client
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import RetryInfo
from grpc_status import rpc_status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcSpanExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpSpanExporter,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from tests.otlp import JSON, LOGS, METRICS, SIGNALS, TRACES, SignalType
from tests.process import get
from tests.servers import (
    alertmanager,
    alertmanager_config,
    prometheus,
    start_gateway,
    wait_until,
    webhook,
)
from tests.sink import EXPORT_METHOD, PROTOBUF, TRACES_PATH, Refusal, Sink, otlp_sink


def _export(exporter: SpanExporter, count: int) -> None:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    for number in range(count):
        with tracer.start_as_current_span("inference", attributes={"number": number}):
            pass
    provider.shutdown()


def _post(
    sink: Sink, body: bytes = b"", signal: SignalType = TRACES, media_type: str = PROTOBUF
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(sink.http_url.removeprefix("http://"), timeout=5)
    connection.request("POST", signal.path, body, {"Content-Type": media_type})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_sink_keeps_what_stock_exporters_send_over_both_transports() -> None:
    with otlp_sink() as sink:
        _export(GrpcSpanExporter(endpoint=sink.grpc_address, insecure=True), 10)
        _export(HttpSpanExporter(endpoint=f"{sink.http_url}{TRACES_PATH}"), 20)
        spans = sink.wait_for_spans(30)
    assert len(spans) == 30
    assert {request.transport for request in sink.requests} == {"grpc", "http"}
    assert sink.contains(b"inference")
    assert not sink.contains(b"not sent")


JSON_BODIES = {
    TRACES: b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "'
    + b"aB" * 16
    + b'"}]}]}]}',
    METRICS: b'{"resourceMetrics": [{"scopeMetrics": [{"metrics": ['
    b'{"name": "m", "sum": {"dataPoints": [{"asInt": "7"}, {"asDouble": "NaN"}]}}]}]}]}',
    LOGS: b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{}, {}, {"severityNumber": 9}]}]}]}',
}


def test_sink_reads_json_of_all_signals_by_the_official_classes() -> None:
    with otlp_sink() as sink:
        answers = [_post(sink, body, signal, JSON) for signal, body in JSON_BODIES.items()]
        assert [(each.status, each.headers["Content-Type"]) for each in answers] == [
            (200, JSON)
        ] * 3
    assert [sink.item_count(signal) for signal in SIGNALS] == [1, 2, 3]
    assert sink.spans()[0].trace_id == b"\xab" * 16
    first, second = sink.data_points()
    assert isinstance(first, NumberDataPoint)
    assert isinstance(second, NumberDataPoint)
    assert first.as_int == 7
    assert second.as_double != second.as_double
    assert sink.log_records()[2].severity_number == 9


@pytest.mark.parametrize(
    ("media_type", "body"),
    [(JSON, b"{"), (JSON, b'{"resourceSpan": []}'), (JSON, b"\xff"), (PROTOBUF, b"\x0a\x05x")],
)
def test_sink_refuses_for_good_what_is_not_otlp(media_type: str, body: bytes) -> None:
    with otlp_sink() as sink:
        assert _post(sink, body, TRACES, media_type).status == 400
    assert len(sink.malformed) == 1
    assert sink.requests == []


def test_sink_refuses_over_http_as_often_as_told() -> None:
    with otlp_sink() as sink:
        sink.refuse(Refusal(http_status=429, retry_after_s=7), count=1)
        first = _post(sink)
        second = _post(sink)
    assert (first.status, first.headers["Retry-After"]) == (429, "7")
    assert second.status == 200
    assert sink.refused == 1


def test_sink_refuses_over_grpc_with_retry_info() -> None:
    with otlp_sink() as sink, grpc.insecure_channel(sink.grpc_address) as channel:
        sink.refuse(Refusal(retry_after_s=3))
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(EXPORT_METHOD)(b"", timeout=5)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    retry = RetryInfo()
    assert status.details[0].Unpack(retry)
    assert (status.code, retry.retry_delay.seconds) == (code_pb2.UNAVAILABLE, 3)


def test_sink_that_went_down_ends_open_connections() -> None:
    with otlp_sink() as sink:
        address = sink.http_url.removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=5)
        connection.request("POST", TRACES_PATH, b"", {"Content-Type": PROTOBUF})
        connection.getresponse().read()
        assert connection.sock is not None
    assert connection.sock.recv(1) == b""
    connection.close()


@pytest.mark.flow
def test_alert_of_a_rule_reaches_the_webhook_and_all_servers_are_gone_after(
    tmp_path: Path,
) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(
        "groups: [{name: test, rules: [{alert: Reached, expr: up == 1, labels: {severity: page}}]}]"
    )
    with webhook() as hook, alertmanager(tmp_path, alertmanager_config(hook.url)) as manager:
        with prometheus(
            tmp_path,
            targets=[manager.address],
            labels={"site": "dock-7"},
            rules=[rules],
            alertmanagers=[manager.address],
        ) as server:
            (up,) = server.wait_for("up == 1")
            assert (up.labels["job"], up.labels["site"]) == ("weir", "dock-7")
            manager.wait_for("Reached", severity="page")
            assert hook.wait_for("Reached")["labels"]["site"] == "dock-7"
        assert not server.server.running
    assert not manager.server.running


def test_waiting_gives_up_with_the_reason() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.01 s: rain"):
        wait_until(lambda: False, timeout_s=0.01, what="rain")


def test_get_returns_the_status_of_an_error() -> None:
    with otlp_sink() as sink:
        assert get(sink.http_url)[0] == 501


@pytest.mark.flow
def test_gateway_that_does_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ended before it was ready\n--- end of the log"):
        start_gateway(tmp_path, overrides=["no.such.knob=1"])
