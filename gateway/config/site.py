"""Reading a site file with its overrides.

Law: `read_site` is the one way in: `weir run` and `weir check` both use it, so they cannot
disagree. Paths in a file are relative to the folder of that file, paths in options and defaults to
the working directory.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config.laws import check_laws
from gateway.config.marks import (
    FILE_BYTES_MAX,
    ROOT,
    Document,
    Place,
    finding_at,
    read_yaml,
    read_yaml_all,
)
from gateway.config.marks import Path as At
from gateway.config.rules import FindingRule
from gateway.config.sections import SiteConfig
from gateway.config.validate import Checked, in_unit, kind_of, model_of, validate
from gateway.errors import Finding, InvalidConfigError

EMBEDDED: Final = "<defaults>"
OVERRIDES_MAX: Final = 256


class Knob(NamedTuple):
    """One line of the table of knobs."""

    path: str
    type: str
    default: str
    description: str


def load_site(
    path: Path | None, overrides: Sequence[str] = (), data_dir: Path | None = None
) -> SiteConfig:
    """Read the site file, apply overrides, check everything.

    Raises: InvalidConfigError with all findings at once.
    """
    site, document = read_site(path, overrides, data_dir)
    if document.findings or site is None:
        raise InvalidConfigError(document.findings)
    return site


def read_site(
    path: Path | None, overrides: Sequence[str] = (), data_dir: Path | None = None
) -> tuple[SiteConfig | None, Document]:
    """Read and check a site file; findings are in the document, None when too little is sound."""
    document = Document(file=EMBEDDED, data={}) if path is None else read_file(path)
    if document.findings and not document.values:
        return None, document
    for text in overrides[:OVERRIDES_MAX]:
        _override(document, text)
    if data_dir is not None:
        place = Place(file="--data-dir")
        _put(document, ("data_dir",), str(data_dir), {ROOT: place}, place)
    checked = validate(SiteConfig, document)
    if checked.value is None:
        return None, document
    folder = path.parent if path is not None else Path()
    rebased = _rebase(checked.value, document, folder)
    check_laws(replace(checked, value=rebased), document)
    return rebased, document


def check_site(site: SiteConfig) -> list[Finding]:
    """Check the laws between the knobs of a configuration that was put together in memory."""
    document = Document(file=EMBEDDED, data={})
    check_laws(Checked(value=site, broken=frozenset()), document)
    return document.findings


def read_file(path: Path) -> Document:
    """Read a YAML file of one document; every fault becomes a finding."""
    (document,) = _read(path, lambda file, content: [read_yaml(file, content)])
    return document


def read_documents(path: Path) -> list[Document]:
    """Read a YAML file of several documents; every fault becomes a finding."""
    return _read(path, read_yaml_all)


def _read(path: Path, parse: Callable[[str, bytes], list[Document]]) -> list[Document]:
    file = str(path)
    try:
        if not path.is_file():
            raise FileNotFoundError
        with path.open("rb") as stream:
            content = stream.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        why = "this is a folder" if path.is_dir() else "there is no such file"
    except OSError as error:
        why = error.strerror or "the file cannot be read"
    else:
        return parse(file, content)
    finding = finding_at(Place(file=file), FindingRule.UNREADABLE, why, "correct the path")
    return [Document(file=file, findings=[finding])]


def _override(document: Document, text: str) -> None:
    """Apply one `key.path=value`; the value is YAML."""
    option = f"--set {text.partition('=')[0]}"
    place = Place(file=option)
    key, equals, value = text.partition("=")
    steps: At = tuple(int(step) if _is_index(step) else step for step in key.split("."))
    if not equals or not all(step != "" for step in steps):
        advice = "write key.path=value, such as receive.grpc.listen=127.0.0.1:0"
        document.findings.append(
            finding_at(place, FindingRule.OVERRIDE, f"{text!r} is no override", advice)
        )
        return
    inner = read_yaml(option, value.encode(errors="replace"))
    if inner.findings:
        document.findings += [replace(each, line=0, column=0) for each in inner.findings]
        return
    places = dict.fromkeys(inner.values, place)
    if not _put(document, steps, inner.data, places, place):
        message = f"{key} leads through something that has no entries"
        advice = "write the path of a knob; list entries are numbered from 0"
        document.findings.append(finding_at(place, FindingRule.OVERRIDE, message, advice))


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdigit() and len(step) <= 4


def _put(document: Document, path: At, value: Any, places: dict[At, Place], place: Place) -> bool:
    """Put a value into a document's data; False when the path leads nowhere."""
    data = {} if document.data is None else document.data
    changed, ok = _with(data, path, value)
    if not ok:
        return False
    document.data = changed
    for table in (document.keys, document.values):
        for old in [each for each in table if each[: len(path)] == path]:
            del table[old]
    for inner in places:
        document.values[(*path, *inner)] = place
    document.values[path] = document.keys[path] = place
    for size in range(1, len(path)):
        document.keys.setdefault(path[:size], place)
    return True


