"""The loaded kernel was compiled from the source that lies here."""

import hashlib
import shutil
from pathlib import Path

import pytest

from gateway.otlp import kernel
from tests.process import ROOT

FOLDER = ROOT / "gateway" / "otlp"


def is_fresh(digest: str, folder: Path) -> bool:
    """Tell whether a digest is that of the kernel's source and its parts."""
    sources = [folder / "kernel.pyx", *sorted((folder / "parts").glob("*.pxi"))]
    return digest == hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()


def test_kernel_was_built_from_the_present_source() -> None:
    assert is_fresh(kernel.SOURCE_DIGEST, FOLDER), (
        "the compiled kernel is stale; run: make build "
        "(or .venv/bin/python -m pip install -e '.[dev]')"
    )


@pytest.mark.parametrize("name", ["kernel.pyx", "parts/fill.pxi"])
def test_changed_source_is_noticed(tmp_path: Path, name: str) -> None:
    copy = tmp_path / "otlp"
    shutil.copytree(FOLDER, copy)
    assert is_fresh(kernel.SOURCE_DIGEST, copy)
    (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
    assert not is_fresh(kernel.SOURCE_DIGEST, copy)


def test_kernel_is_loaded_from_this_tree() -> None:
    assert Path(kernel.__file__).parent == FOLDER
