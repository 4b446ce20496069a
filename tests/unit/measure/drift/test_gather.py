"""Gathering: whatever the chunks are, blocks are consecutive and lose nothing."""

import numpy as np
import pytest

from gateway.measure.drift.gather import BLOCK_EVENTS_FIRST, BLOCKS_MAX, Gathering
from gateway.measure.drift.grid import Grid, GridKind

CLASSES = Grid(kind=GridKind.CLASSES, values=("a", "b", "c"))


@pytest.mark.parametrize("events", [0, 1, 49, 50, 51, 3_200, 3_250, 20_011])
def test_blocks_are_those_of_a_naive_recount(events: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bins = rng.integers(0, CLASSES.width, events)
    gathering = Gathering(CLASSES)
    at = 0
    while at < events:
        size = int(rng.integers(1, 400))
        gathering.add(bins[at : at + size])
        at += size
    blocks = gathering.blocks()
    length = BLOCK_EVENTS_FIRST
    while events // length >= BLOCKS_MAX:
        length *= 2
    whole = events // length
    cuts = [length * (each + 1) for each in range(whole - 1)]
    expected = [np.bincount(part, minlength=CLASSES.width) for part in np.split(bins, cuts)]
    if not events:
        assert blocks == []
        return
    assert np.array_equal(blocks, expected)
    assert len(blocks) < BLOCKS_MAX
    assert whole < BLOCKS_MAX // 2 or len(blocks) >= BLOCKS_MAX // 2
