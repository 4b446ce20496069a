"""Small requests of metrics and logs for tests, and what leaves of them as official messages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from gateway.anonymize import Anonymizer
from gateway.batch import Parcel, Signal, Transport
from gateway.config import SamplingSection
from gateway.contract.load import load_contracts
from gateway.contract.plan import Plan, compile_plan
from gateway.otlp.encode import Chunk, encode_parts
from tests.places import Steps, reach

Request = ExportLogsServiceRequest | ExportMetricsServiceRequest

SITE_KEY: Final = bytes(range(32))
SITE: Final = "dock-7"
NOW_NS: Final = 1_700_000_000_000_000_000

CONTRACT: Final = """
contract: 1
model: damage-net
match: {edgeai.model.name: damage-net}
owner: vision@example.com
purpose: damage detection
expires: 2099-12-31
span_names: [inference]
event_names: [edgeai.model.loaded, edgeai.model.unloaded]
metrics:
  latency: {unit: ms}
  queue: {}
signals:
  confidence: {attribute: score, type: double, range: [0, 1], role: confidence, export: pass}
  class: {attribute: class, type: enum, values: [ok, torn], role: prediction, export: pass}
  count: {attribute: count, type: int, range: [0, 100], role: feature, export: pass}
  flag: {attribute: flag, type: bool, role: feature, export: pass}
  label: {attribute: label, type: string, role: identifier, export: token}
  operator: {attribute: enduser.id, type: string, role: identifier, export: token}
  note: {attribute: note, type: string, role: text, site: drop, export: drop}
resource:
  device.id: {export: token}
  service.name: {export: pass}
  edgeai.model.name: {export: pass}
  host.name: {site: drop}
"""
OTHER_CONTRACT: Final = """
contract: 1
model: triage-net
match: {edgeai.model.name: triage-net}
owner: clinic@example.com
purpose: triage
expires: 2099-12-31
event_names: [edgeai.model.loaded]
metrics:
  latency: {unit: s}
signals:
  urgency: {attribute: urgency, type: enum, values: [now, later], role: prediction, export: pass}
resource:
  device.id: {export: token}
  edgeai.model.name: {export: pass}
"""


def make_plan(folder: Path, *texts: str) -> Plan:
    """Compile contracts given as texts, without any the two of this module."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, text in enumerate(texts or (CONTRACT, OTHER_CONTRACT)):
        path = folder / f"contract-{number}.yaml"
        path.write_text(text)
        paths.append(path)
    return compile_plan(load_contracts(paths), SamplingSection())


# --- requests -------------------------------------------------------------------------------------


def put(owner: Any, key: str, value: Any) -> Any:
    """Append an attribute of the type that the value has; returns the owner."""
    made = owner.attributes.add(key=key).value
    if isinstance(value, AnyValue):
        made.CopyFrom(value)
    else:
        names: Mapping[type, str] = {
            str: "string_value",
            bool: "bool_value",
            int: "int_value",
            float: "double_value",
            bytes: "bytes_value",
        }
        setattr(made, names[type(value)], value)
    return owner


def _around(resource: Any, model: str) -> None:
    put(resource, "device.id", "cam-1")
    put(resource, "service.name", "dock-camera")
    if model:
        put(resource, "edgeai.model.name", model)


def logs(*, model: str = "damage-net", device: bool = True) -> ExportLogsServiceRequest:
    """Make a request with one empty scope of one device."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    resource.scope_logs.add()
    if device:
        _around(resource.resource, model)
    return request


def metrics(*, model: str = "damage-net", device: bool = True) -> ExportMetricsServiceRequest:
    """Make a request with one empty scope of one device."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.scope_metrics.add()
    if device:
        _around(resource.resource, model)
    return request


def add_record(request: ExportLogsServiceRequest, **fields: Any) -> LogRecord:
    """Append a record to the newest scope."""
    records = request.resource_logs[-1].scope_logs[-1].log_records
    return records.add(**{"time_unix_nano": NOW_NS, **fields})


def add_metric(
    request: ExportMetricsServiceRequest,
    kind: str = "gauge",
    *,
    name: str = "latency",
    unit: str = "ms",
) -> Metric:
    """Append a metric without points to the newest scope."""
    metric = request.resource_metrics[-1].scope_metrics[-1].metrics.add(name=name, unit=unit)
    getattr(metric, kind).SetInParent()
    return metric


