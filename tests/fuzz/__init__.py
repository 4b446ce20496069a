"""Fuzz tests: differential ones, and the targets of the runs that coverage guides.

A fuzz run (WEIR_FUZZ=1) takes WEIR_FUZZ_RUNS as its budget: that many executions of each guided
target (tools/fuzz.sh), and a fifth of it in each differential test, whose oracles are slow.
"""

import os
from typing import Final

from tests.conftest import FUZZ

GUIDED_RUNS: Final = 2_500_000  # as in tools/fuzz.sh; all of a fuzz run takes about ten minutes
CHECK_RUNS: Final = 20_000


def differential_runs() -> int:
    """Return how many executions each differential test makes."""
    if not FUZZ:
        return CHECK_RUNS
    wanted = int(os.environ.get("WEIR_FUZZ_RUNS") or GUIDED_RUNS) // 5
    return max(CHECK_RUNS, wanted)
