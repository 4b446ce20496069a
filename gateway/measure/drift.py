"""The drift alarm: a robust mixture Shiryaev-Roberts e-detector on tick counts.

Law (budget): let the law of each event, given the past, lie within chi-squared distance delta**2 of
the reference. Then every bet's e-value has a conditional mean of at most 1, M - t is a
supermartingale, and the expected number of alarms in T ticks is at most T / A, for every T, under
any dependence inside that ball. Dividing by phi >= 1 keeps this under independence; under
dependence phi is calibration. An empty tick is never stepped on.

Complexity: a step costs streams x bets x bins. All arrays are by stream row.
Source: drift.md section 3; Shin, Ramdas and Rinaldo (2022), arXiv 2203.03532.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.measure.baseline import COARSE_BINS_MAX, Baseline
from gateway.measure.bets import BETS_MAX, bets_of, log_table
from gateway.measure.state import Array, Int64, State, grown
from gateway.tables import Float64

HALF_LIVES_TICKS: Final = (4.0, 32.0, 256.0)
ADAPTIVE: Final = len(HALF_LIVES_TICKS)
PRIOR_EVENTS: Final = 200.0
COMPONENTS: Final = BETS_MAX + ADAPTIVE
# The window since onset looks back at most this many ticks.
RECENT_TICKS: Final = 32
INDEX_WINDOW: Final = 1  # the EWMA that is shown is the one with a half-life of 32 ticks
CHUNK_STREAMS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A stream whose evidence passed the bound. Units: onset_ns and end_ns Unix nanoseconds."""

    row: int
    log_evidence: float
    bet: str
    onset_ns: int
    end_ns: int


def accumulate(log_value: Float64, log_m: Float64) -> Float64:
    """Take one Shiryaev-Roberts step, M becomes L (1 + M), in logs."""
    return log_value + np.logaddexp(0.0, log_m)


def accumulate_cusum(log_value: Float64, log_m: Float64) -> Float64:
    """Take one CUSUM e-detector step, M becomes L max(1, M), in logs; never above the other."""
    return log_value + np.maximum(0.0, log_m)


def plug_in(
    counts: Float64, ewma: Float64, shares: Float64, delta: Float64, phi: Float64
) -> Float64:
    """Return the log e-values of the adaptive bets from past counts alone.

    Shape: counts and shares (rows, bins), ewma (rows, half-lives, bins), delta and phi (rows,).
    """
    p = shares[:, None, :]
    total = ewma.sum(axis=2, keepdims=True)
    q = (ewma + PRIOR_EVENTS * p) / (total + PRIOR_EVENTS)
    used = p > 0
    ratio = np.where(used, q / np.where(used, p, 1.0) - 1, 0.0)
    chi = np.sqrt((p * ratio**2).sum(axis=2))
    # This share of the way to q maximises growth, (chi - delta)**2 / 2 nats for each event.
    safe = np.where(chi > 0, chi, 1.0)
    kappa = np.where(chi > 0, np.clip(1 - delta[:, None] / safe, 0.0, 1.0), 0.0)
    gain = np.log1p(kappa[:, :, None] * ratio)
    won = (counts[:, None, :] * gain).sum(axis=2)
    paid = counts.sum(axis=1)[:, None] * np.log1p(delta[:, None] * kappa * chi)
    values: Float64 = (won - paid) / phi[:, None]
    return values


