"""When to try again and how fast to send: both are arithmetic over times that are passed in.

Law: no clock and no sleep here; the random generator is the caller's.
"""

import random
from dataclasses import dataclass, field
from typing import Final

from gateway.otlp.answers import RETRY_AFTER_S_MAX

BACKOFF_S_MIN: Final = 1.0
BACKOFF_S_MAX: Final = 60.0
# Part of a hint that is added at random, so that senders told the same do not return together.
HINT_SPREAD_RATIO: Final = 0.1
# A bucket holds at most this much time's worth, so that a quiet hour is not followed by a flood.
BURST_S: Final = 1.0


@dataclass(slots=True, kw_only=True)
class Backoff:
    """Exponential backoff with full jitter.

    Source: M. Brooker, "Exponential Backoff and Jitter", 2015.
    """

    rng: random.Random
    failures: int = 0

    def next_s(self, hint_s: float | None = None) -> float:
        """Count a failure and return the seconds to wait; a hint replaces the exponential."""
        ceiling = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2.0 ** min(self.failures, 30))
        self.failures += 1
        if hint_s is None:
            return self.rng.uniform(0.0, ceiling)
        hint = min(max(hint_s, BACKOFF_S_MIN), RETRY_AFTER_S_MAX)
        return hint * (1.0 + self.rng.uniform(0.0, HINT_SPREAD_RATIO))

    def reset(self) -> None:
        """Forget the failures after a success."""
        self.failures = 0


@dataclass(slots=True, kw_only=True)
class TokenBucket:
    """A byte rate that may be overdrawn by one frame and is paid back before the next.

    Units: bytes_per_second None means no limit; times in seconds of any steady clock.
    """

    bytes_per_second: int | None
    _tokens: float = field(init=False)
    _at_s: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._tokens = (self.bytes_per_second or 0) * BURST_S

    def delay_s(self, size: int, now_s: float) -> float:
        """Book `size` bytes and return the seconds to wait before they are sent."""
        rate = self.bytes_per_second
        if rate is None:
            return 0.0
        elapsed = max(0.0, now_s - self._at_s)
        self._at_s = max(now_s, self._at_s)
        self._tokens = min(rate * BURST_S, self._tokens + elapsed * rate)
        wait = max(0.0, -self._tokens / rate)
        self._tokens -= size
        return wait
