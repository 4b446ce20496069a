"""The rhythm of streams whose contract has a season: what is learned of it, and what is late.

Law: everything is decided by ticks, so it depends on the sequence of batches alone. A tick belongs
to the hour in which it begins (UTC). No tick of a seasonal stream is held open over the change of
an hour: it is closed there with what it has, and judged against the hour it is of. The hours'
mixture by the events in it would be known only after the tick, and a value that is judged against
what the tick itself chose is no e-value; closing at a time that is fixed beforehand is allowed. A
step more each hour does not pass the budget, since no tick is stepped on twice.

The index is shown in terms of the hour of the newest tick: what is recent is carried from hour to
hour by the ratio of their shares (`Bank.carry`), so that the rhythm is not in it.

A collection freezes once it has `baseline_events` and a whole week, counted from the end of the
quarter of an hour of its first event. How far it is changes at quarters alone.

An event whose own time is more than LATE_NS before its arrival is late: it reaches the counts, and
neither the index of now, nor the alarm, nor what is learned. Only of streams with a season: without
one an old event of an unchanged model follows the same law as a new one.

Bounded: tables that are learned at one time have TABLE_BYTES_MAX together, a stream beyond waits;
one batch settles SETTLED_PER_BATCH collections at most. Cost: 0.7 s for 10,000 streams at the
change of an hour; nothing on the way of a batch but one comparison of times.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.contract.plan import Plan
from gateway.contract.schema import Season
from gateway.measure.drift.baseline import Baseline
from gateway.measure.drift.collect import Collection
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.grid import Grid
from gateway.measure.drift.hours import (
    PARTS,
    QUARTER_NS,
    WEEK_NS,
    HourReferences,
    cell_of,
    empty_table,
    references,
    table_bytes,
)
from gateway.measure.drift.seasonal import HOUR_NS, HOURS, hour_of_week
from gateway.measure.settings import MeasureSettings
from gateway.measure.state import Int64, grown
from gateway.tables import Bool, Float64, UInt32

LATE_NS: Final = HOUR_NS
TABLE_BYTES_MAX: Final = 256 << 20
# Checking a week against itself takes up to 0.2 s for a stream, and all begin at the same time.
SETTLED_PER_BATCH: Final = 1
# Streams that are referred to an hour in one step: as much as fits into the cache.
REFERRED_AT_ONCE: Final = 96
NO_TICK: Final = -1


@dataclass(slots=True, kw_only=True)
class Rhythm:
    """What a collection has by hour. Shape: table (hours, parts, grid width).

    `first` is the tick from which on its week is counted, NO_TICK before its first event.
    """

    table: UInt32
    first: int = NO_TICK


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """What a stream's index is held against.

    Shape: shares (coarse bins,). `events` are the independent events behind them, `delta` is the
    radius that its alarm allows for, `benign` the root of the PSI that an unchanged signal may
    show.
    """

    shares: Float64
    events: float
    delta: float
    benign: float


class Seasons:
    """Which streams have a season, and what is learned of their hours, by stream number."""

    def __init__(self, plan: Plan, settings: MeasureSettings) -> None:
        self._of_contract = np.array(
            [contract.drift.season is Season.HOUR_OF_WEEK for contract in plan.contracts],
            dtype=np.bool_,
        )
        self._tolerance = [contract.drift.tolerance for contract in plan.contracts]
        self._tick_ns = settings.drift_tick_ns
        self._wanted = settings.baseline_events
        self._contract_of: list[int] = []
        self._series_of: list[int] = []
        self._is_seasonal = np.zeros(0, dtype=np.bool_)
        self.rhythms: dict[int, Rhythm] = {}
        self.waiting: set[int] = set()
        # Streams that are judged by hour.
        self.judged: set[int] = set()
        self.late_events = 0
        # Whether a collection may have become whole since it was looked for.
        self.is_due = True

    @property
    def exist(self) -> bool:
        """Whether any contract has a season."""
        return bool(self._of_contract.any())

    def append(self, contract: int, series: int) -> None:
        """Append a stream of a series of a contract."""
        number = len(self._contract_of)
        self._contract_of.append(contract)
        self._series_of.append(series)
        self._is_seasonal = grown(self._is_seasonal, number + 1)
        self._is_seasonal[number] = self._of_contract[contract]

    def in_turn(self, numbers: Iterable[int]) -> list[int]:
        """Sort streams by series, which a restart keeps: streams of weights get other numbers."""
        return sorted(numbers, key=lambda each: (self._series_of[each], each))

    def has(self, number: int) -> bool:
        """Say whether a stream has a season."""
        return bool(self._is_seasonal[number])

    def mask(self, numbers: Sequence[int] | Int64) -> Bool:
        """Say which streams have a season. Shape: (streams,)."""
        mask: Bool = self._is_seasonal[np.asarray(numbers, dtype=np.int64)]
        return mask

    def maybe_late(self, contract: Int64, event_ns: Int64, arrival_ns: Int64) -> Bool | None:
        """Say which inferences are late, and count them; None when none is.

        Shape: all (rows,). Units: Unix nanoseconds.
        """
        if not self.exist:
            return None
        late = (arrival_ns - event_ns > LATE_NS) & self._of_contract[contract]
        count = int(np.count_nonzero(late))
        self.late_events += count
        return late if count else None

    def has_room(self, grid: Grid) -> bool:
        """Say whether another stream may be learned; one always may, however wide its grid is."""
        held = sum(each.table.nbytes for each in self.rhythms.values())
        return not self.rhythms or held + table_bytes(grid) <= TABLE_BYTES_MAX

    def begin(self, number: int, grid: Grid) -> bool:
        """Begin to count a stream's hours; say whether there is room, else it waits."""
        if not self.has_room(grid):
            self.waiting.add(number)
            return False
        self.waiting.discard(number)
        self.rhythms[number] = Rhythm(table=empty_table(grid))
        return True

    def end(self, number: int) -> None:
        """Stop to count a stream's hours."""
        self.rhythms.pop(number, None)
        self.waiting.discard(number)

    def hour_end(self, tick: int) -> int:
        """Return the first tick of the hour after a tick's."""
        end_ns = (tick * self._tick_ns // HOUR_NS + 1) * HOUR_NS
        return -(-end_ns // self._tick_ns)

    def _quarter(self, tick: int) -> int:
        return tick * self._tick_ns // QUARTER_NS

    def hour(self, tick: int) -> int:
        """Return the hour of the week of a tick."""
        return int(hour_of_week(np.array([tick * self._tick_ns]))[0])

    def close(
        self,
        before: int,
        tick: int,
        collections: Mapping[int, Collection],
        counts: Callable[[int], Int64],
    ) -> None:
        """Count what came up to a tick in the cell of the tick before, if that is over."""
        if self._quarter(before) == self._quarter(tick):
            return
        hour, part = divmod(int(cell_of(np.array([before * self._tick_ns]))[0]), PARTS)
        end_ns = (self._quarter(before) + 1) * QUARTER_NS
        for number, rhythm in self.rhythms.items():
            collection, now = collections[number], counts(number)
            came = now - collection.last
            if not came.any():
                continue
            rhythm.table[hour, part] += came.astype(np.uint32)
            collection.last = now
            if rhythm.first == NO_TICK:
                rhythm.first = -(-end_ns // self._tick_ns)
        self.is_due = True

    def whole(self, tick: int, missing: Callable[[int], int]) -> list[int]:
        """List collections that have a week and enough events, as many as are settled at once.

        `missing` returns the bin of a stream's grid that holds no value.
        """
        if not self.is_due:
            return []
        # As it was at the last change of a quarter, whenever that is noticed.
        now_ns = self._quarter(tick) * QUARTER_NS
        found = []
        for number in self.in_turn(self.rhythms):
            rhythm = self.rhythms[number]
            if rhythm.first == NO_TICK or now_ns < rhythm.first * self._tick_ns + WEEK_NS:
                continue
            events = int(rhythm.table.sum(dtype=np.int64))
            events -= int(rhythm.table[..., missing(number)].sum(dtype=np.int64))
            if events >= self._wanted:
                found.append(number)
            if len(found) > SETTLED_PER_BATCH:
                break
        self.is_due = len(found) > SETTLED_PER_BATCH
        return found[:SETTLED_PER_BATCH]

    def references(
        self, numbers: Sequence[int], baselines: Mapping[int, Baseline], hour: int
    ) -> HourReferences:
        """Return what streams are judged against at an hour of the week."""
        tolerance = np.array([self._tolerance[self._contract_of[each]] for each in numbers])
        return references([baselines[each] for each in numbers], hour, tolerance)

    def arm(self, bank: Bank, number: int, baselines: Mapping[int, Baseline], tick: int) -> None:
        """Judge a stream that was just armed by the hour, if it has a season."""
        if self.has(number):
            self.judged.add(number)
            self._refer(bank, [number], baselines, tick)

    def turn(self, bank: Bank, before: int, tick: int, baselines: Mapping[int, Baseline]) -> None:
        """Refer all streams that are judged by hour to that of a tick, if it is another one."""
        if self.judged and tick >= self.hour_end(before):
            self._refer(bank, sorted(self.judged), baselines, tick)

    def _refer(
        self, bank: Bank, numbers: list[int], baselines: Mapping[int, Baseline], tick: int
    ) -> None:
        for first in range(0, len(numbers), REFERRED_AT_ONCE):
            some = numbers[first : first + REFERRED_AT_ONCE]
            found = self.references(some, baselines, self.hour(tick))
            bank.refer(np.array(some), found.shares, found.delta)

    def shown_hours(self, bank: Bank, numbers: Int64) -> Int64:
        """Return the hour of each stream's newest tick, in whose terms its index is."""
        return hour_of_week(np.maximum(bank.recent_ns[numbers, 0] - self._tick_ns, 0))

    def against(
        self, bank: Bank, number: int, baselines: Mapping[int, Baseline], since_ns: int | None
    ) -> Against:
        """Return what the index of a stream is held against: the hour of its newest tick.

        With `since_ns` it is the mixture of the hours since then, by the events that each had.
        """
        baseline = baselines[number]
        assert baseline.hours is not None
        last_ns = max(int(bank.recent_ns[number, 0]) - self._tick_ns, 0)
        first_ns = last_ns if since_ns is None else min(max(since_ns, 0), last_ns)
        first = max(first_ns // HOUR_NS, last_ns // HOUR_NS - HOURS + 1)
        starts = np.arange(first, last_ns // HOUR_NS + 1) * HOUR_NS
        spent = np.minimum(starts + HOUR_NS, last_ns + self._tick_ns) - np.maximum(starts, first_ns)
        hours = hour_of_week(starts)
        weights = spent * (baseline.hours[hours].sum(axis=1, dtype=np.int64) + 1.0)
        weights /= weights.sum()
        found = [self.references([number], baselines, hour) for hour in hours.tolist()]
        shares = weights @ np.concatenate([each.shares for each in found])
        events = np.concatenate([each.events for each in found])
        newest = found[-1]
        return Against(
            shares=shares[: baseline.bins],
            events=float(1 / (weights**2 / events).sum()) / baseline.phi,
            delta=float(newest.delta[0]),
            benign=float(newest.benign[0]),
        )

    def carry(
        self, bank: Bank, numbers: Int64, baselines: Mapping[int, Baseline], tick: int
    ) -> None:
        """Carry the recent past of streams into the hour of a tick that they are to take."""
        mine = numbers[self.mask(numbers)]
        hours = self.shown_hours(bank, mine)
        for hour in np.unique(hours[hours != self.hour(tick)]).tolist():
            moved = mine[hours == hour]
            before = self.references(moved.tolist(), baselines, hour)
            bank.carry(moved, before.shares)
