"""What is shown of costs and bytes: plain copies, None where there is no value.

Money is a double of an exact fraction, so it is wrong by at most one part in 2^53.
"""

from dataclasses import dataclass
from fractions import Fraction

from gateway.measure.costs.bandwidth import Bandwidth
from gateway.measure.costs.costs import MICRO, Costs
from gateway.measure.costs.meters import Meters
from gateway.measure.costs.months import DAY_NS, month_name, month_of
from gateway.measure.settings import SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPartView:
    """Inferences of one version for one feature in the current month. Share of the month's cost."""

    version: str
    feature: str
    inferences: int
    cost: float
    share_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BillView:
    """Batch jobs of one version in the current month."""

    version: str
    jobs: int
    inferences: int
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthView:
    """One month of one model. `month` is like 2031-02."""

    month: str
    inferences: int
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CostView:
    """What a model costs. Units: money in `currency`; horizon_s is what the projection is from."""

    model: str
    currency: str
    per_inference: float
    budget: float | None
    spent: float
    spent_ratio: float | None
    projected: float | None
    horizon_s: float | None
    parts: tuple[CostPartView, ...]
    bills: tuple[BillView, ...]
    months: tuple[MonthView, ...]  # oldest first, the current one too


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowanceView:
    """How a bandwidth objective stands; at its pace the allowance lasts until exhausted_ns."""

    model: str
    slo: str
    window_s: float
    allowance_bytes: int
    spent_bytes: int
    start_ns: int
    end_ns: int
    pace_ratio: float | None
    exhausted_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BytesView:
    """Bytes that have left for one model; the model is empty for spans without a contract."""

    model: str
    day: int
    month: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MetersView:
    """Everything that is metered. `refused` are batch jobs by reason."""

    costs: tuple[CostView, ...]
    misdated: int
    refused: tuple[tuple[str, int], ...]
    allowances: tuple[AllowanceView, ...]
    bytes: tuple[BytesView, ...]


def meters_view(meters: Meters, now_ns: int) -> MetersView:
    """Copy what is shown."""
    costs = meters.costs
    return MetersView(
        costs=tuple(_cost_view(costs, contract, now_ns) for contract in costs.tariffs),
        misdated=costs.misdated,
        refused=tuple((reason.value, count) for reason, count in costs.refused.items()),
        allowances=_allowance_views(meters.bandwidth, now_ns),
        bytes=_bytes_views(meters.bandwidth, now_ns),
    )


def _cost_view(costs: Costs, contract: int, now_ns: int) -> CostView:
    tariff = costs.tariffs[contract]
    standing = costs.standing(contract, now_ns)
    spent = standing.spent
    maybe_budget = tariff.cost.budget_per_month
    budget = None if maybe_budget is None else Fraction(repr(maybe_budget))
    cells = costs.inferences(contract, standing.month)
    parts = []
    for group, column in zip(*(each.tolist() for each in cells.nonzero()), strict=True):
        count = int(cells[group, column])
        cost = count * tariff.unit
        parts.append(
            CostPartView(
                version=costs.groups.names[group][1],
                feature=tariff.names[column],
                inferences=count,
                cost=float(cost),
                share_ratio=float(cost / spent) if spent else None,
            )
        )
    months = sorted({*costs.counts, *(month for month, of, _ in costs.sums if of == contract)})
    return CostView(
        model=costs.models[contract],
        currency=tariff.cost.currency,
        per_inference=tariff.cost.per_inference,
        budget=maybe_budget,
        spent=float(spent),
        spent_ratio=float(spent / budget) if budget else None,
        projected=None if standing.projected is None else float(standing.projected),
        horizon_s=None if standing.horizon_h is None else standing.horizon_h * 3600.0,
        parts=tuple(parts),
        bills=tuple(
            BillView(
                version=version,
                jobs=each.jobs,
                inferences=each.inferences,
                cost=float(Fraction(each.micros, MICRO)),
            )
            for (month, of, version), each in costs.sums.items()
            if (month, of) == (standing.month, contract)
        ),
        months=tuple(
            MonthView(
                month=month_name(month),
                inferences=int(costs.inferences(contract, month).sum()),
                cost=float(costs.spent(contract, month)),
            )
            for month in months
        ),
    )


def _allowance_views(bandwidth: Bandwidth, now_ns: int) -> tuple[AllowanceView, ...]:
    found = []
    for at, item in enumerate(bandwidth.items):
        pace = bandwidth.pace(at, now_ns)
        found.append(
            AllowanceView(
                model=item.model,
                slo=item.slo,
                window_s=item.window_ns / SECOND_NS,
                allowance_bytes=item.allowance,
                spent_bytes=pace.spent,
                start_ns=pace.start_ns,
                end_ns=pace.end_ns,
                pace_ratio=pace.pace,
                exhausted_ns=pace.exhausted_ns,
            )
        )
    return tuple(found)


def _bytes_views(bandwidth: Bandwidth, now_ns: int) -> tuple[BytesView, ...]:
    now_ns = max(now_ns, bandwidth.now_ns)
    day = bandwidth.days.get(now_ns // DAY_NS)
    month = bandwidth.months.get(month_of(now_ns))
    return tuple(
        BytesView(
            model=model,
            day=0 if day is None else int(day[at]),
            month=0 if month is None else int(month[at]),
            total=int(bandwidth.total[at]),
        )
        for at, model in enumerate(bandwidth.models)
    )
