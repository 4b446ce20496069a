"""Drift and baselines as tables for a person.

Law: as in `draw`. Indices and evidence are of signals; the rate of a model's inferences has no
index, and is told in events per second below the table.
"""

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.text import Text

from gateway.batch import Json
from gateway.terminal.client import printable
from gateway.terminal.draw import (
    DIGEST_DIGITS,
    UNKNOWN,
    instant,
    new_table,
    number,
    show_page,
    text_of,
)

NO_SIGNALS: Final = "no signals yet; the first spans of a model bring them"
# What a baseline has beside its events, where any has it.
_EXTRAS: Final = ("hours", "labelled")


def drift(console: Console, page: Json) -> None:
    """Show signals against their baselines, and what event rates may be."""
    numbers = ("index", "psi", "tolerance", "evidence", "bound")
    heads = ("model", "version", "signal", "alarm", "reported", "calibrated")
    table = new_table("", *heads, *numbers, "baseline", right=numbers)
    listed = {_name(each) for each in page["reported"]["signals"]}
    for each in page["items"]:
        rate = each["event_rate"]
        bound = each["log_evidence_bound"] if rate is None else rate["bound"]
        # A "no" of a signal that can never be in the report would say too much.
        is_listable = each["calibrated"] is True
        table.add_row(
            *(text_of(each[key]) for key in ("model", "version", "signal")),
            _alarm(each),
            _flag(_name(each) in listed if is_listable else None, loud=True),
            _flag(each["calibrated"], loud=False),
            number(each["relative_drift_index"]),
            number(each["psi"]),
            number(each["tolerance"]),
            number(each["log_evidence"]),
            number(bound),
            text_of(each["baseline"][:DIGEST_DIGITS]),
        )
    show_page(console, page, lambda: console.print(table), NO_SIGNALS)
    for each in page["items"]:
        if each["event_rate"] is not None:
            console.print(_rate(each), markup=False, soft_wrap=True)
    if listed:
        told = f"reported: {page['reported']['promise']}"
        console.print(printable(told), markup=False, soft_wrap=True)


def _name(each: Json) -> tuple[str, str, str]:
    return each["model"], each["version"], each["signal"]


def _alarm(each: Json) -> Text:
    if each["alarm"]:
        return text_of("yes", "bold red")
    return text_of("never: baseline too small" if each["calibrated"] is False else "no")


def _flag(value: bool | None, *, loud: bool) -> Text:
    """Write yes, no or a dash, in the colour of a warning where it is `loud`."""
    if value is None:
        return text_of("")
    return text_of("yes" if value else "no", "yellow" if value is loud else "")


def _rate(each: Json) -> str:
    """Tell how many inferences a model has, and how many it may have."""
    rate = each["event_rate"]
    name = f"{printable(each['model'])} {printable(each['signal'])}"
    if rate["expected"] is None:
        return f"{name}: {printable(rate['state'])}, how many inferences are usual is being learned"
    now, expected, low, high = (number(rate[key]) for key in ("now", "expected", "low", "high"))
    return (
        f"{name}: {now} per second in the last one to two hours, {expected} expected; "
        f"{low} to {high} would be no change"
    )


def baselines(console: Console, page: Json) -> None:
    """Show baselines of signals, the one in force first, and what is in the shadow."""
    extras = [key for key in _EXTRAS if any(each.get(key) for each in page["items"])]
    heads = ("model", "version", "signal", "state", "events", *extras, "calibrated", "source", "id")
    table = new_table("", *heads, right=("events", *extras))
    for each in page["items"]:
        table.add_row(
            *(text_of(each[key]) for key in ("model", "version", "signal", "state")),
            f"{each['events']:,}",
            *_counts(each, extras),
            _flag(each["calibrated"], loud=False),
            text_of(each["source"]),
            text_of(each["id"][:DIGEST_DIGITS]),
        )
    show_page(console, page, lambda: console.print(table), NO_SIGNALS)
    for each in page["items"]:
        if each.get("superseded"):
            console.print(_shadow(each), markup=False, soft_wrap=True)


def _counts(each: Json, extras: list[str]) -> Iterator[str]:
    for key in extras:
        yield f"{each[key]:,}" if each.get(key) else UNKNOWN


def _shadow(row: Json) -> str:
    """Tell what a superseded baseline says in the shadow."""
    shadow = row["superseded"]
    name = " ".join(printable(str(part)) for part in _name(row))
    alarms, last_ns = shadow["alarms"], shadow["last_alarm_ns"]
    counted = "1 alarm" if alarms == 1 else f"{alarms:,} alarms"
    heard = f"{counted}, the last at {instant(last_ns)}" if alarms else "no alarm"
    evidence = f"{shadow['log_evidence']:.1f} of {shadow['log_evidence_bound']:.1f}"
    return (
        f"{name}: {printable(row['id'])[:DIGEST_DIGITS]} is in the shadow until "
        f"{instant(shadow['until_ns'])}; {heard}; evidence {evidence}"
    )


def built(console: Console, found: Json) -> None:
    """Show what `weir baseline build` has made."""
    extras = [key for key in _EXTRAS if any(each[key] for each in found["signals"])]
    numbers = ("events", "needed", *extras, "phi", "missing", "odd")
    table = new_table("", "signal", *numbers, "calibrated", "baseline", right=numbers)
    for each in found["signals"]:
        counts = [each[key] for key in ("missing", "odd")]
        table.add_row(
            text_of(each["signal"]),
            f"{each['events']:,}",
            f"{each['events_needed']:,}",
            *_counts(each, extras),
            number(each["phi"]),
            *(f"{count:,}" for count in counts),
            _flag(each["calibrated"], loud=False),
            text_of(each["id"][:DIGEST_DIGITS]),
        )
    console.print(table)
