"""What is read of a host: the closed list of names with unit and range, and how files are read.

Law: a value that is not known is not there; it is never 0. A value outside the range of its name is
a broken sensor and is told as such. Reading one file never raises.
Source: OpenTelemetry semantic conventions for system and hardware metrics; `edgeai.*` where they
have no name.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

FILE_BYTES_MAX: Final = 4096


class Name(StrEnum):
    """Names of the gauges."""

    CPU = "system.cpu.utilization"
    MEMORY = "system.memory.utilization"
    FILESYSTEM = "system.filesystem.utilization"
    GPU = "hw.gpu.utilization"
    GPU_MEMORY = "hw.gpu.memory.utilization"
    TEMPERATURE = "hw.temperature"
    POWER = "hw.power"
    CHARGE = "hw.battery.charge"
    ON_BATTERY = "edgeai.power.on_battery"
    THROTTLED = "edgeai.thermal.throttled"
    LIMIT = "edgeai.thermal.limit"


_SHARE: Final = ("1", 0.0, 1.0)
_CELSIUS: Final = ("Cel", -100.0, 300.0)
# Unit, and a range that is wider than any device is.
KINDS: Final[Mapping[Name, tuple[str, float, float]]] = {
    Name.CPU: _SHARE,
    Name.MEMORY: _SHARE,
    Name.FILESYSTEM: _SHARE,
    Name.GPU: _SHARE,
    Name.GPU_MEMORY: _SHARE,
    Name.TEMPERATURE: _CELSIUS,
    Name.POWER: ("W", 0.0, 100_000.0),
    Name.CHARGE: _SHARE,
    Name.ON_BATTERY: _SHARE,
    Name.THROTTLED: _SHARE,
    Name.LIMIT: _CELSIUS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One data point, in the unit of its name."""

    name: Name
    value: float
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """What one round found: readings, and what is broken, by what it is."""

    readings: list[Reading] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, name: Name, value: float | None, **attributes: str) -> None:
        """Keep a reading; None is no reading. Keys are written with `_` for `.`."""
        if value is None:
            return
        named = {key.replace("_", "."): text for key, text in attributes.items() if text}
        _, lowest, highest = KINDS[name]
        if not math.isfinite(value) or not lowest <= value <= highest:
            self.broken[" ".join([name, *named.values()])] = f"{value:g} is out of range"
            return
        self.readings.append(Reading(name=name, value=float(value), attributes=named))

    def maybe_number(self, path: Path, scale: float = 1.0) -> float | None:
        """Read a number and divide it by `scale`; None when it is missing or broken."""
        text = self.maybe_text(path)
        if text is None:
            return None
        try:
            return float(text) / scale
        except ValueError:
            self.broken[str(path)] = "not a number"
            return None

    def maybe_text(self, path: Path) -> str | None:
        """Read a small text; None when it is missing or broken."""
        try:
            with path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self.broken[str(path)] = error.strerror or type(error).__name__
            return None
        return data.decode("utf-8", "replace").strip("\0 \n\t") or None


def ratio(part: float | None, whole: float | None) -> float | None:
    """Divide; None when either is unknown or there is no whole."""
    return part / whole if part is not None and whole else None


def listed(folder: Path, pattern: str) -> list[Path]:
    """List what is in a folder in order; nothing when there is no such folder.

    Raises: OSError when the folder is there and cannot be read.
    """
    return sorted(folder.glob(pattern)) if folder.is_dir() else []


def first(values: Iterable[float | None]) -> float | None:
    """Choose the first that is known."""
    return next((value for value in values if value is not None), None)
