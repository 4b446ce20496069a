"""The commands: what a person may ask, how it is said to the API, how the answer is shown.

Law: standard output carries the answer only; with `--json` it is the API's JSON to the byte and a
line end. Exit codes: 0 fine, 1 the gateway's "no" or no gateway, 2 a request that makes no sense.
"""

import re
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from gateway.batch import Json
from gateway.config.units import parse_duration, parse_size
from gateway.errors import WeirError
from gateway.retrieve.states import FINAL, State
from gateway.terminal import ask, baselines, devices, drifts, outbox, rollouts, tables
from gateway.terminal.ask import ApiOption, JsonOption, TokenOption
from gateway.terminal.client import JSON_TYPE, Answer, Client, printable
from gateway.terminal.draw import screen

PROTOBUF_TYPE: Final = "application/x-protobuf"
PROBLEMS_HEADER: Final = "weir-problems"

# A dive ends by itself at its limit; the gateway looks about every second.
WAIT_GRACE_S: Final = 60.0

_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{1,32}")


class AnomalyState(StrEnum):
    """Whether somebody has to look."""

    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    RESOLVED = "resolved"


class Format(StrEnum):
    """How traces are written."""

    JSON = "json"
    PROTOBUF = "protobuf"


DiveId = Annotated[str, typer.Argument(metavar="ID", help="Id of a deep dive, as `list` shows.")]
AnomalyId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of an anomaly, as `weir anomalies` shows.")
]

anomalies = typer.Typer(invoke_without_command=True)
dive = typer.Typer(
    no_args_is_help=True,
    help="Fetch full traces from the devices that hold them, and see what came.",
)


def add_to(cli: typer.Typer) -> None:
    """Add the commands to a command line."""
    cli.command()(status)
    cli.command()(slo)
    cli.command()(drift)
    cli.add_typer(anomalies, name="anomalies")
    cli.add_typer(dive, name="dive")
    cli.add_typer(baselines.baseline, name="baseline")
    cli.add_typer(devices.device, name="device")
    cli.command()(rollouts.label)
    cli.add_typer(rollouts.rollout, name="rollout")
    cli.add_typer(outbox.dead_letter, name="dead-letter")
    cli.add_typer(outbox.forward, name="forward")


# --- state --------------------------------------------------------------------------------------


def status(
    *, as_json: JsonOption = False, api: ApiOption = None, token_file: TokenOption = None
) -> None:
    """Show what a gateway is, whether it takes data, and where every span has gone."""
    client = ask.connect(api, token_file)
    answer = client.get(ask.path("status"))

    def draw(console: Console, found: Json) -> None:
        checks = []
        if not found["ready"]:
            checks = client.get("/readyz", also=503).json()["checks"]
        tables.status(console, found, [each for each in checks if not each["ok"]])

    ask.show(answer, as_json, draw)


def slo(
    *, as_json: JsonOption = False, api: ApiOption = None, token_file: TokenOption = None
) -> None:
    """Show service level objectives: what is left of each budget and how fast it burns."""
    ask.show(
        ask.connect(api, token_file).get(ask.path("slo"), query=ask.paged()), as_json, tables.slos
    )


def drift(
    *, as_json: JsonOption = False, api: ApiOption = None, token_file: TokenOption = None
) -> None:
    """Show each signal of each model against its baseline."""
    ask.show(
        ask.connect(api, token_file).get(ask.path("drift"), query=ask.paged()),
        as_json,
        drifts.drift,
    )


# --- anomalies ----------------------------------------------------------------------------------


