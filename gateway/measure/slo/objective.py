"""The SLOs of a plan, and which inferences are bad for them.

Law: an inference is an event of every SLO of its contract that is about inferences: it is bad for
success when it failed, for latency when it took longer than the threshold or its duration is none,
for cold starts when it had to load its model. Anything else is good.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gateway.contract.plan import Plan
from gateway.contract.schema import BurnWindow, Indicator, Slo
from gateway.contract.slo import budget_of
from gateway.measure.settings import SECOND_NS
from gateway.measure.slo.burn import pairs_of, shown_windows_s
from gateway.measure.state import Int64
from gateway.tables import Bool

NEVER: Final = (1 << 63) - 1
# Indicators whose events are inferences.
BY_INFERENCE: Final = (Indicator.SUCCESS, Indicator.LATENCY, Indicator.COLD_START)


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

    @property
    def threshold_ns(self) -> int:
        """Return the longest good duration."""
        return NEVER if self.slo.threshold is None else round(self.slo.threshold * SECOND_NS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """At most one SLO of each contract, of one indicator.

    Shape: slo, threshold_ns (contracts,); slo is the count of SLOs where a contract has none.
    """

    indicator: Indicator
    slo: Int64
    threshold_ns: Int64


def objectives_of(plan: Plan) -> tuple[Objective, ...]:
    """List the SLOs of all contracts, in the order of the plan."""
    return tuple(
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


def by_indicator(
    items: tuple[Objective, ...],
) -> Mapping[tuple[int, Indicator], tuple[int, ...]]:
    """List the SLOs of each contract and indicator."""
    found: dict[tuple[int, Indicator], tuple[int, ...]] = {}
    for index, item in enumerate(items):
        key = (item.contract, item.slo.indicator)
        found[key] = (*found.get(key, ()), index)
    return found


def lanes_of(items: tuple[Objective, ...], contracts: int) -> tuple[Lane, ...]:
    """Arrange the SLOs that are about inferences, so that each contract has at most one a lane."""
    found = by_indicator(items)
    lanes = []
    for indicator in BY_INFERENCE:
        per = [found.get((contract, indicator), ()) for contract in range(contracts)]
        for rank in range(max((len(each) for each in per), default=0)):
            slo = np.full(contracts, len(items), dtype=np.int64)
            threshold_ns = np.full(contracts, NEVER, dtype=np.int64)
            for contract, indices in enumerate(per):
                if rank < len(indices):
                    slo[contract] = indices[rank]
                    threshold_ns[contract] = items[indices[rank]].threshold_ns
            lanes.append(Lane(indicator=indicator, slo=slo, threshold_ns=threshold_ns))
    return tuple(lanes)


def bad_in(
    lane: Lane,
    contract: Int64,
    failed: Bool,
    duration_ns: Int64,
    cold: Bool | None,
    invalid: Bool | None,
) -> Bool:
    """Say which inferences are bad for the SLO that their contract has in a lane."""
    if lane.indicator is Indicator.SUCCESS:
        return failed
    if lane.indicator is Indicator.COLD_START:
        return np.zeros(len(failed), dtype=np.bool_) if cold is None else cold
    slow: Bool = duration_ns > lane.threshold_ns[contract]
    return slow if invalid is None else slow | invalid
