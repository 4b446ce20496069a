"""What a rollout spends, compared with a naive sum, closed forms and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.schema import Indicator
from gateway.measure.rollouts.allocation import (
    Level,
    Spend,
    allocate,
    level_of,
    spend_of,
    suppresses,
)
from gateway.measure.rollouts.rollout import NEVER_NS

_shares = st.floats(0, 1)


def spend(rollout: tuple[int, int], control: tuple[int, int], before: float = 0.0) -> Spend:
    """The spend of one stretch of (bad, all) of a rollout and its control."""
    return spend_of(np.array([[*rollout, *control]], dtype=np.int64), before)


def test_the_spend_of_one_stretch_is_the_formula() -> None:
    found = spend((30, 1_000), (18, 9_000))
    assert found.excess == pytest.approx(30 - 18 / 9_000 * 1_000, rel=1e-12)
    assert found.share(0.001, 720_000) == pytest.approx(28 / 720, rel=1e-12)
    assert found.is_confident


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 500), st.integers(0, 50), st.integers(0, 500)),
        min_size=1,
        max_size=20,
    ),
    _shares,
)
def test_stretches_add_up_as_a_naive_sum_does(
    rows: list[tuple[int, int, int, int]], before: float
) -> None:
    cells = [(bad, bad + good, wrong, wrong + right) for bad, good, wrong, right in rows]
    control_bad, control = sum(row[2] for row in cells), sum(row[3] for row in cells)
    rest = control_bad / control if control else before
    expected = sum((each[2] / each[3] if each[3] else rest) * each[1] for each in cells if each[1])
    found = spend_of(np.array(cells, dtype=np.int64), before)
    assert found.expected == pytest.approx(expected, abs=1e-9)
    assert found.alone == sum(each[1] for each in cells if not each[3])
    assert found.excess == pytest.approx(max(0.0, sum(c[0] for c in cells) - expected), abs=1e-9)


def test_a_bad_hour_for_all_charges_nobody_however_the_traffic_moves() -> None:
    # A good hour with a tenth of the traffic, then one with a fifth of bad events and most of it.
    strata = np.array([[1, 1_000, 9, 9_000], [1_800, 9_000, 200, 1_000]], dtype=np.int64)
    assert spend_of(strata, 0.0).excess == pytest.approx(0)
    pooled = 1_801 - 209 / 10_000 * 10_000
    assert pooled > 1_500, "one sum over both hours would have blamed the rollout"


def test_without_a_control_the_past_stands_in_and_confidence_is_low() -> None:
    found = spend((30, 1_000), (0, 0), before=0.01)
    assert found.excess == pytest.approx(20)
    assert not found.is_confident


@given(st.lists(st.tuples(st.none() | st.floats(0.001, 1), _shares), max_size=20), _shares)
def test_allocations_never_pass_what_is_left(
    asked: list[tuple[float | None, float]], remaining: float
) -> None:
    reserved = 0.0
    for wanted, rule in asked:
        found = allocate(asked=wanted, rule=rule, remaining=remaining, reserved=reserved)
        assert 0 <= found <= max(0.0, remaining - reserved)
        reserved += found
        assert reserved <= remaining + 1e-12


@pytest.mark.parametrize(
    ("asked", "remaining", "reserved", "expected"),
    [
        (None, 1.0, 0.0, 0.25),
        (None, 0.3, 0.0, 0.15),
        (None, 1.0, 0.8, 0.1),
        (0.6, 1.0, 0.0, 0.6),
        (0.6, 0.5, 0.0, 0.5),
        (0.6, -2.0, 0.0, 0.0),
        (None, 0.5, 0.7, 0.0),
    ],
)
def test_the_default_is_a_quarter_and_at_most_half_of_what_is_left(
    asked: float | None, remaining: float, reserved: float, expected: float
) -> None:
    found = allocate(asked=asked, rule=0.25, remaining=remaining, reserved=reserved)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rollout", "spent", "expected"),
    [
        ((30, 1_000), 0.24, Level.HALT),
        ((30, 1_000), 0.2, Level.HALT),
        ((30, 1_000), 0.19, Level.WARN),
        ((30, 1_000), 0.1, Level.WARN),
        ((30, 1_000), 0.09, Level.OK),
        # Without support nothing halts, and what would have halted is a warning.
        ((2, 2), 0.5, Level.WARN),
        ((2, 2), 0.15, Level.OK),
        # A share of bad events that the control has as well.
        ((3, 1_000), 0.5, Level.WARN),
    ],
)
def test_half_of_an_allocation_warns_and_all_of_it_halts(
    rollout: tuple[int, int], spent: float, expected: Level
) -> None:
    assert level_of(spend(rollout, (18, 9_000)), spent, 0.2) is expected


def test_equal_versions_are_seldom_told_to_halt(seed: int) -> None:
    rng = np.random.default_rng(seed)
    budget, period, trials = 0.01, 200_000, 400
    halted = 0
    for _ in range(trials):
        # A day of five-minute stretches, a tenth of the traffic on the new version.
        control = rng.poisson(45, 288)
        rollout = rng.poisson(5, 288)
        strata = np.stack(
            (rng.binomial(rollout, budget), rollout, rng.binomial(control, budget), control), axis=1
        )
        found = spend_of(strata.astype(np.int64), budget)
        halted += level_of(found, found.share(budget, period), 0.005) is Level.HALT
    # The guard is one-sided at 95 %, the control's own noise adds to it.
    assert halted / trials < 0.12


@pytest.mark.parametrize(
    ("indicator", "quiet_until_ns", "control", "expected"),
    [
        (Indicator.SUCCESS, NEVER_NS, False, True),
        (Indicator.SUCCESS, 11, False, True),
        (Indicator.SUCCESS, 10, False, False),
        (Indicator.SUCCESS, NEVER_NS, True, False),
        (Indicator.SUCCESS, None, False, False),
        (Indicator.INTEGRITY, NEVER_NS, False, False),
    ],
)
def test_only_a_rollouts_own_transients_are_not_told(
    indicator: Indicator, quiet_until_ns: int | None, control: bool, expected: bool
) -> None:
    found = suppresses(
        indicator, now_ns=10, quiet_until_ns=quiet_until_ns, control_is_burning=control
    )
    assert found is expected
