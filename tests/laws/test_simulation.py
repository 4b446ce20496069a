"""Law: whatever happens, what was acknowledged is counted, balanced and forwarded, once, in order.

Each schedule is a world drawn from one number: requests, faults of disk, database and destination,
jumps of the clock, ends of the process and of the power, also within a start. A failure prints its
seed, and WEIR_SEED with WEIR_FUZZ_RUNS=1 runs that one again.
"""

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import FUZZ
from tests.simulation.prepared import Prepared, prepare
from tests.simulation.schedule import draw, shrink, simulate

SCHEDULES: Final = 2_000
SCHEDULES_FUZZ: Final = 20_000
# What a run of many schedules has met, or it proves less than it says.
MET: Final = frozenset(
    {"acknowledged", "refused", "started", "start refused", "died in a start"}
    | {"kill", "power cut", "stop"}
)
MET_IN: Final = 500


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(tmp_path_factory.mktemp("contract"))


def count_of() -> int:
    given = os.environ.get("WEIR_FUZZ_RUNS")
    if given is not None:
        return int(given)
    return SCHEDULES_FUZZ if FUZZ else SCHEDULES


def test_every_schedule_ends_with_all_that_was_acknowledged(
    tmp_path: Path,
    prepared: Prepared,
    seed: int,
    record_property: Callable[[str, object], None],
) -> None:
    count, met = count_of(), Counter[str]()
    for number in range(seed, seed + count):
        found = simulate(number, draw(number), tmp_path, prepared)
        if found.error is not None:
            shorter = shrink(found, tmp_path, prepared)
            told = f"{shorter.told()}\nas it was drawn: {found.told()}"
            raise AssertionError(f"{told}\nrepeat with WEIR_FUZZ_RUNS=1 WEIR_SEED={number}") from (
                shorter.error
            )
        met.update(found.counts)
    last = seed + count - 1
    record_property("schedules", f"{count}, seeds {seed} to {last}: {dict(met)}")
    assert count < MET_IN or met.keys() >= MET


def test_a_seed_repeats_its_schedule(tmp_path: Path, prepared: Prepared, seed: int) -> None:
    numbers = random.Random(seed).sample(range(1 << 20), 5)
    for number in numbers:
        first, again = (simulate(number, draw(number), tmp_path, prepared) for _ in range(2))
        assert (first.counts, first.steps) == (again.counts, again.steps)
