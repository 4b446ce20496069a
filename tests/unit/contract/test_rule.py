"""A bound rule refers to a declared signal, fits its type and can keep some but not all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.keep import ORDERINGS, parse_rule
from gateway.contract.rule import bind_rule
from gateway.contract.schema import Role, Signal, SignalType

LEVEL = Signal(
    name="level", attribute="a", type=SignalType.INT, role=Role.FEATURE, range=(0.0, 10.0)
)
OPEN = Signal(name="open", attribute="b", type=SignalType.DOUBLE, role=Role.FEATURE)
SIGNALS = {"level": LEVEL, "open": OPEN}
COMPARE = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@given(st.sampled_from(ORDERINGS), st.integers(-5, 15))
def test_rule_is_refused_exactly_when_it_keeps_all_or_nothing(operator: str, value: int) -> None:
    kept = [COMPARE[operator](level, value) for level in range(11)]
    rule = parse_rule(f"level {operator} {value}")
    if any(kept) and not all(kept):
        assert bind_rule(rule, SIGNALS) == rule
    else:
        with pytest.raises(ValueError, match=r"level lies in \[0, 10\]"):
            bind_rule(rule, SIGNALS)


@given(st.sampled_from(ORDERINGS), st.floats(-1e9, 1e9))
def test_signal_without_a_range_takes_any_number(operator: str, value: float) -> None:
    rule = parse_rule(f"open {operator} {value!r}")
    assert bind_rule(rule, SIGNALS).value == value


def test_rules_about_error_and_duration_need_no_signal() -> None:
    for text in ("error", "duration > 5s"):
        rule = parse_rule(text)
        assert bind_rule(rule, {}) is rule


def test_unknown_signal_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'level'"):
        bind_rule(parse_rule("levle < 3"), SIGNALS)
    with pytest.raises(ValueError, match="error, duration, level, open"):
        bind_rule(parse_rule("zzz < 3"), SIGNALS)
