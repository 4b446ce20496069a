"""Bytes that leave, by contract: days and months of UTC, and allowances that they run against.

Law: bytes are counted when they leave, by the gateway's clock, so nothing comes late. A period of
an objective is a calendar month where its window is 28 to 31 days, and else the window itself,
counted from a Monday, so a day is a day of UTC and a week begins on Monday.

Pace = spent / (allowance x share of the period that is over). The projection is a straight line
through the period's start: at a pace above 1 the allowance runs out before the period ends.
Ticket: half of it is spent and the pace is above 1. Page: all of it is spent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.batch import AnomalyKind, Severity, Team
from gateway.contract.plan import Plan
from gateway.contract.schema import Indicator
from gateway.measure.costs.months import DAY_NS, month_of, month_start_ns
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, State, added, pack_json, union, unpack_json
from gateway.measure.trouble import Trouble

NO_MODEL: Final = ""  # of spans without a contract
DAYS_KEPT: Final = 35
MONTHS_KEPT: Final = 14
MONTH_NS_MIN: Final = 28 * DAY_NS
MONTH_NS_MAX: Final = 31 * DAY_NS
MONDAY_NS: Final = 4 * DAY_NS  # 5 January 1970
# In the beginning of a period the pace says little.
UNSURE_NS: Final = 3600 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """One bandwidth objective."""

    contract: int
    model: str
    slo: str
    allowance: int
    window_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How an allowance stands. `pace` and `exhausted_ns` are None where there is nothing yet."""

    spent: int
    start_ns: int
    end_ns: int
    pace: float | None
    exhausted_ns: int | None


def period_of(window_ns: int, now_ns: int) -> tuple[int, int]:
    """Return begin and end of the period that a time is in."""
    if MONTH_NS_MIN <= window_ns <= MONTH_NS_MAX:
        month = month_of(now_ns)
        return month_start_ns(month), month_start_ns(month + 1)
    start_ns = MONDAY_NS + (now_ns - MONDAY_NS) // window_ns * window_ns
    return start_ns, start_ns + window_ns


