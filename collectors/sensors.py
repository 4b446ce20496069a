"""The sources of readings: one function for each place where a system shows how it is.

Law: a source adds only what it has found. Each takes the root of the file tree, so that a tree made
by hand is read like a real one. Limits: `PARTS_MAX` parts of a kind; a source that starts a program
gives it `PROGRAM_S`.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from collectors.readings import Found, Name, first, listed, ratio

PARTS_MAX: Final = 64
PROGRAM_S: Final = 5.0
OUTPUT_BYTES_MAX: Final = 64 << 10

_CARD: Final = re.compile(r"card\d+")
_PCI: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
# Devfreq devices that are the GPU of an embedded board; others are buses and memories.
_EMBEDDED_GPU: Final = re.compile(r"gpu|gv11b|gp10b|ga10b|mali", re.IGNORECASE)
# Where the kernel or the firmware begins to slow down, the mildest first.
_TRIPS: Final = ("passive", "hot", "critical")
_SOFTWARE_THERMAL: Final = 0x20
_HARDWARE_THERMAL: Final = 0x40
_QUERY: Final = (
    *("uuid", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu", "power.draw"),
)
# The same mask under its name now and the one of older drivers; some know neither.
_MASKS: Final = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")


class Cpu:
    """Share of time that all processors together were not idle since the last round."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None

    def __call__(self, found: Found) -> None:
        """Add the share; nothing in the first round or when no time has passed."""
        (idle, total), last = self._times(), self._last
        self._last = idle, total
        if last is None:
            return
        idle_s, total_s = idle - last[0], total - last[1]
        if total_s > 0:
            # Counters of single processors may step back a little.
            found.add(Name.CPU, min(1.0, max(0.0, 1.0 - idle_s / total_s)))

    @staticmethod
    def _times() -> tuple[float, float]:
        times = psutil.cpu_times()
        # On Linux guest time is already in user time.
        twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return times.idle + getattr(times, "iowait", 0.0), sum(times) - twice


def memory(found: Found) -> None:
    """Add the share of memory that programs cannot get any more."""
    memory = psutil.virtual_memory()
    found.add(Name.MEMORY, ratio(memory.total - memory.available, memory.total))


def filesystems(found: Found) -> None:
    """Add how full each file system on a device is, as `df` counts; read-only ones are left out."""
    seen: set[str] = set()
    parts = sorted(psutil.disk_partitions(all=False), key=lambda part: len(part.mountpoint))
    for part in parts[:PARTS_MAX]:
        # A device that is mounted twice is told once, at the shorter path.
        if part.device in seen or "ro" in part.opts.split(","):
            continue
        seen.add(part.device)
        try:
            usage = psutil.disk_usage(part.mountpoint)
        except OSError as error:
            found.broken[f"{Name.FILESYSTEM} {part.mountpoint}"] = error.strerror or "unreadable"
            continue
        share = ratio(usage.used, usage.used + usage.free)
        found.add(Name.FILESYSTEM, share, system_filesystem_mountpoint=part.mountpoint)


def graphics(found: Found, root: Path) -> None:
    """Add load and memory of GPUs whose drivers show them in DRM, as amdgpu does."""
    for card in listed(root / "sys/class/drm", "card*")[:PARTS_MAX]:
        if not _CARD.fullmatch(card.name):
            continue  # a connector
        device = card / "device"
        target = device.resolve().name
        part = {"hw_id": target if _PCI.fullmatch(target) else card.name, "hw_type": "gpu"}
        found.add(Name.GPU, found.maybe_number(device / "gpu_busy_percent", 100.0), **part)
        used = found.maybe_number(device / "mem_info_vram_used")
        total = found.maybe_number(device / "mem_info_vram_total")
        found.add(Name.GPU_MEMORY, ratio(used, total), **part)


def embedded_graphics(found: Found, root: Path) -> None:
    """Add the load of GPUs of embedded boards, which count it in thousandths."""
    for part in listed(root / "sys/class/devfreq", "*")[:PARTS_MAX]:
        if _EMBEDDED_GPU.search(part.name):
            load = found.maybe_number(part / "device/load", 1000.0)
            found.add(Name.GPU, load, hw_id=part.name, hw_type="gpu")


