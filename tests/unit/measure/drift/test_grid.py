"""Grids: every value has one bin, by the value and the grid alone."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.measure.drift.grid import (
    SCORE_BINS,
    Grid,
    GridKind,
    bins_of_classes,
    bins_of_numbers,
)

NUMERIC = (
    Grid(kind=GridKind.LOGIT),
    Grid(kind=GridKind.LOGIT, low=0.0, high=100.0),
    Grid(kind=GridKind.LINEAR, low=-2.0, high=6.0),
    Grid(kind=GridKind.LOG),
)


def one(grid: Grid, value: float, *, missing: bool = False) -> int:
    return int(bins_of_numbers(grid, np.array([value]), np.array([missing]))[0])


@pytest.mark.parametrize("grid", NUMERIC, ids=lambda grid: grid.name)
@given(value=st.floats(allow_nan=True, allow_infinity=True))
def test_a_value_lies_between_the_edges_of_its_bin(grid: Grid, value: float) -> None:
    found = one(grid, value)
    if found == grid.odd:
        in_range = math.isfinite(value) and (
            grid.kind is GridKind.LOG or grid.low <= value <= grid.high
        )
        assert not in_range
        return
    edges = grid.edges()
    slack = 1e-9 * max(1.0, abs(grid.high))
    if 0 < found < grid.bins - 1:
        assert edges[found] - slack <= value <= edges[found + 1] + slack


@pytest.mark.parametrize("grid", NUMERIC, ids=lambda grid: grid.name)
def test_every_bin_can_be_reached(grid: Grid) -> None:
    edges = grid.edges()
    middle = (edges[:-1] + edges[1:]) / 2
    found = bins_of_numbers(grid, middle, np.zeros(len(middle), dtype=np.bool_))
    assert found.tolist() == list(range(grid.bins))


@pytest.mark.parametrize("grid", NUMERIC, ids=lambda grid: grid.name)
def test_edges_rise(grid: Grid) -> None:
    assert (np.diff(grid.edges()) > 0).all()
    assert len(grid.edges()) == grid.bins + 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-9, 1.0 + 1e-9, 1e308])
def test_what_is_no_score_is_odd(value: float) -> None:
    assert one(NUMERIC[0], value) == SCORE_BINS + 1


def test_missing_is_not_odd() -> None:
    assert one(NUMERIC[0], math.nan, missing=True) == SCORE_BINS


def test_the_ends_of_the_range_are_in_it() -> None:
    assert one(NUMERIC[0], 0.0) == 0
    assert one(NUMERIC[0], 1.0) == SCORE_BINS - 1
    assert one(NUMERIC[2], -2.0) == 0
    assert one(NUMERIC[2], 6.0) == SCORE_BINS - 1


def test_the_log_grid_has_the_stated_gamma() -> None:
    edges = NUMERIC[3].edges()
    positive = edges[edges > 0]
    assert (positive[1:] / positive[:-1]).max() <= 1.125 + 1e-12


def test_a_huge_range_gives_no_warning() -> None:
    grid = Grid(kind=GridKind.LINEAR, low=-1e308, high=7e307)
    assert one(grid, 1.7e308) == grid.odd


def test_classes_have_unseen_and_missing() -> None:
    grid = Grid(kind=GridKind.CLASSES, values=("ok", "torn"))
    codes = np.array([0, 1, -1, -1], dtype=np.int32)
    missing = np.array([False, False, False, True])
    found = bins_of_classes(grid, codes, missing)
    assert [grid.describe(int(each)) for each in found] == [
        "ok",
        "torn",
        "unseen class",
        "missing",
    ]


def test_names_tell_grids_apart() -> None:
    values = [("a|b",), ("a", "b"), ("a||b",)]
    names = {Grid(kind=GridKind.CLASSES, values=each).name for each in values}
    assert len(names) == len(values)
