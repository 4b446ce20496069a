"""Declared rollouts: each spends its own part of the error budget, and only for what it did itself.

Law: an inference belongs to the rollout whose id it carries, or without any id to the only running
rollout of its version; it is a control of the rollouts of its model that it belongs to none of, if
it ran the version that they replace at the same time. So two rollouts never charge each other.
Whether events come early or late changes nothing, as long as a rollout is being counted; that ends
COUNTED_AFTER_END_NS after its end.

Bounded: ROLLOUTS_MAX that have not ended, ENDED_MAX that have. Whatever cannot be used is counted
under a closed list of reasons. Cost: one comparison for a batch while nothing is rolled out.
"""

from collections import Counter
from dataclasses import replace
from typing import Final

import numpy as np

from gateway.batch import NO_CONTRACT, Batch
from gateway.contract.plan import Plan
from gateway.contract.schema import Indicator
from gateway.measure.rollouts.allocation import (
    CONTROL_ALL,
    CONTROL_BAD,
    Level,
    Spend,
    allocate,
    level_of,
    suppresses,
)
from gateway.measure.rollouts.deployments import Deployments, Due
from gateway.measure.rollouts.rollout import (
    NEVER_NS,
    Refusal,
    Rollout,
    RolloutState,
    trouble_of,
)
from gateway.measure.series import SeriesTable
from gateway.measure.settings import SECOND_NS
from gateway.measure.slo.burn import BAD_EVENTS_MIN, wilson_lower
from gateway.measure.slo.objectives import Objectives
from gateway.measure.state import Int64
from gateway.measure.trouble import Trouble
from gateway.otlp import keys
from gateway.otlp.columns import resource_texts, span_texts
from gateway.otlp.declared import DeviceOutcome, Events, RolloutEnd, RolloutOutcome, RolloutStart
from gateway.otlp.kernel import Literals
from gateway.tables import Bool, Int32

ROLLOUTS_MAX: Final = 64
ENDED_MAX: Final = 256
DAY_NS: Final = 86_400 * SECOND_NS
# A start that is declared later than this is not believed.
DECLARED_AFTER_NS_MAX: Final = DAY_NS
# Nobody rolls out for longer; a rollout that was never ended gives its allocation back then.
ACTIVE_NS_MAX: Final = 90 * DAY_NS
COUNTED_AFTER_END_NS: Final = DAY_NS
EXPIRED: Final = "expired"
# Objectives that a rollout can spend: what its inferences come to.
SPENT: Final = (Indicator.SUCCESS, Indicator.LATENCY, Indicator.COLD_START)
# Burns that are no news while devices restart with another version. A deployment that fails is.
TRANSIENT: Final = frozenset({*SPENT, Indicator.FRESHNESS})
# Inferences that carry no id of a rollout, or one that is not being counted.
ABSENT: Final = -1
OTHER: Final = -2


