"""The drift alarm: a robust mixture Shiryaev-Roberts e-detector on tick counts.

Law (budget): let the law of each event, given everything before it, lie within chi-squared distance
delta**2 of the reference. Then in T ticks the expected number of alarms is at most T / A, for every
T, however the events depend on one another inside that ball.

Proof: (1) each bet's value L of a tick has a conditional mean of at most 1, because each event's
factor has (see `bets`), and a bet, also an adaptive one, is fixed before the tick. (2) M becomes
L (1 + M), so its mean grows by at most 1 a tick; so does the weighted mean of all bets' M, weights
adding up to 1. It may grow by less: an adaptive bet that has learned nothing starts nothing. (3) An
alarm sets M >= A back to 0. With N alarms so far, M + A N therefore grows by at most 1 a tick in
the mean, and A E[N] <= E[M + A N] <= T. A tick without events is never stepped on: there L would be
1 and M would grow by 1 for nothing. CUSUM, M becomes L max(1, M), is never above, so that the same
holds for it. What is stored of M is rounded down, fees up.

`lasting` is an M that no alarm sets back, for reports (see `fleet`): it becomes M / (1 + M before)
(1 + lasting), where "before" is after any reset. The mean of M is at most 1 + M before, so that of
`lasting` grows by at most 1 a tick as well. After a patience of ticks it starts again at 0.

Outside the proof: dividing log L by phi >= 1 keeps (1) under independence (Jensen); where events
depend on one another beyond the ball, phi is calibration. The reference itself is estimated, which
delta allows for with probability 1 - ETA per baseline.

Complexity: a step costs streams x bets x places. All arrays are by stream row, inside by place.
Source: drift.md section 3; Shin, Ramdas and Rinaldo (2022), arXiv 2203.03532.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.contract.schema import Accumulator
from gateway.measure.drift.baseline import COARSE_BINS_MAX, PLACES, SPARE, Baseline
from gateway.measure.drift.bets import (
    BETS,
    FIXED_WEIGHT,
    Bets,
    class_bets,
    fees,
    kind_of,
    name_of,
    ordered_bets,
)
from gateway.measure.drift.fleet import fleet_log_bound
from gateway.measure.drift.learned import (
    adaptive_values,
    expected_change,
    plug_in,
    smooth_plug_in,
)
from gateway.measure.drift.recent import BLOCKS, Recent
from gateway.measure.state import Array, Int64, State, grown
from gateway.tables import Bool, Float64

HALF_LIVES_TICKS: Final = (4.0, 32.0, 256.0)
HALF_LIVES: Final = len(HALF_LIVES_TICKS)
# Each half-life is bet on twice: bin by bin, and on the smooth part of the change.
ADAPTIVE: Final = 2 * HALF_LIVES
COMPONENTS: Final = BETS + ADAPTIVE
INDEX_WINDOW: Final = 1  # the EWMA that is shown is the one with a half-life of 32 ticks
CHUNK_STREAMS: Final = 384
PATIENCE_TICKS: Final = 259_200  # 30 days of 10 s
AGE_MAX: Final = (1 << 16) - 1
# What single precision may do to one event's log value in an adaptive bet, at most; it is paid for.
ROUNDING: Final = 2e-6
# Relative distance of two neighbouring single-precision numbers, at most.
STEP: Final = 2.0**-23
# Above this exp overflows, and log(1 + exp(x)) is x.
EXPONENT_MAX: Final = 700.0
# What stands for an M of 0 once a step was taken.
LEAST: Final = 1e-300
LOG_LEAST: Final = -691.0

Float32 = NDArray[np.float32]
Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A stream whose evidence passed the bound. Units: onset_ns and end_ns Unix nanoseconds.

    `bet` says what changed most; `bet_kind` says it without a class.
    """

    row: int
    log_evidence: float
    bet: str
    bet_kind: str
    onset_ns: int
    end_ns: int


