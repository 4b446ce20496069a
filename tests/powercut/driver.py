"""Run the storage of a small site without a network, and mark what is acknowledged.

Law: a mark is made when the journal returned, which is the earliest moment at which an answer can
be on its way. Run below the recorder: `python -m tests.powercut.driver record DIR NOW_NS` or
`... faults DIR NOW_NS FIRST STEP`.
"""

import asyncio
import ctypes
import errno
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from gateway import core
from gateway.batch import Batch
from gateway.core import Hooks
from gateway.errors import RetryableError, WeirError
from gateway.forward.records import Settlement, Want
from gateway.journal.commit import GroupCommit
from gateway.journal.log import GroupRecord
from gateway.rooms import Rooms, open_rooms
from tests.powercut.site import DESTINATION, make_config, make_plan, requests_of
from tests.process import wait_until

GROUPS: Final = 7  # of a session
SESSIONS: Final = 2
LATE: Final = 4  # groups of a session that are acknowledged and then the process ends
WAIT_S: Final = 30.0
TRIES_MAX: Final = 100
STARTS_MAX: Final = 60
ERRORS: Final = (errno.EIO, errno.ENOSPC, errno.EROFS)
# Most faults hit one call; a disk may also stay ill for a while.
BURSTS: Final = (1, 1, 2, 40)
RETRY_S: Final = 0.005

Mark = Callable[[str], None]


def mark(root: Path, text: str) -> None:
    """Put a text into the log of the recorder, which watches the folder of the data directory."""
    with suppress(FileNotFoundError):
        os.close(os.open(root.parent / f"mark:{text}", os.O_RDONLY))


def open_site(root: Path) -> Rooms:
    """Open and recover a site whose steps have no net."""
    config = make_config(root)
    hooks = Hooks(anomalies=lambda _: None, flushed=lambda: None, released=lambda _: None)
    return open_rooms(config, make_plan(config), hooks, lambda work, _: work())


class Session:
    """A group commit on open rooms, with a core and a journal thread."""

    def __init__(self, rooms: Rooms, acknowledged: Mark) -> None:
        self.rooms = rooms
        self._acknowledged = acknowledged
        self._hand_over: Callable[[Batch], None] = rooms.core.hand_over
        self._journal = ThreadPoolExecutor(1, "journal")
        self.commit = GroupCommit(
            open_batch=rooms.open_batch,
            append=self._append,
            hand_over=lambda batch: self._hand_over(batch),
            next_sequence=rooms.journal.next_sequence,
            delay_s=0.001,
            observe=lambda _, __: None,
            forsake=lambda _: None,
            is_behind=lambda: False,
            queued_rows=lambda: 0,
        )

    async def _append(self, record: GroupRecord) -> None:
        def work() -> None:
            self.rooms.journal.append(record)
            self._acknowledged(f"ack {record.sequence}")

        await asyncio.get_running_loop().run_in_executor(self._journal, work)

    async def append_late(self, numbers: range, now_ns: int) -> None:
        """Make groups durable that the core never sees, as if the process ended right after."""
        self._hand_over = lambda _: None
        writer = asyncio.create_task(self.commit.run())
        for number in numbers:
            assert await self.send(number, now_ns)
        self.commit.close()
        await writer
        self._journal.shutdown()

    async def send(self, number: int, now_ns: int) -> bool:
        """Submit one group; tells whether it was acknowledged, as a whole or not at all."""
        requests = requests_of(number, now_ns)
        answers = await asyncio.gather(
            *(self.commit.submit(each) for each in requests), return_exceptions=True
        )
        refused = [each for each in answers if isinstance(each, BaseException)]
        for each in refused:
            if not isinstance(each, RetryableError):
                raise each
        assert len(refused) in (0, len(requests)), "a group is acknowledged as a whole"
        return not refused

    @contextmanager
    def core(self) -> Iterator[None]:
        """Run the core for a block, then stop and seal it."""
        thread = threading.Thread(target=self.rooms.core.run)
        thread.start()
        try:
            yield
        finally:
            self.rooms.core.stop()
            thread.join(WAIT_S)
            assert not thread.is_alive()
            self._journal.shutdown()

    def processed(self, sequence: int) -> None:
        """Wait until the core has taken a group."""
        wait_until(
            lambda: self.rooms.core.processed >= sequence, timeout_s=WAIT_S, what="processed"
        )

    def deliver(self) -> None:
        """Mark the oldest frame in the outbox as delivered, in the storage thread."""
        rooms = self.rooms

        def work() -> None:
            with rooms.checkpoint.transaction() as connection:
                found = rooms.outbox.next(connection, DESTINATION, Want(bytes_max=1))
            if found:
                with rooms.checkpoint.transaction() as connection:
                    settlement = Settlement(delivered=(found[0].id,))
                    rooms.outbox.settle(connection, DESTINATION, settlement)
                    deliveries = rooms.outbox.deliveries(connection)
                rooms.ledger.flushed({}, deliveries)

        with suppress(RetryableError):
            rooms.storage.submit(work).result(WAIT_S)


