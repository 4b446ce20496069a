"""Screening refuses requests that are ambiguous or too large, and items that are illegal."""

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from gateway.batch import Signal
from gateway.errors import MalformedPayloadError, PayloadTooLargeError
from gateway.otlp.limits import DEFAULT_LIMITS, Limits
from gateway.otlp.schemas import REQUESTS, schema_of
from gateway.otlp.wire import Screened, screen

LOGS, METRICS = Signal.LOGS, Signal.METRICS
BAD = b"\xff"


def look(
    body: bytes, signal: Signal = LOGS, limits: Limits = DEFAULT_LIMITS, device: bytes = b""
) -> Screened:
    return screen(schema_of(signal), body, limits=limits, device=device)


def field(number: int, content: bytes, *, spare: int = 0) -> bytes:
    """Write a field with a length; `spare` makes its varint longer than needed."""
    size = len(content)
    assert size < 128
    length = bytes((size | 0x80,)) + b"\x80" * (spare - 1) + b"\0" if spare else bytes((size,))
    return bytes((number << 3 | 2,)) + length + content


def record(content: bytes) -> bytes:
    """Wrap the content of a log record as a request."""
    return field(1, field(2, field(2, content)))


def logs(count: int, bad: set[int]) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    scope.scope.name = "s" * 300
    for number in range(count):
        log = scope.log_records.add(time_unix_nano=number + 1, severity_text="INFO")
        log.body.string_value = f"line {number}"
        log.trace_id = b"t" * (5 if number in bad else 16)
        log.span_id = b"s" * 8
    return request


# --- items ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 9, 40])
def test_exactly_the_bad_items_go(count: int) -> None:
    for bad in [set(), {0}, {count - 1}, set(range(0, count, 3)), set(range(count))]:
        request = logs(count, bad)
        body = request.SerializeToString()
        found = look(body)
        assert (found.accepted, found.rejected) == (count - len(bad), len(bad))
        left = ExportLogsServiceRequest.FromString(found.body).resource_logs[0].scope_logs[0]
        records = request.resource_logs[0].scope_logs[0].log_records
        assert [r.SerializeToString() for r in left.log_records] == [
            r.SerializeToString() for number, r in enumerate(records) if number not in bad
        ]
        assert left.scope.name == "s" * 300
        assert (found.body is body) == (not bad)
        assert found.reason == ("trace_id is neither empty nor 16 bytes" if bad else "")


def test_unknown_fields_and_long_lengths_survive_a_rewrite() -> None:
    unknown = field(15, b"later")
    good = field(2, unknown + field(3, b"WARN"), spare=1)
    bad = field(2, field(9, b"short"))
    scope = field(2, unknown + good + bad + unknown, spare=2)
    found = look(field(1, scope + unknown) + unknown)
    scope = field(2, unknown + good + unknown)
    assert found.body == field(1, scope + unknown) + unknown
    assert found[1:4] == (1, 1, "trace_id is neither empty nor 16 bytes")


@pytest.mark.parametrize("kind", ["gauge", "sum", "histogram", "exponential_histogram", "summary"])
def test_data_points_are_the_items_of_metrics(kind: str) -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    points = getattr(metric, kind).data_points
    for number in range(5):
        point = points.add(time_unix_nano=number)
        point.attributes.add(key=f"k{number}").value.int_value = 1
    body = request.SerializeToString()
    assert look(body, METRICS) == Screened(body, 5, 0, "")
    found = look(body.replace(b"k2", b"k" + BAD).replace(b"k4", b"k" + BAD), METRICS)
    assert found[1:4] == (3, 2, "a text field is not valid UTF-8")
    (left,) = ExportMetricsServiceRequest.FromString(found.body).resource_metrics
    points = getattr(left.scope_metrics[0].metrics[0], kind).data_points
    assert [p.time_unix_nano for p in points] == [0, 1, 3]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("trace_id", b"t" * 15, "exemplar trace_id is neither empty nor 16 bytes"),
        ("span_id", b"s" * 9, "exemplar span_id is neither empty nor 8 bytes"),
        ("trace_id", bytes(16), ""),
        ("span_id", b"", ""),
    ],
)
def test_exemplar_with_a_bad_id_refuses_its_point(name: str, value: bytes, reason: str) -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add()
    point = metric.gauge.data_points.add()
    setattr(point.exemplars.add(), name, value)
    metric.gauge.data_points.add()
    found = look(request.SerializeToString(), METRICS)
    assert found[1:4] == ((1, 1, reason) if reason else (2, 0, ""))


