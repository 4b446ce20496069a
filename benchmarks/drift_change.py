"""Streams that change: kinds of change at a wanted PSI, and how long each detector needs.

Law: all detectors see the same counts. A delay is in ticks from the change on, the tick of the
alarm included; a stream that alarms before the change is left out, one that never alarms counts
with the cap, which favours the peers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import optimize, stats

from benchmarks.drift_null import SCORE, fine_shares
from benchmarks.drift_peers import Detector
from gateway.measure.drift.baseline import Baseline, freeze
from gateway.measure.drift.grid import Grid, GridKind
from gateway.measure.drift.indices import psi
from gateway.measure.state import Int64
from gateway.tables import Float64

WARM_TICKS: Final = 30
# The reference is so large that it is the truth; what a small one costs is the null bank's matter.
REFERENCE_EVENTS: Final = 1_000_000_000
CLASS_SHARES: Final = (0.599, 0.2, 0.1, 0.06, 0.04)
MISSING_RATIO: Final = 0.005
# What counts as unusual in the classes: some of it has been seen.
UNSEEN_RATIO: Final = 0.001
UNSEEN: Final = "unseen class"

Law = Callable[[float], Float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of one kind. Shape: shares (bins,); `kl` in nats per event."""

    kind: str
    wanted: float
    shares: Float64
    kl: float


def reference(is_classes: bool, rng: np.random.Generator) -> Baseline:
    """Return the baseline of scores or of classes."""
    if is_classes:
        values = tuple(f"class {number}" for number in range(len(CLASS_SHARES)))
        grid, truth = Grid(kind=GridKind.CLASSES, values=values), [*CLASS_SHARES, 0.0, UNSEEN_RATIO]
    else:
        grid, truth = SCORE, (fine_shares(8, 2) * (1 - MISSING_RATIO)).tolist()
        truth[SCORE.missing] = MISSING_RATIO
    return frozen(grid, np.array(truth), rng)


