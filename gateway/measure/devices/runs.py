"""Runs of a batch: stretches of spans of one resource in one request.

Law: device and arrival are constant within a run, so figures are reduced over runs before anything
is looked up. Spans stand in the order in which they came; a resource that comes back is a new run.
"""

from dataclasses import dataclass

import numpy as np

from gateway.batch import NO_CONTRACT
from gateway.measure.state import Array, Int64
from gateway.otlp.columns import compact
from gateway.tables import Int32, Table

# Up to this many places (run, contract), one table of last rows is cheaper than a sort.
PLACES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The runs of a batch, in order.

    Shape: all (runs,): `start` is the first row and `count` how many follow; request, resource and
    device are indices. Units: arrival_ns Unix nanoseconds.
    """

    start: Int64
    count: Int64
    request: Int32
    resource: Int32
    device: Int64
    arrival_ns: Int64

    def rows(self, of_run: Array) -> Array:
        """Give each span what its run has. Shape: (spans,)."""
        return np.repeat(of_run, self.count)


def starts(spans: Table) -> Int64:
    """Find the first row of each run."""
    request, resource = spans["request"], spans["resource"]
    is_first = np.ones(len(spans), dtype=np.bool_)
    is_first[1:] = (request[1:] != request[:-1]) | (resource[1:] != resource[:-1])
    return is_first.nonzero()[0]


def last_inferences(runs: Runs, contract: Array) -> tuple[Int64, Int64, Int64]:
    """Find the last inference of each contract in each run: (run, contract, row).

    Shape: contract (spans,), NO_CONTRACT for what is none; the result (found,) each.
    """
    run = np.arange(len(runs.start))
    rows = (contract != NO_CONTRACT).nonzero()[0]
    if len(rows) == 0:
        return run[:0], run[:0], run[:0]
    one = contract[rows[0]]
    if len(rows) == len(contract) and bool((contract == one).all()):
        return run, np.full(len(run), one, dtype=np.int64), runs.start + runs.count - 1
    present, code = compact(contract[rows].astype(np.intp), int(contract.max()) + 1)
    place = runs.rows(run)[rows] * len(present) + code
    if len(run) * len(present) <= max(PLACES_MAX, len(contract)):
        last = np.full(len(run) * len(present), -1, dtype=np.int64)
        last[place] = rows  # of equal places the last one stays
        found = (last >= 0).nonzero()[0]
        row = last[found]
    else:
        found, first = np.unique(place[::-1], return_index=True)
        row = rows[::-1][first]
    return found // len(present), np.array(present)[found % len(present)], row
