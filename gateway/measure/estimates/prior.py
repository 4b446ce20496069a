"""Estimate how often each class is true now, from how often each is predicted.

Law: pure functions of counts. It assumes that a class looks as it did, and only how often it comes
has changed (label shift). Where the model mixes classes up so much that a small error of the counts
would become a large one of the answer, there is no answer.
Source: Lipton, Wang and Smola (2018), black box shift estimation.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from gateway.measure.state import Int64
from gateway.tables import Float64

# An error of the predicted shares may become larger by this factor.
CONDITION_MAX: Final = 10.0
# Below this many labels of a class nothing is known of how it is predicted.
CLASS_LABELS_MIN: Final = 10


class NoPrior(StrEnum):
    """Why there is no estimate of the classes."""

    NO_CLASSES = "the prediction is no closed set of classes"
    NO_WINDOW = "no class was predicted lately"
    FEW_LABELS = "a class has too few labels"
    TOO_MANY = "the prediction has too many classes"
    ILL_CONDITIONED = "the model mixes up classes too much"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """How often each class is true.

    Shape: shares and weights (classes,). `weights` are how many times as often as among the labels,
    and may be negative by chance; `shares` are cut at 0 and add up to 1.
    """

    shares: Float64
    weights: Float64


def class_prior(confusion: Int64, counts: Int64) -> Prior | NoPrior:
    """Estimate the shares of true classes behind predicted ones.

    Shape: confusion (classes, classes), predicted by true; counts (classes,) are predicted now.
    A class that was never seen, then or now, has the share 0.
    """
    if counts.sum() == 0:
        return NoPrior.NO_WINDOW
    seen = np.flatnonzero((confusion.sum(axis=0) + confusion.sum(axis=1) + counts) > 0)
    table = confusion[np.ix_(seen, seen)].astype(np.float64)
    labelled = table.sum(axis=0)
    if labelled.min() < CLASS_LABELS_MIN:
        return NoPrior.FEW_LABELS
    # P(predicted | true): how hard it is to tell classes apart, however rare they are.
    given = table / labelled
    if np.linalg.cond(given) > CONDITION_MAX:
        return NoPrior.ILL_CONDITIONED
    found = np.linalg.solve(given, counts[seen] / counts.sum())
    cut = np.maximum(found, 0.0)
    shares, weights = np.zeros(len(counts)), np.zeros(len(counts))
    shares[seen] = cut / cut.sum()
    weights[seen] = found * labelled.sum() / labelled
    return Prior(shares=shares, weights=weights)
