"""The bets that are learned from past ticks, and what they win in the next one.

Law: a bet uses the past alone, and its mean under every law of the ball is at most 1, because what
it wins is paid for with delta times its own size; see `detector` for what follows from that. Pure.
Source: drift.md section 3.2.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.measure.drift.bets import smoothing
from gateway.tables import Bool, Float64

PRIOR_EVENTS: Final = 200.0
# A smooth bet never expects a bin to lose more than this share of its reference.
SMOOTH_FACTOR_MIN: Final = 0.1

Floats = NDArray[np.floating]


def expected_change(ewma: Floats, shares: Floats) -> Floats:
    """Return q - p, where q are the shares of past counts drawn towards the reference.

    Shape: ewma (rows, half-lives, places), shares (rows, places); returns as ewma.
    """
    total = ewma.sum(axis=2, keepdims=True)
    change: Floats = (ewma - total * shares[:, None, :]) / (total + ewma.dtype.type(PRIOR_EVENTS))
    return change


def plug_in(change: Floats, shares: Floats) -> Floats:
    """Return the bets q / p - 1, bin by bin. Shape: as change."""
    inverse = np.divide(1, shares, out=np.zeros_like(shares), where=shares > 0)
    bets: Floats = change * inverse[:, None, :]
    return bets


def smooth_plug_in(change: Floats, shares: Floats) -> Floats:
    """Return the bets on the smooth part of a change, of mean 0. Shape: as change."""
    factors = 1 + change @ smoothing().astype(change.dtype)
    np.maximum(factors, SMOOTH_FACTOR_MIN, out=factors)
    factors /= np.matmul(factors, shares[:, :, None])
    factors -= 1
    return factors


def adaptive_values(
    counts: Floats, bets: Floats, shares: Floats, delta: Float64, phi: Float64
) -> tuple[Float64, Bool]:
    """Return the log values of bets 1 + kappa r learned from past counts, and which bet at all.

    Where the past lies inside the ball kappa is 0: nothing is bet, and the value is 1.
    Shape: counts and shares (rows, places), bets (rows, k, places), delta and phi (rows,).
    """
    chi = np.sqrt(np.matmul(bets * bets, shares[:, :, None])[:, :, 0].astype(np.float64))
    # This share of the way to q maximises growth, (chi - delta)**2 / 2 nats for each event.
    safe = np.where(chi > 0, chi, 1.0)
    kappa = np.where(chi > 0, np.clip(1 - delta[:, None] / safe, 0.0, 1.0), 0.0)
    gain = bets * kappa.astype(bets.dtype)[:, :, None]
    gain += 1
    np.log(gain, out=gain)
    won = np.matmul(gain, counts[:, :, None])[:, :, 0].astype(np.float64)
    paid = counts.sum(axis=1, dtype=np.float64)[:, None] * np.log1p(delta[:, None] * kappa * chi)
    return (won - paid) / phi[:, None], kappa > 0
