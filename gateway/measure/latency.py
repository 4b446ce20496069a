"""How long inferences take: an exact histogram for Prometheus and a fine one for quantiles.

Law: a count at edge e is exactly the number of durations <= e, and every SLO threshold is an edge.
The fine grid is log-linear, 32 bins per octave from 2**10 ns to 2**42 ns: gamma is at most
33/32 and a quantile is within 1.6 % of an observed duration. Both are integers that add.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from gateway.contract.plan import Plan
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, added, grown
from gateway.tables import Float64, UInt64

# prometheus_client's default edges, in seconds.
STANDARD_EDGES_S: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5),
    *(0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
GAMMA: Final = 33 / 32
_SHIFT: Final = 52 - 5
_FIRST_OCTAVE: Final = 10
_OCTAVES: Final = 32
FINE_BINS: Final = _OCTAVES * 32
_FIRST_STEP: Final = (1023 + _FIRST_OCTAVE) << 5
# Quantiles are of this generation and the one before, so of the last five to ten minutes.
GENERATION_NS: Final = 300 * SECOND_NS
QUANTILES: Final = (0.5, 0.95, 0.99)


def edges_of(plan: Plan) -> Int64:
    """Return the histogram's edges in nanoseconds: the standard ones and every threshold."""
    thresholds = [
        slo.threshold for contract in plan.contracts for slo in contract.slos if slo.threshold
    ]
    return np.array(
        sorted({round(edge * SECOND_NS) for edge in (*STANDARD_EDGES_S, *thresholds)}),
        dtype=np.int64,
    )


