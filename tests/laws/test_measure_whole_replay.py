"""Law: all that is measured, declared or told depends on the sequence of batches alone.

One story drives everything at once: contracts with all indicators, with and without labels and
cost; wrong clocks; rollouts; violations; hosts; bytes that leave. Idle steps, looks at it and
restarts may come anywhere.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from gateway.batch import API_IDENTITY, Anomaly, Batch, Parcel, Signal, Transport
from gateway.contract.schema import Cost, Indicator, LabelRule, Role, SignalType, Slo
from gateway.contract.schema import Signal as ContractSignal
from gateway.measure import Measure, MeasureSettings, Snapshot, merge
from gateway.measure.state import State
from gateway.otlp.declared import (
    Acknowledgement,
    BatchJob,
    DeviceOutcome,
    Event,
    Label,
    ModelLoad,
    RolloutEnd,
    RolloutKind,
    RolloutOutcome,
    RolloutStart,
    Violation,
)
from gateway.otlp.events import is_start_notice, start_notice, write
from tests.conftest import FUZZ
from tests.unit.measure.build import (
    DAY_S,
    SECOND_NS,
    START_NS,
    VALUES,
    attribute,
    batch,
    contract,
    latency,
    payload,
    plan,
    request,
    signals,
    span,
    success,
)

SEEDS: Final = range(1, 31 if FUZZ else 3)
STEPS: Final = 400 if FUZZ else 160
SETTINGS: Final = MeasureSettings(
    baseline_events=150,
    drift_quiet_s=600,
    slo_quiet_s=120,
    series_max=5,
    devices_max=9,
    labels_max=400,
    deployers=frozenset({"deployer"}),
)
MONTH: Final = 30 * DAY_S


def of(indicator: Indicator, objective: float, **more: Any) -> Slo:
    return Slo(
        name=indicator.value,
        indicator=indicator,
        objective=objective,
        **{"window": MONTH, **more},
    )


ALL: Final = (
    success(0.99),
    latency(),
    of(Indicator.COLD_START, 0.9),
    of(Indicator.FRESHNESS, 0.99, threshold=200.0),
    of(Indicator.DEPLOYMENT, 0.9),
    of(Indicator.LABEL_LAG, 0.8, threshold=300.0),
    of(Indicator.INTEGRITY, 1.0),
    of(Indicator.BANDWIDTH, 1.0, window=DAY_S, allowance=300_000),
)
COUNTED: Final = {
    "digit": ContractSignal(
        name="digit",
        attribute="edgeai.inference.digit",
        type=SignalType.INT,
        role=Role.PREDICTION,
        range=(0, 9),
    )
}
PLAN: Final = plan(
    contract(
        "a",
        slos=ALL,
        labels=LabelRule(signal="class", within=600.0, expect=0.7),
        cost=Cost(
            currency="EUR",
            per_inference=0.003,
            budget_per_month=3.0,
            feature="edgeai.feature",
            features=("gate", "belt"),
        ),
    ),
    contract(
        "b",
        signals={**signals(), **COUNTED},
        slos=(success(0.95), of(Indicator.FRESHNESS, 0.9), of(Indicator.INTEGRITY, 1.0)),
        labels=LabelRule(signal="digit", within=7_200.0, expect=1.0),
    ),
    contract("c", slos=()),
)


def parcel(signal: Signal, body: bytes, arrival_ns: int, identity: str) -> Parcel:
    return Parcel(
        signal=signal,
        transport=Transport.HTTP,
        identity=identity,
        arrival_ns=arrival_ns,
        wire_bytes=len(body),
        held_bytes=len(body),
        items=0,
        body=body,
    )


def host(device: str, at_ns: int, busy: float, hot: bool) -> bytes:
    """A request of metrics about one host."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.append(attribute("device.id", device))
    metrics = resource.scope_metrics.add().metrics
    for name, value in (
        ("system.cpu.utilization", busy),
        ("edgeai.thermal.throttled", float(hot)),
        ("hw.battery.charge", 1 - busy),
        ("edgeai.power.on_battery", float(hot)),
        ("hw.temperature", 20 + 80 * busy),
        ("edgeai.thermal.limit", 90.0),
        ("system.memory.utilization", 40.0),
    ):
        metrics.add(name=name).gauge.data_points.add(time_unix_nano=at_ns, as_double=value)
    return request.SerializeToString()


