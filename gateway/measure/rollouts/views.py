"""What is shown of rollouts: plain, immutable copies.

Law: as `snapshot`: nothing refers to live state, what does not exist is None.
"""

from dataclasses import dataclass

from gateway.measure.rollouts.deployments import BAD, DAY_NS, DAYS, GOOD, RETRAINED
from gateway.measure.rollouts.rollout import NEVER_NS, Rollout
from gateway.measure.rollouts.rollouts import Rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendView:
    """What a rollout has spent of one SLO. Units: ratios of the period's budget; events."""

    slo: str
    allocation_ratio: float
    spent_ratio: float
    rollout_bad: int
    rollout_events: int
    control_bad: int
    control_events: int
    excess_events: float
    is_confident: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutView:
    """One rollout. `succeeded` and `failed` are devices; `devices` is how many were planned."""

    id: str
    model: str
    version: str
    previous: str
    kind: str
    state: str
    outcome: str
    start_ns: int
    end_ns: int | None
    deadline_s: int | None
    devices: int | None
    succeeded: int
    failed: int
    spends: tuple[SpendView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """How often a model was deployed and retrained, in the last 30 days up to today (UTC).

    `success_ratio` is of devices, None without any.
    """

    model: str
    succeeded: int
    failed: int
    success_ratio: float | None
    retrained: int
    versions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutsView:
    """All rollouts, oldest first, and what could not be used of what was declared."""

    rollouts: tuple[RolloutView, ...]
    models: tuple[ModelView, ...]
    refused: tuple[tuple[str, int], ...]


def rollouts_view(rollouts: Rollouts, now_ns: int) -> RolloutsView:
    """Copy everything that is shown."""
    return RolloutsView(
        rollouts=tuple(_rollout(rollouts, each) for each in rollouts.table.values()),
        models=tuple(
            _model(rollouts, model, now_ns) for model in sorted(rollouts.deployments.history)
        ),
        refused=tuple(sorted((str(reason), count) for reason, count in rollouts.refused.items())),
    )


def _rollout(rollouts: Rollouts, each: Rollout) -> RolloutView:
    start = each.start
    succeeded, failed = rollouts.deployments.counts(start.rollout)
    spends, spents = rollouts.spends_of(each)
    return RolloutView(
        id=start.rollout,
        model=start.model,
        version=start.version,
        previous=start.previous,
        kind=start.kind.value,
        state=each.state.value,
        outcome=each.outcome,
        start_ns=start.at_ns,
        end_ns=None if each.end_ns == NEVER_NS else each.end_ns,
        deadline_s=start.deadline_s,
        devices=start.devices,
        succeeded=succeeded,
        failed=failed,
        spends=tuple(
            SpendView(
                slo=slo,
                allocation_ratio=allocation,
                spent_ratio=spent,
                rollout_bad=spend.rollout_bad,
                rollout_events=spend.rollout_events,
                control_bad=spend.control_bad,
                control_events=spend.control_events,
                excess_events=spend.excess,
                is_confident=spend.is_confident,
            )
            for slo, allocation, spent, spend in zip(
                each.slos, each.allocations, spents, spends, strict=True
            )
        ),
    )


def _model(rollouts: Rollouts, model: str, now_ns: int) -> ModelView:
    history = rollouts.deployments.history[model]
    oldest = now_ns // DAY_NS - DAYS
    days = [counts for day, counts in history.days.items() if day > oldest]
    succeeded = sum(counts[GOOD] for counts in days)
    failed = sum(counts[BAD] for counts in days)
    return ModelView(
        model=model,
        succeeded=succeeded,
        failed=failed,
        success_ratio=succeeded / (succeeded + failed) if succeeded + failed else None,
        retrained=sum(counts[RETRAINED] for counts in days),
        versions=sum(day > oldest for day in history.versions.values()),
    )
