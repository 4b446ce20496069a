"""One byte account for everything between the socket and the core, and what the intake counts.

Law: `held_bytes` is the sum of all bodies that are being read, inflated, committed or waiting for
the core. It never passes `bytes_max`: whoever would pass it is told when to come back. A body is
refused before it is acknowledged, never dropped after.

Single-threaded: every method is called on the event loop (the core reports through
`call_soon_threadsafe`).
"""

import random
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import Final

from gateway.batch import Signal, Transport
from gateway.errors import (
    ForbiddenError,
    JournalUnavailableError,
    MalformedPayloadError,
    MethodNotAllowedError,
    OverloadedError,
    PayloadTooLargeError,
    QuotaExceededError,
    UnauthenticatedError,
    UnknownPathError,
    UnsupportedMediaError,
    WeirError,
)
from gateway.otlp.reply import retry_delay_s

# Stock exporters give up at once when the hint exceeds the 10 s they allow in all, and a hint
# below one second comes back as a storm.
RETRY_AFTER_MIN_S: Final = 1.0
RETRY_AFTER_MAX_S: Final = 4.0

SOURCES_MAX: Final = 256  # addresses with failed authentication that are counted by name
OTHER_SOURCES: Final = "other"


class Reason(StrEnum):
    """Why a request was refused."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA = "unsupported_media"
    UNKNOWN_PATH = "unknown_path"
    METHOD = "method_not_allowed"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    OVERLOADED = "overloaded"
    QUOTA = "quota"
    JOURNAL = "journal_unavailable"
    DISCONNECTED = "disconnected"
    UNEXPECTED = "unexpected"
    INVALID_ITEM = "invalid_item"


# The signal of a request to a path that serves none.
NO_SIGNAL: Final = "none"


REASONS: Final[dict[type[WeirError], Reason]] = {
    MalformedPayloadError: Reason.MALFORMED,
    PayloadTooLargeError: Reason.TOO_LARGE,
    UnsupportedMediaError: Reason.UNSUPPORTED_MEDIA,
    UnknownPathError: Reason.UNKNOWN_PATH,
    MethodNotAllowedError: Reason.METHOD,
    UnauthenticatedError: Reason.UNAUTHENTICATED,
    ForbiddenError: Reason.FORBIDDEN,
    OverloadedError: Reason.OVERLOADED,
    QuotaExceededError: Reason.QUOTA,
    JournalUnavailableError: Reason.JOURNAL,
}


def reason_of(error: WeirError) -> Reason:
    """Look up the reason under which an error is counted."""
    for kind in type(error).__mro__:
        if kind in REASONS:
            return REASONS[kind]
    return Reason.UNEXPECTED


@dataclass(slots=True, kw_only=True)
class Counters:
    """What the intake has done since start.

    Shape: requests, accepted_items, rejected_items by Transport; refused, ignored_fields by
    signal. `requests` counts every export request, also refused ones. Accepted items are durable;
    rejected items are those refused one by one out of accepted requests. `refused` counts these
    under INVALID_ITEM, and whole requests under the other reasons, because a request that was
    refused before it was decoded does not tell its items.
    Units: wire_bytes as received (gRPC: after its own inflation, which it does not tell);
    inflated_bytes of requests that were handed on; ignored_fields are fields of JSON bodies that
    OTLP does not know.
    """

    requests: list[int] = field(default_factory=lambda: [0] * len(Transport))
    accepted_items: list[int] = field(default_factory=lambda: [0] * len(Transport))
    rejected_items: list[int] = field(default_factory=lambda: [0] * len(Transport))
    refused: dict[tuple[str, Reason], int] = field(
        default_factory=lambda: dict.fromkeys(product(Signal, Reason), 0)
    )
    ignored_fields: dict[Signal, int] = field(default_factory=lambda: dict.fromkeys(Signal, 0))
    unauthenticated_sources: dict[str, int] = field(default_factory=dict)
    wire_bytes: int = 0
    inflated_bytes: int = 0

    def count(self, signal: str, reason: Reason, items: int = 1) -> None:
        """Count refused requests, or items for INVALID_ITEM."""
        key = (signal, reason)
        self.refused[key] = self.refused.get(key, 0) + items

    def refuse(self, error: WeirError, signal: str, source: str = "") -> None:
        """Count one refused request; source is the peer's address, never its credential."""
        self.count(signal, reason_of(error))
        if isinstance(error, UnauthenticatedError) and source:
            sources = self.unauthenticated_sources
            name = source if source in sources or len(sources) < SOURCES_MAX else OTHER_SOURCES
            sources[name] = sources.get(name, 0) + 1


