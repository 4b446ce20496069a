"""The fixed bets of the drift alarm: which shapes of change each one pays for.

Law: a bet is a row of positive factors, one per place, chosen before any data are seen. Places are
the same for all streams, so that one table serves them all and a tick of every stream is one
product of counts and table; what differs by stream is the fee of each bet, one number.

Places: 0 is `unusual`; 1 to 20 are the cells between the quantile cuts of the reference, or the
classes from the most frequent on; then missing, odd, and one that stays empty.

Why the fee makes an e-value: let bet g have mean m under the reference p and let s be the root of
chi-squared of g p / m against p. For a law q with sum (q - p)^2 / p <= delta^2, Cauchy-Schwarz
gives E_q[g / m] = 1 + sum (q - p) (g / m - 1) <= 1 + delta s. So exp(log g - fee) with
fee = log m + log(1 + delta s) has a mean of at most 1 under every law of the ball, whatever came
before the event. Source: drift.md sections 3 to 3.3.
"""

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from gateway.measure.drift.baseline import (
    CELLS,
    CUTS,
    MISSING_PLACE,
    ODD_PLACE,
    PLACES,
    UNUSUAL,
    Baseline,
)
from gateway.tables import Float64

TILTS: Final = (0.05, 0.15, 0.4)
# Real scores change like tilts of a normal: steeper in the tails than polynomials of the rank.
# With these, changes of spread are found in 1.4 instead of 1.8 times the shortest delay.
NORMAL_TILTS: Final = (0.07, 0.2, 0.6)
TAILS: Final = (0.001, 0.01, 0.05)
TAIL_FACTORS: Final = (2.0, 4.0, 8.0, 16.0)
# Some other law, concentrated in a tail, replaces this part of the events: what a fault of some
# devices looks like. Its density over the reference is gamma u**(gamma - 1) in the rank u; a tilt
# or a factor on a tail wins half of what this does on a saturated score.
TAINTS: Final = (0.01, 0.03, 0.1, 0.3)
TAINT_GAMMA: Final = 0.3
MISSING_FACTORS: Final = (2.0, 4.0, 12.0, 36.0)
UNUSUAL_FACTORS: Final = (2.0, 4.0, 12.0, 36.0, 128.0, 512.0)
CLASS_TILTS: Final = (0.1, 0.3, 1.0)
# A rare class can become many times as frequent, but loses little by vanishing.
CLASS_RISES: Final = (2.0, 3.5)
# Classes that have bets of their own; changes of the others are found by the adaptive bets.
CLASS_BETS_MAX: Final = 7
BETS: Final = 72
# The tail shares beside which the smooth adaptive bets learn location and spread.
SMOOTH_TAIL: Final = 0.01

# What the fixed bets of each family weigh together, and what is left to the adaptive ones. Any
# weights keep the budget. Faults of a few events have large shares, because their bets are few.
TILTS_WEIGHT: Final = 0.26
TAILS_WEIGHT: Final = 0.04
TAINTS_WEIGHT: Final = 0.18
MISSING_WEIGHT: Final = 0.06
UNUSUAL_WEIGHT: Final = 0.12
CLASSES_WEIGHT: Final = 0.36
FIXED_WEIGHT: Final = 0.66


@dataclass(frozen=True, slots=True, kw_only=True)
class Bets:
    """Fixed bets. Shape: log_factors (BETS, PLACES), weights (BETS,), which add up to 1."""

    log_factors: Float64
    names: tuple[str, ...]
    weights: Float64

    @property
    def factors(self) -> Float64:
        """Return what an event at each place multiplies each bet's value by, before its fee."""
        factors: Float64 = np.exp(self.log_factors)
        return factors


