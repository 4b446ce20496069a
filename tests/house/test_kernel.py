"""The loaded kernels were compiled from the sources that lie here."""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from gateway.otlp import kernel, wire
from tests.process import ROOT

FOLDER = ROOT / "gateway" / "otlp"
KERNELS = {"kernel": kernel, "wire": wire}


def sources(name: str, folder: Path) -> list[Path]:
    """List the source of a kernel: its own file and the parts that it includes."""
    main = folder / f"{name}.pyx"
    text = main.read_text(encoding="utf-8")
    return [main, *(folder / part for part in re.findall(r'(?m)^include "(.+)"$', text))]


def is_fresh(name: str, folder: Path) -> bool:
    """Tell whether a kernel carries the digest of the source in a folder."""
    content = b"".join(path.read_bytes() for path in sources(name, folder))
    return bool(hashlib.sha256(content).hexdigest() == KERNELS[name].SOURCE_DIGEST)


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_was_built_from_the_present_source(name: str) -> None:
    assert is_fresh(name, FOLDER), (
        f"the compiled module {name} is stale; run: make build "
        "(or .venv/bin/python -m pip install -e '.[dev]')"
    )


def test_every_kernel_and_every_part_is_watched() -> None:
    assert {path.stem for path in FOLDER.rglob("*.pyx")} == set(KERNELS)
    watched = {path for name in KERNELS for path in sources(name, FOLDER)}
    assert set(FOLDER.rglob("*.pxi")) <= watched


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("kernel", "kernel.pyx"),
        ("kernel", "parts/fill.pxi"),
        ("wire", "wire.pyx"),
        ("wire", "parts/reader.pxi"),
        ("wire", "parts/wire_screen.pxi"),
    ],
)
def test_changed_source_is_noticed(tmp_path: Path, name: str, changed: str) -> None:
    copy = tmp_path / "otlp"
    shutil.copytree(FOLDER, copy)
    assert is_fresh(name, copy)
    (copy / changed).write_bytes((copy / changed).read_bytes() + b"\n")
    assert not is_fresh(name, copy)


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_is_loaded_from_this_tree(name: str) -> None:
    assert Path(str(KERNELS[name].__file__)).parent == FOLDER
