"""What time alone makes due is done while nothing comes, and is the same in a replay."""

from pathlib import Path

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