def _with(data: Any, path: At, value: Any) -> tuple[Any, bool]:
    """Copy data with one value set. An index may replace an entry or append the next one."""
    if not path:
        return value, True
    step, rest = path[0], path[1:]
    if isinstance(data, tuple) and isinstance(step, int) and step <= len(data):
        old = data[step] if step < len(data) else {}
        new, ok = _with(old, rest, value)
        return (*data[:step], new, *data[step + 1 :]), ok
    if isinstance(data, dict) and isinstance(step, str):
        inner = data.get(step)
        if inner is None:
            inner = () if rest and rest[0] == 0 else {}
        new, ok = _with(inner, rest, value)
        return {**data, step: new}, ok
    return data, False


def _rebase(value: Any, document: Document, folder: Path, path: At = ROOT) -> Any:
    """Make paths that stand in the file relative to the file's folder."""
    if isinstance(value, Path):
        in_file = path in document.values and document.values[path].file == document.file
        return folder / value if in_file else value
    if isinstance(value, tuple):
        return tuple(
            _rebase(each, document, folder, (*path, index)) for index, each in enumerate(value)
        )
    if isinstance(value, BaseModel):
        changes = {
            name: _rebase(getattr(value, name), document, folder, (*path, name))
            for name in type(value).model_fields
        }
        return value.model_copy(update=changes)
    return value


def describe(model: type[BaseModel] = SiteConfig) -> list[Knob]:
    """List every knob of a file with type, range, default and meaning."""
    return list(_knobs(model, ""))


def _knobs(model: type[BaseModel], prefix: str) -> Iterator[Knob]:
    for name, knob in model.model_fields.items():
        path = f"{prefix}{name}"
        section = model_of(knob.annotation)
        entry = _entry_of(knob.annotation)
        if section is not None:
            yield from _knobs(section, f"{path}.")
        elif entry is not None:
            yield from _knobs(entry, f"{path}{_ENTRY_MARKS[get_origin(knob.annotation)]}.")
        else:
            yield Knob(path, _type_text(knob), _default_text(knob), knob.description or "")


_ENTRY_MARKS: Final[dict[Any, str]] = {tuple: "[]", dict: ".<name>"}


def _entry_of(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) is tuple:
        return model_of(get_args(annotation)[0])
    if get_origin(annotation) is dict:
        return model_of(get_args(annotation)[1])
    return None


_PLAIN_TYPES: Final[dict[Any, str]] = {bool: "true or false", int: "whole number", float: "number"}


def _type_text(knob: FieldInfo) -> str:
    annotation = knob.annotation
    inner = [each for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) in (Union, UnionType) and len(inner) == 1:
        annotation, inner = inner[0], list(get_args(inner[0]))
    kind = kind_of(knob)
    if kind is not None:
        text = kind.name
    elif get_origin(annotation) is Literal:
        text = " | ".join(str(each) for each in inner)
    elif get_origin(annotation) is dict:
        text = "mapping"
    elif get_origin(annotation) is tuple:
        text = _PLAIN_TYPES.get(inner[0], "text")
    else:
        text = _PLAIN_TYPES.get(annotation, "text")
    if get_origin(annotation) is tuple:
        text = f"list of {text}"
    low, high = _bound(knob, "ge"), _bound(knob, "le")
    return f"{text}, {low} to {high}" if low is not None and high is not None else text


def _bound(knob: FieldInfo, name: str) -> str | None:
    for item in knob.metadata:
        if hasattr(item, name):
            return _value_text(getattr(item, name), knob)
    return None


def _default_text(knob: FieldInfo) -> str:
    if knob.is_required():
        return "required"
    return _value_text(knob.get_default(call_default_factory=True), knob)


def _value_text(value: Any, knob: FieldInfo) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return in_unit(value, knob)
    if isinstance(value, tuple):
        return f"[{', '.join(str(each) for each in value)}]"
    return "{}" if value == {} else str(value)