class Admission:
    """Keep the byte account and say who must wait, and for how long."""

    def __init__(self, *, bytes_max: int, rng: random.Random) -> None:
        self._bytes_max = bytes_max
        self._rng = rng
        self._held_bytes = 0
        self._paused = ""
        self._draining = False
        self.counters = Counters()

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that are not yet processed."""
        return self._held_bytes

    @property
    def room_bytes(self) -> int:
        """Bytes that are free."""
        return self._bytes_max - self._held_bytes

    @property
    def blocked(self) -> str:
        """Say why requests are refused now; empty when they are not."""
        if self._draining:
            return "the gateway is shutting down"
        if self._paused:
            return self._paused
        if self._held_bytes >= self._bytes_max:
            return f"the intake holds its limit of {self._bytes_max} bytes"
        return ""

    def pause(self, reason: str) -> None:
        """Refuse everything until `resume`, because the gateway is not ready."""
        self._paused = reason

    def resume(self) -> None:
        """Admit again after `pause`."""
        self._paused = ""

    def drain(self) -> None:
        """Refuse everything from now on; bodies already admitted are finished."""
        self._draining = True

    def check(self, size_bytes: int) -> None:
        """Refuse a body that would not fit now; take nothing.

        Raises: OverloadedError.
        """
        if self._draining or self._paused or self._held_bytes + size_bytes > self._bytes_max:
            raise OverloadedError(self.blocked or _no_room(size_bytes))

    def reserve(self, size_bytes: int) -> None:
        """Take bytes from the account.

        Raises: OverloadedError, and then nothing was taken.
        """
        self.check(size_bytes)
        self._held_bytes += size_bytes

    def grow(self, size_bytes: int) -> None:
        """Take bytes for a body that is already being read, also while draining or paused.

        Raises: OverloadedError, and then nothing was taken.
        """
        if self._held_bytes + size_bytes > self._bytes_max:
            raise OverloadedError(_no_room(size_bytes))
        self._held_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Give bytes back: a refused body, or the bodies of a batch that the core has processed.

        The core releases the length of each `Payload.body` of the batch, no more and no less.
        """
        assert 0 <= size_bytes <= self._held_bytes
        self._held_bytes -= size_bytes

    def delay_s(self, error: WeirError) -> float | None:
        """Draw when the client may come back, 1 to 4 s or later if the error asks; None is never.

        The delay is drawn so that clients that were refused together do not return together.
        """
        at_least_s = retry_delay_s(error)
        if at_least_s is None:
            return None
        spread_s = RETRY_AFTER_MAX_S - RETRY_AFTER_MIN_S
        return max(at_least_s, RETRY_AFTER_MIN_S + spread_s * self._rng.random())


def _no_room(size_bytes: int) -> str:
    return f"the intake has no room for {size_bytes} bytes now"


class Hold:
    """The share of the account that one request holds while its body is read and inflated."""

    __slots__ = ("_admission", "size_bytes")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.size_bytes = 0

    def grow(self, size_bytes: int) -> None:
        """Take more.

        Raises: OverloadedError, and then nothing more was taken.
        """
        self._admission.grow(size_bytes)
        self.size_bytes += size_bytes

    def shrink_to(self, size_bytes: int) -> None:
        """Give back everything above size_bytes."""
        self._admission.release(self.size_bytes - size_bytes)
        self.size_bytes = size_bytes

    def hand_over(self) -> None:
        """Leave what is held in the account to a new owner."""
        self.size_bytes = 0

    def close(self) -> None:
        """Give everything back that was not handed over."""
        self.shrink_to(0)
