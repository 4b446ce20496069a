"""What was stored comes back as the same OTLP spans."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from gateway.errors import CorruptDataError
from gateway.store.otlp import to_otlp
from gateway.store.store import Store
from tests.unit.store.rows import (
    NOW_NS,
    SCOPE_BYTES,
    Row,
    columns,
    open_store,
    seal,
    text_attribute,
)

VALUES = st.one_of(
    st.builds(lambda v: AnyValue(string_value=v), st.text(max_size=8)),
    st.builds(lambda v: AnyValue(double_value=v), st.floats(allow_nan=False)),
    st.builds(lambda v: AnyValue(int_value=v), st.integers(-(1 << 63), (1 << 63) - 1)),
    st.builds(lambda v: AnyValue(bool_value=v), st.booleans()),
)
ATTRIBUTES = st.lists(
    st.builds(lambda k, v: KeyValue(key=k, value=v), st.text(max_size=5), VALUES), max_size=4
)
ROWS = st.lists(
    st.builds(
        Row,
        trace=st.just(77),
        span=st.integers(1, (1 << 64) - 1),
        parent=st.integers(0, (1 << 64) - 1),
        start_ns=st.integers(1, (1 << 63)),
        duration_ns=st.integers(0, 1 << 60),
        name=st.text(max_size=6),
        message=st.text(max_size=6),
        kind=st.integers(0, 5),
        status=st.integers(0, 2),
        flags=st.integers(0, (1 << 32) - 1),
        service=st.sampled_from(["a", "b"]),
        attributes=ATTRIBUTES,
        events=st.lists(st.builds(lambda a: Span.Event(name="e", attributes=a), ATTRIBUTES)),
        links=st.lists(st.builds(lambda t: Span.Link(trace_id=t), st.binary(max_size=16))),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda row: row.span,
)


def _expected(row: Row) -> Span:
    span = Span(
        trace_id=row.trace.to_bytes(16, "big"),
        span_id=row.span.to_bytes(8, "big"),
        parent_span_id=row.parent.to_bytes(8, "big") if row.parent else b"",
        start_time_unix_nano=row.start_ns,
        end_time_unix_nano=row.start_ns + row.duration_ns,
        name=row.name,
        flags=row.flags,
        attributes=row.attributes,
        events=row.events,
        links=row.links,
    )
    span.kind = row.kind  # type: ignore[assignment]  # the stub wants the enum's own type
    if row.status or row.message:
        span.status.code = row.status  # type: ignore[assignment]  # as above
        span.status.message = row.message
    return span


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, sealed=st.booleans())
def test_spans_come_back_as_they_went_in(
    rows: list[Row], sealed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    store = open_store(tmp_path_factory.mktemp("store"), connection)
    store.add(*columns(rows))
    if sealed:
        seal(store, connection, 1, 1)
    connection.close()
    data = TracesData.FromString(to_otlp([store.find_trace("4d")]))
    got: dict[bytes, tuple[bytes, Span]] = {}
    for resource_spans in data.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            assert scope_spans.scope.SerializeToString() == SCOPE_BYTES
            for span in scope_spans.spans:
                got[span.span_id] = (resource_spans.resource.SerializeToString(), span)
    assert len(got) == len(rows)
    for row in rows:
        resource, span = got[row.span.to_bytes(8, "big")]
        assert resource == row.resource
        assert span == _expected(row)


def test_several_traces_share_resources_and_parse_as_an_export_request(store: Store) -> None:
    store.add(*columns([Row(trace=1), Row(trace=2), Row(trace=2, span=2, service="b")]))
    body = to_otlp(list(store.find_traces(["1", "2"]).values()))
    request = ExportTraceServiceRequest.FromString(body)
    assert len(request.resource_spans) == 2
    assert [len(item.scope_spans[0].spans) for item in request.resource_spans] == [2, 1]


def test_no_rows_make_an_empty_message(store: Store) -> None:
    assert to_otlp([store.find_trace("1")]) == b""


def test_damaged_stored_bytes_are_named(store: Store) -> None:
    clean, batch, findings, verdict = columns(
        [Row(trace=1, attributes=[text_attribute("k", "v")], start_ns=NOW_NS)]
    )
    clean.spans["fields_length"] -= 1
    store.add(clean, batch, findings, verdict)
    with pytest.raises(CorruptDataError, match="stored span bytes"):
        to_otlp([store.find_trace("1")])
