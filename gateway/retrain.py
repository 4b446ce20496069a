"""The retrain trigger of a site: its hooks, and where their calls are kept.

Law: calls are read and written in the storage thread, in the database of the anomalies.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from gateway.api import sources as api
from gateway.batch import AnomalyId
from gateway.config import SiteConfig
from gateway.forward import calls
from gateway.forward.calls import Call, CallBook, CallState, Key
from gateway.forward.hooks import load_hooks
from gateway.forward.retrain import RetrainSender
from gateway.rooms import Rooms

log = logging.getLogger(__name__)


def make_retrain(
    config: SiteConfig,
    rooms: Rooms,
    in_storage: Callable[[Callable[[], Any]], Awaitable[Any]],
    rng: random.Random,
) -> RetrainSender:
    """Make the sender, which knows the calls of the last run and the anomalies that are open.

    Raises: InvalidConfigError when a key file cannot be used.
    """

    async def store(changed: Sequence[Call], forgotten: Sequence[Key]) -> None:
        def work() -> None:
            with rooms.checkpoint.transaction() as connection:
                calls.write(connection, changed, forgotten)

        await in_storage(work)

    hooks = load_hooks(config)
    known = {contract.model for contract in rooms.plan.contracts}
    for hook in hooks:
        for model in sorted(hook.models - known):
            log.warning("retrain, no contract endpoint=%s model=%s", hook.endpoint, model)
    sender = RetrainSender(hooks, rooms.calls, site=config.site.id, store=store, rng=rng)
    sender.take(rooms.book.unresolved())
    return sender


def retrain_samples(book: CallBook) -> Iterator[api.Sample]:
    """Give the calls as metrics."""
    yield api.Sample(name="weir_retrain_waiting", value=len(book.waiting()))
    for state in CallState:
        if state is not CallState.WAITING:
            yield api.Sample(
                name="weir_retrain_calls_total",
                labels={"state": state.value},
                value=book.totals[state],
            )


def retrain_calls(book: CallBook, anomaly_id: AnomalyId) -> tuple[api.RetrainCall, ...]:
    """Show the calls of one anomaly."""
    return tuple(
        api.RetrainCall(
            endpoint=call.endpoint,
            state=call.state.value,
            attempts=call.attempts,
            changed_ns=call.changed_ns,
            error=call.error,
        )
        for call in book.of(anomaly_id)
    )
