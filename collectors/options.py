"""What the commands share: options of the connection, units on the command line, the way to end.

Law: what a person may write wrongly is refused with what to write instead and exit code 2. Results
go to standard output, everything else to standard error.
"""

import logging
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from collectors.buffer import BUFFER_BYTES_MIN
from collectors.transport import Access, WireProtocol
from gateway.errors import StartError

UNUSABLE: Final = 2
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
BUFFER_BYTES_LIMIT: Final = 64 << 30


def duration_s(text: str) -> float:
    """Read `15s`, `250ms`, `5m`, `24h` as seconds above 0. Raises: typer.BadParameter."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)", text)
    if found is None or float(found[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no duration: write 15s, 250ms, 5m or 24h")
    return float(found[1]) * _SECONDS[found[2]]


def size_bytes(text: str) -> int:
    """Read `16MiB` as bytes. Raises: typer.BadParameter."""
    found = re.fullmatch(r"(\d{1,12})(B|KiB|MiB|GiB)", text)
    size = int(found[1]) * _BYTES[found[2]] if found else 0
    if not BUFFER_BYTES_MIN <= size <= BUFFER_BYTES_LIMIT:
        raise typer.BadParameter(f"{text!r} is no size from 256KiB to 64GiB: write 16MiB")
    return size


EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        envvar="WEIR_ENDPOINT",
        help="The gateway: https://gateway.example:4318; http:// on this machine.",
    ),
]
ProtocolOption = Annotated[
    WireProtocol, typer.Option("--protocol", help="How OTLP is spoken; gRPC listens on 4317.")
]
HeaderOption = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="NAME=VALUE", help="A header; may be repeated."),
]
TokenOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="File with the bearer token; read for each request."
    ),
]
CaOption = Annotated[
    Path | None,
    typer.Option("--ca", metavar="FILE", help="PEM of the authorities that may vouch for it."),
]
CertOption = Annotated[
    Path | None, typer.Option("--cert", metavar="FILE", help="PEM of the client's certificate.")
]
KeyOption = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="PEM of the certificate's key.")
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Allow http:// to another machine: readable on the way.")
]
BufferOption = Annotated[
    Path | None,
    typer.Option(
        "--buffer",
        metavar="DIR",
        help="Keep what waits in this folder, over restarts; without it, in memory.",
    ),
]
BufferBytesOption = Annotated[
    int,
    typer.Option(
        "--buffer-size",
        metavar="SIZE",
        parser=size_bytes,
        help="The most that may wait, like 16MiB; past it the oldest is dropped and counted.",
    ),
]
DrainOption = Annotated[
    float,
    typer.Option(
        "--drain",
        metavar="TIME",
        parser=duration_s,
        help="How long the end waits for the gateway to take what is left.",
    ),
]
# What the options' parsers make of their text; typer parses defaults too.
BUFFER_DEFAULT: Final = "16MiB"
DRAIN_DEFAULT: Final = "10s"


def access_of(
    endpoint: str | None,
    *,
    protocol: WireProtocol,
    header: list[str] | None,
    token_file: Path | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    insecure: bool,
) -> Access:
    """Put the options of the connection together. Raises: StartError."""
    if endpoint is None:
        raise StartError("where is the gateway? write --endpoint https://gateway.example:4318")
    headers = {}
    for text in header or ():
        name, separator, value = text.partition("=")
        if not separator:
            raise StartError("a header has a name and a value: write --header name=value")
        headers[name.strip()] = value.strip()
    return Access(
        endpoint=endpoint,
        protocol=protocol,
        headers=headers,
        token_file=token_file,
        ca=ca,
        cert=cert,
        key=key,
        insecure=insecure,
    )


def log_to_stderr(*, verbose: bool = False) -> None:
    """Send the log to standard error."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )


@contextmanager
def refusing() -> Iterator[None]:
    """End with code 2 and one line when the input cannot be used."""
    try:
        yield
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        raise typer.Exit(UNUSABLE) from error


def stop_on_signals() -> threading.Event:
    """Make an event that SIGTERM and SIGINT set; a second one ends the process as usual."""
    stop = threading.Event()

    def on_signal(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop
