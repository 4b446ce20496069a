"""Rollouts and labels as the API sees them: what is known, and the way in for what is declared.

Law: a declaration goes through the same account, group commit and journal as a device's request,
under an identity that no device can have; a success means that it is durable.
"""

import logging
from collections import Counter
from collections.abc import Sequence

from gateway.api import declared as api
from gateway.batch import API_IDENTITY, Signal, Transport
from gateway.errors import InvalidQueryError, WeirError
from gateway.measure.rollouts.views import RolloutView, rollouts_view
from gateway.otlp.events import start_notice
from gateway.receive.intake import Intake
from gateway.rooms import Rooms

log = logging.getLogger(__name__)


class Declarations:
    """Rollouts of this site; see `gateway.api.declared`."""

    def __init__(self, rooms: Rooms, intake: Intake) -> None:
        self._rooms = rooms
        self._intake = intake

    def models(self) -> Sequence[str]:
        """List the names under which models may be declared."""
        return tuple(self._rooms.stages.measure.rollouts.contract_of)

    def unknown(self, devices: Sequence[str]) -> Sequence[str]:
        """List the names that no device has."""
        stages = self._rooms.stages
        with stages.lock:
            known = frozenset(stages.measure.devices.names)
        return tuple(each for each in devices if each not in known)

    def rollouts(self) -> api.RolloutsStatus:
        """Show all rollouts, the newest first."""
        stages = self._rooms.stages
        with stages.lock:
            view = rollouts_view(stages.measure.rollouts, stages.measure.now_ns)
            refused: Counter[str] = Counter(stages.measure.operations.unusable)
        refused.update(dict(view.refused))
        newest = sorted(view.rollouts, key=lambda each: each.start_ns, reverse=True)
        return api.RolloutsStatus(
            rollouts=tuple(_rollout(each) for each in newest),
            models=tuple(
                api.ModelRollouts(
                    model=each.model,
                    succeeded=each.succeeded,
                    failed=each.failed,
                    success_ratio=each.success_ratio,
                    retrained=each.retrained,
                    versions=each.versions,
                )
                for each in view.models
            ),
            refused=refused,
        )

    async def announce(self, now_ns: int) -> None:
        """Note in the journal that the gateway listens again, if it did not for a while.

        Nobody could be heard meanwhile, which is no silence of theirs.
        """
        if not self._rooms.stages.measure.was_away(now_ns):
            return
        try:
            await self.declare(start_notice())
        except WeirError as error:
            log.warning("start not noted, devices may seem silent error=%s", error)

    async def declare(self, body: bytes) -> None:
        """Take a log request in, and return when it is durable.

        Raises: OverloadedError, QuotaExceededError, JournalUnavailableError, InvalidQueryError.
        """
        with self._intake.admission.enter(API_IDENTITY, len(body)) as hold:
            hold.grow(len(body))
            receipt = await self._intake.accept(
                Signal.LOGS, body, Transport.HTTP, API_IDENTITY, len(body), hold
            )
        if receipt.rejected:
            raise InvalidQueryError(f"{receipt.rejected} records were not taken: {receipt.reason}")


def _rollout(view: RolloutView) -> api.RolloutStatus:
    return api.RolloutStatus(
        id=view.id,
        model=view.model,
        version=view.version,
        previous=view.previous,
        kind=view.kind,
        state=view.state,
        outcome=view.outcome,
        start_ns=view.start_ns,
        end_ns=view.end_ns,
        deadline_s=view.deadline_s,
        devices=view.devices,
        succeeded=view.succeeded,
        failed=view.failed,
        spends=tuple(
            api.RolloutSpend(
                slo=each.slo,
                allocation_ratio=each.allocation_ratio,
                spent_ratio=each.spent_ratio,
                rollout_bad=each.rollout_bad,
                rollout_events=each.rollout_events,
                control_bad=each.control_bad,
                control_events=each.control_events,
                excess_events=each.excess_events,
                confident=each.is_confident,
            )
            for each in view.spends
        ),
    )
