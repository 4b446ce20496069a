"""Request bodies as an edge site sends them: inference spans with ten attributes.

Law: all spans of a body have the same length on the wire, so that the trace ids lie at a constant
stride and one vector operation renews them all. Renewing under different numbers never gives a
span the same trace id twice.
"""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

ATTRIBUTES: Final = 10  # of one span: 2 doubles, 1 bool, 1 int, 6 strings
DEVICES: Final = 64
CLASSES: Final = ("okay", "wet-", "torn", "bent")  # of one length; the last is not in the contract
CLASS_SHARES: Final = (0.90, 0.05, 0.045, 0.005)
ERROR_SHARE: Final = 0.0005
# Below this the example contract keeps a span whatever its sampling rate.
UNSURE_SHARE: Final = 0.005
MILLISECOND_NS: Final = 1_000_000
SPREADER: Final = 0x9E3779B97F4A7C15  # odd, bits without pattern
WORD: Final = (1 << 64) - 1
POOL_BYTES_MAX: Final = 16 << 20
POOL_BODIES_MAX: Final = 256


@dataclass(slots=True)
class Body:
    """One request body whose trace ids can be renewed in place.

    Shape: `low` (spans,) views the second word of each trace id inside `data`; `base` (spans,) is
    what it was at first.
    """

    data: bytearray
    spans: int
    low: NDArray[np.uint64]
    base: NDArray[np.uint64]

    def renew(self, number: int) -> None:
        """Give every span the trace id that belongs to this number, below 2**64."""
        # Multiplication by an odd number loses nothing, so different numbers give different ids.
        key = np.uint64(number * SPREADER & WORD)
        np.bitwise_xor(self.base, key, out=self.low)


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _double(key: str, value: float) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(double_value=value))


def _attributes(rng: np.random.Generator) -> list[KeyValue]:
    unsure = rng.random() < UNSURE_SHARE
    confidence = rng.uniform(0.3, 0.49) if unsure else rng.uniform(0.55, 0.999)
    return [
        _text("edgeai.model.name", "damage-net"),
        _text("edgeai.model.version", "1.4.2"),
        _double("edgeai.inference.confidence", confidence),
        _text("edgeai.inference.class", str(rng.choice(CLASSES, p=CLASS_SHARES))),
        _double("edgeai.input.brightness", float(rng.beta(4, 3))),
        KeyValue(key="edgeai.inference.cold_start", value=AnyValue(bool_value=False)),
        KeyValue(key="edgeai.input.width", value=AnyValue(int_value=int(rng.integers(640, 4096)))),
        _text("enduser.id", f"operator-{rng.integers(1000, 9999)}"),
        _text("edgeai.note", "pallet scanned at gate, no remark"),
        _text("edgeai.provenance.pointer", f"ring:{rng.integers(10**9, 10**10 - 1)}"),
    ]


def _span(rng: np.random.Generator, now_ns: int) -> Span:
    start_ns = now_ns - int(rng.integers(100, 2000)) * MILLISECOND_NS
    failed = rng.random() < ERROR_SHARE
    return Span(
        # High bits that are set keep every word from being zero, whatever it is combined with.
        trace_id=b"\x77" + rng.bytes(15),
        span_id=b"\x33" + rng.bytes(7),
        name="inference",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + int(rng.lognormal(3.0, 0.35) * MILLISECOND_NS),
        attributes=_attributes(rng),
        status=Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_OK),
    )


def message(spans: int, rng: np.random.Generator, now_ns: int) -> ExportTraceServiceRequest:
    """Make one request of one device."""
    device = int(rng.integers(DEVICES))
    resource_spans = ResourceSpans()
    resource_spans.resource.attributes.extend(
        [
            _text("device.id", f"dock-cam-{device:04d}"),
            _text("service.name", "damage-detector"),
            _text("service.version", "2024.11"),
        ]
    )
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "edge.inference"
    scope_spans.spans.extend(_span(rng, now_ns) for _ in range(spans))
    return ExportTraceServiceRequest(resource_spans=[resource_spans])


def make_body(
    spans: int, rng: np.random.Generator, now_ns: int | None = None, prefix: bytes = b""
) -> Body:
    """Encode one request, with `prefix` in front of its bytes.

    Units: now_ns Unix nanoseconds, the present time when not given.
    """
    request = message(spans, rng, time.time_ns() if now_ns is None else now_ns)
    encoded = request.SerializeToString()
    data = bytearray(prefix) + encoded
    listed = request.resource_spans[0].scope_spans[0].spans
    places = [len(prefix) + encoded.index(span.trace_id) for span in listed]
    stride = places[1] - places[0] if spans > 1 else 16
    assert places == list(range(places[0], places[0] + stride * spans, stride))
    low = np.ndarray(
        (spans,), dtype=np.uint64, buffer=data, offset=places[0] + 8, strides=(stride,)
    )
    return Body(data, spans, low, low.copy())


def pool_size(spans: int) -> int:
    """Return how many distinct bodies of this many spans a pool holds."""
    body_bytes = 500 * spans
    return max(8, min(POOL_BODIES_MAX, POOL_BYTES_MAX // body_bytes))


def make_bodies(spans: int, count: int, seed: int) -> list[bytes]:
    """Encode distinct requests as plain bytes, the same for the same seed but for their times."""
    rng = np.random.default_rng(seed)
    return [bytes(make_body(spans, rng).data) for _ in range(count)]


def headed_body(spans: int, rng: np.random.Generator, head: bytes) -> Body:
    """Encode a request behind an HTTP head whose `%d` stands for the body's length.

    The length does not depend on the values, so that it can be known beforehand.
    """
    size = len(make_body(spans, rng).data)
    body = make_body(spans, rng, prefix=head % size)
    assert len(body.data) == len(head % size) + size
    return body
