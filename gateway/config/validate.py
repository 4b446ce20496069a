"""Plain data against a pydantic model: every fault becomes a finding at its line.

Law: all faults are found in one pass. What is faulty is then taken out, so that laws between the
remaining knobs can be checked in the same run; `Checked.broken` tells which paths were taken out.
"""

import difflib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from gateway.config.knobs import FROM_TEXT, Kind
from gateway.config.marks import ROOT, Document, Path
from gateway.config.rules import FindingRule
from gateway.config.units import format_duration, format_rate, format_size

# Each round takes at least one level out, and no file is deeper than this.
ROUNDS_MAX: Final = 16
# A file with more is not one that a person mends line by line.
FAULTS_MAX: Final = 200
SHOWN_CHARACTERS_MAX: Final = 60
_OWN_FAULT: Final = "weir"
SECRET_KEYS: Final = frozenset({"headers"})

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked(Generic[Model]):
    """The model of what is sound, None when too little is, and the paths that are not."""

    value: Model | None
    broken: frozenset[Path]

    def is_sound(self, *path: str | int) -> bool:
        """Tell whether neither the path nor anything below it was taken out."""
        size = len(path)
        return not any(each[:size] == path or path[: len(each)] == each for each in self.broken)


def validate(model: type[Model], document: Document) -> Checked[Model]:
    """Check a document's data; note findings in the document."""
    data: Any = {} if document.data is None else document.data
    broken: set[Path] = set()
    for _ in range(ROUNDS_MAX):
        try:
            value = model.model_validate(data, context=FROM_TEXT)
        except ValidationError as error:
            bad: set[Path] = set()
            faults = error.errors(include_url=False)
            is_flood = len(faults) > FAULTS_MAX
            if is_flood:
                _note_flood(document, len(faults))
                faults = faults[:FAULTS_MAX]
            for details in faults:
                path = _path_of(details)
                missing = details["type"] == "missing"
                follows = missing and path in broken
                if not follows:
                    _note(document, model, details, path)
                bad.add(path[:-1] if missing else path)
                broken.add(path)
            if ROOT in bad or not isinstance(data, dict) or is_flood:
                return Checked(value=None, broken=frozenset(broken | {ROOT}))
            for path in bad:
                taken, data = _without(data, path)
                broken.add(taken)
        else:
            return Checked(value=value, broken=frozenset(broken))
    return Checked(value=None, broken=frozenset(broken | {ROOT}))


def fault(rule: FindingRule, message: str, instead: str) -> PydanticCustomError:
    """Make what a validator raises when it knows its rule and both sentences."""
    return PydanticCustomError(_OWN_FAULT, "", {"rule": rule, "told": message, "instead": instead})


def _path_of(details: ErrorDetails) -> Path:
    return tuple(step for step in details["loc"] if step != "[key]")


def _without(data: Any, path: Path) -> tuple[Path, Any]:
    """Copy data without what is at a path; a faulty list entry takes the whole list out.

    Removing one entry would shift the others away from their lines.
    """
    for size, step in enumerate(path):
        if isinstance(step, int) and size + 1 == len(path):
            path = path[:size]
            break
    return path, _removed(data, path)


def _removed(data: Any, path: Path) -> Any:
    if isinstance(data, dict) and path and path[0] in data:
        if len(path) == 1:
            return {key: value for key, value in data.items() if key != path[0]}
        return {**data, path[0]: _removed(data[path[0]], path[1:])}
    if isinstance(data, tuple) and len(path) > 1 and isinstance(path[0], int):
        index = path[0]
        return (*data[:index], _removed(data[index], path[1:]), *data[index + 1 :])
    return data


def _note(document: Document, model: type[BaseModel], details: ErrorDetails, path: Path) -> None:
    name = dotted(path) or "the file"
    knob = find_knob(model, path)
    kind = details["type"]
    if kind == "extra_forbidden":
        siblings = keys_of(model, path[:-1])
        document.add(
            path,
            FindingRule.UNKNOWN_KEY,
            f"unknown key {str(path[-1])!r} in {dotted(path[:-1]) or 'the file'}",
            nearest(str(path[-1]), siblings),
            of_key=True,
        )
    elif kind == "missing":
        what = f"{name} is missing"
        document.add(path[:-1], FindingRule.MISSING, what, _advice(knob), of_key=True)
    else:
        rule, message = _told(details, knob, hidden=bool(SECRET_KEYS.intersection(path)))
        advice = _advice(knob)
        if kind == _OWN_FAULT:
            advice = details["ctx"]["instead"]
        elif kind == "value_error":
            advice = str(details["ctx"]["error"])
        elif kind == "literal_error":
            choices = tuple(str(each) for each in _choices(knob.annotation if knob else None))
            advice = nearest(str(details["input"]), choices, what="write one of")
        document.add(path, rule, f"{name}: {message}", advice)


