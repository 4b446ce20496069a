"""Counts of every SLO over its windows, and which ones burn.

Law: counts are integers, so any order of the same events gives the same windows. Alerts are judged
at every slot of ten seconds that the watermark passes, each one once and in order, and a judgement
of slot h sees exactly the events that have come with slot <= h, in windows of every length; whether
the watermark passed by traffic or by an idle step changes nothing. Budgets and exported counts take
all events. No event moves the watermark; `turn` comes before any event.

Complexity: an inference costs a few vector operations into a stage of recent slots, and one that
failed a little more; rings are touched per slot, and per event only for those that are late by more
than the stage holds.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from gateway.contract.plan import Plan
from gateway.contract.schema import Indicator
from gateway.contract.slo import Resolution
from gateway.measure.settings import SECOND_NS, MeasureSettings
from gateway.measure.slo.burn import (
    BACKFILL_WINDOW_S,
    Formula,
    Outlook,
    budget_remaining,
    exhaustion_s,
)
from gateway.measure.slo.judge import Burn, Judge
from gateway.measure.slo.objective import (
    BY_INFERENCE,
    NEVER,
    Lane,
    bad_in,
    by_indicator,
    lanes_of,
    objectives_of,
)
from gateway.measure.slo.stage import Stage
from gateway.measure.slo.windows import DAY_S, HOUR_S, MINUTE_S, Ring, rings_for
from gateway.measure.state import Array, Int64, State, pack_json, part, prefixed, unpack_json
from gateway.tables import Bool

STEP_S: Final = 10
STEP_NS: Final = STEP_S * SECOND_NS
# After a longer pause without batches or idle steps only the last six hours are judged.
JUDGED_STEPS_MAX: Final = 2160
HORIZON_S: Final = 30 * DAY_S
# An event is late when the watermark may have passed it before it came; how late, by these edges.
LATE_EDGES_S: Final = (
    *(MINUTE_S, 5 * MINUTE_S, 30 * MINUTE_S, 2 * HOUR_S, 6 * HOUR_S),
    *(DAY_S, 2 * DAY_S, 7 * DAY_S),
)
# The arrival of late events, for what they spend at once.
_ARRIVALS: Final = Resolution(slot_s=MINUTE_S, window_s_max=BACKFILL_WINDOW_S)


class Objectives:
    """All SLOs of a plan."""

    def __init__(self, plan: Plan, settings: MeasureSettings) -> None:
        self.items = objectives_of(plan)
        count = len(self.items)
        self._lateness_ns = round(settings.lateness_s * SECOND_NS)
        windows = {HORIZON_S, *(each for item in self.items for each in item.windows_s)}
        self.rings = rings_for(sorted(windows), count)
        self._arrivals = Ring(_ARRIVALS, (BACKFILL_WINDOW_S,), count)
        self.horizon_ns = max(windows) * SECOND_NS
        self.late = np.zeros(len(LATE_EDGES_S) + 1, dtype=np.int64)
        self.too_late = 0
        self.clamped = 0
        self.invalid = 0
        place = [each for ring in self.rings for each in ring.windows_s]
        self._judge = Judge(self.items, {window: at for at, window in enumerate(place)})
        self._of = by_indicator(self.items)
        self._lanes = lanes_of(self.items, len(plan.contracts))
        contracts = len(plan.contracts)
        # Inferences are no events of other SLOs: those see a contract that has none.
        sees = [
            item.contract if item.slo.indicator in BY_INFERENCE else contracts
            for item in self.items
        ]
        self._period_s = np.array([item.windows_s[-1] for item in self.items], dtype=np.int64)
        ahead_s = settings.clock_ahead_s + settings.lateness_s
        ahead = -(-int(ahead_s) // STEP_S) + 3
        self._stage = Stage(np.array(sees, dtype=np.int64), contracts, ahead)
        # The slot of the oldest event that was ever in the period.
        self._since = np.full(count, NEVER, dtype=np.int64)

    @property
    def _head(self) -> int:
        """The newest slot that the watermark has passed."""
        return self._stage.head

    def of(self, contract: int, indicator: Indicator) -> tuple[int, ...]:
        """Return the SLOs of a contract that have this indicator."""
        return self._of.get((contract, indicator), ())

    def add(
        self,
        contract: Int64,
        event_ns: Int64,
        arrival_ns: Int64,
        failed: Bool,
        duration_ns: Int64,
        cold: Bool | None = None,
        invalid: Bool | None = None,
    ) -> Bool | None:
        """Count events of inferences and say which were bad for any SLO.

        `cold` says which had to load their model, `invalid` which have a duration that is none;
        None stands for no row. Shape: all (rows,).
        """
        if invalid is not None:
            self.invalid += int(np.count_nonzero(invalid))
        self._count_late(arrival_ns - event_ns)
        if not self.items or not len(contract):
            return None
        stage, slot = self._stage, event_ns // STEP_NS
        if int(slot.max()) > stage.newest:
            slot = self._clamp(slot)
        # Most batches have no event that is older than the stage.
        far = None if int(slot.min()) >= stage.oldest else slot < stage.oldest
        if far is None:
            stage.see(slot, contract)
        else:
            stage.see(slot[~far], contract[~far])
        any_bad = np.zeros(len(contract), dtype=np.bool_)
        late: list[tuple[Int64, Int64, Bool]] = []
        for lane in self._lanes:
            bad = bad_in(lane, contract, failed, duration_ns, cold, invalid)
            if far is not None:
                late.append((slot[far], lane.slo[contract[far]], bad[far]))
            at = bad.nonzero()[0]
            if not len(at):
                continue
            slo = lane.slo[contract[at]]
            any_bad[at] |= slo < len(self.items)
            if far is not None:
                near = ~far[at]
                at, slo = at[near], slo[near]
            stage.mark(slot[at], slo)
        if late:
            slots, slos, bads = (np.concatenate(each) for each in zip(*late, strict=True))
            self._add_far(slots, slos, bads)
        return any_bad

    def count(self, objective: int, event_ns: Int64, bad: Bool) -> None:
        """Count events of an SLO that is not about inferences. Shape: both (rows,)."""
        self._count_late((self._head + 1) * STEP_NS + self._lateness_ns - event_ns)
        slot = self._clamp(event_ns // STEP_NS)
        slo = np.full(len(slot), objective, dtype=np.int64)
        far = slot < self._stage.oldest
        self._stage.count(slot[~far], slo[~far], bad[~far])
        self._add_far(slot[far], slo[far], bad[far])

    def bad(
        self,
        objective: int,
        failed: Bool,
        duration_ns: Int64,
        cold: Bool | None = None,
        invalid: Bool | None = None,
    ) -> Bool:
        """Say which inferences are bad for an SLO; none is for one of another kind."""
        item = self.items[objective]
        if item.slo.indicator not in BY_INFERENCE:
            return np.zeros(len(failed), dtype=np.bool_)
        lane = Lane(
            indicator=item.slo.indicator,
            slo=np.array([objective]),
            threshold_ns=np.array([item.threshold_ns]),
        )
        contract = np.zeros(len(failed), dtype=np.int64)
        return bad_in(lane, contract, failed, duration_ns, cold, invalid)

    def _count_late(self, age_ns: Int64) -> None:
        if int(age_ns.max(initial=0)) <= self._lateness_ns:
            return
        late = age_ns[age_ns > self._lateness_ns]
        bucket = np.searchsorted(np.array(LATE_EDGES_S) * SECOND_NS, late, side="left")
        self.late += np.bincount(bucket, minlength=len(self.late))
        self.too_late += int(np.count_nonzero(late >= self.horizon_ns))

    def _clamp(self, slot: Int64) -> Int64:
        self.clamped += int(np.count_nonzero(slot > self._stage.newest))
        return np.minimum(slot, self._stage.newest)

    def _add_far(self, slot: Int64, slo: Int64, bad: Bool) -> None:
        """Count events that are older than the stage. Shape: all (rows,)."""
        known = slo < len(self.items)
        if not known.any():
            return
        places = slo[known] * 2 + bad[known]
        slots, at = np.unique(slot[known], return_inverse=True)
        keys, counts = np.unique(at * (2 * len(self.items)) + places, return_counts=True)
        at, places = np.divmod(keys, 2 * len(self.items))
        self._enter(slots[at], places, counts)

    def _enter(self, slots: Int64, places: Int64, counts: Int64) -> None:
        """Count late events in the rings. Shape: all (k,)."""
        for ring in self.rings:
            ring.add(slots * STEP_S // ring.slot_s, places, counts)
        slo = places // 2
        inside = (self._head - slots) * STEP_S < self._period_s[slo]
        np.minimum.at(self._since, slo[inside], slots[inside])
        now = np.full(int(inside.sum()), self._arrivals.head, dtype=np.int64)
        self._arrivals.add(now, places[inside], counts[inside])

    def _settle(self) -> None:
        """Move late events from the stage to the rings."""
        slots, counts = self._stage.take_late()
        if len(slots):
            flat = counts.reshape(len(slots), -1)
            at, places = np.nonzero(flat)
            self._enter(slots[at], places, flat[at, places])

    def _step(self, head: int) -> None:
        """Move the watermark; what waited up to there is counted."""
        self._arrivals.advance(head * STEP_S // self._arrivals.slot_s)
        slots, counts = self._stage.take_to(head)
        for slot, each in zip(slots.tolist(), counts, strict=True):
            self._advance(slot)
            for ring in self.rings:
                ring.put(each)
            seen = each.any(axis=1)
            self._since[seen] = np.minimum(self._since[seen], slot)
        self._advance(head)

    def _advance(self, slot: int) -> None:
        for ring in self.rings:
            ring.advance(slot * STEP_S // ring.slot_s)

    def turn(self, now_ns: int) -> Iterator[tuple[int, list[Burn]]]:
        """Judge every slot that the watermark passed; yield its end and what burns then.

        The caller takes all of them: the counts that belong to a judgement are those at its yield.
        """
        head = (now_ns - self._lateness_ns) // STEP_NS - 1
        if head <= self._head:
            return
        self._settle()
        # Nothing was there to be judged before the first time.
        steps = min(head - self._head, JUDGED_STEPS_MAX) if self._head else 1
        if head - steps > self._head:
            self._step(head - steps)
        for step in range(head - steps + 1, head + 1):
            # What the caller counted at the last judgement: the stage has no place for it for long.
            self._settle()
            self._step(step)
            sums = np.concatenate([ring.sums for ring in self.rings])
            at_ns = (step + 1) * STEP_NS
            yield at_ns, self._judge.judge(sums, self._arrivals.sums[0, :, 1], at_ns)

    def counts(self, objective: int, window_s: float) -> tuple[int, int]:
        """Return good and bad of a window as it was judged."""
        ring, at = self._ring_of(window_s)
        good, bad = ring.sums[at, objective].tolist()
        return good, bad

    def late_counts(self, objective: int) -> tuple[int, int]:
        """Return good and bad of late events of the period that came within the last hour."""
        good, bad = self._arrivals.sums[0, objective].tolist()
        return good, bad

    def totals(self) -> dict[int, Int64]:
        """Return good and bad of every window with all events. Shape: each (slos, 2)."""
        self._settle()
        waiting = self._stage.waiting().sum(axis=0)
        return {
            window: total + waiting
            for ring in self.rings
            for window, total in zip(ring.windows_s, ring.sums, strict=True)
        }

    def outlook(self, objective: int, window_s: float) -> Outlook:
        """Say what is left of a budget and for how long, at the rates of a window, as judged."""
        item = self.items[objective]
        good, bad = self.counts(objective, item.windows_s[-1])
        now_good, now_bad = self.counts(objective, window_s)
        is_full = (self._head - int(self._since[objective])) * STEP_S >= item.windows_s[-1]
        formula = Formula.ROLLING if is_full else Formula.FILLING
        return Outlook(
            remaining_ratio=budget_remaining(bad, good + bad, item.budget),
            exhaustion_s=exhaustion_s(
                bad,
                good + bad,
                item.budget,
                bad_per_s=now_bad / window_s,
                events_per_s=(now_good + now_bad) / window_s,
                formula=formula,
            ),
            formula=formula,
        )

    def onset_ns(self, burn: Burn) -> int:
        """Estimate when a burn began: where the long window's excess of bad events starts."""
        ring, _ = self._ring_of(burn.pair.long_s)
        starts, cells = ring.history(int(burn.pair.long_s), burn.objective)
        limit = burn.pair.factor * self.items[burn.objective].budget / 2
        excess = np.cumsum(cells[:, 1] - limit * cells.sum(axis=1))
        first = 0 if float(excess.min()) >= 0 else int(excess.argmin()) + 1
        # A window reaches back to times before there was any traffic.
        bad = np.flatnonzero(cells[first:, 1])
        return int(starts[min(first + (int(bad[0]) if len(bad) else 0), len(starts) - 1)])

    def _ring_of(self, window_s: float) -> tuple[Ring, int]:
        for ring in self.rings:
            if window_s in ring.windows_s:
                return ring, ring.windows_s.index(int(window_s))
        raise KeyError(window_s)  # windows come from the SLO itself

    def _names(self) -> list[list[str]]:
        return [[item.model, item.slo.name] for item in self.items]

    def state(self) -> State:
        """Copy all counts."""
        self._settle()
        state: State = {
            "names": pack_json(self._names()),
            "counters": np.array([self.too_late, self.clamped, self.invalid], dtype=np.int64),
            "late": self.late.copy(),
            "head": np.array([self._head], dtype=np.int64),
            "since": self._since.copy(),
            "waiting": self._stage.waiting(),
            **prefixed("arrivals", self._arrivals.state()),
        }
        for ring in self.rings:
            state |= prefixed(f"ring{ring.slot_s}", ring.state())
        return state

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put counts back by model and SLO name; an SLO that is new starts empty."""
        ours = self._names()
        theirs = unpack_json(state["names"])
        pairs = [(at, ours.index(name)) for at, name in enumerate(theirs) if name in ours]
        self.too_late, self.clamped, self.invalid = state["counters"].tolist()
        self.late[:] = state["late"]
        self._stage.restore(int(state["head"][0]), state["waiting"], pairs)
        for their, our in pairs:
            self._since[our] = state["since"][their]
        self._arrivals.restore(part("arrivals", state), pairs)
        for ring in self.rings:
            ring.restore(part(f"ring{ring.slot_s}", state), pairs)
