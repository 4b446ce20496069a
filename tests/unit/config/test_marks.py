"""YAML becomes plain data with exact places, and whatever is not read has a finding."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.marks import (
    DEPTH_MAX,
    FILE_BYTES_MAX,
    Document,
    Place,
    read_yaml,
    read_yaml_all,
)
from gateway.config.rules import FindingRule


def rules(document: Document) -> list[str]:
    return [finding.rule for finding in document.findings]


def only(text: str | bytes) -> tuple[str, int, int]:
    content = text if isinstance(text, bytes) else text.encode()
    (finding,) = read_yaml("f.yaml", content).findings
    assert finding.file == "f.yaml"
    assert finding.instead
    return finding.rule, finding.line, finding.column


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2027-12-31", "2027-12-31"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("'1.5'", "1.5"),
        ('"true"', "true"),
        ("1/30d", "1/30d"),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_scalar_has_the_type_of_the_core_schema(text: str, value: Any) -> None:
    document = read_yaml("f.yaml", f"key: {text}\n".encode())
    assert not document.findings
    assert document.data == {"key": value}
    assert type(document.data["key"]) is type(value)


def test_every_key_and_value_has_its_place() -> None:
    text = "site: {id: dock-7}\nforward:\n  - name: cloud\n    otlp:\n      endpoint: x\n"
    document = read_yaml("f.yaml", text.encode())
    assert document.place(("site", "id")) == Place(file="f.yaml", line=1, column=12)
    assert document.place(("site", "id"), of_key=True) == Place(file="f.yaml", line=1, column=8)
    assert document.place(("forward", 0)) == Place(file="f.yaml", line=3, column=5)
    assert document.place(("forward", 0, "otlp", "endpoint")).line == 5
    # What is not there has the place of its nearest parent.
    assert document.place(("site", "region", "x")) == Place(file="f.yaml", line=1, column=7)


@pytest.mark.parametrize(
    ("text", "rule", "line", "column"),
    [
        ("a: 1\nb: 2\na: 3\n", FindingRule.DUPLICATE_KEY, 3, 1),
        ("a: {b: 1, b: 2}\n", FindingRule.DUPLICATE_KEY, 1, 11),
        ("a: [1\n", FindingRule.YAML_SYNTAX, 2, 1),
        ("a: 1\n b: 2\n", FindingRule.YAML_SYNTAX, 2, 3),
        ("a: &x 1\n", FindingRule.YAML_FEATURE, 1, 4),
        ("a: *x\n", FindingRule.YAML_FEATURE, 1, 4),
        ("a: !!python/name:os.system x\n", FindingRule.YAML_FEATURE, 1, 4),
        ("a: !!int x\n", FindingRule.YAML_FEATURE, 1, 4),
        ("? [a]\n: 1\n", FindingRule.YAML_FEATURE, 1, 3),
        ("a: 1\n---\nb: 2\n", FindingRule.YAML_SYNTAX, 2, 1),
        ('a: "\\0"\n', FindingRule.YAML_FEATURE, 1, 4),
        ('a: "\\uD800"\n', FindingRule.YAML_FEATURE, 1, 4),
        ("a: " + "9" * 5000, FindingRule.INVALID_VALUE, 1, 4),
        ("a: 1\nb: \x07\n", FindingRule.YAML_SYNTAX, 2, 4),
        ('a: "\\UFFFFFFFF"\n', FindingRule.YAML_SYNTAX, 0, 0),
    ],
)
def test_what_is_not_read_has_line_and_column(
    text: str, rule: FindingRule, line: int, column: int
) -> None:
    assert only(text) == (rule.value, line, column)


def test_text_that_is_not_utf8_names_the_line() -> None:
    assert only(b"a: 1\nb: \xff\n") == (FindingRule.UNREADABLE.value, 2, 1)


def test_byte_order_mark_is_allowed() -> None:
    assert read_yaml("f.yaml", b"\xef\xbb\xbfa: 1\n").data == {"a": 1}


def test_depth_and_size_have_limits() -> None:
    assert only("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1))[0] == FindingRule.YAML_FEATURE.value
    assert only(b"#" * (FILE_BYTES_MAX + 1))[0] == FindingRule.UNREADABLE.value


def test_all_duplicates_are_found_at_once() -> None:
    document = read_yaml("f.yaml", b"a: 1\na: 2\nb: {c: 1, c: 2}\na: 3\n")
    assert rules(document) == [FindingRule.DUPLICATE_KEY.value] * 3
    assert document.data == {"a": 1, "b": {"c": 1}}


TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("abc:-é 1", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("abcé", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)


def listed(tree: Any) -> Any:
    """Make lists of tuples, which the YAML writer does not know."""
    if isinstance(tree, tuple):
        return [listed(each) for each in tree]
    if isinstance(tree, dict):
        return {key: listed(each) for key, each in tree.items()}
    return tree


@given(TREES)
def test_plain_data_is_read_as_the_yaml_library_wrote_it(tree: Any) -> None:
    text = yaml.safe_dump(listed(tree), allow_unicode=True, sort_keys=False)
    document = read_yaml("f.yaml", text.encode())
    if any(finding.rule == FindingRule.YAML_FEATURE.value for finding in document.findings):
        assert "&" in text  # the library writes an equal object as an alias
        return
    assert not document.findings
    assert document.data == tree


@settings(max_examples=300)
@given(
    st.binary(max_size=80) | st.text("ab:-[]{}&*!%|>'\"#?,\n \\x0U", max_size=80).map(str.encode)
)
def test_any_bytes_are_a_document(content: bytes) -> None:
    document = read_yaml("f.yaml", content)
    assert document.findings or document.values or document.data is None
    for finding in document.findings:
        assert finding.rule in set(FindingRule)
        assert finding.message


def test_documents_of_a_text_are_read_each_with_its_places() -> None:
    first, empty, second = read_yaml_all("x", b"a: 1\n---\n---\nb:\n  - 2\n")
    assert (first.data, empty.data, second.data) == ({"a": 1}, None, {"b": (2,)})
    assert second.place(("b", 0)) == Place(file="x", line=5, column=5)
    assert read_yaml_all("x", b"") == []


def test_documents_before_a_fault_are_kept() -> None:
    sound, faulty = read_yaml_all("x", b"a: 1\n---\nb: [\n")
    assert (sound.data, sound.findings) == ({"a": 1}, [])
    assert faulty.data is None
    assert [(each.rule, each.line) for each in faulty.findings] == [("yaml-syntax", 4)]
    (unread,) = read_yaml_all("x", b"\xff")
    assert [each.rule for each in unread.findings] == ["unreadable"]


def test_limits_are_those_of_the_whole_text() -> None:
    found = read_yaml_all("x", b"--- [1, 2, 3]\n" * 3000)
    assert found[-1].findings[0].message == "there are too many values"


@settings(max_examples=300)
@given(
    st.binary(max_size=80) | st.text("ab:-[]{}&*!%|>'\"#?,\n \\x0U", max_size=80).map(str.encode)
)
def test_text_of_one_document_is_that_document(content: bytes) -> None:
    documents, alone = read_yaml_all("f.yaml", content), read_yaml("f.yaml", content)
    if len(documents) == 1:
        assert repr(documents[0]) == repr(alone)
    elif not documents:
        assert alone == Document(file="f.yaml")
    else:
        assert alone.findings
