"""What inferences cost: integer counts by version, feature and month, and the bills of batch jobs.

Law: inferences are counted, never money; cost = count x per_inference is computed as an exact
fraction of what the contract says in decimal, when it is looked at. Bills are whole millionths of
the currency. An inference counts in the month of its event time; one that is dated outside the
months that are kept counts in the month in which it came, and as misdated.

Projection of a month with a budget: spent so far + rate x seconds that are left. The rate is that
of the 168 whole hours before this one, inferences and bills, once so many were observed; before
that, of the last six whole hours, inferences alone, because one bill says nothing of the next six
hours; with less there is no projection.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final, Protocol

import numpy as np

from gateway.batch import AnomalyKind, Batch, Severity, Team
from gateway.contract.plan import Plan
from gateway.contract.schema import Cost
from gateway.measure.costs.months import month_name, month_of, month_start_ns, months_of
from gateway.measure.groups import Groups
from gateway.measure.series import OTHER as OTHER_VERSION
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Array, Int64, grown
from gateway.measure.trouble import Trouble
from gateway.otlp.columns import texts_at
from gateway.otlp.kernel import Literals

HOUR_NS: Final = 3600 * SECOND_NS
# The month that may begin before a clock that is ahead comes down, this one, and twelve before it.
MONTHS_AHEAD: Final = 1
MONTHS_BACK: Final = 12
HORIZONS_H: Final = (168, 6)
AHEAD_H: Final = 1
HOURS: Final = HORIZONS_H[0] + 1 + AHEAD_H
MICRO: Final = 1_000_000
# Jobs that are remembered, so that one that is told twice is billed once.
JOBS_MAX: Final = 4096
# Models and versions that jobs name; further versions count together.
JOB_VERSIONS_MAX: Final = 1024
EARLY_SHARE: Final = Fraction(8, 10)
OTHER_FEATURE: Final = "other"
NEVER_NS: Final = (1 << 63) - 1


class Refusal(StrEnum):
    """Why a batch job was not billed, or not again."""

    NO_COST = "no_cost"  # no contract with a cost is of its model
    OTHER_CURRENCY = "other_currency"
    INVALID = "invalid"  # a cost or count that is negative or not finite
    DUPLICATE = "duplicate"  # told before, the same
    CHANGED = "changed"  # told before, otherwise; the newest counts


class Job(Protocol):
    """A batch job as it was declared. Units: cost in `currency`, at_ns Unix nanoseconds."""

    @property
    def at_ns(self) -> int: ...
    @property
    def job(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def cost(self) -> float: ...
    @property
    def currency(self) -> str: ...
    @property
    def inferences(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What was billed for a job. Units: micros millionths of the currency."""

    contract: int
    version: str
    month: int
    hour: int
    micros: int
    inferences: int

    @property
    def amounts(self) -> tuple[int, int, int, int]:
        """Month, hour, money and inferences."""
        return self.month, self.hour, self.micros, self.inferences


@dataclass(slots=True, kw_only=True)
class Sum:
    """Bills of one version in one month."""

    micros: int = 0
    inferences: int = 0
    jobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A month with what it costs. Units: money in the contract's currency, horizon hours."""

    month: int
    spent: Fraction
    projected: Fraction | None
    horizon_h: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """The cost of one contract, ready to count. `codes` are places among its features."""

    cost: Cost
    unit: Fraction
    slot: int | None
    literals: Literals

    @property
    def names(self) -> tuple[str, ...]:
        """What each column of counts is: the rest first."""
        return (OTHER_FEATURE, *self.cost.features)


