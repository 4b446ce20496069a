"""Dead letters: what a destination will not get, why, and how it is tried again or thrown away.

Law: a letter changes no total but by `replay`, which makes its items pending again; dropping or
forgetting one leaves them counted as dead. Letters are limited in number and bytes, and the oldest
makes room. Letters without a body that say the same are one letter that grows.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.batch import Signal
from gateway.forward import rows
from gateway.forward.records import Cause, DeadLetter, Done, Letters, Selection
from gateway.forward.rows import Taken

LETTERS_MAX: Final = 10_000
REASON_CHARS_MAX: Final = 500
NO_REASON: Final = "no reason given"

_SELECTED: Final = (
    " (?1 IS NULL OR d.id IN (SELECT value FROM json_each(?1)))"
    " AND (?2 IS NULL OR d.destination = ?2) AND (?3 IS NULL OR d.signal = ?3)"
    " AND (?4 IS NULL OR instr(lower(d.cause || ' ' || d.reason), lower(?4)))"
    " AND (?5 IS NULL OR d.id <= ?5)"
)
_FROM: Final = " FROM outbox_dead d LEFT JOIN outbox_body b ON b.id = d.body_id WHERE" + _SELECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How many dead letters are kept, and how many bytes of bodies for them."""

    letters_max: int = LETTERS_MAX
    bytes_max: int


def bury(
    connection: sqlite3.Connection,
    destination: str,
    taken: Taken,
    items: int,
    cause: Cause,
    reason: str,
    *,
    now_ns: int,
    limits: Limits,
    body_id: int | None = None,
) -> None:
    """Count items as dead and write their letter; with `body_id` the body is kept for a replay."""
    rows.count_dead(connection, destination, taken.signal, cause, items)
    text = reason[:REASON_CHARS_MAX] or NO_REASON
    if body_id is None and _grow(connection, destination, taken, items, cause, text, now_ns):
        return
    connection.execute(
        "INSERT INTO outbox_dead (destination, signal, items, reason, time_ns, body_id, cause,"
        " first_ns, last_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
        (destination, taken.signal, items, text, now_ns, body_id, cause, taken.added_ns),
    )
    connection.execute(
        "UPDATE outbox_dead_size SET letters = letters + 1,"
        " bytes = bytes + coalesce((SELECT body_bytes FROM outbox_body WHERE id = ?), 0)",
        (body_id,),
    )
    _make_room(connection, limits)


def _grow(
    connection: sqlite3.Connection,
    destination: str,
    taken: Taken,
    items: int,
    cause: Cause,
    reason: str,
    now_ns: int,
) -> bool:
    """Add to a letter without a body that says the same, if there is one."""
    changed = connection.execute(
        "UPDATE outbox_dead SET items = items + ?5, time_ns = ?6,"
        " first_ns = min(first_ns, ?7), last_ns = max(last_ns, ?7)"
        " WHERE destination = ?1 AND signal = ?2 AND cause = ?3 AND reason = ?4"
        " AND body_id IS NULL",
        (destination, taken.signal, cause, reason, items, now_ns, taken.added_ns),
    )
    return changed.rowcount > 0


def _make_room(connection: sqlite3.Connection, limits: Limits) -> None:
    while True:
        letters, size = connection.execute("SELECT letters, bytes FROM outbox_dead_size").fetchone()
        if size > limits.bytes_max:
            oldest = "SELECT id FROM outbox_dead WHERE body_id IS NOT NULL ORDER BY body_id LIMIT 1"
        elif letters > limits.letters_max:
            oldest = "SELECT min(id) FROM outbox_dead"
        else:
            return
        (letter_id,) = connection.execute(oldest).fetchone()
        items = _delete(connection, letter_id)
        connection.execute(
            "UPDATE outbox_dead_size SET forgotten_items = forgotten_items + ?", (items,)
        )


