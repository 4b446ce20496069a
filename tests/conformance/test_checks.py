"""A wrong answer is found, whichever way it is wrong: the matrix is as good as its checks."""

import json
from dataclasses import replace
from typing import Any, Final

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from tests.conformance.checks import check_grpc, check_http
from tests.conformance.grpc_driver import DETAILS_KEY, RETRY_KEY, GrpcAnswer
from tests.conformance.http_driver import HttpAnswer
from tests.conformance.request import JSON, PROTOBUF, Request
from tests.conformance.signals import LOGS, MARK, METRICS, TRACES, Via
from tests.conformance.table import Row, parse_rows
from tests.conformance.test_table import HEAD

REQUEST: Final = Request(authorization="Bearer secret", unrepeated=("SPAN_KIND_SERVER",))
UNAVAILABLE: Final = grpc.StatusCode.UNAVAILABLE
INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT


def row_of(grpc_cell: str, http_cell: str, answer: str) -> Row:
    (row,) = parse_rows(
        f"{HEAD}| one | a | TML | gpj | default | x | {grpc_cell} | {http_cell} | {answer} | 0 |"
    )
    return row


EMPTY: Final = row_of("OK", "200", "empty")
PARTIAL: Final = row_of("OK", "200", 'partial 2 of 2 "trace id"')
BAD: Final = row_of("INVALID_ARGUMENT", "400", "Status + BadRequest")
BUSY: Final = row_of("UNAVAILABLE + RetryInfo", "503 + Retry-After", "Status")
METHOD: Final = row_of("UNIMPLEMENTED", "405 + Allow", "Status")


def status(code: int, *details: Any, message: str = "the body is wrong") -> Status:
    made = Status(code=code, message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        made.details.append(packed)
    return made


def retry(seconds: int, nanos: int = 0) -> RetryInfo:
    return RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos))


def bad_request() -> BadRequest:
    violation = BadRequest.FieldViolation(field="body", description="not whole")
    return BadRequest(field_violations=[violation])


def partial(count: int, message: str) -> Any:
    response = TRACES.response()
    response.partial_success.rejected_spans = count  # type: ignore[attr-defined]
    response.partial_success.error_message = message  # type: ignore[attr-defined]
    return response


def http(code: int, body: bytes, kind: str = PROTOBUF, **headers: str) -> HttpAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpAnswer(
        status=code,
        headers={"content-type": kind, **named},
        body=body,
        continued=False,
        closes=False,
    )


def http_status(code: int, made: Status, **headers: str) -> HttpAnswer:
    return http(code, made.SerializeToString(), **headers)


def json_status(code: int, made: Status, **headers: str) -> HttpAnswer:
    return http(code, json_format.MessageToJson(made).encode(), JSON, **headers)


def grpc_status(code: grpc.StatusCode, made: Status, *hints: RetryInfo) -> GrpcAnswer:
    trailers: list[tuple[str, str | bytes]] = [(DETAILS_KEY, made.SerializeToString())]
    trailers += [(RETRY_KEY, hint.SerializeToString()) for hint in hints]
    return GrpcAnswer(code=code, details=made.message, body=b"", trailers=trailers)


def told(*pairs: tuple[str, Any]) -> bytes:
    return json.dumps({"partialSuccess": dict(pairs)}).encode()


_REJECTED: Final = ("rejectedSpans", "2")
_WHY: Final = ("errorMessage", "trace_id is wrong")
_OK: Final = GrpcAnswer(code=grpc.StatusCode.OK, details="", body=b"", trailers=())