def accumulate(log_value: Float64, log_m: Float64, starts: Bool | bool = True) -> Float64:
    """Take one Shiryaev-Roberts step, M becomes L (1 + M), in logs; L M where nothing starts."""
    before = np.exp(np.minimum(log_m, EXPONENT_MAX))
    grown_m: Float64 = np.log(np.maximum(before + starts, LEAST))
    return log_value + np.maximum(grown_m, log_m)


def accumulate_cusum(log_value: Float64, log_m: Float64, starts: Bool | bool = True) -> Float64:
    """Take one CUSUM e-detector step, M becomes L max(1, M), in logs; never above the other."""
    return log_value + np.maximum(np.where(starts, 0.0, LOG_LEAST), log_m)


def rounded_down(values: Float64) -> Float32:
    """Return single-precision numbers that are not above the values, by two steps at most."""
    return (values - np.abs(values) * STEP).astype(np.float32)


class Bank:
    """Detectors of all streams that have a baseline.

    `patience_ticks` is after how many ticks of a stream its lasting evidence starts again.
    """

    def __init__(self, patience_ticks: int = PATIENCE_TICKS) -> None:
        self.patience_ticks = patience_ticks
        self._sharing = 1
        self.log_m: Float32 = np.full((0, COMPONENTS), -np.inf, dtype=np.float32)
        # Ticks since a bet's evidence was last gone.
        self.age = np.zeros((0, COMPONENTS), dtype=np.uint16)
        self.ewma = np.zeros((0, HALF_LIVES, PLACES), dtype=np.float32)
        self.ewma_square = np.zeros(0)
        self.recent = np.zeros((0, BLOCKS, PLACES), dtype=np.int32)
        self.recent_ns = np.zeros((0, BLOCKS + 1), dtype=np.int64)
        self.recent_ticks = np.zeros((0, BLOCKS), dtype=np.uint8)
        self.ticks = np.zeros(0, dtype=np.int64)
        self.evidence = np.zeros(0)
        self.lasting: Float32 = np.full(0, -np.inf, dtype=np.float32)
        # What follows is computed from baselines and is not part of the state.
        self._fees: Float32 = np.zeros((0, BETS), dtype=np.float32)
        self._log_weight = np.full((0, 3), -np.inf)
        self._is_ordered = np.zeros(0, dtype=np.bool_)
        self._is_cusum = np.zeros(0, dtype=np.bool_)
        # The coarse bin at a place, and the place of a coarse bin; SPARE where there is none.
        self._bin_at = np.zeros((0, PLACES), dtype=np.uint8)
        self._place_of = np.zeros((0, COARSE_BINS_MAX), dtype=np.uint8)
        self._shares = np.zeros((0, PLACES))
        self.delta = np.zeros(0)
        self.phi = np.ones(0)
        # Log A of the stream's contract; `log_bound` says what is in force.
        self.own_log_bound = np.full(0, np.inf)
        self._baselines: list[Baseline | None] = []

    def reserve(self, rows: int) -> None:
        """Make room for streams 0 … rows - 1."""
        if rows <= len(self.ticks):
            return
        for name in (*_STATE_FIELDS, *_ARMED_FIELDS):
            setattr(self, name, grown(getattr(self, name), rows, _FILL.get(name, 0)))
        self._baselines += [None] * (len(self.ticks) - len(self._baselines))

    def arm(
        self,
        row: int,
        baseline: Baseline,
        tolerance: float,
        log_bound: float,
        accumulator: Accumulator = Accumulator.SHIRYAEV_ROBERTS,
    ) -> None:
        """Give a stream its baseline; its evidence is not touched."""
        self._bin_at[row] = SPARE
        self._bin_at[row, baseline.places] = np.arange(baseline.bins)
        self._place_of[row] = SPARE
        self._place_of[row, : baseline.bins] = baseline.places
        self._is_ordered[row] = baseline.is_ordered
        self._is_cusum[row] = accumulator is Accumulator.CUSUM
        self.phi[row] = baseline.phi
        self.own_log_bound[row] = log_bound
        self._baselines[row] = baseline
        delta = np.array([baseline.delta(tolerance)])
        self.refer(np.array([row]), baseline.shares[None, :], delta)

    def share(self, detectors: int) -> None:
        """Let this many detectors share one budget: every bound becomes A K, see `fleet`."""
        self._sharing = detectors

    def log_bound(self, rows: Int64) -> Float64:
        """Return the bounds in force, infinite where a stream has no baseline."""
        return fleet_log_bound(self.own_log_bound[rows], self._sharing)

    def refer(self, rows: Int64, shares: Float64, delta: Float64) -> None:
        """Judge armed streams against other shares of their baseline's bins from the next tick on.

        What they are must be known before the tick, as those of an hour of the week are.
        Shape: shares (rows, coarse bins), delta (rows,).
        """
        padded = np.zeros((len(rows), COARSE_BINS_MAX))
        padded[:, : shares.shape[1]] = shares
        placed = np.take_along_axis(padded, self._bin_at[rows].astype(np.intp), axis=1)
        self._shares[rows] = placed
        self.delta[rows] = delta
        for is_ordered, bets in ((True, ordered_bets()), (False, class_bets())):
            mine = self._is_ordered[rows] == is_ordered
            paid = fees(bets.factors, placed[mine], delta[mine])
            self._fees[rows[mine]] = -rounded_down(-paid)
            # The weight of bets that cannot win goes to the others.
            useful = np.where(np.isfinite(paid), bets.weights, 0.0).sum(axis=1)
            each = (1 - FIXED_WEIGHT) / ADAPTIVE if is_ordered else (1 - FIXED_WEIGHT) / HALF_LIVES
            self._log_weight[rows[mine], 0] = np.log(FIXED_WEIGHT / np.maximum(useful, LEAST))
            self._log_weight[rows[mine], 1] = np.log(each)
            self._log_weight[rows[mine], 2] = np.log(each) if is_ordered else -np.inf

    def disarm(self, row: int) -> None:
        """Let go of a stream's baseline; the row is not to be stepped on before it is armed."""
        self._baselines[row] = None

    def carry(self, rows: Int64, before: Float64) -> None:
        """Carry over what is recent from other shares to those that streams are judged against.

        What was seen r times as often as the shares before say counts as seen r times as often as
        those of now say: so an unchanged signal shows no change, and a bet that learned from the
        hour before does not bet on it. This uses the past alone, so a value is as valid as before.
        Shape: before (rows, coarse bins).
        """
        padded = np.zeros((len(rows), COARSE_BINS_MAX))
        padded[:, : before.shape[1]] = before
        placed = np.take_along_axis(padded, self._bin_at[rows].astype(np.intp), axis=1)
        ratio = np.divide(self._shares[rows], placed, out=np.zeros_like(placed), where=placed > 0)
        kept = self.ewma[rows].astype(np.float64)
        moved = kept * ratio[:, None, :]
        total, sums = kept.sum(axis=2, keepdims=True), moved.sum(axis=2, keepdims=True)
        moved *= np.divide(total, sums, out=np.zeros_like(sums), where=sums > 0)
        self.ewma[rows] = moved

    def clear(self, row: int, now_ns: int) -> None:
        """Forget all evidence of a stream, as at the start."""
        for name in _STATE_FIELDS:
            getattr(self, name)[row] = _FILL.get(name, 0)
        self.recent_ns[row, 0] = now_ns

    def step(self, rows: Int64, counts: Int64, end_ns: Int64) -> list[Alarm]:
        """Take one tick of the given streams, every one with at least one event.

        Shape: rows and end_ns (k,), counts (k, COARSE_BINS_MAX).
        """
        alarms: list[Alarm] = []
        for is_ordered in (True, False):
            mine = np.flatnonzero(self._is_ordered[rows] == is_ordered)
            bets = ordered_bets() if is_ordered else class_bets()
            for first in range(0, len(mine), CHUNK_STREAMS):
                part = mine[first : first + CHUNK_STREAMS]
                alarms += self._step(rows[part], counts[part], end_ns[part], bets)
        return sorted(alarms, key=lambda alarm: alarm.row)

    def _step(self, rows: Int64, counts: Int64, end_ns: Int64, bets: Bets) -> list[Alarm]:
        placed = np.take_along_axis(counts, self._bin_at[rows].astype(np.intp), axis=1)
        seen, phi = placed.astype(np.float64), self.phi[rows]
        # After a step the first bet that learns has a finite M, whatever it won.
        is_anew = np.isneginf(self.log_m[rows, BETS])
        before = np.where(is_anew, -np.inf, self.evidence[rows])
        log_m = self._accumulated(rows, seen, bets)
        mixed, parts = mixture(log_m, self._log_weight[rows], bets.weights)
        age = np.minimum(self.age[rows], np.uint16(AGE_MAX - 1)) + np.uint16(1)
        age *= log_m > 0
        # Only now may this tick become part of what the adaptive bets know.
        decay = np.exp2(-1 / np.asarray(HALF_LIVES_TICKS))
        kept = self.ewma[rows] * decay.astype(np.float32)[:, None]
        kept += (seen / phi[:, None]).astype(np.float32)[:, None, :]
        self.ewma[rows] = kept
        shown = decay[INDEX_WINDOW] ** 2
        self.ewma_square[rows] = self.ewma_square[rows] * shown + seen.sum(axis=1)
        self.ticks[rows] += 1
        self._window.add(rows, placed, end_ns, self.ticks[rows])
        self.evidence[rows] = mixed
        held = self.lasting[rows].astype(np.float64)
        lasting = mixed - np.logaddexp(0.0, before) + np.logaddexp(0.0, held)
        is_over = self.ticks[rows] % self.patience_ticks == 0
        self.lasting[rows] = rounded_down(np.where(is_over, -np.inf, lasting))
        alarms: list[Alarm] = []
        for k in np.flatnonzero(mixed >= self.log_bound(rows)).tolist():
            row, dominant = int(rows[k]), int(np.argmax(parts[k]))
            alarms.append(
                Alarm(
                    row=row,
                    log_evidence=float(mixed[k]),
                    bet=_name(self._baselines[row], dominant, name_of),
                    bet_kind=_name(self._baselines[row], dominant, kind_of),
                    onset_ns=self._window.time_ns(row, int(age[k, dominant])),
                    end_ns=int(end_ns[k]),
                )
            )
            log_m[k] = -np.inf
            age[k] = 0
        self.log_m[rows] = rounded_down(log_m)
        self.age[rows] = age
        return alarms

    def _accumulated(self, rows: Int64, seen: Float64, bets: Bets) -> Float64:
        """Return log M of every bet after a tick."""
        shares, delta, phi = self._shares[rows], self.delta[rows], self.phi[rows]
        events = seen.sum(axis=1)[:, None]
        # BLAS adds up one row in another order than several, but a tick must not depend on which
        # other streams end theirs with it.
        several = np.concatenate((seen, seen)) if len(seen) == 1 else seen
        won = (several @ bets.log_factors.T)[: len(seen)]
        fixed = (won - events * self._fees[rows]) / phi[:, None]
        near, single = shares.astype(np.float32), seen.astype(np.float32)
        change = expected_change(self.ewma[rows], near)
        learned = np.concatenate((plug_in(change, near), smooth_plug_in(change, near)), axis=1)
        adaptive, is_bet = adaptive_values(single, learned, near, delta, phi)
        adaptive -= events * ROUNDING / phi[:, None]
        # A bet on nothing has the value 1 for ever: M would grow by 1 a tick and alarm for certain
        # after A ticks of peace. So it starts nothing, and what it has won before fades.
        adaptive -= np.where(is_bet, 0.0, np.log(2) / np.tile(HALF_LIVES_TICKS, 2))
        before: Float64 = self.log_m[rows].astype(np.float64)
        after = np.empty_like(before)
        after[:, :BETS] = accumulate(fixed, before[:, :BETS])
        after[:, BETS:] = accumulate(adaptive, before[:, BETS:], is_bet)
        other = np.flatnonzero(self._is_cusum[rows])
        if len(other):
            after[other, :BETS] = accumulate_cusum(fixed[other], before[other, :BETS])
            after[other, BETS:] = accumulate_cusum(
                adaptive[other], before[other, BETS:], is_bet[other]
            )
        return after

    @property
    def _window(self) -> Recent:
        return Recent(counts=self.recent, end_ns=self.recent_ns, ticks=self.recent_ticks)

    def since(self, row: int, onset_ns: int) -> Int64:
        """Sum the counts of the recent ticks after the onset, by coarse bin."""
        placed = self._window.since(row, onset_ns)
        total: Int64 = placed[self._place_of[row]]
        return total

    def blocks(self, rows: Int64) -> Int64:
        """Return the counts of recent blocks of ticks, newest first, by coarse bin.

        Shape: (rows, BLOCKS, COARSE_BINS_MAX).
        """
        places = self._place_of[rows].astype(np.intp)[:, None, :]
        held: Int64 = np.take_along_axis(self.recent[rows], places, axis=2).astype(np.int64)
        return held

    def window(self, rows: Int64) -> tuple[Float64, Float64]:
        """Return the EWMA window's counts and its effective number of independent events."""
        placed = self.ewma[rows, INDEX_WINDOW].astype(np.float64) * self.phi[rows, None]
        counts = np.take_along_axis(placed, self._place_of[rows].astype(np.intp), axis=1)
        total = counts.sum(axis=1)
        square = self.ewma_square[rows]
        size = np.where(square > 0, total**2 / np.where(square > 0, square, 1.0), 0.0)
        return counts, size / self.phi[rows]

    def state(self, rows: Int64) -> State:
        """Copy the evidence of the given streams."""
        return {name: getattr(self, name)[rows].copy() for name in _STATE_FIELDS}

    def restore(self, rows: Int64, state: Mapping[str, Array]) -> None:
        """Put back the evidence of the given streams; their baselines are armed elsewhere."""
        self.reserve(int(rows.max(initial=-1)) + 1)
        for name in _STATE_FIELDS:
            if name in state:
                getattr(self, name)[rows] = state[name]


