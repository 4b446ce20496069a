"""The objects of OpenSLO documents by kind and name, and places in them.

Law: each document is one object of a known kind and version, or has a finding; two objects of one
kind have two names. References are looked up among all documents that are loaded together. Pure.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.config.marks import ROOT, Document, Path, Place
from gateway.config.rules import FindingRule
from gateway.config.validate import nearest, show, validate
from gateway.contract.openslo_form import API_VERSION, KINDS, Object

OBJECTS_MAX: Final = 1000
_SHORTHAND = re.compile(r"([1-9][0-9]{0,5})([mhdwMQY])", re.ASCII)
_DAYS_OF_WEEK: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A place in a document."""

    document: Document
    path: Path = ROOT

    def at(self, *steps: str | int) -> "Spot":
        """Go further down."""
        return Spot(document=self.document, path=(*self.path, *steps))

    def place(self, *steps: str | int) -> Place:
        """Look up file, line and column."""
        return self.document.place((*self.path, *steps))

    def refuse(
        self,
        message: str,
        instead: str,
        *,
        of_key: bool = False,
        rule: FindingRule = FindingRule.OPENSLO,
    ) -> None:
        """Note here why something cannot be mapped."""
        self.document.add(self.path, rule, message, instead, of_key=of_key)

    def part(self, key: str) -> Document:
        """Copy one key of the mapping that is here as a document of its own, with its places."""
        data: Any = self.document.data
        for step in self.path:
            data = data[step]
        size = len(self.path)
        part = Document(file=self.document.file, data={key: data[key]} if key in data else {})
        for table, own in ((self.document.keys, part.keys), (self.document.values, part.values)):
            own.update(
                (path[size:], place)
                for path, place in table.items()
                if path[: size + 1] == (*self.path, key)
            )
        part.values[ROOT] = self.place()
        return part


class Outline:
    """An objective under way: the keys of a contract's SLO with the places they come from."""

    def __init__(self, file: str, place: Place) -> None:
        self.document = Document(file=file, data={}, keys={ROOT: place}, values={ROOT: place})

    def mark(self, path: Path, spot: Spot) -> None:
        """Tell where a key comes from that has no value of its own."""
        self.document.keys[path] = self.document.values[path] = spot.place()

    def put(self, path: Path, value: Any, spot: Spot) -> None:
        """Set a key at the top or in a list of mappings, such as ("alerts", 0, "long")."""
        self.mark(path, spot)
        data = self.document.data
        if len(path) == 1:
            data[path[0]] = value
            return
        name, index, key = path
        rows = list(data.get(name, ()))
        while len(rows) <= int(index):  # those before may have been refused
            rows.append({})
        rows[int(index)] = {**rows[int(index)], key: value}
        data[name] = tuple(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object; `form` is None when it has findings."""

    name: str
    spot: Spot
    form: Object | None


@dataclass(slots=True, kw_only=True)
class Objects:
    """All objects that are loaded together."""

    table: dict[tuple[str, str], Entry] = field(default_factory=dict)

    def of_kind(self, kind: str) -> Iterator[Entry]:
        """List the objects of a kind."""
        return (entry for (each, _), entry in self.table.items() if each == kind)

    def get(self, kind: str, name: str) -> Entry | None:
        """Look up an object that need not be there."""
        return self.table.get((kind, name))

    def find(self, kind: str, name: str, spot: Spot) -> Entry | None:
        """Look up an object that is named at a place, and must be there."""
        entry = self.get(kind, name)
        if entry is None:
            known = tuple(each.name for each in self.of_kind(kind))
            advice = nearest(name, known) if known else f"write a document of kind: {kind}"
            message = f"no {kind} has the name {name!r}"
            spot.refuse(message, advice, rule=FindingRule.OPENSLO_REFERENCE)
        return entry


def collect(documents: Sequence[Document]) -> Objects:
    """Read documents as objects; findings are in the documents."""
    objects = Objects()
    for number, document in enumerate(documents):
        if document.data is None:
            continue
        if number == OBJECTS_MAX:
            message = f"there are more than {OBJECTS_MAX} OpenSLO documents"
            document.add(ROOT, FindingRule.LIMIT, message, "load fewer of them together")
            break
        entry = _read(document)
        if entry is None:
            continue
        kind = document.data["kind"]
        twin = objects.table.setdefault((kind, entry.name), entry)
        if twin is not entry:
            first = twin.spot.place("metadata", "name")
            message = f"the {kind} {entry.name!r} is in {first.file}:{first.line} already"
            entry.spot.at("metadata", "name").refuse(
                message, "write another name", rule=FindingRule.DUPLICATE_NAME
            )
    return objects


def _read(document: Document) -> Entry | None:
    spot = Spot(document=document)
    data = document.data
    if not isinstance(data, dict):
        message = f"an OpenSLO document is a mapping, not {show(data)}"
        spot.refuse(message, f"write apiVersion: {API_VERSION}", rule=FindingRule.WRONG_TYPE)
        return None
    version, kind = data.get("apiVersion"), data.get("kind")
    if version != API_VERSION:
        message = f"apiVersion: {show(version)} is not read"
        spot.at("apiVersion").refuse(message, f"write {API_VERSION}")
        return None
    if not isinstance(kind, str) or kind not in KINDS:
        message = f"kind: {show(kind)} is not read"
        advice = nearest(str(kind), tuple(KINDS), what="write one of")
        spot.at("kind").refuse(message, advice)
        return None
    checked = validate(KINDS[kind], document)
    if document.findings or checked.value is None:
        # It keeps its name, so that what refers to it is not refused for that as well.
        metadata = data.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return Entry(name=name, spot=spot, form=None) if isinstance(name, str) else None
    return Entry(name=checked.value.metadata.name, spot=spot, form=checked.value)


def duration_text(text: str, spot: Spot) -> str | None:
    """Write a duration shorthand such as `4w` as a contract would; note one that has no length."""
    found = _SHORTHAND.fullmatch(text)
    if found is None:
        spot.refuse(f"{show(text)} is no duration", "write one such as 5m, 12h, 30d or 4w")
        return None
    number, unit = int(found[1]), found[2]
    if unit in "MQY":
        spot.refuse(f"{text}: months, quarters and years have no fixed length", "write 30d or 90d")
        return None
    return f"{number * _DAYS_OF_WEEK}d" if unit == "w" else f"{number}{unit}"
