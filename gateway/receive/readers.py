"""Whose gRPC messages may be read now: some of all calls, and fewer of one device.

Law: gRPC has a whole message in memory, up to `message_max` and beside the byte account, before it
tells its size; so what is bounded is how many are read at once. A slow device holds slots of its
own, and whoever gets none in time is told to come back.
"""

import asyncio
from typing import Final

from gateway.errors import OverloadedError

READERS_MAX: Final = 64
READERS_OF_DEVICE_MAX: Final = 8
WAIT_S: Final = 2.0  # well above what a message takes, well below a client's patience


class Readers:
    """The slots. On the event loop only."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(READERS_MAX)
        self._own: dict[str, tuple[asyncio.Semaphore, int]] = {}  # with the calls that use it

    async def enter(self, device: str) -> None:
        """Wait for a slot; `leave` gives it back.

        Raises: OverloadedError, and then there is nothing to give back.
        """
        own, users = self._own.get(device) or (asyncio.Semaphore(READERS_OF_DEVICE_MAX), 0)
        self._own[device] = own, users + 1
        try:
            if own.locked() or self._all.locked():
                async with asyncio.timeout(WAIT_S):
                    await self._acquire(own)
            else:
                await self._acquire(own)
        except BaseException as error:
            self._forget(device)
            if isinstance(error, TimeoutError):
                raise OverloadedError("too many messages are being read") from error
            raise

    async def _acquire(self, own: asyncio.Semaphore) -> None:
        await own.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            own.release()
            raise

    def leave(self, device: str) -> None:
        """Give a slot back."""
        self._all.release()
        self._own[device][0].release()
        self._forget(device)

    def _forget(self, device: str) -> None:
        own, users = self._own[device]
        if users > 1:
            self._own[device] = own, users - 1
        else:
            del self._own[device]

    def __len__(self) -> int:
        return len(self._own)
