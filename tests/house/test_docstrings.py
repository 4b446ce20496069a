"""Every file says what it is for, and every public thing what it does."""

import ast
from typing import Final

import pytest

from tests.house.source import Module, modules, parse

DOCUMENTED: Final = ("gateway", "collectors", "dashboards", "benchmarks")
OPENED: Final = (*DOCUMENTED, "tests")


def without_opening(module: Module) -> list[str]:
    """Name the module if it has code and no docstring."""
    if module.tree.body and not ast.get_docstring(module.tree):
        return [f"{module.path}:1: no docstring"]
    return []


def undocumented(module: Module) -> list[str]:
    """List public functions and classes of a module that have no docstring."""
    found = []
    for node in module.tree.body:
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and not node.name.startswith("_")
            and not ast.get_docstring(node)
        ):
            found.append(f"{module.path}:{node.lineno}: {node.name} has no docstring")
    return found


def test_every_file_opens_with_a_docstring() -> None:
    found = [line for module in modules(*OPENED) for line in without_opening(module)]
    assert not found, "\n".join(found)


def test_every_public_function_and_class_has_a_docstring() -> None:
    found = [line for module in modules(*DOCUMENTED) for line in undocumented(module)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("text", ["def f() -> None: ...", "class C: ...", "async def f(): ..."])
def test_missing_docstring_is_found(text: str) -> None:
    module = parse("gateway.store.find", text)
    assert undocumented(module)
    assert without_opening(module)


def test_private_and_documented_things_pass() -> None:
    text = '"""Do."""\ndef _f() -> None: ...\ndef g() -> None:\n    """Do g."""\n'
    module = parse("gateway.store.find", text)
    assert not undocumented(module)
    assert not without_opening(module)
    assert not without_opening(parse("gateway.store", ""))
