"""Superseded baselines that go on judging for a week beside the one that replaced them.

Law: a shadow sees the ticks that the baseline in force sees, in bins of its own, from the promotion
on and with evidence that starts at nothing. It never pages. It judges the ticks that end by
`until_ns` and is gone with the first tick boundary from then on, so that it does not matter which
batch or idle step notices. A stream has at most one shadow, that of its last promotion.

What it is for: a promoted baseline that absorbed a fault finds the fault normal. The one before it
still says so while the fault lasts, and is silent once the signal is as it was.

Cost: a detector's memory and step for each shadow, nothing without any.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import Json
from gateway.contract.schema import DriftRule
from gateway.errors import CorruptDataError
from gateway.measure.drift.baseline import Baseline, thawed
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.grid import Grid
from gateway.measure.drift.hours import references
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, pack_json, part, prefixed, unpack_json
from gateway.tables import UInt32

# Arrival time for which a superseded baseline goes on judging. Source: drift.md section 5.
SHADOW_S: Final = 7 * 86_400
SHADOW_NS: Final = SHADOW_S * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """The baseline that a promotion replaced last. Units: at_ns Unix nanoseconds."""

    digest: str
    events: int
    at_ns: int


@dataclass(slots=True, kw_only=True)
class Shadow:
    """A superseded baseline and what it has said so far. Units: _ns Unix nanoseconds."""

    baseline: Baseline
    until_ns: int
    slot: int  # its row of the bank
    tolerance: float
    alarms: int = 0
    last_alarm_ns: int | None = None
    hour: int | None = None  # of the week, of its newest tick where it has a season


class Shadows:
    """All shadows by stream number, with a bank of their own."""

    def __init__(self) -> None:
        self._of: dict[int, Shadow] = {}
        self.bank = Bank()
        self._told: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._of)

    def begin(
        self,
        number: int,
        baseline: Baseline,
        rule: DriftRule,
        *,
        log_bound: float,
        until_ns: int,
        now_ns: int,
    ) -> None:
        """Put the baseline of a stream into the shadow, in place of the one that is there."""
        self.end(number)
        taken = {each.slot for each in self._of.values()}
        slot = next(each for each in range(len(taken) + 1) if each not in taken)
        self.bank.reserve(slot + 1)
        self.bank.arm(slot, baseline, rule.tolerance, log_bound, rule.accumulator)
        self.bank.clear(slot, now_ns)
        self._of[number] = Shadow(
            baseline=baseline, until_ns=until_ns, slot=slot, tolerance=rule.tolerance
        )

    def end(self, number: int) -> None:
        """Take the baseline of a stream out of the shadow if there is one; its memory is free."""
        shadow = self._of.pop(number, None)
        if shadow is not None:
            self.bank.disarm(shadow.slot)
        if not self._of:
            self.bank = Bank()

    def expire(self, now_ns: int) -> None:
        """End the shadows whose time is over."""
        for number in [each for each, shadow in self._of.items() if shadow.until_ns <= now_ns]:
            self.end(number)

    def step(self, numbers: Int64, counts: Int64, end_ns: Int64, *, hour: int) -> None:
        """Take one tick of the given streams, at an hour of the week.

        Shape: numbers and end_ns (k,), counts (k, grid width).
        """
        for place, number in enumerate(numbers.tolist()):
            shadow = self._of.get(number)
            if shadow is None or end_ns[place] > shadow.until_ns:
                continue
            if shadow.baseline.hours is not None:
                self._refer(shadow, hour)
            one = slice(place, place + 1)
            coarse = shadow.baseline.coarse(counts[one])
            for alarm in self.bank.step(np.array([shadow.slot]), coarse, end_ns[one]):
                shadow.alarms += 1
                shadow.last_alarm_ns = alarm.end_ns
                if shadow.alarms == 1:
                    self._told.append((number, shadow.baseline.digest))

    def _refer(self, shadow: Shadow, hour: int) -> None:
        """Judge a baseline with a season against the hour of the tick to come; see `seasons`."""
        if shadow.hour == hour:
            return
        row, tolerance = np.array([shadow.slot]), np.array([shadow.tolerance])
        now = references([shadow.baseline], hour, tolerance)
        self.bank.refer(row, now.shares, now.delta)
        if shadow.hour is not None:
            before = references([shadow.baseline], shadow.hour, tolerance)
            self.bank.carry(row, before.shares)
        shadow.hour = hour

    def maybe_of(self, number: int) -> Shadow | None:
        """Return the shadow of a stream, None when it has none."""
        return self._of.get(number)

    def baselines(self) -> Iterator[tuple[int, Baseline]]:
        """List the baselines in the shadow with the numbers of their streams."""
        for number, shadow in self._of.items():
            yield number, shadow.baseline

    def take_told(self) -> list[tuple[int, str]]:
        """Return the streams whose shadow has alarmed for the first time, with its digest.

        Each is returned once; it is no part of the state.
        """
        told, self._told = self._told, []
        return told

    def state(self, keys: Mapping[int, Json]) -> State:
        """Copy all shadows; `keys` has the names of all streams in the order to write them in."""
        numbers = [number for number in keys if number in self._of]
        found = [self._of[number] for number in numbers]
        items: list[Json] = [
            {
                "key": keys[number],
                "width": len(shadow.baseline.counts),
                "baseline": [
                    shadow.baseline.phi,
                    shadow.baseline.unsteady,
                    shadow.baseline.digest,
                    shadow.baseline.noise,
                ],
                "until_ns": shadow.until_ns,
                "alarms": shadow.alarms,
                "last_alarm_ns": shadow.last_alarm_ns,
                "hour": shadow.hour,
            }
            for number, shadow in zip(numbers, found, strict=True)
        ]
        counts = [shadow.baseline.counts for shadow in found]
        slots = np.array([shadow.slot for shadow in found], dtype=np.int64)
        return {
            "items": pack_json(items),
            "counts": np.concatenate([np.zeros(0, dtype=np.int64), *counts]),
            **prefixed("bank", self.bank.state(slots)),
        }

    def resume(self, number: int, saved: "Saved") -> None:
        """Go on with the saved evidence of a shadow that has begun again."""
        shadow = self._of[number]
        shadow.alarms, shadow.last_alarm_ns = saved.alarms, saved.last_alarm_ns
        if saved.hour is not None:
            self._refer(shadow, saved.hour)
        self.bank.restore(np.array([shadow.slot]), saved.evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One shadow of a state."""

    key: Json
    counts: Int64
    described: Json
    until_ns: int
    alarms: int
    last_alarm_ns: int | None
    hour: int | None
    evidence: State  # one row

    def baseline(self, grid: Grid, hours: Mapping[str, UInt32]) -> Baseline:
        """Make the baseline again; `hours` has those of baselines with a season, by digest.

        Raises: CorruptDataError when its counts are others.
        """
        phi, unsteady, digest, noise = self.described
        by_hour = hours.get(digest)
        baseline = thawed(grid, self.counts, phi, unsteady=unsteady, noise=noise, hours=by_hour)
        if baseline.digest != digest:
            raise CorruptDataError(f"superseded baseline {digest} does not match its counts")
        return baseline


def saved(state: Mapping[str, Array]) -> Iterator[Saved]:
    """Read the shadows of a state, none of one that was written without.

    Raises: CorruptDataError when the counts do not fit the list.
    """
    if "items" not in state:
        return
    items = unpack_json(state["items"])
    ends = np.cumsum([0, *(item["width"] for item in items)])
    if ends[-1] != len(state["counts"]):
        raise CorruptDataError("the saved counts of superseded baselines do not fit their list")
    bank = part("bank", state)
    for index, item in enumerate(items):
        yield Saved(
            key=item["key"],
            counts=state["counts"][ends[index] : ends[index + 1]].astype(np.int64),
            described=item["baseline"],
            until_ns=item["until_ns"],
            alarms=item["alarms"],
            last_alarm_ns=item["last_alarm_ns"],
            hour=item["hour"],
            evidence={name: array[[index]] for name, array in bank.items()},
        )
