"""What the audit log has to know of the intake: failed authentication, contradicted identities.

Law: no incident is lost and none can fill the disk. They are gathered by who and how, and taken at
most once in `PERIOD_S`; at most `NAMED_MAX` of a kind keep their name, the others count together.
So a flood makes about 10 KiB of log a minute, which is 50 days until the log is full. Never a
credential, never a value of the payload.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.batch import Json, Transport
from gateway.errors import WeirError

log = logging.getLogger(__name__)

PERIOD_S: Final = 60.0
NAMED_MAX: Final = 16
OTHERS: Final = "~other"


class Event(StrEnum):
    """Names of lines in the audit log."""

    AUTHN_FAIL = "authn_fail"
    IDENTITY_MISMATCH = "identity_mismatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One sort of thing that happened since the last time.

    `subject` is the peer's address where it failed to authenticate, its identity where it sent
    for another. Units: requests, and the items that were rejected in them.
    """

    event: Event
    subject: str
    transport: str
    requests: int
    items: int


class Incidents:
    """Incidents that were not yet taken. On the event loop only."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Event, str, Transport], tuple[int, int]] = {}
        self.some = asyncio.Event()

    def note(self, event: Event, subject: str, transport: Transport, items: int = 0) -> None:
        """Count one request."""
        key = (event, subject, transport)
        if key not in self._counts:
            named = sum(1 for each, *_ in self._counts if each is event)
            if named >= NAMED_MAX:
                key = (event, OTHERS, transport)
        requests, before = self._counts.get(key, (0, 0))
        self._counts[key] = (requests + 1, before + items)
        self.some.set()

    async def run(self, write: Callable[[str, Mapping[str, Json]], None]) -> None:
        """Write incidents down until cancelled: the first at once, later ones once a period.

        `write` takes the name of an event and its fields, may block, and raises a WeirError when
        it cannot; the incident is logged then.
        """
        try:
            while True:
                await self.some.wait()
                await asyncio.to_thread(_write, self.take(), write)
                await asyncio.sleep(PERIOD_S)
        finally:
            _write(self.take(), write)

    def take(self) -> list[Incident]:
        """Take everything and start anew."""
        counts, self._counts = self._counts, {}
        self.some.clear()
        return [
            Incident(
                event=event,
                subject=subject,
                transport=transport.name.lower(),
                requests=requests,
                items=items,
            )
            for (event, subject, transport), (requests, items) in counts.items()
        ]


def _write(found: list[Incident], write: Callable[[str, Mapping[str, Json]], None]) -> None:
    for each in found:
        fields = {
            "subject": each.subject,
            "transport": each.transport,
            "requests": each.requests,
            "items": each.items,
        }
        try:
            write(each.event, fields)
        except WeirError as error:
            log.error("incident not written event=%s error=%s %s", each.event, error, fields)
