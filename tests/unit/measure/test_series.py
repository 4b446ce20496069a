"""The series table: bounded, exact, mergeable."""

import numpy as np

from gateway.measure.series import OTHER, SeriesTable, merge
from gateway.tables import Int16, Int32
from tests.unit.measure.build import contract, plan

PLAN = plan(contract("damage-net"), contract("triage-net"))


def rows(*pairs: tuple[int, int]) -> tuple[Int16, Int32]:
    return (
        np.array([pair[0] for pair in pairs], dtype=np.int16),
        np.array([pair[1] for pair in pairs], dtype=np.int32),
    )


def table(series_max: int = 8, versions: int = 4) -> SeriesTable:
    made = SeriesTable(PLAN, series_max)
    for number in range(1, versions):
        made.versions.index(f"v{number}".encode())
    return made


def test_series_are_numbered_by_first_occurrence() -> None:
    made = table()
    found, fresh = made.find(*rows((1, 2), (0, 1), (1, 2), (0, -1)))
    assert found.tolist() == [0, 1, 0, 2]
    assert fresh == [0, 1, 2]
    assert made.names == (("triage-net", "v2"), ("damage-net", "v1"), ("damage-net", "unknown"))
    assert made.find(*rows((0, 1)))[0].tolist() == [1]


def test_past_the_limit_everything_counts_in_one_series() -> None:
    made = table(series_max=2)
    found, _ = made.find(*rows((0, 0), (0, 1), (0, 2), (1, 0), (0, 1), (0, -2)))
    other = (OTHER, OTHER)
    known = [("damage-net", "unknown"), ("damage-net", "v1")]
    assert [made.names[each] for each in found] == [*known, other, other, known[1], other]
    assert len(made) == 3
    made.add(found.astype(np.int64), np.zeros(6, dtype=np.bool_), None)
    assert made.outcomes[:3].sum() == 6


def test_outcomes_and_cold_starts_are_counted() -> None:
    made = table()
    series, _ = made.find(*rows((0, 0), (0, 0), (1, 0)))
    failed, cold = np.array([True, False, False]), np.array([True, True, False])
    made.add(series.astype(np.int64), failed, cold)
    assert made.outcomes[:2].tolist() == [[1, 1], [1, 0]]
    assert made.cold_starts[:2].tolist() == [2, 0]


def test_the_state_comes_back_and_goes_on() -> None:
    made = table(versions=12)
    series, _ = made.find(*rows(*((0, version) for version in range(7))))
    made.add(series.astype(np.int64), np.zeros(7, dtype=np.bool_), None)
    other = SeriesTable(PLAN, 8)
    other.restore(made.state())
    assert other.names == made.names
    known = other.versions.index(b"v3")
    assert other.find(*rows((0, known)))[0].tolist() == [3]


def test_a_series_whose_contract_is_gone_keeps_its_counts() -> None:
    made = table()
    series, _ = made.find(*rows((1, 1), (0, 1)))
    made.add(series.astype(np.int64), np.ones(2, dtype=np.bool_), None)
    other = SeriesTable(plan(contract("damage-net")), 8)
    other.restore(made.state())
    assert other.contract == [-1, 0]
    assert other.outcomes[:2].tolist() == [[0, 1], [0, 1]]


def test_merging_adds_by_name() -> None:
    one, two = table(), table()
    for made, pairs in ((one, ((0, 1), (1, 2))), (two, ((1, 2), (0, 3)))):
        series, _ = made.find(*rows(*pairs))
        made.add(series.astype(np.int64), np.zeros(2, dtype=np.bool_), None)
    other = SeriesTable(PLAN, 8)
    other.restore(merge(one.state(), two.state()))
    counts = dict(zip(other.names, other.outcomes[:, 0].tolist(), strict=False))
    assert counts == {
        ("damage-net", "v1"): 1,
        ("triage-net", "v2"): 2,
        ("damage-net", "v3"): 1,
    }
