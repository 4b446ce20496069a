"""One declaration means the same in a log record as in a span."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from gateway.anonymize import Anonymizer
from gateway.anonymize.declared import declarations_of, select, unique
from gateway.anonymize.policy import PASSED_TEXT_BYTES_MAX
from gateway.anonymize.tokens import Tokens
from gateway.batch import Audience
from gateway.contract.plan import Plan
from gateway.otlp.encode import encode
from tests.oracle import VALUES
from tests.parcels import (
    CONTRACT,
    SITE,
    SITE_KEY,
    add_record,
    attributes_of,
    leave,
    logs,
    make_plan,
    put,
    records_of,
)
from tests.plans import add_span, keep_all, make_batch

KEYS = ("score", "class", "count", "flag", "label", "enduser.id", "note", "undeclared")
INTS = (0, -1, 100, 101, 2**53 + 1, -(2**63), 2**63 - 1)
DOUBLES = (0.0, -0.0, 1.0, 1.0000001, math.nan, math.inf, -math.inf, 5e-324)
TEXTS = ("", "ok", "torn", "other", "größe", "x" * PASSED_TEXT_BYTES_MAX, "x" * 257, "é" * 129)
EDGES = st.one_of(
    st.builds(AnyValue, int_value=st.sampled_from(INTS)),
    st.builds(AnyValue, double_value=st.sampled_from(DOUBLES)),
    st.builds(AnyValue, string_value=st.sampled_from(TEXTS)),
)
PAIRS = st.lists(st.builds(KeyValue, key=st.sampled_from(KEYS), value=EDGES | VALUES), max_size=6)
ABOUT = st.lists(
    st.builds(
        KeyValue,
        key=st.sampled_from(("device.id", "service.name", "host.name", "edgeai.model.version")),
        value=EDGES | VALUES,
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(tmp_path_factory.mktemp("plan"))


def pairs_of(owner: Any) -> list[tuple[str, bytes]]:
    """Write attributes so that they compare by every bit, in any order."""
    return sorted((each.key, each.value.SerializeToString()) for each in owner.attributes)


def as_span(plan: Plan, pairs: list[KeyValue], about: list[KeyValue]) -> tuple[Any, Any]:
    request = ExportTraceServiceRequest()
    add_span(request, 1).attributes.extend(pairs)
    request.resource_spans[0].resource.attributes.extend(about)
    batch = make_batch(plan, [request])
    index = [each.model for each in plan.contracts].index("damage-net")
    rows = np.full(1, index, dtype=np.int16)
    clean = Anonymizer(plan, SITE, SITE_KEY).export(batch, rows, keep_all(batch))
    (chunk,) = encode(clean)
    (resource,) = ExportTraceServiceRequest.FromString(chunk.body).resource_spans
    return resource.scope_spans[0].spans[0], resource.resource


def as_record(plan: Plan, pairs: list[KeyValue], about: list[KeyValue]) -> tuple[Any, Any]:
    request = logs(device=False)
    model = request.resource_logs[0].scope_logs[0].scope
    put(model, "edgeai.model.name", "damage-net")
    add_record(request).attributes.extend(pairs)
    request.resource_logs[0].resource.attributes.extend(about)
    (resource,) = leave(plan, request).resources
    return resource.scope_logs[0].log_records[0], resource.resource


@given(pairs=PAIRS, about=ABOUT)
def test_attributes_leave_as_those_of_a_span(
    plan: Plan, pairs: list[KeyValue], about: list[KeyValue]
) -> None:
    span, of_span = as_span(plan, pairs, about)
    record, of_record = as_record(plan, pairs, about)
    assert pairs_of(record) == pairs_of(span)
    assert pairs_of(of_record) == pairs_of(of_span)


@pytest.mark.parametrize(
    ("bounds", "value", "leaves"),
    [
        ("[0, 9007199254740992]", 2**53 + 1, True),  # compared as a double, which it rounds to
        ("[0, 9007199254740992]", 2**53 + 2, False),
        ("[-3, 3]", 3, True),
        ("[-3, 3]", -4, False),
    ],
)
def test_range_of_an_int_is_that_of_a_span(
    tmp_path: Path, bounds: str, value: int, leaves: bool
) -> None:
    plan = make_plan(tmp_path, CONTRACT.replace("[0, 100]", bounds))
    pairs = [KeyValue(key="count", value=AnyValue(int_value=value))]
    span, _ = as_span(plan, pairs, [])
    record, _ = as_record(plan, pairs, [])
    assert attributes_of(record) == attributes_of(span) == ({"count": value} if leaves else {})


def test_token_is_that_of_the_field_for_export(plan: Plan) -> None:
    request = logs()
    put(add_record(request), "label", "cam-1")
    left = leave(plan, request)
    (resource,) = left.resources
    made = {
        field: Tokens(SITE_KEY, SITE, Audience.EXPORT, field).token(b"cam-1").decode()
        for field in ("device.id", "label")
    }
    assert attributes_of(resource.resource)["device.id"] == made["device.id"]
    assert attributes_of(records_of(left.message)[0]) == {"label": made["label"]}
    assert made["device.id"] != made["label"]
    for other in ({"site": "dock-8"}, {"key": bytes(32)}):
        (elsewhere,) = leave(plan, request, **other).resources
        assert attributes_of(elsewhere.resource)["device.id"] != made["device.id"]


def test_int_token_is_that_of_its_two_complement(plan: Plan) -> None:
    tokens = Tokens(SITE_KEY, SITE, Audience.EXPORT, "label")
    for value in (7, -7, 2**63 - 1, -(2**63)):
        request = logs()
        put(add_record(request), "label", value)
        (record,) = records_of(leave(plan, request).message)
        raw = b"int:" + struct.pack(">q", value)
        assert attributes_of(record) == {"label": tokens.token(raw).decode()}


def test_text_of_a_resource_is_a_label_or_absent(plan: Plan) -> None:
    for size, leaves in ((PASSED_TEXT_BYTES_MAX, True), (PASSED_TEXT_BYTES_MAX + 1, False)):
        request = logs(device=False)
        about = request.resource_logs[0].resource
        put(put(about, "edgeai.model.name", "damage-net"), "service.name", "x" * size)
        put(about, "device.id", "y" * size)
        add_record(request)
        (resource,) = leave(plan, request).resources
        found = attributes_of(resource.resource)
        assert found.get("service.name") == ("x" * size if leaves else None)
        assert ("device.id" in found) is leaves


def test_values_come_in_the_order_of_the_declarations(plan: Plan) -> None:
    request = logs()
    record = add_record(request)
    for key, value in (("flag", True), ("count", 1), ("class", "ok"), ("score", 0.5)):
        put(record, key, value)
    (out,) = records_of(leave(plan, request).message)
    assert [pair.key for pair in out.attributes] == ["score", "class", "count", "flag"]


def test_key_that_occurs_twice_or_more_is_absent() -> None:
    def pair(key: str, value: str) -> KeyValue:
        return KeyValue(key=key, value=AnyValue(string_value=value))

    pairs = [pair("a", "1"), pair("b", "2"), pair("a", "3"), pair("a", "1"), pair("c", "4")]
    assert {key: each.string_value for key, each in unique(pairs).items()} == {"b": "2", "c": "4"}


@pytest.mark.parametrize(
    ("key", "value", "apart"),
    [
        ("class", AnyValue(string_value="ok"), True),
        ("class", AnyValue(string_value="secret"), False),  # leaves as other
        ("class", AnyValue(string_value="other"), False),
        ("score", AnyValue(double_value=0.0), True),
        ("score", AnyValue(int_value=0), False),  # leaves as 0.0
        ("count", AnyValue(int_value=0), True),
        ("flag", AnyValue(bool_value=False), True),
        ("label", AnyValue(int_value=0), True),
        ("label", AnyValue(string_value="0"), True),
    ],
)
def test_value_that_leaves_as_another_one_is_known(
    plan: Plan, key: str, value: AnyValue, apart: bool
) -> None:
    (contract,) = [each for each in plan.contracts if each.model == "damage-net"]
    declared = declarations_of(contract, SITE, SITE_KEY)
    assert len(list(select(declared.attributes, {key: value}))) == 1
    assert declared.attributes[key].is_told_apart(value) is apart


def test_dropped_declarations_are_not_compiled(plan: Plan) -> None:
    (contract,) = [each for each in plan.contracts if each.model == "damage-net"]
    declared = declarations_of(contract, SITE, SITE_KEY)
    assert set(declared.attributes) == {"score", "class", "count", "flag", "label", "enduser.id"}
    assert set(declared.resource) == {"device.id", "service.name", "edgeai.model.name"}
