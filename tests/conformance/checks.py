"""Hold an answer against its row.

Law: answers are read by the official classes alone. What the table does not promise must not be
there: no hint, no detail, no field beside those that the row names.
"""

import json
import math
import re
from typing import Any, Final

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from tests.conformance.grpc_driver import DETAILS_KEY, RETRY_KEY, GrpcAnswer
from tests.conformance.http_driver import HttpAnswer
from tests.conformance.request import JSON, PROTOBUF, Request, media_type
from tests.conformance.signals import MARK, Signal, Via
from tests.conformance.table import Row, status_map

DELAY_MIN_S: Final = 1.0
ALWAYS_TOLD: Final = ("Allow", "Accept-Encoding", "WWW-Authenticate", "Retry-After")


def check_http(row: Row, signal: Signal, via: Via, request: Request, answer: HttpAnswer) -> None:
    """Assert that an answer over HTTP is the one of its row."""
    shown = f"{row.case}: {answer}"
    assert answer.status == row.http_status, shown
    assert answer.headers.get("content-type") == _expected_type(request, via), shown
    told = {name for name in ALWAYS_TOLD if name.lower() in answer.headers}
    assert told == row.http_headers, shown
    if "Allow" in told:
        assert "POST" in re.split(r"\s*,\s*", answer.headers["allow"]), shown
    if "Accept-Encoding" in told:
        offered = set(re.split(r"\s*,\s*", answer.headers["accept-encoding"]))
        assert {"gzip", "zstd"} <= offered, shown
    if "WWW-Authenticate" in told:
        assert answer.headers["www-authenticate"].lower().startswith("bearer"), shown
    if answer.status == 200:
        # A server that was content has no reason to end the connection.
        assert not answer.closes, shown
    else:
        assert not answer.continued, f"the body was asked for and refused: {shown}"
    check_unrepeated(request, answer.everything())
    if row.answer.is_status:
        status = read_status(answer.body, answer.headers["content-type"])
        expected_code, _ = status_map()[answer.status]
        assert status.code in (0, expected_code), shown
        delay_s = check_status(row, status)
        if delay_s is not None:
            after = answer.headers["retry-after"]
            assert re.fullmatch(r"[1-9][0-9]*", after), shown
            assert int(after) == math.ceil(delay_s), shown
    elif answer.headers["content-type"] == JSON:
        check_json_response(row, signal, answer.body)
    else:
        check_response(row, signal, answer.body)


def check_grpc(row: Row, signal: Signal, request: Request, answer: GrpcAnswer) -> None:
    """Assert that an answer over gRPC is the one of its row."""
    shown = f"{row.case}: {answer}"
    assert row.grpc_code is not None, shown
    assert answer.code is row.grpc_code, shown
    check_unrepeated(request, answer.everything())
    details, retry = answer.trailer(DETAILS_KEY), answer.trailer(RETRY_KEY)
    if not row.answer.is_status:
        assert (details, retry) == (None, None), shown
        check_response(row, signal, answer.body)
        return
    assert answer.details, shown
    assert (retry is not None) == row.grpc_retries, shown
    if details is None:
        # gRPC itself answers what it does not hand on: a size, an unknown method.
        assert not row.grpc_retries, shown
        assert not row.answer.bad_request, shown
        check_words(row, answer.details)
        return
    status = strictly(Status, details)
    assert status.code == row.grpc_code.value[0], shown
    assert status.message == answer.details, shown
    delay_s = check_status(row, status)
    if retry is not None:
        assert seconds(strictly(RetryInfo, retry)) == delay_s, shown


def _expected_type(request: Request, via: Via) -> str:
    """Say what the answer's content type is: the request's own if it is served."""
    if not request.has_content_type:
        return PROTOBUF
    if request.content_type is None:
        return media_type(via)
    asked = request.content_type.partition(";")[0].strip().lower()
    return asked if asked in (PROTOBUF, JSON) else PROTOBUF


