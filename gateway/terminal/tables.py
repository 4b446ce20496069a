"""Answers of the API as tables for a person.

Law: text of the answer is shown as it is, never as markup, and without control characters; what
has no room is folded, never cut. Times are UTC. What is not known is a dash.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.batch import Json
from gateway.config.units import format_duration
from gateway.terminal.client import printable

# Of a table that goes into a file or a pipe, unless COLUMNS says otherwise.
COLUMNS: Final = 200
DIGEST_DIGITS: Final = 12
UNKNOWN: Final = "-"
UNBROKEN: Final = ("trace", "state")

_LOUD: Final = {
    "firing": "bold red",
    "page": "bold red",
    "refused": "red",
    "expired": "red",
    "failing": "bold red",
    "held": "yellow",
    "partial": "yellow",
    "ticket": "yellow",
    "acknowledged": "yellow",
    "halted": "bold red",
    "warned": "yellow",
    "complete": "green",
    "resolved": "green",
}


def screen() -> Console:
    """Open standard output for tables."""
    wide = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=COLUMNS if wide else None)


def _text(value: object, style: str = "") -> Text:
    return Text(printable(str(value)) or UNKNOWN, style=style)


def _word(value: str) -> Text:
    return _text(value, _LOUD.get(value, ""))


def instant(time_ns: int | None) -> str:
    """Write a time in UTC, a dash when there is none."""
    if not time_ns:
        return UNKNOWN
    return f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%SZ}"


def _number(value: float | None, form: str = ".3g") -> str:
    return UNKNOWN if value is None else format(value, form)


def _bytes(size: int) -> str:
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def _table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    """Begin a table; numbers go to the right and, like ids, stay whole while there is room."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="fold",
            no_wrap=name in right or name in UNBROKEN,
        )
    return table


