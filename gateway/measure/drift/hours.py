"""Learn what a signal looks like at each hour of the week, and judge what was learned.

Law: an event counts in the hour in which it arrived, in UTC, and in one of two parts of that hour:
its first and last quarter, or the two between them. The parts are drawn from the same law also
where that changes evenly during the hour, so what they differ by is overdispersion and unrest, not
rhythm: nothing here compares one hour with another.

Overdispersion: with two parts of n_1 and n_2 events, chi-squared of their table has the mean
(bins - 1) N / (N - 1) for independent events of one law, given the sums, however few events there
are and whatever the hour's law is. So phi is the sum of chi-squared of all hours over the sum of
those means. A part is half an hour long, which leaves room for scenes of a minute.

What one week cannot tell: a change in the midst of the week that was learned from is taken for
rhythm, and alarms in the week after.

Memory: 168 hours x 2 parts x grid width counts while it is learned, 168 x coarse bins afterwards; a
count holds 2**32 - 1 events.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.measure.drift.baseline import (
    COARSE_BINS_MAX,
    EVENTS_PER_BIN_MIN,
    NOISE_QUANTILE,
    Baseline,
    allowed_phi,
    coarsened,
    groups,
    thawed,
)
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.grid import Grid
from gateway.measure.drift.indices import jeffreys, psi, psi_null
from gateway.measure.drift.seasonal import (
    HOUR_NS,
    HOURS,
    PRIOR_EVENTS,
    hour_of_week,
    hourly_delta,
    hourly_shares,
)
from gateway.measure.state import Int64
from gateway.tables import Float64, UInt32

PARTS: Final = 2
QUARTER_NS: Final = HOUR_NS // 4
WEEK_NS: Final = HOURS * HOUR_NS
# First against last, so that what changes evenly during an hour is in both parts alike.
PART_OF_QUARTER: Final = (0, 1, 1, 0)
# The noise of the index is that of the parts of this many hours: a quarter of a day.
SPAN_HOURS: Final = 6
DAY_HOURS: Final = 24
# Up to here phi is used as it is: a rhythm that bends inside an hour comes to some hundredths.
CURVED_PHI_MAX: Final = 1.1
# With fewer events a span says nothing of the index.
SPAN_EVENTS_MIN: Final = 200


def cell_of(at_ns: Int64) -> Int64:
    """Return hour of the week times PARTS plus part, 0 … 335, of Unix nanoseconds."""
    part = np.asarray(PART_OF_QUARTER)[at_ns // QUARTER_NS % len(PART_OF_QUARTER)]
    cell: Int64 = hour_of_week(at_ns) * PARTS + part
    return cell


def empty_table(grid: Grid) -> UInt32:
    """Return a table without events. Shape: (hours, parts, grid width)."""
    return np.zeros((HOURS, PARTS, grid.width), dtype=np.uint32)


def table_bytes(grid: Grid) -> int:
    """Return the size of a table in bytes."""
    return HOURS * PARTS * grid.width * np.dtype(np.uint32).itemsize


def freeze_hours(grid: Grid, table: UInt32, *, unsteady: bool = False) -> Baseline:
    """Make a baseline with hours from a table. Shape: (hours, parts, grid width)."""
    counts = table.sum(axis=(0, 1), dtype=np.int64)
    group = groups(grid, counts)
    coarse = coarsened(group, table)[..., : int(group.max()) + 1]
    phi = overdispersion_within(coarse)
    hours = coarse.sum(axis=1).astype(np.uint32)
    return thawed(
        grid, counts, phi, unsteady=unsteady, noise=noise_within(coarse, phi), hours=hours
    )


def overdispersion_within(coarse: Int64) -> float:
    """Estimate how much more the parts of an hour differ than independent events would make them.

    Shape: (hours, parts, coarse bins), the unusual first. Returns 1 or more, doubled where it is
    clearly above 1, as `overdispersion` does. Where no hour has both parts, as with ticks of more
    than half an hour, each two neighbouring hours are compared: their rhythm can only add to it.
    """
    used = coarse[:, :, 1:].astype(np.float64)
    if not (used.sum(axis=2) > 0).all(axis=1).any():
        used = used.sum(axis=1).reshape(len(used) // 2, PARTS, -1)
    # What an hour hardly shows is one bin there: thin ones would make chi-squared heavy-tailed.
    is_thin = (used.sum(axis=1) < EVENTS_PER_BIN_MIN)[:, None, :]
    pooled = np.where(is_thin, used, 0.0).sum(axis=2, keepdims=True)
    used = np.concatenate((np.where(is_thin, 0.0, used), pooled), axis=2)
    of_part, of_bin = used.sum(axis=2), used.sum(axis=1)
    total = of_part.sum(axis=1)
    known = (of_part > 0).all(axis=1)
    if not known.any():
        return 1.0
    used, of_part, of_bin, total = used[known], of_part[known], of_bin[known], total[known]
    expected = of_part[:, :, None] * of_bin[:, None, :] / total[:, None, None]
    distance = float(((used - expected) ** 2 / np.where(expected > 0, expected, 1.0)).sum())
    freedom = float((((of_bin > 0).sum(axis=1) - 1) * total / (total - 1)).sum())
    if freedom <= 0:
        return 1.0
    estimate = distance / freedom
    return max(1.0, estimate) if estimate <= CURVED_PHI_MAX else allowed_phi(estimate, freedom)


def noise_within(coarse: Int64, phi: float) -> float:
    """Return the debiased PSI against their own hours that 95 % of a reference's spans stay below.

    A span is one part of six hours; what it is held against is the mixture of the hours' shares by
    its events. Shape: (hours, parts, coarse bins).
    """
    counts = coarse.astype(np.float64)
    hours = counts.sum(axis=1)
    shares = hours / np.maximum(hours.sum(axis=1, keepdims=True), 1)
    expected = counts.sum(axis=2)[:, :, None] * shares[:, None, :]
    spans = (HOURS // SPAN_HOURS, SPAN_HOURS, PARTS, -1)
    seen, wanted = (each.reshape(spans).sum(axis=1) for each in (counts, expected))
    events, whole = seen.sum(axis=2), seen.sum(axis=(1, 2))[:, None]
    used = events >= SPAN_EVENTS_MIN
    if not used.any():
        return 0.0
    k = phi * (1 / np.maximum(events, 1) - 1 / np.maximum(whole, 1))
    debiased = psi(jeffreys(seen), jeffreys(wanted)) - psi_null(coarse.shape[2], k)
    return max(0.0, float(np.quantile(debiased[used], NOISE_QUANTILE)))


def alarms_by_hour(grid: Grid, table: UInt32, tolerance: float, log_bound: float) -> bool:
    """Say whether one part of the hours would alarm against the other, each in its own hour.

    A day is allowed the overdispersion of the other six, lest unrest on one day explains itself.
    """
    first, second = table[:, 0], table[:, 1]
    counts = first.sum(axis=0, dtype=np.int64)
    if not counts.any():
        return False
    group = groups(grid, counts)
    coarse = coarsened(group, table)
    hours = coarse[:, 0, : int(group.max()) + 1].astype(np.uint32)
    bank = Bank()
    bank.reserve(1)
    row, end_ns = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    before: Float64 | None = None
    for day in range(0, HOURS, DAY_HOURS):
        phi = overdispersion_within(np.delete(coarse, slice(day, day + DAY_HOURS), axis=0))
        baseline = thawed(grid, counts, phi, hours=hours)
        bank.arm(0, baseline, tolerance, log_bound)
        for hour in range(day, day + DAY_HOURS):
            if not second[hour].any():
                continue
            found = references([baseline], hour, np.array([tolerance]))
            bank.refer(row, found.shares, found.delta)
            if before is not None:
                bank.carry(row, before)
            before = found.shares
            if bank.step(row, coarse[hour, 1][None, :], end_ns):
                return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class HourReferences:
    """What streams are judged against at an hour of the week.

    Shape: shares (rows, COARSE_BINS_MAX), others (rows,). `events` are those that an hour's shares
    are worth, its own and the prior's. `benign` is the root of the PSI that an unchanged signal may
    show: the tolerance, and what drawing towards the week hides of the hour.
    """

    shares: Float64
    delta: Float64
    events: Float64
    benign: Float64


def references(baselines: Sequence[Baseline], hour: int, tolerance: Float64) -> HourReferences:
    """Return what baselines with hours say of an hour of the week. Shape: tolerance (rows,)."""
    counts = np.zeros((len(baselines), COARSE_BINS_MAX))
    weeks = np.zeros((len(baselines), COARSE_BINS_MAX))
    for row, baseline in enumerate(baselines):
        assert baseline.hours is not None
        counts[row, : baseline.bins] = baseline.hours[hour]
        weeks[row, : baseline.bins] = baseline.shares
    assumed = np.array([each.assumed for each in baselines])
    phi = np.array([each.phi for each in baselines])
    bins = np.array([each.bins for each in baselines])
    total = counts.sum(axis=1)
    shares = hourly_shares(counts, weeks, assumed)
    drawn = PRIOR_EVENTS / (total + PRIOR_EVENTS)
    hidden = psi(jeffreys(counts, bins), shares)
    hidden -= drawn**2 * psi_null(bins, phi / np.maximum(total, 1))
    return HourReferences(
        shares=shares,
        delta=hourly_delta(counts, weeks, tolerance, phi, assumed),
        events=total + PRIOR_EVENTS,
        benign=tolerance + np.sqrt(np.maximum(hidden, 0.0)),
    )
