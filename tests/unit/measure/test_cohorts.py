"""What carrying devices share: the exact test as scipy has it, and what is not told."""

import numpy as np
import pytest
from scipy import stats

from gateway.measure.cohorts import COHORT_P, UNKNOWN, maybe_cohort


def test_a_cohort_is_told_exactly_when_fisher_says_so(seed: int) -> None:
    rng = np.random.default_rng(seed)
    told = 0
    for _ in range(300):
        alike, others = (int(each) for each in rng.integers(1, 14, 2))
        carrying = int(rng.integers(1, alike + 1))
        value = np.repeat([3, 7], [alike, others])
        carries = np.arange(alike + others) < carrying
        table = [[carrying, alike - carrying], [0, others]]
        p_value = stats.fisher_exact(table, alternative="greater").pvalue
        expected = 3 if 2 * p_value <= COHORT_P else None
        assert maybe_cohort(carries, value) == expected
        told += expected is not None
    assert 0 < told < 300


def test_devices_that_carry_it_must_all_be_alike() -> None:
    value = np.repeat([0, 1], [10, 10])
    carries = np.arange(20) < 10
    assert maybe_cohort(carries, value) == 0
    carries[19] = True
    assert maybe_cohort(carries, value) is None


def test_what_every_device_has_or_none_is_no_cohort() -> None:
    carries = np.arange(20) < 10
    assert maybe_cohort(carries, np.zeros(20, dtype=np.int64)) is None
    assert maybe_cohort(carries, np.full(20, UNKNOWN)) is None
    assert maybe_cohort(np.zeros(20, dtype=np.bool_), np.repeat([0, 1], [10, 10])) is None


@pytest.mark.parametrize("unknown", [1, 4])
def test_devices_of_which_nothing_is_known_do_not_count(unknown: int) -> None:
    value = np.repeat([0, 1], [10, 10])
    carries = np.arange(20) < 10
    value[:unknown] = UNKNOWN
    assert maybe_cohort(carries, value) == 0