def _name(baseline: Baseline | None, bet: int, fixed: Callable[[Baseline, int], str]) -> str:
    """Say what a bet of an armed stream is for."""
    assert baseline is not None
    if bet < BETS:
        return fixed(baseline, bet)
    what = "single" if bet < BETS + HALF_LIVES else "smooth"
    return f"recent {what} change, {HALF_LIVES_TICKS[(bet - BETS) % HALF_LIVES]:g} ticks"


def mixture(log_m: Float64, log_weight: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """Return the log of the weighted sum of M, and of its parts. Shape: (rows,), as log_m.

    `weights` are those of the fixed bets among themselves, `log_weight` (rows, 3) those of the
    three kinds: all fixed bets, and each bet that learns bin by bin or smoothly.
    """
    parts = log_m.copy()
    parts[:, :BETS] += np.log(weights)
    kinds = (slice(0, BETS), slice(BETS, BETS + HALF_LIVES), slice(BETS + HALF_LIVES, COMPONENTS))
    for kind, columns in enumerate(kinds):
        parts[:, columns] += log_weight[:, kind, None]
    most = parts.max(axis=1)
    mixed: Float64 = most + np.log(np.exp(parts - most[:, None]).sum(axis=1))
    return mixed, parts


_STATE_FIELDS: Final = (
    "log_m",
    "age",
    "ewma",
    "ewma_square",
    "recent",
    "recent_ns",
    "recent_ticks",
    "ticks",
    "evidence",
    "lasting",
)
_ARMED_FIELDS: Final = (
    "_fees",
    "_log_weight",
    "_is_ordered",
    "_is_cusum",
    "_bin_at",
    "_place_of",
    "_shares",
    "delta",
    "phi",
    "own_log_bound",
)
_FILL: Final[Mapping[str, float]] = {
    "log_m": -np.inf,
    "lasting": -np.inf,
    "_log_weight": -np.inf,
    "_bin_at": SPARE,
    "_place_of": SPARE,
    "phi": 1,
    "own_log_bound": np.inf,
}
