"""With which weights samplers before the gateway let events through, judged like a signal.

Law: a weight is 1 / p of the threshold that the tracestate of an event says. A model on whose
events no threshold was ever said has no stream, and costs one look at each batch. From the first
one on every event of the model counts, in all its versions: one without a threshold is
`missing`, one with a malformed threshold is `odd`. So a sampler that is turned on, off or to
another rate changes the distribution, even if nothing else shows it. Source: drift.md section 6;
OpenTelemetry, "TraceState: Probability Sampling".
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.batch import Upstream
from gateway.contract.schema import Contract, SignalType
from gateway.measure.drift.grid import WEIGHT_OCTAVES, Grid, GridKind
from gateway.measure.drift.lanes import Lane, LaneKey
from gateway.measure.state import Int64
from gateway.otlp.threshold import RANGE
from gateway.tables import NO_THRESHOLD, Bool, Float64, UInt64

INCLUSION: Final = "inclusion"
WEIGHTS: Final = Grid(kind=GridKind.WEIGHT)
# It is read from no attribute.
NO_SLOT: Final = -1
NO_PLACE: Final = -1


def bins_of_thresholds(threshold: UInt64, malformed: Bool) -> Int64:
    """Find the bin of the weight of each event. Shape: all (rows,)."""
    is_said = threshold != np.uint64(NO_THRESHOLD)
    kept: UInt64 = np.where(is_said, np.uint64(RANGE) - threshold, np.uint64(1))
    # kept is m 2**e with m in [1/2, 1), and the weight 2**56 / kept. Doubles take a weight that is
    # within 2**-53 of 1 for 1.
    _, exponent = np.frexp(kept.astype(np.float64))
    bins: Int64 = WEIGHT_OCTAVES + 1 - exponent.astype(np.int64)
    bins[~is_said] = WEIGHTS.missing
    bins[malformed] = WEIGHTS.odd
    return bins


def effective(counts: Int64) -> tuple[float, float] | None:
    """Return the mean weight of counted events, and how many events of one weight tell as much.

    The second is n_eff = (sum w)**2 / sum w**2. Weights are taken for the power of two at the upper
    end of their bin. None without any event of a known weight. Shape: (grid width,).
    """
    known = counts[: WEIGHTS.bins].astype(np.float64)
    weight: Float64 = np.exp2(np.arange(WEIGHTS.bins))
    events, total = float(known.sum()), float(known @ weight)
    if not events:
        return None
    return total / events, total**2 / float(known @ weight**2)


class Inclusion:
    """Which contracts have a sampler before the gateway, and the lane that counts its weights."""

    def __init__(self, contracts: Sequence[Contract]) -> None:
        self.lane = Lane(LaneKey(slot=NO_SLOT, type=SignalType.INT, grid=WEIGHTS))
        # A signal of that name is the contract's own.
        self._may = np.array([INCLUSION not in each.signals for each in contracts], dtype=np.bool_)
        self.is_on = np.zeros(len(contracts), dtype=np.bool_)

    def may(self, contract: int) -> bool:
        """Say whether a contract's series can have a stream of weights."""
        return bool(self._may[contract])

    def found(self, said: Upstream, rows: Int64 | None, contract: Int64) -> list[int]:
        """Return contracts whose events say a threshold for the first time. Shape: (rows,)."""
        if not said.has_threshold or bool((self.is_on >= self._may).all()):
            return []
        threshold = said.threshold if rows is None else said.threshold[rows]
        new = contract[threshold != np.uint64(NO_THRESHOLD)]
        return [each for each in np.unique(new).tolist() if self._may[each] > self.is_on[each]]

    def bins(self, said: Upstream, rows: Int64 | None) -> Int64:
        """Find the bin of the given spans, of all when None."""
        at = slice(None) if rows is None else rows
        return bins_of_thresholds(said.threshold[at], said.malformed[at])
