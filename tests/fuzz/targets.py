"""Whatever bytes come in, these invariants hold; one class for each fuzz target.

Law: an input is one byte of options and a body. Cheap invariants are checked for each input, the
agreement with the slow oracles for one in SAMPLE_EACH, chosen by the input's own bytes, so that an
input that failed fails again.
"""

import gzip
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any, Final, Protocol

import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.batch import Signal
from gateway.errors import MalformedPayloadError, PayloadTooLargeError
from gateway.otlp import wire
from gateway.otlp.decode import OpenBatch
from gateway.otlp.kernel import Scanner
from gateway.otlp.limits import Limits
from gateway.otlp.schemas import schema_of
from gateway.receive.inflate import WINDOW_BYTES_MAX, Encoding, Inflater, inflate
from tests.fuzz.test_kernel_bytes import check
from tests.laws.test_wire_agrees_with_protobuf import agree, agree_on_json
from tests.signals import DEVICE

SAMPLE_EACH: Final = 64
# The batch is taken, and the scanner replaced, this often: little state stands behind a failure.
ARENA_BYTES: Final = 8 * 1024
# Few keys make a scanner cheap and its key table full. SMALL puts every limit within reach.
WIDE: Final = Limits(keys_max=64)
SMALL: Final = Limits(
    spans_max=6, items_max=30, depth_max=3, text_bytes_max=60, keys_max=8, arena_bytes_max=1 << 20
)
LIMITS: Final = (WIDE, SMALL)
# A body of the fuzzer's size cannot fill this one's key table, as the oracle supposes.
KEYS_ENOUGH: Final = Limits(keys_max=1_024)
DEVICES: Final = ("", DEVICE)
SIGNALS: Final = (Signal.METRICS, Signal.LOGS, Signal.TRACES)

ENCODINGS: Final = (Encoding.GZIP, Encoding.ZSTD)
# Low ceilings make bombs cheap; what a megabyte does is for unit tests.
CEILINGS: Final = (16, 1_024, 4_096, 16_384)
STEPS: Final = (7, 97, 1_024, 65_536)
STEPS_MAX: Final = 8


class Target(Protocol):
    """One fuzz target; `sample_each` 1 compares every input with the slow oracle."""

    def __init__(self, sample_each: int = ...) -> None: ...

    def run(self, options: int, body: bytes) -> None:
        """Check one input."""


def is_sampled(body: bytes, each: int) -> bool:
    """Say whether the slow oracle looks at an input."""
    return zlib.crc32(body) % each == 0


def check_refusal(error: MalformedPayloadError | PayloadTooLargeError, body: bytes) -> None:
    """Check that a refusal says where in the body the fault is."""
    if isinstance(error, MalformedPayloadError):
        assert -1 <= error.offset <= len(body), error


class Scan:
    """`Scanner.scan`: a body is taken whole, with every span counted, or leaves no trace."""

    def __init__(self, sample_each: int = SAMPLE_EACH) -> None:
        self.sample_each = sample_each
        self._scanners = [_scanner(limits) for limits in LIMITS]

    def run(self, options: int, body: bytes) -> None:
        """Scan one body; options: limits, identity."""
        scanner = self._scanners[options & 1]
        if scanner.bytes > ARENA_BYTES:
            tables = scanner.take()
            assert len(tables["arena"]) > ARENA_BYTES
            scanner = self._scanners[options & 1] = _scanner(LIMITS[options & 1])
        spans, size, rows = scanner.spans, scanner.bytes, scanner.rows
        device = DEVICES[options >> 1 & 1]
        try:
            accepted, rejected, reason, mismatched = _scan(scanner, body, device)
        except (MalformedPayloadError, PayloadTooLargeError) as error:
            check_refusal(error, body)
            assert scanner.spans == spans, "a refused body left spans"
            assert scanner.bytes == size, "a refused body left bytes"
            assert scanner.rows == rows, "a refused body left rows"
        else:
            assert scanner.spans == spans + accepted
            assert scanner.bytes == size + len(body)
            assert bool(reason) == bool(rejected)
            assert mismatched <= rejected
        if is_sampled(body, self.sample_each):
            check(OpenBatch([b"model", b"score"], KEYS_ENOUGH), body)
            _check_neighbours(LIMITS[options & 1], body, device)


def _scanner(limits: Limits) -> Scanner:
    scanner = Scanner(
        keys_max=limits.keys_max,
        depth_max=limits.depth_max,
        spans_max=limits.spans_max,
        items_max=limits.items_max,
        text_bytes_max=limits.text_bytes_max,
        arena_bytes_max=limits.arena_bytes_max,
    )
    # Its number is the same whatever comes first.
    scanner.intern(b"model")
    return scanner


def _scan(scanner: Scanner, body: bytes, device: str) -> tuple[int, int, int, int]:
    return scanner.scan(body, 1, 0, 0, len(body), device.encode())


