"""Byte budgets: held over bursts, fixed before the window, fair to rates."""

import numpy as np
import pytest

from gateway.decide.budget import PROBABILITY_MIN, WINDOW_NS, Budgets

NO_LIMIT = float("inf")
ROW_BYTES = 100


def budgets(
    *limits: float, group: tuple[int, ...] = (0,), rate: tuple[float, ...] = (1.0,)
) -> Budgets:
    return Budgets(np.array(limits), np.array(group), np.array(rate))


def second(
    one: Budgets, number: int, rest: int, by_rule: int = 0, *, rng: np.random.Generator
) -> int:
    """Offer rows for a second, send what the probabilities say, and return the bytes."""
    one.turn(number * WINDOW_NS)
    rows = np.zeros(rest + by_rule, dtype=np.int64)
    one.offer(rows, np.arange(rest + by_rule) < by_rule)
    storm, calm = one.probability[0].tolist()
    kept = int(rng.binomial(by_rule, storm) + rng.binomial(rest, calm))
    one.spend(np.array([kept]), np.array([kept * ROW_BYTES]))
    return kept * ROW_BYTES


def test_without_a_limit_everything_is_sent() -> None:
    one = budgets(NO_LIMIT)
    rng = np.random.default_rng(1)
    assert [second(one, number, 10_000, rng=rng) for number in range(5)] == [1_000_000] * 5


def test_steady_traffic_settles_at_the_budget() -> None:
    one = budgets(20_000)
    rng = np.random.default_rng(2)
    sent = [second(one, number, 5_000, rng=rng) for number in range(300)]
    assert np.mean(sent[60:]) == pytest.approx(20_000, rel=0.05)


@pytest.mark.parametrize("burst", [10, 100])
def test_the_mean_holds_over_bursts(burst: int) -> None:
    one = budgets(20_000)
    rng = np.random.default_rng(3)
    sent = [
        second(one, number, 400 * (burst if number % 100 < 5 else 1), rng=rng)
        for number in range(1_000)
    ]
    # The first window of a burst cannot be known; what it took too much is paid back.
    assert np.mean(sent) <= 20_000 * 1.05
    assert np.mean(sent) >= 20_000 * 0.6


def test_what_rules_keep_leaves_whole_until_it_alone_is_too_much() -> None:
    one = budgets(20_000)
    rng = np.random.default_rng(4)
    for number in range(50):
        second(one, number, 5_000, by_rule=100, rng=rng)
    assert one.probability[0, 0] == 1.0
    assert one.probability[0, 1] < 0.05
    sent = [second(one, number, 0, by_rule=5_000, rng=rng) for number in range(50, 400)]
    assert 0 < one.probability[0, 0] < 0.1
    assert np.mean(sent[50:]) == pytest.approx(20_000, rel=0.1)


def test_after_a_burst_some_budget_is_left() -> None:
    one = budgets(20_000)
    rng = np.random.default_rng(5)
    second(one, 0, 100, rng=rng)
    second(one, 1, 1_000_000, rng=rng)
    sent = [second(one, number, 400, rng=rng) for number in range(2, 30)]
    assert sum(sent[10:]) > 0


def test_a_pause_pays_the_debt() -> None:
    one = budgets(20_000)
    rng = np.random.default_rng(6)
    second(one, 0, 10_000, rng=rng)
    second(one, 5_000, 100, rng=rng)
    assert one.probability[0].tolist() == [1.0, 1.0]


def test_the_probability_of_a_window_is_fixed_before_it() -> None:
    one = budgets(1_000)
    one.turn(0)
    before = one.probability.copy()
    one.offer(np.zeros(10_000, dtype=np.int64), np.zeros(10_000, dtype=np.bool_))
    one.spend(np.array([10_000]), np.array([1_000_000]))
    one.turn(WINDOW_NS - 1)
    assert np.array_equal(one.probability, before)


def test_a_low_rate_is_not_cut_for_the_demand_of_others() -> None:
    # 10,000 rows at 1 % and 100 rows at 100 %: 200 rows of 100 bytes fit the budget exactly.
    one = budgets(20_000, group=(0, 0), rate=(0.01, 1.0))
    one.turn(0)
    contract = np.repeat([0, 1], [10_000, 100])
    one.offer(contract, np.zeros(len(contract), dtype=np.bool_))
    one.spend(np.array([200]), np.array([200 * 50]))
    one.spend(np.array([200]), np.array([200 * 100]))
    for _ in range(20):
        one.spend(np.array([1]), np.array([100]))
    one.turn(10 * WINDOW_NS)
    assert one.probability[0].tolist() == [1.0, 1.0]


def test_nothing_is_sampled_to_nothing() -> None:
    one = budgets(0.0)
    rng = np.random.default_rng(7)
    for number in range(5):
        second(one, number, 1_000, by_rule=10, rng=rng)
    assert one.probability[0].tolist() == [PROBABILITY_MIN] * 2


def test_the_state_comes_back_and_goes_on() -> None:
    one, other = budgets(20_000), budgets(20_000)
    rng = np.random.default_rng(8)
    for number in range(20):
        second(one, number, 5_000, rng=rng)
    other.restore(one.state())
    pair = [np.random.default_rng(9), np.random.default_rng(9)]
    for number in range(20, 40):
        sent = [
            second(each, number, 900, rng=r) for each, r in zip((one, other), pair, strict=True)
        ]
        assert sent[0] == sent[1]
    assert all(np.array_equal(value, other.state()[key]) for key, value in one.state().items())
