"""What the site keeps: everything, less what a contract forbids it to keep."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.anonymize import Anonymizer
from gateway.contract.plan import Plan
from gateway.otlp.decode import OpenBatch
from gateway.otlp.encode import encode
from tests.oracle import REQUESTS, payload, plain_batch
from tests.plans import add_span, make_batch, make_plan, set_text


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(tmp_path_factory.mktemp("plan"))


def keep(plan: Plan, request: ExportTraceServiceRequest, contract: int) -> bytes:
    batch = make_batch(plan, [request])
    rows = np.full(len(batch.spans), contract, dtype=np.int16)
    clean = Anonymizer(plan, "dock-7", bytes(32)).site(batch, rows)
    return b"".join(chunk.body for chunk in encode(clean))


@given(request=REQUESTS)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_without_a_contract_every_span_is_kept_whole(
    plan: Plan, request: ExportTraceServiceRequest
) -> None:
    def read(body: bytes) -> list[dict[str, object]]:
        open_batch = OpenBatch(())
        open_batch.add(payload(body))
        spans = plain_batch(open_batch, open_batch.take(1))
        for span in spans:  # schema URLs and the resource's own dropped count have no column
            span["resource"] = span["resource"][0]
            span["scope"] = span["scope"][:4]
        return sorted(spans, key=repr)

    assert read(keep(plan, request, contract=-1)) == read(request.SerializeToString())


def test_what_a_contract_drops_at_the_site_is_in_no_byte(plan: Plan) -> None:
    request = ExportTraceServiceRequest()
    span = add_span(request, 1)
    set_text(span, "note", "forbidden text")
    set_text(span, "other", "kept text")
    host = request.resource_spans[0].resource.attributes.add()
    host.key, host.value.string_value = "host.name", "forbidden host"
    body = keep(plan, request, contract=0)
    assert b"forbidden" not in body
    assert b"kept text" in body


def test_every_copy_of_a_dropped_key_is_dropped_and_nothing_else(plan: Plan) -> None:
    request = ExportTraceServiceRequest()
    span = add_span(request, 1)
    set_text(span, "note", "forbidden one")
    set_text(span, "other", "kept text")
    set_text(span, "note", "forbidden two")
    body = keep(plan, request, contract=0)
    assert b"forbidden" not in body
    assert b"kept text" in body


@pytest.mark.parametrize("contract", [0, -1])
def test_a_dropped_key_is_dropped_wherever_it_stands(plan: Plan, contract: int) -> None:
    """A span without a contract may be part of a trace whose model was named in another batch."""
    request = ExportTraceServiceRequest()
    span = add_span(request, 1)
    event, other = span.events.add(name="with"), span.events.add(name="without")
    link = span.links.add(trace_id=bytes(range(16)), span_id=bytes(range(8)))
    scope = request.resource_spans[0].scope_spans[0].scope
    resource = request.resource_spans[0].resource
    for place in (span, event, link, scope, resource):
        for key in ("note", "host.name"):
            pair = place.attributes.add()
            pair.key, pair.value.string_value = key, "forbidden text"
    for place in (span, other, scope, resource):
        pair = place.attributes.add()
        pair.key, pair.value.string_value = "plain", "kept text"
    body = keep(plan, request, contract)
    assert b"forbidden" not in body
    kept = ExportTraceServiceRequest.FromString(body).resource_spans[0]
    (found,) = kept.scope_spans[0].spans
    assert [each.name for each in found.events] == ["without"]
    assert len(found.links) == 0
    for attributes in (
        found.attributes,
        found.events[0].attributes,
        kept.scope_spans[0].scope.attributes,
        kept.resource.attributes,
    ):
        assert [pair.key for pair in attributes] == ["plain"]
