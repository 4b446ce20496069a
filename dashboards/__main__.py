"""Write the boards' JSON: `python -m dashboards`, or `--check` to only compare."""

import json
import sys
from pathlib import Path
from typing import Final

from dashboards.boards import BOARDS
from dashboards.panels import Board, render

FOLDER: Final = Path(__file__).resolve().parent / "json"


def text_of(board: Board) -> str:
    """Return the file content of a board."""
    return json.dumps(render(board), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write all boards, or tell which are stale; returns the exit code."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write("usage: python -m dashboards [--check]\n")
        return 2
    stale = 0
    for board in BOARDS:
        path = FOLDER / f"{board.uid}.json"
        text = text_of(board)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if not check:
            path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{'stale' if check else 'wrote'} {path.name}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
