"""YAML text to plain data, with the line and column of every key and value.

Law: reading raises nothing. Whatever the bytes are, the answer is a Document: data, places and
findings. Scalars follow the YAML 1.2 core schema, so that `no`, `1:30` and dates stay text.
Anchors, aliases and tags are refused: a file must mean what a reader of that line sees.
Complexity: linear in the text; nesting and size have limits.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.config.rules import FindingRule
from gateway.errors import Finding

FILE_BYTES_MAX: Final = 256 * 1024
DEPTH_MAX: Final = 16
NODES_MAX: Final = 10_000
NUMBER_DIGITS_MAX: Final = 64

Path = tuple[str | int, ...]
ROOT: Final[Path] = ()

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
    r"|\.(?:nan|NaN|NAN)",
    re.ASCII,
)
# A double-quoted scalar can spell characters that no output of ours could carry.
_UNSENDABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_PLAIN: Final = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands. Units: line and column count from 1, 0 when not known."""

    file: str
    line: int = 0
    column: int = 0


@dataclass(slots=True, kw_only=True)
class Document:
    """Plain data and the place of every key and value in it.

    Sequences are tuples. `keys` holds the place of the key of a mapping's entry, `values` that of
    the value itself. A document whose text could not be read has `data` None and a finding.
    """

    file: str
    data: Any = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def place(self, path: Path, *, of_key: bool = False) -> Place:
        """Look up the place of a path; of the nearest parent when there is none of its own."""
        first, second = (self.keys, self.values) if of_key else (self.values, self.keys)
        while path and path not in first and path not in second:
            path = path[:-1]
        return first.get(path) or second.get(path) or Place(file=self.file)

    def add(
        self, path: Path, rule: FindingRule, message: str, instead: str, *, of_key: bool = False
    ) -> None:
        """Note a finding at the place of a path."""
        place = self.place(path, of_key=of_key)
        self.findings.append(finding_at(place, rule, message, instead))


def finding_at(place: Place, rule: FindingRule, message: str, instead: str) -> Finding:
    """Make a finding at a place."""
    return Finding(
        file=place.file,
        line=place.line,
        column=place.column,
        rule=rule.value,
        message=message,
        instead=instead,
    )


class _RefusedError(yaml.MarkedYAMLError):
    """The text is YAML and uses what is not read here."""


