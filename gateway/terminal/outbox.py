"""The commands about what leaves: destinations, what waits for them, and dead letters.

Law: what changes many letters asks the API in bounded steps, and only about letters that were there
when it began: a replayed frame that is refused again is not taken twice. With `--json` the answers
of the steps are printed as one, in the API's form.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final

import typer

from gateway.batch import Json, Signal
from gateway.config.units import parse_duration
from gateway.errors import WeirError
from gateway.terminal import ask, tables
from gateway.terminal.ask import ApiOption, JsonOption, TokenOption
from gateway.terminal.client import Answer, Client, printable

# The most ids that the API takes at once.
IDS_MAX: Final = 100

dead_letter = typer.Typer(
    no_args_is_help=True,
    help="See what destinations refused or never got and why; send it again, or throw it away.",
)
forward = typer.Typer(
    no_args_is_help=True, help="See what waits for each destination, and wait until it has left."
)

Ids = Annotated[
    list[int] | None, typer.Argument(metavar="[ID]...", help="Letters, as `list` shows them.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All letters that fit the other options.")]
DestinationOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only of this destination.")
]
SignalOption = Annotated[
    Signal | None, typer.Option(help="Only of this signal.", show_default=False)
]
ReasonOption = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Only with this text in the cause or reason, in any case."),
]


# --- dead letters -------------------------------------------------------------------------------


@dead_letter.command("list")
def list_letters(
    destination: DestinationOption = None,
    signal: SignalOption = None,
    reason: ReasonOption = None,
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """List dead letters, the newest first.

    A letter with a body is one whole frame that was refused; it can be replayed. The others say how
    many items were lost for one reason: rejected one by one, or given up because the outbox was
    full or the destination was removed.
    """
    query = ask.paged(destination=destination, signal=signal, reason=reason)
    answer = ask.connect(api, token_file).get(ask.path("dead-letters"), query=query)
    ask.show(answer, as_json, tables.dead_letters)


@dead_letter.command("replay")
def replay_letters(
    ids: Ids = None,
    destination: DestinationOption = None,
    signal: SignalOption = None,
    reason: ReasonOption = None,
    *,
    everything: AllOption = False,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Send dead letters again, the oldest first: by id, or --all that fit the options.

    Repair the cause at the destination before. Replayed items are pending again; what is refused
    again becomes a new letter. A destination with a window sends them in it.
    """
    filters = _filters(destination, signal, reason)
    _check_choice(ids, filters, everything=everything)
    client = ask.connect(api, token_file)
    _change(client, "POST", ask.path("dead-letters", "replay"), ids, filters, as_json, "replayed")


