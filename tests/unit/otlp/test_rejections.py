"""One bad span is refused, never its batch; the first reason is told and the rest is untouched."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Receipt
from gateway.otlp.decode import OpenBatch
from gateway.otlp.kernel import REJECTIONS
from gateway.otlp.limits import Limits
from tests.oracle import TWIN, payload, plain_batch, plain_twin

TEXT_BYTES_MAX = 1_000
BAD = b"\xff\xfe"
TRACE, SPAN, PARENT, UTF8, LONG, DEVICE = REJECTIONS[1:]


def request(spans: int = 3, device: bytes = b"cam-7") -> Any:
    """Make a twin request of good spans with every place that holds text."""
    made = TWIN()
    resource = made.resource_spans.add(schema_url=b"https://schema")
    pair = resource.resource.attributes.add(key=b"device.id")
    pair.value.string_value = device
    scope = resource.scope_spans.add()
    scope.scope.name = b"edge"
    for number in range(spans):
        span = scope.spans.add(trace_id=bytes([1] * 16), span_id=bytes([number + 1] * 8))
        span.name = b"inference"
        span.attributes.add(key=b"model").value.string_value = b"damage-net"
        span.events.add(name=b"seen").attributes.add(key=b"at")
        span.links.add(trace_state=b"a=b").attributes.add(key=b"to")
        span.status.message = b"fine"
    return made


def feed(twin: Any, identity: str = "") -> tuple[Receipt, list[bytes]]:
    """Take one request; returns the receipt and the ids of the spans that were taken."""
    open_batch = OpenBatch([b"model"], Limits(text_bytes_max=TEXT_BYTES_MAX))
    receipt = open_batch.add(payload(twin.SerializeToString(), identity=identity))
    taken = plain_batch(open_batch, open_batch.take(1))
    if len(twin.SerializeToString()) < TEXT_BYTES_MAX and not identity:
        assert taken == plain_twin(twin)
    return receipt, [span["span_id"] for span in taken]


def ids(*numbers: int) -> list[bytes]:
    return [bytes([number] * 8) for number in numbers]


PLACES: dict[str, Callable[[Any], object]] = {
    "name": lambda span: setattr(span, "name", BAD),
    "trace state": lambda span: setattr(span, "trace_state", BAD),
    "status message": lambda span: setattr(span.status, "message", BAD),
    "attribute key": lambda span: setattr(span.attributes[0], "key", BAD),
    "attribute value": lambda span: setattr(span.attributes[0].value, "string_value", BAD),
    "nested value": lambda span: span.attributes[0].value.array_value.values.add(string_value=BAD),
    "nested key": lambda span: span.attributes[0].value.kvlist_value.values.add(key=BAD),
    "event name": lambda span: setattr(span.events[0], "name", BAD),
    "event key": lambda span: setattr(span.events[0].attributes[0], "key", BAD),
    "link state": lambda span: setattr(span.links[0], "trace_state", BAD),
    "link key": lambda span: setattr(span.links[0].attributes[0], "key", BAD),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_text_that_is_not_utf8_costs_its_span(place: str, bad: int) -> None:
    twin = request()
    PLACES[place](twin.resource_spans[0].scope_spans[0].spans[bad])
    receipt, taken = feed(twin)
    assert receipt == Receipt(accepted=2, rejected=1, reason=UTF8)
    assert taken == [each for each in ids(1, 2, 3) if each != bytes([bad + 1] * 8)]


@pytest.mark.parametrize("level", ["resource", "resource schema", "scope", "scope schema"])
def test_a_text_above_the_spans_costs_all_of_them(level: str) -> None:
    twin = request()
    resource = twin.resource_spans[0]
    scope = resource.scope_spans[0]
    if level == "resource":
        resource.resource.attributes[0].value.string_value = BAD
    elif level == "resource schema":
        resource.schema_url = BAD
    elif level == "scope":
        scope.scope.name = BAD
    else:
        scope.schema_url = BAD
    good = twin.resource_spans.add()
    good.CopyFrom(request(1).resource_spans[0])
    other = resource.scope_spans.add()
    other.spans.add(trace_id=bytes([1] * 16), span_id=bytes([9] * 8))
    receipt, taken = feed(twin)
    of_scope = level.startswith("scope")
    assert receipt == Receipt(
        accepted=2 if of_scope else 1, rejected=3 + (not of_scope), reason=UTF8
    )
    assert taken == (ids(9, 1) if of_scope else ids(1))


def test_a_text_over_its_limit_costs_its_span() -> None:
    twin = request()
    spans = twin.resource_spans[0].scope_spans[0].spans
    spans[0].name = b"n" * TEXT_BYTES_MAX
    spans[1].name = b"n" * (TEXT_BYTES_MAX + 1)
    spans[2].attributes[0].value.bytes_value = bytes(TEXT_BYTES_MAX + 1)
    receipt, taken = feed(twin)
    assert receipt == Receipt(accepted=1, rejected=2, reason=LONG)
    assert taken == ids(1)


@given(st.lists(st.sampled_from(["", TRACE, SPAN, PARENT, UTF8]), min_size=1, max_size=12))
def test_exactly_the_bad_ones_are_refused_and_the_first_reason_is_told(kinds: list[str]) -> None:
    twin = request(len(kinds))
    for span, kind in zip(twin.resource_spans[0].scope_spans[0].spans, kinds, strict=True):
        if kind == TRACE:
            span.trace_id = bytes(16)
        elif kind == SPAN:
            span.span_id = b"short"
        elif kind == PARENT:
            span.parent_span_id = b"short"
        elif kind == UTF8:
            span.name = BAD
    receipt, taken = feed(twin)
    good = [number + 1 for number, kind in enumerate(kinds) if not kind]
    reason = next((kind for kind in kinds if kind), "")
    assert receipt == Receipt(accepted=len(good), rejected=len(kinds) - len(good), reason=reason)
    assert taken == ids(*good)


def test_spans_that_name_another_device_are_refused() -> None:
    twin = request(2)
    twin.resource_spans.add().CopyFrom(request(3, device=b"cam-8").resource_spans[0])
    receipt, taken = feed(twin, identity="cam-7")
    assert receipt == Receipt(accepted=2, rejected=3, reason=DEVICE, mismatched=3)
    assert taken == ids(1, 2)
    receipt, _ = feed(twin, identity="cam-9")
    assert (receipt.accepted, receipt.mismatched) == (0, 5)
    receipt, _ = feed(twin)
    assert (receipt.accepted, receipt.mismatched) == (5, 0)


def test_a_device_id_that_is_no_text_or_stands_twice_is_another_device() -> None:
    twin = request(1)
    twin.resource_spans[0].resource.attributes.add(key=b"device.id").value.string_value = b"cam-8"
    assert feed(twin, identity="cam-7")[0].mismatched == 1
    twin = request(1)
    twin.resource_spans[0].resource.attributes[0].value.int_value = 7
    assert feed(twin, identity="7")[0].mismatched == 1


def test_a_resource_without_a_device_id_belongs_to_its_sender() -> None:
    twin = request(1)
    del twin.resource_spans[0].resource.attributes[:]
    assert feed(twin, identity="cam-7")[0] == Receipt(accepted=1, rejected=0, reason="")


def test_a_resource_seen_before_is_checked_for_each_sender() -> None:
    open_batch = OpenBatch([b"model"])
    body = request(1).SerializeToString()
    receipts = [open_batch.add(payload(body, identity=each)) for each in ("cam-7", "cam-8", "")]
    assert [receipt.accepted for receipt in receipts] == [1, 0, 1]


def test_a_closed_batch_counts_the_rows_that_the_open_one_did() -> None:
    open_batch = OpenBatch([b"model"])
    open_batch.add(payload(request(3).SerializeToString()))
    rows = open_batch.rows
    # The request, a resource with its attribute, a scope; a span, event and link with one each.
    assert open_batch.take(1).rows == rows == 4 + 3 * (3 + 3)
    assert open_batch.rows == 0
