"""Keep rules, compiled to predicates over the columns of a batch.

Law: a predicate reads attributes, status and duration, never a trace id or anything made of it, so
that what a rule keeps is independent of the randomness of the rest. A missing value fulfils no
rule.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gateway.batch import Batch, Findings
from gateway.config.keep import SUBJECT_DURATION, SUBJECT_ERROR, KeepRule
from gateway.contract.plan import Plan
from gateway.contract.schema import Contract, SignalType
from gateway.otlp import columns
from gateway.otlp.kernel import Literals
from gateway.tables import Bool

SECOND_NS: Final = 1_000_000_000
_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
Predicate = Callable[[Batch, Findings], Bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of one contract, or of the site."""

    text: str
    holds: Predicate


def compile_rules(plan: Plan, contract: Contract | None) -> tuple[Rule, ...]:
    """Compile a contract's own rules, those of the site when it has none."""
    rules = plan.keep
    if contract is not None and contract.sampling.keep:
        rules = contract.sampling.keep
    return tuple(
        Rule(text=rule.text, holds=predicate)
        for rule in rules
        if (predicate := _maybe_predicate(plan, contract, rule)) is not None
    )


def _maybe_predicate(plan: Plan, contract: Contract | None, rule: KeepRule) -> Predicate | None:
    if rule.subject == SUBJECT_ERROR:
        return _failed
    if rule.subject == SUBJECT_DURATION:
        return _duration(rule)
    signal = None if contract is None else contract.signals.get(rule.subject)
    if signal is None:
        return None  # the contract loader refuses it; a plan made otherwise keeps nothing by it
    slot = plan.slot_of[signal.attribute]
    if signal.type in (SignalType.DOUBLE, SignalType.INT):
        return _number(slot, rule)
    if signal.type is SignalType.BOOL:
        return _boolean(slot, rule)
    return _text(slot, rule)


def _failed(_batch: Batch, findings: Findings) -> Bool:
    return findings.failed


def _duration(rule: KeepRule) -> Predicate:
    compare = _OPERATORS[rule.operator]
    limit_ns = np.uint64(round(float(rule.value or 0) * SECOND_NS))

    def holds(_batch: Batch, findings: Findings) -> Bool:
        found: Bool = compare(findings.duration_ns, limit_ns)
        return found

    return holds


def _number(slot: int, rule: KeepRule) -> Predicate:
    compare = _OPERATORS[rule.operator]
    limit = float(rule.value or 0)

    def holds(batch: Batch, _findings: Findings) -> Bool:
        values = columns.numbers(batch, slot)
        found: Bool = compare(values, limit)
        # NaN is unequal to everything, and is no reason to keep a span.
        return found & ~np.isnan(values)

    return holds


def _boolean(slot: int, rule: KeepRule) -> Predicate:
    wanted = 1 if rule.value is None or rule.value in (1.0, "true") else 0
    if rule.operator == "!=":
        wanted = 1 - wanted

    def holds(batch: Batch, _findings: Findings) -> Bool:
        found: Bool = columns.booleans(batch, slot) == wanted
        return found

    return holds


def _text(slot: int, rule: KeepRule) -> Predicate:
    literals = Literals([_written(rule.value).encode()])
    is_equal = rule.operator == "=="
    is_any = rule.operator == ""

    def holds(batch: Batch, _findings: Findings) -> Bool:
        offset, length, present = columns.span_texts(batch, slot)
        if is_any:
            return present
        same = literals.codes(batch.arena, offset, length) == 0
        held: Bool = present & (same if is_equal else ~same)
        return held

    return holds


def _written(value: float | str | None) -> str:
    """Return a rule's value as text; numbers without a needless fraction."""
    return f"{value:g}" if isinstance(value, float) else value or ""