async def run_groups(session: Session, numbers: range, now_ns: int) -> list[int]:
    """Send groups until each is acknowledged; returns how often each was sent."""
    tries = []
    writer = asyncio.create_task(session.commit.run())
    for number in numbers:
        count = 1
        while not await session.send(number, now_ns):
            count += 1
            assert count <= TRIES_MAX, "it does not heal"
        tries.append(count)
        await asyncio.to_thread(session.processed, session.rooms.journal.next_sequence - 1)
        if number % 3 == 0:
            await asyncio.to_thread(session.deliver)
    session.commit.close()
    await writer
    return tries


def record(root: Path, now_ns: int) -> None:
    """Run all sessions; each but the last leaves groups to the replay of the next."""

    def acknowledged(text: str) -> None:
        mark(root, text)

    for index in range(SESSIONS):
        rooms = open_site(root)
        first, end = index * GROUPS + 1, (index + 1) * GROUPS + 1
        late = end - LATE if index < SESSIONS - 1 else end
        session = Session(rooms, acknowledged)
        with session.core():
            asyncio.run(run_groups(session, range(first, late), now_ns))
        if late < end:
            last = Session(rooms, acknowledged)
            asyncio.run(last.append_late(range(late, end), now_ns))
            rooms.close()
    os._exit(0)


def one_fault(root: Path, now_ns: int, fail: Callable[..., Any], at: int, code: int) -> Any:
    """Run a session in which the call `at` fails, and the next start after it."""
    shutil.rmtree(root, ignore_errors=True)
    fail(at, BURSTS[at % len(BURSTS)], code)
    starts = 1
    while True:
        try:
            rooms = open_site(root)
            break
        except WeirError:
            starts += 1
            assert starts <= STARTS_MAX, "it does not start"
    session = Session(rooms, lambda _: None)
    with session.core():
        tries = asyncio.run(run_groups(session, range(1, GROUPS + 1), now_ns))
    error = rooms.core.storage_error
    calls = recorder().recorder_number()
    rooms.close()
    fail(-1, 0, 0)
    again = open_site(root)
    balances = [
        (each.signal.value, each.received, each.residue)
        for each in again.ledger.snapshot().balances()
    ]
    sealed = sum(segment.rows for segment in again.store.segments)
    rows = sealed + again.store.pending_rows
    again.close()
    return {
        "at": at,
        "calls": calls,
        "starts": starts,
        "tries": sum(tries),
        "storage_error": error,
        "balances": balances,
        "rows": rows,
    }


def recorder() -> ctypes.CDLL:
    """Return the recorder that this process runs below."""
    library = ctypes.CDLL(None)
    library.recorder_number.restype = ctypes.c_long
    library.recorder_fail.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_int)
    return library


def faults(root: Path, now_ns: int, first: int, step: int) -> None:
    """Let every `step`-th call fail, one a run, and print a line of JSON for each."""
    fail = recorder().recorder_fail
    core.RETRY_S = RETRY_S  # type: ignore[misc]  # a second for each try would be hours
    at = first
    while True:
        found = one_fault(root, now_ns, fail, at, ERRORS[at % len(ERRORS)])
        sys.stdout.write(f"{json.dumps(found)}\n")
        sys.stdout.flush()
        if at >= found["calls"]:
            return
        at += step


def main() -> None:
    """Run one mode."""
    mode, root, now_ns, *rest = sys.argv[1:]
    if mode == "record":
        record(Path(root), int(now_ns))
    else:
        first, step = (int(each) for each in rest)
        faults(Path(root), int(now_ns), first, step)


if __name__ == "__main__":
    main()
