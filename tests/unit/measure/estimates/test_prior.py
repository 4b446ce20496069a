"""How often classes are true, where the answer is known."""

import numpy as np
import pytest

from gateway.measure.estimates.prior import CONDITION_MAX, NoPrior, Prior, class_prior
from gateway.measure.state import Int64

# P(predicted | true) of three classes, columns add up to 1.
GIVEN = np.array([[0.9, 0.1, 0.05], [0.05, 0.8, 0.15], [0.05, 0.1, 0.8]])


def confusion(prior: list[float], labels: int = 100_000) -> Int64:
    """Counts as they are expected."""
    counts: Int64 = np.round(labels * GIVEN * np.array(prior)).astype(np.int64)
    return counts


def window(prior: list[float], events: int = 10_000_000) -> Int64:
    counts: Int64 = np.round(events * GIVEN @ np.array(prior)).astype(np.int64)
    return counts


@pytest.mark.parametrize("now", [[0.2, 0.3, 0.5], [0.7, 0.2, 0.1], [1.0, 0.0, 0.0]])
def test_a_shift_of_classes_is_found(now: list[float]) -> None:
    then = [0.7, 0.2, 0.1]
    counts = confusion(then)
    found = class_prior(counts, window(now))
    assert isinstance(found, Prior)
    np.testing.assert_allclose(found.shares, now, atol=1e-4)
    # As the source has it: w = C^-1 mu with the joint shares of the reference.
    weights = np.linalg.solve(counts / counts.sum(), window(now) / window(now).sum())
    np.testing.assert_allclose(found.weights, weights, atol=1e-9)


def test_a_class_that_was_never_seen_has_no_share() -> None:
    counts = np.zeros((4, 4), dtype=np.int64)
    counts[np.ix_([0, 1, 3], [0, 1, 3])] = confusion([0.5, 0.3, 0.2])
    now = np.zeros(4, dtype=np.int64)
    now[[0, 1, 3]] = window([0.1, 0.3, 0.6])
    found = class_prior(counts, now)
    assert isinstance(found, Prior)
    np.testing.assert_allclose(found.shares, [0.1, 0.3, 0.0, 0.6], atol=1e-4)


def test_shares_below_zero_are_cut() -> None:
    # More of the first class than any mixture of true ones could show.
    found = class_prior(confusion([0.4, 0.3, 0.3]), np.array([1_000, 0, 0]))
    assert isinstance(found, Prior)
    assert found.weights.min() < 0
    assert found.shares.min() == 0.0
    assert found.shares.sum() == pytest.approx(1.0)


def test_the_limit_is_on_the_condition_of_what_is_predicted_for_each_class() -> None:
    for mixed in (0.30, 0.44, 0.46, 0.49):
        # Two classes that are taken for one another alike.
        counts = np.round(np.array([[1 - mixed, mixed], [mixed, 1 - mixed]]) * 10_000)
        found = class_prior(counts.astype(np.int64), np.array([500, 500]))
        assert (found is NoPrior.ILL_CONDITIONED) == (1 / (1 - 2 * mixed) > CONDITION_MAX)
    same = np.array([[50, 50], [50, 50]])
    assert class_prior(same, np.array([5, 5])) is NoPrior.ILL_CONDITIONED


def test_a_rare_class_is_no_reason_to_refuse() -> None:
    found = class_prior(confusion([0.989, 0.01, 0.001]), window([0.5, 0.3, 0.2]))
    assert isinstance(found, Prior)


def test_without_labels_of_a_class_or_a_window_there_is_no_answer() -> None:
    counts = confusion([0.5, 0.3, 0.2])
    assert class_prior(counts, np.zeros(3, dtype=np.int64)) is NoPrior.NO_WINDOW
    counts[:, 1] = (0, 9, 0)
    assert class_prior(counts, window([0.5, 0.3, 0.2])) is NoPrior.FEW_LABELS
