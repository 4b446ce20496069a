"""Contracts with costs, what is shown of them, and inferences and jobs that cost."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from gateway.contract.plan import Plan
from gateway.contract.schema import Cost, Role, SignalType
from gateway.contract.schema import Signal as ContractSignal
from gateway.measure.costs.costs import (
    Costs,
)
from gateway.measure.costs.meters import Meters
from gateway.measure.costs.months import DAY_NS
from gateway.measure.costs.views import CostView, meters_view
from tests.unit.measure import build
from tests.unit.measure.build import SECOND_NS

FEATURES: Final = ("search", "audit")
KEY: Final = "app.feature"
NAMES: Final = (("a", "1"), ("a", "2"), ("b", "1"), ("free", "1"), ("~other", "~other"))
TEN_YEARS_NS: Final = 3653 * DAY_NS


def at(*when: int) -> int:
    """An instant of UTC in nanoseconds."""
    return int(datetime(*when, tzinfo=UTC).timestamp()) * SECOND_NS  # type: ignore[misc,arg-type]


def cost(**changes: Any) -> Cost:
    """What inferences cost in the tests."""
    fields: dict[str, Any] = {"currency": "EUR", "per_inference": 0.1, "budget_per_month": 100.0}
    return Cost(**{**fields, **changes})


def costly(model: str, the_cost: Cost | None) -> Any:
    """A contract with a cost, whose feature has a slot."""
    signal = ContractSignal(name="feature", attribute=KEY, type=SignalType.STRING, role=Role.TEXT)
    return build.contract(model, cost=the_cost, slos=(), signals={"feature": signal})


def cost_plan() -> Plan:
    """One model with features, one with a cost alone, and one without."""
    return build.plan(
        costly("a", cost(feature=KEY, features=FEATURES)),
        costly("b", cost(per_inference=0.25, budget_per_month=None, currency="USD")),
        costly("free", None),
    )


INDEX: Final = {contract.model: index for index, contract in enumerate(cost_plan().contracts)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A batch job as it is declared."""

    at_ns: int
    job: str = "nightly"
    model: str = "a"
    version: str = "1"
    cost: float = 1.5
    currency: str = "EUR"
    inferences: int = 10


def shown(costs: Costs, model: str = "a", now_ns: int | None = None) -> CostView:
    """What is shown of a model."""
    meters = Meters(cost_plan())
    meters.costs = costs
    views = meters_view(meters, costs.now_ns if now_ns is None else now_ns).costs
    return next(view for view in views if view.model == model)


def infer(costs: Costs, event_ns: int, now_ns: int, count: int = 1, series: int = 0) -> None:
    """Let some inferences come."""
    costs.advance(now_ns)
    costs.count(
        contract=np.full(count, INDEX[NAMES[series][0]]),
        series=np.full(count, series),
        names=NAMES,
        event_ns=np.full(count, event_ns),
        code=None,
    )


def recounted(costs: Costs) -> dict[Any, int]:
    """All counts by month, model, version and feature."""
    return {
        (month, *costs.groups.names[group], column): int(cells[group, column])
        for month, cells in costs.counts.items()
        for group, column in zip(*(each.tolist() for each in cells.nonzero()), strict=True)
    }