class Costs:
    """Counts and bills of a plan. Shape: counts by month (groups, features), hours (HOURS, c)."""

    def __init__(self, plan: Plan) -> None:
        self.models = tuple(contract.model for contract in plan.contracts)
        self.tariffs: dict[int, Tariff] = {
            index: _tariff(plan, contract.cost)
            for index, contract in enumerate(plan.contracts)
            if contract.cost is not None
        }
        self._is_counted = np.zeros(len(self.models), dtype=np.bool_)
        self._is_counted[list(self.tariffs)] = True
        self.width = max((len(each.names) for each in self.tariffs.values()), default=1)
        self.groups = Groups(self.models)
        self.counts: dict[int, Int64] = {}
        self.hours = np.zeros((HOURS, len(self.models)), dtype=np.int64)
        self.head = 0
        self.month = 0
        self._month_ns = self._next_month_ns = 0  # where the month begins and ends
        self.now_ns = 0
        # When the first inference of each contract was counted.
        self.first_ns = np.full(len(self.models), NEVER_NS, dtype=np.int64)
        self.misdated = 0
        self.bills: dict[str, Bill] = {}
        self.sums: dict[tuple[int, int, str], Sum] = {}
        self._job_versions: set[tuple[int, str]] = set()  # of the sums
        self.billed_hours: dict[tuple[int, int], int] = {}
        self.refused = dict.fromkeys(Refusal, 0)

    def observe(
        self,
        batch: Batch,
        rows: Int64 | None,
        *,
        contract: Int64,
        series: Int64,
        names: Sequence[tuple[str, str]],
        event_ns: Int64,
    ) -> None:
        """Count the inferences of a batch. Shape: all (rows,); rows None for all spans."""
        self.advance(batch.arrival_ns)
        if not self.tariffs:
            return
        if len(self.tariffs) < len(self.models):
            some = np.flatnonzero(self._is_counted[contract])
            if len(some) < len(contract):
                rows = some if rows is None else rows[some]
                contract, series, event_ns = contract[some], series[some], event_ns[some]
        feature = self._features(batch, rows, contract)
        self.count(contract=contract, series=series, names=names, event_ns=event_ns, code=feature)

    def _features(self, batch: Batch, rows: Int64 | None, contract: Int64) -> Array | None:
        """Read what inferences were for: places among the features, 0 for all others."""
        asked = {index: each for index, each in self.tariffs.items() if each.slot is not None}
        if not asked:
            return None
        if len(self.models) == 1:
            (only,) = asked.values()
            return _feature_codes(batch, rows, only)
        codes = np.zeros(len(contract), dtype=np.int64)
        for index, tariff in asked.items():
            mine = np.flatnonzero(contract == index)
            if len(mine):
                codes[mine] = _feature_codes(batch, mine if rows is None else rows[mine], tariff)
        return codes

    def count(
        self,
        *,
        contract: Int64,
        series: Int64,
        names: Sequence[tuple[str, str]],
        event_ns: Int64,
        code: Array | None,
    ) -> None:
        """Count inferences of contracts with a cost at the time of the last `advance`.

        Shape: all (rows,), names (series,); code None where none has features.
        """
        if len(contract) == 0:
            return
        if np.count_nonzero(self.first_ns[contract] == NEVER_NS):
            self.first_ns[contract] = np.minimum(self.first_ns[contract], self.now_ns)
        place = self.groups.find(contract, series, names) * self.width
        if code is not None:
            place = place + code
        low, high = int(event_ns.min()), int(event_ns.max())
        if self._month_ns <= low and high < self._next_month_ns:
            np.add.at(self._cells(self.month), place, 1)
        else:
            month = months_of(event_ns)
            is_off = (month < self.month - MONTHS_BACK) | (month > self.month + MONTHS_AHEAD)
            self.misdated += int(np.count_nonzero(is_off))
            month[is_off] = self.month
            for each in np.unique(month).tolist():
                np.add.at(self._cells(each), place[month == each], 1)
        if low // HOUR_NS == high // HOUR_NS:
            hour_of_all = low // HOUR_NS
            if 0 <= self.head + AHEAD_H - hour_of_all < HOURS:
                counts = np.bincount(contract, minlength=len(self.models))
                self.hours[hour_of_all % HOURS] += counts
        else:
            hour = event_ns // HOUR_NS
            held = self._held(hour)
            np.add.at(self.hours, (hour[held] % HOURS, contract[held]), 1)

    def _held(self, hour: Array) -> Array:
        newest = self.head + AHEAD_H
        held: Array = (hour <= newest) & (hour > newest - HOURS)
        return held

    def _cells(self, month: int) -> Int64:
        """Return the flat counts of a month, with room for all groups."""
        found = self.counts.get(month)
        if found is None or len(found) < len(self.groups):
            found = np.zeros((0, self.width), dtype=np.int64) if found is None else found
            self.counts[month] = found = grown(found, len(self.groups))
        return found.reshape(-1)

    def advance(self, now_ns: int) -> None:
        """Take the gateway's clock into account."""
        if now_ns <= self.now_ns:
            return
        self.now_ns = now_ns
        steps = now_ns // HOUR_NS - self.head
        if steps > 0:
            self.head += steps
            fresh = self.head + AHEAD_H - np.arange(min(steps, HOURS))
            self.hours[fresh % HOURS] = 0
            oldest = self.head - HORIZONS_H[0]
            for key in [key for key in self.billed_hours if key[0] < oldest]:
                del self.billed_hours[key]
        if now_ns >= self._next_month_ns:
            self.set_month(month_of(now_ns))

    def set_month(self, month: int) -> None:
        """Go to a month and forget those that are too old."""
        self.month = month
        self._month_ns, self._next_month_ns = month_start_ns(month), month_start_ns(month + 1)
        for each in [each for each in self.counts if each < month - MONTHS_BACK]:
            del self.counts[each]
        for key in [key for key in self.sums if key[0] < month - MONTHS_BACK]:
            del self.sums[key]
        self._job_versions = {(contract, version) for _, contract, version in self.sums}

    def bill(self, job: Job, arrival_ns: int) -> None:
        """Bill a batch job."""
        self.advance(arrival_ns)
        contract = self.models.index(job.model) if job.model in self.models else -1
        tariff = self.tariffs.get(contract)
        if tariff is None:
            self.refused[Refusal.NO_COST] += 1
        elif not (math.isfinite(job.cost) and job.cost >= 0 and job.inferences >= 0):
            self.refused[Refusal.INVALID] += 1
        elif job.cost > 0 and job.currency != tariff.cost.currency:
            self.refused[Refusal.OTHER_CURRENCY] += 1
        else:
            self._book(job.job, self._bill(job, contract))

    def _bill(self, job: Job, contract: int) -> Bill:
        month = month_of(job.at_ns)
        at_ns = job.at_ns
        if not self.month - MONTHS_BACK <= month <= self.month + MONTHS_AHEAD:
            self.misdated += 1
            month, at_ns = self.month, self.now_ns
        is_known = (contract, job.version) in self._job_versions
        is_full = len(self._job_versions) >= JOB_VERSIONS_MAX and not is_known
        return Bill(
            contract=contract,
            version=OTHER_VERSION if is_full else job.version,
            month=month,
            hour=at_ns // HOUR_NS,
            micros=round(Fraction(job.cost) * MICRO),
            inferences=job.inferences,
        )

    def _book(self, name: str, bill: Bill) -> None:
        before = self.bills.pop(name, None)
        if before is not None:
            if before == bill:
                self.refused[Refusal.DUPLICATE] += 1
                self.bills[name] = before
                return
            self.refused[Refusal.CHANGED] += 1
            self._add(before, -1)
        elif len(self.bills) >= JOBS_MAX:
            del self.bills[next(iter(self.bills))]
        self._add(bill, 1)
        self.bills[name] = bill

    def _add(self, bill: Bill, by: int) -> None:
        if bill.month >= self.month - MONTHS_BACK:
            total = self.sums.setdefault((bill.month, bill.contract, bill.version), Sum())
            self._job_versions.add((bill.contract, bill.version))
            total.micros += by * bill.micros
            total.inferences += by * bill.inferences
            total.jobs += by
        if bill.hour >= self.head - HORIZONS_H[0]:
            key = (bill.hour, bill.contract)
            self.billed_hours[key] = self.billed_hours.get(key, 0) + by * bill.micros

    def inferences(self, contract: int, month: int) -> Int64:
        """Return the counted inferences of a contract. Shape: (groups, features)."""
        found = self.counts.get(month)
        if found is None:
            return np.zeros((0, self.width), dtype=np.int64)
        known = min(len(found), len(self.groups))
        mine: Int64 = found[:known].copy()
        mine[self.groups.contract[:known] != contract] = 0
        return mine

    def spent(self, contract: int, month: int) -> Fraction:
        """Return what a month of a contract costs so far."""
        count = int(self.inferences(contract, month).sum())
        billed = sum(
            each.micros for (at, of, _), each in self.sums.items() if (at, of) == (month, contract)
        )
        return count * self.tariffs[contract].unit + Fraction(billed, MICRO)

    def standing(self, contract: int, now_ns: int) -> Standing:
        """Say where the month of this time stands; to look at it changes nothing."""
        month = month_of(now_ns)
        spent = self.spent(contract, month)
        head = now_ns // HOUR_NS
        for hours in HORIZONS_H:
            if (head - hours) * HOUR_NS < self.first_ns[contract]:
                continue
            slots = head - 1 - np.arange(hours)
            held = self._held(slots)
            count = int(self.hours[slots[held] % HOURS, contract].sum())
            money = count * self.tariffs[contract].unit
            if hours == HORIZONS_H[0]:
                billed = sum(
                    micros
                    for (hour, of), micros in self.billed_hours.items()
                    if of == contract and head - hours <= hour < head
                )
                money += Fraction(billed, MICRO)
            left = Fraction(month_start_ns(month + 1) - now_ns, hours * HOUR_NS)
            return Standing(
                month=month, spent=spent, projected=spent + money * left, horizon_h=hours
            )
        return Standing(month=month, spent=spent, projected=None, horizon_h=None)

    def troubles(self, now_ns: int) -> list[Trouble]:
        """List the budgets that are nearly spent, or will be before the month ends."""
        return [
            trouble
            for contract, tariff in self.tariffs.items()
            if tariff.cost.budget_per_month is not None
            and (trouble := self._maybe_trouble(contract, tariff.cost, now_ns)) is not None
        ]

    def _maybe_trouble(self, contract: int, cost: Cost, now_ns: int) -> Trouble | None:
        now = self.standing(contract, now_ns)
        budget = Fraction(repr(cost.budget_per_month))
        is_early = now.spent > 0 and now.spent >= EARLY_SHARE * budget
        will_pass = now.projected is not None and now.projected > budget
        if not (is_early or will_pass):
            return None
        numbers = {"spent": float(now.spent), "budget": float(budget)}
        if now.projected is not None and now.horizon_h is not None:
            numbers |= {"projected": float(now.projected), "horizon_s": now.horizon_h * 3600.0}
        if budget:
            numbers["spent_ratio"] = float(now.spent / budget)
        if now.spent >= budget and is_early:
            summary = "the month's budget is spent"
        elif is_early:
            summary = "four fifths of the month's budget are spent"
        else:
            summary = "at this rate the month's budget will not last"
        return Trouble(
            kind=AnomalyKind.COST,
            severity=Severity.TICKET,
            team=Team.ML_ENGINEERING,
            contract=contract,
            model=self.models[contract],
            version="",
            subject=f"budget {month_name(now.month)}",
            summary=summary,
            onset_ns=now_ns,
            numbers=numbers,
        )


def _tariff(plan: Plan, cost: Cost) -> Tariff:
    return Tariff(
        cost=cost,
        unit=Fraction(repr(cost.per_inference)),
        slot=None if cost.feature is None else plan.slot_of[cost.feature],
        literals=Literals([feature.encode() for feature in cost.features]),
    )


def _feature_codes(batch: Batch, rows: Int64 | None, tariff: Tariff) -> Int64:
    if tariff.slot is None:
        raise ValueError("the contract names no feature")  # only those that do are asked
    at = batch.slots[tariff.slot] if rows is None else batch.slots[tariff.slot][rows]
    offset, length, present = texts_at(batch.span_attributes, at)
    codes = tariff.literals.codes(batch.arena, offset, length).astype(np.int64)
    codes[~present] = -1
    return codes + 1
