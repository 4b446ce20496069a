"""Answers to clients, read back with the official classes."""

import json

import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from gateway.batch import Receipt, Signal
from gateway.errors import (
    ANSWERS,
    JournalUnavailableError,
    MalformedPayloadError,
    OverloadedError,
    PayloadTooLargeError,
    QuotaExceededError,
    UnauthenticatedError,
    WeirError,
    answer_of,
)
from gateway.otlp import reply


def test_full_success_is_the_empty_message_with_partial_success_unset() -> None:
    encoded = reply.export_reply(Signal.TRACES, Receipt(accepted=9, rejected=0, reason=""))
    assert encoded == reply.EMPTY_SUCCESS == b""
    assert not ExportTraceServiceResponse.FromString(encoded).HasField("partial_success")


def test_rejected_items_become_a_partial_success() -> None:
    encoded = reply.export_reply(
        Signal.TRACES, Receipt(accepted=7, rejected=2, reason="trace_id is all zero")
    )
    partial = ExportTraceServiceResponse.FromString(encoded).partial_success
    assert (partial.rejected_spans, partial.error_message) == (2, "trace_id is all zero")


def test_a_warning_on_full_acceptance_rejects_nothing_and_says_something() -> None:
    encoded = reply.export_reply(
        Signal.TRACES, Receipt(accepted=7, rejected=0, reason="clock is off")
    )
    partial = ExportTraceServiceResponse.FromString(encoded).partial_success
    assert (partial.rejected_spans, partial.error_message) == (0, "clock is off")


@pytest.mark.parametrize("kind", [OverloadedError, QuotaExceededError, JournalUnavailableError])
def test_what_may_be_sent_again_carries_retry_info(kind: type[OverloadedError]) -> None:
    error = kind("come back", 2.5)
    delay_s = reply.retry_delay_s(error)
    assert delay_s == 2.5
    status = status_pb2.Status.FromString(reply.status(error, delay_s))
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 2.5
    assert error_details_pb2.RetryInfo.FromString(reply.retry_info(2.5)) == retry


@pytest.mark.parametrize("error", [PayloadTooLargeError("big"), UnauthenticatedError("who")])
def test_what_must_not_be_sent_again_carries_no_retry_info(error: WeirError) -> None:
    assert reply.retry_delay_s(error) is None
    status = status_pb2.Status.FromString(reply.status(error, None))
    assert not status.details


def test_an_error_outside_the_table_may_be_sent_again() -> None:
    assert reply.retry_delay_s(WeirError("surprise")) == 1.0


def test_a_malformed_body_names_the_field_and_the_place() -> None:
    status = status_pb2.Status.FromString(
        reply.status(MalformedPayloadError("truncated varint", 17), None)
    )
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    assert bad.field_violations[0].field == "body"
    assert bad.field_violations[0].description == "truncated varint at byte 17"


def test_every_error_of_the_table_keeps_its_code() -> None:
    for kind in ANSWERS:
        if kind.__name__ == "WeirError":
            continue
        error = kind("text")
        status = status_pb2.Status.FromString(reply.status(error, None))
        assert (status.code, status.message) == (answer_of(error).grpc_code, "text")


def test_json_says_the_same_as_protobuf() -> None:
    body = json.loads(reply.status_json(OverloadedError("full", 2.0), 2.0))
    assert body == {
        "code": 14,
        "message": "full",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"}],
    }


def test_a_message_is_cut_to_what_a_trailer_may_carry() -> None:
    encoded = reply.status(PayloadTooLargeError("x" * 100_000), None)
    assert len(status_pb2.Status.FromString(encoded).message) == reply.MESSAGE_CHARACTERS_MAX


def test_json_answers_follow_the_json_mapping() -> None:
    assert reply.export_reply_json(Signal.LOGS, Receipt(accepted=1, rejected=0, reason="")) == b"{}"
    receipt = Receipt(accepted=7, rejected=2, reason="trace_id is 3 bytes")
    for signal, field in (
        (Signal.TRACES, "rejectedSpans"),
        (Signal.METRICS, "rejectedDataPoints"),
        (Signal.LOGS, "rejectedLogRecords"),
    ):
        answer = json.loads(reply.export_reply_json(signal, receipt))
        assert answer == {"partialSuccess": {field: "2", "errorMessage": "trace_id is 3 bytes"}}
