"""The fixed bets of the drift alarm: which shapes of change each one pays for.

Law: a bet is a row of positive factors, one per coarse bin, chosen before any data are seen. The
table that `log_table` makes of them holds log(g / m) - log(1 + delta s), so that a tick's log
e-value of every bet is one product of counts and table. Source: drift.md sections 3 to 3.3.
"""

from typing import Final

import numpy as np

from gateway.measure.baseline import UNUSUAL, Baseline
from gateway.tables import Float64

TILTS: Final = (0.05, 0.15, 0.4)
TAILS: Final = (0.001, 0.01, 0.05)
TAIL_FACTORS: Final = (2.0, 4.0, 8.0, 16.0)
UNUSUAL_FACTORS: Final = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
CLASS_TILTS: Final = (0.1, 0.3, 1.0)
# Classes that have bets of their own; changes of the others are found by the adaptive bets.
CLASS_BETS_MAX: Final = 7
BETS_MAX: Final = 48


def bets_of(baseline: Baseline) -> tuple[Float64, tuple[str, ...]]:
    """Return the bets of a baseline and what each is for. Shape: (bets, bins), bets ≤ BETS_MAX.

    Bets that are the same factor everywhere can win nothing and are left out.
    """
    rows: list[Float64] = []
    names: list[str] = []
    ordered = np.isfinite(baseline.ranks)
    if ordered.any():
        _add_tilts(baseline, rows, names)
        _add_tails(baseline, rows, names)
    else:
        _add_classes(baseline, rows, names)
    for factor in UNUSUAL_FACTORS:
        rows.append(_raised(baseline.bins, np.arange(baseline.bins) == UNUSUAL, factor))
        names.append(f"unusual values x{factor:g}")
    table = np.array(rows)
    useful = (table != table[:, :1]).any(axis=1)
    kept = tuple(name for name, use in zip(names, useful.tolist(), strict=True) if use)
    return table[useful], kept


def log_table(bets: Float64, shares: Float64, delta: float) -> Float64:
    """Return log(g / m) - log(1 + delta s) for bets g under reference shares. Shape: as bets.

    m is the mean of g and s the root of chi-squared of g p / m against p: by Cauchy-Schwarz a law
    within chi-squared distance delta**2 of p gives g / m a mean of at most 1 + delta s.
    """
    mean = bets @ shares
    relative = bets / mean[:, None]
    spread = np.sqrt(((relative - 1) ** 2) @ shares)
    table: Float64 = np.log(relative) - np.log1p(delta * spread)[:, None]
    return table


def _raised(bins: int, where: np.ndarray[tuple[int], np.dtype[np.bool_]], factor: float) -> Float64:
    return np.where(where, factor, np.ones(bins))


def _add_tilts(baseline: Baseline, rows: list[Float64], names: list[str]) -> None:
    ordered = np.isfinite(baseline.ranks)
    x = 2 * np.where(ordered, baseline.ranks, 0.5) - 1
    shapes = {
        "location": x,
        "spread": (3 * x**2 - 1) / 2,
        "skew": (5 * x**3 - 3 * x) / 2,
    }
    weight = np.where(ordered, baseline.shares, 0.0)
    weight = weight / weight.sum()
    for name, shape in shapes.items():
        centred = shape - shape @ weight
        scale = np.sqrt(centred**2 @ weight)
        standard = np.where(ordered, centred / scale if scale > 0 else 0.0, 0.0)
        for theta in TILTS:
            for sign, word in ((1, "up"), (-1, "down")):
                rows.append(np.exp(sign * theta * standard))
                names.append(f"{name} {word} {theta:g}")


def _add_tails(baseline: Baseline, rows: list[Float64], names: list[str]) -> None:
    ranks = baseline.ranks
    for mass in TAILS:
        for where, word in ((ranks <= mass, "lowest"), (ranks >= 1 - mass, "highest")):
            for factor in TAIL_FACTORS:
                rows.append(_raised(baseline.bins, where, factor))
                names.append(f"{word} {mass:.1%} x{factor:g}")


def _add_classes(baseline: Baseline, rows: list[Float64], names: list[str]) -> None:
    often = 1 + np.argsort(-baseline.shares[1:], kind="stable")[:CLASS_BETS_MAX]
    for coarse in np.sort(often).tolist():
        for theta in CLASS_TILTS:
            for sign, word in ((1, "more"), (-1, "less")):
                here = np.arange(baseline.bins) == coarse
                rows.append(_raised(baseline.bins, here, float(np.exp(sign * theta))))
                names.append(f"{word} {baseline.describe(coarse)} {theta:g}")
