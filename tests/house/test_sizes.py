"""Sizes stay such that a module is read in one sitting and a function on one page.

The aim is 400 and 60 lines; a little more is tolerated, so that no one cuts a thought in half for
a line. ruff holds the length of a line.
"""

import ast
from typing import Final

from tests.house.source import Module, modules, parse

MODULE_LINES_AIM: Final = 400
MODULE_LINES_MAX: Final = 450
FUNCTION_LINES_AIM: Final = 60
FUNCTION_LINES_MAX: Final = 80

TOPS: Final = ("gateway", "collectors", "dashboards", "benchmarks", "tests")


def module_lines(module: Module) -> int:
    """Count the lines of a module."""
    return len(module.text.splitlines())


def function_lines(module: Module) -> list[tuple[int, str]]:
    """List the lines and the place of each function, without its docstring."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            found.append((lines, f"{module.path}:{node.lineno} {node.name}"))
    return found


def oversized(module: Module, *, lines_max: int, function_lines_max: int) -> list[str]:
    """List what in a module is longer than the given limits."""
    found = []
    if module_lines(module) > lines_max:
        found.append(f"{module.path}: {module_lines(module)} lines, at most {lines_max}")
    for lines, place in function_lines(module):
        if lines > function_lines_max:
            found.append(f"{place}: {lines} lines, at most {function_lines_max}")
    return found


def test_modules_and_functions_are_short() -> None:
    found, soon = [], []
    for module in modules(*TOPS):
        found += oversized(
            module, lines_max=MODULE_LINES_MAX, function_lines_max=FUNCTION_LINES_MAX
        )
        soon += oversized(module, lines_max=MODULE_LINES_AIM, function_lines_max=FUNCTION_LINES_AIM)
    print("above the aim:", *soon, sep="\n")  # noqa: T201  (pytest shows it on failure or -rP)
    assert not found, "\n".join(found)


def test_long_module_and_function_are_found() -> None:
    long_function = "def f() -> None:\n    '''Say\n    it.'''\n" + "    x = 1\n" * 80
    module = parse("gateway.long", long_function)
    assert oversized(module, lines_max=82, function_lines_max=81) == [
        "gateway/long.py: 83 lines, at most 82"
    ]
    (only,) = oversized(module, lines_max=83, function_lines_max=80)
    assert only == "gateway/long.py:1 f: 81 lines, at most 80"


def test_method_and_async_function_are_measured() -> None:
    text = "class C:\n    async def f(self) -> None:\n        x = 1\n        y = 2\n"
    (measured,) = function_lines(parse("gateway.c", text))
    assert measured == (3, "gateway/c.py:2 f")
