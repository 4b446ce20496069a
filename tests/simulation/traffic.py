"""Requests of three signals whose items carry numbers that come out of the gateway again.

Law: a number is used once in a schedule. It is the trace id of a span and the time of a log record
or of a data point, which leave the site as they came.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import zstandard

from gateway.batch import Signal
from gateway.config import SamplingSection
from gateway.contract.load import load_contracts
from gateway.contract.plan import Plan, compile_plan
from gateway.otlp.schemas import REQUESTS
from tests.parcels import put

CONTRACT: Final = """
contract: 1
model: sim-net
match: {edgeai.model.name: sim-net}
owner: vision@example.com
purpose: simulation
expires: 2099-12-31
span_names: [inference]
event_names: [edgeai.model.loaded]
metrics:
  queue: {}
signals:
  class: {attribute: class, type: enum, values: [ok, torn], role: prediction, export: pass}
resource:
  device.id: {export: token}
  edgeai.model.name: {export: pass}
slos:
  - {name: success, indicator: success, objective: 0.95, window: 30d}
"""
MODEL: Final = "sim-net"
VERSION: Final = "1"
RATE: Final = 0.6
ITEMS_MAX: Final = 4
DEVICES: Final = 2
# What lies between a span's end and its arrival; some come late, some from a clock ahead.
DELAYS_S: Final = (0.0, 0.5, 45.0, -1.0, -300.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One body, and what is in it. `refused` items have no legal id."""

    signal: Signal
    body: bytes
    numbers: tuple[int, ...]
    failed: int = 0
    refused: int = 0


@dataclass(slots=True)
class Traffic:
    """Makes requests. Each takes the numbers after those of the one before."""

    rng: random.Random
    next_number: int = 1
    made: list[Request] = field(default_factory=list)

    def draw(self, now_ns: int) -> Request:
        """Make one request of any signal."""
        signal = self.rng.choices(tuple(Signal), weights=(3, 1, 1))[0]
        count = self.rng.randint(1, ITEMS_MAX)
        numbers = tuple(range(self.next_number, self.next_number + count))
        self.next_number += count
        found = self._spans(numbers, now_ns) if signal is Signal.TRACES else None
        if found is None:
            found = Request(signal=signal, body=self._items(signal, numbers), numbers=numbers)
        self.made.append(found)
        return found

    def _items(self, signal: Signal, numbers: tuple[int, ...]) -> bytes:
        request: Any = REQUESTS[signal]()
        if signal is Signal.METRICS:
            owner = request.resource_metrics.add()
            points = owner.scope_metrics.add().metrics.add(name="queue").gauge.data_points
            for number in numbers:
                points.add(time_unix_nano=number, as_int=number)
        else:
            owner = request.resource_logs.add()
            records = owner.scope_logs.add().log_records
            for number in numbers:
                records.add(time_unix_nano=number, event_name="edgeai.model.loaded")
        self._about(owner)
        body: bytes = request.SerializeToString()
        return body

    def _spans(self, numbers: tuple[int, ...], now_ns: int) -> Request:
        request: Any = REQUESTS[Signal.TRACES]()
        owner = request.resource_spans.add()
        self._about(owner)
        spans = owner.scope_spans.add().spans
        failed, refused = 0, self.rng.random() < 0.1
        for number in numbers:
            end_ns = now_ns - int(self.rng.choice(DELAYS_S) * 1e9)
            span = spans.add(
                trace_id=self.rng.randbytes(8) + number.to_bytes(8, "big"),
                span_id=number.to_bytes(8, "big"),
                name="inference",
                end_time_unix_nano=end_ns,
                start_time_unix_nano=end_ns - 5_000_000,
            )
            put(span, "edgeai.model.version", VERSION)
            put(span, "class", self.rng.choice(("ok", "torn")))
            if self.rng.random() < 0.3:
                span.status.code, failed = 2, failed + 1
        if refused:
            spans.add(name="inference")
        return Request(
            signal=Signal.TRACES,
            body=request.SerializeToString(),
            numbers=numbers,
            failed=failed,
            refused=int(refused),
        )

    def _about(self, owner: Any) -> None:
        put(owner.resource, "device.id", f"cam-{self.rng.randrange(DEVICES)}")
        put(owner.resource, "edgeai.model.name", MODEL)


def make_plan(folder: Path) -> Plan:
    """Compile the contract."""
    path = folder / "contract.yaml"
    path.write_text(CONTRACT)
    return compile_plan(load_contracts([path]), SamplingSection(rate=RATE))


def numbers_of(signal: Signal, raw: bytes) -> list[int]:
    """Read the numbers of all items of a request."""
    return list(_numbers(signal, REQUESTS[signal].FromString(raw)))


def numbers_of_frame(signal: Signal, body: bytes) -> list[int]:
    """Read the numbers of all items of a frame as it is sent."""
    return numbers_of(
        signal, zstandard.ZstdDecompressor().decompress(body, max_output_size=1 << 24)
    )


def _numbers(signal: Signal, request: Any) -> Iterator[int]:
    if signal is Signal.TRACES:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    yield int.from_bytes(span.trace_id[8:], "big")
    elif signal is Signal.LOGS:
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    yield record.time_unix_nano
    else:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.gauge.data_points:
                        yield point.time_unix_nano