def monitors(found: Found, root: Path) -> None:
    """Add temperatures with their limits, and powers, of the chips in hwmon."""
    for chip in listed(root / "sys/class/hwmon", "hwmon*")[:PARTS_MAX]:
        if any(part.startswith("thermal_zone") for part in chip.resolve().parts):
            continue  # the kernel shows a thermal zone here once more
        name = found.maybe_text(chip / "name") or chip.name
        device = (chip / "device").resolve().name if (chip / "device").exists() else chip.name
        # Names of chips come twice, numbers of chips change from boot to boot.
        base = f"{name}/{device}"
        for path in listed(chip, "temp*_input")[:PARTS_MAX]:
            stem = path.name.removesuffix("_input")
            part = f"{base}/{found.maybe_text(chip / f'{stem}_label') or stem}"
            found.add(Name.TEMPERATURE, found.maybe_number(path, 1e3), hw_id=part)
            ends = (found.maybe_number(chip / f"{stem}_{end}", 1e3) for end in ("max", "crit"))
            found.add(Name.LIMIT, min((end for end in ends if end), default=None), hw_id=part)
        for stem in sorted({path.name.split("_")[0] for path in listed(chip, "power*_*")}):
            watts = first(found.maybe_number(chip / f"{stem}_{end}", 1e6)
                          for end in ("average", "input"))  # fmt: skip
            part = f"{base}/{found.maybe_text(chip / f'{stem}_label') or stem}"
            found.add(Name.POWER, watts, hw_id=part)


def zones(found: Found, root: Path) -> None:
    """Add temperature and limit of thermal zones, and whether the kernel slows one down."""
    for zone in listed(root / "sys/class/thermal", "thermal_zone*")[:PARTS_MAX]:
        part = f"{found.maybe_text(zone / 'type') or 'zone'}/{zone.name}"
        degrees = found.maybe_number(zone / "temp", 1e3)
        found.add(Name.TEMPERATURE, degrees, hw_id=part)
        trips: dict[str, float] = {}
        for path in listed(zone, "trip_point_*_type")[:PARTS_MAX]:
            kind = found.maybe_text(path)
            at = found.maybe_number(path.with_name(path.name.replace("_type", "_temp")), 1e3)
            # Zero and below stand for a trip point that is switched off.
            if kind in _TRIPS and at is not None and at > 0:
                trips[kind] = min(at, trips.get(kind, at))
        found.add(Name.LIMIT, first(trips.get(kind) for kind in _TRIPS), hw_id=part)
        if degrees is not None and "passive" in trips:
            found.add(Name.THROTTLED, float(degrees >= trips["passive"]), hw_id=part)