def _check_neighbours(limits: Limits, body: bytes, device: str) -> None:
    """Check that a body changes no row before it, and one that is refused none after it."""
    good, expected = _neighbour()
    scanner = _scanner(limits)
    _scan(scanner, good, "")
    refused = True
    with suppress(MalformedPayloadError, PayloadTooLargeError):
        _scan(scanner, body, device)
        refused = False
    found = scanner.take()
    for name, table in expected.items():
        rows = found[name] if refused else found[name][: len(table)]
        assert rows.tobytes() == table.tobytes(), f"{name} of the request before changed"
    if not refused:
        return
    scanner = _scanner(limits)
    with suppress(MalformedPayloadError, PayloadTooLargeError):
        _scan(scanner, body, device)
    _scan(scanner, good, "")
    found = scanner.take()
    for name, table in expected.items():
        assert found[name].tobytes() == table.tobytes(), f"{name} of the request after changed"


@cache
def _neighbour() -> tuple[bytes, dict[str, Any]]:
    """Make a good request, and its tables when it is alone in a batch."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="before")
    span.trace_id, span.span_id = b"t" * 16, b"s" * 8
    span.attributes.add(key="model").value.string_value = "m"
    body = request.SerializeToString()
    scanner = _scanner(WIDE)
    _scan(scanner, body, "")
    return body, scanner.take()


class Screen:
    """`wire.screen`: what is kept of a body passes again untouched, with the same count."""

    def __init__(self, sample_each: int = SAMPLE_EACH) -> None:
        self.sample_each = sample_each

    def run(self, options: int, body: bytes) -> None:
        """Screen one body; options: limits, identity, signal."""
        limits = LIMITS[options & 1]
        device = DEVICES[options >> 1 & 1]
        signal = SIGNALS[(options >> 2) % len(SIGNALS)]
        schema = schema_of(signal)
        try:
            found = wire.screen(schema, body, limits=limits, device=device.encode())
        except (MalformedPayloadError, PayloadTooLargeError) as error:
            check_refusal(error, body)
        else:
            assert bool(found.reason) == bool(found.rejected)
            assert found.mismatched <= found.rejected
            assert len(found.body) <= len(body)
            if found.body is not body:
                again = wire.screen(schema, found.body, limits=limits, device=device.encode())
                assert again.body is found.body, "a screened body is not clean"
                assert (again.accepted, again.rejected) == (found.accepted, 0)
        if is_sampled(body, self.sample_each):
            agree(signal, body, device)


class Transcode:
    """`wire.transcode`: a text that is taken becomes a body that screening takes."""

    def __init__(self, sample_each: int = SAMPLE_EACH) -> None:
        self.sample_each = sample_each

    def run(self, options: int, text: bytes) -> None:
        """Transcode one text; options: limits, unused, signal."""
        limits = LIMITS[options & 1]
        signal = SIGNALS[(options >> 2) % len(SIGNALS)]
        schema = schema_of(signal)
        try:
            body, ignored = wire.transcode(schema, text, limits=limits)
        except (MalformedPayloadError, PayloadTooLargeError) as error:
            check_refusal(error, text)
        else:
            assert ignored >= 0
            found = wire.screen(schema, body, limits=limits)
            assert "UTF-8" not in found.reason, "a text that is not UTF-8 came through"
        if is_sampled(text, self.sample_each):
            agree_on_json(signal, text)


class Inflate:
    """`receive.inflate`: no step and no sum goes over its ceiling; the library finds the same."""

    def __init__(self, sample_each: int = SAMPLE_EACH) -> None:
        self.sample_each = sample_each

    def run(self, options: int, body: bytes) -> None:
        """Inflate one body in steps; options: encoding, ceiling, size of a step."""
        encoding = ENCODINGS[options & 1]
        bytes_max = CEILINGS[options >> 1 & 3]
        step_bytes = max(STEPS[options >> 3 & 3], bytes_max // STEPS_MAX)
        found: bytes | None = None
        with suppress(MalformedPayloadError, PayloadTooLargeError):
            found = _inflate_in_steps(encoding, body, bytes_max, step_bytes)
        if found is not None:
            assert len(found) <= bytes_max, "the ceiling does not hold"
        if is_sampled(body, self.sample_each):
            whole: bytes | None = None
            with suppress(MalformedPayloadError, PayloadTooLargeError):
                whole = inflate(encoding, body, bytes_max)
            assert whole == found, "steps change what is found"
            if found is not None:
                assert found == _inflate_by_library(encoding, body)


def _inflate_in_steps(encoding: Encoding, wire_body: bytes, bytes_max: int, step: int) -> bytes:
    inflater = Inflater(encoding, wire_body, bytes_max)
    while not inflater.done:
        before = inflater.size_bytes
        inflater.step(step)
        grown = inflater.size_bytes - before
        assert grown <= step, "a step goes over its ceiling"
        assert grown or inflater.done, "a step that did nothing is not the last"
    assert len(inflater.body) == inflater.size_bytes
    return inflater.body


def _inflate_by_library(encoding: Encoding, body: bytes) -> bytes:
    if encoding is Encoding.GZIP:
        return gzip.decompress(body)
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
    return decompressor.stream_reader(body, read_across_frames=True).read()


TARGETS: Final[Mapping[str, type[Target]]] = {
    "scan": Scan,
    "screen": Screen,
    "transcode": Transcode,
    "inflate": Inflate,
}