def frozen(grid: Grid, truth: Float64, rng: np.random.Generator) -> Baseline:
    """Return a baseline so large that it is the truth. Shape: truth (grid width,), of sum 1."""
    blocks = list(rng.multinomial(REFERENCE_EVENTS // 4, truth, size=4))
    return freeze(grid, np.sum(blocks, axis=0), blocks)


def _coarse(baseline: Baseline, fine: Float64) -> Float64:
    found = np.bincount(baseline.group, weights=fine, minlength=baseline.bins)
    return found.astype(np.float64)


def _mixed(baseline: Baseline, other: Float64) -> Law:
    return lambda weight: (1 - weight) * baseline.shares + weight * other


def score_kinds(baseline: Baseline) -> dict[str, tuple[Law, float]]:
    """Return the kinds of change of a score: its law by strength, and the largest strength."""
    missing = np.eye(baseline.bins)[baseline.group[SCORE.missing]]
    low, sure = (_coarse(baseline, fine_shares(*law)) for law in ((2, 4), (40, 1)))

    def beta(a: float, b: float) -> Float64:
        values = _coarse(baseline, fine_shares(a, b))
        found: Float64 = (1 - MISSING_RATIO) * values + MISSING_RATIO * missing
        return found

    return {
        "location": (lambda x: beta(8 - x, 2 + x), 5.0),
        "spread only": (lambda x: beta(8 * (1 - x), 2 * (1 - x)), 0.9),
        "low tail": (_mixed(baseline, low), 1.0),
        "saturation": (_mixed(baseline, sure), 1.0),
        "missing": (_mixed(baseline, missing), 1.0),
    }


def class_kinds(baseline: Baseline) -> dict[str, tuple[Law, float]]:
    """Return the kinds of change of a class."""
    unseen = baseline.group[baseline.grid.odd]
    moved = baseline.shares.copy()
    moved[[1, 2]] = moved[[1, 2]] + np.array([-0.6, 0.6]) * moved[1]
    return {
        "class prior": (_mixed(baseline, moved), 1.5),
        UNSEEN: (_mixed(baseline, np.eye(baseline.bins)[unseen]), 1.0),
    }


def changes(baseline: Baseline, wanted: Sequence[float]) -> list[Change]:
    """Return a change of every kind at every PSI."""
    p = baseline.shares
    kinds = score_kinds(baseline) if baseline.is_ordered else class_kinds(baseline)
    found = []
    for kind, (law, most) in kinds.items():
        for target in wanted:

            def excess(x: float, law: Law = law, target: float = target) -> float:
                return float(psi(_safe(law(x)), p)) - target

            shares = _safe(law(optimize.brentq(excess, 0.0, most)))
            kl = float((shares * np.log(shares / p)).sum())
            found.append(Change(kind=kind, wanted=target, shares=shares, kl=kl))
    return found


def _safe(shares: Float64) -> Float64:
    lifted = np.maximum(shares, 1e-12)
    found: Float64 = lifted / lifted.sum()
    return found


def delays(
    found: Sequence[Detector],
    levels: dict[str, list[float]],
    law_at: Callable[[int], Float64],
    before: Float64,
    *,
    events: int,
    streams: int,
    cap: int,
    rng: np.random.Generator,
) -> dict[str, Float64]:
    """Return ticks from the change to the alarm at each level. Shape: (levels, streams).

    NaN where the alarm came before the change, the cap where none came.
    """
    first = {each.name: np.full((len(levels[each.name]), streams), np.inf) for each in found}
    for each in found:
        each.begin(streams)
    for tick in range(1 - WARM_TICKS, cap + 1):
        law = before if tick <= 0 else law_at(tick)
        counts = rng.multinomial(events, law, size=streams)
        open_detectors = [each for each in found if np.isinf(first[each.name][-1]).any()]
        if not open_detectors:
            break
        for each in open_detectors:
            values = each.step(counts)
            passed = (values >= np.array(levels[each.name])[:, None]) & np.isfinite(values)
            reached = first[each.name]
            reached[passed & np.isinf(reached)] = tick
    for reached in first.values():
        reached[np.isinf(reached)] = cap
        reached[reached <= 0] = np.nan
    return first


def mean_delays(first: Float64, cap: int) -> list[float]:
    """Return the mean delay at each level; the cap where no stream was quiet before the change."""
    known = np.isfinite(first)
    total = np.where(known, first, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    means = np.where(count > 0, total / np.maximum(count, 1), float(cap))
    return [float(each) for each in means]


def draw_null(
    baseline: Baseline, events: int, streams: int, rng: np.random.Generator
) -> Callable[[], Int64]:
    """Return what draws a tick of streams without change."""
    shares = baseline.shares / baseline.shares.sum()
    return lambda: rng.multinomial(events, shares, size=streams)


def sigmoid(tick: int, middle: float, width: float) -> float:
    """Return how far a gradual change has come."""
    return float(1 / (1 + np.exp(-4 * (tick - middle) / width)))


def forms(change: Change, p: Float64) -> dict[str, Callable[[int], Float64]]:
    """Return the forms in time of a change: the law of each tick."""
    q = change.shares

    def part(weight: float) -> Float64:
        return (1 - weight) * p + weight * q

    return {
        "abrupt": lambda _: q,
        "gradual, 100 ticks": lambda tick: part(sigmoid(tick, 50, 100)),
        "gradual, 1,000 ticks": lambda tick: part(sigmoid(tick, 500, 1_000)),
        "incremental, 200 ticks": lambda tick: part(min(1.0, tick / 200)),
        "recurring, 20 of 60 ticks": lambda tick: part(float((tick - 1) % 60 < 20)),
        "blip of 2 ticks": lambda tick: part(float(tick <= 2)),
    }


def geometric_mean(values: Float64) -> float:
    """Return the geometric mean."""
    return float(stats.gmean(values))
