"""What no file of the project contains: places of one machine, registries, unfinished business.

The words are put together from parts, so that this file does not contain them itself.
"""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.house.source import text_files
from tests.process import ROOT

FOLDERS: Final = ("work", "home", "root", "Users")
REGISTRIES: Final = (
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("registry.npmjs", "org"),
    ("registry-1.docker", "io"),
    ("ghcr", "io"),
    ("quay", "io"),
    ("proxy.golang", "org"),
)
MARKERS: Final = ("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK", "hel" + "per")

_FOLDER: Final = re.compile(rf"(?<![\w./:-])/(?:{'|'.join(FOLDERS)})/")
_REGISTRY: Final = re.compile("|".join(re.escape(".".join(parts)) for parts in REGISTRIES))
_MARKER: Final = re.compile(rf"\b(?:{'|'.join(MARKERS)})s?\b")


def unwanted(text: str) -> list[tuple[int, str]]:
    """List line and match of everything in a text that may not be in the project."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for pattern in (_FOLDER, _REGISTRY, _MARKER):
            found += [(number, match.group()) for match in pattern.finditer(line)]
    return found


def _place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_file_names_a_machine_a_registry_or_unfinished_business() -> None:
    found = [
        f"{_place(path)}:{line}: {match!r}"
        for path in text_files()
        for line, match in unwanted(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_no_file_has_conflict_markers_or_carriage_returns() -> None:
    marker = re.compile(r"^(?:<{7}|>{7}|={7}$)", re.MULTILINE)
    found = [
        _place(path)
        for path in text_files()
        if marker.search(text := path.read_text(encoding="utf-8")) or "\r" in text
    ]
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "data_dir: /" + "home/me/data",
        "path = '/" + "work/main'",
        "see https://py" + "pi.org/simple",
        "# TO" + "DO: later",
        "a small hel" + "per function",
    ],
)
def test_unwanted_text_is_found(text: str) -> None:
    assert unwanted(text)


@pytest.mark.parametrize(
    "text",
    ["var/lib/weir", "https://example.com/root/x", "GET /api/v1/dives", "./work/x", "todos"],
)
def test_other_text_passes(text: str) -> None:
    assert not unwanted(text)
