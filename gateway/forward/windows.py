"""Bulk windows: what may leave now, live data at once and backlog in its daily hours.

Law: pure but for the machine's time zone; times are arguments. Ages come from a clock that may be
wrong and jump. That can send data sooner or later than meant, but never hold it for ever: the time
since the hours were last open is measured on the steady clock, and after HELD_S_MAX they count as
open until the backlog is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.config.hours import Hours
from gateway.forward.records import Want

# Hours come every day, so whoever waits longer has a clock that is wrong, or lost an hour in March.
HELD_S_MAX: Final = 24 * 3600.0
# How often a forwarder with nothing to send looks whether its hours have come.
LOOK_S: Final = 15.0


@dataclass(slots=True, kw_only=True)
class Windows:
    """The hours of one destination, and since when they have been closed.

    Units: live_age_s seconds; `clock_s` of a steady clock, `now_ns` Unix nanoseconds.
    """

    hours: Sequence[Hours] = ()
    live_age_s: float = 0.0
    _closed_since_s: float | None = None
    _is_overdue: bool = False

    @property
    def is_open(self) -> bool:
        """Tell whether backlog might leave when it was last asked for."""
        return not self.hours or self._closed_since_s is None or self._is_overdue

    @property
    def is_overdue(self) -> bool:
        """Tell whether backlog leaves only because its hours did not come."""
        return self._is_overdue

    def want(self, bytes_max: int, *, now_ns: int, clock_s: float) -> Want:
        """Say what may be read from the outbox now."""
        if not self.hours:
            return Want(bytes_max=bytes_max)
        if any(each.holds(now_ns / 1e9) for each in self.hours):
            self._closed_since_s, self._is_overdue = None, False
        elif self._closed_since_s is None:
            self._closed_since_s = clock_s
        elif clock_s - self._closed_since_s >= HELD_S_MAX:
            self._is_overdue = True
        return Want(
            bytes_max=bytes_max,
            live_since_ns=max(0, now_ns - int(self.live_age_s * 1e9)),
            backlog=self.is_open,
        )

    def emptied(self, clock_s: float) -> None:
        """Say that there was nothing to send: hours that were overdue are over."""
        if self._is_overdue:
            self._closed_since_s, self._is_overdue = clock_s, False
