"""Objects of OTLP/JSON become messages, and what breaks the rules names its place."""

import subprocess
import sys
from dataclasses import replace

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from gateway.batch import Signal
from gateway.errors import PayloadTooLargeError
from gateway.otlp.limits import DEFAULT_LIMITS
from gateway.otlp.schemas import schema_of
from gateway.otlp.wire import LEVELS_MAX, screen
from tests.process import ROOT
from tests.unit.otlp.transcoding import IN_LOG, LOG, log_of, point_of, refusal, turn

TWO_MEMBERS = "two members of one oneof are present"
PROFILES_ONLY = "dictionary indexes belong to profiles, not to this signal"


# --- objects --------------------------------------------------------------------------------


def test_unknown_keys_are_skipped_and_counted_once() -> None:
    unknown = b'"trace_id":"zz","x":{"a":[1,{"b":null}],"c":[]},"":-1.5e3,"TraceId":true'
    body, ignored = turn(LOG % (unknown + b',"eventName":"e","event\\u004eame2":false'))
    assert ignored == 5
    assert turn(LOG % b'"eventName":"e"') == (body, 0)


def test_key_may_be_written_with_escapes() -> None:
    assert log_of(rb'"event\u004eame":"e"').event_name == "e"


def test_null_is_absent() -> None:
    body, ignored = turn(
        b'{"resourceLogs":[{"resource":null,"scopeLogs":[{"logRecords":[{"body":'
        b'{"stringValue":null,"intValue":"1"},"traceId":null,"attributes":null}]}]}]}'
    )
    assert ignored == 0
    log = ExportLogsServiceRequest.FromString(body).resource_logs[0].scope_logs[0].log_records[0]
    assert log.body.int_value == 1
    assert not log.attributes
    assert turn(b'{"resourceLogs":null}') == (b"", 0)


def test_presence_is_kept() -> None:
    assert log_of(b'"timeUnixNano":0,"eventName":"","flags":0').ListFields() == []
    assert log_of(b'"body":{}').HasField("body")
    for member in (b'"stringValue":""', b'"boolValue":false', b'"intValue":0', b'"doubleValue":0'):
        assert log_of(b'"body":{%s}' % member).body.WhichOneof("value") is not None
    point = point_of(b'"sum":0,"count":0,"bucketCounts":[],"explicitBounds":[0]', b"histogram")
    assert [field.name for field, _ in point.ListFields()] == ["sum", "explicit_bounds"]


@pytest.mark.parametrize(
    ("members", "found"),
    [
        (b'"body":{"intValue":1,"stringValue":""}', f".body.stringValue: {TWO_MEMBERS}"),
        (b'"flags":1,"flags":1', ".flags: a key occurs twice in one object"),
        (b'"flags":null,"fl\\u0061gs":1', ".flags: a key occurs twice in one object"),
        (b'"body":[]', ".body: an object is expected"),
        (b'"attributes":{}', ".attributes: an array is expected"),
        (b'"attributes":[{},null]', ".attributes[1]: null stands in an array"),
        (b'"attributes":[{},1]', ".attributes[1]: an object is expected"),
        (b'"attributes":[{},]', ".attributes[1]: an object is expected"),
        (b'"eventName":1', ".eventName: a string is expected"),
        (b'"body":{"boolValue":1}', ".body.boolValue: true or false is expected"),
        (b'"body":{"boolValue":"true"}', ".body.boolValue: true or false is expected"),
        (b'"body":{"stringValueStrindex":1}', f".body.stringValueStrindex: {PROFILES_ONLY}"),
        (b'"attributes":[{"keyStrindex":1}]', f".attributes[0].keyStrindex: {PROFILES_ONLY}"),
    ],
)  # fmt: skip
def test_wrong_value_names_its_place(members: bytes, found: str) -> None:
    assert refusal(LOG % members) == IN_LOG + found


