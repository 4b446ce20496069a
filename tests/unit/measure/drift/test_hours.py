"""What is learned of the hours of the week: cells, overdispersion, noise, self-check."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy import stats

from gateway.measure.drift.detector import Bank
from gateway.measure.drift.grid import Grid, GridKind
from gateway.measure.drift.hours import (
    PART_OF_QUARTER,
    PARTS,
    alarms_by_hour,
    cell_of,
    empty_table,
    freeze_hours,
    noise_within,
    overdispersion_within,
    references,
)
from gateway.measure.drift.indices import jeffreys, psi
from gateway.measure.drift.seasonal import HOURS
from gateway.measure.state import Int64
from gateway.tables import Float64, UInt32

SCORE = Grid(kind=GridKind.LOGIT)
MONDAY = datetime(2030, 1, 7, tzinfo=UTC)
LOG_BOUND = 12.47


def shares(a: float, b: float) -> Float64:
    """Return the law of Beta scores on the grid."""
    edges = SCORE.edges()
    edges[0], edges[-1] = 0, 1
    law = np.zeros(SCORE.width)
    law[: SCORE.bins] = np.diff(stats.beta.cdf(edges, a, b))
    found: Float64 = law / law.sum()
    return found


def laws(depth: float) -> Float64:
    """Return a law for each quarter of an hour, swinging over the day."""
    at = (np.arange(4 * HOURS) + 0.5) / 4
    swing = np.sin(2 * np.pi * at / 24) * (1 + 0.3 * np.sin(2 * np.pi * at / HOURS))
    return np.array([shares(8 - depth * each, 2 + depth / 2 * each) for each in swing])


def table_of(quarters: Int64) -> UInt32:
    """Put counts of quarters into their cells. Shape: (4 * HOURS, grid width)."""
    table = empty_table(SCORE)
    for quarter, counts in enumerate(quarters):
        table[quarter // 4, PART_OF_QUARTER[quarter % 4]] += counts.astype(np.uint32)
    return table


def drawn(rng: np.random.Generator, law: Float64, events: float, *, repeated: int = 1) -> UInt32:
    """Draw a week; `repeated` events are alike, as the frames of a scene."""
    sizes = rng.poisson(events / 4 / repeated, len(law))
    return table_of(repeated * rng.multinomial(sizes, law))


def test_a_cell_is_an_hour_and_a_part_of_it() -> None:
    for minutes in (0, 14, 15, 29, 30, 44, 45, 59, 60, 10_079, 10_080):
        at = MONDAY + timedelta(minutes=minutes)
        cell = int(cell_of(np.array([int(at.timestamp()) * 1_000_000_000]))[0])
        hour, part = divmod(cell, PARTS)
        assert hour == at.weekday() * 24 + at.hour
        assert part == (15 <= at.minute < 45)


@pytest.mark.parametrize(("events", "most"), [(40, 1.9), (1_000, 1.15), (20_000, 1.15)])
def test_a_rhythm_is_no_overdispersion(events: int, most: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = [freeze_hours(SCORE, drawn(rng, laws(2), events)).phi for _ in range(4)]
    # With few events most bins are thin, and the estimate is as uncertain as it says.
    assert sorted(found)[2] < most


@pytest.mark.parametrize("repeated", [3, 10])
def test_scenes_are_overdispersion_and_doubled(repeated: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = freeze_hours(SCORE, drawn(rng, laws(2), 2_000, repeated=repeated)).phi
    assert found == pytest.approx(2 * repeated, rel=0.1)


@pytest.mark.parametrize("repeated", [1, 8])
def test_scenes_show_where_a_tick_is_longer_than_half_an_hour(repeated: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    law = np.array([0.1, 0.5, 0.2, 0.2])
    coarse = np.zeros((HOURS, PARTS, len(law)), dtype=np.int64)
    coarse[:, 0] = repeated * rng.multinomial(2_000 // repeated, law, HOURS)
    found = overdispersion_within(coarse)
    assert found == pytest.approx(1 if repeated == 1 else 2 * repeated, rel=0.5)


def test_the_mean_of_chi_squared_is_that_of_the_table_however_few_events(seed: int) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.multinomial(2, [0.1, 0.5, 0.2, 0.2], (HOURS, PARTS))
    found = [overdispersion_within(rng.multinomial(2, [0.1, 0.5, 0.4], (HOURS, PARTS)))]
    assert found[0] < 1.3
    assert overdispersion_within(coarse[:, :1].repeat(2, axis=1)) == 1
    assert overdispersion_within(np.zeros((HOURS, PARTS, 3), dtype=np.int64)) == 1


@pytest.mark.parametrize(("depth", "events"), [(0, 500), (2, 60), (2, 1_200), (1, 20_000)])
def test_the_check_does_not_fail_for_the_rhythm(depth: float, events: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(3):
        assert not alarms_by_hour(SCORE, drawn(rng, laws(depth), events), 0.1, LOG_BOUND)


def test_the_check_fails_for_unrest_within_hours(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = drawn(rng, laws(1), 4_000)
    # In ten hours of one day the second part is of another law.
    table[30:40, 1] = rng.multinomial(2_000, shares(4, 4), 10)
    assert alarms_by_hour(SCORE, table, 0.1, LOG_BOUND)
    assert not alarms_by_hour(SCORE, empty_table(SCORE), 0.1, LOG_BOUND)


def test_noise_is_the_quantile_of_what_spans_show_against_their_hours(seed: int) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.multinomial(400, [0.1, 0.2, 0.3, 0.4], (HOURS, PARTS))
    coarse[3, 0] = [400, 0, 0, 0]
    by_hand = []
    for first in range(0, HOURS, 6):
        for part in range(PARTS):
            span = coarse[first : first + 6]
            hours = span.sum(axis=1) / span.sum(axis=(1, 2))[:, None]
            wanted = (span[:, part].sum(axis=1)[:, None] * hours).sum(axis=0)
            seen = span[:, part].sum(axis=0)
            k = 1.5 * (1 / seen.sum() - 1 / span.sum())
            by_hand.append(psi(jeffreys(seen), jeffreys(wanted)) - 3 * k)
    assert noise_within(coarse, 1.5) == pytest.approx(max(0, np.quantile(by_hand, 0.95)))
    assert noise_within(coarse // 1_000, 1.0) == 0


def test_the_radius_of_an_hour_holds_its_truth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    law = laws(2)
    outside = 0
    for _ in range(20):
        made = freeze_hours(SCORE, drawn(rng, law, 1_500))
        for hour in range(0, HOURS, 5):
            found = references([made], hour, np.array([0.0]))
            truth = made.coarse(law[4 * hour : 4 * hour + 4].mean(axis=0) * 1e9)[: made.bins] / 1e9
            drawn_shares = found.shares[0, : made.bins]
            chi = np.sqrt(((truth - drawn_shares) ** 2 / drawn_shares).sum())
            outside += chi > found.delta[0]
            assert found.shares.sum() == pytest.approx(1)
            assert drawn_shares[0] >= made.assumed
    assert outside == 0


def test_a_strong_rhythm_stays_within_the_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    law, streams, ticks, a = laws(2), 12, 4, 50
    baselines = [freeze_hours(SCORE, drawn(rng, law, 1_200)) for _ in range(streams)]
    rows, banks = np.arange(streams), (Bank(), Bank())
    for bank in banks:
        bank.reserve(streams)
        for row, baseline in enumerate(baselines):
            bank.arm(row, baseline, 0.1, float(np.log(a)))
    hourly, weekly = banks
    alarms = {id(bank): 0 for bank in banks}
    before = None
    for hour in range(HOURS):
        found = references(baselines, hour, np.full(streams, 0.1))
        hourly.refer(rows, found.shares, found.delta)
        if before is not None:
            hourly.carry(rows, before)
        before = found.shares
        for quarter in range(ticks):
            counts = rng.multinomial(80, law[4 * hour + quarter], streams)
            pairs = zip(baselines, counts, strict=True)
            coarse = np.array([baseline.coarse(each) for baseline, each in pairs])
            for bank in banks:
                alarms[id(bank)] += len(bank.step(rows, coarse, np.ones_like(rows)))
    budget = streams * HOURS * ticks / a
    assert alarms[id(hourly)] <= budget / 2
    assert alarms[id(weekly)] > 10 * budget
