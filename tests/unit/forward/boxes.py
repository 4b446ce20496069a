"""Frames of any size, and short ways to ask an outbox."""

import sqlite3

from gateway.batch import Frame, Signal
from gateway.forward.outbox import Counts, Outbox, Pending, Selection, Want
from gateway.forward.records import DeadLetter
from gateway.forward.rows import ID_STEP


def frame(items: int = 10, size: int = 100, fill: bytes = b"z") -> Frame:
    return Frame(
        signal=Signal.TRACES,
        items=items,
        body=fill * size,
        raw_bytes=size * 4,
        first_sequence=1,
        last_sequence=2,
    )


def memory(box: Outbox) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    box.prepare(connection)
    return connection


def read(box: Outbox, connection: sqlite3.Connection, name: str, bytes_max: int) -> list[Pending]:
    return box.next(connection, name, Want(bytes_max=bytes_max))


def letters_of(
    box: Outbox, connection: sqlite3.Connection, destination: str | None = None
) -> list[DeadLetter]:
    page = box.dead_letters(connection, Selection(destination=destination), 1000)
    return list(page.letters)


def one(letter: DeadLetter) -> Selection:
    return Selection(ids=(letter.id,))


def ids(*numbers: int) -> list[int]:
    """Ids of the first frames of a new outbox."""
    return [ID_STEP * number for number in numbers]


def totals(box: Outbox, connection: sqlite3.Connection, name: str) -> Counts:
    return box.counts(connection)[name][Signal.TRACES]
