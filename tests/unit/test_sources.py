"""What a page shows of the measurements is never older than what it shows of the accounts."""

from pathlib import Path
from typing import Any

from gateway.api.sources import Sources
from gateway.receive.admission import Counters
from gateway.sources import Live, make_sources
from tests.unit.test_core import ROWS, Bench, make_config, opened


def sources_of(bench: Bench) -> Sources:
    """Connect the API to open rooms without a network."""
    dives: Any = object()
    live = Live(
        counters=Counters(),
        blocked=str,
        journal_error=str,
        in_storage=lambda _: _never(),
        dives=dives,
        dive_counts=dict,
    )
    return make_sources(bench.rooms, live)


async def _never() -> None:
    raise AssertionError("nothing is stored here")


def shown(sources: Sources) -> tuple[int, int]:
    """Read what a page shows, in its order: items that were decided, inferences."""
    decided = sum(each.received for each in sources.status().accounting)
    return decided, sum(each.succeeded + each.failed for each in sources.measure().series)


def test_measurements_follow_each_batch_at_once(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        sources = sources_of(bench)
        assert shown(sources) == (0, 0)
        for number in (1, 2, 3):
            batch = bench.journal(number)
            bench.rooms.core.hand_over(batch)
            bench.rooms.core.stop()
            bench.rooms.core.run()
            assert shown(sources) == (number * ROWS, number * ROWS)
