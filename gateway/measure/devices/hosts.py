"""How the hosts of devices are: their newest readings, what is wrong with them and since when.

Law: a condition begins when a reading passes its limit and ends when it is back by a margin, so
that one that swings about the limit is one and not many. It is told only when it has been seen for
a while, and no longer than readings come: what is not heard is not known. Values are whole
thousandths, times are arrivals; of two readings the newer one stays.
Complexity: Python per resource of a parcel that has readings, of which a device sends a few a
minute; judging is numpy over hosts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import compress
from typing import Final

import numpy as np

from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, grown
from gateway.otlp.readings import Reading
from gateway.tables import Bool

MINUTE_NS: Final = 60 * SECOND_NS
SCALE: Final = 1_000  # values are kept in thousandths
# Hosts are read every 10 to 60 seconds; five minutes without a reading are no reading.
STALE_NS: Final = 5 * MINUTE_NS
# Headroom is what was left at the busiest moment of these minutes.
PEAK_MINUTES: Final = 10
BUSY: Final = tuple(reading for reading in Reading if reading <= Reading.GPU_MEMORY)


class Condition(IntEnum):
    """What can be wrong with a host. The first five are those of `BUSY` in order."""

    CPU_BUSY = 0
    MEMORY_FULL = 1
    FILESYSTEM_FULL = 2
    GPU_BUSY = 3
    GPU_MEMORY_FULL = 4
    THROTTLED = 5
    BATTERY_LOW = 6
    TOO_HOT = 7


# Limits and margins, in thousandths. At nine tenths queues begin to grow.
BUSY_FROM: Final = 900
BUSY_MARGIN: Final = 50
# At 15 % a battery lasts for minutes; 20 % is a charge again.
BATTERY_FROM: Final = 150
BATTERY_MARGIN: Final = 50
# Three degrees Celsius, as precise as sensors are.
COOL_MARGIN: Final = 3_000
# How long a condition must be seen: a busy minute is work, one hot reading is a sensor.
SEEN_FOR_NS: Final = np.array(
    [5 * MINUTE_NS] * len(BUSY) + [MINUTE_NS, 0, MINUTE_NS], dtype=np.int64
)
_READING_OF: Final = np.array(
    [*BUSY, Reading.THROTTLED, Reading.BATTERY_CHARGE, Reading.TEMPERATURE], dtype=np.int64
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """One host. Units: headroom_ratio in [0, 1], None without a reading in the last ten minutes."""

    device: str
    headroom_ratio: float | None
    readings: Mapping[str, float]
    conditions: tuple[str, ...]


class Hosts:
    """Hosts by row. Shape: value and time_ns (rows, readings), since_ns (rows, conditions)."""

    def __init__(self) -> None:
        self._row: dict[int, int] = {}
        self.value = np.zeros((0, len(Reading)), dtype=np.int64)
        self.time_ns = np.zeros((0, len(Reading)), dtype=np.int64)  # 0 is never
        self.since_ns = np.zeros((0, len(Condition)), dtype=np.int64)  # 0 is not now
        self._peak = np.zeros((0, PEAK_MINUTES), dtype=np.int64)
        self._peak_minute = np.zeros((0, PEAK_MINUTES), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._row)

    @property
    def device(self) -> Int64:
        """Device of each row."""
        return np.array(list(self._row), dtype=np.int64)

    def add(self, device: int, readings: Mapping[Reading, float], arrival_ns: int) -> None:
        """Take the readings of one host."""
        row = self._row.setdefault(device, len(self._row))
        for name in _ROWS:
            setattr(self, name, grown(getattr(self, name), row + 1))
        time_ns, value = self.time_ns[row], self.value[row]
        last_ns = time_ns.copy()
        for reading, number in readings.items():
            if arrival_ns >= time_ns[reading]:
                value[reading], time_ns[reading] = round(number * SCALE), arrival_ns
        used = [value[each] for each in readings if each <= Reading.GPU_MEMORY]
        if used:
            self._note_peak(row, arrival_ns // MINUTE_NS, int(max(used)))
        since = self.since_ns[row]
        known = time_ns > arrival_ns - STALE_NS
        has_limit = bool(time_ns[Reading.TEMPERATURE_LIMIT])
        for condition, state in _conditions(value, known, has_limit=has_limit).items():
            reading = _READING_OF[condition]
            is_gap = arrival_ns - last_ns[reading] >= STALE_NS
            if state is False or (is_gap and state is None):
                since[condition] = 0
            elif state and (since[condition] == 0 or is_gap):
                since[condition] = arrival_ns

    def _note_peak(self, row: int, minute: int, used: int) -> None:
        at = minute % PEAK_MINUTES
        if minute > self._peak_minute[row, at]:
            self._peak_minute[row, at], self._peak[row, at] = minute, used
        elif minute == self._peak_minute[row, at]:
            self._peak[row, at] = max(int(self._peak[row, at]), used)

    def wrong(self, now_ns: int) -> Bool:
        """Say which conditions each host is in. Shape: (rows, conditions)."""
        count = len(self)
        time_ns = self.time_ns[:count, _READING_OF]
        since_ns = self.since_ns[:count]
        is_seen = time_ns - since_ns >= SEEN_FOR_NS
        found: Bool = (since_ns > 0) & is_seen & (now_ns - time_ns < STALE_NS)
        return found

    def headroom(self, now_ns: int) -> Int64:
        """Return what the busiest resource left free at its peak, -1 if none was read.

        Shape: (rows,). Units: thousandths, of the last ten minutes.
        """
        count = len(self)
        is_recent = self._peak_minute[:count] > now_ns // MINUTE_NS - PEAK_MINUTES
        peak = np.where(is_recent, self._peak[:count], -1).max(axis=1, initial=-1)
        return np.where(peak >= 0, SCALE - peak, -1)

    def views(self, names: Sequence[str], now_ns: int) -> tuple[HostView, ...]:
        """Copy all hosts."""
        count = len(self)
        # Plain lists and texts first: a scrape looks at every host.
        wrong, headroom = self.wrong(now_ns).tolist(), self.headroom(now_ns).tolist()
        value = self.value[:count].tolist()
        is_known = (now_ns - self.time_ns[:count] < STALE_NS).tolist()
        return tuple(
            HostView(
                device=names[device],
                headroom_ratio=headroom[row] / SCALE if headroom[row] >= 0 else None,
                readings={
                    name: number / SCALE
                    for name, number, known in zip(
                        _READINGS, value[row], is_known[row], strict=True
                    )
                    if known
                },
                conditions=tuple(compress(_CONDITIONS, wrong[row])),
            )
            for device, row in self._row.items()
        )

    def state(self) -> State:
        """Copy all rows."""
        rows = {name: getattr(self, name)[: len(self)].copy() for name in _ROWS}
        return {"device": self.device, **rows}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put rows back."""
        self._row = {device: row for row, device in enumerate(state["device"].tolist())}
        for name in _ROWS:
            setattr(self, name, state[name].copy())