class Story:
    """Batches of some hours. Units: bytes that leave by contract beside each batch."""

    def __init__(self, seed: int, steps: int = STEPS) -> None:
        self.rng = np.random.default_rng(seed)
        self.now_ns = START_NS
        self.trace = seed << 40
        self.traces: list[int] = []
        self.steps: list[tuple[Batch, np.ndarray[Any, Any]]] = []
        for step in range(steps):
            pauses = [0, 0.4, 7, 45, 400, 4_000, 20_000]
            shares = [0.1, 0.25, 0.35, 0.25, 0.03, 0.015, 0.005]
            self.now_ns += int(float(self.rng.choice(pauses, p=shares)) * SECOND_NS) + 1
            self.steps.append((self._batch(step / steps), self.rng.integers(0, 3_000, 4)))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, *of: Any) -> Any:
        return of[int(self.rng.integers(len(of)))]

    def _batch(self, part: float) -> Batch:
        payloads = [self._spans(part) for _ in range(int(self.rng.integers(0, 4)))]
        parcels: list[Parcel] = []
        if self.chance(0.5):
            device = f"d{self.rng.integers(12)}"
            body = host(device, self.now_ns - 10**9, 0.97 if 0.3 < part < 0.8 else 0.2, part > 0.5)
            parcels.append(parcel(Signal.METRICS, body, self.now_ns, ""))
        if self.chance(0.6):
            events = [self._event() for _ in range(int(self.rng.integers(1, 8)))]
            who = self.pick("", "", API_IDENTITY, "deployer", "d1")
            parcels.append(parcel(Signal.LOGS, write(events), self.now_ns, who))
        if self.chance(0.02):
            parcels.append(parcel(Signal.LOGS, start_notice(), self.now_ns, API_IDENTITY))
        one = batch(PLAN, *payloads, sequence=len(self.steps) + 1)
        return dataclasses.replace(one, arrival_ns=self.now_ns, parcels=tuple(parcels))

    def _spans(self, part: float) -> Any:
        device = f"d{self.rng.integers(12)}"
        clock_s = {"d1": 30, "d2": -500, "d3": 7_000, "d4": 400_000}.get(device, 0)
        spans = []
        model = self.pick("a", "a", "b", "c", "z")
        is_bad = 0.4 < part < 0.7
        for _ in range(int(self.rng.integers(1, 9))):
            self.trace += 1
            self.traces.append(self.trace * 0x9E3779B97F4A7C15 % (1 << 127))
            own = {
                "edgeai.model.name": model,
                "edgeai.inference.confidence": self.rng.beta(2, 5 if is_bad else 2),
                "edgeai.inference.class": self.pick(*VALUES, "odd"),
                "edgeai.inference.digit": int(self.rng.integers(-1, 12)),
                "edgeai.feature": self.pick("gate", "belt", "else"),
                "edgeai.accelerator.type": "cpu" if is_bad else "npu",
            }
            if self.chance(0.1):
                own["edgeai.inference.cold_start"] = self.chance(0.5)
            if self.chance(0.01):
                own["edgeai.integrity.violation"] = True
            if self.chance(0.3):
                own["edgeai.rollout.id"] = f"r{self.rng.integers(6)}"
            failed = self.chance(0.5 if is_bad else 0.02)
            if failed:
                own["error.type"] = self.pick("NaN", "CudaError", "disk", "_OTHER")
            late_s = float(self.pick(0, 0, 0, 0.2, 50, 3_000)) - clock_s
            end_ns = self.now_ns - int(late_s * SECOND_NS)
            duration_ns = int(self.pick(10**6, 10**7, 3 * 10**8, -(10**6)))
            spans.append(
                span(
                    self.traces[-1],
                    end_ns=end_ns,
                    duration_ns=duration_ns,
                    failed=failed,
                    attributes=own,
                )
            )
        resource = {
            "device.id": device,
            "edgeai.model.version": self.pick("1", "1", "2", "2" if part > 0.5 else "1", "odd ~"),
        }
        who = device if self.chance(0.3) else ""
        return payload(request(spans, resource), arrival_ns=self.now_ns, identity=who)

    def _event(self) -> Event:
        at_ns = max(1, self.now_ns - int(self.pick(0, 1, 60, 90_000, -90, -4_000)) * SECOND_NS)
        rollout, model = f"r{self.rng.integers(6)}", self.pick("a", "b", "c", "z")
        what = self.rng.choice(
            ["label", "start", "end", "device", "violation", "load", "job", "ack"],
            p=[0.5, 0.1, 0.05, 0.1, 0.02, 0.1, 0.11, 0.02],
        )
        if what == "label":
            known = self.traces[-300:] or [1]
            trace = self.pick(*known) if self.chance(0.9) else int(self.rng.integers(1, 1 << 60))
            value = self.pick(*VALUES, "odd", 3, 4.0, True, 1e300)
            trace_id = trace.to_bytes(16, "big")
            return Label(
                at_ns=at_ns, trace_id=trace_id, value=value, model=self.pick("", "a", "b", "z")
            )
        if what == "start":
            return RolloutStart(
                at_ns=at_ns,
                rollout=rollout,
                model=model,
                version=self.pick("2", "3"),
                previous=self.pick("", "1"),
                allocation=self.pick(None, 0.1),
                deadline_s=self.pick(None, 900),
                devices=self.pick(None, 5),
                kind=self.pick(*RolloutKind),
            )
        if what == "end":
            return RolloutEnd(at_ns=at_ns, rollout=rollout, outcome=self.pick(*RolloutOutcome))
        if what == "device":
            device = f"d{self.rng.integers(12)}"
            ended = self.chance(0.7)
            return DeviceOutcome(at_ns=at_ns, device=device, rollout=rollout, succeeded=ended)
        if what == "violation":
            return Violation(at_ns=at_ns, device="d1", model=model, error=self.pick("disk", "x"))
        if what == "load":
            error = self.pick("", "disk", "shape")
            return ModelLoad(at_ns=at_ns, model=model, version="1", error=error)
        if what == "ack":
            return Acknowledgement(at_ns=at_ns, anomaly="latched")
        return BatchJob(
            at_ns=at_ns,
            job=f"j{self.rng.integers(9)}",
            model=model,
            version=self.pick("", "1", "2"),
            cost=float(self.pick(0.0, 0.25, 1e12)) if self.chance(0.1) else 0.01,
            currency=self.pick("EUR", "EUR", "USD"),
            inferences=int(self.rng.integers(0, 99)),
            duration_s=1.0,
        )


