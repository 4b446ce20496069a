"""The kernel and the official protobuf classes read the same bytes in the same way."""

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.errors import MalformedPayloadError
from gateway.otlp.decode import OpenBatch
from tests.oracle import REQUESTS, check_taken, is_readable, payload, plain_batch, plain_request

# What the kernel refuses although protobuf takes it, on purpose (see kernel.pyx).
STRICTER = (
    "groups are not part of OTLP",
    "a message that may occur once is repeated",
    "dictionary indexes belong to profiles",
    "attribute values are nested too deeply",
)


@given(st.lists(REQUESTS, min_size=1, max_size=3))
def test_generated_requests_are_read_alike(requests: list[ExportTraceServiceRequest]) -> None:
    open_batch = OpenBatch([b"a", b"model"])
    expected = []
    for request in requests:
        receipt = open_batch.add(payload(request.SerializeToString()))
        plain = plain_request(request)
        spans = sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        assert receipt.accepted == len(plain)
        assert receipt.rejected == spans - len(plain)
        assert bool(receipt.reason) == bool(receipt.rejected)
        expected.extend(plain)
    assert plain_batch(open_batch, open_batch.take(1)) == expected


def _agree(body: bytes) -> None:
    """Check one hostile body against the oracle, with an innocent one before and after it."""
    innocent = ExportTraceServiceRequest()
    span = innocent.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = b"t" * 16, b"s" * 8, "innocent"
    open_batch = OpenBatch([b"a"])
    open_batch.add(payload(innocent.SerializeToString()))
    first = plain_batch(open_batch, open_batch.take(1))
    assert first == plain_request(innocent)
    open_batch.add(payload(innocent.SerializeToString()))
    refused: MalformedPayloadError | None = None
    try:
        open_batch.add(payload(body))
    except MalformedPayloadError as error:
        refused = error
    if refused is not None:
        assert not is_readable(body) or str(refused).startswith(STRICTER), refused
        assert 0 <= refused.offset <= len(body)
        body = b""
    open_batch.add(payload(innocent.SerializeToString()))
    taken = plain_batch(open_batch, open_batch.take(2))
    assert taken[:1] == taken[-1:] == first
    check_taken(body, taken[1:-1])


@given(REQUESTS, st.data())
def test_truncated_requests_are_read_alike(
    request: ExportTraceServiceRequest, data: st.DataObject
) -> None:
    body = request.SerializeToString()
    _agree(body[: data.draw(st.integers(0, len(body)))])


@given(REQUESTS, st.data())
def test_mutated_requests_are_read_alike(
    request: ExportTraceServiceRequest, data: st.DataObject
) -> None:
    body = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body)))
        action = data.draw(st.sampled_from(["flip", "insert", "delete", "copy"]))
        if action == "insert":
            body[position:position] = data.draw(st.binary(min_size=1, max_size=6))
        elif action == "copy":
            end = data.draw(st.integers(position, len(body)))
            body[position:position] = body[position:end]
        elif body and position < len(body):
            if action == "flip":
                body[position] ^= 1 << data.draw(st.integers(0, 7))
            else:
                del body[position]
    _agree(bytes(body))


@given(st.binary(max_size=64))
def test_random_bytes_are_read_alike(body: bytes) -> None:
    _agree(body)
