"""Every signal of every series: its counts, its baseline, and the ticks of its drift detector.

Law: a stream is (series, signal); the confidence of one class alone counts as a signal too. Its
counts are exact and never reset. Its life: it collects its first observations, is frozen, and from
then on is judged tick by tick. It collects at least `baseline_events`, and goes on until the
baseline is large enough for the contract's tolerance, or until PATIENCE_BASELINES times as many are
there, so that it never waits for ever. A tick is `drift_tick_s` of arrival time, held open until it
has 20 events or five minutes have passed; which batch or idle step closes it changes nothing in it.

A new version of a model is judged against the baseline of the version before it, if that one is
frozen: in a rollout the question is whether the new version behaves like the one it replaces, and
one that learned from its own first events would call itself normal. A version that is rightly
different therefore alarms once; meanwhile its own events are collected as a candidate baseline,
which a person promotes. After an alarm, too, a candidate is collected from then on.

What a baseline file gives is not learned: a version that it names is judged against it from its
first event on and collects nothing, so that live data never changes it.

Where a baseline, learned or given, is too small for the tolerance, its stream has an index and an
interval, and never alarms. One that learned such a baseline collects a candidate at once.

Where a contract has a season, a stream learns a week by the hour and is judged against the hour of
each tick; see `seasons`.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.batch import Batch, Upstream
from gateway.contract.plan import Plan
from gateway.measure.drift.baseline import BLOCKS_MIN, Baseline
from gateway.measure.drift.collect import Collection, alarms_by_itself, leave_out
from gateway.measure.drift.counting import INCLUSION_LANE, Counting, Stream
from gateway.measure.drift.detector import Alarm, Bank
from gateway.measure.drift.files import given
from gateway.measure.drift.fleet import PATIENCE_S, Budget
from gateway.measure.drift.grid import Grid
from gateway.measure.drift.hours import alarms_by_hour, freeze_hours
from gateway.measure.drift.lanes import NOT_COLLECTING, Lane
from gateway.measure.drift.seasons import Against, Seasons
from gateway.measure.drift.shadow import Shadows, Superseded
from gateway.measure.settings import MeasureSettings
from gateway.measure.state import Int64
from gateway.tables import Bool

TICK_EVENTS_MIN: Final = 20
TICK_HELD_S_MAX: Final = 300.0
BLOCKS_PER_BASELINE: Final = 8
# A baseline that is still too small at so many times `baseline_events` is frozen as it is, for its
# index; a candidate, which waits beside one that is in force, may take longer.
PATIENCE_BASELINES: Final = 16
CANDIDATE_PATIENCE_BASELINES: Final = 64
# What is learned in a time so rough, as a start with its cold starts is, is thrown away if it is
# too small because of that: its phi would stay. Frames of long scenes are always so.
PHI_STEADY_MAX: Final = 8.0
# After this many baselines that were refused the next one is taken, marked if it is unsteady.
REFUSALS_MAX: Final = 3


class Streams:
    """All streams of a plan. Stream numbers are also rows of the detector bank.

    Raises: InvalidConfigError when a baseline file of the plan does not fit its contract.
    """

    def __init__(self, plan: Plan, settings: MeasureSettings) -> None:
        self._plan = plan
        self._settings = settings
        self._block_events = max(1, settings.baseline_events // BLOCKS_PER_BASELINE)
        self._given = given(plan)
        self._counting = Counting(plan)
        self.places = self._counting.places
        self.lanes = self._counting.lanes
        self.readers = self._counting.readers
        self.items: list[Stream] = []
        self._of_key: dict[tuple[str, str, str], int] = {}
        self._of_signal: dict[tuple[str, str], list[int]] = {}
        self._of_series: dict[int, list[int]] = {}
        self.baselines: dict[int, Baseline] = {}
        self.inherited: set[int] = set()
        self.collections: dict[int, Collection] = {}
        self.candidates: dict[int, Baseline] = {}
        self.superseded: dict[int, Superseded] = {}
        self.shadows = Shadows()
        self.budget = Budget(settings.false_alarms)
        self.bank = Bank(max(1, round(PATIENCE_S / settings.drift_tick_s)))
        self.seasons = Seasons(plan, settings)
        self.tick = 0
        self._hold_ticks = max(1, round(TICK_HELD_S_MAX / settings.drift_tick_s))

    def open_series(
        self, series: int, contract: int, model: str, version: str, *, learn: bool = True
    ) -> None:
        """Open the streams of a series; without `learn` they wait to be restored."""
        made = self._counting.open_series(
            series, contract, model, version, first=len(self.items), tick=self.tick
        )
        for stream in made:
            self._open(stream, learn=learn)
        if learn and self._counting.is_sampled(contract):
            self._open_weights(series, learn=learn)

    def resume_weights(self, saved: Sequence[tuple[str, str]]) -> None:
        """Open the streams of weights that were saved, by model and version, to be restored."""
        for series in self._counting.sampled_before(saved):
            self._open_weights(series, learn=False)

    def _open_weights(self, series: int, *, learn: bool) -> None:
        stream = self._counting.open_weights(series, number=len(self.items), tick=self.tick)
        self._open(stream, learn=learn)

    def _open(self, stream: Stream, *, learn: bool) -> None:
        number = len(self.items)
        self.items.append(stream)
        self.seasons.append(stream.contract, stream.series)
        self._of_key[stream.key] = number
        self._of_signal.setdefault((stream.model, stream.signal), []).append(number)
        self._of_series.setdefault(stream.series, []).append(number)
        self.bank.reserve(number + 1)
        if learn:
            self.begin(number)

    def begin(self, number: int) -> None:
        """Start the life of a stream: take its file's baseline, else inherit one and collect."""
        from_file = self.maybe_given(number)
        if from_file is not None:
            self.adopt(number, from_file)
            return
        before = self._maybe_before(number)
        if before is not None:
            self.inherited.add(number)
            self.adopt(number, before)
        self.collect(number)

    def maybe_given(self, number: int) -> Baseline | None:
        """Return what a baseline file says of a stream, None when it learns."""
        return self._given.get(self.items[number].key)

    def is_large_enough(self, number: int, baseline: Baseline) -> bool:
        """Say whether a baseline is large enough for the tolerance of a stream's contract."""
        return baseline.events >= baseline.events_needed(self.tolerance(number))

    def tolerance(self, number: int) -> float:
        """Return the tolerance of a stream's contract."""
        return self._plan.contracts[self.items[number].contract].drift.tolerance

    def number_of(self, model: str, version: str, signal: str) -> int | None:
        """Return a stream's number, None when there is no such stream."""
        return self._of_key.get((model, version, signal))

    def _maybe_before(self, number: int) -> Baseline | None:
        """Return the newest frozen baseline of another version of the same signal."""
        mine, grid = self.items[number], self.grid(number)
        for other in reversed(self._of_signal[mine.model, mine.signal]):
            baseline = self.baselines.get(other)
            if other < number and baseline is not None and baseline.grid == grid:
                return baseline
        return None

    def add(
        self, batch: Batch, rows: Int64 | None, series: Int64, late: Bool | None = None
    ) -> list[Int64]:
        """Count the signals of inferences. Returns the bins of each reader, (rows,) each.

        Those that are `late` are counted, and not judged. Shape: late (rows,).
        """
        bins = self._counting.bins(batch, rows)
        if late is None:
            self._counting.count(series, bins)
            return bins
        self._counting.count(series[~late], [each[~late] for each in bins])
        skipped = self._counting.count_late(series[late], [each[late] for each in bins])
        for lane, row, found in skipped:
            leave_out(self.collections, lane, row, found)
        return bins

    def maybe_weigh(
        self,
        said: Upstream,
        rows: Int64 | None,
        contract: Int64,
        series: Int64,
        late: Bool | None = None,
    ) -> Int64 | None:
        """Count the weights that samplers before the gateway gave inferences; late ones as `add`.

        Returns their bins, None where no sampler is known. Shape: all (rows,), `said` (spans,).
        """
        for each in self._counting.newly_sampled(said, rows, contract):
            self._open_weights(each, learn=True)
        bins = self._counting.maybe_weigh(said, rows, series, late)
        if bins is not None and late is not None:
            lane = self.lanes[INCLUSION_LANE]
            leave_out(self.collections, lane, lane.rows_of(series[late]), bins[late])
        return bins

    def adopt(self, number: int, baseline: Baseline) -> None:
        """Judge a stream against a baseline from the next event on."""
        self.arm(number, baseline)
        lane, row = self._lane_row(number)
        lane.fold(np.array([row]), self.tick)
        self.bank.clear(number, self.tick * self._settings.drift_tick_ns)
        if not self.is_large_enough(number, baseline) and number not in self.candidates:
            self.collect(number)

    def arm(self, number: int, baseline: Baseline) -> None:
        """Connect a stream with a baseline without touching its counts or evidence."""
        rule = self._plan.contracts[self.items[number].contract].drift
        lane, row = self._lane_row(number)
        self.baselines[number] = baseline
        bound = self.log_bound(number)
        self.bank.arm(number, baseline, rule.tolerance, bound, rule.accumulator)
        lane.freeze(row, baseline.group)
        self.budget.tell("streams", len(self.baselines))
        self.bank.share(self.budget.sharing)
        self.seasons.arm(self.bank, number, self.baselines, self.tick)

    def against(self, number: int, since_ns: int | None = None) -> Against:
        """Return what the index of a stream with a baseline is held against.

        With a season that is the hour of its newest tick, or all hours since a time.
        """
        baseline = self.baselines[number]
        if number in self.seasons.judged:
            return self.seasons.against(self.bank, number, self.baselines, since_ns)
        return Against(
            shares=baseline.shares,
            events=baseline.events / baseline.phi,
            delta=float(self.bank.delta[number]),
            benign=self.tolerance(number),
        )

    def log_bound(self, number: int) -> float:
        """Return log A: A is the ticks in which the contract allows one false alarm."""
        rule = self._plan.contracts[self.items[number].contract].drift
        return float(-np.log(rule.false_alarms_per_s * self._settings.drift_tick_s))

    def collect(self, number: int) -> None:
        """Begin to collect a baseline, from the next event on, unless a file gives it."""
        if number in self.collections or self.maybe_given(number) is not None:
            return
        lane, row = self._lane_row(number)
        is_seasonal = self.seasons.has(number)
        if is_seasonal and not self.seasons.begin(number, lane.grid):
            return
        self.collections[number] = Collection.begin(lane.counts(row))
        lane.seen[row] = 0
        lane.due[row] = NOT_COLLECTING if is_seasonal else self._block_events
        lane.collecting += 1

    def learn(self) -> list[int]:
        """Close blocks and freeze what has enough events. Returns streams with a new baseline."""
        frozen = self._learn_hours() if self.seasons.rhythms else []
        for lane in self.lanes:
            if not lane.collecting:
                continue
            for row in np.flatnonzero(lane.seen >= lane.due).tolist():
                number = lane.stream[row]
                collection = self.collections[number]
                collection.close_block(lane.counts(row))
                # Blocks that were joined are larger than the first ones.
                size = int(lane.seen[row]) // len(collection.blocks)
                lane.due[row] = lane.seen[row] + max(self._block_events, size)
                if self.is_enough(number, collection):
                    self._finish(number, collection)
                    if number in self.baselines:
                        frozen.append(number)
        return frozen

    def is_enough(self, number: int, collection: Collection) -> bool:
        """Say whether a collection is to be frozen now."""
        lane, row = self._lane_row(number)
        seen, least = int(lane.seen[row]), self._settings.baseline_events
        if seen < least or len(collection.blocks) < BLOCKS_MIN:
            return False
        baseline = collection.baseline(lane.grid)
        needed = baseline.events_needed(self.tolerance(number))
        beside = number in self.baselines
        most = least * (CANDIDATE_PATIENCE_BASELINES if beside else PATIENCE_BASELINES)
        collection.wanted = min(math.ceil(max(needed, least)), most)
        is_decided = baseline.events >= needed or seen >= most
        return is_decided or self._is_too_rough(number, baseline, collection.refusals)

    def _is_too_rough(self, number: int, baseline: Baseline, refusals: int) -> bool:
        """Say whether a time was so unsteady that its baseline is too small for it."""
        is_rough = baseline.phi > PHI_STEADY_MAX and refusals < REFUSALS_MAX
        return is_rough and not self.is_large_enough(number, baseline)

    def events_wanted(self, number: int) -> int:
        """Return of how many events a stream's baseline is learned, as far as is known."""
        collection = self.collections.get(number)
        least = self._settings.baseline_events
        return least if collection is None else max(least, collection.wanted)

    def _finish(self, number: int, collection: Collection) -> None:
        lane, row = self._lane_row(number)
        bound = self.log_bound(number)
        unsteady = alarms_by_itself(lane.grid, collection.blocks, self.tolerance(number), bound)
        baseline = collection.baseline(lane.grid, unsteady=unsteady)
        refusals = collection.refusals + 1
        if (unsteady and refusals <= REFUSALS_MAX) or self._is_too_rough(
            number, baseline, collection.refusals
        ):
            self.collections[number] = Collection.begin(lane.counts(row), refusals)
            lane.seen[row], lane.due[row] = 0, self._block_events
            return
        self._take(number, baseline)

    def _learn_hours(self) -> list[int]:
        """Freeze what has a whole week. Returns streams with a new baseline."""
        frozen: list[int] = []
        for number in self.seasons.whole(self.tick, lambda each: self.grid(each).missing):
            lane, row = self._lane_row(number)
            table, refusals = self.seasons.rhythms[number].table, self.collections[number].refusals
            self.seasons.end(number)
            bound = self.log_bound(number)
            unsteady = alarms_by_hour(lane.grid, table, self.tolerance(number), bound)
            if unsteady and refusals < REFUSALS_MAX:
                self.collections[number] = Collection.begin(lane.counts(row), refusals + 1)
                self.seasons.begin(number, lane.grid)
                lane.seen[row] = 0
                continue
            self._take(number, freeze_hours(lane.grid, table, unsteady=unsteady))
            frozen.append(number)
        if frozen:
            self.collect_waiting()
        return frozen

    def collect_waiting(self) -> None:
        """Begin to collect what waits for room, as far as there is any."""
        for number in self.seasons.in_turn(self.seasons.waiting):
            if not self.seasons.has_room(self.grid(number)):
                break
            self.collect(number)

    def _take(self, number: int, baseline: Baseline) -> None:
        """End a collection with what it came to."""
        lane, row = self._lane_row(number)
        del self.collections[number]
        lane.due[row] = NOT_COLLECTING
        lane.collecting -= 1
        if number in self.baselines:
            self.candidates[number] = baseline
        else:
            self.adopt(number, baseline)

    def stop_collecting(self, number: int) -> None:
        """Drop what has been collected of a baseline; see `promote`."""
        if self.collections.pop(number, None) is not None:
            lane, row = self._lane_row(number)
            lane.seen[row], lane.due[row] = 0, NOT_COLLECTING
            lane.collecting -= 1
        self.seasons.end(number)
        self.collect_waiting()

    def shade(self, number: int, baseline: Baseline, until_ns: int) -> None:
        """Let a superseded baseline of a stream go on judging, without evidence so far."""
        self.shadows.begin(
            number,
            baseline,
            self._plan.contracts[self.items[number].contract].drift,
            log_bound=self.log_bound(number),
            until_ns=until_ns,
            now_ns=self.tick * self._settings.drift_tick_ns,
        )

    def turn(self, now_ns: int) -> list[Alarm]:
        """Close the ticks that are over and judge them."""
        tick = now_ns // self._settings.drift_tick_ns
        if tick <= self.tick:
            return []
        # Other kinds of detectors may have come to share the budget.
        self.bank.share(self.budget.sharing)
        alarms: list[Alarm] = []
        for lane in self.lanes:
            alarms += self._close(lane, tick)
        before, self.tick = self.tick, tick
        if self.seasons.exist:
            self.seasons.close(before, tick, self.collections, self.counts)
            self.seasons.turn(self.bank, before, tick, self.baselines)
        self.shadows.expire(tick * self._settings.drift_tick_ns)
        return [each for each in alarms if self.is_large_enough(each.row, self.baselines[each.row])]

    def _close(self, lane: Lane, tick: int) -> list[Alarm]:
        count = len(lane.stream)
        events = lane.open[:count].sum(axis=1)
        held_until = lane.opened[:count] + self._hold_ticks
        if self.seasons.exist:
            is_seasonal = self.seasons.mask(lane.stream)
            held_until[is_seasonal] = np.minimum(
                held_until[is_seasonal], self.seasons.hour_end(self.tick)
            )
        full = events >= TICK_EVENTS_MIN
        due = np.flatnonzero(full | ((events > 0) & (held_until <= tick)))
        judged = due[lane.is_frozen[due]]
        alarms: list[Alarm] = []
        if len(judged):
            # The tick of the last event is over one tick later, whenever that is noticed.
            end = np.where(full[judged], self.tick + 1, held_until[judged])
            numbers = np.array(lane.stream, dtype=np.int64)[judged]
            end_ns = end * self._settings.drift_tick_ns
            if self.seasons.judged:
                self.seasons.carry(self.bank, numbers, self.baselines, self.tick)
            alarms = self.bank.step(numbers, lane.coarse(judged), end_ns)
            if self.shadows:
                hour = self.seasons.hour(self.tick)
                self.shadows.step(numbers, lane.open[judged], end_ns, hour=hour)
        lane.fold(due, tick)
        lane.opened[:count][events == 0] = tick
        return alarms

    def _lane_row(self, number: int) -> tuple[Lane, int]:
        item = self.items[number]
        return self.lanes[item.lane], item.row

    def counts(self, number: int) -> Int64:
        """Return all counts of a stream. Shape: (grid width,)."""
        lane, row = self._lane_row(number)
        return lane.counts(row)

    def grid(self, number: int) -> Grid:
        """Return the grid of a stream."""
        return self.lanes[self.items[number].lane].grid

    def of_series(self, series: int) -> Sequence[int]:
        """Return the streams of a series."""
        return self._of_series.get(series, ())

    def reset(
        self, number: int, total: Int64, open_tick: Int64, *, opened: int = 0, seen: int = 0
    ) -> None:
        """Set a stream's counts, since when its tick is open, and how much it has collected."""
        lane, row = self._lane_row(number)
        lane.total[row], lane.open[row] = total, open_tick
        lane.opened[row], lane.seen[row] = opened, seen

    def resume(self, number: int, collection: Collection, due: int) -> None:
        """Go on with a saved collection."""
        lane, row = self._lane_row(number)
        self.collections[number] = collection
        lane.due[row] = due
        lane.collecting += 1
        self.is_enough(number, collection)  # to know what is wanted
