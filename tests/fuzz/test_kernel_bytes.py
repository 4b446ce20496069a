"""Whatever bytes come in, the kernel takes the spans that official protobuf takes, or both refuse.

Spans with a text that is not UTF-8 are refused one by one; see `oracle.TWIN`.

A refused body leaves the open batch as it was. Bodies are valid requests with random edits; the
seed is in the header of the run, WEIR_FUZZ makes the run long.
"""

import random

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.errors import MalformedPayloadError
from gateway.otlp.decode import OpenBatch
from tests.fuzz import differential_runs
from tests.laws.test_kernel_agrees_with_protobuf import STRICTER
from tests.oracle import check_taken, is_readable, payload, plain_batch

RUNS = differential_runs()
RUNS_PER_BATCH = 1_000
EDITS_MAX = 4
# Bytes that steer a protobuf reader: tags of OTLP messages, lengths, varint continuations.
STEERING = bytes(
    (0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x32, 0x4A, 0x5A, 0x6A, 0x7A, 0x80, 0xFF, 0x00, 0x0B)
)


def value(rng: random.Random, depth: int = 0) -> AnyValue:
    """Draw an attribute value of any kind."""
    kind = rng.randrange(8 if depth < 3 else 6)
    if kind == 0:
        return AnyValue()
    if kind == 1:
        return AnyValue(string_value=rng.choice(["", "ok", "größe", "x" * 40]))
    if kind == 2:
        return AnyValue(bool_value=rng.random() < 0.5)
    if kind == 3:
        return AnyValue(int_value=rng.randrange(-(2**63), 2**63))
    if kind == 4:
        return AnyValue(double_value=rng.random())
    if kind == 5:
        return AnyValue(bytes_value=rng.randbytes(rng.randrange(9)))
    found = AnyValue()
    if kind == 6:
        found.array_value.values.extend(value(rng, depth + 1) for _ in range(rng.randrange(3)))
        found.array_value.SetInParent()
    else:
        for _ in range(rng.randrange(3)):
            pair = found.kvlist_value.values.add()
            pair.key = rng.choice(["a", "b"])
            pair.value.CopyFrom(value(rng, depth + 1))
        found.kvlist_value.SetInParent()
    return found


def draw_span(rng: random.Random, span: Span) -> None:
    """Fill a span."""
    span.trace_id = rng.randbytes(rng.choice((16, 16, 16, 8, 0)))
    span.span_id = rng.randbytes(rng.choice((8, 8, 8, 4)))
    span.parent_span_id = rng.randbytes(rng.choice((0, 8, 8, 3)))
    span.name = rng.choice(["inference", "", "n" * 90])
    span.start_time_unix_nano = rng.randrange(2**64)
    span.flags = rng.randrange(2**32)
    for _ in range(rng.randrange(4)):
        pair = span.attributes.add()
        pair.key = rng.choice(["model", "score", "k" * 200, ""])
        pair.value.CopyFrom(value(rng))
    if rng.random() < 0.3:
        span.events.add(name="event", time_unix_nano=1).attributes.add().key = "e"
    if rng.random() < 0.3:
        span.links.add(trace_id=rng.randbytes(16), span_id=rng.randbytes(8))
    if rng.random() < 0.5:
        span.status.message = "failed"


def draw(rng: random.Random) -> bytes:
    """Draw a valid request."""
    request = ExportTraceServiceRequest()
    for _ in range(rng.randrange(3)):
        resource = request.resource_spans.add(schema_url=rng.choice(["", "https://schema"]))
        resource.resource.attributes.add().key = "device.id"
        scope = resource.scope_spans.add()
        scope.scope.name = "edge"
        for _ in range(rng.randrange(3)):
            draw_span(rng, scope.spans.add())
    return request.SerializeToString()


def edit(rng: random.Random, body: bytes) -> bytes:
    """Make a few random edits."""
    edited = bytearray(body)
    for _ in range(rng.randrange(EDITS_MAX + 1)):
        place = rng.randrange(len(edited) + 1)
        action = rng.randrange(6)
        if action == 0:
            del edited[place:]
        elif action == 1:
            edited[place:place] = rng.randbytes(rng.randrange(1, 5))
        elif action == 2:
            end = min(len(edited), place + rng.randrange(1, 30))
            edited[place:place] = edited[rng.randrange(place + 1) : end]
        elif action == 3 and place < len(edited):
            edited[place] = rng.choice(STEERING)
        elif action == 4 and place < len(edited):
            edited[place] ^= 1 << rng.randrange(8)
        elif place < len(edited):
            del edited[place : place + rng.randrange(1, 5)]
    return bytes(edited)


def check(open_batch: OpenBatch, body: bytes) -> bool:
    """Feed one body; True when it was taken."""
    spans, size = open_batch.spans, open_batch.bytes
    try:
        open_batch.add(payload(body))
    except MalformedPayloadError as error:
        assert (open_batch.spans, open_batch.bytes) == (spans, size), body.hex()
        if not str(error).startswith(STRICTER) and is_readable(body):
            raise AssertionError(f"only the kernel refuses {body.hex()}: {error}") from error
        return False
    check_taken(body, plain_batch(open_batch, open_batch.take(1)))
    return True


def test_kernel_and_protobuf_agree_on_edited_bytes(seed: int) -> None:
    rng = random.Random(seed)
    taken = 0
    for _ in range(RUNS // RUNS_PER_BATCH):
        # A new one now and then, because its table of attribute keys is bounded.
        open_batch = OpenBatch([b"model", b"score"])
        for _ in range(RUNS_PER_BATCH):
            taken += check(open_batch, edit(rng, draw(rng)))
    # A fuzzer that only makes rubbish, or only valid bodies, tests nothing.
    assert 0.05 < taken / RUNS < 0.95
