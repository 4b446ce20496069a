"""A canary in any place that no rule names is in no byte of an export."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.anonymize import Anonymizer
from gateway.batch import Batch, Clean
from gateway.contract.plan import Plan
from gateway.otlp.encode import encode
from tests.oracle import REQUESTS
from tests.places import is_structure, put_at, text_paths
from tests.plans import add_span, keep_all, make_batch, make_plan, set_text

SITE_KEY = bytes(range(32))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(tmp_path_factory.mktemp("plan"))


def export(plan: Plan, batch: Batch, contract: int = 0) -> Clean:
    rows = np.full(len(batch.spans), contract, dtype=np.int16)
    return Anonymizer(plan, "dock-7", SITE_KEY).export(batch, rows, keep_all(batch))


def canary(number: int) -> bytes:
    return b"canary-%09d" % number


def planted_request() -> tuple[ExportTraceServiceRequest, list[bytes]]:
    """Fill a request with one canary per place, found by descriptor and not by a list of names."""
    planted: list[bytes] = []
    merged = ExportTraceServiceRequest()
    for number, path in enumerate(text_paths(ExportTraceServiceRequest.DESCRIPTOR), start=1):
        if is_structure(path):
            continue
        request = ExportTraceServiceRequest()
        put_at(request, path, canary(number))
        resource = request.resource_spans[0]
        scope = resource.scope_spans[0] if resource.scope_spans else resource.scope_spans.add()
        span = scope.spans[0] if scope.spans else scope.spans.add()
        span.trace_id = number.to_bytes(16, "big")
        span.span_id = number.to_bytes(8, "big")
        set_text(span, "edgeai.model.name", "damage-net")
        assert canary(number) in request.SerializeToString()
        planted.append(canary(number))
        merged.MergeFrom(request)
    return merged, planted


@pytest.mark.parametrize("contract", [0, -1])
def test_no_text_place_of_the_protocol_leaks(plan: Plan, contract: int) -> None:
    request, planted = planted_request()
    batch = make_batch(plan, [request])
    assert len(planted) >= 60
    clean = export(plan, batch, contract)
    assert len(clean.spans) == len(batch.spans)
    body = b"".join(chunk.body for chunk in encode(clean))
    assert [value for value in planted if value in body] == []
    assert b"canary" not in clean.text.tobytes()


@given(request=REQUESTS)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_exports_hold_only_declared_keys_and_values(
    plan: Plan, request: ExportTraceServiceRequest
) -> None:
    batch = make_batch(plan, [request])
    for chunk in encode(export(plan, batch)):
        for span, resource in _spans(ExportTraceServiceRequest.FromString(chunk.body)):
            assert span.name in ("inference", "preprocess", "other")
            assert not span.events
            assert not span.links
            assert not span.status.message
            assert span.trace_state == "ot=th:0"
            allowed = {"score", "class", "count", "flag", "label", "enduser.id"}
            assert {pair.key for pair in span.attributes} <= allowed
            assert {pair.key for pair in resource.attributes} <= {"device.id", "service.name"}


def _spans(request: ExportTraceServiceRequest) -> Iterator[tuple[Any, Any]]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield span, resource.resource


def test_denied_data_does_not_change_a_byte(plan: Plan) -> None:
    """Two inputs that differ only in denied data give the same output: non-interference."""
    bodies = []
    for noise in ("a", "much longer noise " * 9):
        request = ExportTraceServiceRequest()
        span = add_span(request, 1, name="inference")
        for _ in range(len(noise) % 5):
            set_text(span, "undeclared", noise)
        set_text(span, "enduser.id", "operator 9")
        set_text(span, "note", noise)
        span.status.message = noise
        span.trace_state = "vendor=" + noise.replace(" ", "")
        span.events.add().name = noise
        request.resource_spans[0].scope_spans[0].scope.name = noise
        host = request.resource_spans[0].resource.attributes.add()
        host.key, host.value.string_value = "host.name", noise
        bodies.append([chunk.body for chunk in encode(export(plan, make_batch(plan, [request])))])
    assert bodies[0] == bodies[1]
