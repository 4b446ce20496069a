"""One budget for all detectors: who counts, which bounds are in force, and evidence that lasts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.measure import FalseAlarms
from gateway.measure.drift.baseline import Baseline
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.fleet import Budget
from gateway.measure.state import Int64
from tests.unit.measure.drift.test_detector import TICK_NS, learned, scores

LOG_A = float(np.log(259_200))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=30))
def test_the_count_never_falls_and_holds_all_that_run(told: list[tuple[str, int]]) -> None:
    budget, running, before = Budget(FalseAlarms.SITE), dict[str, int](), 0
    for kind, count in told:
        budget.tell(kind, count)
        running[kind] = count
        assert budget.detectors >= max(before, sum(running.values()))
        before = budget.detectors
    budget.restore(before - 1)
    assert budget.detectors == before
    budget.restore(before + 1)
    assert budget.detectors == before + 1


def test_only_a_site_shares() -> None:
    for per, sharing in ((FalseAlarms.SIGNAL, 1), (FalseAlarms.SITE, 7)):
        budget = Budget(per)
        assert budget.sharing == 1
        budget.tell("streams", 4)
        budget.tell("rates", 3)
        assert (budget.detectors, budget.sharing) == (7, sharing)


def test_all_bounds_follow_the_count_of_detectors() -> None:
    bank, baseline = Bank(), learned()
    bank.reserve(4)
    rows = np.arange(4)
    for row, log_a in enumerate((LOG_A, LOG_A, 5.0)):
        bank.arm(row, baseline, 0.1, log_a)
        bank.share(row + 1)
    expected = np.array([LOG_A, LOG_A, 5.0, np.inf]) + np.log(3)
    assert bank.log_bound(rows) == pytest.approx(expected, rel=1e-15)
    # However the count was reached, the bounds are the same bit by bit.
    for detectors in (10, 1_000, 17):
        bank.share(detectors)
    other = Bank()
    other.share(17)
    other.reserve(4)
    for row, log_a in enumerate((LOG_A, LOG_A, 5.0)):
        other.arm(row, baseline, 0.1, log_a)
    assert np.array_equal(bank.log_bound(rows), other.log_bound(rows))


def of_many(baseline: Baseline, ticks: list[Int64], log_bound: float, patience: int) -> Bank:
    bank, row = Bank(patience), np.zeros(1, dtype=np.int64)
    bank.reserve(1)
    bank.arm(0, baseline, 0.0, log_bound)
    bank.clear(0, 0)
    for number, tick in enumerate(ticks, 1):
        bank.step(row, baseline.coarse(tick)[None], np.array([number * TICK_NS]))
    return bank


def test_without_an_alarm_what_lasts_is_the_evidence(seed: int) -> None:
    baseline = learned()
    ticks = scores(np.random.default_rng(seed), 7.5, 2.3, 60, 50)
    bank = of_many(baseline, ticks, np.inf, 1_000)
    assert bank.evidence[0] > LOG_A
    # Every step is rounded down by two units of single precision at most.
    assert bank.evidence[0] * (1 - 1e-5) <= bank.lasting[0] <= bank.evidence[0]


def test_an_alarm_does_not_set_back_what_lasts() -> None:
    baseline = learned()
    ticks = scores(np.random.default_rng(4), 7, 3, 60, 50)
    bank = of_many(baseline, ticks, LOG_A, 1_000)
    # Several alarms in a row: each starts at nothing, and the evidence of all of them adds up.
    assert bank.lasting[0] > 3 * LOG_A
    assert bank.lasting[0] > bank.evidence[0] + LOG_A


def test_what_lasts_starts_again_after_the_patience() -> None:
    baseline = learned()
    ticks = scores(np.random.default_rng(4), 7, 3, 60, 50)
    at = of_many(baseline, ticks[:40], np.inf, 40)
    assert at.lasting[0] == -np.inf
    assert at.evidence[0] > LOG_A
    after = of_many(baseline, ticks, np.inf, 40)
    assert 0 < after.lasting[0] < after.evidence[0]


def test_what_lasts_ends_with_the_episode_and_is_kept_in_the_state() -> None:
    baseline = learned()
    bank = of_many(baseline, scores(np.random.default_rng(4), 7, 3, 20, 50), LOG_A, 1_000)
    row = np.zeros(1, dtype=np.int64)
    other = Bank()
    other.restore(row, bank.state(row))
    assert other.lasting[0] == bank.lasting[0] > 0
    # A state from before there was any restores, and starts at nothing.
    older = {name: array for name, array in bank.state(row).items() if name != "lasting"}
    fresh = Bank()
    fresh.restore(row, older)
    assert fresh.lasting[0] == -np.inf
    assert np.array_equal(fresh.log_m[0], bank.log_m[0])
    bank.clear(0, 0)
    assert bank.lasting[0] == -np.inf
