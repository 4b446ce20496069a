"""Sources in memory, a running server, and traces, for the tests of the API."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from gateway.api.drifts import BaselineState, DriftState, SupersededState
from gateway.api.operations import NO_COUNTS, DeviceState
from gateway.api.outbox import (
    DeadLetter,
    DeadLetterPage,
    Destination,
    LettersDone,
    LetterSelection,
)
from gateway.api.sources import (
    Accounting,
    AnomalyView,
    Check,
    ContractStatus,
    DiveState,
    DiveWish,
    Exemplar,
    Histogram,
    MeasureSnapshot,
    Operation,
    Quantiles,
    Sample,
    SearchQuery,
    Series,
    SloState,
    SloWindow,
    Sources,
    StatusSnapshot,
    TraceAnswer,
    Weights,
)
from gateway.batch import Anomaly, AnomalyId, AnomalyKind, DiveId, Evidence, Severity
from gateway.errors import ConflictError, NotFoundError
from tests.unit.api.declared import FakeDeclarations

NOW_NS = 1_760_000_000_123_456_789
TRACE = "00000000000000000000000000000abc"


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def make_trace(trace_id: str = TRACE) -> TracesData:
    """Two services: the gateway's span calls the model's, which fails."""
    data = TracesData()
    for index, (service, name) in enumerate([("dock", "request"), ("vision", "infer")]):
        resource_spans = data.resource_spans.add(
            resource=Resource(
                attributes=[text("service.name", service), text("device.id", f"cam-{index}")]
            )
        )
        scope = resource_spans.scope_spans.add(
            scope=InstrumentationScope(name="sdk", version="1.0")
        )
        span = scope.spans.add(
            trace_id=bytes.fromhex(trace_id),
            span_id=(index + 1).to_bytes(8, "big"),
            parent_span_id=index.to_bytes(8, "big") if index else b"",
            name=name,
            kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=NOW_NS + index * 1_000_000,
            end_time_unix_nano=NOW_NS + 5_000_500,
            flags=0x101,
            attributes=[
                text("edgeai.model.name", "damage-net"),
                text("edgeai.model.digest", "sha256:ff"),
                text("edgeai.provenance.pointer", "ring:7"),
                KeyValue(key="count", value=AnyValue(int_value=1 << 60)),
                KeyValue(key="score", value=AnyValue(double_value=0.5)),
                KeyValue(key="cold", value=AnyValue(bool_value=True)),
                KeyValue(key="raw", value=AnyValue(bytes_value=b"\0\1")),
            ],
        )
        listed = span.attributes.add(key="list")
        listed.value.array_value.values.add(int_value=3)
        if index:
            span.status.code = 2  # type: ignore[assignment]  # the stub wants the enum's type
            span.status.message = "torn"
            event = span.events.add(name="exception", time_unix_nano=NOW_NS + 2_000_000)
            event.attributes.append(text("exception.type", "ValueError"))
            span.links.add(trace_id=bytes(15) + b"\7", span_id=bytes(7) + b"\10")
    return data


ANOMALY = Anomaly(
    id=AnomalyId("a1"),
    kind=AnomalyKind.DRIFT,
    severity=Severity.PAGE,
    owner="vision@example.com",
    model="damage-net",
    version="2.0",
    subject="brightness",
    summary="brightness moved",
    onset_ns=NOW_NS,
    raised_ns=NOW_NS,
    numbers={"psi": 0.4, "bad": float("inf")},
    evidence=(Evidence(trace_id=TRACE, device="cam-1", reason="low confidence"),),
)


@dataclass(slots=True)
class FakeAnomalies:
    views: dict[str, AnomalyView] = field(
        default_factory=lambda: {"a1": AnomalyView(anomaly=ANOMALY, state="firing")}
    )

    async def list(self, state: str | None) -> Sequence[AnomalyView]:
        return [view for view in self.views.values() if state in (None, view.state)]

    async def maybe_get(self, anomaly_id: AnomalyId) -> AnomalyView | None:
        return self.views.get(anomaly_id)

    async def acknowledge(self, anomaly_id: AnomalyId, principal: str) -> AnomalyView:
        view = self.views.get(anomaly_id)
        if view is None:
            raise NotFoundError("there is no anomaly with this id")
        if view.state != "firing":
            raise ConflictError("it is acknowledged already")
        view = replace(
            view, state="acknowledged", acknowledged_by=principal, acknowledged_ns=NOW_NS
        )
        self.views[anomaly_id] = view
        return view


@dataclass(slots=True)
class FakeDives:
    wishes: list[DiveWish] = field(default_factory=list)
    states: dict[str, DiveState] = field(default_factory=dict)

    async def create(self, wish: DiveWish) -> DiveState:
        self.wishes.append(wish)
        state = DiveState(
            id=DiveId(f"d{len(self.wishes)}"),
            state="queued",
            anomaly_id=wish.anomaly_id,
            reason=wish.reason,
            requested_by=wish.requested_by,
            created_ns=NOW_NS,
            updated_ns=NOW_NS,
            not_after_ns=wish.not_after_ns or NOW_NS,
            bytes_max=wish.bytes_max or 1,
            bytes=0,
            traces_wanted=len(wish.trace_ids),
            traces_received=0,
            missing="",
        )
        self.states[state.id] = state
        return state

    async def list(self, state: str | None) -> Sequence[DiveState]:
        return [item for item in self.states.values() if state in (None, item.state)]

    async def maybe_get(self, dive_id: DiveId) -> DiveState | None:
        return self.states.get(dive_id)

    async def delete(self, dive_id: DiveId) -> None:
        if self.states.pop(dive_id, None) is None:
            raise NotFoundError("there is no deep dive with this id")

    async def traces(self, dive_id: DiveId) -> TraceAnswer:
        if dive_id not in self.states:
            raise NotFoundError("there is no deep dive with this id")
        return TraceAnswer(
            parts=(make_trace().SerializeToString(),), problems=("cam-2 is gone → later",)
        )


LETTER = DeadLetter(
    id=7,
    destination="cloud",
    signal="traces",
    items=12,
    cause="refused",
    reason="HTTP 400: no tenant",
    time_ns=NOW_NS,
    first_ns=NOW_NS,
    last_ns=NOW_NS,
    bytes=3 << 10,
    replayable=True,
)


@dataclass(slots=True)
class FakeLetters:
    chosen: list[tuple[str, LetterSelection]] = field(default_factory=list)

    async def list(self, chosen: LetterSelection, limit: int, offset: int) -> DeadLetterPage:
        self.chosen.append((f"list {limit} {offset}", chosen))
        return DeadLetterPage(
            items=(LETTER,),
            total=1,
            total_items=12,
            total_bytes=3 << 10,
            newest=7,
            forgotten_items=0,
        )

    async def replay(self, chosen: LetterSelection) -> LettersDone:
        self.chosen.append(("replay", chosen))
        return LettersDone(letters=1, items=12, left=0, kept=0)

    async def drop(self, chosen: LetterSelection) -> LettersDone:
        self.chosen.append(("drop", chosen))
        return LettersDone(letters=1, items=12, left=0, kept=0)


SERIES = Series(
    model="damage-net",
    version="2.0",
    succeeded=98,
    failed=2,
    cold_starts=1,
    duration_s=Histogram(
        edges=(0.05, 0.1, 1.0),
        counts=(50, 40, 9, 1),
        sum=6.5,
        exemplars=(None, Exemplar(trace_id=TRACE, value=0.07, time_s=1_760_000_000.5), None, None),
    ),
    recent=None,
    all_time=Quantiles(p50_s=0.05, p95_s=0.2, p99_s=0.4),
    classes={"ok": 90, "torn": 10},
    last_event_ns=NOW_NS,
    weights=Weights(mean=4.5, effective_inferences=60.0),
)

MEASURE = MeasureSnapshot(
    series=(SERIES,),
    counts=replace(NO_COUNTS, raised={("drift", 'a"b\\c\n'): 1}, late=5),
    slos=(
        SloState(
            model="damage-net",
            slo="success",
            indicator="success",
            objective=0.999,
            window_s=2_592_000.0,
            threshold_s=None,
            budget_remaining_ratio=-0.5,
            exhaustion_s=0.0,
            exhaustion_formula="rolling",
            windows=(
                SloWindow(window="5m", good=10, bad=2, burn_rate=14.5),
                SloWindow(window="1h", good=100, bad=2, burn_rate=float("nan")),
                SloWindow(window="6h", good=0, bad=0, burn_rate=None),
            ),
        ),
    ),
    drift=(
        DriftState(
            model="damage-net",
            version="2.0",
            signal="brightness",
            baseline="frozen",
            alarm=True,
            tolerance=0.1,
            psi=0.4,
            log_evidence=12.0,
            relative_drift_index=7.5,
            bins=("low", "high"),
            expected=(0.5, 0.5),
            current=(0.9, 0.1),
            history=(0.0, 0.4),
            superseded=SupersededState(
                id="b-6",
                events=4_000,
                until_ns=NOW_NS + 1,
                log_evidence=1.5,
                log_evidence_bound=12.5,
                alarms=3,
                last_alarm_ns=NOW_NS - 1,
            ),
            attribution={"class": 0.1, "confidence_given_class": 0.3},
        ),
        DriftState(
            model="damage-net",
            version="2.0",
            signal="class",
            baseline="learning",
            alarm=False,
            tolerance=0.1,
            psi=None,
            log_evidence=None,
        ),
    ),
    devices=tuple(
        DeviceState(
            device=f"cam-{n}",
            freshness_s=float(n),
            silent=False,
            last_heard_ns=NOW_NS,
            last_event_ns=NOW_NS,
            last_inference_ns=None,
            spans=5,
            items=0,
            bytes=640,
            clock_offset_s=None,
            clock_jitter_s=None,
            invalid_spans=0,
            future_spans=0,
            model=None,
            version=None,
            accelerator=None,
        )
        for n in range(3)
    ),
    baselines=(
        BaselineState(
            id="b1",
            model="damage-net",
            version="2.0",
            signal="class",
            state="learning",
            events=5,
            events_wanted=4000,
        ),
    ),
)

STATUS = StatusSnapshot(
    site="dock-7",
    cluster="dock",
    region="eu-west",
    version="0.1.0",
    kernel="k1",
    policy="p1",
    started_ns=NOW_NS,
    uptime_s=12.5,
    ready=True,
    accounting=(
        Accounting(
            signal="traces",
            destination="cloud",
            received=10,
            forwarded=4,
            sampled_out=3,
            dropped=1,
            quarantined=1,
            pending=1,
            balanced=True,
        ),
    ),
    contracts=(
        ContractStatus(
            model="damage-net", owner="vision@example.com", digest="aa", expires="2027-12-31"
        ),
    ),
    journal_bytes=1,
    store_bytes=2,
    store_segments=1,
    store_pending_rows=3,
    destinations=(
        Destination(
            destination="cloud",
            reachable=False,
            held=False,
            last_error="HTTP 503",
            next_try_ns=NOW_NS,
            oldest_s=90.4,
        ),
    ),
)

SAMPLES = (
    Sample(
        name="weir_received_items_total",
        labels={"signal": "traces", "transport": "grpc"},
        value=10,
    ),
    Sample(
        name="weir_sampled_out_items_total", labels={"signal": "traces", "rule": "rate"}, value=3
    ),
    Sample(
        name="weir_ack_seconds", value=Histogram(edges=(0.005, 0.01), counts=(3, 2, 1), sum=0.04)
    ),
    Sample(name="weir_info", labels={"version": "0.1.0", "kernel": "k1"}, value=1),
)


@dataclass(slots=True)
class World:
    """What the fakes answer; tests change it."""

    anomalies: FakeAnomalies = field(default_factory=FakeAnomalies)
    dives: FakeDives = field(default_factory=FakeDives)
    letters: FakeLetters = field(default_factory=FakeLetters)
    declarations: FakeDeclarations = field(default_factory=FakeDeclarations)
    checks: list[Check] = field(
        default_factory=lambda: [Check(check="journal", ok=True, detail="")]
    )
    traces: dict[str, TraceAnswer] = field(
        default_factory=lambda: {TRACE: TraceAnswer(parts=(make_trace().SerializeToString(),))}
    )
    measure: MeasureSnapshot = MEASURE
    samples: Sequence[Sample] = SAMPLES
    queries: list[SearchQuery] = field(default_factory=list)
    search_gate: asyncio.Event | None = None  # a search waits for it

    async def shown(self) -> MeasureSnapshot:
        return self.measure

    async def maybe_trace(self, trace_id: str) -> TraceAnswer | None:
        return self.traces.get(trace_id)

    async def search(self, query: SearchQuery) -> Sequence[TraceAnswer]:
        self.queries.append(query)
        if self.search_gate is not None:
            await self.search_gate.wait()
        return list(self.traces.values())[: query.limit]

    async def operations(self) -> Sequence[Operation]:
        return [
            Operation(service="dock", name="request", kind=2),
            Operation(service="vision/night", name="infer", kind=3),
            Operation(service="vision/night", name="infer", kind=2),
        ]

    def sources(self) -> Sources:
        return Sources(
            status=lambda: STATUS,
            measure=self.shown,
            samples=lambda: self.samples,
            readiness=lambda: self.checks,
            maybe_trace=self.maybe_trace,
            search=self.search,
            operations=self.operations,
            anomalies=self.anomalies,
            dives=self.dives,
            dead_letters=self.letters,
            declarations=self.declarations,
        )
