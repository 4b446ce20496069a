"""Values of OTLP/JSON: ids, bytes, numbers and text become what the specification says they are."""

import math

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.batch import Signal
from gateway.otlp.limits import DEFAULT_LIMITS
from gateway.otlp.schemas import schema_of
from gateway.otlp.wire import screen
from tests.unit.otlp.transcoding import (
    IN_LOG,
    IN_SPAN,
    LOG,
    POINT,
    SPAN,
    log_of,
    point_of,
    refusal,
    turn,
)

# --- ids and other bytes --------------------------------------------------------------------


def test_ids_are_hexadecimal_in_any_case() -> None:
    log = log_of(b'"traceId":"0123456789abcdefABCDEF0123456789","spanId":"00fF00Ff00fF00Ff"')
    assert log.trace_id.hex() == "0123456789abcdefabcdef0123456789"
    assert log.span_id.hex() == "00ff00ff00ff00ff"
    text = (
        SPAN % b'"parentSpanId":"aa00000000000001","links":[{"traceId":"0a","spanId":"\\u0030b"}]'
    )
    body, _ = turn(text, Signal.TRACES)
    span = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans[0]
    assert span.parent_span_id.hex() == "aa00000000000001"
    assert (span.links[0].trace_id, span.links[0].span_id) == (b"\x0a", b"\x0b")
    exemplar = point_of(b'"exemplars":[{"traceId":"%s","spanId":""}]' % (b"aB" * 16)).exemplars[0]
    assert (exemplar.trace_id, exemplar.span_id) == (b"\xab" * 16, b"")


@pytest.mark.parametrize("text", [b"abc", b"0g", b"0x12", b" 00", b"q83vEjRWeJCrze8SNFZ4kA=="])
def test_id_that_is_not_hexadecimal_names_its_place(text: bytes) -> None:
    found = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{},{},{"traceId":"%s"}]}]}]}' % text
    place = "resourceSpans[0].scopeSpans[0].spans[2].traceId"
    assert refusal(found, Signal.TRACES) == f"{place}: an id is not hexadecimal"


def test_id_of_the_wrong_size_is_left_to_screening() -> None:
    records = b'{"traceId":"aabb"},{"traceId":"%s"}' % (b"aa" * 16)
    body, _ = turn(b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%s]}]}]}' % records)
    found = screen(schema_of(Signal.LOGS), body, limits=DEFAULT_LIMITS)
    assert found[1:4] == (1, 1, "trace_id is neither empty nor 16 bytes")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"", b""),
        (b"AA==", b"\0"),
        (b"AA", b"\0"),
        (b"AAE", b"\0\1"),
        (b"+/+/", b"\xfb\xff\xbf"),
        (b"-_-_", b"\xfb\xff\xbf"),
        (b"-/+_", b"\xfb\xff\xbf"),
        (b"\\u0041A==", b"\0"),
    ],
)
def test_other_bytes_are_base64(text: bytes, value: bytes) -> None:
    found = log_of(b'"body":{"bytesValue":"%s"}' % text).body
    assert found.WhichOneof("value") == "bytes_value"
    assert found.bytes_value == value


@pytest.mark.parametrize(
    "text", [b"A", b"AAAAA", b"AA=", b"=", b"====", b"A===", b"A A=", b"\xc3\xa4A="]
)
def test_bytes_that_are_not_base64_are_refused(text: bytes) -> None:
    found = refusal(LOG % b'"body":{"bytesValue":"%s"}' % text)
    assert found == f"{IN_LOG}.body.bytesValue: bytes are not base64"


# --- numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"0", 0),
        (b"-0", 0),
        (b"7", 7),
        (b'"7"', 7),
        (b"1.0", 1),
        (b"1e3", 1000),
        (b'"1e3"', 1000),
        (b"12.50e1", 125),
        (b"0.00001e5", 1),
        (b"100e-2", 1),
        (b"0e99999999999999999999", 0),
        (b"-9223372036854775808", -(2**63)),
        (b'"9223372036854775807"', 2**63 - 1),
        (b"9223372036854775807.000", 2**63 - 1),
        (b"0.9223372036854775807E+19", 2**63 - 1),
        (b"1" + b"0" * 4000 + b"e-4000", 1),
    ],
)
def test_integers_of_64_bits_are_exact(text: bytes, value: int) -> None:
    found = log_of(b'"body":{"intValue":%s}' % text).body
    assert (found.WhichOneof("value"), found.int_value) == ("int_value", value)


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("timeUnixNano", 0, 2**64 - 1),
        ("severityNumber", -(2**31), 2**31 - 1),
        ("flags", 0, 2**32 - 1),
        ("droppedAttributesCount", 0, 2**32 - 1),
    ],
)
def test_integers_keep_to_their_range(field: str, low: int, high: int) -> None:
    for value in (low, high):
        log = log_of(b'"%s":%d' % (field.encode(), value))
        assert sum(number for _, number in log.ListFields()) == value
    for value in (low - 1, high + 1, 10**30):
        found = refusal(LOG % b'"%s":%d' % (field.encode(), value))
        assert found == f"{IN_LOG}.{field}: a number is out of range"


def test_signed_numbers_of_metrics_are_written_in_their_own_ways() -> None:
    assert point_of(b'"asInt":"-5"').as_int == -5
    text = POINT % (b"exponentialHistogram", b'"scale":-3,"positive":{"offset":-2147483648}')
    body, _ = turn(text, Signal.METRICS)
    metric = ExportMetricsServiceRequest.FromString(body).resource_metrics[0].scope_metrics[0]
    point = metric.metrics[0].exponential_histogram.data_points[0]
    assert (point.scale, point.positive.offset) == (-3, -(2**31))