def _note_flood(document: Document, count: int) -> None:
    message = f"there are {count} faults; only the first {FAULTS_MAX} are listed"
    document.add(ROOT, FindingRule.LIMIT, message, "mend these first")


_TYPE_WORDS: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "is_instance_of": "a path",
    "path_type": "a path",
}
_BOUNDS: Final = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def _told(
    details: ErrorDetails, knob: FieldInfo | None, *, hidden: bool
) -> tuple[FindingRule, str]:
    kind, ctx = details["type"], details.get("ctx", {})
    shown = "the value" if hidden else show(details["input"])
    if kind == _OWN_FAULT:
        return ctx["rule"], ctx["told"]
    if kind in _TYPE_WORDS:
        return FindingRule.WRONG_TYPE, f"must be {_TYPE_WORDS[kind]}, not {shown}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        if not hidden:
            shown = in_unit(details["input"], knob)
        return FindingRule.OUT_OF_RANGE, f"must be {words} {in_unit(ctx[key], knob)}, not {shown}"
    if kind == "finite_number":
        return FindingRule.OUT_OF_RANGE, f"must be a finite number, not {shown}"
    if kind == "literal_error":
        return FindingRule.UNKNOWN_VALUE, f"{shown} is not possible here"
    if kind in ("too_long", "string_too_long"):
        return FindingRule.LIMIT, f"must have at most {ctx['max_length']} entries or characters"
    if kind in ("too_short", "string_too_short"):
        return FindingRule.OUT_OF_RANGE, "must not be empty"
    return FindingRule.INVALID_VALUE, f"{shown} cannot be read"


def in_unit(bound: Any, knob: FieldInfo | None) -> str:
    """Write a bound, or the value that breaks it, in the unit of the knob."""
    kind = kind_of(knob)
    if not isinstance(bound, int | float):
        return show(bound)
    if kind and kind.name == "size":
        return format_size(int(bound))
    if kind and kind.name == "duration":
        return format_duration(float(bound))
    if kind and kind.name == "rate" and bound > 0:
        return format_rate(float(bound))
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def show(value: Any) -> str:
    """Show a value in a message, shortened, as YAML would write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, tuple | list):
        return "a list"
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"


def nearest(word: str, known: tuple[str, ...], *, what: str = "known here are") -> str:
    """Name the nearest of the known words, or all of them when none is near."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"{what}: {', '.join(known)}" if known else "delete it"


def _advice(knob: FieldInfo | None) -> str:
    if knob is None or not knob.description:
        return ""
    kind = kind_of(knob)
    example = f", such as {kind.example}" if kind else ""
    return f"{knob.description}{example}"


def dotted(path: Path) -> str:
    """Write a path as `forward[0].otlp.endpoint`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def kind_of(knob: FieldInfo | None) -> Kind | None:
    """Find the kind of a knob in its annotation."""
    if knob is None:
        return None
    for item in (*knob.metadata, *_metadata(knob.annotation)):
        if isinstance(item, Kind):
            return item
    return None


def _metadata(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
    for inner in get_args(annotation):
        yield from _metadata(inner)


def _choices(annotation: Any) -> tuple[Any, ...]:
    """List the values of a Literal, through Optional and Annotated."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for inner in get_args(annotation) for choice in _choices(inner))


def _step(annotation: Any, step: str | int) -> Any:
    """Find the type of an entry of a list or mapping, through Optional and Annotated."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _step(get_args(annotation)[0], step)
    if origin in (Union, types.UnionType):
        found = (_step(each, step) for each in get_args(annotation))
        return next((each for each in found if each is not None), None)
    if origin is tuple and isinstance(step, int):
        return get_args(annotation)[0]
    if origin in (dict, Mapping) and isinstance(step, str):
        return get_args(annotation)[1]
    return None


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Find the section in an annotation such as `Section | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        found = (model_of(each) for each in get_args(annotation))
        return next((each for each in found if each is not None), None)
    return None


def _walk(model: type[BaseModel], path: Path) -> tuple[Any, FieldInfo | None]:
    annotation: Any = model
    knob: FieldInfo | None = None
    for step in path:
        section = model_of(annotation)
        if section is not None and isinstance(step, str):
            knob = section.model_fields.get(step)
            annotation = knob.annotation if knob else None
        else:
            annotation = _step(annotation, step)
    return annotation, knob


def find_knob(model: type[BaseModel], path: Path) -> FieldInfo | None:
    """Find the field that a path leads to, or the one that holds it."""
    return _walk(model, path)[1]


def keys_of(model: type[BaseModel], path: Path) -> tuple[str, ...]:
    """List the keys that are known at a path."""
    section = model_of(_walk(model, path)[0])
    return tuple(section.model_fields) if section is not None else ()
