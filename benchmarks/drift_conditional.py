"""A change that no marginal shows: confidence given the class moves, classes and confidence do not.

Law: two classes exchange part of their laws of confidence, so that the law of the class and the law
of confidence stay what they were to the last digit. Every detector watches one lane of confidence
for each class, with its share of the events, on ticks that are held open like any other; the first
lane that alarms is the alarm. Thresholds are set by lane so that each lane spends an equal part of
one budget: a lane alone runs as many times longer as there are lanes. Two lanes more, confidence
and class alone, show what the marginals know: nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import optimize

from benchmarks.drift_change import CLASS_SHARES, MISSING_RATIO, WARM_TICKS, Change, frozen
from benchmarks.drift_null import SCORE, HeldTicks, fine_shares
from benchmarks.drift_peers import Detector
from gateway.measure.drift.baseline import COARSE_BINS_MAX
from gateway.measure.drift.grid import Grid, GridKind
from gateway.measure.drift.indices import kl, psi
from gateway.measure.state import Int64
from gateway.tables import Float64

KIND: Final = "class-conditional only"
# Beta laws of confidence by class: the second class is the one that the model is least sure of.
CLASS_LAWS: Final = ((8, 2), (5, 4), (7, 2), (6, 3), (4, 2))
CLASSES: Final = len(CLASS_LAWS)
SURE, UNSURE = 0, 1
CONFIDENCE: Final = CLASSES  # the lane of confidence whatever the class
CLASS: Final = CLASSES + 1
LANES: Final = CLASSES + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Ticks from the change to the alarm. Shape: all (levels, streams).

    `conditional` is NaN where a lane alarmed before the change; each is the cap without an alarm.
    """

    conditional: Float64
    confidence: Float64
    of_class: Float64


class Joint:
    """Class and confidence of an event: the law before, baselines of all lanes, and ticks."""

    def __init__(self, rng: np.random.Generator) -> None:
        prior = np.array(CLASS_SHARES) / sum(CLASS_SHARES)
        laws = np.array([fine_shares(*law) for law in CLASS_LAWS]) * (1 - MISSING_RATIO)
        laws[:, SCORE.missing] = MISSING_RATIO
        self.before: Float64 = prior[:, None] * laws
        self._moved = min(prior[SURE], prior[UNSURE]) * (laws[SURE] - laws[UNSURE])
        classes = Grid(kind=GridKind.CLASSES, values=tuple(f"class {c}" for c in range(CLASSES)))
        of_class = np.concatenate((prior, [0.0, 0.0]))
        self.baselines = [
            *(frozen(SCORE, law, rng) for law in laws),
            frozen(SCORE, self.before.sum(axis=0), rng),
            frozen(classes, of_class, rng),
        ]
        groups = [each.group.astype(np.int64) for each in self.baselines]
        # Where an event of each cell (class, bin) is counted, in each of the three views.
        self._codes = np.array(
            [
                [lane * COARSE_BINS_MAX + groups[lane] for lane in range(CLASSES)],
                [CONFIDENCE * COARSE_BINS_MAX + groups[CONFIDENCE]] * CLASSES,
                np.tile((CLASS * COARSE_BINS_MAX + groups[CLASS][:CLASSES])[:, None], SCORE.width),
            ]
        ).reshape(3, -1)

    def law(self, part: float) -> Float64:
        """Return the law when two classes exchange part of theirs. Shape: (classes, bins)."""
        after = self.before.copy()
        after[SURE] -= part * self._moved
        after[UNSURE] += part * self._moved
        return after

    def coarse(self, law: Float64) -> Float64:
        """Return the shares of the bins of all lanes. Shape: (lanes, COARSE_BINS_MAX)."""
        width = LANES * COARSE_BINS_MAX
        found = np.zeros(width)
        for codes in self._codes:
            found += np.bincount(codes, weights=law.ravel(), minlength=width)
        return found.reshape(LANES, COARSE_BINS_MAX)

    def changes(self, wanted: Sequence[float]) -> list[tuple[Change, Float64]]:
        """Return changes at each PSI of the joint law, which is that of the classes by share."""
        before = self.coarse(self.before)[:CLASSES]

        def shares(part: float) -> Float64:
            return self.coarse(self.law(part))[:CLASSES]

        found = []
        for target in wanted:
            part = optimize.brentq(
                lambda x, target=target: float(psi(shares(x), before).sum()) - target, 0.0, 1.0
            )
            after = shares(part)
            nats = float(kl(after, before).sum())
            change = Change(kind=KIND, wanted=target, shares=after.ravel(), kl=nats)
            found.append((change, self.law(part)))
        return found

    def drawn(
        self, law: Float64, events: int, streams: int, rng: np.random.Generator
    ) -> Callable[[], Int64]:
        """Return what draws a tick. Shape of a tick: (streams * LANES, COARSE_BINS_MAX)."""
        edges = np.cumsum(law.ravel())
        edges /= edges[-1]
        width = LANES * COARSE_BINS_MAX
        first = width * np.arange(streams)[:, None]

        def draw() -> Int64:
            cells = np.searchsorted(edges, rng.random((streams, events)), side="right")
            codes = self._codes[:, cells] + first
            counts = np.bincount(codes.ravel(), minlength=streams * width)
            return counts.reshape(streams * LANES, COARSE_BINS_MAX)

        return draw


