"""Pins: which segments stay although it is their turn to be overwritten, for whom and how long.

Law: pinned segments never exceed the cap. Over it the pin with the greatest priority number goes
first; the number is a hash that every device computes alike, so that overloaded devices give up
the same requests without talking to each other.
Source: Hindsight (NSDI'23), "Coherent overload".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collectors.device.files import read_json, write_json

PINS_MAX: Final = 256
FILE_NAME: Final = "pins.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One hold. Units: until_ns is the end of the lease, Unix nanoseconds."""

    name: str
    priority: int
    until_ns: int
    generations: frozenset[int]


class Pins:
    """Holds by name, persisted before they are answered for."""

    def __init__(self, directory: Path, segments_max: int) -> None:
        self._path = directory / FILE_NAME
        self._segments_max = segments_max
        self._pins = {pin.name: pin for pin in _load(read_json(self._path))}

    @property
    def names(self) -> frozenset[str]:
        """Names of all present holds."""
        return frozenset(self._pins)

    def held(self, now_ns: int) -> frozenset[int]:
        """Name the generations that may not be overwritten; ends leases that are over."""
        self.expire(now_ns)
        return frozenset(
            generation for pin in self._pins.values() for generation in pin.generations
        )

    def add(self, pin: Pin) -> bool:
        """Hold segments, or renew a hold; False when the cap does not leave room for it."""
        pins = {**self._pins, pin.name: pin}
        while len(_union(pins.values())) > self._segments_max or len(pins) > PINS_MAX:
            loser = max(pins.values(), key=lambda entry: (entry.priority, entry.name))
            del pins[loser.name]
        self._replace(pins)
        return pin.name in pins

    def remove(self, name: str) -> None:
        """End a hold; unknown names are ignored."""
        if name in self._pins:
            self._replace({key: pin for key, pin in self._pins.items() if key != name})

    def expire(self, now_ns: int) -> None:
        """End every hold whose lease is over."""
        alive = {key: pin for key, pin in self._pins.items() if pin.until_ns > now_ns}
        if len(alive) != len(self._pins):
            self._replace(alive)

    def _replace(self, pins: dict[str, Pin]) -> None:
        write_json(
            self._path,
            [
                [pin.name, pin.priority, pin.until_ns, sorted(pin.generations)]
                for pin in pins.values()
            ],
        )
        self._pins = pins


def _union(pins: Iterable[Pin]) -> set[int]:
    return {generation for pin in pins for generation in pin.generations}


def _load(value: Any) -> list[Pin]:
    if not isinstance(value, list):
        return []
    return [
        Pin(name=name, priority=priority, until_ns=until_ns, generations=frozenset(generations))
        for name, priority, until_ns, generations in value
    ]