def check_unrepeated(request: Request, answer: bytes) -> None:
    """Assert that nothing of what was sent came back."""
    _, _, credential = (request.authorization or "").partition(" ")
    for text in (MARK, credential, *request.unrepeated):
        if text:
            assert text.lower().encode() not in answer.lower(), f"{text!r} in {answer!r}"


# --- status ----------------------------------------------------------------------------------


def strictly(kind: type[Message], data: bytes) -> Any:
    """Parse a message that has no unknown field."""
    try:
        parsed = kind.FromString(data)
    except DecodeError as error:
        raise AssertionError(f"no {kind.DESCRIPTOR.name}: {data!r}") from error
    again = kind.FromString(data)
    again.DiscardUnknownFields()
    assert parsed.SerializeToString() == again.SerializeToString(), f"unknown fields in {data!r}"
    return parsed


def read_status(body: bytes, content_type: str) -> Any:
    """Read the Status of an answer in its encoding."""
    if content_type != JSON:
        return strictly(Status, body)
    try:
        # The standard mapping, which names the type of each detail; unknown names are an error.
        return json_format.Parse(body, Status())
    except json_format.ParseError as error:
        raise AssertionError(f"no Status in JSON: {body!r}") from error


def check_status(row: Row, status: Any) -> float | None:
    """Assert message and details of a Status; returns the delay of its hint in seconds."""
    assert status.message, row.case
    check_words(row, status.message)
    delays, violations = [], 0
    for detail in status.details:
        retry, bad = RetryInfo(), BadRequest()
        if detail.Unpack(retry):
            delays.append(seconds(retry))
        else:
            assert detail.Unpack(bad), f"{row.case}: a detail of another type: {detail.type_url}"
            violations += len(bad.field_violations)
            for violation in bad.field_violations:
                assert violation.field, row.case
                assert violation.description, row.case
    assert bool(violations) == row.answer.bad_request, f"{row.case}: {status}"
    assert len(delays) == row.retries, f"{row.case}: {status}"
    for delay_s in delays:
        assert delay_s >= DELAY_MIN_S, f"{row.case}: {status}"
    return delays[0] if delays else None


def seconds(retry: Any) -> float:
    """Return the delay of a RetryInfo."""
    return float(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)


def _plain(text: str) -> str:
    return re.sub(r"[-_ ]", "", text).lower()


def check_words(row: Row, message: str) -> None:
    """Assert that a message says what the row wants to read."""
    for word in row.answer.words:
        assert _plain(word) in _plain(message), f"{row.case}: {word!r} not in {message!r}"


# --- success ---------------------------------------------------------------------------------


def check_response(row: Row, signal: Signal, body: bytes) -> None:
    """Assert that an export response in protobuf is the one of its row."""
    response = strictly(signal.response, body)
    if not row.answer.rejected:
        assert body == b"", f"{row.case}: {response}"
        return
    assert response.HasField("partial_success"), row.case
    partial = response.partial_success
    assert getattr(partial, signal.rejected[0]) == row.answer.rejected, f"{row.case}: {response}"
    assert partial.error_message, row.case
    check_words(row, partial.error_message)


def check_json_response(row: Row, signal: Signal, body: bytes) -> None:
    """Assert that an export response in JSON is the one of its row."""
    try:
        response = json.loads(body)
    except ValueError as error:
        raise AssertionError(f"no JSON: {body!r}") from error
    if not row.answer.rejected:
        assert response == {}, row.case
        return
    message = response.get("partialSuccess", {}).get("errorMessage")
    partial = {signal.rejected[1]: str(row.answer.rejected), "errorMessage": message}
    assert response == {"partialSuccess": partial}, row.case
    assert message, row.case
    check_words(row, message)


def is_ok(answer: HttpAnswer | GrpcAnswer) -> bool:
    """Say whether an answer is a success, of whatever kind."""
    if isinstance(answer, HttpAnswer):
        return answer.status == 200
    return answer.code is grpc.StatusCode.OK
