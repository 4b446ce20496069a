"""Read the project's sources for the house tests.

Law: a scanner takes a `Module`, so that it sees a synthetic one exactly as it sees a real one.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.process import ROOT

SKIPPED_FOLDERS: Final = frozenset(
    {".git", ".venv", "build", "data", "__pycache__", ".mypy_cache", ".ruff_cache"}
    | {".pytest_cache", ".hypothesis"}
)
TEXT_SUFFIXES: Final = frozenset(
    {".py", ".pyi", ".pyx", ".md", ".toml", ".yaml", ".yml", ".json", ".sh", ".html", ".js"}
    | {".css", ".txt", ".cfg"}
)
TEXT_NAMES: Final = frozenset({"Makefile", "LICENSE", ".gitignore", "run"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One Python file: dotted name, path from the root, text and syntax tree."""

    name: str
    path: str
    text: str
    tree: ast.Module


def parse(name: str, text: str) -> Module:
    """Make a module from text, as scanners' own tests do."""
    path = name.replace(".", "/") + ".py"
    return Module(name=name, path=path, text=text, tree=ast.parse(text))


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in SKIPPED_FOLDERS or path.suffix == ".egg-info":
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


@cache
def text_files() -> tuple[Path, ...]:
    """List every text file that belongs to the project."""
    return tuple(
        path for path in _walk(ROOT) if path.suffix in TEXT_SUFFIXES or path.name in TEXT_NAMES
    )


@cache
def _module(path: Path) -> Module:
    relative = path.relative_to(ROOT)
    text = path.read_text(encoding="utf-8")
    return Module(
        name=".".join(relative.with_suffix("").parts).removesuffix(".__init__"),
        path=str(relative),
        text=text,
        tree=ast.parse(text, filename=str(relative)),
    )


def modules(*tops: str) -> list[Module]:
    """Parse every Python file below the given top folders; each file once."""
    found = [_module(path) for top in tops for path in _walk(ROOT / top) if path.suffix == ".py"]
    assert found, f"no Python file below {tops}"
    return found


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` of a name or attribute chain, else the empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def aliases(module: Module) -> dict[str, str]:
    """Map each name that an import binds to the dotted name it stands for."""
    bound = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.asname:
                    bound[name.asname] = name.name
                else:
                    bound[name.name.split(".")[0]] = name.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            for name in node.names:
                bound[name.asname or name.name] = f"{base}.{name.name}"
    return bound


def absolute(module: Module, node: ast.ImportFrom) -> str:
    """Return the module that `from … import` names, with a relative one made absolute."""
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    if not module.path.endswith("__init__.py"):
        package = package[:-1]
    package = package[: len(package) - (node.level - 1)]
    return ".".join([*package, *([node.module] if node.module else [])])


def resolve(names: dict[str, str], node: ast.expr) -> str:
    """Return the full dotted name of an expression, seen through the module's imports."""
    name = dotted(node)
    head, _, rest = name.partition(".")
    if head in names:
        return f"{names[head]}.{rest}" if rest else names[head]
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One import anywhere in a module: `target` is the dotted name that was imported."""

    target: str
    line: int


def imports(module: Module) -> list[Import]:
    """List all imports, also those inside functions and `if TYPE_CHECKING`."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found += [Import(target=name.name, line=node.lineno) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(module, node)
            found += [Import(target=f"{base}.{name.name}", line=node.lineno) for name in node.names]
    return found