@pytest.mark.parametrize(
    ("ids", "accepted"),
    [
        (b"", 1),
        (field(9, b"") + field(10, b""), 1),
        (field(9, bytes(16)) + field(10, bytes(8)), 1),
        (field(9, b"t" * 17), 0),
        (field(10, b"s" * 7), 0),
        (field(9, b"bad") + field(9, b"t" * 16), 1),  # the last one counts, as in protobuf
        (field(9, b"t" * 16) + field(9, b"bad"), 0),
    ],
)
def test_ids_of_a_log_record(ids: bytes, accepted: int) -> None:
    assert look(record(ids)).accepted == accepted


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (field(1, b"t" * 16) + field(2, b"s" * 8), ""),
        (field(1, b"t" * 16) + field(2, b"s" * 8) + field(4, b"p" * 8), ""),
        (field(2, b"s" * 8), "trace_id is not 16 bytes or all zero"),
        (field(1, bytes(16)) + field(2, b"s" * 8), "trace_id is not 16 bytes or all zero"),
        (field(1, b"t" * 16) + field(2, bytes(8)), "span_id is not 8 bytes or all zero"),
        (field(1, b"t" * 16), "span_id is not 8 bytes or all zero"),
        (
            field(1, b"t" * 16) + field(2, b"s" * 8) + field(4, b"p"),
            "parent_span_id is neither empty nor 8 bytes",
        ),
    ],
)
def test_ids_of_a_span(ids: bytes, reason: str) -> None:
    assert look(record(ids), Signal.TRACES)[1:4] == (not reason, bool(reason), reason)


def test_reason_is_that_of_the_first_item_refused() -> None:
    span, trace = field(2, field(10, b"s")), field(2, field(9, b"t"))
    assert look(field(1, field(2, span + trace))).reason.startswith("span_id")
    assert look(field(1, field(2, field(2, b"") + trace + span))).reason.startswith("trace_id")
    # The reason of an item is that of what takes all items around it away, if there is such.
    scope = field(2, trace + field(1, field(1, BAD)))
    assert look(field(1, scope)).reason.startswith("text of the resource")
    later = look(field(1, field(2, span)) + field(1, scope))
    assert (later.rejected, later.reason[:7]) == (2, "span_id")


# --- what stands around items ---------------------------------------------------------------


def test_bad_text_around_items_takes_them_away() -> None:
    item = field(2, b"")
    good = field(1, field(2, item))
    for around in (
        field(2, item + item) + field(1, field(1, field(1, BAD))),  # a key of the resource, last
        field(1, field(3, field(1, BAD))) + field(2, item + item),  # schema_url of an entity
        field(2, item + item) + field(3, BAD),  # schema_url of the resource
        field(2, item + field(1, field(2, BAD)) + item),  # version of the scope
        field(2, item + field(3, BAD) + item),  # schema_url of the scope
    ):
        found = look(good + field(1, around) + good)
        assert found[1:4] == (2, 2, "text of the resource, scope or metric is not valid UTF-8")
        assert len(ExportLogsServiceRequest.FromString(found.body).resource_logs) in (2, 3)


