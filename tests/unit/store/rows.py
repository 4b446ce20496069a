"""Build the columns that the store takes, from plain rows, for tests."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.batch import Audience, Batch, Clean, Findings, Upstream, Verdict
from gateway.store.store import Store
from gateway.tables import (
    ATTRIBUTE,
    CLEAN_SPAN,
    EVENT,
    EXTENT,
    LINK,
    NO_RANDOMNESS,
    NO_THRESHOLD,
    REQUEST,
    RESOURCE,
    SCOPE,
    SPAN,
)

SECOND_NS = 1_000_000_000
NOW_NS = 1_760_000_000 * SECOND_NS


def text_attribute(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One span as the tests write it down."""

    trace: int
    span: int = 1
    parent: int = 0
    start_ns: int = NOW_NS
    duration_ns: int = 5_000_000
    name: str = "inference"
    message: str = ""
    kind: int = 2
    status: int = 1
    flags: int = 1
    service: str = "vision"
    device: str = "cam-1"
    model: tuple[str, str] | None = ("damage-net", "1.0")
    contract: int = 0
    failed: bool = False
    kept: bool = True
    reason: str = "rate"
    threshold: int = NO_THRESHOLD
    attributes: Sequence[KeyValue] = field(default_factory=tuple)
    events: Sequence[Span.Event] = field(default_factory=tuple)
    links: Sequence[Span.Link] = field(default_factory=tuple)

    @property
    def fields(self) -> bytes:
        return Span(
            attributes=self.attributes, events=self.events, links=self.links
        ).SerializeToString()

    @property
    def resource(self) -> bytes:
        return Resource(
            attributes=[text_attribute("service.name", self.service)]
        ).SerializeToString()


SCOPE_BYTES = InstrumentationScope(name="sdk", version="1.2").SerializeToString()
Columns = tuple[Clean, Batch, Findings, Verdict]


class _Text:
    def __init__(self) -> None:
        self.data = bytearray(b"..")  # offset 0 is nobody's

    def put(self, value: bytes) -> tuple[int, int]:
        self.data += value
        return len(self.data) - len(value), len(value)


def _index(table: list[Any], value: Any) -> int:
    if value not in table:
        table.append(value)
    return table.index(value)


def columns(
    rows: Sequence[Row], sequence: int = 1, arrival_ns: int = NOW_NS, policy: str = "p"
) -> Columns:
    """Make the four inputs of `Store.add`."""
    text = _Text()
    spans = np.zeros(len(rows), dtype=CLEAN_SPAN)
    spans["randomness"] = NO_RANDOMNESS
    resources: list[bytes] = []
    devices: list[str] = []
    series: list[tuple[str, str]] = []
    reasons: list[str] = []
    for index, row in enumerate(rows):
        span = spans[index]
        span["trace_hi"], span["trace_lo"] = row.trace >> 64, row.trace & (1 << 64) - 1
        span["span_id"], span["parent_id"] = row.span, row.parent
        span["start_ns"], span["end_ns"] = row.start_ns, row.start_ns + row.duration_ns
        span["threshold"] = row.threshold
        span["kind"], span["status"], span["flags"] = row.kind, row.status, row.flags
        for column, value in (
            ("name", row.name.encode()),
            ("message", row.message.encode()),
            ("fields", row.fields),
        ):
            span[f"{column}_offset"], span[f"{column}_length"] = text.put(value)
        span["resource"] = _index(resources, row.resource)
    extents = np.array([text.put(value) for value in resources], dtype=EXTENT)
    scopes = np.array([text.put(SCOPE_BYTES)], dtype=EXTENT)
    clean = Clean(
        audience=Audience.SITE,
        policy=policy,
        text=np.frombuffer(bytes(text.data), dtype=np.uint8),
        spans=spans,
        resources=extents,
        scopes=scopes,
        keys=np.zeros(0, dtype=EXTENT),
        kinds=np.zeros(0, dtype=np.uint8),
        values=np.zeros((0, len(rows)), dtype=np.uint64),
        present=np.zeros((0, len(rows)), dtype=np.uint8),
        source=np.arange(len(rows), dtype=np.int32),
    )
    findings = Findings(
        contract=np.array([row.contract for row in rows], dtype=np.int16),
        series=np.array(
            [-1 if row.model is None else _index(series, row.model) for row in rows], np.int32
        ),
        failed=np.array([row.failed for row in rows], dtype=np.bool_),
        duration_ns=np.array([max(0, row.duration_ns) for row in rows], dtype=np.uint64),
        event_ns=np.array([row.start_ns for row in rows], dtype=np.uint64),
        device=np.array([_index(devices, row.device) for row in rows], dtype=np.int32),
        devices=tuple(devices),
        series_names=tuple(series),
        upstream=Upstream(
            threshold=np.full(len(rows), NO_THRESHOLD, dtype=np.uint64),
            randomness=np.full(len(rows), NO_RANDOMNESS, dtype=np.uint64),
            malformed=np.zeros(len(rows), dtype=np.bool_),
            has_threshold=False,
        ),
        anomalies=(),
    )
    verdict = Verdict(
        keep=np.array([row.kept for row in rows], dtype=np.bool_),
        reason=np.array([_index(reasons, row.reason) for row in rows], dtype=np.uint8),
        reasons=tuple(reasons),
        threshold=np.array([row.threshold for row in rows], dtype=np.uint64),
        randomness=np.full(len(rows), NO_RANDOMNESS, dtype=np.uint64),
    )
    return clean, _batch(len(rows), sequence, arrival_ns), findings, verdict


def _batch(spans: int, sequence: int, arrival_ns: int) -> Batch:
    requests = np.zeros(1, dtype=REQUEST)
    requests["arrival_ns"] = arrival_ns
    return Batch(
        sequence=sequence,
        arrival_ns=arrival_ns,
        arena=np.zeros(0, dtype=np.uint8),
        requests=requests,
        resources=np.zeros(0, dtype=RESOURCE),
        scopes=np.zeros(0, dtype=SCOPE),
        spans=np.zeros(spans, dtype=SPAN),
        events=np.zeros(0, dtype=EVENT),
        links=np.zeros(0, dtype=LINK),
        span_attributes=np.zeros(0, dtype=ATTRIBUTE),
        resource_attributes=np.zeros(0, dtype=ATTRIBUTE),
        scope_attributes=np.zeros(0, dtype=ATTRIBUTE),
        event_attributes=np.zeros(0, dtype=ATTRIBUTE),
        link_attributes=np.zeros(0, dtype=ATTRIBUTE),
        slots=np.zeros((0, spans), dtype=np.int32),
        resource_slots=np.zeros((0, 0), dtype=np.int32),
        scope_slots=np.zeros((0, 0), dtype=np.int32),
        slot_of_key=np.full(1, -1, dtype=np.int32),
        identities=("",),
    )


def open_store(
    directory: Path,
    connection: sqlite3.Connection,
    *,
    bytes_max: int = 1 << 30,
    age_max_s: float = 3600.0,
) -> Store:
    store = Store.open(
        directory, bytes_max=bytes_max, age_max_s=age_max_s, contracts=["damage-net", "triage"]
    )
    store.prepare(connection)
    return store


def seal(store: Store, connection: sqlite3.Connection, first: int, last: int) -> Path:
    """Do what the storage thread does, and return the file."""
    segment = store.write_segment(first, last)
    assert segment is not None
    store.publish(connection, segment)
    store.settle(segment)
    return store._directory / segment.path


def trace_id(number: int) -> str:
    return f"{number:032x}"
