"""Small plans and batches for tests: contracts made from YAML text, spans from official classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.batch import Batch, Verdict
from gateway.config import SamplingSection
from gateway.contract.load import load_contracts
from gateway.contract.plan import Plan, compile_plan
from gateway.otlp.decode import OpenBatch
from gateway.tables import NO_RANDOMNESS
from tests.oracle import payload

CONTRACT = """
contract: 1
model: damage-net
match: {edgeai.model.name: damage-net}
owner: vision@example.com
purpose: damage detection
expires: 2099-12-31
span_names: [inference, preprocess]
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
  host.name: {site: drop}
slos:
  - {name: success, indicator: success, objective: 0.999, window: 30d}
"""


def make_plan(folder: Path, text: str = CONTRACT) -> Plan:
    """Compile one contract given as text."""
    path = folder / "contract.yaml"
    path.write_text(text)
    return compile_plan(load_contracts([path]), SamplingSection())


def add_span(request: ExportTraceServiceRequest, number: int, name: str = "inference") -> Span:
    """Add a span with valid ids to the first resource and scope, which are made when missing."""
    resource = request.resource_spans[0] if request.resource_spans else request.resource_spans.add()
    scope = resource.scope_spans[0] if resource.scope_spans else resource.scope_spans.add()
    span = scope.spans.add()
    span.trace_id = number.to_bytes(16, "big")
    span.span_id = number.to_bytes(8, "big")
    span.name = name
    span.start_time_unix_nano = 10**18 + number
    span.end_time_unix_nano = 10**18 + number + 5_000_000
    return span


def set_text(span: Span, key: str, value: str) -> None:
    """Append a string attribute."""
    attribute = span.attributes.add()
    attribute.key = key
    attribute.value.string_value = value


def make_batch(plan: Plan, requests: Sequence[ExportTraceServiceRequest]) -> Batch:
    """Decode requests under a plan."""
    open_batch = OpenBatch(plan.slot_keys)
    for request in requests:
        open_batch.add(payload(request.SerializeToString()))
    return open_batch.take(1)


def keep_all(batch: Batch) -> Verdict:
    """Keep every row with certainty."""
    rows = len(batch.spans)
    return Verdict(
        keep=np.ones(rows, dtype=np.bool_),
        reason=np.zeros(rows, dtype=np.uint8),
        reasons=("rate",),
        threshold=np.zeros(rows, dtype=np.uint64),
        randomness=np.full(rows, NO_RANDOMNESS, dtype=np.uint64),
    )
