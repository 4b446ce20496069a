"""The commands about single devices.

Law: a declaration is done when the gateway says that it is durable.
"""

from typing import Annotated

import typer
from rich.console import Console

from gateway.batch import Json
from gateway.terminal import ask
from gateway.terminal.ask import ApiOption, JsonOption, TokenOption

device = typer.Typer(no_args_is_help=True, help="Say what became of devices.")


@device.callback()
def devices() -> None:
    """Say what became of devices."""


@device.command("dismiss")
def dismiss(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Names as the devices tell them.")
    ],
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Declare that devices were taken out of service: nobody waits for them any more.

    A device that is heard again is expected again.
    """
    path = ask.path("devices", "dismiss")
    answer = ask.connect(api, token_file).send("POST", path, body={"devices": names})

    def draw(console: Console, found: Json) -> None:
        many = int(found["devices"])
        console.print(f"{many} device{'s' * (many != 1)} dismissed", markup=False)

    ask.show(answer, as_json, draw)
