"""Keep rules bound to the signals of a contract.

Law: a bound rule refers to a declared signal, its operator fits the type, and its value can occur.
The grammar itself is `gateway.config.keep`, because the site file has keep rules too.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from gateway.config.keep import (
    ORDERINGS,
    SUBJECT_DURATION,
    SUBJECT_ERROR,
    KeepRule,
    parse_rule,
)
from gateway.config.validate import nearest
from gateway.contract.schema import NUMERIC, Signal, SignalType

__all__ = ["KeepRule", "bind_rule", "parse_rule"]

_BOOL_WORDS: Final = {"true": 1.0, "false": 0.0}


def bind_rule(rule: KeepRule, signals: Mapping[str, Signal]) -> KeepRule:
    """Fit a rule to the signals of a contract. Raises: ValueError with what to write instead."""
    if rule.subject in (SUBJECT_ERROR, SUBJECT_DURATION):
        return rule
    signal = signals.get(rule.subject)
    if signal is None:
        raise ValueError(unknown_signal(rule.subject, signals))
    if signal.type is SignalType.BOOL:
        return _bind_bool(rule)
    if not rule.operator:
        raise ValueError(f"compare {signal.name} with a value, such as {_example(signal)}")
    if signal.type in NUMERIC:
        return _bind_number(rule, signal)
    return _bind_text(rule, signal)


def unknown_signal(subject: str, signals: Collection[str]) -> str:
    """Say that no signal has this name, and which has nearly this one."""
    known = (SUBJECT_ERROR, SUBJECT_DURATION, *signals)
    return f"no signal has the name {subject!r}: {nearest(subject, known)}"


def _bind_bool(rule: KeepRule) -> KeepRule:
    if not rule.operator:
        return replace(rule, operator="==", value=1.0)
    if rule.operator in ORDERINGS or rule.value not in _BOOL_WORDS:
        raise ValueError(f"write {rule.subject} alone, or {rule.subject} == false")
    return replace(rule, value=_BOOL_WORDS[str(rule.value)])


def _bind_number(rule: KeepRule, signal: Signal) -> KeepRule:
    if isinstance(rule.value, str) or rule.value is None:
        raise ValueError(f"{signal.name} is a number: write {_example(signal)}")
    if signal.type is SignalType.DOUBLE and rule.operator not in ORDERINGS:
        raise ValueError(f"equality of doubles is chance: write {_example(signal)}")
    if signal.range is not None and not _can_split(rule.operator, rule.value, signal.range):
        low, high = signal.range
        raise ValueError(
            f"{signal.name} lies in [{low:g}, {high:g}], so that the rule keeps all or nothing"
        )
    return rule


def _can_split(operator: str, value: float, bounds: tuple[float, float]) -> bool:
    """Tell whether values inside the bounds exist on both sides of the comparison."""
    low, high = bounds
    if operator in ("<", ">="):
        return low < value <= high
    if operator in ("<=", ">"):
        return low <= value < high
    return low <= value <= high


def _bind_text(rule: KeepRule, signal: Signal) -> KeepRule:
    value = f"{rule.value:g}" if isinstance(rule.value, float) else rule.value
    if rule.operator in ORDERINGS or value is None:
        raise ValueError(f"{signal.name} is text: write {_example(signal)}")
    if signal.type is SignalType.ENUM and value not in signal.values:
        raise ValueError(f"{signal.name} has no value {value!r}: {nearest(value, signal.values)}")
    return replace(rule, value=value)


def _example(signal: Signal) -> str:
    if signal.type in NUMERIC:
        low, high = signal.range or (0.0, 1.0)
        return f"{signal.name} < {(low + high) / 2:g}"
    return f"{signal.name} == {signal.values[0] if signal.values else 'text'}"
