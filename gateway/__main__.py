"""The command line: `weir run`, `weir check`, `weir demo`, and the API from a terminal.

Law: standard output carries results only, one JSON line for `run`; everything else goes to
standard error. Exit codes: 0 fine, 1 the command's own "no", 2 input that cannot be used.
"""

import asyncio
import dataclasses
import datetime
import functools
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from gateway import __version__, process
from gateway.config import SiteConfig, load_site
from gateway.contract.check import exit_code, inspect
from gateway.contract.load import load_contracts
from gateway.contract.plan import Plan, compile_plan
from gateway.contract.release import judge_release
from gateway.contract.render import Beside, render
from gateway.contract.tell import tell
from gateway.errors import InvalidConfigError, WeirError
from gateway.terminal import commands

cli = typer.Typer(
    name="weir",
    help="Telemetry gateway of one edge-AI site.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Site file; without it, defaults on loopback.")
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of everything Weir writes.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one knob; may be repeated."),
]


def load(
    config: Path | None, overrides: list[str] | None, data_dir: Path | None
) -> tuple[SiteConfig, Plan]:
    """Read the site file and its contracts.

    Raises: InvalidConfigError with all findings.
    """
    # Imported here, because commands that ask a gateway need no statistics.
    from gateway.measure.drift.files import faults

    site = load_site(config, overrides or (), data_dir)
    today = datetime.datetime.now(datetime.UTC).date()
    contracts = load_contracts(site.contracts, today=today)
    unfit = faults(contracts)
    if unfit:
        raise InvalidConfigError(unfit)
    return site, compile_plan(contracts, site.sampling)


@cli.command()
def run(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    overrides: SetOption = None,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log more.")] = False,
) -> None:
    """Run the gateway until SIGTERM or SIGINT; SIGHUP reloads the site file."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    # Whatever is written, by whichever library, is for this user alone.
    os.umask(0o077)
    site, plan = load(config, overrides, data_dir)
    process.prepare()
    # Imported here, so that `weir check` starts without the servers.
    from gateway.app import Addresses, Gateway

    gateway = Gateway(site, plan, functools.partial(load, config, overrides, data_dir))

    def on_ready(addresses: Addresses) -> None:
        line = {
            "ready": True,
            "otlp_grpc": addresses.otlp_grpc,
            "otlp_http": addresses.otlp_http,
            "api": addresses.api,
            "data_dir": str(site.data_dir),
        }
        print(json.dumps(line), flush=True)

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, gateway.reload)
        await gateway.run(on_ready, stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


@cli.command()
def check(
    paths: Annotated[list[Path], typer.Argument(help="Site files, contracts, or folders of them.")],
    output: Annotated[
        str, typer.Option("--format", help="text, json or sarif.", metavar="FORMAT")
    ] = "text",
    release: Annotated[
        Path | None,
        typer.Option("--release", help="Manifest of a release that must fit its model's budget."),
    ] = None,
) -> None:
    """Validate site files, contracts and OpenSLO: exit 0 clean, 1 findings, 2 unusable input.

    Also tells of each SLO what error share it can detect, how soon, and what that costs.
    """
    if output not in ("text", "json", "sarif"):
        raise typer.BadParameter("write text, json or sarif", param_hint="--format")
    seen = inspect(paths, today=datetime.datetime.now(datetime.UTC).date())
    # Imported here, because most commands need no cryptography and no statistics.
    from gateway.measure.drift.files import faults
    from gateway.reload import unusable_files

    findings = [*seen.findings, *faults(seen.contracts)]
    findings += [each for site in seen.sites for each in unusable_files(site)]
    beside = Beside(notes=seen.notes, slos=tell(seen.contracts))
    if release is not None:
        judged = judge_release(release, seen.contracts)
        findings += judged.findings
        beside = dataclasses.replace(beside, releases=judged.predictions)
    print(render(findings, output, __version__, beside))
    raise typer.Exit(exit_code(findings))


@cli.command()
def demo(
    seconds: Annotated[float, typer.Option(help="Longest healthy phase.")] = 60.0,
    devices: Annotated[int, typer.Option(help="Count of emulated devices.")] = 24,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 7,
    overrides: SetOption = None,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run a gateway, a fleet and a sink: drift, a bad release, a page, a deep dive."""
    from gateway import demo as story

    options = story.Options(
        seconds=seconds,
        devices=devices,
        seed=seed,
        keep=keep,
        as_json=as_json,
        overrides=overrides or (),
    )
    raise typer.Exit(story.run(options))


commands.add_to(cli)


def main() -> None:
    """Run the command line; a known error is one clear sentence and a non-zero exit."""
    try:
        cli()
    except InvalidConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except WeirError as error:
        print(f"weir: {error}", file=sys.stderr)
        sys.exit(1)
    except ExceptionGroup as group:
        known, unknown = group.split(WeirError)
        if known is None or unknown is not None:
            raise
        for each in _leaves(known):
            print(f"weir: {each}", file=sys.stderr)
        sys.exit(1)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """List the exceptions of a group and of the groups in it."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


if __name__ == "__main__":
    main()
