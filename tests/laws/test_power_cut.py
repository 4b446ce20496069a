"""Law: after a power cut at any moment all that was acknowledged is there, once, and it balances.

A small run of the whole storage (journal, database, Parquet) is recorded call by call; after each
call, all that a power cut could leave is recovered. `tests/powercut` has the recorder and the
model. The short run takes a sample with a seed, the fuzz run every call.
"""

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import FUZZ
from tests.powercut.cut import (
    START_S_MAX,
    Check,
    compiled,
    expectations,
    moments,
    recorded,
    walk,
)
from tests.powercut.driver import GROUPS, SESSIONS
from tests.powercut.model import Choice, Disk, Kind

SAMPLE: Final = 100
EXTRA: Final = 2  # random states for each call
EXTRA_FUZZ: Final = 6
MEMORY: Final = Path("/dev/shm")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Make a folder in memory where there is one: the states are many and a sync costs nothing."""
    where = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="weir-power-cut-", dir=where) as name:
        yield Path(name)


def test_nothing_acknowledged_is_lost_by_a_power_cut(scratch: Path, seed: int) -> None:
    now_ns = time.time_ns() - 60_000_000_000
    disk, calls = recorded(scratch, compiled(scratch), now_ns)
    assert sum(call.kind is Kind.MARK for call in calls) == GROUPS * SESSIONS
    kinds = {call.kind for call in calls}
    assert kinds >= {Kind.WRITE, Kind.SYNC, Kind.RENAME, Kind.UNLINK, Kind.MKDIR, Kind.TRUNCATE}
    every = [count for count, matters in moments(calls) if matters]
    chosen = every if FUZZ else sorted(random.Random(seed).sample(every, SAMPLE))
    check = Check(scratch, now_ns, expectations(now_ns))
    walk(disk, calls, check, set(chosen), seed=seed, extra=EXTRA_FUZZ if FUZZ else EXTRA)
    print(  # noqa: T201  the figures of a run, shown with -rP
        f"{len(calls)} calls, {len(every)} moments, {check.states} states recovered, "
        f"slowest start {check.slowest_s:.3f} s"
    )
    assert check.slowest_s < START_S_MAX


def test_the_model_loses_what_was_not_synced(scratch: Path) -> None:
    """The law says nothing unless the model takes something away."""
    now_ns = time.time_ns() - 60_000_000_000
    disk_path, calls = recorded(scratch, compiled(scratch), now_ns)
    unsynced = [call for call in calls if call.kind is not Kind.SYNC]
    disk = Disk(str(disk_path))
    for call in unsynced:
        if call.kind is not Kind.MARK:
            disk.apply(call)
    check = Check(scratch, now_ns, expectations(now_ns))
    with pytest.raises(AssertionError):
        check.cut(disk, GROUPS * SESSIONS, Choice(None), seal=False)
    check.cut(disk, GROUPS * SESSIONS, Choice(None, everything=True), seal=True)
