"""Slots for reading messages: bounded for all and for each device, and always given back."""

import asyncio

import pytest

from gateway.errors import OverloadedError
from gateway.receive import readers
from gateway.receive.readers import READERS_MAX, READERS_OF_DEVICE_MAX, Readers
from tests.unit.receive.support import WAIT_S


async def test_a_device_that_holds_its_slots_is_told_to_come_back_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readers, "WAIT_S", 0.02)
    made = Readers()
    for _ in range(READERS_OF_DEVICE_MAX):
        await made.enter("slow")
    with pytest.raises(OverloadedError, match="too many messages"):
        await made.enter("slow")
    await made.enter("other")
    made.leave("other")
    made.leave("slow")
    await made.enter("slow")
    for _ in range(READERS_OF_DEVICE_MAX):
        made.leave("slow")
    assert len(made) == 0


async def test_a_slot_that_becomes_free_goes_to_who_waits() -> None:
    made = Readers()
    for _ in range(READERS_OF_DEVICE_MAX):
        await made.enter("a")
    waiting = asyncio.create_task(made.enter("a"))
    await asyncio.sleep(0)
    made.leave("a")
    async with asyncio.timeout(WAIT_S):
        await waiting


async def test_many_devices_share_the_slots_and_a_cancelled_wait_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Readers()
    for number in range(READERS_MAX):
        await made.enter(f"device-{number}")
    waiting = asyncio.create_task(made.enter("late"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    monkeypatch.setattr(readers, "WAIT_S", 0.02)
    with pytest.raises(OverloadedError):
        await made.enter("late")
    assert len(made) == READERS_MAX
    for number in range(READERS_MAX):
        made.leave(f"device-{number}")
    assert len(made) == 0
    await made.enter("late")
