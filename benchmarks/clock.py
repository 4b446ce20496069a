"""Time pieces of work, often enough to know their spread.

Law: what is timed is CPU time of this process, all threads together, so that the figures are per
core and another process on the machine moves them less than it would move wall time.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

REPEATS_MIN: Final = 3
# At least this long per repeat, so that the clock's step and a cold cache do not matter.
REPEAT_S: Final = 0.05


def seconds_each(work: Callable[[], object], budget_s: float) -> list[float]:
    """Measure CPU seconds of one call; each repeat averages as many calls as it needs."""
    clock = time.process_time
    work()
    start = clock()
    work()
    once_s = max(clock() - start, 1e-9)
    calls = max(1, int(min(REPEAT_S, budget_s / REPEATS_MIN) / once_s))
    repeats = max(REPEATS_MIN, int(budget_s / (calls * once_s)))
    found = []
    for _ in range(repeats):
        start = clock()
        for _ in range(calls):
            work()
        found.append((clock() - start) / calls)
    return found


class Laps:
    """CPU seconds by name of the work. Not for work that calls other timed work."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def timed(self, name: str, work: Callable[P, R]) -> Callable[P, R]:
        """Wrap work so that every call adds to the seconds of this name."""

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.process_time()
            try:
                return work(*args, **kwargs)
            finally:
                self.seconds[name] += time.process_time() - start

        return call