_READINGS: Final = tuple(each.name.lower() for each in Reading)
_CONDITIONS: Final = tuple(each.name.lower() for each in Condition)
_ROWS: Final = ("value", "time_ns", "since_ns", "_peak", "_peak_minute")


def _conditions(value: Int64, known: Bool, *, has_limit: bool) -> dict[Condition, bool | None]:
    """Say what is wrong: None between the limit and the margin. Only what is known is said."""
    found: dict[Condition, bool | None] = {}
    for condition, reading in zip(Condition, BUSY, strict=False):
        if known[reading]:
            found[condition] = _passed(int(value[reading]) - BUSY_FROM, BUSY_MARGIN)
    if known[Reading.THROTTLED]:
        found[Condition.THROTTLED] = bool(value[Reading.THROTTLED])
    if known[Reading.BATTERY_CHARGE] and known[Reading.ON_BATTERY]:
        under = BATTERY_FROM - int(value[Reading.BATTERY_CHARGE])
        is_used = bool(value[Reading.ON_BATTERY])
        found[Condition.BATTERY_LOW] = is_used and _passed(under, BATTERY_MARGIN)
    # A host may tell a limit once, as it does not change.
    if known[Reading.TEMPERATURE] and has_limit:
        over = int(value[Reading.TEMPERATURE]) - int(value[Reading.TEMPERATURE_LIMIT])
        found[Condition.TOO_HOT] = _passed(over, COOL_MARGIN)
    return found


def _passed(over: int, margin: int) -> bool | None:
    """Say whether a limit is passed: True at it, False below it by the margin, else None."""
    return True if over >= 0 else False if over < -margin else None


def merge(first: Mapping[str, Array], second: Mapping[str, Array], where: Sequence[int]) -> State:
    """Join two states, `where` the devices of the second stand; of two readings the newer stays."""
    place = {device: row for row, device in enumerate(first["device"].tolist())}
    rows = [place.setdefault(where[device], len(place)) for device in second["device"].tolist()]
    total: State = {"device": np.array(list(place), dtype=np.int64)}
    one, two = {}, {}
    for name in _ROWS:
        shape = (len(place), *first[name].shape[1:])
        one[name], two[name] = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        one[name][: len(first[name])] = first[name]
        two[name][rows] = second[name]
    newer = two["time_ns"] > one["time_ns"]
    same = two["time_ns"] == one["time_ns"]
    value = np.where(newer, two["value"], one["value"])
    total["value"] = np.where(same, np.maximum(one["value"], two["value"]), value)
    total["time_ns"] = np.maximum(one["time_ns"], two["time_ns"])
    of_condition = newer[:, _READING_OF]
    since = np.where(of_condition, two["since_ns"], one["since_ns"])
    both = np.maximum(one["since_ns"], two["since_ns"])
    total["since_ns"] = np.where(same[:, _READING_OF], both, since)
    later = two["_peak_minute"] > one["_peak_minute"]
    level = two["_peak_minute"] == one["_peak_minute"]
    peak = np.where(later, two["_peak"], one["_peak"])
    total["_peak"] = np.where(level, np.maximum(one["_peak"], two["_peak"]), peak)
    total["_peak_minute"] = np.maximum(one["_peak_minute"], two["_peak_minute"])
    return total
