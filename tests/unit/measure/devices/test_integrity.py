"""Integrity: every violation pages at once and stays until somebody has seen it."""

import json

import numpy as np
import pytest

from gateway.batch import NO_CONTRACT, NO_SERIES, AnomalyKind, Severity, Team
from gateway.measure.devices.integrity import EVIDENCE_MAX, Integrity, merge
from gateway.measure.episodes import anomaly_id
from gateway.measure.match import Matcher, inherit
from gateway.measure.state import pack_json, unpack_json
from gateway.measure.trouble import Trouble
from tests.unit.measure.build import (
    SECOND_NS,
    START_NS,
    batch,
    contract,
    payload,
    plan,
    request,
    span,
)

PLAN = plan(contract("a"), contract("b"))
MATCHER = Matcher(PLAN)
DAY_NS = 86_400 * SECOND_NS


def declare(
    integrity: Integrity,
    model: str = "a",
    *,
    at_ns: int = START_NS,
    arrival_ns: int = START_NS,
    error: str = "_OTHER",
    device: str = "edge-1",
) -> None:
    integrity.violated(
        model=model, version="1", error=error, device=device, at_ns=at_ns, arrival_ns=arrival_ns
    )


def observe(integrity: Integrity, *values: object, model: str = "a") -> list[int]:
    spans = [
        span(
            16 + at,
            end_ns=START_NS - at,
            attributes={"edgeai.model.name": model, "edgeai.integrity.violation": value},
        )
        for at, value in enumerate(values)
    ]
    one = batch(PLAN, payload(request(spans, {"device.id": "edge-1"})))
    found = inherit(one, MATCHER.contracts(one))
    rows = integrity.add(
        one,
        contract=found,
        series=np.where(found == NO_CONTRACT, NO_SERIES, 0),
        series_names=(("a", "1.0"),),
        device=np.zeros(len(found), dtype=np.int64),
        devices=("edge-1",),
        event_ns=one.spans["end_ns"].astype(np.int64),
    )
    return [int(row) for row in rows]


def the_id(trouble: Trouble) -> str:
    return anomaly_id(
        trouble.kind, trouble.model, trouble.version, trouble.subject, trouble.onset_ns
    )


def test_one_span_pages_at_once() -> None:
    integrity = Integrity(PLAN)
    assert observe(integrity, False, True, 1, "true") == [1]
    (trouble,) = integrity.troubles()
    assert trouble.kind is AnomalyKind.INTEGRITY
    assert trouble.severity is Severity.PAGE
    assert (trouble.contract, trouble.model, trouble.version) == (0, "a", "1.0")
    assert trouble.onset_ns == START_NS - 1
    assert [each.trace_id for each in trouble.evidence] == [f"{17:032x}"]
    assert trouble.numbers == {"violations": 1, "violations_total": 1, "devices": 1}
    assert "edge-1" not in trouble.summary


def test_it_stays_until_that_page_is_acknowledged() -> None:
    integrity = Integrity(PLAN)
    declare(integrity)
    declare(integrity, device="edge-2", at_ns=START_NS + 5)
    (first,) = integrity.troubles()
    assert first.numbers == {"violations": 2, "violations_total": 2, "devices": 2}
    assert not integrity.acknowledge("0" * 32)
    assert integrity.latched == ("a",)
    assert integrity.acknowledge(the_id(first))
    assert not integrity.troubles()
    assert not integrity.acknowledge(the_id(first))


def test_the_next_violation_after_that_is_a_new_page() -> None:
    integrity = Integrity(PLAN)
    declare(integrity)
    (first,) = integrity.troubles()
    integrity.acknowledge(the_id(first))
    declare(integrity)
    (second,) = integrity.troubles()
    assert (second.kind, second.model) == (first.kind, first.model)
    assert second.subject != first.subject
    assert the_id(second) != the_id(first)
    assert second.numbers["violations_total"] == 2
    assert second.numbers["violations"] == 1