@pytest.mark.parametrize("name", ["name", "unit", "description", "metadata"])
def test_bad_text_of_a_metric_takes_its_points_away(name: str) -> None:
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    bad = scope.metrics.add()
    if name == "metadata":
        bad.metadata.add(key="\x7fmark")
    else:
        setattr(bad, name, "\x7fmark")
    bad.gauge.data_points.add()
    bad.gauge.data_points.add()
    scope.metrics.add(name="good").sum.data_points.add()
    found = look(request.SerializeToString().replace(b"\x7fmark", BAD + b"mark"), METRICS)
    assert found[1:3] == (1, 2)
    (left,) = ExportMetricsServiceRequest.FromString(found.body).resource_metrics
    assert [metric.name for metric in left.scope_metrics[0].metrics] == ["good"]


def test_bad_text_around_no_items_goes_uncounted() -> None:
    good = field(1, field(2, field(2, b"")))
    found = look(good + field(1, field(3, BAD)))
    assert found == Screened(good, 1, 0, "")


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (AnyValue(string_value="edge-1"), 1),
        (AnyValue(string_value="edge-2"), 0),
        (AnyValue(string_value=""), 0),
        (AnyValue(string_value="edge-1 "), 0),
        (AnyValue(int_value=7), 0),
        (AnyValue(), 0),
        (None, 1),
    ],
)
def test_resource_of_another_device_goes(value: AnyValue | None, accepted: int) -> None:
    request = ExportLogsServiceRequest()
    ours = request.resource_logs.add()
    ours.scope_logs.add().log_records.add()
    ours.resource.attributes.add(key="host").value.string_value = "edge-2"
    theirs = request.resource_logs.add()
    theirs.scope_logs.add().log_records.add()
    if value is not None:
        theirs.resource.attributes.add(key="device.id").value.CopyFrom(value)
    body = request.SerializeToString()
    found = look(body, device=b"edge-1")
    assert (found.accepted, found.rejected) == (1 + accepted, 1 - accepted)
    reason = "device.id is not the identity of the sender"
    assert found.reason == ("" if accepted else reason)
    assert found.mismatched == found.rejected
    assert look(body) == Screened(body, 2, 0, "")


def test_last_key_of_a_pair_decides_whether_it_names_a_device() -> None:
    value = field(2, field(1, b"edge-2"))
    items = field(2, field(2, b""))
    named = field(1, b"other") + value + field(1, b"device.id")
    unnamed = field(1, b"device.id") + value + field(1, b"other")
    for pair, rejected in ((named, 1), (unnamed, 0)):
        body = field(1, items + field(1, field(1, pair)))
        assert look(body, device=b"edge-1").rejected == rejected


# --- whole requests -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x0b", "groups are not part of OTLP"),
        (b"\x7c", "groups are not part of OTLP"),
        (b"\x00\x00", "a tag has field number 0"),
        (b"\x07", "a tag has field number 0 or an unknown wire type"),
        (b"\x38" + b"\xff" * 10 + b"\x01", "a varint is longer than 10 bytes"),
        (b"\x38", "a field reaches past the end of its message"),
        (b"\x09\x00", "a field reaches past the end of its message"),
        (b"\x45\x00", "a field reaches past the end of its message"),
        (b"\x1a\x05abcd", "a field reaches past the end of its message"),
        (b"\x7a\x05abcd", "a field reaches past the end of its message"),
        (b"\x2a\x00\x2a\x00", "a message that may occur once is repeated"),
        (b"\x2a\x04\x10\x01\x18\x01", "two members of one oneof are present"),
        (b"\x2a\x02\x40\x01", "dictionary indexes belong to profiles, not to this signal"),
        (b"\x32\x02\x18\x01", "dictionary indexes belong to profiles, not to this signal"),
    ],
)
def test_ambiguous_or_broken_request_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(MalformedPayloadError) as caught:
        look(record(content))
    assert str(caught.value).startswith(message)
    assert 0 < caught.value.offset <= len(record(content))


def test_scalar_member_of_a_oneof_may_be_repeated() -> None:
    assert look(record(b"\x2a\x04\x18\x01\x18\x02")).accepted == 1


