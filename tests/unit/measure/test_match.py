"""Which spans are inferences, of which contract and version."""

from typing import Any

import pytest

from gateway.batch import Batch
from gateway.contract.plan import Plan
from gateway.measure.match import Matcher, inherit, versions
from gateway.measure.texts import Interner
from tests.unit.measure.build import batch, contract, payload, plan, request, span

NAME = "edgeai.model.name"


def names(the_plan: Plan, one: Batch, *, inherited: bool = False) -> list[str | None]:
    found = Matcher(the_plan).contracts(one)
    found = inherit(one, found) if inherited else found
    return [None if index < 0 else the_plan.contracts[index].model for index in found.tolist()]


def test_a_span_attribute_matches() -> None:
    the_plan = plan(contract("a"), contract("b"))
    spans = [span(1, attributes={NAME: "b"}), span(2, attributes={NAME: "x"}), span(3)]
    assert names(the_plan, batch(the_plan, payload(request(spans)))) == ["b", None, None]


def test_a_resource_attribute_matches_and_either_is_enough() -> None:
    the_plan = plan(contract("a"), contract("b"))
    spans = [span(1), span(2, attributes={NAME: "b"}), span(3, attributes={NAME: "x"})]
    one = batch(the_plan, payload(request(spans, {NAME: "a"})))
    assert names(the_plan, one) == ["a", "b", "a"]


def test_all_attributes_of_a_match_are_needed() -> None:
    both = contract("both", match={NAME: "a", "service.name": "dock"})
    the_plan = plan(contract("a"), both)
    bodies = [
        request([span(1, attributes={NAME: "a"})], {"service.name": "dock"}),
        request([span(2, attributes={NAME: "a"})], {"service.name": "yard"}),
        request([span(3)], {"service.name": "dock"}),
    ]
    one = batch(the_plan, *(payload(body) for body in bodies))
    assert names(the_plan, one) == ["both", "a", None]


def test_contracts_with_different_keys_are_tried_in_the_order_of_the_plan() -> None:
    by_service = contract("a-service", match={"service.name": "dock"})
    the_plan = plan(contract("b"), by_service)
    spans = [span(1, attributes={NAME: "b"}), span(2)]
    one = batch(the_plan, payload(request(spans, {"service.name": "dock"})))
    first = the_plan.contracts[0].model
    assert names(the_plan, one) == [first, "a-service"]


def test_other_spans_of_a_trace_inherit() -> None:
    the_plan = plan(contract("a"), contract("b"))
    spans = [
        span(1, 1),
        span(1, 2, attributes={NAME: "b"}),
        span(1, 3, attributes={NAME: "a"}),
        span(1, 4),
        span(2, 5),
    ]
    one = batch(the_plan, payload(request(spans)))
    assert names(the_plan, one) == [None, "b", "a", None, None]
    assert names(the_plan, one, inherited=True) == ["b", "b", "a", "b", None]


@pytest.mark.parametrize(
    ("on_span", "on_resource", "expected"),
    [
        ({"edgeai.model.version": "s"}, {"edgeai.model.version": "r"}, b"s"),
        ({}, {"edgeai.model.version": "r", "service.version": "v"}, b"r"),
        ({}, {"service.version": "v"}, b"v"),
        ({"service.version": "v"}, {}, None),
        ({"edgeai.model.version": 3}, {"service.version": "v"}, b"v"),
        ({"edgeai.model.version": ""}, {"edgeai.model.version": "r"}, b"r"),
    ],
)
def test_the_version_comes_from_the_nearest_place(
    on_span: dict[str, Any], on_resource: dict[str, Any], expected: bytes | None
) -> None:
    the_plan, known = plan(), Interner(8)
    one = batch(the_plan, payload(request([span(1, attributes=on_span)], on_resource)))
    (found,) = versions(one, the_plan, known).tolist()
    assert (None if found < 0 else known.texts[found]) == expected
