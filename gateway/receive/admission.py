"""One byte account for everything between the socket and the core, and what the intake counts.

Law: `held_bytes` is the sum of all bodies that are being read, inflated, committed or waiting for
the core. It never passes `bytes_max`: whoever would pass it is told when to come back. A body is
refused before it is acknowledged, never dropped after.

Who is refused first, as the account fills:

1. Above the soft level, the devices that hold the most: a device may not add to bytes that are more
   than what is free. So one loud device leaves room, n of them share equally, and a quiet one,
   which holds nothing, always gets in. (Choudhury and Hahne, Dynamic queue length thresholds for
   shared-memory packet switches, IEEE/ACM ToN 6(2), 1998, with their factor at 1.)
2. Above the account less its reserve, all bodies but small ones. Heartbeats and lone errors are
   small, and they are what a site needs when everything else stalls. Size is the only honest sign
   before decoding: a header that says "urgent" would soon be in every request, and a small body is
   cheap to take even if it lies. A large one that calls itself small is found out as it is read.
3. At the account's limit, everybody.

Single-threaded: every method is called on the event loop (the core reports through
`call_soon_threadsafe`).
"""

import random
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from types import TracebackType
from typing import Final, Self

from gateway.batch import Signal, Transport
from gateway.config import RESERVE_PARTS, DeviceSection
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
from gateway.receive.quota import Device, Devices

# Stock exporters give up at once when the hint exceeds the 10 s they allow in all, and a hint
# below one second comes back as a storm.
RETRY_AFTER_MIN_S: Final = 1.0
RETRY_AFTER_MAX_S: Final = 4.0

