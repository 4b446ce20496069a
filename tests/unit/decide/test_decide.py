"""Verdicts: rules, rates, what came in, reasons."""

from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.batch import Verdict
from gateway.config.keep import parse_rule
from gateway.contract.plan import Plan
from gateway.contract.schema import SamplingRule
from gateway.decide import Decide
from gateway.measure import Measure, MeasureSettings
from gateway.otlp.threshold import RANGE, threshold_of
from gateway.tables import NO_RANDOMNESS, NO_THRESHOLD
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    batch,
    contract,
    payload,
    plan,
    request,
    span,
)

INFERENCE = {"edgeai.model.name": "damage-net", "edgeai.inference.confidence": 0.9}
LOW = {**INFERENCE, "edgeai.inference.confidence": 0.2}
HIGH_R, LOW_R = (1 << 56) - 1, 1


def sampled(rate: float | None = 0.5, *rules: str, **changes: Any) -> Plan:
    keep = tuple(parse_rule(rule) for rule in rules)
    return plan(contract(sampling=SamplingRule(keep=keep, rate=rate, **changes)), keep=())


def judged(the_plan: Plan, spans: list[Span], decide: Decide | None = None) -> Verdict:
    one = batch(the_plan, payload(request(spans)))
    findings = Measure(the_plan, MeasureSettings()).observe(one)
    return (decide or Decide(the_plan)).judge(one, findings)


def reasons(verdict: Verdict) -> list[str]:
    return [verdict.reasons[index] for index in verdict.reason.tolist()]


def test_a_rate_keeps_by_the_low_bits_of_the_trace_id() -> None:
    spans = [span(HIGH_R, attributes=INFERENCE), span(LOW_R, attributes=INFERENCE)]
    verdict = judged(sampled(), spans)
    assert verdict.keep.tolist() == [True, False]
    assert reasons(verdict) == ["rate", "sampled:damage-net"]
    assert int(verdict.threshold[0]) == threshold_of(0.5)
    assert verdict.randomness.tolist() == [NO_RANDOMNESS] * 2


def test_dtypes_are_those_of_the_nouns() -> None:
    verdict = judged(sampled(), [span(1, attributes=INFERENCE)])
    found = [verdict.keep, verdict.reason, verdict.threshold, verdict.randomness]
    assert [str(each.dtype) for each in found] == ["bool", "uint8", "uint64", "uint64"]


def test_bits_above_the_56_do_not_matter() -> None:
    spans = [span((0xFFFF << 56) | LOW_R, attributes=INFERENCE)]
    assert judged(sampled(), spans).keep.tolist() == [False]


def test_rules_keep_with_threshold_zero() -> None:
    spans = [
        span(1, attributes=LOW),
        span(2, attributes=INFERENCE, failed=True),
        span(3, attributes=INFERENCE),
    ]
    verdict = judged(sampled(0.0, "error", "confidence < 0.5"), spans)
    assert verdict.keep.tolist() == [True, True, False]
    assert reasons(verdict) == ["keep:confidence < 0.5", "keep:error", "sampled:damage-net"]
    assert verdict.threshold[:2].tolist() == [0, 0]


def test_one_span_that_a_rule_keeps_keeps_its_trace() -> None:
    spans = [
        span(1, 1),
        span(1, 2, attributes=LOW),
        span(1, 3, attributes=INFERENCE),
        span(2, 4),
    ]
    verdict = judged(sampled(0.0, "confidence < 0.5"), spans)
    assert verdict.keep.tolist() == [True, True, True, True]
    assert reasons(verdict) == ["keep:confidence < 0.5"] * 3 + ["rate"]
    assert verdict.threshold.tolist() == [0] * 4


def test_spans_without_a_contract_follow_the_site() -> None:
    the_plan = plan(contract(), keep=("error",), rate=0.0)
    verdict = judged(the_plan, [span(1), span(2, failed=True)])
    assert verdict.keep.tolist() == [False, True]
    assert reasons(verdict) == ["sampled:default", "keep:error"]


def test_a_contract_without_a_rate_follows_the_site() -> None:
    the_plan = plan(contract(), keep=(), rate=0.0)
    assert judged(the_plan, [span(1, attributes=INFERENCE)]).keep.tolist() == [False]


