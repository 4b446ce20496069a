"""Keep how sure a model was of a prediction, until its label comes.

Law: a score is the bin of the confidence on the grid on which its stream counts it, one byte: below
SCORE_BINS, or above for a confidence that is missing or odd; NO_SCORE where the contract has none.
A bin means the same as long as the grid has the same name.
"""

from collections.abc import Sequence

import numpy as np

from gateway.batch import Batch
from gateway.contract.plan import Plan
from gateway.contract.schema import Contract, Role, Signal
from gateway.measure.drift.grid import Grid, GridKind
from gateway.measure.drift.lanes import Lane, LaneKey, maybe_grid
from gateway.measure.labels.predictions import NO_SCORE
from gateway.measure.state import Int64
from gateway.tables import UInt8


def maybe_signal(contract: Contract) -> tuple[Signal, Grid] | None:
    """Return a contract's confidence and its grid, the first one's if it has several."""
    for signal in contract.signals.values():
        grid = maybe_grid(signal) if signal.role is Role.CONFIDENCE else None
        if grid is not None and grid.kind is GridKind.LOGIT:
            return signal, grid
    return None


def maybe_confidence(contract: Contract, plan: Plan) -> Lane | None:
    """Return where a contract's confidence is counted."""
    found = maybe_signal(contract)
    if found is None:
        return None
    signal, grid = found
    key = LaneKey(slot=plan.slot_of[signal.attribute], type=signal.type, grid=grid)
    return Lane(key)


def grid_name(lane: Lane | None) -> str:
    """Return what the grid of a contract's confidence is called, nothing when it has none."""
    return "" if lane is None else lane.grid.name


def scores(
    lane: Lane | None,
    batch: Batch,
    rows: Int64 | None,
    lanes: Sequence[Lane],
    bins: Sequence[Int64],
) -> UInt8:
    """Find the scores of inferences. Shape: (rows,); rows None for all spans.

    They are taken from the lane that has counted them already; there is none while all inferences
    of the contract count in the series that is shared.
    """
    if lane is None:
        size = len(batch.spans) if rows is None else len(rows)
        return np.full(size, NO_SCORE, dtype=np.uint8)
    counted = (each for mine, each in zip(lanes, bins, strict=True) if mine.key == lane.key)
    found = next(counted, None)
    return (lane.bins(batch, rows) if found is None else found).astype(np.uint8)