@pytest.mark.parametrize(
    "text", [b"1.5", b"1e-1", b'"x"', b'""', b'" 1"', b'"+1"', b'"0x10"', b"true", b"[]"]
)
def test_what_is_no_integer_is_refused(text: bytes) -> None:
    found = refusal(LOG % b'"timeUnixNano":%s' % text)
    assert found == f"{IN_LOG}.timeUnixNano: an integer is expected"


def test_names_of_enums_are_refused() -> None:
    found = refusal(SPAN % b'"kind":"SPAN_KIND_SERVER"', Signal.TRACES)
    assert found == f"{IN_SPAN}.kind: an enum is written as its integer, not as its name"
    assert log_of(b'"severityNumber":9').severity_number == 9
    assert log_of(b'"severityNumber":77').severity_number == 77


@pytest.mark.parametrize(
    "text",
    [
        *("0", "-0.0", "1", "0.1", "1e22", "1e23", "8.5e-22", "123456789012345678", "5e-324"),
        *(
            "9007199254740993",
            "9007199254740992",
            "1.7976931348623157e308",
            "2.2250738585072011e-308",
        ),
        *(
            "2.4703282292062327e-324",
            "2.4703282292062328e-324",
            "1e-400",
            "8.442911973260991817e-301",
        ),
        "1.00000000000000011102230246251565404236316680908203125",
        "1.00000000000000011102230246251565404236316680908203124",
        "1.00000000000000011102230246251565404236316680908203126" + "0" * 3000 + "1",
        "0." + "0" * 400 + "123e400",
    ],
)
def test_doubles_are_rounded_correctly(text: str) -> None:
    for written in (text, f'"{text}"', f"-{text}" if text[0] != "-" else text):
        found = point_of(b'"asDouble":%s' % written.encode()).as_double
        expected = float(written.strip('"'))
        assert (found, math.copysign(1, found)) == (expected, math.copysign(1, expected))


def test_doubles_have_three_names() -> None:
    assert math.isnan(point_of(b'"asDouble":"NaN"').as_double)
    assert point_of(b'"asDouble":"Infinity"').as_double == math.inf
    assert point_of(b'"asDouble":"-Infinity"').as_double == -math.inf


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'"nan"', "a number is expected"),
        (b'"+Infinity"', "a number is expected"),
        (b'"1.5 "', "a number is expected"),
        (b"NaN", "a number is expected"),
        (b"Infinity", "a number is expected"),
        (b"-Infinity", "the body is not valid JSON"),
        (b"1e400", "a number is out of range"),
        (b'"-1e400"', "a number is out of range"),
        (b"01", "the body is not valid JSON"),
        (b"1.", "the body is not valid JSON"),
        (b"-", "the body is not valid JSON"),
        (b"1e", "the body is not valid JSON"),
        (b"1" * 4097, "a number has too many digits"),
    ],
)
def test_what_is_no_double_is_refused(text: bytes, why: str) -> None:
    place = "resourceMetrics[0].scopeMetrics[0].metrics[0].gauge.dataPoints[0].asDouble"
    assert refusal(POINT % (b"gauge", b'"asDouble":%s' % text), Signal.METRICS) == f"{place}: {why}"


# --- text -----------------------------------------------------------------------------------


def test_escapes_are_undone() -> None:
    text = (
        rb'"body":{"stringValue":"\"\\\/\b\f\n\r\t\u0000\u00e4\u20AC\ud83d\ude00' + "ä€😀".encode()
    )
    assert log_of(text + b'"}').body.string_value == '"\\/\b\f\n\r\t\0ä€😀ä€😀'


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 126, 127, 128, 129, 16_383, 16_384, 70_000])
def test_text_of_any_size_is_kept(size: int) -> None:
    assert log_of(b'"severityText":"%s"' % (b"x" * size)).severity_text == "x" * size
    escaped = b"\\u0041" * size
    assert log_of(b'"severityText":"%s"' % escaped).severity_text == "A" * size


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (rb"\ud800", "a string holds half of a surrogate pair"),
        (rb"\udc00\ud800", "a string holds half of a surrogate pair"),
        (rb"\ud800\u0041", "a string holds half of a surrogate pair"),
        (rb"\ud800x\udc00", "a string holds half of a surrogate pair"),
        (rb"\x", "a string holds an invalid escape"),
        (rb"\u12g4", "a string holds an invalid escape"),
        (rb"\u12", "a string holds an invalid escape"),
        (b"\n", "a string holds a control character"),
        (b"12345678\x1f", "a string holds a control character"),
    ],
)
def test_bad_text_is_refused_where_it_is_read_and_where_it_is_skipped(
    text: bytes, why: str
) -> None:
    assert refusal(LOG % b'"eventName":"%s"' % text) == f"{IN_LOG}.eventName: {why}"
    assert refusal(LOG % b'"unknown":["%s"]' % text).endswith(why)
    assert refusal(LOG % b'"%s":1' % text).endswith(why)
    assert refusal(LOG % b'"%s%s":1' % (b"k" * 200, text)).endswith(why)


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]
)
def test_bytes_that_are_not_utf8_are_refused(text: bytes) -> None:
    assert refusal(LOG % b'"eventName":"%s"' % text) == "the body is not valid UTF-8"
