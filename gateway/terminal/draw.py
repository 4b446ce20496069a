"""What tables on a terminal are made of: texts, numbers, times, columns and pages.

Law: text of an answer is shown as it is, never as markup, and without control characters; what has
no room is folded, never cut. Times are UTC. What is not known is a dash.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.batch import Json
from gateway.terminal.client import printable

# Of a table that goes into a file or a pipe, unless COLUMNS says otherwise.
COLUMNS: Final = 200
DIGEST_DIGITS: Final = 12
UNKNOWN: Final = "-"
UNBROKEN: Final = ("trace", "state")

_LOUD: Final = {
    "firing": "bold red",
    "page": "bold red",
    "refused": "red",
    "expired": "red",
    "failing": "bold red",
    "held": "yellow",
    "partial": "yellow",
    "ticket": "yellow",
    "acknowledged": "yellow",
    "halted": "bold red",
    "warned": "yellow",
    "complete": "green",
    "delivered": "green",
    "resolved": "green",
}


def screen() -> Console:
    """Open standard output for tables."""
    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=COLUMNS if wide else None)


def text_of(value: object, style: str = "") -> Text:
    """Make a text of a value, a dash when it is empty."""
    return Text(printable(str(value)) or UNKNOWN, style=style)


def word(value: str) -> Text:
    """Make a text of a state or a severity, in the colour of how loud it is."""
    return text_of(value, _LOUD.get(value, ""))


def instant(time_ns: int | None) -> str:
    """Write a time in UTC, a dash when there is none."""
    if not time_ns:
        return UNKNOWN
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%SZ}"


def number(value: float | None, form: str = ".3g") -> str:
    """Write a number, a dash when there is none."""
    return UNKNOWN if value is None else format(value, form)


def size_of(size: int) -> str:
    """Write a size. Units: bytes."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def new_table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    """Begin a table; numbers go to the right and, like ids, stay whole while there is room."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="fold",
            no_wrap=name in right or name in UNBROKEN,
        )
    return table


def fields(rows: Iterable[tuple[str, Text | str]]) -> Table:
    """Set names beside their values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value if isinstance(value, Text) else text_of(value))
    return table


def show_page(console: Console, page: Json, draw: Callable[[], None], none: str) -> None:
    """Print what a page holds, or that there is nothing, and what is not shown."""
    shown, total = len(page["items"]), page["total"]
    if not shown:
        console.print(none)
        return
    draw()
    if total > shown:
        console.print(f"{shown} of {total} shown")


def show_lines(
    console: Console, heads: Sequence[str], rows: Sequence[tuple[list[Text], Text]]
) -> None:
    """Print a line of short columns for each row and its long text below.

    A table would squeeze the text into a column of a few letters beside an id.
    """
    lines = [[text_of(head, "bold") for head in heads], *(columns for columns, _ in rows)]
    widths = [max(line[index].cell_len for line in lines) for index in range(len(heads))]
    texts = [None, *(text for _, text in rows)]
    for line, text in zip(lines, texts, strict=True):
        for column, width in zip(line, widths, strict=True):
            column.pad_right(width - column.cell_len)
        whole = Text("  ").join(line)
        whole.rstrip()
        console.print(whole, soft_wrap=True)
        if text is not None and text.plain != UNKNOWN:
            console.print(Padding(text, (0, 0, 0, 2)))