# Above this part of the account the devices that hold the most are refused.
SOFT_LEVEL: Final = 3 / 4
# A heartbeat, or some fifty spans: bodies that are refused last.
SMALL_BODY_BYTES: Final = 16 * 1024

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

    def __init__(
        self,
        *,
        bytes_max: int,
        rng: random.Random,
        device: DeviceSection | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rng = rng
        self._held_bytes = 0
        self._paused = ""
        self._draining = False
        # Size, device and class of the bodies that the core has, or will have, by ticket, in the
        # order in which they were submitted. Not the bodies: the open batch has copied them.
        self._queued: OrderedDict[int, tuple[int, Device, bool]] = OrderedDict()
        self._ticket = 0
        self.devices = Devices(device or DeviceSection(), clock)
        self.counters = Counters()
        self._limit(bytes_max)

    def _limit(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._large_max = bytes_max - bytes_max // RESERVE_PARTS
        self._soft = int(bytes_max * SOFT_LEVEL)

    def use(self, *, bytes_max: int, device: DeviceSection) -> None:
        """Take other limits from the next request on; what is held stays held."""
        self._limit(bytes_max)
        self.devices.use(device)

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that are not yet processed."""
        return self._held_bytes

    @property
    def bytes_max(self) -> int:
        """The limit of the account."""
        return self._bytes_max

    @property
    def room_bytes(self) -> int:
        """Bytes that are free for a large body."""
        return max(0, self._large_max - self._held_bytes)

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

    def check(self, key: str | None = None, declared_bytes: int = 0) -> None:
        """Refuse what would be refused now, as far as it is known; take nothing.

        Raises: OverloadedError, QuotaExceededError.
        """
        device = None if key is None else self.devices.check(key, declared_bytes)
        self._check(declared_bytes, device)

    def enter(self, key: str, declared_bytes: int = 0) -> "Hold":
        """Begin a request of a device; closing the hold ends it.

        A declared size is checked and charged to the device's rate, but no room is taken for it:
        a peer that declares much and sends little would hold what others need.
        Raises: OverloadedError, QuotaExceededError; nothing is charged then.
        """
        device = self.devices.check(key, declared_bytes)
        self._check(declared_bytes, device)
        self.devices.enter(device, declared_bytes)
        return Hold(self, device, declared_bytes)

    def _check(self, declared_bytes: int, device: Device | None) -> None:
        if self._draining or self._paused:
            raise OverloadedError(self.blocked)
        small = declared_bytes <= SMALL_BODY_BYTES
        others = 0 if device is None else device.small_bytes if small else device.held_bytes
        self._check_room(declared_bytes, others, small=small)

    def _check_room(self, size_bytes: int, others_bytes: int, *, small: bool) -> None:
        """Refuse bytes for which there is no room, or none for this device.

        Shape: others_bytes is what the device holds already in other bodies of the class.
        """
        most = self._bytes_max if small else self._large_max
        after = self._held_bytes + size_bytes
        if after > most or self._held_bytes >= most:
            raise OverloadedError(f"the intake has no room for {size_bytes} bytes now")
        if after > self._soft and others_bytes > most - self._held_bytes:
            raise OverloadedError("the intake is filling up and holds much of this device")

    def take(self, hold: "Hold", size_bytes: int) -> None:
        """Take bytes for a body that is being read, also while draining or paused.

        Raises: OverloadedError, and then nothing was taken.
        """
        total = hold.size_bytes + size_bytes
        small = total <= SMALL_BODY_BYTES
        device, others = hold.device, 0
        if device is not None:
            others = device.small_bytes if small else device.held_bytes
            if small == hold.small:
                others -= hold.size_bytes
        self._check_room(size_bytes, others, small=small)
        self._move(hold, total, small=small)

    def give_back(self, hold: "Hold", size_bytes: int) -> None:
        """Let a hold shrink to size_bytes."""
        assert 0 <= size_bytes <= hold.size_bytes
        self._move(hold, size_bytes, small=size_bytes <= SMALL_BODY_BYTES)

    def _move(self, hold: "Hold", total: int, *, small: bool) -> None:
        _book(hold.device, -hold.size_bytes, small=hold.small)
        _book(hold.device, total, small=small)
        self._held_bytes += total - hold.size_bytes
        hold.size_bytes, hold.small = total, small

    def queue(self, hold: "Hold") -> int:
        """Leave what a hold has, which is a whole body, to the core; returns its ticket."""
        device = hold.device
        assert device is not None
        self._ticket += 1
        self._queued[self._ticket] = (hold.size_bytes, device, hold.small)
        hold.size_bytes, hold.small = 0, True
        return self._ticket

    def forsake(self, ticket: int) -> None:
        """Give back a body that the core will never see."""
        self._free(*self._queued.pop(ticket))

    def release(self, size_bytes: int) -> None:
        """Give back the bodies of a batch that the core has processed.

        Batches come back in the order in which their bodies were queued, so that the size of a
        batch tells whose they were. The core names the length of each `Payload.body` of the
        batch, no more and no less.
        """
        while size_bytes > 0:
            _, (size, device, small) = self._queued.popitem(last=False)
            size_bytes -= size
            self._free(size, device, small)
        assert size_bytes == 0

    def _free(self, size_bytes: int, device: Device, small: bool) -> None:
        self._held_bytes -= size_bytes
        _book(device, -size_bytes, small=small)
        self.devices.settle(device)

    def delay_s(self, error: WeirError) -> float | None:
        """Draw when the client may come back, 1 to 4 s or later if the error asks; None is never.

        The delay is drawn so that clients that were refused together do not return together.
        """
        at_least_s = retry_delay_s(error)
        if at_least_s is None:
            return None
        at_least_s = max(RETRY_AFTER_MIN_S, at_least_s)
        spread_s = max(0.0, RETRY_AFTER_MAX_S - at_least_s)
        return at_least_s + spread_s * self._rng.random()


def _book(device: Device | None, size_bytes: int, *, small: bool) -> None:
    if device is None:
        return
    if small:
        device.small_bytes += size_bytes
    else:
        device.held_bytes += size_bytes


class Hold:
    """The share of the account that one request holds while its body is read and inflated.

    Without a device it only counts against the account. `small` is its class, by its size now.
    """

    __slots__ = ("_admission", "_charged_bytes", "device", "size_bytes", "small")

    def __init__(
        self, admission: Admission, device: Device | None = None, charged_bytes: int = 0
    ) -> None:
        self._admission = admission
        self._charged_bytes = charged_bytes
        self.device = device
        self.size_bytes = 0
        self.small = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        place: TracebackType | None,
    ) -> None:
        self.close()

    def grow(self, size_bytes: int) -> None:
        """Take more.

        Raises: OverloadedError, and then nothing more was taken.
        """
        self._admission.take(self, size_bytes)

    def shrink_to(self, size_bytes: int) -> None:
        """Give back everything above size_bytes."""
        self._admission.give_back(self, size_bytes)

    def charge(self, size_bytes: int) -> None:
        """Tell how large the body turned out to be: the device's rate pays for the difference."""
        if self.device is not None:
            self.device.bytes_level -= size_bytes - self._charged_bytes
            self._charged_bytes = size_bytes

    def close(self) -> None:
        """End the request, and give everything back that was not queued."""
        self.shrink_to(0)
        device, self.device = self.device, None
        if device is not None:
            self._admission.devices.leave(device)