class _CoreLoader(yaml.SafeLoader):
    """Composes nodes only; refuses aliases, and depth before Python's stack does."""

    # All plain scalars stay text here; `_scalar` gives them their type.
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  the base class declares it so

    depth = 0
    nodes = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it bare
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _RefusedError(
                problem="anchors and aliases are not read", problem_mark=event.start_mark
            )
        self.depth += 1
        self.nodes += 1
        if self.depth > DEPTH_MAX or self.nodes > NODES_MAX:
            what = "nesting is too deep" if self.depth > DEPTH_MAX else "there are too many values"
            raise _RefusedError(problem=what, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_yaml(file: str, content: bytes) -> Document:
    """Read one YAML document; every fault becomes a finding."""
    document = Document(file=file)
    text = _decode(document, content)
    if text is not None:
        for node in _compose(document, text, _only):
            document.data = _Builder(document=document).build(node, ROOT)
    return document


def read_yaml_all(file: str, content: bytes) -> list[Document]:
    """Read all YAML documents of a text; what makes it unreadable is in the last of them."""
    faults = Document(file=file)
    text = _decode(faults, content)
    documents: list[Document] = []
    for node in _compose(faults, text, _each) if text is not None else ():
        documents.append(Document(file=file))
        documents[-1].data = _Builder(document=documents[-1]).build(node, ROOT)
    return [*documents, faults] if faults.findings else documents


def _decode(document: Document, content: bytes) -> str | None:
    """Decode the text of a file, or note why it cannot be."""
    if len(content) > FILE_BYTES_MAX:
        message = f"the file has {len(content)} bytes"
        document.add(
            ROOT, FindingRule.UNREADABLE, message, f"at most {FILE_BYTES_MAX} bytes are read"
        )
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        place = Place(file=document.file, line=line, column=1)
        document.findings.append(
            finding_at(place, FindingRule.UNREADABLE, "the text is not UTF-8", "save it as UTF-8")
        )
        return None


def _only(loader: _CoreLoader) -> Iterator[Node]:
    node: Node | None = loader.get_single_node()
    if node is not None:
        yield node


def _each(loader: _CoreLoader) -> Iterator[Node]:
    while loader.check_node():
        node: Node | None = loader.get_node()
        if node is not None:
            yield node


def _compose(
    document: Document, text: str, nodes_of: Callable[[_CoreLoader], Iterator[Node]]
) -> list[Node]:
    """Compose node trees, and note why the text cannot be read further."""
    nodes: list[Node] = []
    try:
        loader = _CoreLoader(text)
        try:
            for node in nodes_of(loader):
                nodes.append(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _place(document.file, mark) if mark else Place(file=document.file)
        problem = error.problem or error.context or "the text cannot be read"
        own = isinstance(error, _RefusedError)
        rule = FindingRule.YAML_FEATURE if own else FindingRule.YAML_SYNTAX
        advice = "write the value out" if own else "see the characters just before this place"
        document.findings.append(finding_at(place, rule, problem, advice))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        place = Place(file=document.file, line=line, column=column)
        message = f"the character {error.character!a} cannot stand in YAML"
        document.findings.append(finding_at(place, FindingRule.YAML_SYNTAX, message, "delete it"))
    except (ValueError, OverflowError):
        # PyYAML lets chr() and int() fail on absurd escapes and version numbers.
        place = Place(file=document.file)
        message = "a number in an escape or directive is too large"
        document.findings.append(finding_at(place, FindingRule.YAML_SYNTAX, message, "delete it"))
    return nodes


def _place(file: str, mark: yaml.Mark) -> Place:
    return Place(file=file, line=mark.line + 1, column=mark.column + 1)


@dataclass(slots=True, kw_only=True)
class _Builder:
    """Turns nodes into plain data and notes places. Depth is bounded by the loader."""

    document: Document

    def build(self, node: Node, path: Path) -> Any:
        self.document.values[path] = _place(self.document.file, node.start_mark)
        self._check_tag(node, path)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return tuple(
                self.build(child, (*path, index)) for index, child in enumerate(node.value)
            )
        return self._scalar(node, path)

    def _check_tag(self, node: Node, path: Path) -> None:
        expected = {MappingNode: "map", SequenceNode: "seq", ScalarNode: "str"}[type(node)]
        if node.tag not in (_PLAIN + expected, "!"):
            self.document.add(
                path,
                FindingRule.YAML_FEATURE,
                f"the tag {node.tag[:40]!r} is not read",
                "delete it",
            )

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                place = _place(self.document.file, key_node.start_mark)
                message = "a key must be a single word or text"
                self.document.findings.append(
                    finding_at(place, FindingRule.YAML_FEATURE, message, "write key: value")
                )
                continue
            key = _UNSENDABLE.sub("\ufffd", str(key_node.value))
            here = (*path, key)
            place = _place(self.document.file, key_node.start_mark)
            if key in data:
                first = self.document.keys[here].line
                message = f"the key {key!r} stands here again, first in line {first}"
                self.document.findings.append(
                    finding_at(place, FindingRule.DUPLICATE_KEY, message, "keep one of them")
                )
                continue
            self.document.keys[here] = place
            data[key] = self.build(value_node, here)
        return data

    def _scalar(self, node: Node, path: Path) -> Any:
        text = str(node.value)
        if _UNSENDABLE.search(text):
            message = "the text has control characters or halves of surrogate pairs"
            self.document.add(path, FindingRule.YAML_FEATURE, message, "delete them")
            return None
        if not isinstance(node, ScalarNode) or node.style is not None:
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        is_int, is_float = _INT.fullmatch(text), _FLOAT.fullmatch(text)
        if (is_int or is_float) and len(text) > NUMBER_DIGITS_MAX:
            message = f"the number has more than {NUMBER_DIGITS_MAX} characters"
            self.document.add(path, FindingRule.INVALID_VALUE, message, "write fewer digits")
            return None
        if is_int:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if is_float:
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return text
