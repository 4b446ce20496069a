"""A thread that serves uplinks, for programs that have no event loop of their own.

Law: one uplink that ends by a defect is told in the log and takes no other with it.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import Final

import aiohttp

from collectors.device.uplink import Uplink

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S: Final = 10.0


class UplinkThread:
    """One thread with one event loop and one session that serves any number of uplinks."""

    def __init__(self, uplinks: Sequence[Uplink], *, connections_max: int = 0) -> None:
        self._uplinks = tuple(uplinks)
        self._connections_max = connections_max or len(self._uplinks) + 1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="uplink", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()
        self._ready.wait(STOP_TIMEOUT_S)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End all uplinks; safe to call twice."""
        loop = self._loop
        if loop is not None and self._thread.is_alive():
            loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout_s)

    def _main(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._ready.set()
            runner.run(self._serve())

    async def _serve(self) -> None:
        connector = aiohttp.TCPConnector(limit=self._connections_max)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            tasks = [asyncio.create_task(uplink.run(session)) for uplink in self._uplinks]
            for task in tasks:
                task.add_done_callback(_tell)
            await self._stop.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _tell(task: asyncio.Task[None]) -> None:
    """Log an uplink that ended by a defect; the others go on."""
    if not task.cancelled() and task.exception() is not None:
        logger.error("an uplink ended", exc_info=task.exception())