@pytest.mark.parametrize(
    ("state", "trace", "keep", "threshold", "randomness"),
    [
        ("ot=th:4", HIGH_R, True, 8 << 52, NO_RANDOMNESS),  # ours is higher
        ("ot=th:c", HIGH_R, True, 12 << 52, NO_RANDOMNESS),  # theirs is higher
        ("ot=rv:ffffffffffffff", LOW_R, True, 8 << 52, HIGH_R),  # explicit randomness
        ("ot=rv:00000000000001", HIGH_R, False, 8 << 52, LOW_R),
        ("ot=th:c;rv:90000000000000", 1, True, NO_THRESHOLD, 9 << 52),  # a false claim
        ("ot=th:zz", HIGH_R, True, 8 << 52, NO_RANDOMNESS),
        ("vendor=1", HIGH_R, True, 8 << 52, NO_RANDOMNESS),
    ],
)
def test_what_came_in_is_respected(
    state: str, trace: int, keep: bool, threshold: int, randomness: int
) -> None:
    spans = [span(trace, attributes=INFERENCE, state=state), span(5, attributes=INFERENCE)]
    verdict = judged(sampled(), spans)
    assert bool(verdict.keep[0]) is keep
    assert int(verdict.threshold[0]) == threshold
    assert int(verdict.randomness[0]) == randomness
    assert int(verdict.randomness[1]) == NO_RANDOMNESS


def test_a_rule_does_not_lower_the_threshold_that_came_in() -> None:
    spans = [span(HIGH_R, attributes=LOW, state="ot=th:c")]
    verdict = judged(sampled(0.5, "confidence < 0.5"), spans)
    assert verdict.keep.tolist() == [True]
    assert int(verdict.threshold[0]) == 12 << 52


def test_rate_zero_keeps_nothing_and_rate_one_everything() -> None:
    spans = [span(trace, attributes=INFERENCE) for trace in (1, HIGH_R)]
    assert judged(sampled(0.0), spans).keep.tolist() == [False, False]
    verdict = judged(sampled(1.0), spans)
    assert verdict.keep.tolist() == [True, True]
    assert verdict.threshold.tolist() == [0, 0]


def test_an_empty_batch_is_judged() -> None:
    assert len(judged(sampled(), []).keep) == 0


def test_many_reasons_fit_one_byte() -> None:
    rules = tuple(parse_rule(f"confidence < 0.{number:03d}") for number in range(1, 250))
    first = contract("damage-net", sampling=SamplingRule(keep=rules, rate=0.0))
    others = [contract(f"m{number:03d}") for number in range(200)]
    spans = [
        span(1, attributes={**INFERENCE, "edgeai.inference.confidence": 0.2485}),
        span(2, attributes=INFERENCE),
        span(3, attributes={"edgeai.model.name": "m199"}),
    ]
    verdict = judged(plan(first, *others, rate=0.0), spans)
    assert len(verdict.reasons) <= 256
    assert reasons(verdict) == ["keep:~other", "sampled:damage-net", "sampled:~other"]


def test_a_budget_raises_the_threshold_from_past_bytes() -> None:
    the_plan = sampled(1.0, bytes_per_second=1_000)
    decide = Decide(the_plan)
    measure = Measure(the_plan, MeasureSettings())
    rng = np.random.default_rng(1)
    sent = []
    for second in range(120):
        arrival_ns = START_NS + second * SECOND_NS
        spans = [span(int(trace), attributes=INFERENCE) for trace in rng.integers(1, 1 << 62, 100)]
        one = batch(the_plan, payload(request(spans), arrival_ns=arrival_ns))
        verdict = decide.judge(one, measure.observe(one))
        size = int(verdict.keep.sum()) * 100
        decide.spent(np.array([size, 0]), arrival_ns)
        sent.append(size)
        threshold = int(verdict.threshold[0])
        assert (verdict.threshold == threshold).all()
        assert threshold < RANGE
    assert sent[0] == 10_000
    assert np.mean(sent[30:]) == pytest.approx(1_000, rel=0.25)


def test_the_state_comes_back() -> None:
    the_plan = sampled(1.0, bytes_per_second=1_000)
    one, other = Decide(the_plan), Decide(the_plan)
    judged(the_plan, [span(1, attributes=INFERENCE)], one)
    one.spent(np.array([500, 0]), START_NS + 5 * SECOND_NS)
    other.restore(one.state())
    assert all(np.array_equal(value, other.state()[key]) for key, value in one.state().items())


def test_a_state_of_other_budgets_is_left_out() -> None:
    one, other = Decide(sampled(1.0, bytes_per_second=1_000)), Decide(sampled(1.0))
    before = other.state()
    other.restore(one.state())
    assert all(np.array_equal(value, other.state()[key]) for key, value in before.items())
