"""The grammar of keep rules: which spans are always kept, whatever the sampling rate.

Grammar: `error` | `duration` op duration | signal op number | signal op word | signal, with op one
of < <= > >= == !=. A word may be quoted. Whether the signal exists and has a fitting type is not
the grammar's business: site rules know none, `contract.rule` binds those of a contract.
"""

import re
from dataclasses import dataclass
from typing import Final

from gateway.config.units import is_finite, parse_duration

RULE_TEXT_MAX: Final = 200  # characters
SUBJECT_ERROR: Final = "error"
SUBJECT_DURATION: Final = "duration"
ORDERINGS: Final = ("<", "<=", ">", ">=")
OPERATORS: Final = (*ORDERINGS, "==", "!=")

_RULE = re.compile(
    r"(?P<subject>[A-Za-z_][A-Za-z0-9_]{0,63})"
    r"(?:\s*(?P<operator><=|>=|==|!=|<|>)\s*(?P<value>\S(?:.*\S)?))?"
)
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,3})?"
)
_WORD = re.compile(r"[^\s\"'<>=!]+")
_QUOTED = re.compile(r"\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepRule:
    """One keep rule. Units: the value of a duration rule is in seconds.

    A rule about a bool signal has the value 1.0 or 0.0 once it is bound to a contract. The
    operator is empty for `error` alone.
    """

    text: str
    subject: str
    operator: str
    value: float | str | None


def parse_rule(text: str) -> KeepRule:
    """Read one keep rule. Raises: ValueError with what to write instead."""
    if len(text) > RULE_TEXT_MAX:
        raise ValueError(f"write a rule of at most {RULE_TEXT_MAX} characters")
    found = _RULE.fullmatch(text.strip())
    if found is None:
        raise ValueError("write error, duration > 500ms, or a signal such as confidence < 0.5")
    subject, operator, value = found["subject"], found["operator"] or "", found["value"]
    if subject == SUBJECT_ERROR and operator:
        raise ValueError("error takes no comparison: write error alone")
    if subject == SUBJECT_DURATION:
        return _duration_rule(text, operator, value)
    if value is None:
        return KeepRule(text=text, subject=subject, operator="", value=None)
    return KeepRule(text=text, subject=subject, operator=operator, value=_value(value))


def _duration_rule(text: str, operator: str, value: str | None) -> KeepRule:
    if value is None or operator not in ORDERINGS:
        raise ValueError("compare duration with <, <=, > or >=, such as duration > 500ms")
    return KeepRule(
        text=text, subject=SUBJECT_DURATION, operator=operator, value=parse_duration(value)
    )


def _value(text: str) -> float | str:
    if _NUMBER.fullmatch(text):
        number = float(text)
        if not is_finite(number):
            raise ValueError("compare with a finite number")
        return number
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        return quoted["double"] if quoted["double"] is not None else quoted["single"]
    if _WORD.fullmatch(text):
        return text
    raise ValueError("compare with one number or one word; quote text that holds spaces")
