"""What anybody may send: nothing raises, all is counted or bounded, nothing shown is not finite."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from gateway.api.measurements import measured as samples_of
from gateway.api.metrics import render
from gateway.batch import API_IDENTITY, Batch, Signal
from gateway.contract.plan import Plan
from gateway.measure import Measure, MeasureSettings
from gateway.measure.costs.costs import JOB_VERSIONS_MAX, JOBS_MAX
from gateway.measure.labels.labels import WAITING_MAX
from gateway.measure.rollouts.rollouts import ENDED_MAX, ROLLOUTS_MAX
from gateway.measured import measured
from gateway.otlp.declared import (
    BatchJob,
    DeviceOutcome,
    Event,
    Label,
    ModelLoad,
    RolloutEnd,
    RolloutStart,
    Violation,
)
from gateway.otlp.events import NAMES, write
from tests.laws.test_measure_whole_replay import PLAN, SETTINGS, Story, host, parcel, take
from tests.unit.measure.build import (
    DAY_S,
    SECOND_NS,
    START_NS,
    attribute,
    batch,
    contract,
    payload,
    plan,
    request,
    span,
)

KEYS: Final = (
    *("edgeai.rollout.id", "edgeai.model.name", "edgeai.model.version", "edgeai.rollout.previous"),
    *("edgeai.rollout.allocation", "edgeai.rollout.deadline_s", "edgeai.rollout.devices"),
    *("edgeai.rollout.kind", "edgeai.rollout.outcome", "device.id", "edgeai.trace.id"),
    *("edgeai.label.value", "error.type", "edgeai.anomaly.id", "edgeai.batch.job.id"),
    *("edgeai.batch.cost", "edgeai.batch.currency", "edgeai.batch.inferences"),
    "edgeai.batch.duration_s",
)
VALUES: Final = (
    *("a", "b", "c", "r1", "1", "2", "EUR", "completed", "succeeded", "failed", "retrain", "torn"),
    *("é\u202e\x00", "x" * 300, "", "0" * 32, "f" * 32, "~api", "~other", "9" * 200, "-0", "٣"),
    *(math.nan, math.inf, -1.0, 1e308, 0.0, -0.0, 5e-324, 0.5, 1.0, 4.0),
    *(1, -1, (1 << 63) - 1, -(1 << 63), 1 << 48, True, False),
)
TIMES: Final = (0, 1, 1 << 62, 1 << 63, (1 << 64) - 1)


def empty(the_plan: Plan, arrival_ns: int) -> Batch:
    return dataclasses.replace(batch(the_plan, sequence=1), arrival_ns=arrival_ns)


class Site:
    """A measure and its clock."""

    def __init__(self) -> None:
        self.measure = Measure(PLAN, SETTINGS)
        self.now_ns = START_NS

    def hear(self, body: bytes, who: str = "", after_s: int = 10) -> None:
        self.now_ns += after_s * SECOND_NS
        self.measure.observe(empty(PLAN, self.now_ns))
        self.measure.hear(parcel(Signal.LOGS, body, self.now_ns, who))

    def declare(self, *events: Event, after_s: int = 10) -> None:
        self.hear(write(events), after_s=after_s)


def test_no_record_raises(seed: int) -> None:
    rng, site = np.random.default_rng(seed), Site()
    records = 0
    for _ in range(20):
        found = ExportLogsServiceRequest()
        of_resource = found.resource_logs.add()
        for key in rng.choice(KEYS, 4).tolist():
            value = VALUES[int(rng.integers(len(VALUES)))]
            of_resource.resource.attributes.append(attribute(key, value))
        for _ in range(60):
            told_ns = site.now_ns + int(rng.integers(-(10**14), 10**11))
            record = of_resource.scope_logs.add().log_records.add(
                event_name=str(rng.choice(sorted(NAMES))),
                time_unix_nano=TIMES[int(rng.integers(5))] if rng.random() < 0.5 else told_ns,
            )
            records += 1
            for key in KEYS:
                if rng.random() < 0.85:
                    value = VALUES[int(rng.integers(len(VALUES)))]
                    record.attributes.append(attribute(key, value))
            size = int(rng.choice([0, 8, 16, 16]))
            record.trace_id = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
        who = str(rng.choice(["", API_IDENTITY, "deployer", "d1"]))
        site.hear(found.SerializeToString(), who)
    unusable = site.measure.operations.unusable
    assert 0 < sum(unusable.values()) <= records
    again = Measure(PLAN, SETTINGS)
    again.restore(site.measure.state())


def test_floods_are_bounded_and_counted() -> None:
    site, many = Site(), 6_000
    operations = site.measure.operations
    now_ns = site.now_ns
    site.declare(
        *(
            RolloutStart(at_ns=now_ns, rollout=f"r{at}", model="a", version=f"{at}", devices=9)
            for at in range(many)
        )
    )
    assert len(operations.rollouts.table) == ROLLOUTS_MAX
    assert operations.rollouts.refused["too_many_rollouts"] == many - ROLLOUTS_MAX
    for part in range(6):
        site.declare(*(RolloutEnd(at_ns=site.now_ns, rollout=f"r{at}") for at in range(many)))
        site.declare(
            *(
                RolloutStart(at_ns=site.now_ns, rollout=f"{part}-{at}", model="b", version="2")
                for at in range(ROLLOUTS_MAX)
            )
        )
        ends = (f"{part}-{at}" for at in range(ROLLOUTS_MAX))
        site.declare(*(RolloutEnd(at_ns=site.now_ns, rollout=each) for each in ends))
    assert len(operations.rollouts.table) == ENDED_MAX
    site.declare(
        *(
            DeviceOutcome(at_ns=site.now_ns, device=f"x{at}", rollout="r9", succeeded=True)
            for at in range(many)
        ),
        *(
            Violation(at_ns=now_ns, device=f"x{at}", model=f"m{at}", error=f"e{at}")
            for at in range(many)
        ),
    )
    assert operations.health.integrity.violations == {"": many}
    assert operations.health.integrity.latched == ("",)
    site.declare(
        *(ModelLoad(at_ns=now_ns, model=f"m{at}", version="1", error=f"e{at}") for at in range(9)),
        *(Label(at_ns=now_ns, trace_id=b"t" * 16, value=["ok", "torn"][at % 2]) for at in range(9)),
    )
    for part in range(3):
        ids = range(part * many + 1, (part + 1) * many + 1)
        site.declare(
            *(Label(at_ns=now_ns, trace_id=at.to_bytes(16, "big"), value="ok") for at in ids)
        )
    labels = operations.labels
    assert len(labels.waiting) == WAITING_MAX
    assert sum(labels.fates.values()) + len(labels.waiting) == 3 * many + 9


def test_a_flood_of_jobs_costs_no_search_through_their_sums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site()
    costs = site.measure.operations.meters.costs
    for month in range(12):
        at_ns = site.now_ns - month * 30 * DAY_S * SECOND_NS
        site.declare(
            *(
                BatchJob(
                    at_ns=at_ns,
                    job=f"{month}-{at}",
                    model="a",
                    version=f"v{at}",
                    cost=1e12,
                    currency="EUR",
                    inferences=1 << 48,
                    duration_s=1.0,
                )
                for at in range(JOB_VERSIONS_MAX + 99)
            )
        )
    assert len(costs.bills) == JOBS_MAX
    assert {version for _, _, version in costs.sums} == {
        *(f"v{at}" for at in range(JOB_VERSIONS_MAX)),
        "~other",
    }

    class Sums(dict[Any, Any]):
        def __iter__(self) -> Iterator[Any]:
            raise AssertionError("a bill walks through all sums")

    monkeypatch.setattr(costs, "sums", Sums(costs.sums))
    for at in (3, JOB_VERSIONS_MAX + 3):
        site.declare(
            BatchJob(
                at_ns=site.now_ns,
                job="last",
                model="a",
                version=f"v{at}",
                cost=1.0,
                currency="EUR",
                inferences=1,
                duration_s=1.0,
            ),
            after_s=0,
        )


def test_a_rollout_of_a_model_without_objectives_counts_its_first_inference_a_day_later() -> None:
    site = Site()
    site.declare(RolloutStart(at_ns=site.now_ns, rollout="late", model="c", version="2"))
    site.now_ns += 23 * 3_600 * SECOND_NS
    body = request(
        [span(7, end_ns=site.now_ns, attributes={"edgeai.model.name": "c"})],
        {"device.id": "d1", "edgeai.model.version": "2"},
    )
    site.measure.observe(batch(PLAN, payload(body, arrival_ns=site.now_ns)))
    [shown] = site.measure.snapshot().operations.rollouts.rollouts
    assert (shown.id, shown.spends) == ("late", ())


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from numbers_in(getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield from numbers_in(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from numbers_in(each)


def check_shown(measure: Measure, the_plan: Plan, now_ns: int) -> None:
    found = measured(
        measure.snapshot(),
        now_ns=now_ns,
        contracts=the_plan.contracts,
        token=lambda name: f"token-{name}",
    )
    assert all(map(math.isfinite, numbers_in(found)))
    body, _ = render(list(samples_of(found)), "application/openmetrics-text")
    for line in body.decode().splitlines():
        assert line.startswith("#") or math.isfinite(float(line.rsplit("} ", 1)[-1].split()[-1]))


def test_everything_shown_is_finite_however_little_is_known() -> None:
    bare = plan(contract("z", slos=(), signals={}))
    for the_plan in (PLAN, bare):
        measure = Measure(the_plan, MeasureSettings())
        check_shown(measure, the_plan, START_NS)
        measure.advance(START_NS)
        check_shown(measure, the_plan, START_NS)
        for minute in range(12):
            at_ns = START_NS + minute * 60 * SECOND_NS
            measure.observe(empty(the_plan, at_ns))
            body = host(f"d{minute % 2}", at_ns, 0.99, hot=True)
            measure.hear(parcel(Signal.METRICS, body, at_ns, ""))
        check_shown(measure, the_plan, START_NS)
        measure.advance(START_NS + DAY_S * SECOND_NS)
        check_shown(measure, the_plan, START_NS + DAY_S * SECOND_NS)
    story, measure = Story(8, 90), Measure(PLAN, SETTINGS)
    for each in story.steps:
        take(measure, each)
    check_shown(measure, PLAN, story.now_ns)
