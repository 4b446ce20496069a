"""Answers of the API as tables for a person; `drifts` has those of drift and baselines.

Law: as in `draw`.
"""

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from gateway.batch import Json
from gateway.config.units import format_duration
from gateway.terminal.client import printable
from gateway.terminal.draw import (
    DIGEST_DIGITS,
    UNKNOWN,
    fields,
    instant,
    new_table,
    number,
    show_lines,
    show_page,
    size_of,
    text_of,
    word,
)

RETRAIN_HEADS: Final = ("receiver", "state", "attempts", "changed", "last error")


def anomalies(console: Console, page: Json) -> None:
    """Show a list of anomalies."""
    rows = [
        (
            [
                text_of(view["anomaly"]["id"]),
                word(view["state"]),
                word(view["anomaly"]["severity"]),
                text_of(instant(view["anomaly"]["raised_ns"])),
            ],
            text_of(view["anomaly"]["summary"]),
        )
        for view in page["items"]
    ]
    heads = ("id", "state", "severity", "raised")
    show_page(console, page, lambda: show_lines(console, heads, rows), "no anomalies")


def anomaly(console: Console, view: Json) -> None:
    """Show one anomaly with its evidence and the trainings that it has asked for."""
    found = view["anomaly"]
    by = view["acknowledged_by"]
    console.print(
        fields(
            [
                ("id", found["id"]),
                ("summary", found["summary"]),
                ("state", word(view["state"])),
                ("severity", word(found["severity"])),
                ("kind", f"{found['kind']} of {found['subject']}"),
                ("model", f"{found['model']} {found['version']}"),
                ("owner", found["owner"]),
                ("since", instant(found["onset_ns"])),
                ("raised", instant(found["raised_ns"])),
                ("resolved", instant(found["resolved_ns"])),
                ("acknowledged", f"{instant(view['acknowledged_ns'])} {f'by {by}' * bool(by)}"),
                ("deep dives", ", ".join(view["dives"])),
                *((name, number(value, ".6g")) for name, value in found["numbers"].items()),
            ]
        )
    )
    if found["evidence"]:
        table = new_table("evidence", "trace", "device", "reason")
        for each in found["evidence"]:
            table.add_row(
                text_of(each["trace_id"]), text_of(each["device"]), text_of(each["reason"])
            )
        console.print(table)
    if view["retrain"]:
        table = new_table("retrain calls", *RETRAIN_HEADS, right=("attempts",))
        for each in view["retrain"]:
            table.add_row(
                text_of(each["endpoint"]),
                word(each["state"]),
                f"{each['attempts']:,}",
                text_of(instant(each["changed_ns"])),
                text_of(each["error"]),
            )
        console.print(table)


def dives(console: Console, page: Json) -> None:
    """Show a list of deep dives."""
    rows = [
        (
            [
                text_of(dive["id"]),
                word(dive["state"]),
                text_of(instant(dive["created_ns"])),
                text_of(f"{dive['traces_received']}/{dive['traces_wanted']}"),
            ],
            text_of(dive["reason"]),
        )
        for dive in page["items"]
    ]
    heads = ("id", "state", "opened", "traces")
    show_page(console, page, lambda: show_lines(console, heads, rows), "no deep dives")


def dive(console: Console, found: Json) -> None:
    """Show one deep dive and what each device has answered."""
    console.print(
        fields(
            [
                ("id", found["id"]),
                ("state", word(found["state"])),
                ("reason", found["reason"]),
                ("asked by", found["requested_by"]),
                ("anomaly", found["anomaly_id"] or UNKNOWN),
                ("opened", instant(found["created_ns"])),
                ("changed", instant(found["updated_ns"])),
                ("ends by", instant(found["not_after_ns"])),
                ("traces", f"{found['traces_received']} of {found['traces_wanted']}"),
                ("size", f"{size_of(found['bytes'])} of {size_of(found['bytes_max'])}"),
                ("missing", found["missing"]),
            ]
        )
    )
    if found["devices"]:
        table = new_table(
            "devices", "device", "state", "traces", "size", "detail", right=("traces", "size")
        )
        for each in found["devices"]:
            table.add_row(
                text_of(each["device"]),
                word(each["state"]),
                str(each["traces"]),
                size_of(each["bytes"]),
                text_of(each["detail"]),
            )
        console.print(table)


