"""Measure as a whole: what a batch does, and the two stories of drift and burn."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from gateway.batch import (
    API_IDENTITY,
    NO_CONTRACT,
    NO_SERIES,
    Anomaly,
    AnomalyKind,
    Severity,
)
from gateway.config.sections import SamplingSection
from gateway.contract.plan import compile_plan
from gateway.decide import Decide
from gateway.errors import CorruptDataError
from gateway.measure import Measure, MeasureSettings
from gateway.measure.drift.baseline import baseline_id
from gateway.measure.snapshot import BaselineState, SignalView
from gateway.otlp.events import Promotion
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    Fleet,
    batch,
    contract,
    declared,
    payload,
    plan,
    request,
    span,
)

PLAN = plan()
INFERENCE = {
    "edgeai.model.name": "damage-net",
    "edgeai.inference.confidence": 0.9,
    "edgeai.inference.class": "ok",
}


def fresh(**settings: Any) -> Measure:
    return Measure(PLAN, MeasureSettings(**settings))


def signal(measure: Measure, name: str, series: int = 0) -> SignalView:
    views = measure.snapshot().series[series].signals
    return next(view for view in views if view.signal == name)


def test_findings_say_what_each_row_is() -> None:
    spans = [
        span(1, 1, attributes=INFERENCE, failed=True, duration_ns=7_000),
        span(1, 2),
        span(2, 3),
        span(3, 4, attributes=INFERENCE, end_ns=START_NS + 500 * SECOND_NS),
    ]
    resource = {"device.id": "d1", "service.version": "2.1"}
    measure = fresh()
    findings = measure.observe(batch(PLAN, payload(request(spans, resource))))
    assert findings.contract.tolist() == [0, 0, NO_CONTRACT, 0]
    assert findings.series.tolist() == [0, NO_SERIES, NO_SERIES, 0]
    assert findings.series_names == (("damage-net", "2.1"),)
    assert findings.failed.tolist() == [True, False, False, False]
    assert findings.duration_ns.tolist() == [7_000, 1_000_000, 1_000_000, 1_000_000]
    assert [findings.devices[index] for index in findings.device] == ["d1"] * 4
    assert int(findings.event_ns[3]) == START_NS + 120 * SECOND_NS
    assert measure.snapshot().counters.clamped == 1


def test_dtypes_are_those_of_the_nouns() -> None:
    findings = fresh().observe(batch(PLAN, payload(request([span(1, attributes=INFERENCE)]))))
    found = [getattr(findings, name).dtype for name in ("contract", "series", "failed")]
    found += [getattr(findings, name).dtype for name in ("duration_ns", "event_ns", "device")]
    assert [str(each) for each in found] == ["int16", "int32", "bool", "uint64", "uint64", "int32"]


def test_an_empty_batch_changes_nothing() -> None:
    measure = fresh()
    findings = measure.observe(batch(PLAN, payload(request([]))))
    assert len(findings.contract) == 0
    assert measure.snapshot().series == ()


def test_a_site_without_contracts_still_knows_its_devices() -> None:
    bare = compile_plan((), SamplingSection())
    measure = Measure(bare, MeasureSettings())
    body = request([span(1, attributes=INFERENCE)], {"device.id": "d"})
    findings = measure.observe(batch(bare, payload(body)))
    assert findings.contract.tolist() == [NO_CONTRACT]
    assert measure.snapshot().devices.names == ("~other", "d")
    other = Measure(bare, MeasureSettings())
    other.restore(measure.state())
    assert Decide(bare).judge(batch(bare, payload(body)), findings).keep.tolist() == [True]


def test_a_span_that_ends_before_it_starts_is_bad_for_latency() -> None:
    spans = [
        span(1, 1, attributes=INFERENCE, duration_ns=-1),
        span(2, 2, attributes=INFERENCE, duration_ns=0),
    ]
    measure = fresh()
    measure.observe(batch(PLAN, payload(request(spans))))
    assert measure.objectives.invalid == 1
    period = {view.slo: view.windows[-1] for view in measure.snapshot().slos}
    assert [(period[slo].good, period[slo].bad) for slo in ("success", "latency")] == [
        (2, 0),
        (1, 1),
    ]


def test_series_are_counted_exactly() -> None:
    spans = [span(number, attributes=INFERENCE, failed=number % 5 == 0) for number in range(1, 51)]
    cold = [span(99, attributes={**INFERENCE, "edgeai.inference.cold_start": True})]
    measure = fresh()
    measure.observe(batch(PLAN, payload(request([*spans, *cold], {"device.id": "d"}))))
    (series,) = measure.snapshot().series
    assert (series.ok, series.failed, series.cold_starts) == (41, 10, 1)
    assert series.latency.cumulative[-1] == 51
    assert series.latency.sum_s == pytest.approx(0.051)
    assert any(series.latency.exemplars)


@pytest.mark.parametrize(
    ("value", "place"),
    [(0.5, None), (float("nan"), -1), (1.5, -1), ("high", -1), (None, -2), (1, 127)],
)
def test_every_confidence_lands_in_a_bin(value: Any, place: int | None) -> None:
    attributes = {**INFERENCE, "edgeai.inference.confidence": value}
    if value is None:
        del attributes["edgeai.inference.confidence"]
    measure = fresh()
    measure.observe(batch(PLAN, payload(request([span(1, attributes=attributes)]))))
    counts = signal(measure, "confidence").counts
    assert sum(counts) == 1
    if place is not None:
        assert counts[place] == 1


@pytest.mark.parametrize(("value", "place"), [("wet", 2), ("burnt", 5), (None, 4), (7, 5)])
def test_every_class_lands_in_a_bin(value: Any, place: int) -> None:
    attributes = {**INFERENCE, "edgeai.inference.class": value}
    if value is None:
        del attributes["edgeai.inference.class"]
    measure = fresh()
    measure.observe(batch(PLAN, payload(request([span(1, attributes=attributes)]))))
    assert signal(measure, "class").counts[place] == 1


def test_times_out_of_any_range_do_no_harm() -> None:
    spans = [
        span(1, attributes=INFERENCE, end_ns=(1 << 64) - 1, duration_ns=(1 << 64) - 1),
        span(2, attributes=INFERENCE, end_ns=0, duration_ns=0),
    ]
    backwards = span(3, attributes=INFERENCE)
    backwards.start_time_unix_nano, backwards.end_time_unix_nano = START_NS, START_NS - 5
    measure = fresh()
    findings = measure.observe(batch(PLAN, payload(request([*spans, backwards]))))
    assert findings.duration_ns.tolist() == [1 << 62, 0, 0]
    assert measure.snapshot().counters.too_late == 1


def scores(rng: np.random.Generator, a: float, b: float, size: int) -> Any:
    return rng.beta(a, b, size)


class Story:
    """A site with four devices that sends a batch each second."""

    def __init__(self, measure: Measure, *, seed: int = 1) -> None:
        self.measure = measure
        self.fleet = Fleet(PLAN, size=80, devices=4, seed=seed)
        self.rng = np.random.default_rng(seed)
        self.now_ns = START_NS
        self.told: list[Anomaly] = []

    def run(self, seconds: int, *, drifting: int = 0, failing: int = 0, version: str = "") -> None:
        fleet = Fleet(PLAN, size=80, devices=4, version=version) if version else self.fleet
        for _ in range(seconds):
            self.now_ns += SECOND_NS
            confidence = self.rng.beta(8, 2, 80)
            confidence[: 20 * drifting] = self.rng.beta(3, 4, 20 * drifting)
            failed = np.arange(80) < 20 * failing
            brightness = self.rng.beta(2, 2, 80)
            one = fleet.batch(self.now_ns, confidence, brightness=brightness, failed=failed)
            self.told += self.measure.observe(one).anomalies


def test_drift_on_some_devices_becomes_an_anomaly_with_their_traces() -> None:
    story = Story(fresh())
    story.run(120)
    assert story.told == []
    assert signal(story.measure, "confidence").state is BaselineState.FROZEN
    onset_ns = story.now_ns
    story.run(60, drifting=2)
    (anomaly,) = story.told
    assert (anomaly.kind, anomaly.subject) == (AnomalyKind.DRIFT, "confidence")
    assert (anomaly.model, anomaly.version) == ("damage-net", "1.0")
    assert anomaly.severity is Severity.PAGE
    assert anomaly.owner == "vision@example.com"
    assert abs(anomaly.onset_ns - onset_ns) <= 20 * SECOND_NS
    assert anomaly.raised_ns - onset_ns <= 30 * SECOND_NS
    assert {each.device for each in anomaly.evidence} == {"device-0", "device-1"}
    assert 8 <= len(anomaly.evidence) <= 32
    assert len({each.trace_id for each in anomaly.evidence}) == len(anomaly.evidence)
    assert anomaly.numbers["devices_carrying"] == 2
    assert anomaly.numbers["devices_seen"] == 4
    assert anomaly.numbers["psi_debiased_low"] > 0.1
    assert anomaly.numbers["log_evidence"] >= anomaly.numbers["log_evidence_bound"]
    assert "device-" not in anomaly.summary
    view = signal(story.measure, "confidence").drift
    assert view is not None
    assert view.is_alarmed
    assert view.psi_debiased > 0.1


def test_one_episode_is_one_anomaly_and_ends_when_the_drift_does() -> None:
    story = Story(fresh(drift_quiet_s=120))
    story.run(120)
    story.run(120, drifting=4)
    story.run(1_800)
    raised, resolved = story.told
    assert raised.resolved_ns is None
    assert resolved.id == raised.id
    assert resolved.resolved_ns is not None
    assert story.measure.snapshot().open_anomalies == ()
    assert story.measure.snapshot().anomalies_raised == (("drift", "damage-net", 1),)


def test_failures_burn_the_slo_and_the_anomaly_names_them() -> None:
    story = Story(fresh())
    story.run(200)
    onset_ns = story.now_ns
    story.run(120, failing=1)
    burning = [each for each in story.told if each.kind is AnomalyKind.SLO_BURN]
    assert {each.subject for each in burning} == {"success"}
    assert burning[-1].severity is Severity.PAGE
    assert burning[-1].version == "1.0"
    assert abs(burning[-1].onset_ns - onset_ns) <= 60 * SECOND_NS
    assert {each.device for each in burning[-1].evidence} == {"device-0"}
    assert burning[-1].numbers["burn_rate_long"] > burning[-1].numbers["factor"]
    assert len({each.id for each in burning}) == 1


def test_a_burn_is_resolved_once_it_has_been_gone_for_a_while() -> None:
    story = Story(fresh(slo_quiet_s=60))
    story.run(200)
    story.run(60, failing=1)
    raised = story.told[-1]
    resolved: list[Anomaly] = []
    for hours in range(1, 12):
        resolved += story.measure.advance(story.now_ns + hours * 3_600 * SECOND_NS)
    burns = [each for each in resolved if each.kind is AnomalyKind.SLO_BURN]
    assert [each.id for each in burns] == [raised.id]
    assert burns[0].resolved_ns is not None
    silences = [each for each in resolved if each.kind is AnomalyKind.SILENCE]
    assert {each.subject for each in silences if each.resolved_ns is None} == {"silence", "site"}


def test_a_new_version_is_judged_against_the_one_before() -> None:
    story = Story(fresh())
    story.run(120)
    story.run(60, drifting=4, version="2.0")
    (anomaly,) = [each for each in story.told if each.kind is AnomalyKind.DRIFT]
    assert anomaly.version == "2.0"
    assert signal(story.measure, "confidence", 1).state is BaselineState.INHERITED


def promote(story: Story, baseline: str, identity: str = API_IDENTITY) -> dict[str, int]:
    """Declare a promotion; returns what was counted as unusable in all."""
    made = Promotion(at_ns=story.now_ns, baseline=baseline)
    story.told += story.measure.hear(declared(story.now_ns, made, identity=identity))
    return dict(story.measure.operations.unusable)


def test_a_candidate_is_promoted_by_hand_and_ends_the_alarm() -> None:
    story = Story(fresh(drift_quiet_s=60))
    story.run(120)
    assert signal(story.measure, "confidence").candidate is None
    assert promote(story, "0" * 64) == {"no_candidate": 1}
    story.run(120, drifting=4, version="2.0")
    before = signal(story.measure, "confidence", 1)
    assert before.drift is not None
    assert before.candidate is not None
    wanted = baseline_id("damage-net", "2.0", "confidence", before.candidate.digest)
    assert promote(story, wanted, "cam-1") == {"no_candidate": 1, "not_allowed": 1}
    assert signal(story.measure, "confidence", 1).state is BaselineState.INHERITED
    promote(story, wanted)
    view = signal(story.measure, "confidence", 1)
    assert (view.state, view.candidate) == (BaselineState.FROZEN, None)
    assert view.drift is not None
    assert view.drift.baseline_digest == before.candidate.digest
    assert view.drift.log_evidence == 0
    assert view.superseded is not None
    assert view.superseded.digest == before.drift.baseline_digest
    # A second time there is nothing to promote, and nothing changes.
    assert promote(story, wanted) == {"no_candidate": 2, "not_allowed": 1}
    again = fresh(drift_quiet_s=60)
    again.restore(story.measure.state())
    assert signal(again, "confidence", 1) == signal(story.measure, "confidence", 1)
    story.run(240, drifting=4, version="2.0")
    view = signal(story.measure, "confidence", 1)
    assert view.state is BaselineState.FROZEN
    assert view.drift is not None
    assert view.drift.psi_debiased < 0.01
    # The confidence of a class has a candidate of its own.
    drifts = [each for each in story.told if each.subject == "confidence"]
    assert [each.resolved_ns is None for each in drifts] == [True, False]


def test_the_first_version_learns_for_itself() -> None:
    story = Story(fresh())
    story.run(20)
    assert signal(story.measure, "confidence").state is BaselineState.COLLECTING
    assert signal(story.measure, "confidence").collected == 1_600
    assert signal(story.measure, "confidence").drift is None


def test_models_past_the_limit_count_in_one_series() -> None:
    measure = fresh(series_max=1)
    for version in ("1", "2", "3"):
        body = request([span(1, attributes=INFERENCE)], {"service.version": version})
        measure.observe(batch(PLAN, payload(body)))
    found = {(each.model, each.version): each.ok for each in measure.snapshot().series}
    assert found == {("damage-net", "1"): 1, ("~other", "~other"): 2}


def test_a_state_of_another_format_is_refused() -> None:
    state = fresh().state()
    state["format"] = np.array([0])
    with pytest.raises(CorruptDataError, match="format"):
        fresh().restore(state)


def test_a_damaged_baseline_is_refused() -> None:
    story = Story(fresh())
    story.run(120)
    state = story.measure.state()
    counts = state["streams/counts"]
    counts[130 * 2 + 100] += 1
    with pytest.raises(CorruptDataError, match="does not match"):
        fresh().restore(state)


def test_a_state_survives_a_change_of_contracts() -> None:
    story = Story(fresh())
    story.run(120)
    first = contract()
    kept = {"confidence": first.signals["confidence"]}
    other = Measure(
        plan(contract("another"), dataclasses.replace(first, signals=kept, slos=first.slos[:1])),
        MeasureSettings(),
    )
    other.restore(story.measure.state())
    (series,) = other.snapshot().series
    assert series.ok == 9_600
    (view,) = series.signals
    assert view.state is BaselineState.FROZEN
    assert sum(view.counts) == 9_600
    damage = next(each for each in other.snapshot().slos if each.model == "damage-net")
    assert damage.windows[-1].good == 9_600


def test_the_snapshot_has_no_number_that_is_not_one() -> None:
    story = Story(fresh())
    story.run(60)

    def check(value: Any) -> None:
        if isinstance(value, float):
            assert np.isfinite(value)
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                check(getattr(value, field.name))
        elif isinstance(value, tuple):
            for each in value:
                check(each)

    check(story.measure.snapshot())
