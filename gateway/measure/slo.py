"""Counts of every SLO over its windows, and which ones burn.

Law: counts are integers, so any order of the same events gives the same windows. Alerts are judged
at every slot of ten seconds that the watermark passes, each one once and in order; whether it
passed by traffic or by an idle step changes nothing. Budgets and exported counts take all events.
Complexity: an event costs one add into a stage of recent slots; rings are touched per slot.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import Severity
from gateway.contract.plan import Plan
from gateway.contract.schema import BurnWindow, Indicator, Slo
from gateway.contract.slo import budget_of
from gateway.measure.burn import (
    BAD_EVENTS_MIN,
    EARLY_SHARE,
    pairs_of,
    shown_windows_s,
    wilson_lower,
)
from gateway.measure.settings import SECOND_NS, MeasureSettings
from gateway.measure.state import Array, Int64, State, pack_json, part, prefixed, unpack_json
from gateway.measure.state import union as union_names
from gateway.measure.windows import DAY_S, Ring, rings_for
from gateway.measure.windows import merge as merge_rings
from gateway.tables import Bool

STEP_S: Final = 10
STEP_NS: Final = STEP_S * SECOND_NS
# Recent slots that events are staged in; the first one lies this far behind the head.
STAGE_SLOTS: Final = 64
STAGE_BEHIND: Final = 24
# After a longer pause without batches or idle steps only the last six hours are judged.
JUDGED_STEPS_MAX: Final = 2160
HORIZON_S: Final = 30 * DAY_S
NEVER_NS: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One SLO of one contract."""

    contract: int
    model: str
    owner: str
    slo: Slo
    budget: float
    pairs: tuple[BurnWindow, ...]
    windows_s: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Burn:
    """One SLO that burns at one judgement. `confident` is False when the guard held back a page."""

    objective: int
    pair: BurnWindow
    pages: bool
    confident: bool
    at_ns: int