def add_point(metric: Metric, **fields: Any) -> Any:
    """Append a point to a metric."""
    points = getattr(metric, str(metric.WhichOneof("data"))).data_points
    return points.add(**{"time_unix_nano": NOW_NS, **fields})


def complete(request: Any, path: Steps, *, name: str = "latency", unit: str = "ms") -> None:
    """Add what an item needs to leave, beside what the path has made."""
    root = request.DESCRIPTOR.fields[0]
    resource = reach(request, (root,))
    put(resource.resource, "device.id", "cam-1")
    put(resource.resource, "edgeai.model.name", "damage-net")
    scope = reach(resource, (resource.DESCRIPTOR.fields[1],))
    if "log_records" in scope.DESCRIPTOR.fields_by_name:
        reach(scope, (scope.DESCRIPTOR.fields_by_name["log_records"],)).time_unix_nano = 1
        return
    metric = reach(scope, (scope.DESCRIPTOR.fields_by_name["metrics"],))
    names = [field.name for field in path]
    if names[-1] != "name" or "scope" in names:
        metric.name = name
    if names[-1] != "unit":
        metric.unit = unit
    kind = metric.WhichOneof("data") or "gauge"
    points = getattr(metric, kind).data_points
    (points[0] if points else points.add()).time_unix_nano = 1


def stays(path: Steps) -> bool:
    """Say whether an item stays for what is planted: its metric is another, or a dimension."""
    names = [field.full_name for field in path]
    if names[-1].endswith((".Metric.name", ".Metric.unit")):
        return True
    return any(name.endswith("DataPoint.attributes") for name in names)


# --- what leaves ----------------------------------------------------------------------------------


def records_of(request: ExportLogsServiceRequest) -> list[LogRecord]:
    """List all records."""
    return [
        record
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def metrics_of(request: ExportMetricsServiceRequest) -> list[Metric]:
    """List all metrics."""
    return [
        metric
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]


def points_of(metric: Metric) -> list[Any]:
    """List the points of a metric."""
    kind = metric.WhichOneof("data")
    return list(getattr(metric, kind).data_points) if kind else []


def items_of(request: Request) -> int:
    """Count log records or data points."""
    if isinstance(request, ExportLogsServiceRequest):
        return len(records_of(request))
    return sum(len(points_of(metric)) for metric in metrics_of(request))


def attributes_of(owner: Any) -> dict[str, Any]:
    """Read attributes as plain values."""
    return {
        pair.key: getattr(pair.value, str(pair.value.WhichOneof("value")))
        for pair in owner.attributes
    }


def parcel_of(request: Request, body: bytes | None = None) -> Parcel:
    """Wrap a request as `otlp` would."""
    raw = request.SerializeToString() if body is None else body
    is_logs = isinstance(request, ExportLogsServiceRequest)
    return Parcel(
        signal=Signal.LOGS if is_logs else Signal.METRICS,
        transport=Transport.GRPC,
        identity="",
        arrival_ns=NOW_NS,
        wire_bytes=len(raw),
        held_bytes=len(raw),
        items=items_of(request),
        body=raw,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What left of a request. Units: counts of items."""

    chunks: list[Chunk]
    message: Any
    items: int
    withheld: Mapping[str, int]

    @property
    def body(self) -> bytes:
        """All bytes."""
        return b"".join(chunk.body for chunk in self.chunks)

    @property
    def resources(self) -> Iterator[Any]:
        """The resources, one after the other."""
        field = self.message.DESCRIPTOR.fields[0].name
        return iter(getattr(self.message, field))


def leave(plan: Plan, request: Request, *, site: str = SITE, key: bytes = SITE_KEY) -> Left:
    """Make clean and encode, and read the result with the official classes."""
    found = Anonymizer(plan, site, key).parcel(parcel_of(request))
    chunks = encode_parts(found.parts)
    message: Any = type(request)()
    for chunk in chunks:
        message.MergeFromString(chunk.body)
    items = sum(chunk.items for chunk in chunks)
    assert items == items_of(message), "chunks say how many items they hold"
    return Left(
        chunks=chunks,
        message=message,
        items=items,
        withheld={rule: count for rule, count in found.withheld.items() if count},
    )
