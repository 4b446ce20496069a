"""How many inferences each model has: counted by tick, judged against a reference of its own.

Law: the rate is that of a model, all versions together, since a rollout moves those of versions by
design. Every tick of the clock is stepped on, empty ones too, because here silence is evidence.
These are none: ticks in which the gateway was away, or hears again what was held back for it; and
what comes after UNHEARD_TICKS without any batch, which `freshness` tells. So a gap costs a bounded
number of steps, and idle steps only do earlier what the next batch does.

Life: from the tick after the first inference on a reference is learned and frozen, see
`ratebaseline`. It is never updated by live data. After an alarm a candidate is collected, which a
person may promote; it is thrown away when the rate is back by itself.

No change that is over within SUSTAINED_NS alarms, as a network that was gone for minutes and the
backlog after it: evidence is cut to half of the bound above its own mean of the last SUSTAINED_NS,
which from nothing takes that long to let it through. What is cut only gets less, so that the
budget of `rate` holds.
Complexity: one bincount for each batch, some twenty calls of numpy for each tick.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.contract.plan import Plan
from gateway.measure.devices.devices import PAUSE_NS
from gateway.measure.drift.baseline import baseline_id
from gateway.measure.drift.fleet import Budget, fleet_log_bound
from gateway.measure.drift.rate import FACTORS, rate_mixture, rate_step, rate_values
from gateway.measure.drift.ratebaseline import (
    COUNT,
    OF_BLOCKS,
    OF_TICKS,
    SCALES,
    SUMS,
    RateBaseline,
    block_ticks,
    events_of,
    freeze_rate,
    is_enough,
)
from gateway.measure.drift.seasonal import EPOCH_HOUR, HOUR_NS, HOURS
from gateway.measure.settings import SECOND_NS, MeasureSettings
from gateway.measure.state import Array, Int64
from gateway.tables import Bool

EVENT_RATE: Final = "event_rate"
# So many ticks are judged in which nobody was heard: six hours of ticks of ten seconds.
UNHEARD_TICKS: Final = 2_160
# After it was away the gateway hears for a while what was held back for it.
SETTLE_NS: Final = PAUSE_NS
SUSTAINED_NS: Final = PAUSE_NS
# One false alarm in ten ticks; with long ticks a contract may allow more, and that is no alarm.
LOG_BOUND_MIN: Final = 2.302585092994046
# The two places of sums: what is judged against, and what waits to be promoted.
REFERENCE: Final = 0
CANDIDATE: Final = 1
_RISES: Final = np.array(FACTORS) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RateAlarm:
    """A model whose rate has changed. Units: per second; Unix nanoseconds; `events` since onset."""

    row: int
    log_evidence: float
    log_bound: float
    onset_ns: int
    end_ns: int
    expected_hz: float
    now_hz: float
    low_hz: float
    high_hz: float
    phi: float
    events: int
    baseline_events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RateEnd:
    """A model whose rate is within its range again. Units: end_ns Unix nanoseconds."""

    row: int
    end_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RateNow:
    """How a model's rate stands. Units: per second; `now_hz` is of the last one to two hours."""

    expected_hz: float
    low_hz: float
    high_hz: float
    now_hz: float | None
    log_evidence: float  # at least 0
    log_bound: float


