"""Windows of the last ten to twenty minutes against a recount of what came in them."""

import numpy as np
import pytest

from gateway.measure.drift.grid import GridKind
from gateway.measure.drift.streams import Streams
from gateway.measure.estimates.windows import GENERATION_NS, Windows, merge
from gateway.measure.settings import MeasureSettings
from gateway.measure.state import Int64, State
from tests.unit.measure.build import START_NS, contract, plan

PLAN = plan(contract("a"), contract("b"))
SETTINGS = MeasureSettings(baseline_events=200)
MINUTE_NS = GENERATION_NS // 10


class World:
    """Streams of two models, counted by hand: in which generation what came."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.streams = Streams(PLAN, SETTINGS)
        self.windows = Windows(self.streams)
        self.now_ns = START_NS
        self.seen: list[tuple[int, int, Int64]] = []  # generation, stream, bins
        self.series = 0

    def open(self, model: int, version: str) -> None:
        name = PLAN.contracts[model].model
        self.streams.open_series(self.series, model, name, version)
        self.series += 1

    def turn(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self.streams.turn(now_ns)
        self.windows.turn(now_ns)

    def count(self) -> None:
        """Let some events come now."""
        for lane in self.streams.readers:
            series = self.rng.integers(0, self.series, 20)
            bins = self.rng.integers(0, lane.grid.width, 20)
            lane.add(series, bins)
            for row, each in zip(lane.row_of_series[series].tolist(), bins, strict=True):
                found = np.bincount([each], minlength=lane.grid.width)
                self.seen.append((self.now_ns // GENERATION_NS, lane.stream[row], found))

    def expected(self, number: int) -> Int64:
        newest = self.now_ns // GENERATION_NS
        width = self.streams.grid(number).width
        mine = [
            found
            for generation, stream, found in self.seen
            if stream == number and generation >= newest - 1
        ]
        total: Int64 = np.sum([np.zeros(width, dtype=np.int64), *mine], axis=0)
        return total

    def check(self) -> None:
        for number, item in enumerate(self.streams.items):
            is_watched = self.streams.grid(number).kind in (GridKind.LOGIT, GridKind.CLASSES)
            if is_watched and not item.part_of:
                assert np.array_equal(self.windows.recent(number), self.expected(number))


@pytest.mark.parametrize("idle", [False, True])
def test_a_window_is_this_generation_and_the_one_before_it(seed: int, idle: bool) -> None:
    world = World(seed)
    world.open(0, "1")
    for step in range(80):
        pause_ns = int(world.rng.choice([1, 4, 9, 25], p=[0.5, 0.3, 0.15, 0.05])) * MINUTE_NS
        if idle:
            for share in np.sort(world.rng.random(3)).tolist():
                world.windows.turn(world.now_ns + int(share * pause_ns))
        world.turn(world.now_ns + pause_ns)
        if step in (10, 40):
            world.open(step // 40, str(step))
        world.count()
        world.check()


def test_streams_with_enough_events_are_busy(seed: int) -> None:
    world = World(seed)
    for version in ("1", "2", "3"):
        world.open(0, version)
    world.turn(START_NS)
    for _ in range(8):
        world.count()
    found = list(world.windows.busy(50))
    confidence = [
        number for number, item in enumerate(world.streams.items) if item.signal == "confidence"
    ]
    assert found == [each for each in confidence if world.expected(each).sum() >= 50]
    assert 0 < len(found) < 4
    world.turn(START_NS + 2 * GENERATION_NS)
    assert list(world.windows.busy(1)) == []


def reopened(world: World, state: State) -> World:
    """The same streams and counts after a restart."""
    fresh = World(1)
    for item in world.streams.items:
        if item.signal == "confidence":
            fresh.open(item.contract, item.version)
    for number in range(len(world.streams.items)):
        counts = world.streams.counts(number)
        fresh.streams.reset(number, counts, np.zeros_like(counts))
    fresh.windows.restore(state)
    fresh.now_ns, fresh.seen, fresh.rng = world.now_ns, world.seen, world.rng
    return fresh


def test_a_restart_goes_on(seed: int) -> None:
    world = World(seed)
    world.open(0, "1")
    world.open(1, "1")
    for step in range(40):
        world.turn(world.now_ns + 4 * MINUTE_NS)
        world.count()
        if step % 3 == 0:
            state = world.windows.state()
            world = reopened(world, state)
            again = world.windows.state()
            assert state.keys() == again.keys()
            assert all(np.array_equal(state[name], again[name]) for name in state)
        world.check()


def test_an_older_state_has_empty_windows(seed: int) -> None:
    world = World(seed)
    world.open(0, "1")
    world.turn(START_NS)
    world.count()
    fresh = reopened(world, {})
    assert fresh.streams.counts(0).any()
    assert not any(fresh.windows.recent(each).any() for each in range(2))


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_two_sites_add_by_stream_and_generation(seed: int, behind: int) -> None:
    sites = [World(seed), World(seed + 1)]
    sites[0].open(0, "1")
    sites[1].open(1, "1")
    sites[1].open(0, "1")
    for at, site in enumerate(sites):
        for generation in range(2, -1, -1):
            site.turn(START_NS - (generation + behind * at) * GENERATION_NS)
            site.count()
    for order in (sites, sites[::-1]):
        state = merge(*(each.windows.state() for each in order))
        both = World(1)
        both.open(0, "1")
        both.open(1, "1")
        both.now_ns = START_NS
        for number, item in enumerate(both.streams.items):
            counts = np.zeros(both.streams.grid(number).width, dtype=np.int64)
            for site in sites:
                mine = site.streams.number_of(*item.key)
                if mine is not None:
                    counts += site.streams.counts(mine)
                    both.seen += [(at, number, each) for at, of, each in site.seen if of == mine]
            both.streams.reset(number, counts, np.zeros_like(counts))
        both.windows.restore(state)
        both.check()
        # What was current where the site was behind leaves with the next generation.
        both.turn(START_NS + GENERATION_NS)
        both.check()