def fees(bets: Float64, shares: Float64, delta: Float64) -> Float64:
    """Return what each event costs each bet, log m + log(1 + delta s); infinite if it cannot win.

    Shape: bets (bets, places), shares (rows, places), delta (rows,); returns (rows, bets). A bet
    that is the same factor wherever the reference has a share would only spend weight.
    """
    mean = shares @ bets.T
    square = shares @ (bets**2).T / mean**2 - 1
    spread = np.sqrt(np.maximum(square, 0.0))
    used = shares > 0
    most = np.where(used[:, None, :], bets, 0.0).max(axis=2)
    least = np.where(used[:, None, :], bets, np.inf).min(axis=2)
    paid: Float64 = np.log(mean) + np.log1p(delta[:, None] * spread)
    return np.where(most > least, paid, np.inf)


def name_of(baseline: Baseline, bet: int) -> str:
    """Say what a fixed bet on a stream with this baseline is for."""
    if baseline.is_ordered:
        return ordered_bets().names[bet]
    places = (baseline.describe_place(place) for place in range(PLACES))
    return class_bets().names[bet].format(*places)


def kind_of(baseline: Baseline, bet: int) -> str:
    """Say what a fixed bet is for without naming a value or a class."""
    # Bets on what has an order speak of ranks alone.
    bets = ordered_bets() if baseline.is_ordered else class_bets()
    return bets.names[bet].format(*("of a class",) * PLACES)


@functools.cache
def ordered_bets() -> Bets:
    """Return the bets on signals whose bins have an order: tilts, tails, taints, the unusual."""
    rows: list[Float64] = []
    names: list[str] = []
    x, weight = 2 * _ranks() - 1, _cells()
    _add_tilts("location", x, weight, TILTS, rows, names)
    _add_tilts("spread", (3 * x**2 - 1) / 2, weight, TILTS, rows, names)
    _add_tilts("skew", (5 * x**3 - 3 * x) / 2, weight, TILTS, rows, names)
    z = special.ndtri(_ranks())
    _add_tilts("normal location", z, weight, NORMAL_TILTS, rows, names)
    _add_tilts("normal spread", z**2 - 1, weight, NORMAL_TILTS, rows, names)
    for mass in TAILS:
        for where, word in ((_lowest(mass), "lowest"), (_highest(mass), "highest")):
            for factor in TAIL_FACTORS:
                rows.append(np.where(where, factor, 1.0))
                names.append(f"{word} {mass:.1%} x{factor:g}")
    _add_taints(rows, names)
    gone = np.isin(np.arange(PLACES), (MISSING_PLACE, ODD_PLACE))
    for factor in MISSING_FACTORS:
        rows.append(np.where(gone, factor, 1.0))
        names.append(f"missing or invalid x{factor:g}")
    _add_unusual(rows, names)
    families = (
        (5 * 2 * len(TILTS), TILTS_WEIGHT),
        (2 * len(TAILS) * len(TAIL_FACTORS), TAILS_WEIGHT),
        (2 * len(TAINTS), TAINTS_WEIGHT),
        (len(MISSING_FACTORS), MISSING_WEIGHT),
        (len(UNUSUAL_FACTORS), UNUSUAL_WEIGHT),
    )
    return _bets(rows, names, families)


@functools.cache
def class_bets() -> Bets:
    """Return the bets on classes; names hold {place} where the class is to be named."""
    rows: list[Float64] = []
    names: list[str] = []
    for place in range(1, 1 + CLASS_BETS_MAX):
        for theta in CLASS_TILTS:
            for sign, word in ((1, "more"), (-1, "less")):
                rows.append(np.where(np.arange(PLACES) == place, np.exp(sign * theta), 1.0))
                names.append(f"{word} {{{place}}} {theta:g}")
        for theta in CLASS_RISES:
            rows.append(np.where(np.arange(PLACES) == place, np.exp(theta), 1.0))
            names.append(f"more {{{place}}} {theta:g}")
    for factor in MISSING_FACTORS:
        rows.append(np.where(np.arange(PLACES) == MISSING_PLACE, factor, 1.0))
        names.append(f"missing x{factor:g}")
    for factor in UNUSUAL_FACTORS:
        rows.append(np.where(np.arange(PLACES) == ODD_PLACE, factor, 1.0))
        names.append(f"unseen classes x{factor:g}")
    _add_unusual(rows, names)
    families = (
        (CLASS_BETS_MAX * (2 * len(CLASS_TILTS) + len(CLASS_RISES)), CLASSES_WEIGHT),
        (len(MISSING_FACTORS), MISSING_WEIGHT),
        (len(UNUSUAL_FACTORS), UNUSUAL_WEIGHT),
        (len(UNUSUAL_FACTORS), UNUSUAL_WEIGHT),
    )
    return _bets(rows, names, families)