class CpuThrottle:
    """Whether the processors were slowed down by heat since the last round."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._last: float | None = None

    def __call__(self, found: Found) -> None:
        """Add 1 when a counter has grown, 0 when none has; nothing before or without counters."""
        folder = self._root / "sys/devices/system/cpu"
        counters = listed(folder, "cpu*/thermal_throttle/*_throttle_count")
        numbers = [found.maybe_number(path) for path in counters]
        known = [number for number in numbers if number is not None]
        total, last = (sum(known) if known else None), self._last
        self._last = total
        if total is not None and last is not None:
            found.add(Name.THROTTLED, float(total > last), hw_id="cpu", hw_type="cpu")


def supplies(found: Found, root: Path) -> None:
    """Add charge of batteries, what a discharging one gives, and whether the host lives on one."""
    mains: list[bool] = []
    batteries: list[str] = []
    folder = root / "sys/class/power_supply"
    for supply in listed(folder, "*")[:PARTS_MAX]:
        kind = found.maybe_text(supply / "type")
        if found.maybe_text(supply / "scope") == "Device":
            continue  # the battery of a mouse
        if kind == "Battery":
            status = found.maybe_text(supply / "status") or "Unknown"
            batteries.append(status)
            part = {"hw_id": supply.name, "hw_type": "battery"}
            found.add(Name.CHARGE, _charge(found, supply), **part)
            if status == "Discharging":
                found.add(Name.POWER, _watts(found, supply), **part)
        elif kind in ("Mains", "USB", "UPS"):
            online = found.maybe_number(supply / "online")
            if online is not None:
                mains.append(online > 0)
    found.add(Name.ON_BATTERY, _on_battery(mains, batteries))


def _charge(found: Found, supply: Path) -> float | None:
    percent = found.maybe_number(supply / "capacity", 100.0)
    if percent is not None:
        return percent
    for kind in ("energy", "charge"):
        now, full = (found.maybe_number(supply / f"{kind}_{end}") for end in ("now", "full"))
        share = ratio(now, full)
        if share is not None:
            return min(1.0, share)
    return None


def _watts(found: Found, supply: Path) -> float | None:
    """Read what a battery gives; some drivers count it negative."""
    watts = found.maybe_number(supply / "power_now", 1e6)
    if watts is None:
        amperes = found.maybe_number(supply / "current_now", 1e6)
        volts = found.maybe_number(supply / "voltage_now", 1e6)
        watts = amperes * volts if amperes is not None and volts is not None else None
    return abs(watts) if watts is not None else None


def _on_battery(mains: list[bool], batteries: list[str]) -> float | None:
    """Decide from the mains where they are shown, else from the batteries; None without either."""
    if not batteries:
        return None
    if mains:
        return float(not any(mains))
    if "Discharging" in batteries:
        return 1.0
    return 0.0 if set(batteries) - {"Unknown"} else None


def nvidia(found: Found, program: str) -> None:
    """Add load, memory, temperature, power and heat of NVIDIA's GPUs, as their own tool says.

    Raises: OSError or subprocess.SubprocessError when the tool does not start, fails or hangs.
    """
    lines: list[str] = []
    for mask in (*_MASKS, ""):
        fields = [*_QUERY, *([mask] if mask else [])]
        try:
            lines = _ask(program, fields)
            break
        except subprocess.CalledProcessError:
            if not mask:
                raise
    for line in lines[:PARTS_MAX]:
        values = [text.strip() for text in line.split(",")]
        row = dict(zip((*_QUERY, "mask"), values, strict=False))
        part = {"hw_id": row["uuid"], "hw_type": "gpu"}
        found.add(Name.GPU, _maybe(row, "utilization.gpu", 100.0), **part)
        used, total = _maybe(row, "memory.used"), _maybe(row, "memory.total")
        found.add(Name.GPU_MEMORY, ratio(used, total), **part)
        found.add(Name.TEMPERATURE, _maybe(row, "temperature.gpu"), **part)
        found.add(Name.POWER, _maybe(row, "power.draw"), **part)
        if row.get("mask", "").startswith("0x"):
            hot = int(row["mask"], 16) & (_SOFTWARE_THERMAL | _HARDWARE_THERMAL)
            found.add(Name.THROTTLED, float(hot != 0), **part)


def _ask(program: str, fields: list[str]) -> list[str]:
    done = subprocess.run(  # noqa: S603 - the program is the one that was found at start
        [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PROGRAM_S,
        check=True,
    )
    return done.stdout[:OUTPUT_BYTES_MAX].decode("utf-8", "replace").strip().splitlines()


def _maybe(row: Mapping[str, str], key: str, scale: float = 1.0) -> float | None:
    """Read a number; what the tool does not know stands in brackets."""
    try:
        return float(row[key]) / scale
    except (KeyError, ValueError):
        return None


def battery(found: Found) -> None:
    """Add charge and source of power where the system has no tree to read them from."""
    state = psutil.sensors_battery()
    if state is None:
        return
    found.add(Name.CHARGE, state.percent / 100.0, hw_id="battery", hw_type="battery")
    if state.power_plugged is not None:
        found.add(Name.ON_BATTERY, float(not state.power_plugged))
