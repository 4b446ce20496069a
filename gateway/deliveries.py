"""What leaves the site as the API sees it: accounts, destinations and dead letters.

Law: dead letters are read and changed in the storage thread. One request replays or drops at most
LETTERS_PER_REQUEST_MAX letters in one transaction, so that the thread stays free for acknowledged
data; the answer says how many are left.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

from gateway.api import outbox as api
from gateway.api.sources import Sample
from gateway.forward.records import Cause, Done, Selection
from gateway.forward.sender import ForwardStatus
from gateway.ledger import UNDELIVERABLE, Balance, LedgerSnapshot
from gateway.rooms import Rooms

LETTERS_PER_REQUEST_MAX: Final = 200

InStorage = Callable[[Callable[[], Any]], Awaitable[Any]]


class Letters:
    """The API's view of the dead letters."""

    def __init__(self, rooms: Rooms, in_storage: InStorage, wake: Callable[[], None]) -> None:
        self._rooms = rooms
        self._in_storage = in_storage
        self._wake = wake

    async def list(
        self, chosen: api.LetterSelection, limit: int, offset: int
    ) -> api.DeadLetterPage:
        """List selected letters, the newest first."""
        rooms, selection = self._rooms, _selection(chosen)

        def work() -> api.DeadLetterPage:
            with rooms.checkpoint.transaction() as connection:
                found = rooms.outbox.dead_letters(connection, selection, limit, offset)
            return api.DeadLetterPage(
                items=tuple(
                    api.DeadLetter(
                        id=each.id,
                        destination=each.destination,
                        signal=each.signal,
                        items=each.items,
                        cause=each.cause,
                        reason=each.reason,
                        time_ns=each.time_ns,
                        first_ns=each.first_ns,
                        last_ns=each.last_ns,
                        bytes=each.body_bytes,
                        replayable=each.body_bytes > 0
                        and each.destination in rooms.outbox.destinations,
                    )
                    for each in found.letters
                ),
                total=found.total,
                total_items=found.total_items,
                total_bytes=found.total_bytes,
                newest=found.newest,
                forgotten_items=found.forgotten_items,
            )

        page: api.DeadLetterPage = await self._in_storage(work)
        return page

    async def replay(self, chosen: api.LetterSelection) -> api.LettersDone:
        """Make the oldest selected letters pending again."""
        done = await self._change(self._rooms.outbox.replay, chosen)
        if done.letters:
            self._wake()
        return done

    async def drop(self, chosen: api.LetterSelection) -> api.LettersDone:
        """Delete the oldest selected letters for good."""
        return await self._change(self._rooms.outbox.drop, chosen)

    async def _change(
        self, change: Callable[[Any, Selection, int], Done], chosen: api.LetterSelection
    ) -> api.LettersDone:
        rooms, selection = self._rooms, _selection(chosen)

        def work() -> Done:
            with rooms.checkpoint.transaction() as connection:
                done = change(connection, selection, LETTERS_PER_REQUEST_MAX)
                deliveries = rooms.outbox.deliveries(connection)
            rooms.ledger.flushed({}, deliveries)
            return done

        done: Done = await self._in_storage(work)
        return api.LettersDone(
            letters=done.letters, items=done.items, left=done.left, kept=done.kept
        )


def _selection(chosen: api.LetterSelection) -> Selection:
    return Selection(
        ids=chosen.ids,
        destination=chosen.destination,
        signal=chosen.signal,
        reason=chosen.reason,
        through=chosen.through,
    )


def accounting(snapshot: LedgerSnapshot) -> Iterator[Sample]:
    """Give the terms of the accounting identity as metrics."""
    for name, label, items in (
        ("weir_received_items_total", "transport", snapshot.received),
        ("weir_sampled_out_items_total", "rule", snapshot.sampled_out),
        ("weir_quarantined_items_total", "reason", snapshot.quarantined),
    ):
        for (signal, value), count in items.items():
            yield Sample(name=name, labels={"signal": signal, label: value}, value=count)
    for balance in snapshot.balances():
        labels = {"destination": balance.destination or "none", "signal": balance.signal}
        yield Sample(name="weir_forwarded_items_total", labels=labels, value=balance.forwarded)
        for reason, count in _dropped(balance):
            yield Sample(
                name="weir_dropped_items_total",
                labels={**labels, "reason": reason},
                value=count,
            )
        yield Sample(name="weir_pending_items", labels=labels, value=balance.pending)


def _dropped(balance: Balance) -> Iterator[tuple[str, int]]:
    """Divide what was dropped by cause; what is older than causes has none."""
    if balance.destination:
        causes = [cause for cause in Cause if cause != UNDELIVERABLE]
        yield from ((cause, balance.dropped_by.get(cause, 0)) for cause in causes)
    told = sum(count for cause, count in balance.dropped_by.items() if cause != UNDELIVERABLE)
    yield UNDELIVERABLE, balance.dropped - told


def destinations(rooms: Rooms, statuses: Iterable[ForwardStatus]) -> Iterator[api.Destination]:
    """Tell how each destination is doing and how long its oldest frame has waited."""
    now_ns, oldest = time.time_ns(), rooms.outbox.oldest_ns
    for each in statuses:
        since_ns = oldest.get(each.destination)
        yield api.Destination(
            destination=each.destination,
            reachable=each.reachable,
            held=each.held,
            last_error=each.last_error,
            next_try_ns=each.next_try_ns,
            oldest_s=None if since_ns is None else max(0.0, (now_ns - since_ns) / 1e9),
        )


def waiting(found: Iterable[api.Destination]) -> Iterator[Sample]:
    """Give what waits for destinations as metrics."""
    for each in found:
        labels = {"destination": each.destination}
        yield Sample(name="weir_outbox_oldest_seconds", labels=labels, value=each.oldest_s or 0.0)
        yield Sample(name="weir_forward_held", labels=labels, value=int(each.held))
