"""Hour-of-week references: which hour, which shares, and that the radius holds the truth."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from gateway.measure.drift.seasonal import (
    HOURS,
    PRIOR_EVENTS,
    hour_of_week,
    hourly_delta,
    hourly_shares,
)
from gateway.tables import Float64

MONDAY = datetime(2030, 1, 7, tzinfo=UTC)


def test_the_hour_of_the_week_begins_on_monday() -> None:
    for hours in (0, 1, 23, 24, 100, 167, 168, 169 + 52 * 168):
        at = MONDAY + timedelta(hours=hours, minutes=59)
        at_ns = np.array([int(at.timestamp()) * 1_000_000_000])
        assert hour_of_week(at_ns)[0] == at.weekday() * 24 + at.hour == hours % HOURS


def test_shares_are_drawn_towards_the_week() -> None:
    shares = np.array([0.5, 0.3, 0.2])
    counts = np.array([[0.0, 0.0, 0.0], [500.0, 0.0, 0.0], [0.0, 0.0, 1e9]])
    drawn = hourly_shares(counts, shares)
    assert drawn[0] == pytest.approx(shares)
    assert drawn[1] == pytest.approx([0.75, 0.15, 0.1])
    assert drawn[2] == pytest.approx([0, 0, 1], abs=1e-6)
    assert (drawn > 0).all()
    assert drawn.sum(axis=1) == pytest.approx(np.ones(3))
    assert PRIOR_EVENTS == 500


def rhythm(shares: Float64, depth: float) -> Float64:
    """Return laws that swing over the day between more low and more high bins."""
    ramp = np.linspace(-1, 1, len(shares))
    turn = np.sin(2 * np.pi * np.arange(HOURS) / 24)[:, None]
    laws = shares * (1 + depth * turn * ramp)
    found: Float64 = laws / laws.sum(axis=1, keepdims=True)
    return found


@pytest.mark.parametrize("events", [30, 300, 5_000])
def test_the_radius_holds_the_truth_of_all_hours(events: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(20, 5.0))
    outside = 0
    for _ in range(100):
        laws = rhythm(shares, 0.4)
        counts = rng.multinomial(events, laws).astype(np.float64)
        week = counts.sum(axis=0) / counts.sum()
        drawn = hourly_shares(counts, week)
        distance = np.sqrt(((laws - drawn) ** 2 / drawn).sum(axis=1))
        outside += bool((distance > hourly_delta(counts, week, 0.0, 1.0)).any())
    assert outside <= 5


def test_the_radius_holds_laws_of_hours_that_lack_what_the_week_has(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outside = 0
    for _ in range(1_000):
        bins = int(rng.integers(2, 20))
        week = np.array([1e-5, *rng.dirichlet(np.full(bins, 2.0))])
        week /= week.sum()
        law = np.array([0, *rng.dirichlet(np.full(bins, rng.choice([0.1, 0.5, 2.0])))])
        events = int(10 ** rng.uniform(2.5, 5.2))
        counts = rng.multinomial(events, law / law.sum()).astype(np.float64)
        drawn = hourly_shares(counts, week, 1e-5)
        distance = np.sqrt(((law - drawn) ** 2 / drawn).sum())
        outside += bool(distance > hourly_delta(counts, week, 0.0, 1.0, 1e-5))
    # ETA over all hours of a week would allow far less than one.
    assert outside == 0


def test_an_hour_that_was_never_seen_finds_nothing() -> None:
    shares = np.full(20, 0.05)
    delta = hourly_delta(np.zeros((HOURS, 20)), shares, 0.1, 1.0)
    assert (delta > 5).all()
    assert np.isfinite(delta).all()
