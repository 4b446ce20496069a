"""No code is run from data, no object is built from bytes, no shell reads a string.

Law: a file, a request or a configuration is only ever data.
"""

import ast
from typing import Final

import pytest

from tests.house.source import Module, aliases, imports, modules, parse, resolve

TOPS: Final = ("gateway", "collectors", "dashboards", "benchmarks", "tests")
MODULES: Final = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"})
CALLS: Final = frozenset(
    {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp"}
    | {"yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all", "yaml.full_load_all"}
    | {"subprocess.getoutput", "subprocess.getstatusoutput", "hashlib.md5", "hashlib.sha1"}
)
YAML_LOADS: Final = frozenset({"yaml.load", "yaml.load_all"})
UNSAFE_FLAGS: Final = {"shell": True, "allow_pickle": True, "verify": False}


def _safe_loaders(module: Module, names: dict[str, str]) -> set[str]:
    """Name the loaders that build plain data only: SafeLoader and what this module derives."""
    safe = {"yaml.SafeLoader", "yaml.CSafeLoader", "yaml.BaseLoader"}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and any(resolve(names, b) in safe for b in node.bases):
            safe.add(node.name)
    return safe


def unsafe_uses(module: Module) -> list[str]:
    """List calls and imports that turn data into code or objects."""
    names = aliases(module)
    loaders = _safe_loaders(module, names)
    found = [
        f"{module.path}:{item.line}: imports {item.target}"
        for item in imports(module)
        if item.target.split(".")[0] in MODULES
    ]
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        name = resolve(names, node.func)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        place = f"{module.path}:{node.lineno}"
        if name in CALLS:
            found.append(f"{place}: calls {name}")
        if name in YAML_LOADS:
            loader = keywords.get("Loader", node.args[1] if len(node.args) > 1 else None)
            if loader is None or resolve(names, loader) not in loaders:
                found.append(f"{place}: {name} without a safe loader")
        for flag, value in UNSAFE_FLAGS.items():
            given = keywords.get(flag)
            if isinstance(given, ast.Constant) and given.value is value:
                found.append(f"{place}: {flag}={value}")
    return found


def test_nothing_unsafe_is_used() -> None:
    found = [use for module in modules(*TOPS) for use in unsafe_uses(module)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from marshal import loads",
        "x = eval(text)",
        "exec(text)",
        "import os\nos.system('ls')",
        "import yaml\nx = yaml.load(text)",
        "import yaml\nx = yaml.load(text, Loader=yaml.Loader)",
        "import yaml\nx = yaml.unsafe_load(text)",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "import numpy as np\nx = np.load(path, allow_pickle=True)",
        "from hashlib import md5\nx = md5(b'')",
    ],
)
def test_unsafe_use_is_found(text: str) -> None:
    assert unsafe_uses(parse("gateway.store.find", text))


@pytest.mark.parametrize(
    "text",
    [
        "import yaml\nx = yaml.safe_load(text)",
        "import yaml\nx = yaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml\nclass Lines(yaml.SafeLoader): ...\nx = yaml.load(text, Lines)",
        "import numpy as np\nx = np.load(path, allow_pickle=False)",
        "import re\npattern = re.compile('x')",
    ],
)
def test_safe_use_passes(text: str) -> None:
    assert not unsafe_uses(parse("gateway.store.find", text))