class Bandwidth:
    """Bytes of a plan. Shape: of days and months (contracts + 1,), the last one for no contract."""

    def __init__(self, plan: Plan) -> None:
        self.models = (*(contract.model for contract in plan.contracts), NO_MODEL)
        self.items = tuple(
            Allowance(
                contract=index,
                model=contract.model,
                slo=slo.name,
                allowance=slo.allowance,
                window_ns=round(slo.window * SECOND_NS),
            )
            for index, contract in enumerate(plan.contracts)
            for slo in contract.slos
            if slo.indicator is Indicator.BANDWIDTH and slo.allowance is not None
        )
        self.days: dict[int, Int64] = {}
        self.months: dict[int, Int64] = {}
        self.total = np.zeros(len(self.models), dtype=np.int64)
        self._starts = [0] * len(self.items)
        self._spent = [0] * len(self.items)
        self.now_ns = 0

    def spent(self, contract_bytes: Int64, now_ns: int) -> None:
        """Count bytes that leave now. Shape: (contracts + 1,)."""
        self.now_ns = max(self.now_ns, now_ns)
        if not contract_bytes.any():
            return
        counts = contract_bytes.astype(np.int64)
        self.total += counts
        for table, number, kept in (
            (self.days, self.now_ns // DAY_NS, DAYS_KEPT),
            (self.months, month_of(self.now_ns), MONTHS_KEPT),
        ):
            if number not in table:
                table[number] = np.zeros_like(self.total)
                for old in [each for each in table if each <= number - kept]:
                    del table[old]
            table[number] += counts
        for at, item in enumerate(self.items):
            start_ns, _ = period_of(item.window_ns, self.now_ns)
            if self._starts[at] != start_ns:
                self._starts[at], self._spent[at] = start_ns, 0
            self._spent[at] += int(counts[item.contract])

    def pace(self, at: int, now_ns: int) -> Pace:
        """Say how an allowance stands."""
        item = self.items[at]
        now_ns = max(now_ns, self.now_ns)
        start_ns, end_ns = period_of(item.window_ns, now_ns)
        spent = self._spent[at] if self._starts[at] == start_ns else 0
        elapsed_ns = now_ns - start_ns
        pace = exhausted_ns = None
        if elapsed_ns and item.allowance:
            pace = spent * (end_ns - start_ns) / (item.allowance * elapsed_ns)
        if spent:
            exhausted_ns = start_ns + elapsed_ns * item.allowance // spent
        return Pace(
            spent=spent, start_ns=start_ns, end_ns=end_ns, pace=pace, exhausted_ns=exhausted_ns
        )

    def troubles(self, now_ns: int) -> list[Trouble]:
        """List the allowances that are spent, or will be before their period ends."""
        found = (self._maybe_trouble(at, now_ns) for at in range(len(self.items)))
        return [trouble for trouble in found if trouble is not None]

    def _maybe_trouble(self, at: int, now_ns: int) -> Trouble | None:
        item, now = self.items[at], self.pace(at, now_ns)
        is_spent = now.spent > 0 and now.spent >= item.allowance
        runs_out = now.exhausted_ns is not None and now.exhausted_ns < now.end_ns
        if not is_spent and not (runs_out and 2 * now.spent >= item.allowance):
            return None
        elapsed_ns = max(now_ns, self.now_ns) - now.start_ns
        numbers = {
            "spent_bytes": float(now.spent),
            "allowance_bytes": float(item.allowance),
            "elapsed_ratio": elapsed_ns / (now.end_ns - now.start_ns),
            "low_confidence": float(not is_spent and elapsed_ns < UNSURE_NS),
        }
        if now.pace is not None:
            numbers["pace_ratio"] = now.pace
        if now.exhausted_ns is not None and not is_spent:
            left_ns = max(0, now.exhausted_ns - now.start_ns - elapsed_ns)
            numbers["exhausted_in_s"] = left_ns / SECOND_NS
        return Trouble(
            kind=AnomalyKind.BANDWIDTH,
            severity=Severity.PAGE if is_spent else Severity.TICKET,
            team=Team.DEVICE_OPS,
            contract=item.contract,
            model=item.model,
            version="",
            subject=item.slo,
            summary="the allowance of bytes that may leave is spent"
            if is_spent
            else "at this pace the allowance of bytes that may leave will not last",
            onset_ns=now_ns,
            numbers=numbers,
        )

    def state(self) -> State:
        """Copy all counts."""
        width = len(self.models)
        return {
            "models": pack_json(list(self.models)),
            "total": self.total.copy(),
            "days": np.array(list(self.days), dtype=np.int64),
            "day_bytes": np.array(list(self.days.values()), dtype=np.int64).reshape(-1, width),
            "months": np.array(list(self.months), dtype=np.int64),
            "month_bytes": np.array(list(self.months.values()), dtype=np.int64).reshape(-1, width),
            "slos": pack_json(
                [
                    [item.model, item.slo, start_ns]
                    for item, start_ns in zip(self.items, self._starts, strict=True)
                ]
            ),
            "spent": np.array(self._spent, dtype=np.int64),
            "clock": np.array([self.now_ns], dtype=np.int64),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put counts back by model and SLO name; those of models without a contract are let go."""
        theirs = unpack_json(state["models"])
        ours_of = {name: at for at, name in enumerate(self.models)}
        pairs = [(at, ours_of[name]) for at, name in enumerate(theirs) if name in ours_of]
        from_, to = [each[0] for each in pairs], [each[1] for each in pairs]
        self.total[to] = state["total"][from_]
        for table, numbers, counts in (
            (self.days, state["days"], state["day_bytes"]),
            (self.months, state["months"], state["month_bytes"]),
        ):
            for number, row in zip(numbers.tolist(), counts, strict=True):
                table[number] = np.zeros_like(self.total)
                table[number][to] = row[from_]
        self.now_ns = int(state["clock"][0])
        ours = {(item.model, item.slo): at for at, item in enumerate(self.items)}
        for (model, slo, start_ns), spent in zip(
            unpack_json(state["slos"]), state["spent"].tolist(), strict=True
        ):
            at = ours.get((model, slo))
            # A merged state has the periods of both; an objective with a new window begins anew.
            if at is not None and start_ns >= self._starts[at]:
                self._starts[at], self._spent[at] = start_ns, spent


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states by model, day, month and period.

    An allowance is one gateway's, so the sum of two says nothing against it.
    """
    models, where = union(unpack_json(first["models"]), unpack_json(second["models"]))
    slos, places = union(unpack_json(first["slos"]), unpack_json(second["slos"]))
    total: State = {
        "models": pack_json(models),
        "total": added(first["total"], second["total"], where, len(models)),
        "slos": pack_json(slos),
        "spent": added(first["spent"], second["spent"], places, len(slos)),
        "clock": np.maximum(first["clock"], second["clock"]),
    }
    for numbers, counts in (("days", "day_bytes"), ("months", "month_bytes")):
        joined, rows = union(first[numbers].tolist(), second[numbers].tolist())
        cells = np.zeros((len(joined), len(models)), dtype=np.int64)
        cells[: len(first[counts]), : first[counts].shape[1]] += first[counts]
        for row, each in zip(rows, second[counts], strict=True):
            cells[row, where] += each
        total[numbers] = np.array(joined, dtype=np.int64)
        total[counts] = cells
    return total
