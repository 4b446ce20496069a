"""What is shown of devices, rollouts, labels, estimates, meters: copies, None for no value."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.measure.costs.views import MetersView, meters_view
from gateway.measure.devices.causes import CausesView
from gateway.measure.devices.freshness import FreshnessView
from gateway.measure.devices.health import LoadsView
from gateway.measure.devices.hosts import HostView
from gateway.measure.estimates.views import EstimateView, estimate_views
from gateway.measure.labels.views import LabelsView, labels_view
from gateway.measure.operations import Operations
from gateway.measure.rollouts.views import RolloutsView, rollouts_view


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationsView:
    """`violations` counts by model since the beginning, `latched` are models with an open page.

    `unusable` counts declarations that could not be read, by reason.
    """

    freshness: tuple[FreshnessView, ...]
    hosts: tuple[HostView, ...]
    loads: tuple[LoadsView, ...]
    causes: tuple[CausesView, ...]
    violations: Mapping[str, int]
    latched: tuple[str, ...]
    rollouts: RolloutsView
    labels: LabelsView
    estimates: tuple[EstimateView, ...]
    meters: MetersView
    unusable: Mapping[str, int]


def operations_view(operations: Operations, now_ns: int) -> OperationsView:
    """Copy everything that is shown."""
    health = operations.health
    return OperationsView(
        freshness=operations.freshness.views(now_ns),
        hosts=operations.devices.hosts.views(operations.devices.names, now_ns),
        loads=health.loads(),
        causes=operations.causes.views(),
        violations=dict(health.integrity.violations),
        latched=health.integrity.latched,
        rollouts=rollouts_view(operations.rollouts, now_ns),
        labels=labels_view(operations.labels),
        estimates=estimate_views(operations.estimates),
        meters=meters_view(operations.meters, now_ns),
        unusable=dict(operations.unusable),
    )
