"""Law: a call that fails costs a retry, never an acknowledged request, and the storage heals.

In a run of the whole storage each changing call in turn is answered with EIO, ENOSPC or EROFS, some
for a while (`tests/powercut`). The run sends every group until it is acknowledged; the next start
must find each group once. The short run takes a sample with a seed, the fuzz run every call.
"""

import json
import random
import time
from pathlib import Path
from typing import Any, Final

from tests.conftest import FUZZ
from tests.powercut.cut import compiled, driven
from tests.powercut.driver import GROUPS
from tests.powercut.site import LOGS, ROWS

STEP: Final = 19
RUN_S: Final = 1_800.0


def check(found: dict[str, Any]) -> None:
    """Compare what a start after the run found with what was acknowledged."""
    expected = {"traces": GROUPS * ROWS, "metrics": 0, "logs": GROUPS * LOGS}
    assert {signal: received for signal, received, _ in found["balances"]} == expected, found
    assert {residue for _, _, residue in found["balances"]} == {0}, found
    assert found["rows"] == GROUPS * ROWS, found


def test_a_call_that_fails_costs_a_retry_and_nothing_else(tmp_path: Path, seed: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    now_ns = str(time.time_ns() - 60_000_000_000)  # what is old is not kept
    step = 1 if FUZZ else STEP
    first = random.Random(seed).randrange(step)
    arguments = ("faults", now_ns, str(first), str(step))
    text = driven(disk, compiled(tmp_path), None, *arguments, timeout_s=RUN_S)
    runs = [json.loads(line) for line in text.splitlines()]
    for found in runs:
        check(found)
    assert runs[-1]["at"] >= runs[-1]["calls"], "every call had its turn"
    assert any(found["starts"] > 1 for found in runs), "some faults meet a start"
    assert any(found["tries"] > GROUPS for found in runs), "some meet the journal"
    print(f"{len(runs)} runs of {runs[-1]['calls']} calls")  # noqa: T201  shown with -rP
