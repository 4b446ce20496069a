"""The pure rooms compute: no clock, network, file, log, thread or global randomness.

Law: measure, decide, anonymize and contract depend on their arguments only. The two modules that
read what a person wrote, `contract/load.py` and `contract/check.py`, may open files.
"""

import ast
from typing import Final

import pytest

from tests.house.source import Module, aliases, imports, modules, parse, resolve

PURE_ROOMS: Final = ("measure", "decide", "anonymize", "contract")
MAY_READ_FILES: Final = frozenset({"gateway.contract.load", "gateway.contract.check"})

FILE_MODULES: Final = frozenset({"os", "io", "shutil", "tempfile", "glob", "sys"})
IMPURE_MODULES: Final = frozenset(
    {"asyncio", "concurrent", "multiprocessing", "threading", "queue", "selectors", "signal"}
    | {"subprocess", "socket", "ssl", "http", "urllib", "requests", "aiohttp", "grpc", "uvloop"}
    | {"time", "sched", "random", "secrets", "uuid", "logging", "warnings", "sqlite3", "psutil"}
    | {"prometheus_client", "typer", "rich", "contextvars", "getpass", "locale"}
)
CLOCKS: Final = frozenset(
    {"datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"}
    | {"datetime.date.today"}
)
FILE_CALLS: Final = frozenset({"open", "input", "print", "breakpoint"})
FILE_METHODS: Final = frozenset(
    {"open", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "touch"}
    | {"tofile", "iterdir", "rglob"}
)
# A generator is pure when its seed is passed in.
SEEDED: Final = frozenset(
    f"numpy.random.{name}" for name in ("default_rng", "Philox", "PCG64", "SeedSequence")
)
RANDOM_TYPES: Final = SEEDED | {"numpy.random.Generator", "numpy.random.BitGenerator"}


def impurities(module: Module) -> list[str]:
    """List what makes a module impure."""
    reads_files = module.name in MAY_READ_FILES
    names = aliases(module)
    found = []

    def report(line: int, what: str) -> None:
        found.append(f"{module.path}:{line}: {what}")

    for item in imports(module):
        top = item.target.split(".")[0]
        if top in IMPURE_MODULES or (top in FILE_MODULES and not reads_files):
            report(item.line, f"imports {top}")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            report(node.lineno, "changes a global")
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await):
            report(node.lineno, "is asynchronous")
        elif isinstance(node, ast.Attribute):
            name = resolve(names, node)
            if name.startswith("numpy.random.") and name not in RANDOM_TYPES:
                report(node.lineno, f"uses global randomness: {name}")
        elif isinstance(node, ast.Call):
            name = resolve(names, node.func)
            if name in CLOCKS:
                report(node.lineno, f"reads the clock: {name}")
            elif name in SEEDED and not (node.args or node.keywords):
                report(node.lineno, f"{name} without a seed")
            elif reads_files:
                continue
            elif name in FILE_CALLS or (
                isinstance(node.func, ast.Attribute) and node.func.attr in FILE_METHODS
            ):
                report(node.lineno, f"touches a file or stream: {name or 'method'}")
    return found


def test_pure_rooms_are_pure() -> None:
    rooms = modules(*(f"gateway/{room}" for room in PURE_ROOMS))
    found = [impurity for module in rooms for impurity in impurities(module)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "from time import monotonic_ns",
        "import asyncio",
        "import numpy.random, socket",
        "def f() -> None:\n    import logging",
        "import datetime\nnow = datetime.datetime.now()",
        "from datetime import date\ntoday = date.today()",
        "import numpy as np\nx = np.random.normal()",
        "from numpy import random\nx = random.rand(3)",
        "import numpy as np\nrng = np.random.default_rng()",
        "text = open('file').read()",
        "from pathlib import Path\ntext = Path('file').read_text()",
        "async def f() -> None: ...",
        "def f() -> None:\n    global count\n    count = 1",
        "import os",
    ],
)
def test_impurity_is_found(text: str) -> None:
    assert impurities(parse("gateway.measure.slo.windows", text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gateway.measure.noise", "import numpy as np\nrng = np.random.default_rng(seed)"),
        ("gateway.measure.noise", "import numpy as np\ndef f(r: np.random.Generator): ..."),
        ("gateway.contract.schema", "from datetime import date\nday = date(2030, 1, 1)"),
        ("gateway.contract.load", "from pathlib import Path\ntext = Path('f').read_text()"),
        ("gateway.anonymize.token", "import hashlib, hmac"),
    ],
)
def test_pure_code_passes(name: str, text: str) -> None:
    assert not impurities(parse(name, text))
