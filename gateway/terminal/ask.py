"""What every command shares: its options, the client they make, and how an answer is shown.

Law: standard output carries the answer only; with `--json` it is the API's JSON to the byte and a
line end. What a person should know besides goes to standard error.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, TypeVar
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.batch import Json
from gateway.errors import WeirError
from gateway.terminal.client import (
    DEFAULT_ADDRESS,
    Answer,
    Client,
    check_token,
    printable,
    read_address,
    read_token,
)
from gateway.terminal.draw import screen

API: Final = "/api/v1"
# The most that the API puts on one page.
PAGE_MAX: Final = "1000"

POLL_S_MIN: Final = 0.1
POLL_S_MAX: Final = 1.0
POLL_GROWTH: Final = 1.5

INTERRUPTED: Final = 130  # as a shell reports SIGINT

_T = TypeVar("_T")
# Draws a bar: a word, how many, of how many if that is known.
Follow = Callable[[str, int, int | None], None]

ApiOption = Annotated[
    str | None,
    typer.Option(
        "--api",
        metavar="URL",
        help=f"Address of the API; else the environment's WEIR_API, else {DEFAULT_ADDRESS}.",
    ),
]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="File that holds the bearer token; else the environment's WEIR_TOKEN is the token.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the API's JSON as it is.")]


def connect(api: str | None, token_file: Path | None) -> Client:
    """Find the gateway and the token; an option wins over the environment."""
    try:
        address = read_address(api or os.environ.get("WEIR_API") or DEFAULT_ADDRESS)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--api or WEIR_API") from error
    token = None
    if token_file is not None:
        token = read_token(token_file)
    elif os.environ.get("WEIR_TOKEN"):
        token = check_token(os.environ["WEIR_TOKEN"], "WEIR_TOKEN")
    return Client(address=address, token=token)


def path(*parts: str) -> str:
    """Make a path of the API; an id in it is quoted."""
    return "/".join([API, *(quote(part, safe="") for part in parts)])


@contextmanager
def known_form() -> Iterator[None]:
    """Read an answer in a block. Raises: WeirError when it is not what this version knows."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise WeirError(
            "the answer has a form that this version does not know; --json shows it"
        ) from error


def show(answer: Answer, as_json: bool, draw: Callable[[Console, Json], None]) -> None:
    """Print an answer as JSON, or draw it for a person."""
    if as_json:
        sys.stdout.write(answer.text() + "\n")
        return
    found = answer.json()
    with known_form():
        draw(screen(), found)


def tell(text: str) -> None:
    """Print a line for a person on standard error."""
    typer.echo(printable(text), err=True)


def read(name: str, parse: Callable[[str], _T], text: str) -> _T:
    """Read an option with a unit."""
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from error


def paged(**wanted: str | None) -> dict[str, str]:
    """Make the query of a list."""
    return {"limit": PAGE_MAX} | {name: value for name, value in wanted.items() if value}


@contextmanager
def bar(unit: str) -> Iterator[Follow]:
    """Draw a bar on standard error when that is a terminal."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("", total=None)

        def follow(word: str, completed: int, total: int | None) -> None:
            progress.update(task, description=word, completed=completed, total=total)

        yield follow


def pauses() -> Iterator[float]:
    """Give the seconds between two questions about something that takes long."""
    pause_s = POLL_S_MIN
    while True:
        yield pause_s
        pause_s = min(pause_s * POLL_GROWTH, POLL_S_MAX)
