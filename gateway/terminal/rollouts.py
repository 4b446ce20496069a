"""The commands that declare: rollouts, what became of devices, and labels.

Law: a declaration is done when the gateway says that it is durable. Labels of a file go in bounded
steps; a line that is none is named before anything of its step is sent, and what was sent before
stays, which is told.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from gateway.batch import Json
from gateway.config.units import parse_duration
from gateway.errors import WeirError
from gateway.terminal import ask, tables
from gateway.terminal.ask import ApiOption, JsonOption, TokenOption
from gateway.terminal.client import Answer, Client, printable

# Labels of one request: small enough for a bar that moves, far below what the API takes at once.
STEP_LABELS: Final = 1_000
LINE_LENGTH_MAX: Final = 10_000
_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{1,32}")
_COLUMNS: Final = frozenset({"trace_id", "value", "model"})

rollout = typer.Typer(
    no_args_is_help=True,
    help="Declare rollouts, and see what each has spent of its error budget.",
)


class Kind(StrEnum):
    """Why a version is rolled out."""

    DEPLOY = "deploy"
    RETRAIN = "retrain"


class Outcome(StrEnum):
    """How a rollout ended."""

    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"


RolloutId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of a rollout, as `weir rollout list` shows.")
]


@rollout.command("start")
def start(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model, as in its contract.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The new version.")],
    previous: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="What it replaces; else any other version."),
    ] = None,
    rollout_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Its id; else a new one is made.")
    ] = None,
    allocation: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", min=0.0, max=1.0, help="What it may spend of the error budget: 0.25."
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Devices that have not reported by then have failed: 2h."
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(metavar="COUNT", min=1, help="How many devices are planned.")
    ] = None,
    kind: Annotated[Kind, typer.Option(help="Why it is rolled out.")] = Kind.DEPLOY,
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Declare that a version begins to replace another, now.

    It gets its own part of the error budget and spends only what the version before does not lose
    at the same time: half of it is told as a ticket, all of it as a page that says halt.
    """
    given: dict[str, Json] = {
        "id": rollout_id,
        "model": model,
        "version": version,
        "previous": previous,
        "allocation": allocation,
        "deadline_s": round(ask.read("--deadline", parse_duration, deadline)) if deadline else None,
        "devices": devices,
        "kind": kind.value,
    }
    body = {name: value for name, value in given.items() if value is not None}
    answer = ask.connect(api, token_file).send("POST", ask.path("rollouts"), body=body)

    def say(console: Console, found: Json) -> None:
        made = printable(found["id"])
        console.print(f"rollout {made} is {printable(found['state'])}", markup=False)
        ask.tell(f"end it with `weir rollout end {made}`, follow it with `weir rollout list`")

    ask.show(answer, as_json, say)


@rollout.command("end")
def end(
    rollout_id: RolloutId,
    outcome: Annotated[Outcome, typer.Option(help="How it ended.")] = Outcome.COMPLETED,
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Declare that a rollout is over: what it has not spent is free again."""
    path = ask.path("rollouts", rollout_id, "end")
    answer = ask.connect(api, token_file).send("POST", path, body={"outcome": outcome.value})
    ask.show(answer, as_json, _say)


@rollout.command("device")
def device(
    rollout_id: RolloutId,
    devices: Annotated[list[str], typer.Argument(metavar="DEVICE...", help="Names of devices.")],
    *,
    failed: Annotated[
        bool, typer.Option("--failed", help="They failed to get the version.")
    ] = False,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Declare that devices have the new version for good, or have failed to get it."""
    body = {"devices": [{"device": each, "succeeded": not failed} for each in devices]}
    path = ask.path("rollouts", rollout_id, "devices")
    ask.show(ask.connect(api, token_file).send("POST", path, body=body), as_json, _say)


def _say(console: Console, found: Json) -> None:
    console.print(f"rollout {printable(found['id'])} is {printable(found['state'])}", markup=False)


@rollout.command("list")
def list_rollouts(
    *, as_json: JsonOption = False, api: ApiOption = None, token_file: TokenOption = None
) -> None:
    """List rollouts, the newest first: state, devices, and what each has spent.

    States: planned, active, warned (half is spent), halted (all is spent), ended.
    """
    answer = ask.connect(api, token_file).get(ask.path("rollouts"), query=ask.paged())
    ask.show(answer, as_json, tables.rollouts)


# --- labels ---------------------------------------------------------------------------------------


def label(
    trace: Annotated[
        str | None, typer.Argument(metavar="[TRACE]", help="Trace id, 1 to 32 hexadecimal digits.")
    ] = None,
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="The truth: text, number, true, false.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model whose answer it is about, where several answer."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="CSV with the columns trace_id, value and maybe model, or the same as JSON lines.",
        ),
    ] = None,
    *,
    text: Annotated[
        bool, typer.Option("--text", help="Take values as text, also when they look like numbers.")
    ] = False,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Say what is true about traces: of one, or of all in a file, with a progress bar."""
    if (file is None) != (trace is not None and value is not None):
        raise typer.BadParameter(
            "name a trace and its value, or a file with --file", param_hint="TRACE VALUE"
        )
    client = ask.connect(api, token_file)
    if file is None:
        assert trace is not None
        assert value is not None
        steps: Iterator[list[Json]] = iter([[_label(trace, value, model, as_text=text)]])
        total = 1
    else:
        total = sum(1 for _ in _lines(file))
        steps = _steps(_read(file, model, as_text=text))
    done = _send(client, steps, total)
    if as_json:
        typer.echo(json.dumps({"labels": done}, separators=(",", ":")))
    else:
        typer.echo(f"{done:,} label{'s' * (done != 1)} declared")


def _send(client: Client, steps: Iterator[list[Json]], total: int) -> int:
    """Declare labels step by step. Raises: WeirError, with what was done before."""
    done = 0
    try:
        with ask.bar("labels") as follow, ask.known_form():
            for labels in steps:
                answer: Answer = client.send("POST", ask.path("labels"), body=labels)
                done += int(answer.json()["labels"])
                follow("declared", done, total)
    except WeirError as error:
        if done:
            raise WeirError(f"{error}; {done:,} labels were declared before") from error
        raise
    except KeyboardInterrupt as error:
        ask.tell(f"{done:,} labels are declared, the others are not")
        raise typer.Exit(ask.INTERRUPTED) from error
    return done


def _steps(labels: Iterator[Json]) -> Iterator[list[Json]]:
    while step := list(islice(labels, STEP_LABELS)):
        yield step


def _lines(path: Path) -> Iterator[str]:
    """Read the lines of a file. Raises: WeirError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            while line := file.readline(LINE_LENGTH_MAX + 1):
                if len(line) > LINE_LENGTH_MAX:
                    raise WeirError(f"{path} has a line of more than {LINE_LENGTH_MAX} characters")
                yield line
    except OSError as error:
        raise WeirError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WeirError(f"{path} is not UTF-8") from error


