"""What the ring no longer holds: a short table of sequence ranges with their times.

Law: a sequence number that was given out and is not readable any more lies in a row of this
table. Rows may claim too much, never too little, so that "nothing is missing" can be believed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

ROWS_MAX: Final = 32
TIME_MIN_NS: Final = 0
TIME_MAX_NS: Final = (1 << 64) - 1


class Reason(IntEnum):
    """Why a range is gone."""

    OVERWRITTEN = 0  # the ring wrapped
    LOST = 1  # the process or the power went away before the last records were safe
    CORRUPT = 2  # a checksum failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted:
    """One range of sequence numbers that is gone.

    Units: from_ns and to_ns bound the times at which the records were written; count is a lower
    bound of records.
    """

    first_sequence: int
    last_sequence: int
    from_ns: int
    to_ns: int
    count: int
    reason: Reason


def overlaps(row: Evicted, from_ns: int, to_ns: int) -> bool:
    """Tell whether a row may hide a record written in [from_ns, to_ns]."""
    return row.from_ns <= to_ns and from_ns <= row.to_ns


def _join(one: Evicted, two: Evicted) -> Evicted:
    first = min(one.first_sequence, two.first_sequence)
    last = max(one.last_sequence, two.last_sequence)
    return replace(
        one,
        first_sequence=first,
        last_sequence=last,
        from_ns=min(one.from_ns, two.from_ns),
        to_ns=max(one.to_ns, two.to_ns),
        count=min(one.count + two.count, last - first + 1),
        reason=one.reason if one.reason is two.reason else Reason.OVERWRITTEN,
    )


def _touch(rows: Sequence[Evicted], index: int) -> bool:
    return rows[index - 1].last_sequence + 1 >= rows[index].first_sequence


class Evictions:
    """Rows in sequence order; neighbours with one reason are joined, others when it is full."""

    def __init__(self, rows: Iterable[Evicted] = ()) -> None:
        self._rows = sorted(rows, key=lambda row: row.first_sequence)

    @property
    def rows(self) -> tuple[Evicted, ...]:
        """All rows, oldest sequence first."""
        return tuple(self._rows)

    @property
    def count(self) -> int:
        """Lower bound of records that are gone."""
        return sum(row.count for row in self._rows)

    def add(self, row: Evicted) -> None:
        """Add a range, joining it with what it touches."""
        rows: list[Evicted] = []
        for other in sorted([*self._rows, row], key=lambda entry: entry.first_sequence):
            last = rows[-1] if rows else None
            if (
                last is not None
                and last.last_sequence + 1 >= other.first_sequence
                and last.reason is other.reason
            ):
                rows[-1] = _join(last, other)
            else:
                rows.append(other)
        while len(rows) > ROWS_MAX:
            at = next((index for index in range(1, len(rows)) if _touch(rows, index)), 1)
            rows[at - 1 : at + 1] = [_join(rows[at - 1], rows[at])]
        self._rows = rows

    def after(self, sequence: int) -> bool:
        """Tell whether anything later than a sequence number is gone."""
        return any(row.last_sequence > sequence for row in self._rows)


def gaps(ranges: Sequence[tuple[int, int]], table: Evictions) -> list[tuple[int, int]]:
    """List sequence ranges that neither the retained ranges nor the table accounts for.

    Shape: ranges are (first, last), inclusive; sequence numbers start at 1.
    """
    known = sorted([*ranges, *((row.first_sequence, row.last_sequence) for row in table.rows)])
    holes: list[tuple[int, int]] = []
    expected = 1
    for first, last in known:
        if first > expected:
            holes.append((expected, first - 1))
        expected = max(expected, last + 1)
    return holes