def _fields(rows: Iterable[tuple[str, Text | str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value if isinstance(value, Text) else _text(value))
    return table


def _page(console: Console, page: Json, draw: Callable[[], None], none: str) -> None:
    """Print what a page holds, or that there is nothing, and what is not shown."""
    shown, total = len(page["items"]), page["total"]
    if not shown:
        console.print(none)
        return
    draw()
    if total > shown:
        console.print(f"{shown} of {total} shown")


def _lines(console: Console, heads: Sequence[str], rows: Sequence[tuple[list[Text], Text]]) -> None:
    """Print a line of short columns for each row and its long text below.

    A table would squeeze the text into a column of a few letters beside an id.
    """
    lines = [[_text(head, "bold") for head in heads], *(columns for columns, _ in rows)]
    widths = [max(line[index].cell_len for line in lines) for index in range(len(heads))]
    texts = [None, *(text for _, text in rows)]
    for line, text in zip(lines, texts, strict=True):
        for column, width in zip(line, widths, strict=True):
            column.pad_right(width - column.cell_len)
        whole = Text("  ").join(line)
        whole.rstrip()
        console.print(whole, soft_wrap=True)
        if text is not None and text.plain != UNKNOWN:
            console.print(Padding(text, (0, 0, 0, 2)))


def anomalies(console: Console, page: Json) -> None:
    """Show a list of anomalies."""
    rows = [
        (
            [
                _text(view["anomaly"]["id"]),
                _word(view["state"]),
                _word(view["anomaly"]["severity"]),
                _text(instant(view["anomaly"]["raised_ns"])),
            ],
            _text(view["anomaly"]["summary"]),
        )
        for view in page["items"]
    ]
    heads = ("id", "state", "severity", "raised")
    _page(console, page, lambda: _lines(console, heads, rows), "no anomalies")


def anomaly(console: Console, view: Json) -> None:
    """Show one anomaly with its evidence."""
    found = view["anomaly"]
    by = view["acknowledged_by"]
    console.print(
        _fields(
            [
                ("id", found["id"]),
                ("summary", found["summary"]),
                ("state", _word(view["state"])),
                ("severity", _word(found["severity"])),
                ("kind", f"{found['kind']} of {found['subject']}"),
                ("model", f"{found['model']} {found['version']}"),
                ("owner", found["owner"]),
                ("since", instant(found["onset_ns"])),
                ("raised", instant(found["raised_ns"])),
                ("resolved", instant(found["resolved_ns"])),
                ("acknowledged", f"{instant(view['acknowledged_ns'])} {f'by {by}' * bool(by)}"),
                ("deep dives", ", ".join(view["dives"])),
                *((name, _number(value, ".6g")) for name, value in found["numbers"].items()),
            ]
        )
    )
    if found["evidence"]:
        table = _table("evidence", "trace", "device", "reason")
        for each in found["evidence"]:
            table.add_row(_text(each["trace_id"]), _text(each["device"]), _text(each["reason"]))
        console.print(table)


def dives(console: Console, page: Json) -> None:
    """Show a list of deep dives."""
    rows = [
        (
            [
                _text(dive["id"]),
                _word(dive["state"]),
                _text(instant(dive["created_ns"])),
                _text(f"{dive['traces_received']}/{dive['traces_wanted']}"),
            ],
            _text(dive["reason"]),
        )
        for dive in page["items"]
    ]
    heads = ("id", "state", "opened", "traces")
    _page(console, page, lambda: _lines(console, heads, rows), "no deep dives")


def dive(console: Console, found: Json) -> None:
    """Show one deep dive and what each device has answered."""
    console.print(
        _fields(
            [
                ("id", found["id"]),
                ("state", _word(found["state"])),
                ("reason", found["reason"]),
                ("asked by", found["requested_by"]),
                ("anomaly", found["anomaly_id"] or UNKNOWN),
                ("opened", instant(found["created_ns"])),
                ("changed", instant(found["updated_ns"])),
                ("ends by", instant(found["not_after_ns"])),
                ("traces", f"{found['traces_received']} of {found['traces_wanted']}"),
                ("size", f"{_bytes(found['bytes'])} of {_bytes(found['bytes_max'])}"),
                ("missing", found["missing"]),
            ]
        )
    )
    if found["devices"]:
        table = _table(
            "devices", "device", "state", "traces", "size", "detail", right=("traces", "size")
        )
        for each in found["devices"]:
            table.add_row(
                _text(each["device"]),
                _word(each["state"]),
                str(each["traces"]),
                _bytes(each["bytes"]),
                _text(each["detail"]),
            )
        console.print(table)


def status(console: Console, found: Json, failed: Sequence[Json]) -> None:
    """Show what a gateway is and its books; `failed` are the checks that keep it from ready."""
    ready = _text("yes", "green")
    if not found["ready"]:
        why = "; ".join(f"{each['check']}: {each['detail']}" for each in failed)
        ready = _text(f"no: {why}" if why else "no", "bold red")
    uptime = format_duration(float(round(found["uptime_s"])))
    console.print(
        _fields(
            [
                ("site", f"{found['site']} ({found['cluster']}, {found['region']})"),
                ("ready", ready),
                ("version", f"{found['version']}, kernel {found['kernel'][:DIGEST_DIGITS]}"),
                ("policy", found["policy"][:DIGEST_DIGITS]),
                ("started", f"{instant(found['started_ns'])}, {uptime} ago"),
                ("journal", _bytes(found["journal_bytes"])),
                (
                    "store",
                    f"{_bytes(found['store_bytes'])} in {found['store_segments']} segments,"
                    f" {found['store_pending_rows']} rows pending",
                ),
            ]
        )
    )
    terms = ("received", "forwarded", "sampled out", "dropped", "quarantined", "pending")
    books = found["accounting"]
    names = [f"{row['signal']} to {row['destination'] or 'none'}" for row in books]
    table = _table("books", "", *names, right=names)
    for term in terms:
        table.add_row(term, *(f"{row[term.replace(' ', '_')]:,}" for row in books))
    balanced = (_text("yes") if row["balanced"] else _text("no", "bold red") for row in books)
    table.add_row("balanced", *balanced)
    console.print(table)
    if found["destinations"]:
        destinations(console, found)
    if found["contracts"]:
        table = _table("contracts", "model", "owner", "expires", "digest")
        for each in found["contracts"]:
            table.add_row(
                _text(each["model"]),
                _text(each["owner"]),
                _text(each["expires"]),
                _text(each["digest"][:DIGEST_DIGITS]),
            )
        console.print(table)


def state_of(destination: Json) -> str:
    """Say in one word how a destination is doing."""
    if destination["reachable"] is False:
        return "failing"
    if destination["held"]:
        return "held"
    return "new" if destination["reachable"] is None else "sending"


def destinations(console: Console, found: Json) -> None:
    """Show the destinations of a gateway: what waits for each, since when, and why."""
    if not found["destinations"]:
        console.print("no destinations; name them in the site file under `forward`")
        return
    right = ("pending", "dropped", "oldest")
    table = _table("destinations", "name", "state", *right, "next try", "last error", right=right)
    for each in found["destinations"]:
        books = [b for b in found["accounting"] if b["destination"] == each["destination"]]
        oldest = each["oldest_s"]
        table.add_row(
            _text(each["destination"]),
            _word(state_of(each)),
            f"{sum(book['pending'] for book in books):,}",
            f"{sum(book['dropped'] for book in books):,}",
            UNKNOWN if oldest is None else format_duration(float(round(oldest))),
            instant(each["next_try_ns"]),
            _text(each["last_error"]),
        )
    console.print(table)


def dead_letters(console: Console, page: Json) -> None:
    """Show what destinations will not get, and why."""

    def row(letter: Json) -> tuple[list[Text], Text]:
        first, last = instant(letter["first_ns"]), instant(letter["last_ns"])
        columns = [
            _text(letter["id"]),
            _text(letter["destination"]),
            _text(letter["signal"]),
            _text(f"{letter['items']:,}"),
            _text(_bytes(letter["bytes"]) if letter["replayable"] else "no replay"),
            _text(letter["cause"]),
            _text(first if first == last else f"{first} to {last}"),
        ]
        return columns, _text(letter["reason"])

    rows = [row(letter) for letter in page["items"]]
    heads = ("id", "destination", "signal", "items", "body", "cause", "received")
    _page(console, page, lambda: _lines(console, heads, rows), "no dead letters")
    if page["forgotten_items"]:
        count = page["forgotten_items"]
        console.print(f"letters of {count:,} items made room for newer ones")


def rollouts(console: Console, page: Json) -> None:
    """Show rollouts, what each has spent, and how often models were deployed."""

    def row(each: Json) -> tuple[list[Text], Text]:
        planned = "" if each["devices"] is None else f" of {each['devices']:,}"
        failed = f", {each['failed']:,} failed" if each["failed"] else ""
        columns = [
            *(_text(each[name]) for name in ("id", "model", "version")),
            _word(each["state"]),
            _text(each["outcome"]),
            _text(instant(each["start_ns"])),
            _text(f"{each['succeeded'] + each['failed']:,}{planned}{failed}"),
        ]
        return columns, _text("; ".join(map(_spend, each["spends"])) or "no objective is charged")

    heads = ("id", "model", "version", "state", "outcome", "start", "devices")
    rows = [row(each) for each in page["items"]]
    _page(console, page, lambda: _lines(console, heads, rows), "no rollouts")
    for each in page["models"]:
        success = _number(each["success_ratio"], ".1%")
        console.print(
            f"{printable(each['model'])}, last 30 days: {success} of devices deployed, "
            f"{each['versions']:,} versions, {each['retrained']:,} retrained",
            markup=False,
        )
    for reason, count in sorted(page["refused"].items()):
        console.print(f"not used: {count:,} {printable(reason)}", markup=False)


def _spend(spend: Json) -> str:
    sure = "" if spend["confident"] else ", with little control"
    return (
        f"{spend['slo']}: {spend['spent_ratio']:.1%} spent of {spend['allocation_ratio']:.1%}, "
        f"{spend['rollout_bad']:,} of {spend['rollout_events']:,} bad, control "
        f"{spend['control_bad']:,} of {spend['control_events']:,}{sure}"
    )


def slos(console: Console, page: Json) -> None:
    """Show objectives: what is left of their budgets and how fast they burn."""

    def row(slo: Json) -> tuple[list[Text], Text]:
        left, limit = slo["budget_remaining_ratio"], slo["threshold_s"]
        last = slo["windows"][-1] if slo["windows"] else {"good": 0, "bad": 0}
        burn = ", ".join(f"{w['window']}={_number(w['burn_rate'])}" for w in slo["windows"])
        spent = left is not None and left <= 0
        columns = [
            _text(slo["model"]),
            _text(slo["slo"] if limit is None else f"{slo['slo']} < {format_duration(limit)}"),
            _text(f"{slo['objective']:.6g} over {format_duration(slo['window_s'])}"),
            _text(f"{last['bad']:,} of {last['good'] + last['bad']:,}"),
            _text(_number(left, ".1%"), "bold red" if spent else ""),
        ]
        return columns, _text(f"burn rates: {burn}")

    heads = ("model", "slo", "objective", "bad", "budget left")
    rows = [row(slo) for slo in page["items"]]
    none = "no objectives; contracts declare them under `slos`"
    _page(console, page, lambda: _lines(console, heads, rows), none)


def drift(console: Console, page: Json) -> None:
    """Show signals against their baselines."""
    numbers = ("psi", "tolerance", "evidence")
    quiet = {None: "no", True: "no", False: "never: baseline too small"}
    table = _table("", "model", "version", "signal", "alarm", *numbers, "baseline", right=numbers)
    for each in page["items"]:
        table.add_row(
            _text(each["model"]),
            _text(each["version"]),
            _text(each["signal"]),
            _text("yes", "bold red") if each["alarm"] else _text(quiet[each["calibrated"]]),
            _number(each["psi"]),
            _number(each["tolerance"]),
            _number(each["log_evidence"]),
            _text(each["baseline"][:DIGEST_DIGITS]),
        )
    _page(
        console,
        page,
        lambda: console.print(table),
        "no signals yet; the first spans of a model bring them",
    )


def baselines(console: Console, page: Json) -> None:
    """Show baselines of signals, the one in force first."""
    heads = ("model", "version", "signal", "state", "events", "calibrated", "source", "id")
    table = _table("", *heads, right=("events",))
    for each in page["items"]:
        known = {True: "yes", False: "no"}.get(each["calibrated"], "")
        table.add_row(
            *(_text(each[key]) for key in ("model", "version", "signal", "state")),
            f"{each['events']:,}",
            _text(known, "yellow" if known == "no" else ""),
            _text(each["source"]),
            _text(each["id"][:DIGEST_DIGITS]),
        )
    none = "no signals yet; the first spans of a model bring them"
    _page(console, page, lambda: console.print(table), none)


def built(console: Console, found: Json) -> None:
    """Show what `weir baseline build` has made."""
    numbers = ("events", "needed", "phi", "missing", "odd")
    table = _table("", "signal", *numbers, "calibrated", "baseline", right=numbers)
    for each in found["signals"]:
        counts = [each[key] for key in ("missing", "odd")]
        table.add_row(
            _text(each["signal"]),
            f"{each['events']:,}",
            f"{each['events_needed']:,}",
            _number(each["phi"]),
            *(f"{count:,}" for count in counts),
            _text("yes") if each["calibrated"] else _text("no", "yellow"),
            _text(each["id"][:DIGEST_DIGITS]),
        )
    console.print(table)
