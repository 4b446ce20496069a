"""Errors are caught by name.

Law: one `except Exception` per task, at the top, in `app.py`; none elsewhere. A handler that ends
in a bare `raise` catches nothing: it only cleans up.
"""

import ast
from typing import Final

import pytest

from tests.house.source import Module, dotted, modules, parse

# The simulation stands in for an executor and for the process that a failed schedule ends.
MAY_CATCH_ALL: Final = frozenset(
    {"gateway.app", "tests.simulation.life", "tests.simulation.schedule"}
)
TOO_WIDE: Final = frozenset({"Exception", "BaseException"})


def wide_handlers(module: Module) -> list[str]:
    """List handlers that catch everything and keep it."""
    if module.name in MAY_CATCH_ALL:
        return []
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            wide = any(
                kind is None or dotted(kind).rpartition(".")[2] in TOO_WIDE for kind in kinds
            )
            last = node.body[-1]
            if wide and not (isinstance(last, ast.Raise) and last.exc is None):
                found.append(f"{module.path}:{node.lineno}: catches everything")
        elif (
            isinstance(node, ast.Call)
            and dotted(node.func).endswith("suppress")
            and any(dotted(kind) in TOO_WIDE for kind in node.args)
        ):
            found.append(f"{module.path}:{node.lineno}: suppresses everything")
    return found


def test_nothing_but_app_catches_everything() -> None:
    found = [
        handler
        for module in modules("gateway", "collectors", "dashboards", "benchmarks", "tests")
        for handler in wide_handlers(module)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "handler",
    ["except Exception:", "except:", "except (OSError, Exception) as e:", "except BaseException:"],
)
def test_wide_handler_is_found(handler: str) -> None:
    text = f"try:\n    f()\n{handler}\n    pass\n"
    assert wide_handlers(parse("gateway.store.find", text))
    assert not wide_handlers(parse("gateway.app", text))


def test_wide_suppress_is_found() -> None:
    text = "from contextlib import suppress\nwith suppress(Exception):\n    f()\n"
    assert wide_handlers(parse("gateway.store.find", text))


def test_named_handler_and_clean_up_pass() -> None:
    text = "try:\n    f()\nexcept OSError:\n    pass\nexcept BaseException:\n    g()\n    raise\n"
    assert not wide_handlers(parse("gateway.store.find", text))
