"""The signals without columns and OTLP/JSON: the schema walker beside protobuf and Python's json.

Law: both sides of a row read the same bytes in the same run. What Python's json gives is only a
tree: its side leaves out the protobuf that the walker has written by then.
"""

import json
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from google.protobuf import json_format

from benchmarks.clock import seconds_each
from benchmarks.report import MILLION, Report, Summary, Table, spread, summarize
from gateway.batch import Signal
from gateway.otlp.limits import DEFAULT_LIMITS
from gateway.otlp.schemas import REQUESTS, schema_of
from gateway.otlp.wire import screen, transcode

ITEMS: Final = 512
ATTRIBUTES: Final = 4
SERIES: Final = 8  # metrics of a request; its points are spread over them
BUCKETS: Final = 12
SEED: Final = 7
START_NS: Final = 1_900_000_000_000_000_000
DEVICE: Final = "edge-1"
UNITS: Final[Mapping[Signal, str]] = MappingProxyType(
    {Signal.METRICS: "data points", Signal.LOGS: "log records"}
)


def _attributes(rng: random.Random, owner: Any) -> None:
    for number in range(ATTRIBUTES):
        value = owner.attributes.add(key=f"edge.attribute.{number}").value
        if number % 2:
            value.double_value = rng.random()
        else:
            value.string_value = f"value-{rng.randrange(1000)}"


def make_metrics(items: int, seed: int) -> Any:
    """Make a request of gauges and histograms in turn."""
    rng = random.Random(seed)
    request = REQUESTS[Signal.METRICS]()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="device.id").value.string_value = DEVICE
    scope = resource.scope_metrics.add()
    for number in range(SERIES):
        scope.metrics.add(name=f"edge.metric.{number}", unit="ms")
    for number in range(items):
        metric = scope.metrics[number % SERIES]
        kind = metric.histogram if number % 2 else metric.gauge
        point = kind.data_points.add(time_unix_nano=START_NS + number)
        _attributes(rng, point)
        if kind is metric.gauge:
            point.as_double = rng.random()
            continue
        point.sum, point.count = rng.random(), rng.randrange(1000)
        point.bucket_counts.extend(rng.randrange(100) for _ in range(BUCKETS))
        point.explicit_bounds.extend(float(bound) for bound in range(BUCKETS - 1))
    return request


def make_logs(items: int, seed: int) -> Any:
    """Make a request of log records that belong to spans."""
    rng = random.Random(seed)
    request = REQUESTS[Signal.LOGS]()
    resource = request.resource_logs.add()
    resource.resource.attributes.add(key="device.id").value.string_value = DEVICE
    scope = resource.scope_logs.add()
    for number in range(items):
        record = scope.log_records.add(
            time_unix_nano=START_NS + number,
            severity_number=9,
            severity_text="INFO",
            trace_id=rng.randbytes(16),
            span_id=rng.randbytes(8),
        )
        record.body.string_value = f"inference took {rng.randrange(100)} ms on the accelerator"
        _attributes(rng, record)
    return request


MAKERS: Final[Mapping[Signal, Callable[[int, int], Any]]] = MappingProxyType(
    {Signal.METRICS: make_metrics, Signal.LOGS: make_logs}
)


def to_json(message: Any) -> bytes:
    """Write a message as OTLP/JSON: enums as integers, ids in hexadecimal."""
    tree = json_format.MessageToDict(message, use_integers_for_enums=True)
    # A metrics request without exemplars holds no ids.
    for resource, told in zip(
        getattr(message, "resource_logs", ()), tree.get("resourceLogs", ()), strict=True
    ):
        for scope, said in zip(resource.scope_logs, told["scopeLogs"], strict=True):
            for record, written in zip(scope.log_records, said["logRecords"], strict=True):
                written["traceId"], written["spanId"] = record.trace_id.hex(), record.span_id.hex()
    return json.dumps(tree).encode()


def _each(work: Callable[[], object], budget_s: float, scale: float) -> Summary:
    return summarize([seconds * scale for seconds in seconds_each(work, budget_s)])


def _rate(work: Callable[[], object], budget_s: float, size: int) -> Summary:
    return summarize([size / seconds / MILLION for seconds in seconds_each(work, budget_s)])


def run(*, budget_s: float, items: int = ITEMS) -> Report:
    """Measure both signals; `budget_s` is what each of the four figures of a signal may use."""
    screened, turned, figures = [], [], {}
    for signal, unit in UNITS.items():
        schema, official = schema_of(signal), REQUESTS[signal]
        message = MAKERS[signal](items, SEED)
        body, text = message.SerializeToString(), to_json(message)
        assert screen(schema, body, limits=DEFAULT_LIMITS).accepted == items
        kept, _ = transcode(schema, text, limits=DEFAULT_LIMITS)
        assert screen(schema, kept, limits=DEFAULT_LIMITS).accepted == items

        def check(schema: Any = schema, body: bytes = body) -> object:
            return screen(schema, body, limits=DEFAULT_LIMITS, device=DEVICE.encode())

        def parse(official: Any = official, body: bytes = body) -> object:
            return official.FromString(body)

        def turn(schema: Any = schema, text: bytes = text) -> object:
            return transcode(schema, text, limits=DEFAULT_LIMITS)

        def load(text: bytes = text) -> object:
            return json.loads(text)

        ours, theirs = (_each(work, budget_s, 1e9 / items) for work in (check, parse))
        fast, slow = (_rate(work, budget_s, len(text)) for work in (turn, load))
        figures[signal.value] = {
            "screen_ns_per_item": ours,
            "parse_ns_per_item": theirs,
            "transcode_mb_per_s": fast,
            "json_mb_per_s": slow,
        }
        screened.append((f"{items} {unit}, {len(body)} B", spread(ours), spread(theirs)))
        turned.append((f"{items} {unit}, {len(text)} B", spread(fast), spread(slow)))
    notes = ("median [quartiles] of CPU time",)
    tables = (
        Table(
            title="Screen a request, per core: ns per item",
            columns=("request", "screen", "protobuf parse alone"),
            rows=tuple(screened),
            notes=notes,
        ),
        Table(
            title="Turn OTLP/JSON into protobuf, per core: MB/s of text",
            columns=("request", "transcode", "json.loads alone"),
            rows=tuple(turned),
            notes=notes,
        ),
    )
    return Report(tables=tables, figures=figures)
