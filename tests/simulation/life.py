"""Time, threads and death of the simulated process: one event loop, one virtual clock, no waiting.

Law: nothing here sleeps and nothing runs beside anything else. The steady clock moves only when all
tasks wait; the wall clock is the steady one plus an offset that schedules change. A process dies at
a step that was chosen before, and nothing that belongs to it takes effect after that.
"""

import asyncio
import queue
import selectors
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from gateway.errors import WeirError
from tests.laws.journal_disk import CrashError

START_NS: Final = 1_760_000_000 * 10**9
# More turns of the loop than any schedule needs: who needs more waits for what never comes.
STEPS_MAX: Final = 200_000


Arguments = TypeVarTuple("Arguments")
Made = TypeVar("Made")


class YieldError(BaseException):
    """The core has nothing left to do in this turn; it goes on where it was in the next."""


class _Nothing(selectors.SelectSelector):
    """A selector on which nothing ever happens but the time."""

    def __init__(self, clock: "Clock") -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everything waits, and for nothing that will come")
        self._clock.now_s += max(0.0, timeout)
        return []


@dataclass(slots=True)
class Clock:
    """The steady clock and the wall clock; it stands for the module `time`.

    Units: seconds since the start of the schedule.
    """

    now_s: float = 0.0
    offset_s: float = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def time_ns(self) -> int:
        return START_NS + int((self.now_s + self.offset_s) * 1e9)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a virtual clock, whose executors are of this thread, too."""

    def __init__(self) -> None:
        self.clock = Clock()
        super().__init__(_Nothing(self.clock))

    def time(self) -> float:
        return self.clock.now_s

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call soon: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[Unpack[Arguments]], Made],
        *args: *Arguments,
    ) -> asyncio.Future[Made]:
        """Queue work in a simulated thread; work for any thread is done at once."""
        future: asyncio.Future[Made] = self.create_future()
        if not isinstance(executor, Thread):
            future.set_result(func(*args))
            return future

        def tell(job: Job) -> None:
            if future.done():
                return
            if job.error is not None:
                future.set_exception(job.error)
            else:
                future.set_result(job.value)

        executor.submit(func, *args).tell.append(tell)
        return future

    async def pause(self, seconds: float) -> None:
        """Let virtual time go by."""
        future = self.create_future()
        self.call_later(seconds, _set, future)
        await future


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


@dataclass(slots=True)
class Life:
    """One process from its start to its end.

    It dies at the step of number `bomb`, or at the next one that is called `fatal`.
    """

    alive: bool = True
    steps: int = 0
    bomb: int = 0
    fatal: str = ""
    died_at: str = ""

    def step(self, what: str) -> None:
        """Take a step that has an effect outside. Raises: CrashError when the process is dead."""
        self.steps += 1
        assert self.steps < STEPS_MAX, f"{what} goes on for ever"
        if self.alive and (self.steps == self.bomb or what == self.fatal):
            self.alive, self.died_at = False, what
        if not self.alive:
            raise CrashError(what)


@dataclass(slots=True)
class Job:
    """Work in a simulated thread, and what came of it."""

    thread: "Thread"
    work: Callable[[], Any]
    is_done: bool = False
    value: Any = None
    error: BaseException | None = None
    tell: list[Callable[["Job"], None]] = field(default_factory=list)

    def done(self) -> bool:
        return self.is_done

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the work, which means to do it and all before it now."""
        while not self.is_done:
            self.thread.run_one()
        if self.error is not None:
            raise self.error
        return self.value


class Thread(Executor):
    """An executor with one thread: jobs run in order, each some virtual time after it could."""

    def __init__(self, loop: VirtualLoop, life: Life, delay_s: Callable[[], float]) -> None:
        self._loop = loop
        self._life = life
        self._delay_s = delay_s
        self._jobs: deque[Job] = deque()
        self._is_due = False

    def submit(self, work: Callable[..., Any], /, *args: Any, **_: Any) -> Any:
        job = Job(self, lambda: work(*args))
        self._jobs.append(job)
        self._plan()
        return job

    def run_one(self) -> None:
        """Do the oldest job."""
        job = self._jobs.popleft()
        try:
            self._life.step("thread")
            job.value = job.work()
        except WeirError as error:  # anything else is a finding
            job.error = error
        job.is_done = True
        for each in job.tell:
            each(job)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        while wait and self._jobs and self._life.alive:
            self.run_one()

    def _plan(self) -> None:
        if not self._is_due and self._jobs:
            self._is_due = True
            self._loop.call_later(self._delay_s(), self._turn)

    def _turn(self) -> None:
        self._is_due = False
        if not self._jobs:
            return
        try:
            self.run_one()
        except CrashError:
            return  # who looks next sees that the process is gone
        self._plan()


class CoreQueue:
    """The queue of the core; it stands for `queue.SimpleQueue`.

    When it is empty the core is told so as often as the turn allows, and then the turn ends.
    """

    def __init__(self, clock: Clock, life: Life) -> None:
        self._clock = clock
        self._life = life
        self._items: deque[Any] = deque()
        self.batches_left = 0
        self.idles_left = 0

    def put(self, item: Any) -> None:
        self._items.append(item)

    def empty(self) -> bool:
        return not self._items

    def get(self, timeout: float) -> Any:
        self._life.step("core")
        if self._items:
            if self.batches_left == 0:
                raise YieldError
            self.batches_left -= 1
            return self._items.popleft()
        if self.idles_left == 0:
            raise YieldError
        self.idles_left -= 1
        self._clock.now_s += timeout
        raise queue.Empty


class CoreEvent:
    """Stands for `threading.Event`; nobody sets it while the core waits, so time goes by."""

    def __init__(self, clock: Clock, life: Life) -> None:
        self._clock = clock
        self._life = life
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float) -> bool:
        self._life.step("core waits")
        self._clock.now_s += max(timeout, 1e-3)
        return self._is_set