class Latency:
    """Durations of all series."""

    def __init__(self, plan: Plan) -> None:
        self.edges_ns = edges_of(plan)
        self.buckets = len(self.edges_ns) + 1
        self.histogram = np.zeros((0, self.buckets), dtype=np.int64)
        self.sum_ns = np.zeros(0, dtype=np.int64)
        self.fine = np.zeros((0, FINE_BINS), dtype=np.int64)  # generation being filled
        self.before = np.zeros((0, FINE_BINS), dtype=np.int64)  # the one before it
        self.older = np.zeros((0, FINE_BINS), dtype=np.int64)  # all others
        self._generation = 0
        # One example per bucket: the newest traced duration that fell into it.
        self.exemplar_id = np.zeros((0, self.buckets, 2), dtype=np.uint64)
        self.exemplar_ns = np.full((0, self.buckets), -1, dtype=np.int64)

    def reserve(self, series: int) -> None:
        """Make room for series 0 … series - 1."""
        if series <= len(self.sum_ns):
            return
        for name in _FIELDS:
            fill = -1 if name == "exemplar_ns" else 0
            setattr(self, name, grown(getattr(self, name), series, fill))

    def turn(self, now_ns: int) -> None:
        """Start a new generation of the fine grid when it is time."""
        generation = now_ns // GENERATION_NS
        if generation <= self._generation:
            return
        self.older += self.before
        self.before, self.fine = self.fine, np.zeros_like(self.fine)
        if generation > self._generation + 1:
            self.older += self.before
            self.before = np.zeros_like(self.fine)
        self._generation = generation

    def add(self, series: Int64, duration_ns: Int64) -> Int64:
        """Count durations and return the bucket of each. Shape: all (rows,)."""
        bucket: Int64 = np.searchsorted(self.edges_ns, duration_ns)
        np.add.at(self.histogram.reshape(-1), series * self.buckets + bucket, 1)
        np.add.at(self.sum_ns, series, duration_ns)
        step = (duration_ns.astype(np.float64).view(np.int64) >> _SHIFT) - _FIRST_STEP
        np.maximum(step, 0, out=step)
        np.minimum(step, FINE_BINS - 1, out=step)
        np.add.at(self.fine.reshape(-1), series * FINE_BINS + step, 1)
        return bucket

    def show(self, series: Int64, bucket: Int64, ids: UInt64, duration_ns: Int64) -> None:
        """Keep examples; the last one of a bucket stays. Shape: ids (rows, 2), others (rows,)."""
        self.exemplar_id[series, bucket] = ids
        self.exemplar_ns[series, bucket] = duration_ns

    def recent(self, series: int) -> Int64:
        """Return the fine counts of the last five to ten minutes."""
        total: Int64 = self.fine[series] + self.before[series]
        return total

    def all_time(self, series: int) -> Int64:
        """Return all fine counts."""
        total: Int64 = self.recent(series) + self.older[series]
        return total

    def state(self, count: int) -> State:
        """Copy everything of the first `count` series."""
        return {
            "edges_ns": self.edges_ns.copy(),
            "generation": np.array([self._generation], dtype=np.int64),
            **{name: getattr(self, name)[:count].copy() for name in _FIELDS},
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put everything back; counts of edges that are gone move up to the next one that is left.

        So the cumulative count at an edge that both plans have stays exact.
        """
        count = len(state["sum_ns"])
        self.reserve(count)
        self._generation = int(state["generation"][0])
        place = np.searchsorted(self.edges_ns, state["edges_ns"])
        place = np.append(place, self.buckets - 1)
        for name in _FIELDS:
            if name == "histogram":
                moved = np.zeros((self.buckets, count), dtype=np.int64)
                np.add.at(moved, place, state[name].T)
                self.histogram[:count] = moved.T
            elif name.startswith("exemplar"):
                getattr(self, name)[:count, place] = state[name]
            else:
                getattr(self, name)[:count] = state[name]


_FIELDS: Final = (
    "histogram",
    "sum_ns",
    "fine",
    "before",
    "older",
    "exemplar_id",
    "exemplar_ns",
)


def fine_edges_ns() -> Float64:
    """Return the lower edges of the fine bins and the last upper edge."""
    octave = np.exp2(_FIRST_OCTAVE + np.arange(_OCTAVES))
    edges = (octave[:, None] * (1 + np.arange(32) / 32)).ravel()
    return np.append(edges, np.exp2(_FIRST_OCTAVE + _OCTAVES))


def quantiles_s(counts: Int64) -> tuple[float, ...]:
    """Return QUANTILES in seconds from fine counts; empty when there are none."""
    total = int(counts.sum())
    if not total:
        return ()
    rank = np.ceil(np.asarray(QUANTILES) * total)
    at = np.searchsorted(np.cumsum(counts), rank)
    edges = fine_edges_ns()
    return tuple(((edges[at] + edges[at + 1]) / 2 / SECOND_NS).tolist())


def merge(first: Mapping[str, Array], second: Mapping[str, Array], where: list[int]) -> State:
    """Add two states with the same edges, the second one's rows at `where`.

    Generations need not be the same: the older one's recent counts become older ones.
    """
    states = [dict(first), dict(second)]
    newest = max(int(state["generation"][0]) for state in states)
    for state in states:
        behind = newest - int(state["generation"][0])
        if behind:
            empty = np.zeros_like(state["fine"])
            recent = state["fine"] if behind == 1 else empty
            spent = state["before"] if behind == 1 else state["before"] + state["fine"]
            state.update(fine=empty, before=recent, older=state["older"] + spent)
    one, two = states
    rows = max([len(one["sum_ns"]), *(at + 1 for at in where)])
    total: State = {
        name: added(one[name], two[name], where, rows)
        for name in _FIELDS
        if not name.startswith("exemplar")
    }
    kept_ns = grown(one["exemplar_ns"], rows, -1)[:rows].copy()
    kept_id = grown(one["exemplar_id"], rows)[:rows].copy()
    for row, at in enumerate(where):
        empty = kept_ns[at] < 0
        kept_ns[at, empty] = two["exemplar_ns"][row, empty]
        kept_id[at, empty] = two["exemplar_id"][row, empty]
    total["exemplar_ns"], total["exemplar_id"] = kept_ns, kept_id
    return {
        "edges_ns": one["edges_ns"],
        "generation": np.array([newest], dtype=np.int64),
        **total,
    }
