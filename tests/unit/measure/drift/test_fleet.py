"""Fleet control: budgets of many detectors, reports, and evidence of sites."""

import numpy as np
import pytest

from gateway.measure.drift.fleet import combined, fleet_log_bound, rejected, reported

LOG_A = float(np.log(259_200))


def test_the_bound_of_a_fleet() -> None:
    # 10,000 detectors at 10 s ticks: 21.68 nats, 1.74 times the evidence of one.
    bound = float(fleet_log_bound(LOG_A, 10_000))
    assert bound == pytest.approx(21.68, abs=0.01)
    assert bound / LOG_A == pytest.approx(1.74, abs=0.005)
    assert float(fleet_log_bound(LOG_A, 1)) == LOG_A
    assert float(fleet_log_bound(LOG_A, 0)) == LOG_A


def test_reports_are_the_step_up_procedure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(200):
        log_m = rng.normal(4, 6, size=int(rng.integers(1, 40)))
        horizon, alpha = 50.0, 0.1
        kept = reported(log_m, horizon, alpha)
        # The definition, word by word.
        ordered = np.sort(log_m)[::-1]
        sizes = [
            k
            for k in range(1, len(log_m) + 1)
            if ordered[k - 1] >= np.log(len(log_m) * horizon / (alpha * k))
        ]
        assert len(kept) == max(sizes, default=0)
        assert np.array_equal(log_m[kept], ordered[: len(kept)])
    assert len(reported(np.zeros(0), 50.0, 0.1)) == len(rejected(np.zeros(0), 0.1)) == 0


def test_a_detector_with_nothing_to_say_is_not_reported() -> None:
    log_m = np.array([-np.inf, 30.0, -np.inf, 29.0])
    assert reported(log_m, 259_200, 0.05).tolist() == [1, 3]
    assert rejected(log_m, 0.05).tolist() == [1, 3]


def test_few_reports_are_false_whatever_the_dependence(seed: int) -> None:
    # All nulls share one e-value, the hardest dependence; a tenth of the detectors drift.
    rng = np.random.default_rng(seed)
    detectors, drifting, alpha, runs = 100, 10, 0.2, 4_000
    shares = np.zeros(runs)
    for run in range(runs):
        shared = rng.normal(-0.5 * 9, 3)
        log_e = np.concatenate((np.full(drifting, 9.0), np.full(detectors - drifting, shared)))
        kept = rejected(log_e, alpha)
        shares[run] = (kept >= drifting).sum() / max(len(kept), 1)
    assert shares.mean() <= alpha + 4 * shares.std() / np.sqrt(runs)
    assert shares.mean() > 0


def test_evidence_of_sites_adds_with_weights() -> None:
    log_m = np.array([[1.0, 2.0, -np.inf], [0.0, 0.0, 0.0]])
    weights = np.array([0.5, 0.25, 0.25])
    expected = np.log(np.exp(log_m) @ weights)
    assert combined(log_m, weights) == pytest.approx(expected, rel=1e-12)
    assert combined(log_m, np.array([1.0, 0.0, 0.0])) == pytest.approx([1.0, 0.0])
