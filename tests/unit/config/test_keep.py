"""Keep rules read as their grammar says, and nothing else does."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.keep import OPERATORS, ORDERINGS, RULE_TEXT_MAX, KeepRule, parse_rule

NAMES = st.from_regex(r"[a-z][a-z_0-9]{0,20}", fullmatch=True).filter(
    lambda name: name not in ("error", "duration")
)

# What a double-quoted value may hold: a rule is one line.
QUOTABLE = st.text(max_size=30).filter(lambda text: not set(text) & {'"', "\n"})


@pytest.mark.parametrize(
    ("text", "subject", "operator", "value"),
    [
        ("error", "error", "", None),
        (" error ", "error", "", None),
        ("confidence < 0.5", "confidence", "<", 0.5),
        ("confidence<0.5", "confidence", "<", 0.5),
        ("duration > 500ms", "duration", ">", 0.5),
        ("duration>=2s", "duration", ">=", 2.0),
        ("class == torn", "class", "==", "torn"),
        ('class != "not known"', "class", "!=", "not known"),
        ("class == 'it is'", "class", "==", "it is"),
        ("missing >= 3", "missing", ">=", 3.0),
        ("score < -1.5e-3", "score", "<", -0.0015),
        ("overridden", "overridden", "", None),
        ("overridden == true", "overridden", "==", "true"),
    ],
)
def test_rule_is_read(text: str, subject: str, operator: str, value: float | str | None) -> None:
    rule = KeepRule(text=text, subject=subject, operator=operator, value=value)
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "write error, duration"),
        ("error == true", "error takes no comparison"),
        ("duration", "compare duration with"),
        ("duration == 5s", "compare duration with"),
        ("duration > 500", "write a duration with its unit"),
        ("duration > fast", "write a duration with its unit"),
        ("0.5 > confidence", "write error, duration"),
        ("confidence <", "write error, duration"),
        ("confidence < 0.5 and error", "quote text that holds spaces"),
        ("confidence =< 0.5", "write error, duration"),
        ("confidence < 1e999", "finite"),
        ("a." + "b", "write error, duration"),
        ("x" * (RULE_TEXT_MAX + 1), "at most 200 characters"),
    ],
)
def test_what_is_no_rule_says_what_to_write(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_rule(text)


@given(NAMES, st.sampled_from(OPERATORS), st.floats(-1e6, 1e6), st.sampled_from(["", " ", "  "]))
def test_number_rule_is_read_back(name: str, operator: str, value: float, space: str) -> None:
    text = f"{name}{space}{operator}{space}{value!r}"
    assert parse_rule(text) == KeepRule(text=text, subject=name, operator=operator, value=value)


@given(st.sampled_from(ORDERINGS), st.integers(0, 10**6))
def test_duration_rule_is_in_seconds(operator: str, duration_ms: int) -> None:
    rule = parse_rule(f"duration {operator} {duration_ms}ms")
    assert rule.value == duration_ms / 1000


@given(NAMES, st.sampled_from(OPERATORS), QUOTABLE)
def test_quoted_text_is_taken_as_it_is(name: str, operator: str, value: str) -> None:
    assert parse_rule(f'{name} {operator} "{value}"').value == value


@given(st.text(alphabet="error duration confidence<>=!0.5ms'\"\n\t", max_size=250))
def test_any_text_is_a_rule_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parse_rule(text).text == text