class Rates:
    """Rates of the models whose contracts judge them; a row for each."""

    def __init__(self, plan: Plan, settings: MeasureSettings, budget: Budget) -> None:
        self._plan = plan
        self._settings = settings
        self.budget = budget
        self.tick_ns = settings.drift_tick_ns
        self._quiet_ns = round(settings.drift_quiet_s * SECOND_NS)
        self.contracts = tuple(
            index
            for index, contract in enumerate(plan.contracts)
            if contract.drift.rate_tolerance is not None
        )
        self.models = tuple(plan.contracts[index].model for index in self.contracts)
        rows = len(self.contracts)
        # The newest batch's arrival, the first tick that may be judged, and when the gateway was
        # away last. Units: ns, ticks since 1970.
        self.tick = 0
        self.heard_ns = 0
        self.judged_from = 0
        self.away_ns = (0, 0)
        for name, (shape, dtype) in FIELDS.items():
            setattr(self, name, np.zeros((rows, *shape), dtype=dtype))
        self.log_m.fill(-np.inf)
        self.evidence.fill(-np.inf)
        self.filling[:, REFERENCE] = True
        self.baselines: dict[int, RateBaseline] = {}
        # Before any has learned: an idle step may end that, and must move no bound of others.
        budget.tell("rates", rows)
        # What follows is computed from the baselines. Shape: (rows, HOURS), phi (rows,).
        self._mean = np.ones((rows, HOURS))
        self._low = np.zeros((rows, HOURS))
        self._high = np.ones((rows, HOURS))
        self._phi = np.ones(rows)

    # State by row, see FIELDS.
    open: Int64
    total: Int64
    started: Array
    sums: Int64
    block: Int64
    filling: Array
    log_m: Array
    level: Array
    gain: Array
    evidence: Array
    onset: Int64
    since: Array
    hour: Int64
    hour_before: Int64
    alarmed: Array
    quiet_ns: Int64
    ended_ns: Int64

    @property
    def running(self) -> int:
        """How many detectors run."""
        return len(self.baselines)

    def log_bound(self, contract: int) -> float:
        """Return the bound in force; A, the ticks of one false alarm, is ten at least."""
        rule = self._plan.contracts[contract].drift
        allowed = rule.false_alarms_per_s * self._settings.drift_tick_s
        own = max(LOG_BOUND_MIN, -math.log(allowed))
        return float(fleet_log_bound(own, self.budget.sharing))

    def add(self, contract: Int64, event_ns: Int64) -> None:
        """Count inferences that arrived in the tick that is open. Shape: (inferences,) both."""
        if not self.contracts:
            return
        start_ns, end_ns = self.away_ns
        if end_ns:
            # What ended while the gateway was away was held back for it.
            contract = contract[(event_ns < start_ns) | (event_ns >= end_ns)]
        counts = np.bincount(contract, minlength=len(self._plan.contracts))
        self.open += counts[list(self.contracts)]

    def heard(self, arrival_ns: int) -> None:
        """Note that a batch has arrived, after the turn to its time."""
        if not self.tick:
            # What devices have held back for a gateway that is new is no rate.
            self.tick = arrival_ns // self.tick_ns
            self._settle(arrival_ns)
        self.heard_ns = max(self.heard_ns, arrival_ns)

    def resume(self, at_ns: int) -> None:
        """Say that the gateway listens again, before the turn to that time."""
        if self.heard_ns:
            self.away_ns = (self.heard_ns, at_ns)
            self._settle(at_ns)

    def _settle(self, at_ns: int) -> None:
        self.judged_from = (at_ns + SETTLE_NS) // self.tick_ns + 1

    def turn(self, now_ns: int) -> list[RateAlarm | RateEnd]:
        """Close the ticks that are over and judge them, in order."""
        tick = now_ns // self.tick_ns
        if not self.tick or tick <= self.tick:
            return []
        told: list[RateAlarm | RateEnd] = []
        # Without any the clock goes on, or the first that is judged would have all ticks to close.
        heard = self.heard_ns // self.tick_ns if self.contracts else 0
        for at in range(self.tick, min(tick, heard + UNHEARD_TICKS)):
            told += self._close(at)
        self.tick = tick
        return told

    def _close(self, at: int) -> list[RateAlarm | RateEnd]:
        """End one tick."""
        counts = self.open.copy()
        self.total += counts
        self.open.fill(0)
        if at < self.judged_from:
            return []
        told: list[RateAlarm | RateEnd] = []
        hour = at * self.tick_ns // HOUR_NS
        for row in np.flatnonzero(self.hour[:, 0] != hour).tolist():
            told += self._end_hour(row, hour)
        cell = (hour + EPOCH_HOUR) % HOURS
        if self.filling.any():
            self._collect(counts, cell, at)
        self.hour[:, 1] += counts
        self.hour[:, 2] += 1
        told += self._judge(counts, cell, at)
        self.started |= counts > 0
        return told

    def _collect(self, counts: Int64, cell: int, at: int) -> None:
        """Add a tick to what is learned, and the block that it ends."""
        self._add(OF_TICKS, counts, cell, self.started)
        length = block_ticks(self.tick_ns)
        self.block += np.stack((self.started, self.started * counts), axis=1)
        if (at + 1) % length == 0:
            self._add(OF_BLOCKS, self.block[:, 1], cell, self.block[:, 0] == length)
            self.block.fill(0)

    def _add(self, scale: int, events: Int64, cell: int, which: Bool) -> None:
        row, place = np.nonzero(self.filling & which[:, None])
        some = events[row]
        added = np.stack((np.ones_like(some), some, some * some), axis=1)
        self.sums[row, place, scale, :, cell] += added

    def _judge(self, counts: Int64, cell: int, at: int) -> list[RateAlarm | RateEnd]:
        """Step the detectors on a tick."""
        rows = np.array(sorted(self.baselines), dtype=np.int64)
        if not len(rows):
            return []
        mean, low, high = (each[rows, cell] for each in (self._mean, self._low, self._high))
        some, phi = counts[rows], self._phi[rows]
        bound = np.array([self.log_bound(self.contracts[row]) for row in rows.tolist()])
        starts = _RISES | (low[:, None] > 0)
        values = rate_values(some, low, high, phi)
        after, _ = rate_step(values, self.log_m[rows], starts)
        level = self.level[rows]
        after = np.minimum(after, level + bound[:, None] / 2)
        level += (np.maximum(after, 0.0) - level) / max(1.0, SUSTAINED_NS / self.tick_ns)
        mixed = rate_mixture(after)
        self.log_m[rows], self.level[rows], self.evidence[rows] = after, level, mixed
        seen = np.stack((some, np.ones_like(some), mean), axis=1)
        self.onset[rows] = np.where(self.since[rows, :, 1] == 0, at, self.onset[rows])
        # M may rest above 1 in peace; where the sum of log L begins to rise a change begins.
        gain = np.maximum(self.gain[rows] + values, 0.0)
        is_gone, self.gain[rows] = gain == 0, gain
        self.since[rows] = np.where(is_gone[:, :, None], 0, self.since[rows] + seen[:, None, :])
        told: list[RateAlarm | RateEnd] = []
        for k in np.flatnonzero(mixed >= bound).tolist():
            alarm = self._alarm(int(rows[k]), float(bound[k]), cell, at)
            self._restart(alarm.row)
            self.quiet_ns[alarm.row] = 0
            if not self.alarmed[alarm.row]:
                self.alarmed[alarm.row] = True
                self._begin(alarm.row, CANDIDATE)
                told.append(alarm)
        return told

    def _alarm(self, row: int, bound: float, cell: int, at: int) -> RateAlarm:
        dominant = int(np.argmax(self.gain[row]))
        events, ticks, expected = self.since[row, dominant].tolist()
        tick_s = self._settings.drift_tick_s
        return RateAlarm(
            row=row,
            log_evidence=float(self.evidence[row]),
            log_bound=bound,
            onset_ns=int(self.onset[row, dominant]) * self.tick_ns,
            end_ns=(at + 1) * self.tick_ns,
            expected_hz=expected / (max(ticks, 1.0) * tick_s),
            now_hz=events / (max(ticks, 1.0) * tick_s),
            low_hz=float(self._low[row, cell]) / tick_s,
            high_hz=float(self._high[row, cell]) / tick_s,
            phi=float(self._phi[row]),
            events=int(events),
            baseline_events=self.baselines[row].events,
        )

    def _end_hour(self, row: int, hour: int) -> list[RateEnd]:
        """Look at an hour of the clock that is over, and begin the next."""
        before, events, ticks = self.hour[row].tolist()
        told: list[RateEnd] = []
        if 2 * ticks * self.tick_ns >= HOUR_NS:
            self._learn(row)
            cell = (before + EPOCH_HOUR) % HOURS
            is_back = self._low[row, cell] <= events / ticks <= self._high[row, cell]
            self.quiet_ns[row] = self.quiet_ns[row] + HOUR_NS if is_back else 0
            if self.alarmed[row] and self.quiet_ns[row] >= self._quiet_ns:
                end_ns = (before + 1) * HOUR_NS
                self._calm(row, end_ns)
                told.append(RateEnd(row=row, end_ns=end_ns))
        self.hour_before[row] = (events, ticks)
        self.hour[row] = (hour, 0, 0)
        return told

    def _learn(self, row: int) -> None:
        """Freeze what has been seen for long enough."""
        season = self._plan.contracts[self.contracts[row]].drift.season
        for place in np.flatnonzero(self.filling[row]).tolist():
            if is_enough(self.sums[row, place], self.tick_ns, season):
                self.filling[row, place] = False
                if place == REFERENCE:
                    self.arm(row)

    def _begin(self, row: int, place: int) -> None:
        self.sums[row, place] = 0
        self.block[row] = 0
        self.filling[row, place] = True

    def arm(self, row: int) -> None:
        """Judge a row against its reference from the next tick on."""
        season = self._plan.contracts[self.contracts[row]].drift.season
        found = freeze_rate(self.sums[row, REFERENCE], self.tick_ns, season)
        self.baselines[row] = found
        self._mean[row] = found.means()
        self._low[row], self._high[row] = found.ranges(self.tolerance(row))
        self._phi[row] = found.phi

    def _calm(self, row: int, end_ns: int) -> None:
        """End an alarm, and with it what was collected to be promoted."""
        self.alarmed[row] = False
        self.ended_ns[row] = end_ns
        self._restart(row)
        self.evidence[row] = -np.inf
        self.sums[row, CANDIDATE] = 0
        self.filling[row, CANDIDATE] = False

    def _restart(self, row: int) -> None:
        """Let evidence begin at nothing; that of the last tick stays to be seen."""
        self.log_m[row] = -np.inf
        self.level[row] = 0
        self.gain[row] = 0
        self.since[row] = 0

    def maybe_candidate(self, row: int) -> RateBaseline | None:
        """Return what waits to be promoted."""
        if self.filling[row, CANDIDATE] or not self.sums[row, CANDIDATE, OF_TICKS, COUNT].any():
            return None
        season = self._plan.contracts[self.contracts[row]].drift.season
        return freeze_rate(self.sums[row, CANDIDATE], self.tick_ns, season)

    def promote(self, wanted: str, at_ns: int) -> bool:
        """Make the candidate of this id its model's reference; say whether there is one."""
        for row, model in enumerate(self.models):
            candidate = self.maybe_candidate(row)
            if candidate is None or baseline_id(model, "", EVENT_RATE, candidate.digest) != wanted:
                continue
            self.sums[row, REFERENCE] = self.sums[row, CANDIDATE]
            self._calm(row, at_ns)
            self.arm(row)
            return True
        return False

    def kind(self, row: int) -> tuple[str, str]:
        """Return model and season of a row: what its counts are counts of."""
        contract = self._plan.contracts[self.contracts[row]]
        return contract.model, contract.drift.season.value

    def tolerance(self, row: int) -> float:
        """Return the relative change that does not matter."""
        found = self._plan.contracts[self.contracts[row]].drift.rate_tolerance
        assert found is not None
        return found

    def collected(self, row: int) -> int:
        """Count the events of the reference, or of what it is learned from."""
        return events_of(self.sums[row, REFERENCE])

    def maybe_now(self, row: int) -> RateNow | None:
        """Return how a row stands against its reference, None while it learns."""
        if row not in self.baselines:
            return None
        tick_s = self._settings.drift_tick_s
        cell = (self.tick * self.tick_ns // HOUR_NS + EPOCH_HOUR) % HOURS
        events, ticks = (self.hour[row, 1:] + self.hour_before[row]).tolist()
        return RateNow(
            expected_hz=float(self._mean[row, cell]) / tick_s,
            low_hz=float(self._low[row, cell]) / tick_s,
            high_hz=float(self._high[row, cell]) / tick_s,
            now_hz=events / (ticks * tick_s) if ticks else None,
            log_evidence=max(0.0, float(self.evidence[row])),
            log_bound=self.log_bound(self.contracts[row]),
        )


# Shape and type of the state of a row.
FIELDS: Final[Mapping[str, tuple[tuple[int, ...], type]]] = {
    "open": ((), np.int64),  # inferences of the tick that is open
    "total": ((), np.int64),  # inferences of all ticks before it
    "started": ((), np.bool_),  # an inference was there before the tick that is open
    "sums": ((2, SCALES, SUMS, HOURS), np.int64),  # by place
    "block": ((2,), np.int64),  # ticks and events of the block that is open
    "filling": ((2,), np.bool_),  # by place
    "log_m": ((len(FACTORS),), np.float64),
    "level": ((len(FACTORS),), np.float64),  # mean of the last log M, each at least 0
    "gain": ((len(FACTORS),), np.float64),  # log L since the onset, at least 0
    "evidence": ((), np.float64),  # log of the mixture
    "onset": ((len(FACTORS),), np.int64),  # the tick after the last one without gain
    "since": ((len(FACTORS), 3), np.float64),  # events, ticks, events expected since then
    "hour": ((3,), np.int64),  # the hour of the clock, its events and its ticks
    "hour_before": ((2,), np.int64),  # events and ticks of the hour before
    "alarmed": ((), np.bool_),
    "quiet_ns": ((), np.int64),  # for how long whole hours were in range
    "ended_ns": ((), np.int64),  # when the last alarm ended
}
