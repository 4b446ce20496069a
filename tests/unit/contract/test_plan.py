"""A plan is a pure function of contracts and sampling, and refuses what cannot work together."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config import SamplingSection
from gateway.contract.load import load_contracts
from gateway.contract.plan import CONTRACTS_MAX, SLOT_KEYS_MAX, STANDARD_KEYS, compile_plan
from gateway.contract.schema import Contract, Role, Signal, SignalType
from gateway.errors import InvalidConfigError
from tests.unit.contract.texts import EXAMPLES, HEAD, SIGNALS, loaded


@pytest.fixture
def examples() -> tuple[Contract, ...]:
    return load_contracts([EXAMPLES])


def test_slots_hold_every_key_that_is_named(examples: tuple[Contract, ...]) -> None:
    plan = compile_plan(examples, SamplingSection())
    assert plan.slot_keys[: len(STANDARD_KEYS)] == tuple(key.encode() for key in STANDARD_KEYS)
    assert len(set(plan.slot_keys)) == len(plan.slot_keys)
    for contract in examples:
        named = {*contract.match, *contract.resource}
        named |= {signal.attribute for signal in contract.signals.values()}
        for key in named:
            assert plan.slot_keys[plan.slot_of[key]] == key.encode()


def test_feature_of_the_cost_has_a_slot(tmp_path: Path) -> None:
    cost = "cost: {currency: USD, per_inference: 1, feature: app.use, features: [sorting]}\n"
    plan = compile_plan((loaded(tmp_path, HEAD + cost),), SamplingSection())
    assert plan.slot_keys[plan.slot_of["app.use"]] == b"app.use"


def test_plan_without_contracts_reads_the_standard_keys() -> None:
    plan = compile_plan((), SamplingSection())
    assert plan.contracts == ()
    assert len(plan.slot_keys) == len(STANDARD_KEYS)


def test_site_rules_are_parsed() -> None:
    sampling = SamplingSection(keep=("error", "duration > 2s"), rate=0.5, bytes_per_second=10)
    plan = compile_plan((), sampling)
    assert [(rule.subject, rule.value) for rule in plan.keep] == [("error", None), ("duration", 2)]
    assert (plan.rate, plan.bytes_per_second) == (0.5, 10)


def test_order_of_files_does_not_matter(examples: tuple[Contract, ...]) -> None:
    plan = compile_plan(examples, SamplingSection())
    again = compile_plan(tuple(reversed(examples)), SamplingSection())
    assert plan == again


def test_more_specific_match_is_tried_first(tmp_path: Path) -> None:
    wide = loaded(tmp_path, HEAD)
    narrow = replace(wide, model="z", match={**wide.match, "service.name": "dock"})
    plan = compile_plan((wide, narrow), SamplingSection())
    assert [contract.model for contract in plan.contracts] == ["z", "damage-net"]


def test_digest_changes_with_contracts_and_sampling(examples: tuple[Contract, ...]) -> None:
    digests = {
        compile_plan(examples, SamplingSection()).digest,
        compile_plan(examples[:1], SamplingSection()).digest,
        compile_plan(examples, SamplingSection(rate=0.5)).digest,
        compile_plan(examples, SamplingSection(keep=())).digest,
    }
    assert len(digests) == 4


def test_faults_are_told_at_once(tmp_path: Path) -> None:
    contract = loaded(tmp_path, HEAD + SIGNALS)
    sampling = SamplingSection(keep=("confidence < 0.5", "error", "nonsense <"))
    with pytest.raises(InvalidConfigError) as caught:
        compile_plan((contract, replace(contract, source="b")), sampling)
    assert [finding.rule for finding in caught.value.findings] == [
        "duplicate-model",
        "keep-rule",
        "keep-rule",
    ]


def test_slots_and_contracts_have_limits(tmp_path: Path) -> None:
    contract = loaded(tmp_path, HEAD)
    signals = {
        f"s{number}": Signal(
            name=f"s{number}", attribute=f"a.{number}", type=SignalType.BOOL, role=Role.FEATURE
        )
        for number in range(SLOT_KEYS_MAX)
    }
    with pytest.raises(InvalidConfigError, match="attribute keys named by contracts"):
        compile_plan((replace(contract, signals=signals),), SamplingSection())
    many = [
        replace(contract, model=f"m{number}", match={"m": str(number)})
        for number in range(CONTRACTS_MAX + 1)
    ]
    with pytest.raises(InvalidConfigError, match="257 contracts"):
        compile_plan(many, SamplingSection())
