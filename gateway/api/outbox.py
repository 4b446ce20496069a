"""What the API may ask of the outbox: destinations and dead letters, as plain data.

Law: as in `sources`: field names are the JSON names, `_ns` is Unix nanoseconds, `_s` seconds.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """How one destination is doing since the process started.

    `reachable` is None before the first answer; `held` says that backlog waits for its hours.
    Units: oldest_s is the age of the oldest frame that waits, None when none does; next_try_ns
    Unix nanoseconds, None when nothing is waited for.
    """

    destination: str
    reachable: bool | None
    held: bool
    last_error: str
    next_try_ns: int | None
    oldest_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Items that will not be forwarded to a destination, and why.

    A letter that can be replayed is one whole frame. The others are all items that were lost for
    the same reason. Units: time_ns when the last of them was given up, first_ns and last_ns when
    the oldest and the newest of them came into the outbox; bytes as compressed.
    """

    id: int
    destination: str
    signal: str
    items: int
    cause: str
    reason: str
    time_ns: int
    first_ns: int
    last_ns: int
    bytes: int
    replayable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterSelection:
    """Which dead letters are meant; None is any. `through` is the largest id."""

    ids: tuple[int, ...] | None = None
    destination: str | None = None
    signal: str | None = None
    reason: str | None = None
    through: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPage:
    """A page of dead letters, the newest first, and the totals of all that were selected.

    `newest` is the largest selected id; `forgotten_items` are items of all destinations whose
    letters had to make room for newer ones.
    """

    items: tuple[DeadLetter, ...]
    total: int
    total_items: int
    total_bytes: int
    newest: int
    forgotten_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LettersDone:
    """What one request did; `left` letters still wait for the next one, `kept` stay as they are.

    A replay keeps letters that have no body or whose destination is gone.
    """

    letters: int
    items: int
    left: int
    kept: int


class DeadLetters(Protocol):
    """What destinations will not get. A request replays or drops a bounded number of letters."""

    async def list(self, chosen: LetterSelection, limit: int, offset: int) -> DeadLetterPage: ...
    async def replay(self, chosen: LetterSelection) -> LettersDone: ...
    async def drop(self, chosen: LetterSelection) -> LettersDone: ...
