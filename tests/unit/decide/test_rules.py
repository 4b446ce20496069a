"""Keep rules: what each predicate holds for."""

import dataclasses
from typing import Any

import pytest

from gateway.batch import Batch, Findings
from gateway.config.keep import parse_rule
from gateway.contract.plan import Plan
from gateway.contract.schema import Role, SamplingRule, SignalType
from gateway.contract.schema import Signal as ContractSignal
from gateway.decide.rules import compile_rules
from gateway.measure import Measure, MeasureSettings
from tests.unit.measure.build import batch, contract, payload, plan, request, signals, span

BOOLEAN = ContractSignal(name="cold", attribute="cold", type=SignalType.BOOL, role=Role.FEATURE)
COUNT = ContractSignal(name="count", attribute="count", type=SignalType.INT, role=Role.FEATURE)
SIGNALS = {**signals(), "cold": BOOLEAN, "count": COUNT}
NAMES = {name: signal.attribute for name, signal in SIGNALS.items()}


def plan_with(*rules: str) -> Plan:
    keep = tuple(parse_rule(rule) for rule in rules)
    return plan(contract(signals=SIGNALS, sampling=SamplingRule(keep=keep)))


def found_by(the_plan: Plan, one: Batch) -> Findings:
    return Measure(the_plan, MeasureSettings()).observe(one)


def holds(rule: str, *, duration_ns: int = 1_000_000, failed: bool = False, **values: Any) -> bool:
    the_plan = plan_with(rule)
    attributes = {NAMES[name]: value for name, value in values.items()}
    attributes["edgeai.model.name"] = "damage-net"
    spans = [span(1, attributes=attributes, duration_ns=duration_ns, failed=failed)]
    one = batch(the_plan, payload(request(spans)))
    (compiled,) = compile_rules(the_plan, the_plan.contracts[0])
    assert compiled.text == rule
    return bool(compiled.holds(one, found_by(the_plan, one))[0])


def test_error_is_the_status() -> None:
    assert holds("error", failed=True)
    assert not holds("error")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("duration > 1ms", False), ("duration >= 1ms", True), ("duration < 2ms", True)],
)
def test_durations(rule: str, expected: bool) -> None:
    assert holds(rule) is expected


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("confidence < 0.5", 0.4, True),
        ("confidence < 0.5", 0.5, False),
        ("confidence <= 0.5", 0.5, True),
        ("confidence != 0.5", 0.4, True),
        ("confidence != 0.5", float("nan"), False),
        ("confidence != 0.5", "text", False),
        ("confidence < 0.5", None, False),
    ],
)
def test_numbers(rule: str, value: Any, expected: bool) -> None:
    values = {} if value is None else {"confidence": value}
    assert holds(rule, **values) is expected


def test_whole_numbers() -> None:
    assert holds("count >= 3", count=3)
    assert not holds("count >= 3", count=2)


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ("class == torn", "torn", True),
        ("class == torn", "ok", False),
        ("class != ok", "torn", True),
        ("class != ok", "ok", False),
        ("class != ok", None, False),
        ("class != ok", 7, False),
    ],
)
def test_texts(rule: str, value: Any, expected: bool) -> None:
    values = {} if value is None else {"class": value}
    assert holds(rule, **values) is expected


def test_booleans_as_a_contract_binds_them() -> None:
    the_plan = plan_with()
    attributes = {"edgeai.model.name": "damage-net", "cold": True}
    one = batch(the_plan, payload(request([span(1, attributes=attributes)])))
    findings = found_by(the_plan, one)
    for operator, value, expected in (
        ("==", 1.0, True),
        ("==", 0.0, False),
        ("!=", 1.0, False),
        ("!=", 0.0, True),
    ):
        rule = dataclasses.replace(parse_rule("cold"), operator=operator, value=value)
        bound = contract(signals=SIGNALS, sampling=SamplingRule(keep=(rule,)))
        (compiled,) = compile_rules(the_plan, bound)
        assert bool(compiled.holds(one, findings)[0]) is expected


def test_a_contract_without_rules_takes_those_of_the_site() -> None:
    the_plan = plan(contract(), keep=("error", "duration > 1s"))
    for each in (the_plan.contracts[0], None):
        assert [rule.text for rule in compile_rules(the_plan, each)] == ["error", "duration > 1s"]
