"""Evidence against calibration: exact in mean, rarely large by chance, found when it is there."""

import itertools
import math

import numpy as np
import pytest

from gateway.measure.drift.grid import Grid, GridKind, bins_of_numbers
from gateway.measure.estimates.curve import probabilities
from gateway.measure.estimates.wager import (
    ALPHA,
    BOLDNESS,
    DECAY,
    LOG_BOUND,
    SCATTER_FIRST,
    Wager,
)
from gateway.tables import Bool, Float64
from tests.conftest import FUZZ

GRID = Grid(kind=GridKind.LOGIT)
EDGES = probabilities(GRID)
RUNS = 4_000 if FUZZ else 250


def bets(wager: Wager, confidence: Float64, right: Bool) -> list[float]:
    """Take labels whose confidence is known up to its bin; return the evidence after each."""
    bins = bins_of_numbers(GRID, confidence, np.zeros(len(confidence), dtype=np.bool_))
    evidence = []
    rows = zip(right.tolist(), EDGES[bins].tolist(), EDGES[bins + 1].tolist(), strict=True)
    for at, (is_right, low, high) in enumerate(rows):
        wager.take(is_right, low, high, at + 1)
        evidence.append(wager.log_evidence)
    return evidence


def mean_evidence(confidence: list[float], truth: list[float], half_bin: float) -> float:
    """Return the mean of the evidence over all orders of right and wrong, by their probability."""
    total = 0.0
    for answers in itertools.product((False, True), repeat=len(confidence)):
        wager, probability = Wager(), 1.0
        for is_right, claimed, real in zip(answers, confidence, truth, strict=True):
            wager.take(is_right, claimed - half_bin, claimed + half_bin, 1)
            probability *= real if is_right else 1 - real
        total += probability * math.exp(wager.log_evidence)
    return total


CLAIMED = [0.9, 0.6, 0.75, 0.9, 0.5, 0.8, 0.95, 0.7, 0.85, 0.99, 0.6, 0.4]


def test_the_mean_of_the_evidence_is_one_while_the_model_is_calibrated() -> None:
    assert mean_evidence(CLAIMED, CLAIMED, 0.0) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("off", [-0.009, 0.0, 0.009])
def test_wherever_in_its_bin_the_truth_is_the_mean_is_one_at_most(off: float) -> None:
    truth = [each + off for each in CLAIMED]
    assert mean_evidence(CLAIMED, truth, 0.009) <= 1 + 1e-12


def test_a_model_that_is_not_calibrated_makes_the_mean_grow() -> None:
    assert mean_evidence(CLAIMED, [each - 0.3 for each in CLAIMED], 0.0) > 1.1


def test_the_evidence_is_the_mean_of_two_products() -> None:
    rng = np.random.default_rng(5)
    claimed, right = rng.uniform(0.2, 0.95, 400), rng.random(400) < 0.5
    wager, more, less = Wager(), 1.0, 1.0
    surplus = scatter = 0.0
    for confidence, is_right in zip(claimed.tolist(), right.tolist(), strict=True):
        if wager.alarmed_ns:
            break
        sure = max(0.0, abs(surplus) - math.sqrt(scatter)) / (scatter + SCATTER_FIRST)
        residue = is_right - confidence
        up = min(sure, BOLDNESS / confidence) if surplus > 0 else 0.0
        down = max(-sure, -BOLDNESS / (1 - confidence)) if surplus < 0 else 0.0
        # Fixed before the answer, and within the limits in which no factor is negative.
        assert -1 / (1 - confidence) < down <= 0 <= up < 1 / confidence
        more, less = more * (1 + up * residue), less * (1 + down * residue)
        surplus, scatter = DECAY * surplus + residue, DECAY * scatter + residue**2
        wager.take(is_right, confidence, confidence, 1)
        assert math.exp(wager.log_evidence) == pytest.approx((more + less) / 2)
    assert wager.log_less > wager.log_more


@pytest.mark.parametrize(("a", "b"), [(8.0, 2.0), (30.0, 1.0), (1.0, 1.0)])
def test_evidence_passes_a_bound_by_chance_as_seldom_as_it_says(
    seed: int, a: float, b: float
) -> None:
    rng = np.random.default_rng(seed)
    highest = []
    for _ in range(RUNS):
        claimed = rng.beta(a, b, 1_000)
        highest.append(max(bets(Wager(), claimed, rng.random(1_000) < claimed)))
    for alpha in (0.2, 0.1, ALPHA):
        passed = np.mean(np.array(highest) >= -math.log(alpha))
        assert passed <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / RUNS)


@pytest.mark.parametrize("off", [-0.1, 0.08])
def test_a_model_that_is_off_is_found(seed: int, off: float) -> None:
    rng = np.random.default_rng(seed)
    needed = []
    for _ in range(20):
        claimed = rng.beta(8, 2, 3_000)
        wager = Wager()
        evidence = bets(wager, claimed, rng.random(3_000) < claimed + off)
        assert wager.alarmed_ns
        needed.append(int(np.argmax(np.array(evidence) >= LOG_BOUND)))
        assert (wager.log_less > wager.log_more) == (off < 0)
    assert np.median(needed) < 1_000


def test_it_is_found_after_a_long_good_time_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    claimed = rng.beta(8, 2, 13_000)
    real = claimed - 0.1 * (np.arange(13_000) >= 10_000)
    wager = Wager()
    evidence = bets(wager, claimed, rng.random(13_000) < real)
    assert evidence[9_999] > -4
    assert wager.alarmed_ns > 10_000
    assert 10_000 - 600 < wager.onset_ns < wager.alarmed_ns


def test_an_alarm_ends_when_recent_labels_show_nothing_of_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wager = Wager()
    claimed = rng.beta(8, 2, 2_000)
    bets(wager, claimed, rng.random(2_000) < claimed - 0.15)
    assert wager.alarmed_ns
    assert wager.mean_surplus == pytest.approx(-0.15, abs=0.06)
    claimed = rng.beta(8, 2, 12_000)
    evidence = bets(wager, claimed, rng.random(12_000) < claimed)
    assert not wager.alarmed_ns
    assert max(evidence[-6_000:]) < LOG_BOUND
    assert wager.mean_surplus == pytest.approx(0.0, abs=0.06)


def test_an_error_of_the_surest_answer_does_not_break_it() -> None:
    wager = Wager()
    for at in range(300):
        wager.take(at % 3 > 0, float(EDGES[-2]), 1.0, at)
        wager.take(at % 3 > 0, 0.0, float(EDGES[1]), at)
    assert math.isfinite(wager.log_evidence)
