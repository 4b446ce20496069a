"""Meters of what a site spends: money for inferences and jobs, bytes that leave.

Law: one place for the parts that count against a budget or an allowance; each part keeps its own
law (see `costs` and `bandwidth`). Cost: nothing for inferences of contracts without a cost.
"""

from collections.abc import Mapping, Sequence

from gateway.batch import Batch
from gateway.contract.plan import Plan
from gateway.measure.costs import bandwidth
from gateway.measure.costs import state as coststate
from gateway.measure.costs.bandwidth import Bandwidth
from gateway.measure.costs.costs import Costs, Job
from gateway.measure.state import Array, Int64, State, part, prefixed
from gateway.measure.trouble import Trouble


class Meters:
    """All meters of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.costs = Costs(plan)
        self.bandwidth = Bandwidth(plan)

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
        self.costs.observe(
            batch, rows, contract=contract, series=series, names=names, event_ns=event_ns
        )

    def bill(self, jobs: Sequence[Job], arrival_ns: int) -> None:
        """Bill batch jobs."""
        for job in jobs:
            self.costs.bill(job, arrival_ns)

    def spent(self, contract_bytes: Int64, now_ns: int) -> None:
        """Count bytes that leave. Shape: (contracts + 1,), the last one for no contract."""
        self.bandwidth.spent(contract_bytes, now_ns)

    def troubles(self, now_ns: int) -> list[Trouble]:
        """List budgets and allowances that are spent, or will be too early."""
        return [*self.costs.troubles(now_ns), *self.bandwidth.troubles(now_ns)]

    def state(self) -> State:
        """Copy everything that a restart needs."""
        return {
            **prefixed("costs", coststate.save(self.costs)),
            **prefixed("bandwidth", self.bandwidth.state()),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put a state back into a fresh instance; the plan may have changed."""
        coststate.load(self.costs, part("costs", state))
        self.bandwidth.restore(part("bandwidth", state))


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Add two states by name."""
    return {
        **prefixed("costs", coststate.merge(part("costs", first), part("costs", second))),
        **prefixed(
            "bandwidth", bandwidth.merge(part("bandwidth", first), part("bandwidth", second))
        ),
    }
