"""What a page shows of the measurements is never older than what it shows of the accounts."""

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.api.sources import MeasureSnapshot, Sources
from gateway.forward.records import Cause, Want
from gateway.forward.sender import ForwardStatus
from gateway.measure import Snapshot
from gateway.receive.admission import Counters
from gateway.sources import SNAPSHOT_AGE_S, Live, make_sources
from tests.unit.test_core import ROWS, Bench, make_config, opened


def sources_of(bench: Bench) -> Sources:
    """Connect the API to open rooms without a network."""
    dives: Any = object()
    letters: Any = object()
    declarations: Any = object()
    live = Live(
        counters=Counters(),
        blocked=str,
        journal_error=str,
        in_storage=lambda _: _never(),
        dives=dives,
        letters=letters,
        declarations=declarations,
        forward_status=lambda: [ForwardStatus(destination="cloud", held=True)],
        dive_counts=dict,
    )
    return make_sources(bench.rooms, live)


async def _never() -> None:
    raise AssertionError("nothing is stored here")


class Slow:
    """Counts the snapshots of a core, each of which takes ten times the age it may have."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        self.threads: list[int] = []
        measure = bench.rooms.stages.measure
        make = measure.snapshot

        def snapshot() -> Snapshot:
            self.now_s += 10 * SNAPSHOT_AGE_S
            self.threads.append(threading.get_ident())
            return make()

        monkeypatch.setattr(measure, "snapshot", snapshot)
        clock = SimpleNamespace(monotonic=lambda: self.now_s, time_ns=time.time_ns)
        monkeypatch.setattr("gateway.sources.time", clock)


def shown(sources: Sources) -> tuple[int, int]:
    """Read what a page shows, in its order: items that were decided, inferences."""
    decided = sum(each.received for each in sources.status().accounting)

    async def ask() -> MeasureSnapshot:
        return await sources.measure()

    found = asyncio.run(ask())
    return decided, sum(each.succeeded + each.failed for each in found.series)


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


def test_all_who_ask_at_once_share_one_snapshot_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        sources, slow = sources_of(bench), Slow(bench, monkeypatch)

        async def ask() -> None:
            sources.samples()
            await asyncio.gather(*(sources.measure() for _ in range(5)))
            await sources.measure()

        async def twice() -> list[int]:
            await ask()
            first = len(slow.threads)
            slow.now_s += 2 * SNAPSHOT_AGE_S
            await ask()
            return [first, len(slow.threads)]

        assert asyncio.run(twice()) == [1, 2]
        assert threading.get_ident() not in slow.threads


def test_the_oldest_frame_is_shown_from_its_commit_until_it_has_left(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        sources = sources_of(bench)

        def oldest_s() -> float | None:
            [found] = sources.status().destinations
            [sample] = [s for s in sources.samples() if s.name == "weir_outbox_oldest_seconds"]
            assert isinstance(sample.value, float)
            assert found.held
            assert (sample.value > 0.0) == (found.oldest_s is not None)
            return found.oldest_s

        assert oldest_s() is None
        with bench.running():
            bench.feed(1)
            bench.wait_flushed(ROWS)
        age_s = oldest_s()
        assert age_s is not None
        assert 0.0 < age_s < 60.0
        with bench.rooms.checkpoint.transaction() as connection:
            [frame] = bench.rooms.outbox.next(connection, "cloud", Want(bytes_max=1))
            bench.rooms.outbox.delivered(connection, "cloud", [frame.id])
            bench.rooms.outbox.deliveries(connection)
        assert oldest_s() is None


def test_what_was_dropped_is_shown_by_its_cause(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        with bench.running():
            bench.feed(1)
            bench.wait_flushed(ROWS)
        outbox = bench.rooms.outbox
        with bench.rooms.checkpoint.transaction() as connection:
            [frame] = outbox.next(connection, "cloud", Want(bytes_max=1))
            outbox.dead(connection, "cloud", frame.id, "HTTP 400")
            bench.rooms.ledger.flushed({}, outbox.deliveries(connection))
        dropped = {
            sample.labels["reason"]: sample.value
            for sample in sources_of(bench).samples()
            if sample.name == "weir_dropped_items_total" and sample.labels["signal"] == "traces"
        }
        assert dropped.pop("refused") == frame.items
        assert set(dropped) == {str(cause) for cause in Cause} - {"refused"}
        assert set(dropped.values()) == {0}
