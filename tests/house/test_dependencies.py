"""Every dependency is declared, explained in one sentence and used.

Law: outside what Weir exists for, a well-kept library beats our own code; ARCHITECTURE.md says of
each what we would write instead.
"""

import re
import sys
import tomllib
from typing import Final

import pytest

from tests.house.source import Module, imports, modules, parse
from tests.process import ROOT

# Distributions whose import name is another one.
IMPORT_NAMES: Final = {
    "google-crc32c": "google_crc32c",
    "grpcio": "grpc",
    "grpcio-status": "grpc_status",
    "opentelemetry-exporter-otlp": "opentelemetry",
    "opentelemetry-proto": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "prometheus-client": "prometheus_client",
    "protobuf": "google",
    "PyYAML": "yaml",
}
PRODUCT: Final = ("gateway", "collectors")


def distributions(requirements: list[str]) -> list[str]:
    """Return the bare names of requirement strings."""
    return [re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0] for line in requirements]


def declared() -> list[str]:
    """Read the runtime dependencies from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return distributions(project["dependencies"])


def unexplained(names: list[str], text: str) -> list[str]:
    """List distributions that a text does not mention as a word."""
    return [
        name
        for name in names
        if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE)
    ]


def undeclared(module: Module, names: list[str]) -> list[str]:
    """List imports that are neither ours, the standard library's nor declared."""
    known = {IMPORT_NAMES.get(name, name).split(".")[0] for name in names}
    # pydantic_core is the half of pydantic that is compiled; it comes with it.
    known |= set(sys.stdlib_module_names) | {*PRODUCT, "pydantic_core"}
    return [
        f"{module.path}:{item.line}: {item.target} is not declared"
        for item in imports(module)
        if item.target.split(".")[0] not in known
    ]


def test_every_dependency_is_explained_in_the_architecture() -> None:
    assert not unexplained(declared(), (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))


def test_every_import_of_the_product_is_declared() -> None:
    names = declared()
    found = [line for module in modules(*PRODUCT) for line in undeclared(module, names)]
    assert not found, "\n".join(found)


def test_every_declared_dependency_is_imported() -> None:
    used = {item.target.split(".")[0] for module in modules(*PRODUCT) for item in imports(module)}
    unused = [name for name in declared() if IMPORT_NAMES.get(name, name) not in used]
    assert not unused


@pytest.mark.parametrize(
    ("requirement", "name"),
    [("numpy>=2.1,<3", "numpy"), ("a-b [x]>=1", "a-b"), ("c~=1; python_version<'4'", "c")],
)
def test_requirement_is_read(requirement: str, name: str) -> None:
    assert distributions([requirement]) == [name]


def test_unexplained_and_undeclared_are_found() -> None:
    assert unexplained(["grpcio", "numpy"], "grpcio-status and Numpy") == ["grpcio"]
    assert undeclared(parse("gateway.store.find", "import pandas"), ["numpy"])
    assert not undeclared(parse("gateway.store.find", "import json, yaml"), ["PyYAML"])
