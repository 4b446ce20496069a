"""Laws of sampling: nesting, consistency over a trace, unbiased counts, stages in a row."""

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Batch, Findings, Verdict
from gateway.config.keep import parse_rule
from gateway.contract.plan import Plan
from gateway.contract.schema import SamplingRule
from gateway.decide import Decide
from gateway.measure import Measure, MeasureSettings
from gateway.otlp.threshold import RANGE, encode
from gateway.tables import NO_THRESHOLD, Bool, UInt64
from tests.unit.measure.build import START_NS, Fleet, batch, contract, payload, plan, request, span

SPANS = 400


def sampled(rate: float, *rules: str) -> Plan:
    keep = tuple(parse_rule(rule) for rule in rules)
    return plan(contract(sampling=SamplingRule(keep=keep, rate=rate)), keep=())


def judged(the_plan: Plan, one: Batch) -> tuple[Verdict, Findings]:
    findings = Measure(the_plan, MeasureSettings()).observe(one)
    return Decide(the_plan).judge(one, findings), findings


@functools.cache
def made(seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    the_plan = sampled(1.0)
    fleet = Fleet(the_plan, size=SPANS, devices=4, seed=seed)
    return fleet.batch(START_NS, rng.beta(8, 2, SPANS), failed=rng.random(SPANS) < 0.05)


def weights(threshold: UInt64, keep: Bool) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Adjusted counts: 2**56 / (2**56 - T) for what is kept."""
    found: np.ndarray[tuple[int], np.dtype[np.float64]]
    found = RANGE / (RANGE - threshold[keep].astype(np.float64))
    return found


@given(
    st.integers(min_value=0, max_value=1_000),
    st.floats(min_value=0, max_value=1),
    st.floats(min_value=0, max_value=1),
)
def test_what_a_lower_rate_keeps_a_higher_rate_keeps(seed: int, one: float, two: float) -> None:
    low, high = sorted((one, two))
    rows = made(seed % 7)
    kept_low = judged(sampled(low), rows)[0].keep
    kept_high = judged(sampled(high), rows)[0].keep
    assert (kept_low <= kept_high).all()


@given(st.lists(st.integers(min_value=1, max_value=1 << 70), min_size=1, max_size=6, unique=True))
def test_spans_of_a_trace_are_decided_alike(traces: list[int]) -> None:
    the_plan = sampled(0.5)
    attributes = {"edgeai.model.name": "damage-net"}
    spans = [span(trace, n, attributes=attributes) for n in (1, 2, 3) for trace in traces]
    one = batch(the_plan, payload(request(spans)))
    keep = judged(the_plan, one)[0].keep.reshape(3, -1)
    assert (keep == keep[0]).all()


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.02])
@pytest.mark.parametrize("rules", [(), ("error",), ("error", "confidence < 0.6")])
def test_adjusted_counts_are_unbiased(rate: float, rules: tuple[str, ...]) -> None:
    the_plan = sampled(rate, *rules)
    estimates, failures, truth, failed_truth = [], [], 0, 0
    runs = 40
    for seed in range(runs):
        one = made(seed)
        verdict, findings = judged(the_plan, one)
        count = weights(verdict.threshold, verdict.keep)
        estimates.append(float(count.sum()))
        failures.append(float(count[findings.failed[verdict.keep]].sum()))
        truth += SPANS
        failed_truth += int(findings.failed.sum())
    # Five standard errors of a sum of independent rows, each of variance at most (1 - p) / p.
    margin = 5 * np.sqrt(truth * (1 - rate) / rate)
    assert abs(sum(estimates) - truth) <= margin
    if "error" in rules:
        assert sum(failures) == failed_truth
    else:
        assert abs(sum(failures) - failed_truth) <= 5 * np.sqrt(failed_truth * (1 - rate) / rate)


def after(one: Batch, verdict: Verdict) -> Batch:
    """What the next stage receives: the kept rows, with `ot=th` written."""
    rows = np.flatnonzero(verdict.keep)
    texts = [
        b"" if value == NO_THRESHOLD else b"ot=th:" + encode(value).encode()
        for value in verdict.threshold[rows].tolist()
    ]
    spans = one.spans[rows].copy()
    length = np.array([len(text) for text in texts], dtype=np.uint32)
    spans["state_length"] = length
    spans["state_offset"] = len(one.arena) + np.cumsum(length) - length
    added = np.frombuffer(b"".join(texts), dtype=np.uint8)
    return dataclasses.replace(
        one,
        spans=spans,
        slots=np.ascontiguousarray(one.slots[:, rows]),
        arena=np.concatenate((one.arena, added)),
    )


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.1), (0.1, 0.5), (0.3, 0.3), (1.0, 0.2)])
def test_two_stages_are_as_one_with_the_lower_rate(first: float, second: float) -> None:
    for seed in range(5):
        one = made(seed)
        early, _ = judged(sampled(first), one)
        arrived = after(one, early)
        late, _ = judged(sampled(second), arrived)
        alone, _ = judged(sampled(min(first, second)), one)
        assert arrived.spans["span_id"][late.keep].tolist() == (
            one.spans["span_id"][alone.keep].tolist()
        )
        assert late.threshold[late.keep].tolist() == alone.threshold[alone.keep].tolist()


def test_a_verdict_does_not_depend_on_the_rest_of_the_batch() -> None:
    one = made(3)
    whole, _ = judged(sampled(0.3, "error"), one)
    for part in (slice(0, 100), slice(100, 250), slice(399, 400)):
        some = dataclasses.replace(
            one, spans=one.spans[part], slots=np.ascontiguousarray(one.slots[:, part])
        )
        verdict, _ = judged(sampled(0.3, "error"), some)
        assert verdict.keep.tolist() == whole.keep[part].tolist()
        assert verdict.threshold.tolist() == whole.threshold[part].tolist()
