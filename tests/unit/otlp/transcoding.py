"""What the tests of the JSON reader share: requests around a few members, and what they become."""

from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from gateway.batch import Signal
from gateway.errors import MalformedPayloadError
from gateway.otlp.limits import DEFAULT_LIMITS, Limits
from gateway.otlp.schemas import schema_of
from gateway.otlp.wire import transcode

SPAN = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{%s}]}]}]}'
LOG = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{%s}]}]}]}'
POINT = b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"%s":{"dataPoints":[{%s}]}}]}]}]}'
IN_SPAN = "resourceSpans[0].scopeSpans[0].spans[0]"
IN_LOG = "resourceLogs[0].scopeLogs[0].logRecords[0]"


def turn(
    text: bytes, signal: Signal = Signal.LOGS, limits: Limits = DEFAULT_LIMITS
) -> tuple[bytes, int]:
    """Transcode a text."""
    return transcode(schema_of(signal), text, limits=limits)


def log_of(members: bytes) -> Any:
    """Transcode the members of one log record."""
    body, ignored = turn(LOG % members)
    assert ignored == 0
    return ExportLogsServiceRequest.FromString(body).resource_logs[0].scope_logs[0].log_records[0]


def point_of(members: bytes, kind: bytes = b"gauge") -> Any:
    """Transcode the members of one data point."""
    body, ignored = turn(POINT % (kind, members), Signal.METRICS)
    assert ignored == 0
    found = ExportMetricsServiceRequest.FromString(body).resource_metrics[0].scope_metrics[0]
    return getattr(found.metrics[0], kind.decode()).data_points[0]


def refusal(text: bytes, signal: Signal = Signal.LOGS) -> str:
    """Transcode what has to be refused; returns the message without the offset."""
    with pytest.raises(MalformedPayloadError) as caught:
        turn(text, signal)
    assert 0 <= caught.value.offset <= len(text)
    return str(caught.value).rpartition(" at byte ")[0]