@pytest.mark.parametrize(
    ("row", "via", "answer"),
    [
        (EMPTY, Via.PROTOBUF, http(200, b"")),
        (EMPTY, Via.JSON, http(200, b"{ }", JSON)),
        (PARTIAL, Via.PROTOBUF, http(200, partial(2, "Trace-ID of 3").SerializeToString())),
        (PARTIAL, Via.JSON, http(200, told(_REJECTED, _WHY), JSON)),
        (BAD, Via.PROTOBUF, http_status(400, status(3, bad_request()))),
        (BAD, Via.PROTOBUF, http_status(400, status(0, bad_request()))),
        (BAD, Via.JSON, json_status(400, status(3, bad_request()))),
        (BUSY, Via.PROTOBUF, http_status(503, status(14, retry(1, 1)), retry_after="2")),
        (BUSY, Via.JSON, json_status(503, status(14, retry(3)), retry_after="3")),
        (METHOD, Via.PROTOBUF, http_status(405, status(12), allow="OPTIONS, POST")),
    ],
)
def test_right_answer_over_http_passes(row: Row, via: Via, answer: HttpAnswer) -> None:
    check_http(row, TRACES, via, REQUEST, answer)


@pytest.mark.parametrize(
    ("row", "via", "answer"),
    [
        (EMPTY, Via.PROTOBUF, http(202, b"")),
        (EMPTY, Via.PROTOBUF, http(200, b"", JSON)),
        (EMPTY, Via.PROTOBUF, http(200, b"", retry_after="1")),
        (EMPTY, Via.PROTOBUF, replace(http(200, b""), closes=True)),
        (EMPTY, Via.PROTOBUF, http(200, b"\x0a\x00")),
        (EMPTY, Via.PROTOBUF, http(200, partial(1, "trace id").SerializeToString())),
        (EMPTY, Via.JSON, http(200, b'{"partialSuccess": {}}', JSON)),
        (EMPTY, Via.JSON, http(200, b"", JSON)),
        (PARTIAL, Via.PROTOBUF, http(200, b"")),
        (PARTIAL, Via.PROTOBUF, http(200, partial(1, "trace id").SerializeToString())),
        (PARTIAL, Via.PROTOBUF, http(200, partial(2, "span id").SerializeToString())),
        (PARTIAL, Via.PROTOBUF, http(200, partial(2, "").SerializeToString())),
        (PARTIAL, Via.JSON, http(200, told(("rejectedSpans", 2), _WHY), JSON)),
        (PARTIAL, Via.JSON, http(200, told(("rejected_spans", "2"), _WHY), JSON)),
        (PARTIAL, Via.JSON, http(200, told(_REJECTED, _WHY, ("more", 1)), JSON)),
        (BAD, Via.PROTOBUF, http_status(422, status(3, bad_request()))),
        (BAD, Via.PROTOBUF, http_status(400, status(3))),
        (BAD, Via.PROTOBUF, http_status(400, status(13, bad_request()))),
        (BAD, Via.PROTOBUF, http_status(400, status(3, bad_request(), message=""))),
        (BAD, Via.PROTOBUF, http_status(400, status(3, bad_request(), retry(1)))),
        (BAD, Via.PROTOBUF, http_status(400, status(3, bad_request(), ErrorInfo(reason="x")))),
        (BAD, Via.PROTOBUF, http_status(400, status(3, BadRequest()))),
        (BAD, Via.PROTOBUF, http_status(400, status(3, bad_request()), retry_after="1")),
        (BAD, Via.PROTOBUF, http_status(400, status(3, bad_request(), message=MARK.upper()))),
        (BAD, Via.PROTOBUF, http_status(400, status(3, bad_request(), message="a secret"))),
        (BAD, Via.PROTOBUF, http_status(400, status(3, bad_request()), x_more="SPAN_KIND_SERVER")),
        (BAD, Via.PROTOBUF, replace(http_status(400, status(3, bad_request())), continued=True)),
        (BAD, Via.JSON, http_status(400, status(3, bad_request()))),
        (BAD, Via.JSON, json_status(400, status(3))),
        (BUSY, Via.PROTOBUF, http_status(503, status(14, retry(1)))),
        (BUSY, Via.PROTOBUF, http_status(503, status(14), retry_after="1")),
        (BUSY, Via.PROTOBUF, http_status(503, status(14, retry(1)), retry_after="0")),
        (BUSY, Via.PROTOBUF, http_status(503, status(14, retry(1)), retry_after="1.5")),
        (BUSY, Via.PROTOBUF, http_status(503, status(14, retry(2)), retry_after="1")),
        (BUSY, Via.PROTOBUF, http_status(503, status(14, retry(0, 5)), retry_after="1")),
        (METHOD, Via.PROTOBUF, http_status(405, status(12))),
        (METHOD, Via.PROTOBUF, http_status(405, status(12), allow="GET")),
    ],
)
def test_wrong_answer_over_http_is_found(row: Row, via: Via, answer: HttpAnswer) -> None:
    with pytest.raises(AssertionError):
        check_http(row, TRACES, via, REQUEST, answer)


