"""Bodies of the benchmarks are what they claim to be, by the official protobuf classes."""

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.traffic import (
    ATTRIBUTES,
    POOL_BODIES_MAX,
    headed_body,
    make_bodies,
    make_body,
    pool_size,
)

SEED = 3


def spans_of(data: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(data)
    return [
        span
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def test_a_span_has_two_doubles_a_bool_an_int_and_six_strings() -> None:
    (span,) = spans_of(bytes(make_body(1, np.random.default_rng(SEED)).data))
    kinds = sorted(str(pair.value.WhichOneof("value")) for pair in span.attributes)
    assert kinds == ["bool_value", *["double_value"] * 2, "int_value", *["string_value"] * 6]
    assert len(kinds) == ATTRIBUTES


def test_renewing_changes_all_trace_ids_and_nothing_else() -> None:
    body = make_body(8, np.random.default_rng(SEED))
    before = spans_of(bytes(body.data))
    body.renew(12_345)
    after = spans_of(bytes(body.data))
    for old, new in zip(before, after, strict=True):
        assert old.trace_id != new.trace_id
        new.trace_id = old.trace_id
        assert old == new


def test_different_numbers_give_different_ids() -> None:
    body = make_body(8, np.random.default_rng(SEED))
    seen: set[bytes] = set()
    for number in range(500):
        body.renew(number)
        seen.update(span.trace_id for span in spans_of(bytes(body.data)))
    assert len(seen) == 500 * 8


def test_head_tells_the_length_of_the_body() -> None:
    body = headed_body(64, np.random.default_rng(SEED), b"Content-Length: %d\r\n\r\n")
    head, _, rest = bytes(body.data).partition(b"\r\n\r\n")
    assert head == b"Content-Length: %d" % len(rest)
    body.renew(1)
    assert len(spans_of(bytes(body.data).partition(b"\r\n\r\n")[2])) == 64


def test_bodies_are_distinct_and_of_one_length() -> None:
    bodies = make_bodies(8, 50, SEED)
    assert len(set(bodies)) == 50
    assert len({len(body) for body in bodies}) == 1


def test_pool_is_bounded_in_bodies_and_bytes() -> None:
    assert pool_size(1) == POOL_BODIES_MAX
    assert 8 <= pool_size(512) < POOL_BODIES_MAX