def test_unknown_fields_and_other_wire_types_are_skipped() -> None:
    # time as varint, severity text as fixed64, an unknown number, a number above the table
    content = b"\x08\x01" + b"\x19" + b"x" * 8 + field(15, BAD) + b"\x82\x10\x01\xff"
    body = record(content)
    assert look(body) == Screened(body, 1, 0, "")


def nested(levels: int) -> bytes:
    value = AnyValue(int_value=1)
    for _ in range(levels - 1):
        outer = AnyValue()
        outer.array_value.values.add().CopyFrom(value)
        value = outer
    request = ExportLogsServiceRequest()
    log = request.resource_logs.add().scope_logs.add().log_records.add()
    log.body.CopyFrom(value)
    return request.SerializeToString()


def test_values_nest_as_deep_as_the_limit() -> None:
    assert look(nested(16)).accepted == 1
    with pytest.raises(MalformedPayloadError, match="attribute values are nested too deeply"):
        look(nested(17))


def test_texts_are_limited() -> None:
    limits = replace(DEFAULT_LIMITS, text_bytes_max=6)
    for content in (field(3, b"1234567"), field(5, field(7, b"1234567")), field(9, b"x" * 7)):
        found = look(record(content) + record(field(3, b"1")), limits=limits)
        assert (found.accepted, found.rejected) == (1, 1)
        assert found.reason == "a text or bytes value is above the limit"
        assert look(found.body, limits=limits).body is found.body
    assert look(record(field(3, b"123456")), limits=limits).accepted == 1


def test_items_are_limited() -> None:
    body = logs(5, set()).SerializeToString()
    assert look(body, limits=replace(DEFAULT_LIMITS, spans_max=5)).accepted == 5
    with pytest.raises(PayloadTooLargeError, match=r"more items than the limit \(4\)"):
        look(body, limits=replace(DEFAULT_LIMITS, spans_max=4))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bucket_counts", [1] * 20),  # fixed64, packed
        ("explicit_bounds", [0.5] * 20),  # double, packed
        ("attributes", [{}] * 20),
        ("exemplars", [{}] * 20),
    ],
)
def test_repeated_values_are_limited(name: str, values: list[Any]) -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add()
    point = metric.histogram.data_points.add()
    for value in values:
        getattr(point, name).add() if value == {} else getattr(point, name).append(value)
    around = 3  # resource, scope and metric are repeated as well
    body = request.SerializeToString()
    assert look(body, METRICS, replace(DEFAULT_LIMITS, items_max=20 + around)).accepted == 1
    with pytest.raises(PayloadTooLargeError, match=r"repeated values than the limit \(22\)"):
        look(body, METRICS, replace(DEFAULT_LIMITS, items_max=19 + around))


def buckets(content: bytes) -> bytes:
    """Wrap the positive buckets of an exponential histogram as a request."""
    return field(1, field(2, field(2, field(10, field(1, field(8, content))))))


def test_packed_varints_are_counted_and_checked() -> None:
    packed, single = field(2, b"\x01\x80\x01\x03"), b"\x10\x05"
    limits = replace(DEFAULT_LIMITS, items_max=3 + 4)
    assert look(buckets(packed + single), METRICS, limits).accepted == 1
    with pytest.raises(PayloadTooLargeError):
        look(buckets(packed + single + single), METRICS, limits)
    with pytest.raises(MalformedPayloadError, match="reaches past the end"):
        look(buckets(field(2, b"\x01\x80")), METRICS)


def test_packed_numbers_of_a_broken_size_are_refused() -> None:
    point = field(6, b"1234567")
    body = field(1, field(2, field(2, field(9, field(1, point)))))
    with pytest.raises(MalformedPayloadError, match="reaches past the end"):
        look(body, METRICS)


@pytest.mark.parametrize("signal", Signal)
def test_empty_request_is_taken(signal: Signal) -> None:
    assert look(b"", signal) == Screened(b"", 0, 0, "")
    assert REQUESTS[signal].FromString(b"") is not None