def test_what_follows_does_not_change_the_id_of_an_open_page() -> None:
    integrity = Integrity(PLAN)
    declare(integrity)
    before = the_id(integrity.troubles()[0])
    observe(integrity, *[True] * 50)
    declare(integrity, at_ns=START_NS - DAY_NS)
    (trouble,) = integrity.troubles()
    assert the_id(trouble) == before
    assert trouble.numbers["violations"] == 52
    assert len(trouble.evidence) == EVIDENCE_MAX


@pytest.mark.parametrize(
    ("at_ns", "onset_ns"),
    [
        (START_NS - 5, START_NS - 5),
        (START_NS + 10**18, START_NS),
        (0, START_NS - DAY_NS),
        (-(10**18), START_NS - DAY_NS),
    ],
)
def test_a_wrong_clock_does_not_say_when_it_began(at_ns: int, onset_ns: int) -> None:
    integrity = Integrity(PLAN)
    declare(integrity, at_ns=at_ns)
    assert integrity.troubles()[0].onset_ns == onset_ns


def test_violations_without_a_contract_are_those_of_the_site() -> None:
    integrity = Integrity(PLAN)
    declare(integrity, "unknown")
    observe(integrity, True, model="unknown")
    (trouble,) = integrity.troubles()
    assert (trouble.contract, trouble.model, trouble.version) == (NO_CONTRACT, "", "")
    assert trouble.numbers["violations"] == 2


@pytest.mark.parametrize(
    ("errors", "team"),
    [
        (("_OTHER",), Team.ML_ENGINEERING),
        (("firmware", "disk", "_OTHER"), Team.DEVICE_OPS),
        (("firmware", "_OTHER"), Team.ML_ENGINEERING),
    ],
)
def test_most_of_what_was_violated_says_whose_it_is(errors: tuple[str, ...], team: Team) -> None:
    integrity = Integrity(PLAN)
    for error in errors:
        declare(integrity, error=error)
    assert integrity.troubles()[0].team is team


def test_a_restart_changes_nothing() -> None:
    integrity, other = Integrity(PLAN), Integrity(PLAN)
    declare(integrity)
    integrity.acknowledge(the_id(integrity.troubles()[0]))
    observe(integrity, True, True)
    declare(integrity, "b")
    other.restore(integrity.state())
    assert other.troubles() == integrity.troubles()
    for each in (integrity, other):
        declare(each)
    assert other.troubles() == integrity.troubles()
    assert np.array_equal(other.state()["text"], integrity.state()["text"])


def test_a_page_of_a_model_without_a_contract_goes_to_the_site() -> None:
    integrity = Integrity(PLAN)
    declare(integrity)
    declare(integrity, "unknown", at_ns=START_NS - 9)
    other = Integrity(plan(contract("b")))
    other.restore(integrity.state())
    (trouble,) = other.troubles()
    assert (trouble.model, trouble.numbers["violations"]) == ("", 2)
    assert trouble.onset_ns == START_NS - 9


def test_the_violations_of_two_sites_add_up_in_any_order() -> None:
    one, two = Integrity(PLAN), Integrity(PLAN)
    for _ in range(3):
        declare(one)
    declare(two, at_ns=START_NS - 7, device="edge-2")
    declare(two, "b")
    found = []
    for first, second in ((one, two), (two, one)):
        joined = Integrity(PLAN)
        joined.restore(merge(first.state(), second.state()))
        found.append(joined.troubles())
    assert found[0] == found[1]
    assert found[0][0].numbers == {"violations": 4, "violations_total": 4, "devices": 2}
    assert found[0][0].onset_ns == START_NS - 7


def test_the_state_is_text_that_a_person_can_read() -> None:
    integrity = Integrity(PLAN)
    declare(integrity)
    text = unpack_json(integrity.state()["text"])
    assert np.array_equal(pack_json(text), integrity.state()["text"])
    assert json.dumps(text).count("edge-1") == 1
