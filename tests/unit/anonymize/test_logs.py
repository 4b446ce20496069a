"""What leaves of a log record, field by field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from gateway.anonymize.declared import NOTHING_DECLARED
from gateway.anonymize.logs import SEVERITY_MAX, SEVERITY_TEXTS, clean_record
from gateway.contract.plan import Plan
from tests.oracle import VALUES
from tests.parcels import NOW_NS, add_record, attributes_of, leave, logs, make_plan, put, records_of

TRACE_ID = bytes(range(1, 17))
SPAN_ID = bytes(range(1, 9))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(tmp_path_factory.mktemp("plan"))


def cleaned(record: LogRecord) -> LogRecord:
    return clean_record(record, {}, NOTHING_DECLARED)


def test_structure_leaves_as_it_is(plan: Plan) -> None:
    request = logs()
    record = add_record(
        request,
        observed_time_unix_nano=NOW_NS + 1,
        severity_number=17,
        severity_text="ERROR",
        trace_id=TRACE_ID,
        span_id=SPAN_ID,
        flags=0xFF,
        event_name="edgeai.model.loaded",
    )
    put(put(record, "class", "torn"), "count", 42)
    assert records_of(leave(plan, request).message) == [record]


@given(body=VALUES)
def test_body_never_leaves(body: AnyValue) -> None:
    out = cleaned(LogRecord(time_unix_nano=1, body=body, dropped_attributes_count=3))
    assert out == LogRecord(time_unix_nano=1)


@pytest.mark.parametrize("flags", [0, 1, 0xFF, 0x100, 0xFFFFFFFF])
def test_only_trace_flags_leave(flags: int) -> None:
    assert cleaned(LogRecord(flags=flags)).flags == flags & 0xFF


@pytest.mark.parametrize("number", [-(2**31), -1, 0, 1, 24, 25, 2**31 - 1])
def test_severity_that_the_specification_does_not_name_becomes_zero(number: int) -> None:
    assert SEVERITY_MAX == 24
    record = LogRecord()
    record.severity_number = number  # type: ignore[assignment]  # an open enum takes any number
    assert cleaned(record).severity_number == (number if 0 <= number <= 24 else 0)


@pytest.mark.parametrize(
    ("text", "leaves"),
    [
        ("INFO", "INFO"),
        ("Warning", "WARNING"),
        ("fatal4", "FATAL4"),
        ("critical", "CRITICAL"),
        ("TRACE5", ""),
        ("INFO ", ""),
        ("INFO: patient 7", ""),
        ("INFORMATION", ""),
        ("", ""),
    ],
)
def test_severity_text_leaves_from_a_closed_set(text: str, leaves: str) -> None:
    assert cleaned(LogRecord(severity_text=text)).severity_text == leaves


@given(text=st.text(max_size=9) | st.sampled_from(sorted(SEVERITY_TEXTS)))
def test_no_other_severity_text_leaves(text: str) -> None:
    assert cleaned(LogRecord(severity_text=text)).severity_text in SEVERITY_TEXTS | {""}


@pytest.mark.parametrize(
    ("trace_id", "span_id", "leave_trace", "leave_span"),
    [
        (TRACE_ID, SPAN_ID, True, True),
        (TRACE_ID, b"", True, False),
        (TRACE_ID, bytes(8), True, False),
        (TRACE_ID, SPAN_ID[:7], True, False),
        (TRACE_ID, SPAN_ID + b"x", True, False),
        (bytes(16), SPAN_ID, False, False),
        (TRACE_ID[:15], SPAN_ID, False, False),
        (TRACE_ID + b"x", SPAN_ID, False, False),
        (b"", SPAN_ID, False, False),
    ],
)
def test_ids_of_another_size_or_of_zeros_are_left_out(
    trace_id: bytes, span_id: bytes, leave_trace: bool, leave_span: bool
) -> None:
    out = cleaned(LogRecord(trace_id=trace_id, span_id=span_id))
    assert out.trace_id == (trace_id if leave_trace else b"")
    assert out.span_id == (span_id if leave_span else b"")


@pytest.mark.parametrize(
    ("model", "name", "leaves"),
    [
        ("damage-net", "edgeai.model.loaded", "edgeai.model.loaded"),
        ("damage-net", "edgeai.model.loaded ", "other"),
        ("damage-net", "Edgeai.model.loaded", "other"),
        ("damage-net", "patient.died", "other"),
        ("damage-net", "", ""),
        ("triage-net", "edgeai.model.unloaded", "other"),
        ("unknown", "edgeai.model.loaded", "other"),
    ],
)
def test_event_name_leaves_from_the_list_of_its_contract(
    plan: Plan, model: str, name: str, leaves: str
) -> None:
    request = logs(model=model)
    add_record(request, event_name=name)
    (record,) = records_of(leave(plan, request).message)
    assert record.event_name == leaves


def test_record_without_a_contract_leaves_without_content(plan: Plan) -> None:
    request = logs(model="")
    record = add_record(request, severity_number=9, trace_id=TRACE_ID, span_id=SPAN_ID)
    put(put(record, "class", "torn"), "count", 42)
    left = leave(plan, request)
    (resource,) = left.resources
    (out,) = records_of(left.message)
    assert attributes_of(resource.resource) == attributes_of(out) == {}
    assert (out.time_unix_nano, out.severity_number, out.trace_id) == (NOW_NS, 9, TRACE_ID)
    assert left.withheld == {}