class Rollouts:
    """All rollouts that are known of the models of a plan."""

    def __init__(self, plan: Plan, objectives: Objectives, series: SeriesTable) -> None:
        self._plan = plan
        self.objectives = objectives
        self._series = series
        self._slot = plan.slot_of[keys.ROLLOUT_ID]
        self.contract_of = _contracts(plan)
        self.refused: Counter[str] = Counter()
        self.deployments = Deployments(self.refused)
        self.table: dict[str, Rollout] = {}
        self.judged_ns = 0
        self._live: list[Rollout] = []
        self.rebuild()

    # --- what is declared ---------------------------------------------------------------------

    def declare(self, events: Events, arrival_ns: int) -> None:
        """Take what one parcel declares; the order of its records does not matter."""
        for start in sorted(events.starts, key=lambda each: (each.at_ns, each.rollout)):
            self._start(start, arrival_ns)
        for end in sorted(events.ends, key=lambda each: (each.at_ns, each.rollout)):
            self._end(end)
        told = sorted(events.outcomes, key=lambda each: (each.at_ns, each.rollout, each.device))
        for outcome in told:
            self._outcome(outcome)

    def _start(self, start: RolloutStart, arrival_ns: int) -> None:
        known = self.table.get(start.rollout)
        contract = self.contract_of.get(start.model)
        running = sum(not each.has_ended for each in self.table.values())
        if known is not None:
            same = replace(start, at_ns=known.start.at_ns, device=known.start.device)
            self.refused[Refusal.REPEATED if same == known.start else Refusal.CONFLICT] += 1
        elif contract is None:
            self.refused[Refusal.UNKNOWN_MODEL] += 1
        elif start.at_ns < arrival_ns - DECLARED_AFTER_NS_MAX:
            self.refused[Refusal.TOO_OLD] += 1
        elif running >= ROLLOUTS_MAX:
            self.refused[Refusal.TOO_MANY] += 1
        else:
            chosen = self.spent_by(contract)
            self.table[start.rollout] = Rollout(
                start=start,
                contract=contract,
                objectives=chosen,
                slos=tuple(self.objectives.items[each].slo.name for each in chosen),
                allocations=[self.allocation(each, start) for each in chosen],
                befores=[self.before(each) for each in chosen],
            )
            self.deployments.start(start, contract)
            self.rebuild()

    def _end(self, end: RolloutEnd) -> None:
        known = self.table.get(end.rollout)
        if known is None:
            self.refused[Refusal.UNKNOWN_ROLLOUT] += 1
        elif known.has_ended:
            self.refused[Refusal.ENDED_TWICE] += 1
        elif end.at_ns < known.start.at_ns:
            self.refused[Refusal.ENDS_BEFORE_START] += 1
        else:
            self._close(known, end.at_ns, end.outcome.value)

    def _close(self, known: Rollout, at_ns: int, outcome: str) -> None:
        """End a rollout: its allocation is free again."""
        known.end_ns, known.outcome, known.state = at_ns, outcome, RolloutState.ENDED
        known.onset_ns = 0
        is_rolled_back = outcome == RolloutOutcome.ROLLED_BACK
        self.deployments.end(known.start, at_ns, is_rolled_back=is_rolled_back)
        ended = sorted((each.end_ns, name) for name, each in self.table.items() if each.has_ended)
        for _, name in ended[: max(0, len(ended) - ENDED_MAX)]:
            self.refused[Refusal.FORGOTTEN] += 1
            self.deployments.forget(name, at_ns)
            del self.table[name]
        self.rebuild()

    def _outcome(self, outcome: DeviceOutcome) -> None:
        known = self.table.get(outcome.rollout)
        if known is not None:
            self.deployments.outcome(outcome)
        else:
            self.refused[Refusal.UNKNOWN_ROLLOUT] += 1

    def spent_by(self, contract: int) -> tuple[int, ...]:
        """Return the objectives of a contract that its rollouts can spend."""
        return tuple(
            index
            for index, item in enumerate(self.objectives.items)
            if item.contract == contract and item.slo.indicator in SPENT and item.budget > 0
        )

    def _period(self, objective: int) -> tuple[int, int]:
        """Return good and bad events of an objective's own period."""
        return self.objectives.counts(objective, self.objectives.items[objective].windows_s[-1])

    def remaining(self, objective: int) -> float:
        """Return the share of an objective's budget that is left; it may be negative."""
        good, bad = self._period(objective)
        budget = self.objectives.items[objective].budget
        return 1 - bad / (budget * (good + bad)) if bad else 1.0

    def reserved(self, objective: int) -> float:
        """Return the share of an objective's budget that running rollouts hold."""
        return sum(
            each.allocations[each.objectives.index(objective)]
            for each in self.table.values()
            if not each.has_ended and objective in each.objectives
        )

    def allocation(self, objective: int, start: RolloutStart) -> float:
        """Return what a rollout may spend of an objective if it began now."""
        contract = self._plan.contracts[self.objectives.items[objective].contract]
        return allocate(
            asked=start.allocation,
            rule=contract.rollouts.allocation,
            remaining=self.remaining(objective),
            reserved=self.reserved(objective),
        )

    def before(self, objective: int) -> float:
        """Return the share of bad events of the period, which the version before has made.

        Where nothing was counted yet it is what the objective allows.
        """
        good, bad = self._period(objective)
        return bad / (good + bad) if good + bad else self.objectives.items[objective].budget

    # --- what is counted ----------------------------------------------------------------------

    def rebuild(self) -> None:
        """Note which rollouts are counted, after one has begun, ended or retired."""
        self._live = [
            each
            for each in self.table.values()
            if each.is_counting and each.contract != NO_CONTRACT
        ]
        self._groups: dict[int, list[int]] = {}
        for at, each in enumerate(self._live):
            self._groups.setdefault(each.contract, []).append(at)
        self._ids = Literals([each.start.rollout.encode() for each in self._live])
        self._seen = -1

    def _know_versions(self) -> None:
        """Find the series that ran the version of each rollout, and those that may be its control.

        Shape: both (rollouts, series).
        """
        names = self._series.names
        if self._seen == len(names):
            return
        self._seen = len(names)
        shape = (len(self._live), len(names))
        self._runs = np.zeros(shape, dtype=np.bool_)
        self._controls = np.zeros(shape, dtype=np.bool_)
        for at, each in enumerate(self._live):
            model = self._plan.contracts[each.contract].model
            for series, (of_model, version) in enumerate(names):
                if of_model != model:
                    continue
                self._runs[at, series] = version == each.start.version
                previous = each.start.previous
                self._controls[at, series] = version == previous if previous else True
        self._controls &= ~self._runs

    def _codes(self, batch: Batch) -> Int32:
        """Find the rollout whose id each span or its resource carries. Shape: (spans,)."""
        offset, length, present = resource_texts(batch, self._slot)
        found = np.where(present, self._ids.codes(batch.arena, offset, length), ABSENT)
        found[present & (found == ABSENT)] = OTHER
        codes: Int32 = found[batch.spans["resource"]].astype(np.int32)
        if (batch.slots[self._slot] >= 0).any():
            offset, length, present = span_texts(batch, self._slot)
            near = self._ids.codes(batch.arena, offset, length)
            codes[present] = np.where(near[present] < 0, OTHER, near[present])
        return codes

    @property
    def is_counting(self) -> bool:
        """Whether any rollout is being counted; nothing needs to be added otherwise."""
        return bool(self._live)

    def add(
        self,
        batch: Batch,
        rows: Int64 | None,
        *,
        contract: Int64,
        series: Int64,
        event_ns: Int64,
        failed: Bool,
        duration_ns: Int64,
        cold: Bool | None,
        invalid: Bool | None = None,
    ) -> None:
        """Count the inferences of a batch for the rollouts that run.

        Shape: rows as the other columns, which rows of the batch they are; None means all.
        """
        if not self._live:
            return
        codes = self._codes(batch)
        if rows is not None:
            codes = codes[rows]
        self._know_versions()
        for index, group in self._groups.items():
            at = np.flatnonzero(contract == index)
            if not len(at):
                continue
            group = self._running(group, event_ns[at])
            if not group:
                continue
            members, controls = self._sides(group, codes[at], series[at], event_ns[at])
            bads = [
                self.objectives.bad(
                    objective,
                    failed[at],
                    duration_ns[at],
                    None if cold is None else cold[at],
                    None if invalid is None else invalid[at],
                )
                for objective in self.spent_by(index)
            ]
            for each, *sides in zip(group, members, controls, strict=True):
                for side, is_control in zip(sides, (False, True), strict=True):
                    self._live[each].add(
                        event_ns[at[side]], [bad[side] for bad in bads], control=is_control
                    )

    def _running(self, group: list[int], event_ns: Int64) -> list[int]:
        """Leave out rollouts that had ended before all of some events, or began after them."""
        oldest, newest = int(event_ns.min()), int(event_ns.max())
        return [
            each
            for each in group
            if self._live[each].start.at_ns <= newest and self._live[each].end_ns >= oldest
        ]

    def _sides(
        self, group: list[int], codes: Int32, series: Int64, event_ns: Int64
    ) -> tuple[list[Int64], list[Int64]]:
        """Find the inferences of each rollout of a model and of its control."""
        within = np.stack([self._live[each].holds(event_ns) for each in group])
        runs = self._runs[group][:, series]
        carries = codes[None, :] == np.array(group)[:, None]
        member = within & (carries | (runs & (codes == ABSENT)))
        # An id of another rollout or of none takes nothing into a group, but a version that is
        # being rolled out is nobody's control.
        busy = (within & (carries | runs)).any(axis=0)
        ambiguous = member.sum(axis=0) > 1
        if ambiguous.any():
            self.refused[Refusal.AMBIGUOUS] += int(np.count_nonzero(ambiguous))
            member &= ~ambiguous
        control = within & self._controls[group][:, series] & ~busy
        return (
            [np.flatnonzero(each) for each in member],
            [np.flatnonzero(each) for each in control],
        )

    # --- what is judged -----------------------------------------------------------------------

    def due(self, now_ns: int) -> list[Due]:
        """Return the devices that have come to an end since the last call, late ones as failed."""
        self.deployments.turn(now_ns)
        return self.deployments.take()

    def troubles(self, now_ns: int) -> list[Trouble]:
        """Judge if that was not done yet, and list the rollouts that have spent too much."""
        self.judge(now_ns)
        told = (RolloutState.WARNED, RolloutState.HALTED)
        return [
            trouble_of(each)
            for each in self.table.values()
            # Under another plan nothing may be left that a halted one has spent.
            if each.state in told and each.contract != NO_CONTRACT and each.objectives
        ]

    def judge(self, now_ns: int) -> None:
        """Judge every rollout once for each time."""
        if now_ns <= self.judged_ns:
            return
        self.judged_ns = now_ns
        for each in self._live:
            start_ns = each.start.at_ns
            if each.has_ended:
                self._refresh(each)
                if now_ns > each.end_ns + COUNTED_AFTER_END_NS:
                    each.is_counting = False
            elif now_ns >= start_ns + ACTIVE_NS_MAX:
                self.refused[Refusal.EXPIRED] += 1
                self._refresh(each)
                self._close(each, start_ns + ACTIVE_NS_MAX, EXPIRED)
            elif now_ns >= start_ns:
                self._refresh(each)
                levels = [
                    level_of(spend, spent, allocation)
                    for spend, spent, allocation in zip(
                        each.spends, each.spents, each.allocations, strict=True
                    )
                ]
                each.judged(max(levels, default=Level.OK), now_ns)
        if not all(each.is_counting for each in self._live):
            self.rebuild()

    def _refresh(self, rollout: Rollout) -> None:
        rollout.spends, rollout.spents = self.spends_of(rollout)
        rollout.is_changed = False

    def spends_of(self, rollout: Rollout) -> tuple[list[Spend], list[float]]:
        """Work out what a rollout has spent of each objective by now, and change nothing."""
        if not rollout.is_counting or rollout.contract == NO_CONTRACT:
            return rollout.spends, rollout.spents
        spends = rollout.counted()
        spents = [
            spend.share(self.objectives.items[objective].budget, sum(self._period(objective)))
            for spend, objective in zip(spends, rollout.objectives, strict=True)
        ]
        return spends, spents

    # --- what is not told ---------------------------------------------------------------------

    def suppresses(self, objective: int, now_ns: int, *, short_s: float, factor: float) -> bool:
        """Tell whether a burn of an objective by a pair of windows is not to be told now.

        A rollout that has been told to halt accounts for nothing any more.
        """
        item = self.objectives.items[objective]
        if item.slo.indicator not in TRANSIENT:
            return False
        short_ns = round(short_s * SECOND_NS)
        quiet = [
            NEVER_NS if each.end_ns == NEVER_NS else each.end_ns + short_ns
            for each in self._live
            if each.contract == item.contract
            and each.state is not RolloutState.HALTED
            and each.start.at_ns <= now_ns
        ]
        return suppresses(
            item.slo.indicator,
            now_ns=now_ns,
            quiet_until_ns=max(quiet, default=None),
            control_is_burning=self.control_burns(objective, now_ns, factor),
        )

    def control_burns(self, objective: int, now_ns: int, factor: float) -> bool:
        """Tell whether the control of a rollout burns as well, in the stretches up to now."""
        limit = factor * self.objectives.items[objective].budget
        for each in self._live:
            if objective not in each.objectives:
                continue
            newest = now_ns // each.width_ns - each.first
            recent = each.counts[max(0, newest - 1) : newest + 1, each.objectives.index(objective)]
            total = recent.sum(axis=0)
            supported = wilson_lower(total[[CONTROL_BAD]], total[[CONTROL_ALL]])[0] > limit
            if supported and total[CONTROL_BAD] >= BAD_EVENTS_MIN:
                return True
        return False


def _contracts(plan: Plan) -> dict[str, int]:
    """Find the contract of each name under which a model may be declared."""
    found = {contract.model: index for index, contract in enumerate(plan.contracts)}
    for index, contract in enumerate(plan.contracts):
        named = contract.match.get(keys.MODEL)
        if named is not None:
            found.setdefault(named, index)
    return found
