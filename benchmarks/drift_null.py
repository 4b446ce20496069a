"""Streams in which nothing changes, by family: how many alarms does the budget allow and get?

Law: a family draws, for each of its streams, a reference of its own and then ticks from the same
truth. Alarms over budget, T / A with T the ticks that were judged, is what the detector promises to
keep at most 1; the Poisson bound is one-sided at 95 %.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy import stats

from gateway.measure.drift.baseline import COARSE_BINS_MAX, Baseline, freeze
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.grid import Grid, GridKind, bins_of_numbers
from gateway.measure.drift.seasonal import hourly_delta, hourly_shares
from gateway.measure.state import Int64
from gateway.tables import Float64

SCORE: Final = Grid(kind=GridKind.LOGIT)
BLOCKS: Final = 20
# A tick is held open until it has 20 events or 30 ticks of 10 s have passed.
HELD_EVENTS: Final = 20
HELD_TICKS: Final = 30
WOBBLE_PERIOD_TICKS: Final = 200
HOUR_TICKS: Final = 60  # an hour of the seasonal family, shortened so that a week is run through
SEASON_HOURS: Final = 168
SCENE_DRAWS: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of traffic. Units: events per tick, scene in frames, wobble in root of chi-squared."""

    name: str
    events: float = 50
    reference: int = 50_000
    tolerance: float = 0.0
    wobble: float = 0.0
    scene: float = 1.0
    levels: int = 0
    classes: tuple[float, ...] = ()
    burst_ratio: float = 1.0
    seasonal: bool = False


def _zipf(classes: int) -> tuple[float, ...]:
    weight = 1 / np.arange(1, classes + 1) ** 1.1
    return tuple((weight / weight.sum()).tolist())


