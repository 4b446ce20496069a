"""Figures are printed with their spread, and as JSON without loss."""

import json

import pytest

from benchmarks.clock import Laps, seconds_each
from benchmarks.report import Table, machine, number, plain, render, spread, summarize


def test_summary_is_median_and_quartiles() -> None:
    found = summarize([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (found.low, found.median, found.high, found.repeats) == (2.0, 3.0, 4.0, 5)
    assert found.over(summarize([1.5])) == 2.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (3.14159, "3.14"), (31.4159, "31.4"), (314.159, "314"), (2_500_000, "2.50 M")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_table_is_aligned_and_has_its_notes() -> None:
    table = Table(title="T", columns=("a", "b"), rows=(("x", "1"), ("long", "100")), notes=("n",))
    assert render(table).splitlines() == [
        "T",
        "  a        b",
        "  x        1",
        "  long   100",
        "  n",
    ]


def test_summaries_become_plain_json() -> None:
    figures = plain({"a": {"b": summarize([1.0])}, "c": 2})
    assert json.loads(json.dumps(figures))["a"]["b"]["median"] == 1.0
    assert spread(summarize([1.0])) == "1.00 [1.00, 1.00]"


def test_machine_is_described() -> None:
    assert {"processor", "memory", "system", "python", "versions"} <= machine().keys()


def test_clock_repeats_and_laps_add_up() -> None:
    laps = Laps()
    work = laps.timed("sum", lambda: sum(range(1000)))
    assert work() == 499_500
    assert laps.seconds["sum"] >= 0
    assert len(seconds_each(lambda: sum(range(1000)), 0.01)) >= 3
