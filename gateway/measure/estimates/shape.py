"""Describe how sure a model is and how many classes it uses, and compare two windows of it.

Law: pure functions of counts; inside a bin events are taken to lie evenly. A change is sure when
its interval of SURE_SD standard errors keeps off what is tolerated, with the sizes of both windows
and the overdispersion phi in it.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.measure.state import Array, Int64
from gateway.tables import Float64

SATURATED: Final = 0.99
UNSURE: Final = 0.5
# About 3,000 windows follow one another in 30 days, and chance alone passes four standard errors in
# one of 30,000.
SURE_SD: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How sure a model is. All but `events` are shares or means in [0, 1]."""

    events: int
    mean: float
    saturated: float
    unsure: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    """A number and its variance."""

    value: float
    variance: float


def middles(edges: Float64) -> Float64:
    """Return the middle of each bin. Shape: (bins + 1,) to (bins,)."""
    return (edges[:-1] + edges[1:]) / 2


def share_above(counts: Int64, edges: Float64, bound: float) -> float:
    """Return the share of events at a bound or above it. Shape: counts (bins,)."""
    part = np.clip((edges[1:] - bound) / np.diff(edges), 0.0, 1.0)
    return float((counts * part).sum() / counts.sum())


def maybe_shape(counts: Int64, edges: Float64) -> Shape | None:
    """Describe a window of confidence, None when it is empty. Shape: (bins,), (bins + 1,)."""
    events = int(counts.sum())
    if events == 0:
        return None
    return Shape(
        events=events,
        mean=float((counts * middles(edges)).sum() / events),
        saturated=share_above(counts, edges, SATURATED),
        unsure=1 - share_above(counts, edges, UNSURE),
    )


def saturation(counts: Int64, edges: Float64, phi: float = 1.0) -> Estimated:
    """Return the saturated share of a window with an event at least."""
    events = float(counts.sum())
    share = share_above(counts, edges, SATURATED)
    # As if there were one more of each, so that a share of 0 or 1 is not taken for sure.
    smooth = (share * events + 1) / (events + 2)
    return Estimated(value=share, variance=smooth * (1 - smooth) * phi / events)


def entropy_of(counts: Array, phi: float = 1.0) -> Estimated:
    """Return the entropy of classes in nats, of a window with an event at least.

    Bias is taken out to first order. Source: Miller (1955); Basharin (1959) for the variance.
    """
    events = float(counts.sum())
    shares = counts[counts > 0] / events
    logs = np.log(shares)
    value = -float((shares * logs).sum())
    scatter = float((shares * logs**2).sum()) - value**2
    # With one class alone there is no scatter; the terms of second order remain.
    variance = max(scatter, 0.0) * phi / events + (len(shares) / 2) * (phi / events) ** 2
    return Estimated(value=value + (len(shares) - 1) * phi / (2 * events), variance=variance)


def surely_above(first: Estimated, second: Estimated, tolerated: float) -> bool:
    """Say whether the first number is surely more than `tolerated` above the second one."""
    margin = SURE_SD * math.sqrt(first.variance + second.variance)
    return first.value - second.value - margin > tolerated


def overclaim(table: Int64, edges: Float64) -> Estimated:
    """Return how far mean confidence is above accuracy, of a table with a label at least.

    Shape: table (bins, 2) of right and wrong, edges (bins + 1,).
    """
    labelled, claimed = float(table.sum()), middles(edges)
    gap = np.stack((claimed - 1, claimed), axis=1)
    value = float((table * gap).sum() / labelled)
    scatter = float((table * (gap - value) ** 2).sum() / labelled)
    return Estimated(value=value, variance=scatter / labelled + (1 / labelled) ** 2)