def take(measure: Measure, step: tuple[Batch, np.ndarray[Any, Any]]) -> list[Anomaly]:
    """Do with a batch what the core does."""
    one, left = step
    told = list(measure.observe(one).anomalies)
    measure.spent(left, one.arrival_ns)
    for each in one.parcels:
        told += measure.hear(each)
    # A person who acknowledges what was told just now.
    for page in list(told):
        if page.kind.value == "integrity" and int(page.id[:2], 16) < 160:
            body = write([Acknowledgement(at_ns=one.arrival_ns, anomaly=page.id)])
            told += measure.hear(parcel(Signal.LOGS, body, one.arrival_ns, API_IDENTITY))
    return told


def same(one: State, two: State) -> None:
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert np.array_equal(array, two[name]), name
        assert array.dtype == two[name].dtype, name


def ordered(told: Iterable[Anomaly]) -> list[str]:
    """What was told, in an order that a long step and many short ones share."""
    return sorted(repr(each) for each in told)


def check_told(told: Iterable[Anomaly]) -> None:
    """Check that there is one open anomaly for what is wrong, and that none ends before it was."""
    opened: dict[tuple[str, ...], str] = {}
    for each in told:
        # A signal drifts for each version; what else is wrong is wrong with a model.
        version = each.version if each.kind.value == "drift" else ""
        key = (each.kind.value, each.model, each.subject, version)
        if each.resolved_ns is not None:
            assert opened.pop(key) == each.id
            assert each.resolved_ns >= each.raised_ns, each
        else:
            assert opened.setdefault(key, each.id) == each.id
        for device in range(12):
            assert f"d{device}" not in each.summary
        assert all(np.isfinite(number) for number in each.numbers.values()), each
        json.dumps(dict(each.numbers), allow_nan=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_idle_steps_looks_and_restarts_change_nothing(seed: int) -> None:
    story = Story(seed)
    rng = np.random.default_rng(seed)
    plain, idle, restarted = (Measure(PLAN, SETTINGS) for _ in range(3))
    told: list[Anomaly] = []
    told_idle: list[Anomaly] = []
    told_restarted: list[Anomaly] = []
    for one, after in zip(story.steps, [*story.steps[1:], None], strict=True):
        told += take(plain, one)
        told_idle += take(idle, one)
        told_restarted += take(restarted, one)
        # Before a gateway notes its start it was not there to take idle steps.
        if after is not None and not any(map(is_start_notice, after[0].parcels)):
            pause_ns = after[0].arrival_ns - one[0].arrival_ns
            for share in np.sort(rng.random(3 if pause_ns > SECOND_NS else 1)).tolist():
                told_idle += idle.advance(one[0].arrival_ns + int(share * pause_ns))
                if rng.random() < 0.1:
                    idle.snapshot()
        if rng.random() < 0.1:
            again = Measure(PLAN, SETTINGS)
            again.restore(restarted.state())
            same(again.state(), restarted.state())
            restarted = again
    same(plain.state(), restarted.state())
    assert told == told_restarted
    same(plain.state(), idle.state())
    assert ordered(told) == ordered(told_idle)
    check_told(told)
    kinds = {each.kind.value for each in told}
    assert len(kinds) >= 9, kinds


def test_a_state_is_a_copy() -> None:
    story, measure = Story(4, 80), Measure(PLAN, SETTINGS)
    for each in story.steps[:60]:
        take(measure, each)
    state = measure.state()
    before = {name: array.copy() for name, array in state.items()}
    for each in story.steps[60:]:
        take(measure, each)
    same(before, state)


def counts(view: Snapshot) -> dict[str, Any]:
    """Everything that is a sum, by name."""
    operations = view.operations
    found: dict[str, Any] = {f"unusable {key}": n for key, n in operations.unusable.items()}
    found |= {f"violations {key}": n for key, n in operations.violations.items()}
    found |= {f"refused {key}": n for key, n in operations.rollouts.refused}
    found |= {f"refused {key}": n for key, n in operations.meters.refused}
    found |= {f"labels {key}": n for key, n in operations.labels.fates}
    found |= {f"left {each.model}": each.total for each in operations.meters.bytes}
    for loads in operations.loads:
        found |= {f"loaded {loads.model}": loads.loaded, f"not loaded {loads.model}": loads.failed}
    for causes in operations.causes:
        found |= {f"failed {causes.model} {team}": n for team, n in causes.failed.items()}
    for right in operations.labels.accuracy:
        found[f"right {right.model} {right.version}"] = right.right
        found[f"wrong {right.model} {right.version}"] = right.wrong
    for cost in operations.meters.costs:
        for part in cost.parts:
            found[f"inferences {cost.model} {part.version} {part.feature}"] = part.inferences
        for bill in cost.bills:
            found[f"billed {cost.model} {bill.version}"] = bill.jobs
    for series in view.series:
        found[f"ok {series.model} {series.version}"] = series.ok
        found[f"bad {series.model} {series.version}"] = series.failed
    for at, name in enumerate(view.devices.names):
        found[f"spans {name}"] = int(view.devices.spans[at])
        found[f"items {name}"] = int(view.devices.items[at])
    return {name: count for name, count in found.items() if count}


def test_the_merge_adds_what_two_sites_have_counted() -> None:
    sites = []
    for seed in (11, 12):
        measure = Measure(PLAN, SETTINGS)
        for each in Story(seed, 120).steps:
            take(measure, each)
        sites.append(measure)
    merged = Measure(PLAN, dataclasses.replace(SETTINGS, devices_max=100))
    merged.restore(merge(*(each.state() for each in sites)))
    one, two = (counts(each.snapshot()) for each in sites)
    both = {name: one.get(name, 0) + two.get(name, 0) for name in one | two}
    assert counts(merged.snapshot()) == both
    other = Measure(PLAN, dataclasses.replace(SETTINGS, devices_max=100))
    other.restore(merge(*(each.state() for each in reversed(sites))))
    assert counts(other.snapshot()) == both
    # It goes on like any other.
    for each in Story(13, 40).steps:
        take(merged, each)
    merged.snapshot()