FAMILIES: Final = (
    Family(name="law known", reference=1_000_000_000),
    Family(name="iid"),
    Family(name="reference of 2,000", reference=2_000, events=1_000),
    Family(name="reference of 10,000", reference=10_000, events=1_000),
    Family(name="reference of 50,000", reference=50_000, events=1_000),
    Family(name="hour of week", tolerance=0.1, reference=336_000, wobble=0.3, seasonal=True),
    Family(name="wobble inside the tolerance", tolerance=0.1, wobble=0.095),
    Family(name="scenes of 10 frames", scene=10),
    Family(name="scenes of 100 frames", scene=100, reference=200_000),
    Family(name="sparse", events=1),
    Family(name="bursts", events=50, burst_ratio=0.05),
    Family(name="ties, 32 levels", levels=32),
    Family(name="int8 scores", levels=255),
    Family(name="imbalance", classes=(0.995, 0.004, 0.0009, 0.0001)),
    Family(name="1,000 classes, Zipf", classes=_zipf(1_000)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a family gave for one A."""

    family: str
    a: float
    stream_ticks: int
    judged: int
    alarms: int
    streams_alarming: int

    @property
    def budget(self) -> float:
        """Expected number of alarms that are allowed; ticks without a verdict allow none."""
        return self.judged / self.a

    @property
    def ratio(self) -> float:
        """Alarms over budget."""
        return self.alarms / self.budget

    @property
    def ratio_high(self) -> float:
        """Upper 95 % Poisson bound of the ratio."""
        return float(stats.chi2.isf(0.05, 2 * (self.alarms + 1))) / 2 / self.budget


def fine_shares(a: float, b: float, levels: int = 0) -> Float64:
    """Return what share of a Beta law lies in each bin of the grid of scores."""
    if levels:
        values = np.arange(levels + 1) / levels
        inner = np.concatenate(([0.0], (values[1:] + values[:-1]) / 2, [1.0]))
        bins = bins_of_numbers(SCORE, values, np.zeros(len(values), dtype=np.bool_))
        mass = np.diff(stats.beta(a, b).cdf(inner))
        return np.bincount(bins, weights=mass, minlength=SCORE.width).astype(np.float64)
    shares = np.zeros(SCORE.width)
    shares[: SCORE.bins] = np.diff(stats.beta(a, b).cdf(SCORE.edges()))
    return shares


class HeldTicks:
    """Ticks that stay open until they have HELD_EVENTS events or HELD_TICKS have passed."""

    def __init__(self, rows: int, width: int) -> None:
        self._counts = np.zeros((rows, width), dtype=np.int64)
        self._opened = np.zeros(rows, dtype=np.int64)

    def add(self, counts: Int64, tick: int) -> tuple[Int64, Int64]:
        """Add what a tick brought. Returns the rows whose tick closes, and their counts."""
        self._counts += counts
        events = self._counts.sum(axis=1)
        self._opened[events == 0] = tick
        is_late = (events > 0) & (tick - self._opened >= HELD_TICKS)
        rows = np.flatnonzero((events >= HELD_EVENTS) | is_late)
        closed = self._counts[rows]
        self._counts[rows] = 0
        self._opened[rows] = tick
        return rows, closed


class World:
    """Streams of a family with their baselines, and their ticks."""

    def __init__(self, family: Family, streams: int, rng: np.random.Generator) -> None:
        self.family, self.streams, self.rng = family, streams, rng
        if family.classes:
            values = tuple(f"class {number}" for number in range(len(family.classes)))
            self.grid = Grid(kind=GridKind.CLASSES, values=values)
            self.truth = np.array([*family.classes, 0.0, 0.0])
        else:
            self.grid = SCORE
            self.truth = fine_shares(8, 2, family.levels)
        self._scene_bins = np.zeros(0, dtype=np.int64)
        if family.scene > 1:
            self._scene_bins = np.repeat(
                np.arange(self.grid.width), rng.multinomial(SCENE_DRAWS, self.truth)
            )
            self.truth = np.bincount(self._scene_bins, minlength=self.grid.width) / SCENE_DRAWS
        self._other = fine_shares(7, 3) if family.wobble else self.truth
        self.phase = rng.random(streams)
        self.baselines = [self._baseline() for _ in range(streams)]
        self.coarse = np.array([self._coarse(each, self.truth) for each in self.baselines])
        other = np.array([self._coarse(each, self._other) for each in self.baselines])
        # How far to go towards the other law for the wobble that is wanted, in chi-squared.
        far = np.sqrt(
            np.divide(
                (other - self.coarse) ** 2,
                self.coarse,
                out=np.zeros_like(other),
                where=self.coarse > 0,
            ).sum(axis=1)
        )
        self.away = (other - self.coarse) * (family.wobble / np.maximum(far, 1e-9))[:, None]
        self._last = rng.integers(0, SCENE_DRAWS, streams)

    def _coarse(self, baseline: Baseline, fine: Float64) -> Float64:
        found = np.bincount(baseline.group, weights=fine, minlength=COARSE_BINS_MAX)
        return found.astype(np.float64)

    def _baseline(self) -> Baseline:
        each = self.family.reference // BLOCKS
        if self.family.scene > 1:
            blocks = [self._scene_block(each) for _ in range(BLOCKS)]
        else:
            blocks = list(self.rng.multinomial(each, self.truth / self.truth.sum(), size=BLOCKS))
        return freeze(self.grid, np.sum(blocks, axis=0), blocks)

    def _scene_block(self, frames: int) -> Int64:
        # Scenes follow one another, so a block begins with a scene of its own.
        lengths = self.rng.geometric(
            1 / self.family.scene, int(2 * frames / self.family.scene) + 50
        )
        ends = np.minimum(np.cumsum(lengths), frames)
        bins = self._scene_bins[self.rng.integers(0, SCENE_DRAWS, len(lengths))]
        used = np.diff(ends, prepend=0)
        return np.bincount(bins, weights=used, minlength=self.grid.width).astype(np.int64)

    def laws(self, tick: int) -> Float64:
        """Return the true shares of each stream at a tick. Shape: (streams, COARSE_BINS_MAX)."""
        if not self.family.wobble:
            return self.coarse
        if self.family.seasonal:
            return self.hourly(tick // HOUR_TICKS % SEASON_HOURS)
        return self._turned(tick / WOBBLE_PERIOD_TICKS)

    def hourly(self, hour: int) -> Float64:
        """Return the true shares of each stream at an hour of the week."""
        return self._turned(hour / 24)

    def _turned(self, turns: float) -> Float64:
        turn = np.sin(2 * np.pi * (turns + self.phase))
        laws = np.maximum(self.coarse + self.away * turn[:, None], 0.0)
        found: Float64 = laws / laws.sum(axis=1, keepdims=True)
        return found

    def ticks(self, count: int) -> Iterator[tuple[int, Int64, Int64]]:
        """Draw ticks: number, the streams whose tick closes, and their coarse counts."""
        held = HeldTicks(self.streams, COARSE_BINS_MAX)
        for tick in range(1, count + 1):
            yield tick, *held.add(self._tick(tick), tick)

    def _tick(self, tick: int) -> Int64:
        family = self.family
        if family.scene > 1:
            return self._scene_tick(int(family.events))
        if family.burst_ratio < 1:
            mean = family.events / family.burst_ratio
            is_burst = self.rng.random(self.streams) < family.burst_ratio
            size = self.rng.poisson(np.where(is_burst, mean, 0.1))
        elif family.events < HELD_EVENTS:
            size = self.rng.poisson(family.events, self.streams)
        else:
            size = np.full(self.streams, int(family.events))
        laws = self.laws(tick)
        return self.rng.multinomial(size, laws / laws.sum(axis=1, keepdims=True))

    def _scene_tick(self, frames: int) -> Int64:
        fresh = self.rng.random((self.streams, frames)) < 1 / self.family.scene
        drawn = self.rng.integers(0, SCENE_DRAWS, (self.streams, frames))
        since = np.maximum.accumulate(np.where(fresh, np.arange(frames), -1), axis=1)
        shown = np.take_along_axis(drawn, np.maximum(since, 0), axis=1)
        shown = np.where(since < 0, self._last[:, None], shown)
        self._last = shown[:, -1]
        fine = self._scene_bins[shown]
        groups = np.array([each.group for each in self.baselines])
        at = np.take_along_axis(groups.astype(np.int64), fine, axis=1)
        at += np.arange(self.streams)[:, None] * COARSE_BINS_MAX
        counted = np.bincount(at.ravel(), minlength=self.streams * COARSE_BINS_MAX)
        return counted.reshape(self.streams, COARSE_BINS_MAX)


class Season:
    """Hour-of-week references of all streams of a world."""

    def __init__(self, world: World) -> None:
        each = world.family.reference // SEASON_HOURS
        self.shares = np.zeros((SEASON_HOURS, world.streams, COARSE_BINS_MAX))
        self.delta = np.zeros((SEASON_HOURS, world.streams))
        counts = np.zeros((SEASON_HOURS, world.streams, COARSE_BINS_MAX))
        for hour in range(SEASON_HOURS):
            laws = world.hourly(hour)
            counts[hour] = world.rng.multinomial(each, laws / laws.sum(axis=1, keepdims=True))
        for row, baseline in enumerate(world.baselines):
            seen = counts[:, row, : baseline.bins]
            self.shares[:, row, : baseline.bins] = hourly_shares(seen, baseline.shares)
            self.delta[:, row] = hourly_delta(
                seen, baseline.shares, world.family.tolerance, baseline.phi
            )


def judge(
    family: Family,
    streams: int,
    ticks: int,
    budgets: tuple[float, ...],
    seed: int,
) -> list[Outcome]:
    """Run a family and count alarms for each A."""
    world = World(family, streams, np.random.default_rng(seed))
    banks = []
    for a in budgets:
        bank = Bank()
        bank.reserve(streams)
        for row, baseline in enumerate(world.baselines):
            bank.arm(row, baseline, family.tolerance, float(np.log(a)))
        banks.append(bank)
    season = Season(world) if family.seasonal else None
    alarms = [np.zeros(streams, dtype=np.int64) for _ in budgets]
    judged = 0
    for tick, rows, counts in world.ticks(ticks):
        if season is not None and tick % HOUR_TICKS in (0, 1):
            hour = tick // HOUR_TICKS % SEASON_HOURS
            before = season.shares[(tick - 1) // HOUR_TICKS % SEASON_HOURS]
            for bank in banks:
                bank.refer(np.arange(streams), season.shares[hour], season.delta[hour])
                if tick > 1:
                    bank.carry(np.arange(streams), before)
        judged += len(rows)
        for bank, found in zip(banks, alarms, strict=True):
            for alarm in bank.step(rows, counts, np.full(len(rows), tick)):
                found[alarm.row] += 1
    return [
        Outcome(
            family=family.name,
            a=a,
            stream_ticks=streams * ticks,
            judged=judged,
            alarms=int(found.sum()),
            streams_alarming=int((found > 0).sum()),
        )
        for a, found in zip(budgets, alarms, strict=True)
    ]


def shorter(family: Family, reference_max: int) -> Family:
    """Return the family with a smaller reference, for a quick look."""
    return replace(family, reference=min(family.reference, reference_max))