class Bank:
    """Detectors of all streams that have a baseline."""

    def __init__(self) -> None:
        self.log_m = np.full((0, COMPONENTS), -np.inf)
        self.quiet_ns = np.zeros((0, COMPONENTS), dtype=np.int64)
        self.ewma = np.zeros((0, ADAPTIVE, COARSE_BINS_MAX))
        self.ewma_square = np.zeros(0)
        self.recent = np.zeros((0, RECENT_TICKS, COARSE_BINS_MAX), dtype=np.int32)
        self.recent_ns = np.zeros((0, RECENT_TICKS), dtype=np.int64)
        self.ticks = np.zeros(0, dtype=np.int64)
        self.evidence = np.zeros(0)
        # What follows is computed from baselines and is not part of the state.
        self._table = np.zeros((0, BETS_MAX, COARSE_BINS_MAX))
        self._log_weight = np.full((0, COMPONENTS), -np.inf)
        self.shares = np.zeros((0, COARSE_BINS_MAX))
        self.delta = np.zeros(0)
        self.phi = np.ones(0)
        self.log_bound = np.full(0, np.inf)
        self._bets: list[tuple[str, ...]] = []

    def reserve(self, rows: int) -> None:
        """Make room for streams 0 … rows - 1."""
        if rows <= len(self.ticks):
            return
        for name in _STATE_FIELDS:
            setattr(self, name, grown(getattr(self, name), rows, _FILL.get(name, 0)))
        for name in ("_table", "shares", "delta"):
            setattr(self, name, grown(getattr(self, name), rows))
        self._log_weight = grown(self._log_weight, rows, -np.inf)
        self.phi = grown(self.phi, rows, 1)
        self.log_bound = grown(self.log_bound, rows, np.inf)
        self._bets += [()] * (len(self.ticks) - len(self._bets))

    def arm(self, row: int, baseline: Baseline, tolerance: float, log_bound: float) -> None:
        """Give a stream its baseline; its evidence is not touched."""
        bets, names = bets_of(baseline)
        bins, count = baseline.bins, len(bets)
        delta = baseline.delta(tolerance)
        self._table[row] = 0
        self._table[row, :count, :bins] = log_table(bets, baseline.shares, delta)
        self._log_weight[row] = -np.inf
        self._log_weight[row, :count] = np.log(0.5 / count)
        self._log_weight[row, BETS_MAX:] = np.log(0.5 / ADAPTIVE)
        self.shares[row] = 0
        self.shares[row, :bins] = baseline.shares
        self.delta[row] = delta
        self.phi[row] = baseline.phi
        self.log_bound[row] = log_bound
        adaptive = tuple(f"recent change, {half_life:g} ticks" for half_life in HALF_LIVES_TICKS)
        self._bets[row] = names + ("",) * (BETS_MAX - count) + adaptive

    def clear(self, row: int, now_ns: int) -> None:
        """Forget all evidence of a stream, as at the start."""
        self.log_m[row] = -np.inf
        self.quiet_ns[row] = now_ns
        self.ewma[row] = 0
        self.ewma_square[row] = 0
        self.recent[row] = 0
        self.recent_ns[row] = 0
        self.ticks[row] = 0
        self.evidence[row] = 0

    def step(self, rows: Int64, counts: Int64, end_ns: Int64) -> list[Alarm]:
        """Take one tick of the given streams, every one with at least one event.

        Shape: rows and end_ns (k,), counts (k, COARSE_BINS_MAX).
        """
        alarms: list[Alarm] = []
        for first in range(0, len(rows), CHUNK_STREAMS):
            part = slice(first, first + CHUNK_STREAMS)
            alarms += self._step(rows[part], counts[part], end_ns[part])
        return alarms

    def _step(self, rows: Int64, counts: Int64, end_ns: Int64) -> list[Alarm]:
        seen = counts.astype(np.float64)
        phi = self.phi[rows]
        fixed = np.einsum("kb,kjb->kj", seen, self._table[rows]) / phi[:, None]
        ewma = self.ewma[rows]
        adaptive = plug_in(seen, ewma, self.shares[rows], self.delta[rows], phi)
        log_m = accumulate(np.concatenate((fixed, adaptive), axis=1), self.log_m[rows])
        mixed = np.logaddexp.reduce(self._log_weight[rows] + log_m, axis=1)
        self.quiet_ns[rows] = np.where(log_m <= 0, end_ns[:, None], self.quiet_ns[rows])
        # Only now may this tick become part of what the adaptive bets know.
        decay = np.exp2(-1 / np.asarray(HALF_LIVES_TICKS))
        self.ewma[rows] = ewma * decay[:, None] + (seen / phi[:, None])[:, None, :]
        shown = decay[INDEX_WINDOW] ** 2
        self.ewma_square[rows] = self.ewma_square[rows] * shown + seen.sum(axis=1)
        at = self.ticks[rows] % RECENT_TICKS
        self.recent[rows, at] = counts
        self.recent_ns[rows, at] = end_ns
        self.ticks[rows] += 1
        self.evidence[rows] = mixed
        alarms: list[Alarm] = []
        for k in np.flatnonzero(mixed >= self.log_bound[rows]).tolist():
            row = int(rows[k])
            dominant = int(np.argmax(self._log_weight[row] + log_m[k]))
            alarms.append(
                Alarm(
                    row=row,
                    log_evidence=float(mixed[k]),
                    bet=self._bets[row][dominant],
                    onset_ns=int(self.quiet_ns[row, dominant]),
                    end_ns=int(end_ns[k]),
                )
            )
            log_m[k] = -np.inf
        self.log_m[rows] = log_m
        return alarms

    def since(self, row: int, onset_ns: int) -> Int64:
        """Sum the counts of the recent ticks that ended after the onset."""
        used = self.recent_ns[row] > onset_ns
        total: Int64 = self.recent[row][used].sum(axis=0, dtype=np.int64)
        return total

    def window(self, rows: Int64) -> tuple[Float64, Float64]:
        """Return the EWMA window's counts and its effective number of independent events."""
        counts = self.ewma[rows, INDEX_WINDOW] * self.phi[rows, None]
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
            getattr(self, name)[rows] = state[name]


_STATE_FIELDS: Final = (
    "log_m",
    "quiet_ns",
    "ewma",
    "ewma_square",
    "recent",
    "recent_ns",
    "ticks",
    "evidence",
)
_FILL: Final[Mapping[str, float]] = {"log_m": -np.inf}
