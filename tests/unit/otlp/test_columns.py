"""The column readers against a plain walk over the attributes that were sent."""

import math
from typing import Any

import numpy as np
import pytest

from gateway.batch import Batch
from gateway.otlp import columns
from tests.unit.measure.build import attribute, batch, payload, plan, request, span

KEY = "edgeai.inference.confidence"
PLAN = plan()
SLOT = PLAN.slot_of[KEY]
VERSION = PLAN.slot_of["service.version"]
MIXES: list[list[Any]] = [
    [0.5, 0.25],
    [0.5, None, 3, True, False, "text", float("nan")],
    [None, None],
    [True, False],
    [4, -7],
    ["a", "bc", ""],
    ["a", None, 7],
    [],
]


def made(values: list[Any]) -> Batch:
    """Send the values, then a span that carries the key twice, then one that does not have it."""
    spans = [
        span(number + 1, attributes={} if value is None else {KEY: value})
        for number, value in enumerate(values)
    ]
    twice = span(99, attributes={KEY: 0.5})
    twice.attributes.append(attribute(KEY, 0.6))
    bodies = [request([*spans, twice]), request([span(100)], {"service.version": "1"})]
    return batch(PLAN, *(payload(body) for body in bodies))


def as_number(value: Any) -> float:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric else math.nan


@pytest.mark.parametrize("values", MIXES, ids=str)
def test_every_reader_finds_what_was_sent_once_with_its_kind(values: list[Any]) -> None:
    one = made(values)
    expected = [*values, None, None]
    numbers = columns.numbers(one, SLOT)
    assert np.array_equal(numbers, [as_number(v) for v in expected], equal_nan=True)
    booleans = columns.booleans(one, SLOT).tolist()
    assert booleans == [int(v) if isinstance(v, bool) else -1 for v in expected]
    offset, length, present = columns.span_texts(one, SLOT)
    texts = [
        one.text(int(o), int(n)).decode() if p else None
        for o, n, p in zip(offset, length, present, strict=True)
    ]
    assert texts == [v if isinstance(v, str) else None for v in expected]
    assert length[~present].sum() == 0


def test_a_column_without_gaps_is_read_the_same() -> None:
    spans = [span(each, attributes={KEY: each / 7}) for each in (1, 2)]
    one = batch(PLAN, payload(request(spans)))
    assert columns.numbers(one, SLOT).tolist() == [1 / 7, 2 / 7]


def test_resource_texts_are_found_by_resource() -> None:
    one = made([0.5])
    offset, length, present = columns.resource_texts(one, VERSION)
    found = {
        one.text(int(o), int(n)) for o, n in zip(offset[present], length[present], strict=True)
    }
    assert found == {b"1"}


def test_codes_are_renumbered_in_their_order() -> None:
    seen, places = columns.compact(np.array([7, 2, 7, 9]), 12)
    assert seen == [2, 7, 9]
    assert places.tolist() == [1, 0, 1, 2]