def status(console: Console, found: Json, failed: Sequence[Json]) -> None:
    """Show what a gateway is and its books; `failed` are the checks that keep it from ready."""
    ready = text_of("yes", "green")
    if not found["ready"]:
        why = "; ".join(f"{each['check']}: {each['detail']}" for each in failed)
        ready = text_of(f"no: {why}" if why else "no", "bold red")
    uptime = format_duration(float(round(found["uptime_s"])))
    console.print(
        fields(
            [
                ("site", f"{found['site']} ({found['cluster']}, {found['region']})"),
                ("ready", ready),
                ("version", f"{found['version']}, kernel {found['kernel'][:DIGEST_DIGITS]}"),
                ("policy", found["policy"][:DIGEST_DIGITS]),
                ("started", f"{instant(found['started_ns'])}, {uptime} ago"),
                ("journal", size_of(found["journal_bytes"])),
                (
                    "store",
                    f"{size_of(found['store_bytes'])} in {found['store_segments']} segments,"
                    f" {found['store_pending_rows']} rows pending",
                ),
            ]
        )
    )
    terms = ("received", "forwarded", "sampled out", "dropped", "quarantined", "pending")
    books = found["accounting"]
    names = [f"{row['signal']} to {row['destination'] or 'none'}" for row in books]
    table = new_table("books", "", *names, right=names)
    for term in terms:
        table.add_row(term, *(f"{row[term.replace(' ', '_')]:,}" for row in books))
    balanced = (text_of("yes") if row["balanced"] else text_of("no", "bold red") for row in books)
    table.add_row("balanced", *balanced)
    console.print(table)
    if found["destinations"]:
        destinations(console, found)
    if found["contracts"]:
        table = new_table("contracts", "model", "owner", "expires", "digest")
        for each in found["contracts"]:
            table.add_row(
                text_of(each["model"]),
                text_of(each["owner"]),
                text_of(each["expires"]),
                text_of(each["digest"][:DIGEST_DIGITS]),
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
    table = new_table(
        "destinations", "name", "state", *right, "next try", "last error", right=right
    )
    for each in found["destinations"]:
        books = [b for b in found["accounting"] if b["destination"] == each["destination"]]
        oldest = each["oldest_s"]
        table.add_row(
            text_of(each["destination"]),
            word(state_of(each)),
            f"{sum(book['pending'] for book in books):,}",
            f"{sum(book['dropped'] for book in books):,}",
            UNKNOWN if oldest is None else format_duration(float(round(oldest))),
            instant(each["next_try_ns"]),
            text_of(each["last_error"]),
        )
    console.print(table)


def dead_letters(console: Console, page: Json) -> None:
    """Show what destinations will not get, and why."""

    def row(letter: Json) -> tuple[list[Text], Text]:
        first, last = instant(letter["first_ns"]), instant(letter["last_ns"])
        columns = [
            text_of(letter["id"]),
            text_of(letter["destination"]),
            text_of(letter["signal"]),
            text_of(f"{letter['items']:,}"),
            text_of(size_of(letter["bytes"]) if letter["replayable"] else "no replay"),
            text_of(letter["cause"]),
            text_of(first if first == last else f"{first} to {last}"),
        ]
        return columns, text_of(letter["reason"])

    rows = [row(letter) for letter in page["items"]]
    heads = ("id", "destination", "signal", "items", "body", "cause", "received")
    show_page(console, page, lambda: show_lines(console, heads, rows), "no dead letters")
    if page["forgotten_items"]:
        count = page["forgotten_items"]
        console.print(f"letters of {count:,} items made room for newer ones")


def rollouts(console: Console, page: Json) -> None:
    """Show rollouts, what each has spent, and how often models were deployed."""

    def row(each: Json) -> tuple[list[Text], Text]:
        planned = "" if each["devices"] is None else f" of {each['devices']:,}"
        failed = f", {each['failed']:,} failed" if each["failed"] else ""
        columns = [
            *(text_of(each[name]) for name in ("id", "model", "version")),
            word(each["state"]),
            text_of(each["outcome"]),
            text_of(instant(each["start_ns"])),
            text_of(f"{each['succeeded'] + each['failed']:,}{planned}{failed}"),
        ]
        return columns, text_of("; ".join(map(_spend, each["spends"])) or "no objective is charged")

    heads = ("id", "model", "version", "state", "outcome", "start", "devices")
    rows = [row(each) for each in page["items"]]
    show_page(console, page, lambda: show_lines(console, heads, rows), "no rollouts")
    for each in page["models"]:
        success = number(each["success_ratio"], ".1%")
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
        burn = ", ".join(f"{w['window']}={number(w['burn_rate'])}" for w in slo["windows"])
        spent = left is not None and left <= 0
        columns = [
            text_of(slo["model"]),
            text_of(slo["slo"] if limit is None else f"{slo['slo']} < {format_duration(limit)}"),
            text_of(f"{slo['objective']:.6g} over {format_duration(slo['window_s'])}"),
            text_of(f"{last['bad']:,} of {last['good'] + last['bad']:,}"),
            text_of(number(left, ".1%"), "bold red" if spent else ""),
        ]
        return columns, text_of(f"burn rates: {burn}")

    heads = ("model", "slo", "objective", "bad", "budget left")
    rows = [row(slo) for slo in page["items"]]
    none = "no objectives; contracts declare them under `slos`"
    show_page(console, page, lambda: show_lines(console, heads, rows), none)
