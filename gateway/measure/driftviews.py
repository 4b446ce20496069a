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
    js,
    psi,
    psi_null,
    psi_sd,
    relative_drift,
)
from gateway.measure.drift.streams import Streams
from gateway.measure.explain import INDICES, RELATIVE_INDEX
from gateway.measure.snapshot import DriftView
from gateway.tables import Float64


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
            is_calibrated=streams.is_large_enough(number, baseline),
            is_unsteady=baseline.unsteady,
            is_alarmed=number in alarmed,
        )
        for row, (number, baseline) in enumerate(zip(numbers, baselines, strict=True))
    }
