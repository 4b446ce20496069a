"""The table of predictions against a dictionary, and its limits."""

import numpy as np
import pytest

from gateway.measure.groups import Groups
from gateway.measure.labels.predictions import (
    ANY_CONTRACT,
    GONE,
    NEVER_NS,
    PROBES_MAX,
    RANGE,
    ROW_BYTES,
    Predictions,
    is_kept,
)
from gateway.measure.state import Array, Int64
from tests.conftest import FUZZ
from tests.unit.measure.build import SECOND_NS

ROUNDS = 2000 if FUZZ else 60
BYTES_PER_ROW = 64


def table(rows_max: int = 1_000_000) -> Predictions:
    """A table of two models with two versions."""
    groups = Groups(["a", "b"])
    for model, version in (("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")):
        groups.index(model, version)
    return Predictions(groups, rows_max)


def add(the_table: Predictions, hi: Array, lo: Array, group: Int64, due_ns: int = 10) -> None:
    """Add rows with their numbers as codes."""
    first = the_table.appended
    the_table.append(
        hi,
        lo,
        group,
        np.full(len(lo), due_ns),
        np.arange(first, first + len(lo), dtype=np.int32),
    )


def ids(rng: np.random.Generator, count: int, distinct: int = 1 << 63) -> Array:
    """Random words, of few distinct ones if asked."""
    return rng.integers(0, distinct, count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


@pytest.mark.parametrize("distinct", [3, 50, 1 << 63])
def test_the_first_row_of_a_trace_and_contract_is_found(seed: int, distinct: int) -> None:
    rng = np.random.default_rng(seed)
    the_table = table()
    known: dict[tuple[int, int, int], int] = {}
    for _ in range(ROUNDS):
        count = int(rng.integers(0, 300))
        hi, lo = ids(rng, count, min(distinct, 3)), ids(rng, count, distinct)
        group = rng.integers(0, 4, count)
        first = the_table.appended
        add(the_table, hi, lo, group)
        for at in range(count):
            known.setdefault((int(hi[at]), int(lo[at]), int(group[at]) // 2), first + at)
        if rng.random() < 0.5:
            the_table.settle()
    the_table.settle()
    assert the_table.count == len(known)
    assert the_table.repeated == the_table.appended - len(known)
    assert the_table.crowded == 0
    keys = list(known)
    asked = np.array([[key[0], key[1]] for key in keys], dtype=np.uint64)
    contract = np.array([key[2] for key in keys])
    found, several = the_table.find(asked[:, 0], asked[:, 1], contract)
    assert the_table.code[found].tolist() == list(known.values())
    assert not several.any()
    found, several = the_table.find(asked[:, 0], asked[:, 1], np.full(len(keys), ANY_CONTRACT))
    for key, row, is_several in zip(keys, found.tolist(), several.tolist(), strict=True):
        both = [known.get((key[0], key[1], each)) for each in (0, 1)]
        assert is_several == (None not in both)
        assert int(the_table.code[row]) in both
    missing, _ = the_table.find(ids(rng, 100), ids(rng, 100), np.zeros(100, dtype=np.int64))
    assert (missing == -1).all()


def test_a_row_that_has_gone_makes_place_for_its_trace(seed: int) -> None:
    rng = np.random.default_rng(seed)
    the_table = table()
    hi, lo, group = ids(rng, 500), ids(rng, 500), np.zeros(500, dtype=np.int64)
    add(the_table, hi, lo, group)
    the_table.settle()
    gone = np.arange(0, 500, 2)
    the_table.stage[gone] = GONE
    add(the_table, np.tile(hi, 2), np.tile(lo, 2), np.tile(group, 2))
    the_table.settle()
    found, _ = the_table.find(hi, lo, group)
    expected = np.where(np.arange(500) % 2 == 0, 500 + np.arange(500), np.arange(500))
    assert the_table.code[found].tolist() == expected.tolist()
    assert the_table.repeated == 750
    the_table.keep(the_table.stage[: the_table.count] != GONE)
    the_table.settle()
    found, _ = the_table.find(hi, lo, group)
    assert the_table.code[found].tolist() == expected.tolist()


def test_it_never_has_more_rows_than_it_may(seed: int) -> None:
    rng = np.random.default_rng(seed)
    the_table = table(5000)
    for size in (1, 4999, 1, 3000, 12_000, 700, 700, 700):
        lo = ids(rng, size)
        lo = lo[is_kept(lo, the_table.threshold)]
        add(the_table, np.zeros_like(lo), lo, np.zeros(len(lo), dtype=np.int64))
        assert the_table.count <= 5000
        assert len(the_table.lo) <= 5000
    assert is_kept(the_table.lo[: the_table.count], the_table.threshold).all()
    assert 0 < the_table.threshold < RANGE


def test_ids_without_randomness_are_bounded_too() -> None:
    the_table = table(100)
    for begin in range(0, 1000, 50):
        hi = np.arange(begin, begin + 50, dtype=np.uint64)
        lo = np.zeros(50, dtype=np.uint64)
        kept = is_kept(lo, the_table.threshold)
        add(the_table, hi[kept], lo[kept], np.zeros(int(kept.sum()), dtype=np.int64))
        assert the_table.count <= 100
    assert the_table.threshold == 1


def test_rows_that_are_over_go_before_any_sampling(seed: int) -> None:
    rng = np.random.default_rng(seed)
    the_table = table(1000)
    add(the_table, ids(rng, 900), ids(rng, 900), np.zeros(900, dtype=np.int64))
    the_table.stage[:600] = GONE
    the_table.due_ns[:600] = NEVER_NS
    add(the_table, ids(rng, 200), ids(rng, 200), np.zeros(200, dtype=np.int64))
    assert (the_table.count, the_table.threshold) == (500, 0)


def test_ids_that_are_made_to_collide_are_left_out_and_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    the_table = table()
    lo = ids(rng, 400_000)
    mixed = the_table._first_slots(np.zeros_like(lo), lo)
    same = lo[mixed == 0]
    assert len(same) > 2 * PROBES_MAX
    add(the_table, np.zeros_like(same), same, np.zeros(len(same), dtype=np.int64))
    the_table.settle()
    assert the_table.count == PROBES_MAX
    assert the_table.crowded == len(same) - PROBES_MAX
    found, _ = the_table.find(np.zeros_like(same), same, np.zeros(len(same), dtype=np.int64))
    assert int((found >= 0).sum()) == PROBES_MAX


def test_a_row_takes_few_bytes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    the_table = table(50_000)
    add(the_table, ids(rng, 50_000), ids(rng, 50_000), np.zeros(50_000, dtype=np.int64))
    the_table.settle()
    columns = sum(each.nbytes for each in vars(the_table).values() if isinstance(each, np.ndarray))
    assert ROW_BYTES * 50_000 < columns < BYTES_PER_ROW * 50_000


def test_what_is_due_is_found_by_time() -> None:
    the_table = table()
    lo = np.arange(1, 4, dtype=np.uint64)
    the_table.append(
        lo,
        lo,
        np.zeros(3, dtype=np.int64),
        np.array([30, 10, 20]) * SECOND_NS,
        np.zeros(3, dtype=np.int32),
    )
    assert the_table.next_due_ns == 10 * SECOND_NS
    the_table.settle()
    assert the_table.due(9 * SECOND_NS).tolist() == []
    assert the_table.due(20 * SECOND_NS).tolist() == [1, 2]