def lane_thresholds(
    found: Sequence[Detector],
    draw: Callable[[], Int64],
    streams: int,
    run_lengths: Sequence[int],
) -> dict[str, Float64]:
    """Return the threshold of each lane at each run length. Shape: (levels, LANES).

    The lanes of the classes together, and each of the marginals alone, are passed within the run
    length with probability 1 - 1/e.
    """
    highest = {each.name: np.full(streams * LANES, -np.inf) for each in found}
    chosen: dict[str, list[Float64]] = {each.name: [] for each in found}
    held = HeldTicks(streams * LANES, COARSE_BINS_MAX)
    part = np.exp(-np.where(np.arange(LANES) < CLASSES, 1 / CLASSES, 1.0))
    rank = (streams * part).astype(np.int64)
    for each in found:
        each.begin(streams)
    for tick in range(1, max(run_lengths) + 1):
        rows, counts = held.add(draw(), tick)
        for each in found:
            values = highest[each.name]
            values[rows] = np.maximum(values[rows], each.step(counts, rows))
        if tick in run_lengths:
            for name, values in highest.items():
                by_lane = np.sort(values.reshape(streams, LANES), axis=0)
                chosen[name].append(by_lane[rank, np.arange(LANES)])
    return {name: np.array(levels) for name, levels in chosen.items()}


def lane_delays(
    found: Sequence[Detector],
    levels: dict[str, Float64],
    before: Callable[[], Int64],
    after: Callable[[], Int64],
    *,
    streams: int,
    cap: int,
    follows_marginals: bool,
) -> dict[str, Heard]:
    """Return ticks from the change to the alarm of each detector, in each of the three views.

    Without `follows_marginals` a detector is left alone once every stream of it has alarmed.
    """
    shape = {each.name: (len(levels[each.name]), streams * LANES) for each in found}
    first = {name: np.full(size, np.inf) for name, size in shape.items()}
    bounds = {name: np.tile(each, (1, streams)) for name, each in levels.items()}
    held = HeldTicks(streams * LANES, COARSE_BINS_MAX)
    for each in found:
        each.begin(streams)
    still = list(found)
    for tick in range(1 - WARM_TICKS, cap + 1):
        rows, counts = held.add(before() if tick <= 0 else after(), tick + WARM_TICKS)
        for each in still:
            values = each.step(counts, rows)
            passed = (values >= bounds[each.name][:, rows]) & np.isfinite(values)
            reached = first[each.name]
            level, at = np.nonzero(passed & np.isinf(reached[:, rows]))
            reached[level, rows[at]] = tick
        if not follows_marginals:
            still = [each for each in still if np.isinf(_earliest(first[each.name])[-1]).any()]
            if not still:
                break
    return {name: _heard(reached, cap) for name, reached in first.items()}


def _earliest(reached: Float64) -> Float64:
    """Return the first alarm over the lanes of the classes. Shape: (levels, streams)."""
    lanes = reached.reshape(len(reached), -1, LANES)[:, :, :CLASSES]
    earliest: Float64 = lanes.min(axis=2)
    return earliest


def _heard(reached: Float64, cap: int) -> Heard:
    lanes = reached.reshape(len(reached), -1, LANES)
    views = [_earliest(reached), lanes[:, :, CONFIDENCE], lanes[:, :, CLASS]]
    capped = [np.where(np.isinf(each), float(cap), each) for each in views]
    conditional, confidence, of_class = (np.where(each > 0, each, np.nan) for each in capped)
    return Heard(conditional=conditional, confidence=confidence, of_class=of_class)
