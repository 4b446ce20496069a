"""The entry of the coverage-guided runs: instrumented extensions in place of the ordinary ones.

Law: a run tests the present sources, instrumented, or does not start.
"""

import gc
import importlib
from collections.abc import Callable
from pathlib import Path

import gateway.otlp


def start(modules: str, target: str) -> Callable[[int, bytes], None]:
    """Return the target of that name, with the instrumented extensions of a folder if one is named.

    A target that runs no extension names none.
    """
    for name in ("kernel", "wire") if modules else ():
        folder = str(Path(modules, "gateway", "otlp"))
        if folder not in gateway.otlp.__path__:
            gateway.otlp.__path__.insert(0, folder)
        loaded = importlib.import_module(f"gateway.otlp.{name}")
        assert str(loaded.__file__).startswith(folder), f"{name} is not the instrumented one"
    # Only now: it imports the extensions.
    found = importlib.import_module("tests.fuzz.targets").TARGETS[target]()
    gc.collect()
    gc.freeze()
    result: Callable[[int, bytes], None] = found.run
    return result
