"""`weir baseline`: build baselines from files of predictions, list and promote them.

Law: what is written has passed its own check, and nothing is written otherwise.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway.batch import Json
from gateway.terminal import ask, drifts
from gateway.terminal.ask import ApiOption, JsonOption, TokenOption
from gateway.terminal.client import printable
from gateway.terminal.draw import screen

baseline = typer.Typer(
    no_args_is_help=True,
    help="Build baselines of drift from files of predictions, list and promote them.",
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
    correct: Annotated[
        str | None,
        typer.Option(
            "--correct", metavar="COLUMN", help="Column of whether predictions were right."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="COLUMN", help="Column of what was to be predicted."),
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

    found = building.build(
        files,
        contract,
        version,
        output,
        asked=building.Asked(time=time, correct=correct, label=label),
        is_replaced=replace_version,
    )
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        _draw(screen(), found)


@baseline.command("list")
def list_baselines(
    *, as_json: JsonOption = False, api: ApiOption = None, token_file: TokenOption = None
) -> None:
    """List baselines: collecting, inherited, candidate, frozen or superseded."""
    answer = ask.connect(api, token_file).get(ask.path("baselines"), query=ask.paged())
    ask.show(answer, as_json, drifts.baselines)


@baseline.command("promote")
def promote(
    baseline_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Id of a candidate or of what is in the shadow, or how it begins."
        ),
    ],
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Make a candidate the baseline of its signal, or the one before it again.

    What it replaces goes on in the shadow for seven days. Evidence starts at nothing.
    """
    client = ask.connect(api, token_file)
    with ask.known_form():
        page = client.get(ask.path("baselines"), query=ask.paged()).json()
        known = [str(each["id"]) for each in page["items"]]
    meant = sorted({each for each in known if each.startswith(baseline_id)} - {""})
    if len(meant) > 1:
        raise typer.BadParameter("several baselines begin so; write more of it", param_hint="ID")
    # What is on no page is for the gateway to find or to refuse.
    wanted = meant[0] if meant else baseline_id
    answer = client.send("POST", ask.path("baselines", wanted, "promote"))

    def draw(console: Console, found: Json) -> None:
        state = printable(str(found["state"]))
        told = "is promoted" if state == "frozen" else f"is {state}; its promotion is on disk"
        console.print(f"baseline {printable(found['id'])} {told}", markup=False, soft_wrap=True)

    ask.show(answer, as_json, draw)


def _draw(console: Console, found: Json) -> None:
    drifts.built(console, found)
    small = [each["signal"] for each in found["signals"] if not each["calibrated"]]
    if small:
        ask.tell(
            f"uncalibrated: {', '.join(small)} has fewer events than a tolerance of "
            f"{found['tolerance']:g} needs; it shows an index with its interval and never alarms"
        )
    if found["learned_on_site"]:
        ask.tell(f"no column, so learned on site: {', '.join(found['learned_on_site'])}")
    if found["classes_learned_on_site"]:
        rare = ", ".join(printable(each) for each in found["classes_learned_on_site"])
        ask.tell(f"too few rows of a class, so learned on site: {rare}")
    ask.tell(f"{found['file']} is written; name it in the contract's drift.baseline")
