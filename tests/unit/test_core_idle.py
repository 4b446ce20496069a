"""Beside the batches: what time alone makes due, and readers while a seal copies the state."""

from pathlib import Path
from typing import Any

import pytest

from gateway.measure import Measure
from tests.process import wait_until
from tests.unit.test_core import NOW_NS, WAIT_S, different, make_config, opened


def test_idle_time_stops_before_a_group_that_is_still_being_written(tmp_path: Path) -> None:
    """A replay meets that group first, so that no tick may end before it."""
    with opened(make_config(tmp_path / "data")) as bench:
        bench.feed(1)
        late = bench.journal(2)
        bench.rooms.core.follow(lambda: late.arrival_ns)
        with bench.running():
            wait_until(
                lambda: bench.rooms.stages.measure.now_ns > NOW_NS, timeout_s=WAIT_S, what="time"
            )
            bench.rooms.core.hand_over(late)
        assert bench.rooms.stages.measure.now_ns == late.arrival_ns
    with opened(bench.config) as again:
        assert different(again.state(), bench.state()) == set()


def test_a_seal_copies_the_state_while_no_reader_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copying moves staged counts; with a scrape at the same moment they would count twice."""
    state, held = Measure.state, list[bool]()

    def watched(self: Measure) -> Any:
        held.append(stages.lock.locked())
        return state(self)

    with opened(make_config(tmp_path / "data")) as bench:
        stages = bench.rooms.stages
        monkeypatch.setattr(Measure, "state", watched)
        bench.feed(1)
        with bench.running():
            pass
        assert held
        assert all(held)