@pytest.mark.parametrize("body", [b"not a status", b"\xf8\x07\x01"])
def test_body_that_is_no_status_is_found(body: bytes) -> None:
    with pytest.raises(AssertionError):
        check_http(BAD, TRACES, Via.PROTOBUF, REQUEST, http(400, body))


def test_plain_text_in_place_of_json_is_found() -> None:
    with pytest.raises(AssertionError):
        check_http(BAD, TRACES, Via.JSON, REQUEST, http(400, b"400: Bad Request", JSON))


def test_count_of_another_signal_is_found() -> None:
    answer = http(200, told(_REJECTED, _WHY), JSON)
    for signal in (METRICS, LOGS):
        with pytest.raises(AssertionError):
            check_http(PARTIAL, signal, Via.JSON, REQUEST, answer)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        (EMPTY, _OK),
        (PARTIAL, replace(_OK, body=partial(2, "trace id").SerializeToString())),
        (BAD, grpc_status(INVALID, status(3, bad_request()))),
        (BUSY, grpc_status(UNAVAILABLE, status(14, retry(1)), retry(1))),
        (METHOD, replace(_OK, code=grpc.StatusCode.UNIMPLEMENTED, details="Method not found!")),
    ],
)
def test_right_answer_over_grpc_passes(row: Row, answer: GrpcAnswer) -> None:
    check_grpc(row, TRACES, REQUEST, answer)


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        (EMPTY, replace(_OK, code=grpc.StatusCode.UNKNOWN)),
        (EMPTY, replace(_OK, body=b"\x0a\x00")),
        (EMPTY, replace(_OK, trailers=((RETRY_KEY, b""),))),
        (PARTIAL, _OK),
        (BAD, grpc_status(INVALID, status(3))),
        (BAD, grpc_status(INVALID, status(13, bad_request()))),
        (BAD, grpc_status(INVALID, status(3, bad_request()), retry(1))),
        (BAD, grpc_status(INVALID, status(3, bad_request(), message=f"near {MARK}"))),
        (BAD, replace(_OK, code=INVALID, details="wrong")),
        (BAD, replace(grpc_status(INVALID, status(3, bad_request())), details="other")),
        (BUSY, grpc_status(UNAVAILABLE, status(14, retry(1)))),
        (BUSY, grpc_status(UNAVAILABLE, status(14), retry(1))),
        (BUSY, grpc_status(UNAVAILABLE, status(14, retry(1)), retry(2))),
        (BUSY, grpc_status(UNAVAILABLE, status(14, retry(1)), retry(1), retry(1))),
        (BUSY, grpc_status(UNAVAILABLE, status(14, retry(0, 9)), retry(0, 9))),
        (METHOD, replace(_OK, code=grpc.StatusCode.UNIMPLEMENTED)),
    ],
)
def test_wrong_answer_over_grpc_is_found(row: Row, answer: GrpcAnswer) -> None:
    with pytest.raises(AssertionError):
        check_grpc(row, TRACES, REQUEST, answer)