class Objectives:
    """All SLOs of a plan."""

    def __init__(self, plan: Plan, settings: MeasureSettings) -> None:
        self.items = tuple(
            Objective(
                contract=index,
                model=contract.model,
                owner=contract.owner,
                slo=slo,
                budget=budget_of(slo.objective),
                pairs=pairs_of(slo),
                windows_s=shown_windows_s(slo),
            )
            for index, contract in enumerate(plan.contracts)
            for slo in contract.slos
        )
        count = len(self.items)
        self._lateness_ns = round(settings.lateness_s * SECOND_NS)
        windows = {HORIZON_S, *(each for item in self.items for each in item.windows_s)}
        windows |= {
            int(each)
            for item in self.items
            for pair in item.pairs
            for each in (pair.long_s, pair.short_s)
        }
        ahead_s = settings.clock_ahead_s + settings.lateness_s + 2 * STEP_S
        self.rings = rings_for(sorted(windows), count, ahead_s)
        self._place = {
            window: at
            for at, window in enumerate(each for ring in self.rings for each in ring.windows_s)
        }
        self.horizon_ns = max(windows) * SECOND_NS
        self.late = 0
        self.too_late = 0
        self._index_contracts(len(plan.contracts))
        self._index_pairs()
        self._stage = np.zeros((count + 1, STAGE_SLOTS, 2), dtype=np.int64)
        self._stage_first = 0
        self._head = 0

    def _index_contracts(self, contracts: int) -> None:
        per: list[list[int]] = [[] for _ in range(contracts)]
        for index, item in enumerate(self.items):
            per[item.contract].append(index)
        most = max((len(each) for each in per), default=0)
        # Contracts with fewer SLOs count the rest in a row that nobody reads.
        self._of_contract = np.full((most, contracts), len(self.items), dtype=np.int64)
        for contract, indices in enumerate(per):
            self._of_contract[: len(indices), contract] = indices
        self.threshold_ns = np.full(len(self.items) + 1, NEVER_NS, dtype=np.int64)
        self.by_status = np.zeros(len(self.items) + 1, dtype=np.bool_)
        for index, item in enumerate(self.items):
            if item.slo.indicator is Indicator.LATENCY and item.slo.threshold is not None:
                self.threshold_ns[index] = round(item.slo.threshold * SECOND_NS)
            else:
                self.by_status[index] = True

    def _index_pairs(self) -> None:
        most = max((len(item.pairs) for item in self.items), default=0)
        shape = (most, len(self.items))
        self._long = np.zeros(shape, dtype=np.int64)
        self._short = np.zeros(shape, dtype=np.int64)
        # Pairs that do not exist have a limit that no ratio passes.
        self._limit = np.full(shape, np.inf)
        self._pages = np.zeros(shape, dtype=np.bool_)
        for index, item in enumerate(self.items):
            for at, pair in enumerate(item.pairs):
                self._long[at, index] = self._place[int(pair.long_s)]
                self._short[at, index] = self._place[int(pair.short_s)]
                self._limit[at, index] = pair.factor * item.budget
                self._pages[at, index] = pair.severity is Severity.PAGE

    def add(
        self, contract: Int64, event_ns: Int64, arrival_ns: Int64, failed: Bool, duration_ns: Int64
    ) -> Bool | None:
        """Count events of inferences and say which were bad for any SLO. Shape: all (rows,)."""
        age = arrival_ns - event_ns
        oldest = int(age.max(initial=0))
        if oldest > self._lateness_ns:
            self.late += int((age > self._lateness_ns).sum())
            self.too_late += int((age >= self.horizon_ns).sum())
        if not self.items:
            return None
        slot = event_ns // STEP_NS
        near = slot - self._stage_first
        is_near = bool(near.min(initial=0) >= 0 and near.max(initial=0) < STAGE_SLOTS)
        any_bad = np.zeros(len(contract), dtype=np.bool_)
        for of_contract in self._of_contract:
            index = of_contract[contract]
            bad = (failed & self.by_status[index]) | (duration_ns > self.threshold_ns[index])
            any_bad |= bad
            if is_near:
                key = (index * STAGE_SLOTS + near) * 2 + bad
                np.add.at(self._stage.reshape(-1), key, 1)
            else:
                self._add_far(index, slot, bad)
        return any_bad

    def of(self, contract: int, indicator: Indicator) -> tuple[int, ...]:
        """Return the SLOs of a contract that have this indicator."""
        return tuple(
            index
            for index, item in enumerate(self.items)
            if item.contract == contract and item.slo.indicator is indicator
        )

    def count(self, objective: int, event_ns: Int64, bad: Bool) -> None:
        """Count events of an SLO that is not about inferences. Shape: both (rows,)."""
        self._add_far(np.full(len(bad), objective), event_ns // STEP_NS, bad)

    def bad(
        self,
        objective: int,
        failed: Bool,
        duration_ns: Int64,
        cold: Bool | None = None,
        invalid: Bool | None = None,
    ) -> Bool:
        """Say which inferences are bad for an SLO. Shape: all (rows,)."""
        slo = self.items[objective].slo
        if slo.indicator is Indicator.LATENCY and slo.threshold is not None:
            bad = duration_ns > round(slo.threshold * SECOND_NS)
            return bad if invalid is None else bad | invalid
        if slo.indicator is Indicator.COLD_START:
            return np.zeros(len(failed), dtype=np.bool_) if cold is None else cold
        return failed

    def _add_far(self, index: Int64, slot: Int64, bad: Bool) -> None:
        """Count events of any age; for batches in which not all are recent."""
        slots, at = np.unique(slot, return_inverse=True)
        counts = np.zeros((len(slots), len(self.items) + 1, 2), dtype=np.int64)
        np.add.at(counts, (at, index, bad.astype(np.intp)), 1)
        self._add_slots(slots, counts[:, :-1])

    def _add_slots(self, slots: Int64, counts: Int64) -> None:
        for ring in self.rings:
            ring.add(slots * STEP_S // ring.slot_s, counts)

    def _flush(self) -> None:
        """Move staged events to the rings."""
        staged = np.flatnonzero(self._stage[:-1].any(axis=(0, 2)))
        if len(staged):
            counts = np.swapaxes(self._stage[:-1, staged], 0, 1)
            self._add_slots(self._stage_first + staged, counts)
            self._stage[:] = 0

    def turn(self, now_ns: int) -> Iterator[tuple[int, list[Burn]]]:
        """Judge every slot that the watermark passed; yield its end and what burns then.

        The caller takes all of them: the counts that belong to a judgement are those at its yield.
        """
        head = (now_ns - self._lateness_ns) // STEP_NS - 1
        if head <= self._head:
            return
        self._flush()
        steps = min(head - self._head, JUDGED_STEPS_MAX)
        for step in range(head - steps + 1, head + 1):
            self._head = step
            for ring in self.rings:
                ring.advance(step * STEP_S // ring.slot_s)
            yield (step + 1) * STEP_NS, self._judge((step + 1) * STEP_NS)
        self._stage_first = now_ns // STEP_NS - STAGE_BEHIND

    def _judge(self, at_ns: int) -> list[Burn]:
        sums = np.concatenate([ring.sums for ring in self.rings])
        bad = sums[:, :, 1]
        if not len(self._limit) or not bad.any():
            return []
        total = sums.sum(axis=2)
        every = np.arange(len(self.items))
        long_bad, long_total = bad[self._long, every], total[self._long, every]
        short_bad, short_total = bad[self._short, every], total[self._short, every]
        with np.errstate(invalid="ignore"):  # infinite limits of pairs that do not exist
            plain = (long_bad > self._limit * long_total) & (short_bad > self._limit * short_total)
            half = EARLY_SHARE * self._limit
            early = self._pages & (short_bad > half * short_total)
        supported = wilson_lower(long_bad, long_total) > self._limit
        supported &= long_bad >= BAD_EVENTS_MIN
        early &= wilson_lower(short_bad, short_total) > half
        early &= short_bad >= BAD_EVENTS_MIN
        # What is told, loudest first: page, ticket, early ticket, page without support.
        rank = np.select(
            [plain & supported & self._pages, plain & supported, early, plain & self._pages],
            [4, 3, 2, 1],
            0,
        )
        best = rank.argmax(axis=0)
        return [
            Burn(
                objective=index,
                pair=self.items[index].pairs[best[index]],
                pages=bool(rank[best[index], index] == 4),
                confident=bool(rank[best[index], index] > 1),
                at_ns=at_ns,
            )
            for index in np.flatnonzero(rank.max(axis=0, initial=0)).tolist()
        ]

    def counts(self, objective: int, window_s: float) -> tuple[int, int]:
        """Return good and bad of a window as it was judged."""
        ring, at = self._ring_of(window_s)
        good, bad = ring.sums[at, objective].tolist()
        return good, bad

    def totals(self) -> dict[int, Int64]:
        """Return good and bad of every window with all events. Shape: each (slos, 2)."""
        self._flush()
        return {
            window: total
            for ring in self.rings
            for window, total in zip(ring.windows_s, ring.totals(), strict=True)
        }

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
        self._flush()
        state: State = {
            "names": pack_json(self._names()),
            "counters": np.array([self.late, self.too_late], dtype=np.int64),
            "head": np.array([self._head, self._stage_first], dtype=np.int64),
        }
        for ring in self.rings:
            state |= prefixed(f"ring{ring.slot_s}", ring.state())
        return state

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put counts back by model and SLO name; an SLO that is new starts empty."""
        ours = self._names()
        theirs = unpack_json(state["names"])
        pairs = [(at, ours.index(name)) for at, name in enumerate(theirs) if name in ours]
        self.late, self.too_late = state["counters"].tolist()
        self._head, self._stage_first = state["head"].tolist()
        for ring in self.rings:
            ring.restore(part(f"ring{ring.slot_s}", state), pairs)


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states of the same plan by model and SLO name."""
    names, where = union_names(unpack_json(first["names"]), unpack_json(second["names"]))
    total: State = {
        "names": pack_json(names),
        "counters": first["counters"] + second["counters"],
        "head": np.maximum(first["head"], second["head"]),
    }
    for ring in sorted({key.split("/")[0] for key in first if "/" in key}):
        total |= prefixed(ring, merge_rings(part(ring, first), part(ring, second), where))
    return total