@anomalies.callback()
def list_anomalies(
    context: typer.Context,
    state: Annotated[
        AnomalyState | None, typer.Option(help="Only those in this state.", show_default=False)
    ] = None,
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """List anomalies, the newest first; show or acknowledge one."""
    if context.invoked_subcommand is None:
        answer = ask.connect(api, token_file).get(
            ask.path("anomalies"), query=ask.paged(state=state)
        )
        ask.show(answer, as_json, tables.anomalies)
        return
    if state is not None:
        raise typer.BadParameter("it belongs to the list", param_hint="--state")
    # `weir anomalies --api URL show ID` means the same as `weir anomalies show ID --api URL`.
    given = {"as_json": as_json, "api": api, "token_file": token_file}
    context.default_map = {context.invoked_subcommand: given}


@anomalies.command("show")
def show_anomaly(
    anomaly_id: AnomalyId,
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show one anomaly: since when, how sure, and the traces that explain it."""
    ask.show(
        ask.connect(api, token_file).get(ask.path("anomalies", anomaly_id)), as_json, tables.anomaly
    )


@anomalies.command("ack")
def acknowledge(
    anomaly_id: AnomalyId,
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Say that you look after an anomaly."""
    path = ask.path("anomalies", anomaly_id, "ack")
    ask.show(ask.connect(api, token_file).send("POST", path), as_json, tables.anomaly)


# --- deep dives ---------------------------------------------------------------------------------


def _wish(
    anomaly: str | None, traces: list[str], query: dict[str, Json], max_bytes: str | None
) -> dict[str, Json]:
    """Make the body of a new dive from one of the three ways to select."""
    if sum(map(bool, (anomaly, traces, query))) != 1:
        raise typer.BadParameter(
            "select in one of three ways: --anomaly, --trace (may be repeated), or any of"
            " --model, --version, --device and --since",
            param_hint="weir dive start",
        )
    body: dict[str, Json] = {}
    if anomaly:
        body["anomaly_id"] = anomaly
    if traces:
        wrong = [trace for trace in traces if not _TRACE_ID.fullmatch(trace)]
        if wrong:
            raise typer.BadParameter(
                f"{wrong[0]!r} is no trace id; it is 1 to 32 hexadecimal digits",
                param_hint="--trace",
            )
        body["trace_ids"] = [trace.lower().zfill(32) for trace in traces]
    if query:
        body["query"] = query
    if max_bytes:
        body["max_bytes"] = ask.read("--max-bytes", parse_size, max_bytes)
    return body


@dive.command("start")
def start_dive(
    anomaly: Annotated[
        str | None, typer.Option(metavar="ID", help="The traces that explain this anomaly.")
    ] = None,
    trace: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="This trace; may be repeated.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Traces of this model.")] = None,
    version: Annotated[str | None, typer.Option(help="Traces of this model version.")] = None,
    device: Annotated[str | None, typer.Option(help="Traces of this device.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Traces of the last 10m, 2h or 1d.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the dive.")] = "",
    max_bytes: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Fetch at most so much, such as 8MiB."),
    ] = None,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end; exit 1 unless it is complete.")
    ] = False,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Ask the devices for full traces: of an anomaly, by trace id, or by model, device and time."""
    query: dict[str, Json] = {"model": model, "version": version, "device": device}
    query = {name: value for name, value in query.items() if value}
    if since:
        since_ns = int(ask.read("--since", parse_duration, since) * 1e9)
        query["from"] = max(0, time.time_ns() - since_ns)
    body = _wish(anomaly, trace or [], query, max_bytes)
    if reason:
        body["reason"] = reason
    client = ask.connect(api, token_file)
    accepted = client.send("POST", ask.path("dives"), body=body)
    if not wait:
        ask.show(accepted, as_json, _say_accepted)
        return
    with ask.known_form():
        made = str(accepted.json()["id"])
        ask.tell(f"deep dive {made} is open")
        ended = _wait(client, made)
        state = ended.json()["state"]
    ask.show(ended, as_json, tables.dive)
    if state != State.COMPLETE:
        raise typer.Exit(1)


def _say_accepted(console: Console, found: Json) -> None:
    made = printable(found["id"])
    console.print(f"deep dive {made} is {printable(found['state'])}", markup=False, soft_wrap=True)
    ask.tell(f"follow it with `weir dive show {made}`, read it with `weir dive fetch {made}`")


def _wait(client: Client, dive_id: str) -> Answer:
    """Ask for a dive until it has ended.

    Raises: WeirError when it has not ended long after its own limit.
    """
    try:
        with ask.bar("traces") as follow:
            return _ended(client, dive_id, follow)
    except KeyboardInterrupt as error:
        ask.tell(f"the deep dive goes on; see it with `weir dive show {dive_id}`")
        raise typer.Exit(ask.INTERRUPTED) from error


def _ended(client: Client, dive_id: str, follow: ask.Follow) -> Answer:
    began = time.monotonic()
    for pause_s in ask.pauses():
        answer = client.get(ask.path("dives", dive_id))
        found = answer.json()
        wanted = found["traces_wanted"] or None
        follow(f"{State(found['state']):<9}", found["traces_received"], wanted)
        if found["state"] in FINAL:
            return answer
        limit_s = (found["not_after_ns"] - found["created_ns"]) / 1e9 + WAIT_GRACE_S
        if time.monotonic() - began > limit_s:
            raise WeirError(f"deep dive {printable(dive_id)} did not end at its limit")
        time.sleep(pause_s)
    raise AssertionError("the pauses have no end")


@dive.command("list")
def list_dives(
    state: Annotated[
        State | None, typer.Option(help="Only those in this state.", show_default=False)
    ] = None,
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """List deep dives, the newest first."""
    answer = ask.connect(api, token_file).get(ask.path("dives"), query=ask.paged(state=state))
    ask.show(answer, as_json, tables.dives)


@dive.command("show")
def show_dive(
    dive_id: DiveId,
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show one deep dive: its state, what each device has answered, and what is missing."""
    ask.show(ask.connect(api, token_file).get(ask.path("dives", dive_id)), as_json, tables.dive)


@dive.command("fetch")
def fetch_dive(
    dive_id: DiveId,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write here, not to standard output."),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="OTLP as JSON or protobuf.")
    ] = Format.JSON,
    *,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Read the full traces that a deep dive has fetched so far; every reading is audited."""
    if form is Format.PROTOBUF and output is None and sys.stdout.isatty():
        raise typer.BadParameter("protobuf is not for a terminal; name a file", param_hint="-o")
    kind = JSON_TYPE if form is Format.JSON else PROTOBUF_TYPE
    answer = ask.connect(api, token_file).get(ask.path("dives", dive_id, "traces"), accept=kind)
    if PROBLEMS_HEADER in answer.headers:
        ask.tell(f"not everything is here: {answer.headers[PROBLEMS_HEADER]}")
    if output is not None:
        _write(output, answer.body)
        ask.tell(f"{len(answer.body):,} bytes written to {output}")
    elif form is Format.JSON:
        sys.stdout.write(answer.text() + "\n")
    else:
        sys.stdout.buffer.write(answer.body)


def _write(path: Path, body: bytes) -> None:
    """Write a file. Raises: WeirError."""
    try:
        path.write_bytes(body)
    except OSError as error:
        raise WeirError(f"{path} cannot be written: {error.strerror}") from error


@dive.command("delete")
def delete_dive(
    dive_id: DiveId,
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Cancel a deep dive and delete all that it fetched."""
    ask.connect(api, token_file).send("DELETE", ask.path("dives", dive_id))
    if not as_json:  # the API's answer has no body
        screen().print(f"deep dive {printable(dive_id)} is deleted", markup=False)
