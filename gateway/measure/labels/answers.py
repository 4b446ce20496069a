"""Read what inferences predicted, and how sure the model was, by the rule of each one's contract.

Law: a row has the code of its class and the bin of its confidence; both are taken from the lanes
that have counted them already. Cost: nothing per row in Python.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from gateway.batch import Batch
from gateway.measure.drift.lanes import Lane
from gateway.measure.labels.predictions import NO_PREDICTION, NO_SCORE
from gateway.measure.labels.rules import Rule
from gateway.measure.labels.scores import scores
from gateway.measure.state import Array, Int64
from gateway.tables import UInt8


def answers(
    rules: Mapping[int, Rule],
    batch: Batch,
    rows: Int64 | None,
    contract: Int64,
    lanes: Sequence[Lane],
    bins: Sequence[Int64],
) -> tuple[Array, UInt8]:
    """Return the codes and the scores of inferences. Shape: (rows,); rows None for all spans."""
    if len(rules) == 1:
        (rule,) = rules.values()
        return (
            rule.classes.codes(batch, rows, lanes, bins),
            scores(rule.confidence, batch, rows, lanes, bins),
        )
    codes = np.full(len(contract), NO_PREDICTION, dtype=np.int32)
    sure = np.full(len(contract), NO_SCORE, dtype=np.uint8)
    every = np.arange(len(batch.spans)) if rows is None else rows
    for index, rule in rules.items():
        mine = np.flatnonzero(contract == index)
        if len(mine):
            some = [each[mine] for each in bins]
            codes[mine] = rule.classes.codes(batch, every[mine], lanes, some)
            sure[mine] = scores(rule.confidence, batch, every[mine], lanes, some)
    return codes, sure
