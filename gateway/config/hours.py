"""Daily hours as people write them: `01:00-05:00` in local time, `01:00-05:00Z` in UTC.

Law: pure but for the machine's time zone. The start belongs to the hours and the end does not;
hours that end before they start go over midnight.
"""

import re
import time
from dataclasses import dataclass
from typing import Final, Self

DAY_MINUTES: Final = 24 * 60
ADVICE: Final = (
    "write daily hours such as 01:00-05:00 in local time, or 01:00-05:00Z in UTC; 24:00 is the end"
    " of the day"
)

_HOURS: Final = re.compile(r"([0-9]{2}):([0-5][0-9])-([0-9]{2}):([0-5][0-9])(Z?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """A part of every day. Units: minutes since midnight."""

    start: int
    end: int
    utc: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read hours. Raises: ValueError with what to write instead."""
        found = _HOURS.fullmatch(text.strip())
        if found is None:
            raise ValueError(ADVICE)
        start, end = (int(found[each]) * 60 + int(found[each + 1]) for each in (1, 3))
        if start >= DAY_MINUTES or end > DAY_MINUTES or start == end or end == 0:
            raise ValueError(ADVICE)
        return cls(start=start, end=end, utc=bool(found[5]))

    def holds(self, unix_s: float) -> bool:
        """Tell whether a moment is within the hours."""
        moment = time.gmtime(unix_s) if self.utc else time.localtime(unix_s)
        minute = moment.tm_hour * 60 + moment.tm_min
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


def check_hours(text: str) -> str:
    """Return a text that can be read as hours. Raises: ValueError."""
    Hours.parse(text)
    return text