@pytest.mark.parametrize(
    "text",
    [
        *(b'{"a" | {"a": | {"a":1 | {"a":1, | {"a":1,} | {"a" 1} | {a:1} | {,} | {'.split(b" | ")),
        *(b'{"a":[1,]} | {"a":[1 2]} | {"a":[,]} | {"a":tru} | {"a":nul | {"a":"x'.split(b" | ")),
        *(b"{'a':1} | {\"a\":+1} | {\"a\":.5} | {\"a\":1] | {\"a\":[1}".split(b" | ")),
        *(b'{"a":"\\', b'{"a":/**/1}', b'{"a":1\x0b}', b'{"a":1;}'),
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused(text: bytes) -> None:
    assert refusal(text) == "the body is not valid JSON"


@pytest.mark.parametrize(
    "text", [b"", b" ", b"[]", b"1", b'"{}"', b"null", b"\xef\xbb\xbf{}", b"\0{}"]
)
def test_top_has_to_be_an_object(text: bytes) -> None:
    assert refusal(text) == "the body is not a JSON object"


@pytest.mark.parametrize("rest", [b"{}", b"x", b"\0", b",", b"}"])
def test_nothing_may_follow(rest: bytes) -> None:
    assert refusal(b" {} \r\n\t" + rest) == "bytes follow the JSON object"
    assert turn(b" {} \r\n\t") == (b"", 0)


# --- limits ---------------------------------------------------------------------------------


def test_json_nests_as_deep_as_the_limit() -> None:
    depth = LEVELS_MAX - 1
    assert turn(b'{"x":%s1%s}' % (b"[" * depth, b"]" * depth))[1] == 1
    for bracket in (b"[", b'{"a":'):
        found = refusal(b'{"x":%s' % (bracket * 1_000_000))
        assert found == "JSON is nested too deeply"


def test_values_nest_as_deep_as_the_limit() -> None:
    def nested(levels: int) -> bytes:
        inner = b'{"intValue":1}'
        for _ in range(levels - 1):
            inner = b'{"arrayValue":{"values":[%s]}}' % inner
        return LOG % b'"body":%s' % inner

    assert turn(nested(16))[1] == 0
    assert "attribute values are nested too deeply" in refusal(nested(17))


def test_items_and_values_are_limited() -> None:
    few = replace(DEFAULT_LIMITS, spans_max=2, items_max=4)
    records = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%s]}]}]}'
    assert turn(records % b"{},{}", limits=few)[1] == 0
    with pytest.raises(PayloadTooLargeError, match=r"more items than the limit \(2\)"):
        turn(records % b"{},{},{}", limits=few)
    assert turn(LOG % b'"attributes":[{},{}]', limits=few)[1] == 0
    with pytest.raises(PayloadTooLargeError, match=r"repeated values than the limit \(4\)"):
        turn(LOG % b'"attributes":[{},{},{}]', limits=few)


def test_long_text_is_left_to_screening() -> None:
    few = replace(DEFAULT_LIMITS, text_bytes_max=3)
    body, _ = turn(LOG % b'"eventName":"abcd"', limits=few)
    found = screen(schema_of(Signal.LOGS), body, limits=few)
    assert found[1:4] == (0, 1, "a text or bytes value is above the limit")


GROWTH = """
import resource, sys
from dataclasses import replace
from gateway.batch import Signal
from gateway.errors import PayloadTooLargeError
from gateway.otlp.limits import DEFAULT_LIMITS
from gateway.otlp.schemas import schema_of
from gateway.otlp.wire import screen, transcode
schema = schema_of(Signal[sys.argv[1]])
head, unit, tail, size = (each.encode() for each in sys.argv[2:6])
text = head + (unit + b",") * (int(size) // (len(unit) + 1)) + unit + tail
limits = DEFAULT_LIMITS
if sys.argv[6] == "open":
    limits = replace(limits, spans_max=1 << 40, items_max=1 << 40)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    body, _ = transcode(schema, text, limits=limits)
    screen(schema, body, limits=limits)
except PayloadTooLargeError:
    assert sys.argv[6] == "closed"
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / len(text))
"""


@pytest.mark.parametrize(
    ("signal", "head", "unit", "tail"),
    [
        ("LOGS", '{"resourceLogs":[', "{}", "]}"),
        ("LOGS", '{"resourceLogs":[{"scopeLogs":[{"logRecords":[', "{}", "]}]}]}"),
        ("METRICS", '{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{'
            '"bucketCounts":[', "0", "]}]}}]}]}]}"),
        ("TRACES", '{"x":[', "[{}]", "]}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("limits", ["closed", "open"])
def test_memory_stays_a_small_multiple_of_the_text(
    signal: str, head: str, unit: str, tail: str, limits: str
) -> None:
    command = [sys.executable, "-c", GROWTH, signal, head, unit, tail, "20971520", limits]
    if signal == "TRACES":
        command[-1] = "open"  # what is skipped takes no room whatever the limits
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    # Open: output of 7 bytes with 4 for the place of its length, growth by half, and the result.
    assert float(run.stdout) < (2 if limits == "closed" or signal == "TRACES" else 14)
