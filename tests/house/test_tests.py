"""Tests wait for events, never for time, and hide no failure."""

import ast
from typing import Final

import pytest

from tests.house.source import Module, aliases, modules, parse, resolve

SLEEPS: Final = frozenset({"time.sleep", "asyncio.sleep"})
HIDING: Final = frozenset({"pytest.mark.xfail", "pytest.mark.skip", "pytest.xfail"})
# The one place that may skip is the one that asks for a Debian package.
MAY_SKIP: Final = frozenset({"tests.process"})


def bad_habits(module: Module) -> list[str]:
    """List sleeps and hidden failures of a test module; `asyncio.sleep(0)` only yields."""
    names = aliases(module)
    found = []
    for node in ast.walk(module.tree):
        place = f"{module.path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and resolve(names, node.func) in SLEEPS:
            zero = bool(node.args) and isinstance(node.args[0], ast.Constant)
            if not (zero and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0):
                found.append(f"{place}: sleeps")
        elif isinstance(node, ast.Attribute):
            name = resolve(names, node)
            if name in HIDING or (name == "pytest.skip" and module.name not in MAY_SKIP):
                found.append(f"{place}: {name}")
    return found


def test_tests_have_no_bad_habits() -> None:
    found = [habit for module in modules("tests") for habit in bad_habits(module)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.sleep(1)",
        "from time import sleep\nsleep(0.1)",
        "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)",
        "import pytest\n@pytest.mark.xfail\ndef test_f(): ...",
        "import pytest\npytest.skip('later')",
    ],
)
def test_bad_habit_is_found(text: str) -> None:
    assert bad_habits(parse("tests.unit.test_x", text))


def test_yielding_once_and_naming_a_package_pass() -> None:
    text = "import asyncio\nasync def f():\n    await asyncio.sleep(0)"
    assert not bad_habits(parse("tests.unit.test_x", text))
    assert not bad_habits(parse("tests.process", "import pytest\npytest.skip('package')"))
