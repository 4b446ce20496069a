"""What many tests of seasons begin with: a week that was learned."""

import pytest

from gateway.measure.drift.hours import WEEK_NS
from gateway.measure.drift.seasonal import HOUR_NS
from gateway.measure.drift.state import save
from gateway.measure.state import State, prefixed
from tests.unit.measure.drift.stand import (
    Site,
    Stand,
    seasonal,
)


@pytest.fixture(scope="session")
def week() -> State:
    """Streams that have seen a whole week and frozen their baselines."""
    stand = Stand(seasonal())
    stand.run(7 * 24 * 4 - 3)
    assert not stand.streams.baselines
    stand.run(8)
    assert len(stand.streams.baselines) == 3
    return save(stand.streams)


@pytest.fixture(scope="session")
def learned(week: State) -> State:
    """A site that has seen that week."""
    site = Site(seasonal())
    site.now_ns += WEEK_NS + 2 * HOUR_NS
    site.run(1)
    return site.measure.state() | prefixed("streams", week)
