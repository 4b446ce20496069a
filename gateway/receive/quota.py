"""What each device may take of the intake: two rates, bodies at once, and its part of the account.

Law: a device that stays within its rates is never refused for them, and over any time it gets at
most its rate and one burst; each request costs O(1). The table has at most `DEVICES_MAX` entries:
the least recently seen one goes, and one in use stays, so that a device cannot lose what it owes
while it has a body here.

A device is its authenticated identity, else the address of the peer. Bytes are those of bodies
after decompression, the only size that both transports know. A body is charged with its declared
size before it is read and with the rest as it turns out; that may put a device in debt, which it
waits out before its next request, so that a body larger than a burst is possible and still paid.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.config import DeviceSection
from gateway.errors import OverloadedError, QuotaExceededError

# About 250 bytes each; above the devices of a large site, and of the tokens that one can have.
DEVICES_MAX: Final = 131_072
# What a stock exporter still waits for; a device that owes more is told again then.
QUOTA_DELAY_MAX_S: Final = 4.0
BODIES_DELAY_S: Final = 1.0


class Device:
    """One device that is known. Units: levels in bytes and requests, negative when it owes."""

    __slots__ = (
        "bodies",
        "bytes_level",
        "held_bytes",
        "key",
        "requests_level",
        "seen_s",
        "small_bytes",
    )

    def __init__(self, key: str, seen_s: float) -> None:
        self.key = key
        self.bytes_level = math.inf  # the first refill cuts them to what a bucket holds
        self.requests_level = math.inf
        self.seen_s = seen_s
        self.bodies = 0  # requests between their headers and their answer
        self.held_bytes = 0  # of the account, in large bodies
        self.small_bytes = 0  # of the account, in small ones

    @property
    def busy(self) -> bool:
        """Whether anything of it is in the intake."""
        return bool(self.bodies or self.held_bytes or self.small_bytes)


class Devices:
    """The table of devices and their buckets."""

    def __init__(
        self,
        limits: DeviceSection,
        clock: Callable[[], float],
        devices_max: int = DEVICES_MAX,
    ) -> None:
        self._clock = clock
        self._devices_max = devices_max
        self._busy: dict[str, Device] = {}
        self._idle: OrderedDict[str, Device] = OrderedDict()  # least recently seen first
        self.use(limits)

    def __len__(self) -> int:
        return len(self._busy) + len(self._idle)

    def held(self) -> dict[str, int]:
        """Bytes of the account by device, of those with something in the intake."""
        return {key: each.held_bytes + each.small_bytes for key, each in self._busy.items()}

    def use(self, limits: DeviceSection) -> None:
        """Take other limits from the next request on; a bucket keeps what it holds or owes."""
        self._limits = limits
        self._bytes_rate = float(limits.bytes_per_second or 0)
        self._requests_rate = float(limits.requests_per_second or 0)
        self._bytes_max = self._bytes_rate * limits.burst
        self._requests_max = self._requests_rate * limits.burst

    def check(self, key: str, declared_bytes: int = 0) -> Device:
        """Refuse a request that is over the device's quota, and take nothing.

        Raises: QuotaExceededError; OverloadedError when the table is full of devices in use.
        """
        device = self._find(key)
        self._refill(device)
        if device.bodies >= self._limits.bodies_max:
            raise QuotaExceededError(
                f"this device has its limit of {self._limits.bodies_max} bodies under way",
                BODIES_DELAY_S,
            )
        if self._requests_rate and device.requests_level < 1.0:
            wait_s = (1.0 - device.requests_level) / self._requests_rate
            raise _over(f"{self._requests_rate:g} requests", wait_s)
        # What is unknown counts as a byte: whoever owes waits.
        needed = min(max(1.0, declared_bytes), self._bytes_max)
        if self._bytes_rate and device.bytes_level < needed:
            wait_s = (needed - device.bytes_level) / self._bytes_rate
            raise _over(f"{int(self._bytes_rate)} bytes", wait_s)
        return device

    def enter(self, device: Device, declared_bytes: int) -> None:
        """Charge a request that `check` let through; `leave` ends it."""
        if not device.busy:
            self._idle.pop(device.key, None)
            self._busy[device.key] = device
        device.bodies += 1
        device.requests_level -= 1.0
        device.bytes_level -= declared_bytes

    def leave(self, device: Device) -> None:
        """End a request."""
        assert device.bodies > 0
        device.bodies -= 1
        self.settle(device)

    def settle(self, device: Device) -> None:
        """Let a device go that has nothing in the intake any more."""
        if not device.busy and self._busy.pop(device.key, None) is not None:
            self._idle[device.key] = device

    def _find(self, key: str) -> Device:
        device = self._busy.get(key)
        if device is not None:
            return device
        device = self._idle.get(key)
        if device is not None:
            self._idle.move_to_end(key)
            return device
        if len(self) >= self._devices_max:
            if not self._idle:
                raise OverloadedError(f"{self._devices_max} devices are sending at once")
            # A flood of new names can make the gateway forget what an idle device owes. Names are
            # given out by the site where peers are authenticated, and bound by the account else.
            self._idle.popitem(last=False)
        device = Device(key, self._clock())
        self._idle[key] = device
        return device

    def _refill(self, device: Device) -> None:
        now_s = self._clock()
        elapsed_s = max(0.0, now_s - device.seen_s)
        device.seen_s = now_s
        # Without a rate the bucket is endless, so that a limit which comes later starts full.
        device.bytes_level = (
            min(self._bytes_max, device.bytes_level + elapsed_s * self._bytes_rate)
            if self._bytes_rate
            else math.inf
        )
        device.requests_level = (
            min(self._requests_max, device.requests_level + elapsed_s * self._requests_rate)
            if self._requests_rate
            else math.inf
        )


def _over(quota: str, wait_s: float) -> QuotaExceededError:
    return QuotaExceededError(
        f"this device is over its quota of {quota} per second", min(QUOTA_DELAY_MAX_S, wait_s)
    )
