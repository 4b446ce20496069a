"""`weir baseline`: build baselines from files of predictions.

Law: what is written has passed its own check, and nothing is written otherwise.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.batch import Json
from gateway.terminal import ask, tables

baseline = typer.Typer(
    no_args_is_help=True,
    help="Build baselines of drift from files of predictions.",
)


@baseline.command("build")
def build(
    files: Annotated[
        list[Path],
        typer.Argument(help="Predictions: Parquet, CSV or JSON lines, in the order of time."),
    ],
    contract: Annotated[Path, typer.Option("--contract", help="Contract of the model.")],
    version: Annotated[
        str, typer.Option("--model-version", metavar="VERSION", help="Version that predicted.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="PATH", help="A folder, or a file that ends in .json."
        ),
    ],
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="COLUMN", help="Column of times; it has to ascend."),
    ] = None,
    *,
    replace_version: Annotated[
        bool, typer.Option("--replace", help="Replace what the file has of this version.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Build the baseline of a model version, check it against itself, and write it."""
    # Imported here, because commands that ask a gateway need neither statistics nor Parquet.
    from gateway.terminal import building

    found = building.build(files, contract, version, output, time=time, is_replaced=replace_version)
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        _draw(tables.screen(), found)


def _draw(console: Console, found: Json) -> None:
    tables.built(console, found)
    small = [each["signal"] for each in found["signals"] if not each["calibrated"]]
    if small:
        ask.tell(
            f"uncalibrated: {', '.join(small)} has fewer events than a tolerance of "
            f"{found['tolerance']:g} needs; it shows an index with its interval and never alarms"
        )
    if found["learned_on_site"]:
        ask.tell(f"no column, so learned on site: {', '.join(found['learned_on_site'])}")
    ask.tell(f"{found['file']} is written; name it in the contract's drift.baseline")