def _delete(connection: sqlite3.Connection, letter_id: int, *, keep_body: bool = False) -> int:
    """Delete a letter and, unless it is still wanted, its body; returns its items."""
    items, body_id = connection.execute(
        "DELETE FROM outbox_dead WHERE id = ? RETURNING items, body_id", (letter_id,)
    ).fetchone()
    connection.execute(
        "UPDATE outbox_dead_size SET letters = letters - 1,"
        " bytes = bytes - coalesce((SELECT body_bytes FROM outbox_body WHERE id = ?), 0)",
        (body_id,),
    )
    if body_id is not None and not keep_body:
        rows.release(connection, body_id)
    return int(items)


def _values(selection: Selection) -> tuple[str | int | None, ...]:
    ids = None if selection.ids is None else json.dumps(list(selection.ids))
    return ids, selection.destination, selection.signal, selection.reason, selection.through


def read(
    connection: sqlite3.Connection, selection: Selection, limit: int, offset: int = 0
) -> Letters:
    """List selected letters, the newest first."""
    values = _values(selection)
    total, items, size, newest = connection.execute(
        "SELECT count(*), coalesce(sum(d.items), 0), coalesce(sum(b.body_bytes), 0),"
        " coalesce(max(d.id), 0)" + _FROM,
        values,
    ).fetchone()
    found = connection.execute(
        "SELECT d.id, d.destination, d.signal, d.items, d.cause, d.reason, d.time_ns, d.first_ns,"
        " d.last_ns, coalesce(b.body_bytes, 0)" + _FROM + " ORDER BY d.id DESC LIMIT ?6 OFFSET ?7",
        (*values, limit, offset),
    )
    (forgotten,) = connection.execute("SELECT forgotten_items FROM outbox_dead_size").fetchone()
    return Letters(
        letters=tuple(_letters(found)),
        total=total,
        total_items=items,
        total_bytes=size,
        newest=newest,
        forgotten_items=forgotten,
    )


def _letters(found: sqlite3.Cursor) -> Iterator[DeadLetter]:
    for each in found:
        letter_id, name, signal, items, cause, reason, time_ns, first_ns, last_ns, size = each
        yield DeadLetter(
            id=letter_id,
            destination=name,
            signal=Signal(signal),
            items=items,
            cause=cause,
            reason=reason,
            time_ns=time_ns,
            first_ns=first_ns,
            last_ns=last_ns,
            body_bytes=size,
        )


def replay(
    connection: sqlite3.Connection, selection: Selection, limit: int, known: Sequence[str]
) -> Done:
    """Make the oldest selected letters pending again, at the place in the order that they had.

    Letters without a body, or of a destination that is not `known`, stay.
    """
    values = (*_values(selection), json.dumps(list(known)))
    able = " AND d.body_id IS NOT NULL AND d.destination IN (SELECT value FROM json_each(?6))"
    chosen = connection.execute(
        "SELECT d.id, d.destination, d.signal, d.items, d.cause, d.body_id"
        + _FROM
        + able
        + " ORDER BY d.id LIMIT ?7",
        (*values, limit),
    ).fetchall()
    for letter_id, name, signal, items, cause, body_id in chosen:
        _delete(connection, letter_id, keep_body=True)
        connection.execute("INSERT INTO outbox_delivery VALUES (?, ?)", (name, body_id))
        rows.count_dead(connection, name, Signal(signal), cause, -items)
        rows.count(connection, name, Signal(signal), pending=items)
    (left,) = connection.execute("SELECT count(*)" + _FROM + able, values).fetchone()
    (there,) = connection.execute("SELECT count(*)" + _FROM, values[:5]).fetchone()
    return Done(
        letters=len(chosen),
        items=sum(items for _, _, _, items, _, _ in chosen),
        left=left,
        kept=there - left,
    )


def drop(connection: sqlite3.Connection, selection: Selection, limit: int) -> Done:
    """Delete the oldest selected letters for good; their items stay counted as dead."""
    values = _values(selection)
    chosen = connection.execute(
        "SELECT d.id" + _FROM + " ORDER BY d.id LIMIT ?6", (*values, limit)
    ).fetchall()
    items = sum(_delete(connection, letter_id) for (letter_id,) in chosen)
    (left,) = connection.execute("SELECT count(*)" + _FROM, values).fetchone()
    return Done(letters=len(chosen), items=items, left=left, kept=0)
