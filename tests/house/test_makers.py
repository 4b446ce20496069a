"""Who may make the nouns that carry a promise.

Law: only `anonymize` makes a `Clean` or a `CleanPart`, so that a leak has one place to hide; only
`otlp` makes a `Batch`. A copy with changed fields is a new one and counts as making it.
"""

import ast
from typing import Final

import pytest

from gateway.batch import Batch, Clean, CleanPart
from tests.house.source import Module, aliases, modules, parse, resolve

MAKERS: Final = {
    "gateway.batch.Clean": "anonymize",
    "gateway.batch.CleanPart": "anonymize",
    "gateway.batch.Batch": "otlp",
}
# Fields that other nouns have too: a copy that changes only these may be of one of those.
COMMON: Final = frozenset({"signal", "body", "items"})
FIELDS: Final = {
    "gateway.batch.Clean": frozenset(Clean.__dataclass_fields__),
    "gateway.batch.CleanPart": frozenset(CleanPart.__dataclass_fields__),
    "gateway.batch.Batch": frozenset(Batch.__dataclass_fields__),
}
COPIES: Final = frozenset({"dataclasses.replace", "copy.replace", "copy.copy", "copy.deepcopy"})
RAW: Final = frozenset({"object.__new__", "object.__setattr__"})


def _is_named(node: ast.expr, noun: str) -> bool:
    short = noun.rpartition(".")[2].lower()
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return bool(name) and short in name.lower().replace("_", "")


def forbidden_makers(module: Module) -> list[str]:
    """List calls that make a noun of `MAKERS` outside the room that may."""
    names = aliases(module)
    found = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = resolve(names, node.func)
        for noun, maker in MAKERS.items():
            if module.name.startswith(f"gateway.{maker}."):
                continue
            if module.name == f"gateway.{maker}":
                continue
            arguments = [resolve(names, argument) for argument in node.args]
            fields = {keyword.arg for keyword in node.keywords}
            direct = name in (noun, f"{noun}.__new__")
            raw = name in RAW and noun in arguments
            # Types are not known here: a copy counts when the name or the fields say what it is.
            copied = name in COPIES and (
                (bool(node.args) and _is_named(node.args[0], noun))
                or (bool(fields - COMMON) and fields <= FIELDS[noun])
            )
            if direct or raw or copied:
                found.append(f"{module.path}:{node.lineno}: makes {noun}; only {maker} may")
    return found


def test_only_the_makers_make() -> None:
    found = [
        violation
        for module in modules("gateway", "collectors")
        for violation in forbidden_makers(module)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "from gateway.batch import Clean\nc = Clean(audience='site')",
        "from gateway.batch import Clean as Columns\nc = Columns()",
        "import gateway.batch as nouns\nc = nouns.Clean()",
        "from gateway import batch\nc = batch.Clean(policy='')",
        "from gateway.batch import Clean\nc = object.__new__(Clean)",
        "from gateway.batch import Clean\nc = Clean.__new__(Clean)",
        "from dataclasses import replace\nd = replace(clean, text=other)",
        "import dataclasses\nd = dataclasses.replace(x, audience=y, policy=z)",
        "from copy import copy\nd = copy(clean)",
        "from gateway.batch import Batch\nb = Batch(sequence=1)",
        "from gateway.batch import CleanPart\np = CleanPart(body=b'')",
        "from gateway.batch import CleanPart as Part\np = Part()",
        "from gateway import batch\np = batch.CleanPart(items=1)",
        "from gateway.batch import CleanPart\np = object.__new__(CleanPart)",
        "from dataclasses import replace\nq = replace(clean_part, body=other)",
        "from dataclasses import replace\nq = replace(cleanpart, body=other)",
        "from dataclasses import replace\nq = replace(x, body=other, policy='')",
    ],
)
def test_forbidden_maker_is_found(text: str) -> None:
    assert forbidden_makers(parse("gateway.store.columns", text))


def test_makers_pass() -> None:
    clean = "from gateway.batch import Clean\nc = Clean()"
    batch = "from gateway.batch import Batch\nb = Batch()"
    assert not forbidden_makers(parse("gateway.anonymize.columns", clean))
    assert not forbidden_makers(parse("gateway.otlp.decode", batch))
    part = "from gateway.batch import CleanPart\np = CleanPart()"
    assert not forbidden_makers(parse("gateway.anonymize.parcels", part))
    assert forbidden_makers(parse("gateway.otlp.encode", part))
    assert forbidden_makers(parse("gateway.otlp.decode", clean))
    assert forbidden_makers(parse("gateway.anonymize.columns", batch))
    other = "from dataclasses import replace\nd = replace(settings, rate=0.5)"
    assert not forbidden_makers(parse("gateway.app", other))
