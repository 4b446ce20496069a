"""What leaves: values, tokens, resources, and what is left out."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.anonymize import Anonymizer
from gateway.contract.plan import Plan
from gateway.otlp.encode import encode
from tests.plans import add_span, keep_all, make_batch, make_plan, set_text

SITE_KEY = bytes(range(32))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(tmp_path)


def export(
    plan: Plan, request: ExportTraceServiceRequest, *, site: str = "dock-7", key: bytes = SITE_KEY
) -> ExportTraceServiceRequest:
    batch = make_batch(plan, [request])
    rows = np.zeros(len(batch.spans), dtype=np.int16)
    clean = Anonymizer(plan, site, key).export(batch, rows, keep_all(batch))
    merged = ExportTraceServiceRequest()
    for chunk in encode(clean):
        merged.MergeFromString(chunk.body)
    return merged


def attributes(span: Any) -> dict[str, Any]:
    return {
        pair.key: getattr(pair.value, str(pair.value.WhichOneof("value")))
        for pair in span.attributes
    }


def only_span(request: ExportTraceServiceRequest) -> Span:
    return request.resource_spans[0].scope_spans[0].spans[0]


def put(span: Span, key: str, **value: Any) -> None:
    pair = span.attributes.add()
    pair.key = key
    ((field, content),) = value.items()
    setattr(pair.value, field, content)


def test_declared_values_leave_as_they_are(plan: Plan) -> None:
    request = ExportTraceServiceRequest()
    span = add_span(request, 7)
    put(span, "score", double_value=0.25)
    put(span, "class", string_value="torn")
    put(span, "count", int_value=42)
    put(span, "flag", bool_value=True)
    span.kind = Span.SPAN_KIND_SERVER
    span.parent_span_id = b"parentid"
    span.flags = 0x101
    span.status.code = Status.STATUS_CODE_ERROR
    out = only_span(export(plan, request))
    assert attributes(out) == {"score": 0.25, "class": "torn", "count": 42, "flag": True}
    for name in ("trace_id", "span_id", "parent_span_id", "kind", "flags", "name"):
        assert getattr(out, name) == getattr(span, name)
    assert out.status.code == 2
    assert out.end_time_unix_nano - out.start_time_unix_nano == 5_000_000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("score", {"double_value": 1.5}),
        ("score", {"double_value": math.nan}),
        ("score", {"double_value": math.inf}),
        ("score", {"string_value": "0.5"}),
        ("count", {"int_value": 101}),
        ("count", {"double_value": 4.0}),
        ("flag", {"int_value": 1}),
        ("class", {"int_value": 1}),
        ("enduser.id", {"double_value": 1.0}),
        ("undeclared", {"string_value": "x"}),
    ],
)
def test_a_value_that_its_contract_does_not_allow_is_left_out(
    plan: Plan, key: str, value: dict[str, Any]
) -> None:
    request = ExportTraceServiceRequest()
    put(add_span(request, 1), key, **value)
    assert attributes(only_span(export(plan, request))) == {}


def test_an_enum_value_that_is_not_listed_leaves_as_other(plan: Plan) -> None:
    request = ExportTraceServiceRequest()
    put(add_span(request, 1), "class", string_value="secret")
    assert attributes(only_span(export(plan, request))) == {"class": "other"}


def test_a_key_that_occurs_twice_is_left_out(plan: Plan) -> None:
    request = ExportTraceServiceRequest()
    span = add_span(request, 1)
    put(span, "score", double_value=0.1)
    put(span, "score", double_value=0.2)
    assert attributes(only_span(export(plan, request))) == {}


def test_negative_zero_leaves_as_zero(plan: Plan) -> None:
    request = ExportTraceServiceRequest()
    put(add_span(request, 1), "score", double_value=-0.0)
    value = attributes(only_span(export(plan, request)))["score"]
    assert struct.pack("<d", value) == struct.pack("<d", 0.0)


def test_numbers_that_the_specification_does_not_name_become_zero(plan: Plan) -> None:
    request = ExportTraceServiceRequest()
    span = add_span(request, 1)
    span.flags = 0xFFFFFFFF
    raw = bytearray(request.SerializeToString())
    span.kind = Span.SPAN_KIND_CONSUMER
    with_kind = request.SerializeToString().replace(b"\x30\x05", b"\x30\x4d")
    assert len(raw) < len(with_kind)
    out = only_span(export(plan, ExportTraceServiceRequest.FromString(with_kind)))
    assert out.kind == 0
    assert out.flags == 0x3FF


def test_tokens_are_stable_within_a_field_and_differ_across_fields_sites_and_keys(
    plan: Plan,
) -> None:
    request = ExportTraceServiceRequest()
    for number in (1, 2):
        span = add_span(request, number)
        set_text(span, "enduser.id", "operator-9")
        set_text(span, "label", "operator-9")
    first, second = export(plan, request).resource_spans[0].scope_spans[0].spans
    assert attributes(first) == attributes(second)
    token = attributes(first)["enduser.id"]
    assert token.startswith("t1.")
    assert len(token) == 25
    assert attributes(first)["label"] != token
    elsewhere = only_span(export(plan, request, site="dock-8"))
    assert attributes(elsewhere)["enduser.id"] != token
    other_key = only_span(export(plan, request, key=bytes(32)))
    assert attributes(other_key)["enduser.id"] != token


def test_an_integer_identifier_becomes_a_token_too(plan: Plan) -> None:
    request = ExportTraceServiceRequest()
    put(add_span(request, 1), "enduser.id", int_value=4711)
    put(add_span(request, 2), "enduser.id", string_value="4711")
    put(add_span(request, 3), "enduser.id", int_value=4711)
    spans = export(plan, request).resource_spans[0].scope_spans[0].spans
    tokens = [attributes(span)["enduser.id"] for span in spans]
    assert tokens[0] == tokens[2] != tokens[1]
    assert all(token.startswith("t1.") for token in tokens)


def test_resources_keep_declared_attributes_only(plan: Plan) -> None:
    request = ExportTraceServiceRequest()
    add_span(request, 1)
    for key, value in (("device.id", "cam-7"), ("service.name", "dock"), ("host.name", "h1")):
        pair = request.resource_spans[0].resource.attributes.add()
        pair.key, pair.value.string_value = key, value
    out = {
        p.key: p.value.string_value
        for p in export(plan, request).resource_spans[0].resource.attributes
    }
    assert out.keys() == {"device.id", "service.name"}
    assert out["service.name"] == "dock"
    assert out["device.id"].startswith("t1.")


def test_names_leave_from_the_list_only(plan: Plan) -> None:
    request = ExportTraceServiceRequest()
    for number, name in enumerate(["inference", "preprocess", "GET /patient/7", ""], start=1):
        add_span(request, number, name=name)
    spans = export(plan, request).resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == ["inference", "preprocess", "other", "other"]


def test_what_leaves_is_the_same_whatever_the_scanner_has_cached(plan: Plan) -> None:
    """Resources that share a slot of its cache get several rows, others with each seed."""
    request = ExportTraceServiceRequest()
    for number in range(1_500):
        for device in (number, number // 2):
            one = ExportTraceServiceRequest()
            add_span(one, number + 1)
            resource = one.resource_spans[0].resource
            pair = resource.attributes.add(key="device.id")
            pair.value.string_value = f"camera-{device}"
            request.MergeFrom(one)
    rows, sizes = set(), set()
    for _ in range(3):
        batch = make_batch(plan, [request])
        contract = np.zeros(len(batch.spans), dtype=np.int16)
        found = Anonymizer(plan, "dock-7", SITE_KEY).export(batch, contract, keep_all(batch))
        rows.add(len(batch.resources))
        sizes.add(tuple(len(chunk.body) for chunk in encode(found)))
    assert len(rows) > 1, "the cache missed as often each time: this shows nothing"
    assert len(sizes) == 1