def _read(path: Path, model: str | None, *, as_text: bool) -> Iterator[Json]:
    """Read the labels of a file. Raises: WeirError that names the line."""
    lines = _lines(path)
    first = next(lines, "")
    is_json = first.lstrip().startswith("{")
    numbered = _json_rows(path, first, lines) if is_json else _csv_rows(path, first, lines)
    for number, row in numbered:
        unknown = sorted(set(row) - _COLUMNS)
        if unknown or "trace_id" not in row or "value" not in row:
            what = f"has {unknown[0]!r}" if unknown else "lacks trace_id or value"
            raise WeirError(f"{path}, line {number} {what}; write trace_id, value, maybe model")
        value = row["value"]
        try:
            # JSON says of each value what it is; in CSV everything is text.
            made = _label(
                str(row["trace_id"]),
                value if isinstance(value, str) else json.dumps(value),
                row.get("model") or model,
                as_text=as_text or (is_json and isinstance(value, str)),
            )
        except typer.BadParameter as error:
            raise WeirError(f"{path}, line {number}: {error.message}") from error
        yield made


def _json_rows(path: Path, first: str, lines: Iterator[str]) -> Iterator[tuple[int, Json]]:
    number = 1
    line: str | None = first
    while line is not None:
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise WeirError(f"{path}, line {number} is not JSON") from error
            if not isinstance(row, dict):
                raise WeirError(f"{path}, line {number} is no object")
            yield number, row
        line = next(lines, None)
        number += 1


def _csv_rows(path: Path, first: str, lines: Iterator[str]) -> Iterator[tuple[int, Json]]:
    names: Sequence[str] = next(csv.reader([first]), [])
    if "trace_id" not in names:
        raise WeirError(f"{path}, line 1 names no columns; write trace_id,value or JSON lines")
    reader = csv.reader(lines, strict=True)
    try:
        for row in reader:
            if not row:
                continue
            number = reader.line_num + 1
            if len(row) != len(names):
                raise WeirError(f"{path}, line {number} has {len(row)} values, not {len(names)}")
            yield number, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise WeirError(f"{path}, line {reader.line_num + 1} is not CSV: {error}") from error


def _label(trace: str, value: str, model: str | None, *, as_text: bool) -> Json:
    """Make a label. Raises: BadParameter."""
    if _TRACE_ID.fullmatch(trace) is None:
        raise typer.BadParameter(
            f"{printable(trace)!r} is no trace id; it is 1 to 32 hexadecimal digits",
            param_hint="TRACE",
        )
    made: dict[str, Json] = {"trace_id": trace.lower().zfill(32), "value": value}
    if not as_text:
        made["value"] = _scalar(value)
    if model:
        made["model"] = model
    return made


def _scalar(text: str) -> Json:
    """Read a number or a boolean where a text is one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, bool | int | float) else text
