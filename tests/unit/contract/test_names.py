"""Names that look like others, hide characters or were never filled in are recognised."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.names import (
    foreign_character,
    is_identifying,
    is_key,
    is_placeholder,
    is_reserved,
    name_character,
    text_fault,
)

ASCII_KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,10}(\.[a-z][a-z0-9_]{0,10}){0,4}", fullmatch=True)


@given(ASCII_KEYS)
def test_names_of_the_conventions_are_keys(key: str) -> None:
    assert is_key(key)
    assert foreign_character(key) is None


@given(ASCII_KEYS, st.integers(0, 50), st.characters(min_codepoint=127))
def test_every_foreign_character_is_found(key: str, at: int, character: str) -> None:
    at %= len(key) + 1
    changed = key[:at] + character + key[at:]
    assert foreign_character(changed) == (at + 1, character)
    assert not is_key(changed)
    assert name_character(character).startswith(f"U+{ord(character):04X} ")


@pytest.mark.parametrize("key", ["weir", "weir.x", "WEIR.x", "redaction.summary"])
def test_own_namespaces_are_reserved(key: str) -> None:
    assert is_reserved(key)


@pytest.mark.parametrize("key", ["weird.x", "a.weir", "edgeai.model.name"])
def test_other_namespaces_are_free(key: str) -> None:
    assert not is_reserved(key)


def test_identifying_attributes_are_known() -> None:
    assert is_identifying("enduser.id")
    assert is_identifying("patient.mrn")
    assert is_identifying("device.id")
    assert not is_identifying("service.name")
    assert not is_identifying("username.policy")


@pytest.mark.parametrize("text", ["", " ", "ToDo", "todo!", "<tbd>", "N/A", "-", "xxx", "..."])
def test_placeholders_are_recognised(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", ["vision@example.com", "todo-app team", "the dock"])
def test_real_text_is_no_placeholder(text: str) -> None:
    assert not is_placeholder(text)


@given(st.text(string.ascii_letters + string.digits + "_-", min_size=1))
def test_plain_text_has_no_fault(text: str) -> None:
    assert text_fault(text) is None


def test_look_alikes_are_named() -> None:
    fault = text_fault("сracked")
    assert fault is not None
    assert "U+0441 CYRILLIC SMALL LETTER ES beside U+0072 LATIN SMALL LETTER R" in fault