@dead_letter.command("drop")
def drop_letters(
    ids: Ids = None,
    destination: DestinationOption = None,
    signal: SignalOption = None,
    reason: ReasonOption = None,
    *,
    everything: AllOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Throw dead letters away for good: by id, or --all that fit the options.

    Their items stay counted as dropped. Asks first, unless --yes is given.
    """
    filters = _filters(destination, signal, reason)
    _check_choice(ids, filters, everything=everything)
    client = ask.connect(api, token_file)
    if not yes:
        _confirm(client, ids, filters)
    _change(client, "DELETE", ask.path("dead-letters"), ids, filters, as_json, "dropped")


def _filters(destination: str | None, signal: Signal | None, reason: str | None) -> dict[str, str]:
    given = {"destination": destination, "signal": signal, "reason": reason}
    return {name: str(value) for name, value in given.items() if value}


def _check_choice(
    ids: Sequence[int] | None, filters: Mapping[str, str], *, everything: bool
) -> None:
    if bool(ids) == everything or (ids and filters):
        raise typer.BadParameter(
            "name letters by their ids, or give --all with any of --destination, --signal and"
            " --reason",
            param_hint="ID",
        )


def _confirm(client: Client, ids: Sequence[int] | None, filters: Mapping[str, str]) -> None:
    """Ask whether letters may be dropped; exits with 1 when not."""
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is nobody to ask; give --yes", param_hint="--yes")
    what = f"{len(ids or ())} letters"
    if not ids:
        found = client.get(ask.path("dead-letters"), query={"limit": "1", **filters}).json()
        with ask.known_form():
            what = f"{found['total']:,} letters of {found['total_items']:,} items"
    # Not typer's question: it leaves a space on standard output.
    typer.echo(f"drop {what} for good? [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise typer.Exit(1)


def _change(
    client: Client,
    method: str,
    path: str,
    ids: Sequence[int] | None,
    filters: Mapping[str, str],
    as_json: bool,
    done: str,
) -> None:
    """Replay or drop letters step by step, with a bar; says what was done."""
    sum_of = {"letters": 0, "items": 0, "left": 0, "kept": 0}
    with ask.bar("letters") as follow, ask.known_form():
        for total, answer in _steps(client, method, path, ids, filters):
            sum_of["letters"] += answer["letters"]
            sum_of["items"] += answer["items"]
            sum_of["left"] = answer["left"]
            # Of all, each answer tells the same; of ids, each tells of its own.
            sum_of["kept"] = answer["kept"] + (sum_of["kept"] if ids else 0)
            follow(done, sum_of["letters"], total)
    if as_json:
        sys.stdout.write(json.dumps(sum_of, separators=(",", ":")) + "\n")
    else:
        typer.echo(f"{sum_of['letters']:,} letters of {sum_of['items']:,} items {done}")
    if sum_of["kept"]:
        ask.tell(
            f"{sum_of['kept']:,} letters stay: nothing of them is kept that could be sent again, or"
            " their destination is gone"
        )
    missing = len(set(ids)) - sum_of["letters"] - sum_of["kept"] if ids else 0
    if missing:
        ask.tell(f"{missing:,} letters are not there (any more)")
    if ids and not sum_of["letters"]:
        raise typer.Exit(1)


def _steps(
    client: Client,
    method: str,
    path: str,
    ids: Sequence[int] | None,
    filters: Mapping[str, str],
) -> Iterator[tuple[int, Json]]:
    """Ask the API until nothing is left; yields how many letters there are, and each answer."""
    if ids:
        wanted = list(dict.fromkeys(ids))
        for start in range(0, len(wanted), IDS_MAX):
            part = ",".join(str(each) for each in wanted[start : start + IDS_MAX])
            yield len(wanted), client.send(method, path, query={"ids": part}).json()
        return
    query = {"limit": "1", **filters}
    page = client.get(ask.path("dead-letters"), query=query).json()
    choice = {"all": "true", "through": str(page["newest"]), **filters}
    while True:
        answer = client.send(method, path, query=choice).json()
        yield page["total"], answer
        if not answer["left"] or not answer["letters"]:
            return


# --- destinations -------------------------------------------------------------------------------


@forward.command("list")
def list_destinations(
    *, as_json: JsonOption = False, api: ApiOption = None, token_file: TokenOption = None
) -> None:
    """List destinations: what waits for each, since when, and the last error.

    States: sending, held (backlog waits for its window), failing, new (nothing was sent yet).
    """
    ask.show(ask.connect(api, token_file).get(ask.path("status")), as_json, tables.destinations)


@forward.command("drain")
def drain(
    destination: DestinationOption = None,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Give up after so long, such as 10m; exit 1."),
    ] = None,
    *,
    as_json: JsonOption = False,
    api: ApiOption = None,
    token_file: TokenOption = None,
) -> None:
    """Wait until all that waits for destinations now has left, with a progress bar.

    What arrives meanwhile is not waited for. Nothing is sent sooner than it would be anyway: a
    destination that is down or has a window is waited for.
    """
    limit_s = ask.read("--timeout", parse_duration, timeout) if timeout else None
    client = ask.connect(api, token_file)
    try:
        with ask.bar("items") as follow, ask.known_form():
            answer = _drained(client, destination, limit_s, follow)
    except KeyboardInterrupt as error:
        ask.tell("it goes on; see it with `weir forward list`")
        raise typer.Exit(ask.INTERRUPTED) from error
    ask.show(answer, as_json, tables.destinations)


def _drained(
    client: Client, destination: str | None, limit_s: float | None, follow: ask.Follow
) -> Answer:
    """Ask until what was pending at first has been settled. Raises: WeirError after the limit."""
    began = time.monotonic()
    wanted: dict[str, tuple[int, int]] = {}  # by destination: pending and settled at first
    for pause_s in ask.pauses():
        answer = client.get(ask.path("status"))
        found = answer.json()
        books = _books(found, destination)
        wanted = wanted or books
        left = sum(
            min(pending, max(0, wanted[name][0] + wanted[name][1] - settled))
            for name, (pending, settled) in books.items()
            if name in wanted
        )
        total = sum(pending for pending, _ in wanted.values())
        follow(_word(found, books), total - left, total)
        if left == 0:
            return answer
        if limit_s is not None and time.monotonic() - began > limit_s:
            raise WeirError(f"{left:,} items of {total:,} still wait after {limit_s:g} s")
        time.sleep(pause_s)
    raise AssertionError("the pauses have no end")


def _books(found: Json, destination: str | None) -> dict[str, tuple[int, int]]:
    """Add up pending and settled items of the destinations that are meant."""
    names = [each["destination"] for each in found["destinations"]]
    if destination is not None and destination not in names:
        known = ", ".join(map(printable, names)) or "none"
        raise WeirError(f"there is no destination {printable(destination)!r}; known: {known}")
    books: dict[str, tuple[int, int]] = {}
    for row in found["accounting"]:
        name = row["destination"]
        if name in names and destination in (None, name):
            pending, settled = books.get(name, (0, 0))
            settled += row["forwarded"] + row["dropped"]
            books[name] = pending + row["pending"], settled
    return books


def _word(found: Json, books: Mapping[str, object]) -> str:
    """Say how those are doing that are waited for, the worst first."""
    states = {
        tables.state_of(each) for each in found["destinations"] if each["destination"] in books
    }
    return next((each for each in ("failing", "held") if each in states), "sending")