@functools.cache
def smoothing() -> Float64:
    """Return the matrix that keeps of a change only its smooth part. Shape: (PLACES, PLACES).

    A change q - p times this matrix is the closest q / p - 1 made of location, spread and the two
    tail shares alone. An adaptive bet on 4 numbers learns from fewer events than one on 20.
    """
    weight = _cells()
    x = 2 * _ranks() - 1
    ordered = weight > 0
    shapes = np.array(
        [
            np.where(ordered, 1.0, 0.0),
            np.where(ordered, x, 0.0),
            np.where(ordered, x**2, 0.0),
            np.where(_lowest(SMOOTH_TAIL), 1.0, 0.0),
            np.where(_highest(SMOOTH_TAIL), 1.0, 0.0),
        ]
    )
    root = np.sqrt(weight)
    basis, _ = np.linalg.qr((shapes * root).T)
    scaled = np.where(ordered, basis.T / np.where(ordered, root, 1.0), 0.0)[1:]
    matrix: Float64 = scaled.T @ scaled
    return matrix


def _bets(rows: list[Float64], names: list[str], families: tuple[tuple[int, float], ...]) -> Bets:
    weights = np.concatenate([np.full(count, weight / count) for count, weight in families])
    return Bets(
        log_factors=np.log(np.array(rows)),
        names=tuple(names),
        weights=weights / weights.sum(),
    )


def _cells() -> Float64:
    """Return what share of the reference lies in each place if no value is tied."""
    shares = np.zeros(PLACES)
    shares[1 : CELLS + 1] = np.diff((0.0, *CUTS, 1.0))
    return shares


def _ranks() -> Float64:
    """Return the mid-rank of each cell; places without an order have the middle."""
    ranks = np.full(PLACES, 0.5)
    edges = np.array((0.0, *CUTS, 1.0))
    ranks[1 : CELLS + 1] = (edges[1:] + edges[:-1]) / 2
    return ranks


def _lowest(mass: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    inside: np.ndarray[tuple[int], np.dtype[np.bool_]] = _ranks() < mass
    return inside


def _highest(mass: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    inside: np.ndarray[tuple[int], np.dtype[np.bool_]] = _ranks() > 1 - mass
    return inside


def _add_tilts(
    name: str,
    shape: Float64,
    weight: Float64,
    thetas: tuple[float, ...],
    rows: list[Float64],
    names: list[str],
) -> None:
    centred = shape - shape @ weight
    standard = np.where(weight > 0, centred / np.sqrt(centred**2 @ weight), 0.0)
    for theta in thetas:
        for sign, word in ((1, "up"), (-1, "down")):
            rows.append(np.exp(sign * theta * standard))
            names.append(f"{name} {word} {theta:g}")


def _add_taints(rows: list[Float64], names: list[str]) -> None:
    edges = np.array((0.0, *CUTS, 1.0))
    for word, masses in (
        ("lowest", np.diff(edges**TAINT_GAMMA)),
        ("highest", -np.diff((1 - edges) ** TAINT_GAMMA)),
    ):
        ratio = np.ones(PLACES)
        ratio[1 : CELLS + 1] = masses / np.diff(edges)
        for part in TAINTS:
            rows.append(1 + part * (ratio - 1))
            names.append(f"{part:.0%} moved to the {word} values")


def _add_unusual(rows: list[Float64], names: list[str]) -> None:
    for factor in UNUSUAL_FACTORS:
        rows.append(np.where(np.arange(PLACES) == UNUSUAL, factor, 1.0))
        names.append(f"unusual values x{factor:g}")
