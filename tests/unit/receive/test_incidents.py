"""Incidents are all counted, and few enough to be written down."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.batch import Transport
from gateway.receive.incidents import NAMED_MAX, OTHERS, Event, Incident, Incidents
from tests.unit.receive.support import WAIT_S


async def test_incidents_are_gathered_by_who_and_how() -> None:
    incidents = Incidents()
    for _ in range(3):
        incidents.note(Event.AUTHN_FAIL, "10.0.0.1", Transport.HTTP)
    incidents.note(Event.AUTHN_FAIL, "10.0.0.1", Transport.GRPC)
    incidents.note(Event.IDENTITY_MISMATCH, "camera-1", Transport.GRPC, 5)
    incidents.note(Event.IDENTITY_MISMATCH, "camera-1", Transport.GRPC, 7)
    assert incidents.some.is_set()
    found = incidents.take()
    made = [(each.event, each.subject, each.transport) for each in found]
    assert made == [
        ("authn_fail", "10.0.0.1", "http"),
        ("authn_fail", "10.0.0.1", "grpc"),
        ("identity_mismatch", "camera-1", "grpc"),
    ]
    assert [(each.requests, each.items) for each in found] == [(3, 0), (1, 0), (2, 12)]
    assert not incidents.some.is_set()
    assert incidents.take() == []


async def test_a_flood_of_sources_is_a_few_lines_and_no_count_is_lost() -> None:
    incidents = Incidents()
    for number in range(10_000):
        incidents.note(Event.AUTHN_FAIL, f"10.0.{number // 256}.{number % 256}", Transport.HTTP)
    incidents.note(Event.IDENTITY_MISMATCH, "camera-1", Transport.HTTP, 2)
    found = incidents.take()
    assert len(found) == NAMED_MAX + 2
    assert sum(each.requests for each in found) == 10_001
    (others,) = [each for each in found if each.subject == OTHERS]
    assert others.requests == 10_000 - NAMED_MAX
    assert found[-1] == Incident(
        event=Event.IDENTITY_MISMATCH, subject="camera-1", transport="http", requests=1, items=2
    )


async def test_the_first_is_written_at_once_and_the_rest_when_it_ends() -> None:
    incidents, written = Incidents(), []
    first = asyncio.Event()
    loop = asyncio.get_running_loop()

    def write(event: str, fields: Mapping[str, Any]) -> None:
        written.append((event, fields["subject"], fields["requests"]))
        loop.call_soon_threadsafe(first.set)

    task = asyncio.create_task(incidents.run(write))
    incidents.note(Event.AUTHN_FAIL, "10.0.0.1", Transport.HTTP)
    async with asyncio.timeout(WAIT_S):
        await first.wait()
    for _ in range(5):
        incidents.note(Event.AUTHN_FAIL, "10.0.0.2", Transport.HTTP)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert written == [("authn_fail", "10.0.0.1", 1), ("authn_fail", "10.0.0.2", 5)]
