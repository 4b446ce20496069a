"""Send ground truth from a file, a growing file or a pipe: `python -m collectors.labels --help`.

Law: exit code 0 says that every line was a label which the gateway has acknowledged. What was not
is told on standard error, with line numbers, and counted.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from collectors.client import Access, Client
from collectors.labelfile import Layout, Reader, ValueType
from collectors.labelrun import BATCH, Labels, Plan, Report
from collectors.options import (
    CaOption,
    CertOption,
    EndpointOption,
    HeaderOption,
    InsecureOption,
    KeyOption,
    ProtocolOption,
    TokenOption,
    access_of,
    duration_s,
    log_to_stderr,
    refusing,
    stop_on_signals,
)
from collectors.tail import Mark
from collectors.transport import WireProtocol
from gateway.errors import StartError

# So many of the longest labels are below 4 MiB, which is what gRPC servers take.
BATCH_MAX: Final = 5_000
STDIN: Final = "-"


@contextmanager
def _progress(labels: Labels, file: Path | None, plan: Plan) -> Iterator[None]:
    """Draw a bar of the bytes that are done, on a terminal and for a file that ends."""
    console = Console(stderr=True)
    if file is None or plan.follow or not console.is_terminal:
        yield
        return
    columns = (TextColumn("labels"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=file.stat().st_size)
        labels.on_done = lambda offset: progress.update(task, completed=offset)
        yield


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        text = json.dumps(
            {
                "lines": report.lines,
                "labels": report.labels,
                "bad": dict(report.bad),
                "rejected": report.rejected,
                "stopped": report.stopped or None,
            }
        )
        sys.stdout.write(f"{text}\n")
        return
    parts = [f"{report.labels} labels were taken"]
    if report.bad:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.bad.most_common())
        parts.append(f"{report.bad.total()} lines were bad ({reasons})")
    if report.rejected:
        parts.append(f"{report.rejected} labels were rejected by the gateway")
    if report.stopped:
        parts.append(report.stopped)
    sys.stderr.write(f"{'; '.join(parts)}\n")


def _layout(file: str, given: Layout | None) -> Layout:
    """Choose how lines are written. Raises: StartError when it cannot be known."""
    if given is not None:
        return given
    for layout in Layout:
        if file.endswith(f".{layout}"):
            return layout
    raise StartError(f"is {file!r} CSV or JSON? write --format csv or --format jsonl")


def _send(
    access: Access, reader: Reader, path: Path | None, mark: Mark | None, plan: Plan
) -> Report:
    client = Client(access)
    try:
        labels = Labels(client, path, mark, plan, stop_on_signals())
        with _progress(labels, path, plan):
            return labels.run(reader)
    finally:
        # What is not acknowledged by now is sent by the next run.
        client.close(0.0)


def _mark_of(path: Path, checkpoint: Path | None, *, from_start: bool) -> Mark:
    """Choose the checkpoint file. Raises: StartError when there is no file to mark."""
    if not path.is_file():
        raise StartError(f"{path} is no file: write its path, or - for standard input")
    place = checkpoint or path.with_name(f"{path.name}.sent.json")
    if from_start:
        place.unlink(missing_ok=True)
    return Mark(place)


cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def main(
    file: Annotated[str, typer.Argument(help="A .csv or .jsonl file, or - for standard input.")],
    endpoint: EndpointOption = None,
    layout: Annotated[
        Layout | None, typer.Option("--format", help="How lines are written; else by the name.")
    ] = None,
    value_type: Annotated[
        ValueType, typer.Option("--type", help="What the values of a CSV are.")
    ] = ValueType.STRING,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with lines that are appended, until stopped.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="Where it is kept how far it got; else FILE.sent.json."),
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Send lines again that were sent before.")
    ] = False,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=BATCH_MAX, help="Lines of one request.")
    ] = BATCH,
    rate: Annotated[
        float, typer.Option("--rate", min=0, help="The most labels a second; 0: no limit.")
    ] = 0.0,
    give_up: Annotated[
        float | None,
        typer.Option(
            "--give-up",
            metavar="TIME",
            parser=duration_s,
            help="End when one batch was not taken for so long; else it is tried for ever.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad line.")] = False,
    device_id: Annotated[
        str, typer.Option("--device-id", help="The device that this collector is.")
    ] = "",
    protocol: ProtocolOption = WireProtocol.HTTP,
    header: HeaderOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Send ground truth by trace id: columns or fields trace_id, value and, if known, model, time.

    Each label is delivered at least once. Exit code 0, 1 when lines were bad or not taken or the
    run was stopped before the end, 2 for input that cannot be used.
    """
    log_to_stderr()
    path = None if file == STDIN else Path(file)
    plan = Plan(
        batch=batch,
        rate=rate,
        follow=follow,
        strict=strict,
        give_up_s=give_up,
        device=device_id,
    )
    with refusing():
        access = access_of(
            endpoint,
            protocol=protocol,
            header=header,
            token_file=token_file,
            ca=ca,
            cert=cert,
            key=key,
            insecure=insecure,
        )
        reader = Reader(_layout(file, layout), value_type)
        mark = _mark_of(path, checkpoint, from_start=from_start) if path is not None else None
        report = _send(access, reader, path, mark, plan)
    _show(report, as_json=as_json)
    if not report.fine:
        raise typer.Exit(1)


if __name__ == "__main__":
    cli()
