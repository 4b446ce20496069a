"""Copy how all signals stand against their baselines.

Law: reads only; all streams are computed at once. The words for the bins of a baseline are made
once: they depend on what its digest is of, and are kept as long as a stream is judged by it.
Complexity: about 20 microseconds for a stream, and 50 for each baseline that was not shown before.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from gateway.measure.drift.compared import Compared
from gateway.measure.drift.indices import (
    Z_95,
    chi_squared,
    hellinger,
    jeffreys,
    js,
    js_distance_base2,
    kl,
    kolmogorov_smirnov,
    largest_difference,
    psi,
    psi_null,
    psi_sd,
    relative_drift,
    total_variation,
    wasserstein,
)
from gateway.measure.drift.streams import Streams
from gateway.measure.explain import INDICES, RELATIVE_INDEX
from gateway.measure.snapshot import DriftView
from gateway.measure.state import Int64
from gateway.tables import Bool, Float64


class BinWords:
    """What each bin of the baselines in force is called, by digest."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[str, ...]] = {}

    def keep(self, streams: Streams) -> Mapping[str, tuple[str, ...]]:
        """Make the words that are missing, and forget those of which no stream has need."""
        kept: dict[str, tuple[str, ...]] = {}
        for baseline in streams.baselines.values():
            if baseline.digest not in kept:
                known = self._of.get(baseline.digest)
                kept[baseline.digest] = baseline.words() if known is None else known
        self._of = kept
        return kept


def indices(compared: Compared, noise: Float64) -> dict[str, list[float]]:
    """Return what `drift_numbers` has of each row, 0 where a window is empty.

    `noise` are the baselines' own. Shape: (rows,).
    """
    size, k = np.maximum(compared.size, 1.0), compared.k
    raw = psi(compared.q, compared.shares)
    debiased = raw - psi_null(compared.bins, k)
    margin = Z_95 * psi_sd(compared.q, compared.shares, size, compared.events)
    distance = js(compared.q, compared.shares)
    values = (raw, debiased, debiased - margin, debiased + margin, distance)
    columns = dict(zip(INDICES, values, strict=True))
    columns[RELATIVE_INDEX] = relative_drift(debiased, compared.bins, k, noise)
    return {
        name: np.where(compared.total > 0, column, 0.0).tolist() for name, column in columns.items()
    }


def distances(compared: Compared, ordered: Bool) -> list[dict[str, float]]:
    """Return the other indices of each row by name, those of an order where bins have one.

    Kolmogorov-Smirnov lies between its two values. Wasserstein-1 is in ranks of the baseline, 0 to
    1, so that it needs no unit. What is unusual comes first, what is missing or odd last.
    Shape: ordered (rows,).
    """
    q, p = compared.q, compared.shares
    columns = {
        "kl_nats": kl(q, p),
        "js_nats": js(q, p),
        "js_distance_base2": js_distance_base2(q, p),
        "hellinger": hellinger(q, p),
        "total_variation": total_variation(q, p),
        "largest_difference": largest_difference(q, p),
        "chi_squared": chi_squared(q, p),
    }
    low, high = kolmogorov_smirnov(q, p)
    ranks = np.cumsum(p, axis=1) - p / 2
    in_order = {
        "kolmogorov_smirnov_low": low,
        "kolmogorov_smirnov_high": np.minimum(high, 1.0),
        "wasserstein_ranks": wasserstein(q, p, np.diff(ranks, axis=1)),
    }
    return [
        {
            name: float(column[row])
            for name, column in (columns | in_order if ordered[row] else columns).items()
        }
        if compared.total[row] > 0
        else {}
        for row in range(len(q))
    ]


def histories(streams: Streams, compared: Compared, rows: Int64) -> list[tuple[float, ...]]:
    """Return debiased PSI of the recent blocks of ticks of each row, oldest first, 0 at least.

    With a season there is none: blocks may be of other hours than the one that is shown.
    """
    counts = streams.bank.blocks(rows)
    events = counts.sum(axis=2)
    bins = compared.bins[:, None]
    raw = psi(jeffreys(counts, bins), compared.shares[:, None, :])
    k = 1 / compared.events[:, None] + 1 / np.maximum(events, 1)
    found = np.maximum(raw - psi_null(bins, k), 0.0)
    return [
        ()
        if number in streams.seasons.judged
        else tuple(found[row][events[row] > 0][::-1].tolist())
        for row, number in enumerate(rows.tolist())
    ]


def drift_views(
    streams: Streams,
    compared: Compared,
    words: Mapping[str, Sequence[str]],
    alarmed: Collection[int],
) -> dict[int, DriftView]:
    """Copy each compared stream, by number. `alarmed` are those that are told of now."""
    numbers = list(compared.row_of)
    rows = np.array(numbers, dtype=np.int64)
    baselines = [streams.baselines[number] for number in numbers]
    found = indices(compared, np.array([each.noise for each in baselines], dtype=np.float64))
    current = (compared.counts / np.maximum(compared.total, 1e-300)[:, None]).tolist()
    expected, delta = compared.shares.tolist(), compared.delta.tolist()
    evidence = np.maximum(streams.bank.evidence[rows], 0.0).tolist()
    bound = streams.bank.log_bound(rows).tolist()
    size, total = compared.size.tolist(), compared.total.tolist()
    beside = distances(compared, np.array([each.is_ordered for each in baselines], dtype=np.bool_))
    history = histories(streams, compared, rows)
    return {
        number: DriftView(
            bins=tuple(words[baseline.digest]),
            expected=tuple(expected[row][: baseline.bins]),
            current=tuple(current[row][: baseline.bins]) if total[row] else (),
            **{name: found[name][row] for name in INDICES},
            log_evidence=evidence[row],
            log_evidence_bound=bound[row],
            delta=delta[row],
            relative_index=found[RELATIVE_INDEX][row],
            phi=baseline.phi,
            window_events=size[row] * baseline.phi,
            baseline_events=baseline.events,
            baseline_hours=baseline.hours_seen,
            baseline_digest=baseline.digest,
            distances=beside[row],
            history=history[row],
            is_calibrated=streams.is_large_enough(number, baseline),
            is_unsteady=baseline.unsteady,
            is_alarmed=number in alarmed,
        )
        for row, (number, baseline) in enumerate(zip(numbers, baselines, strict=True))
    }
