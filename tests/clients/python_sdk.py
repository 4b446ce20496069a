"""Export all three signals with the stock OpenTelemetry SDK for Python and say what came of it."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, StatusCode, Tracer

from tests.clients.told import Told
from tests.otlp import LOGS, METRICS, SIGNALS, TRACES, SignalType

CLASSES: Final = ("okay", "wet", "torn")
FLUSHES: Final = 2
FLUSH_MS: Final = 30_000

_EXPORTERS: Final[dict[tuple[str, SignalType], Callable[..., Any]]] = {
    ("grpc", TRACES): grpc_traces.OTLPSpanExporter,
    ("grpc", METRICS): grpc_metrics.OTLPMetricExporter,
    ("grpc", LOGS): grpc_logs.OTLPLogExporter,
    ("proto", TRACES): http_traces.OTLPSpanExporter,
    ("proto", METRICS): http_metrics.OTLPMetricExporter,
    ("proto", LOGS): http_logs.OTLPLogExporter,
}


def _size(batch: Any) -> int:
    if not isinstance(batch, MetricsData):
        return len(batch)
    return sum(
        len(metric.data.data_points)
        for resource in batch.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )


def _exporter(protocol: str, signal: SignalType, endpoint: str, told: Told) -> Any:
    """Make the stock exporter of a signal, and look at what it answers."""
    url = endpoint if protocol == "grpc" else endpoint + signal.path
    exporter = _EXPORTERS[protocol, signal](endpoint=url)
    send = exporter.export

    def export(batch: Any, *args: Any, **options: Any) -> Any:
        size, result = _size(batch), send(batch, *args, **options)
        (told.exported if result.name == "SUCCESS" else told.failed)[signal.name] += size
        return result

    exporter.export = export
    return exporter


def _trace(tracer: Tracer, told: Told, number: int) -> Context:
    """End a trace of two spans, with every kind of attribute, an event and a link."""
    attributes: dict[str, Any] = {
        "edgeai.model.name": "damage-net",
        "edgeai.model.version": "3",
        "edgeai.inference.confidence": 0.5 + (number % 50) / 100,
        "edgeai.inference.class": CLASSES[number % len(CLASSES)],
        "edgeai.inference.cold_start": number == 0,
        "edgeai.input.width": 640 + number,
        "strings": ("a", "ü", "漢字"),
        "doubles": (0.5, -1e300, math.inf),
    }
    root = tracer.start_span("inference", kind=SpanKind.SERVER, attributes=attributes)
    context = trace.set_span_in_context(root)
    child = tracer.start_span("preprocess", context, links=[Link(root.get_span_context())])
    child.add_event("resized", {"width": 320})
    child.end()
    if number % 10 == 0:
        root.set_status(StatusCode.ERROR, "no frame")
    root.end()
    told.made[TRACES.name] += 2
    return context


def _logs(logger: Any, told: Told, context: Context, number: int) -> None:
    logger.emit(
        severity_number=SeverityNumber.WARN,
        severity_text="WARN",
        body=f"frame {number} is dark",
        attributes={"edgeai.model.name": "damage-net", "frame": number, "dark": True},
        context=context,
    )
    logger.emit(body={"text": "a map", "list": [1, 2.5, None]}, event_name="device.started")
    told.made[LOGS.name] += 2


def _instruments(meter: Meter) -> tuple[Callable[[int, Context], None], int]:
    """Make instruments of every kind; returns what records once, and the points of a collection."""
    requests = meter.create_counter("requests")
    queue = meter.create_up_down_counter("queue", unit="{frame}")
    duration = meter.create_histogram("duration", unit="ms")
    size = meter.create_histogram("size", unit="By")
    temperature = meter.create_gauge("temperature", unit="Cel")

    def load(_: CallbackOptions) -> list[Observation]:
        return [Observation(0.25, {"core": 0})]

    def energy(_: CallbackOptions) -> list[Observation]:
        return [Observation(17)]

    meter.create_observable_gauge("load", [load])
    meter.create_observable_counter("energy", [energy])

    def record(number: int, context: Context) -> None:
        attributes = {"class": CLASSES[number % len(CLASSES)]}
        requests.add(1, attributes, context)
        queue.add(-1 if number % 2 else 1)
        duration.record(number, attributes, context)
        size.record(2 ** (number % 40), attributes, context)
        temperature.set(40 - number / 7, {"zone": number % 2})

    classes = len(CLASSES)
    return record, classes + 1 + classes + classes + 2 + 1 + 1


class _Complaints(logging.Handler):
    """Keeps what the SDK warns of."""

    def __init__(self, told: Told) -> None:
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told.errors.append(record.getMessage())


@contextmanager
def _heard(told: Told) -> Iterator[None]:
    logger, handler = logging.getLogger("opentelemetry"), _Complaints(told)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def export(protocol: str, endpoint: str, rounds: int) -> Told:
    """Export over grpc or proto (HTTP) and return what the client says."""
    told = Told()
    resource = Resource.create({"service.name": "dock-camera", "device.id": f"py-{protocol}"})
    with _heard(told):
        exporters = {each: _exporter(protocol, each, endpoint, told) for each in SIGNALS}
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(BatchSpanProcessor(exporters[TRACES]))
        # Only flushes collect, so that their number is known.
        reader = PeriodicExportingMetricReader(exporters[METRICS], export_interval_millis=math.inf)
        meters = MeterProvider(
            metric_readers=[reader],
            resource=resource,
            exemplar_filter=AlwaysOnExemplarFilter(),
            shutdown_on_exit=False,
            views=[
                View(
                    instrument_name="size",
                    aggregation=ExponentialBucketHistogramAggregation(max_size=160),
                )
            ],
        )
        loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
        loggers.add_log_record_processor(BatchLogRecordProcessor(exporters[LOGS]))
        tracer, logger = tracers.get_tracer("dock", "1.2.3"), loggers.get_logger("dock", "1.2.3")
        record, points = _instruments(meters.get_meter("dock", "1.2.3"))
        for _ in range(FLUSHES):
            for number in range(rounds):
                context = _trace(tracer, told, number)
                _logs(logger, told, context, number)
                record(number, context)
            for provider in (tracers, meters, loggers):
                if not provider.force_flush(FLUSH_MS):
                    told.errors.append(f"{type(provider).__name__} was not flushed")
            told.made[METRICS.name] += points
        tracers.shutdown()
        meters.shutdown()
        loggers.shutdown()
    return told
