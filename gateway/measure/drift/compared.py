"""The recent windows of many streams beside what they are held against, all in one step.

Law: reads only. A row is a stream that has a baseline; bins beyond those of its baseline are 0 in
every column. With a season a stream is held against the hour of its newest tick, as
`Streams.against` has it.
Complexity: one pass over the rows, and one more for each hour that is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.measure.drift.baseline import COARSE_BINS_MAX
from gateway.measure.drift.indices import jeffreys, kl
from gateway.measure.drift.streams import Streams
from gateway.measure.state import Int64
from gateway.tables import Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Windows and references. Shape: counts, q and shares (rows, COARSE_BINS_MAX), others (rows,).

    `row_of` tells the row of a stream's number. `total` are the events in a window, `size` how many
    independent ones it is worth, `events` those behind the shares; `q` are the window's shares. `k`
    is the unit of noise of every index, 1/n0 + 1/n, and `divergence` KL of the window less its mean
    without a change, in nats.
    """

    row_of: dict[int, int]
    counts: Float64
    total: Float64
    size: Float64
    q: Float64
    shares: Float64
    events: Float64
    delta: Float64
    bins: Int64

    k: Float64
    divergence: Float64


def compare(streams: Streams, numbers: Sequence[int]) -> Compared:
    """Compare those of the streams that have a baseline."""
    known = [each for each in numbers if each in streams.baselines]
    baselines = [streams.baselines[each] for each in known]
    rows = np.array(known, dtype=np.int64)
    counts, size = streams.bank.window(rows)
    shares = np.zeros((len(known), COARSE_BINS_MAX))
    for row, baseline in enumerate(baselines):
        shares[row, : baseline.bins] = baseline.shares
    phi = np.array([each.phi for each in baselines], dtype=np.float64)
    events = np.array([each.events for each in baselines], dtype=np.float64) / phi
    delta = streams.bank.delta[rows].copy()
    bins = np.array([each.bins for each in baselines], dtype=np.int64)
    if streams.seasons.judged:
        by_hour = np.flatnonzero([each in streams.seasons.judged for each in known])
        hours = streams.seasons.shown_hours(streams.bank, rows[by_hour])
        for hour in np.unique(hours).tolist():
            mine = by_hour[hours == hour]
            found = streams.seasons.references(rows[mine].tolist(), streams.baselines, hour)
            shares[mine], delta[mine] = found.shares, found.delta
            events[mine] = found.events / phi[mine]
    q = jeffreys(counts, bins)
    k = 1 / events + 1 / np.maximum(size, 1.0)
    return Compared(
        row_of={number: row for row, number in enumerate(known)},
        counts=counts,
        total=counts.sum(axis=1),
        size=size,
        q=q,
        shares=shares,
        events=events,
        delta=delta,
        bins=bins,
        k=k,
        # Twice KL is chi-squared of B - 1 degrees times k where nothing changes.
        divergence=kl(q, shares) - (bins - 1) * k / 2,
    )
