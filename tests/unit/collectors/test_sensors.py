"""Trees made by hand are read as the system's own; what they do not show is not there."""

import math
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import sensors
from collectors.readings import KINDS, Found, Name


def write(root: Path, files: dict[str, str]) -> Path:
    """Make a tree of files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def values(found: Found) -> dict[tuple[str, str], float]:
    """Map name and part to the value; no part twice."""
    keyed = [((each.name, each.attributes.get("hw.id", "")), each.value) for each in found.readings]
    assert len(dict(keyed)) == len(keyed)
    return {(str(name), part): value for (name, part), value in keyed}


def test_graphics_cards_show_load_and_memory(tmp_path: Path) -> None:
    device = write(
        tmp_path / "sys/devices/pci0000:00/0000:03:00.0",
        {
            "gpu_busy_percent": "37\n",
            "mem_info_vram_total": "8000\n",
            "mem_info_vram_used": "2000\n",
        },
    )
    write(tmp_path, {"sys/class/drm/card1/device/other": "", "sys/class/drm/version": "drm"})
    (tmp_path / "sys/class/drm/card0").mkdir()
    (tmp_path / "sys/class/drm/card0/device").symlink_to(device)
    (tmp_path / "sys/class/drm/card0-HDMI-A-1").mkdir()
    found = Found()
    sensors.graphics(found, tmp_path)
    assert values(found) == {
        ("hw.gpu.utilization", "0000:03:00.0"): 0.37,
        ("hw.gpu.memory.utilization", "0000:03:00.0"): 0.25,
    }
    assert not found.broken
    assert found.readings[0].attributes["hw.type"] == "gpu"


def test_embedded_graphics_count_in_thousandths(tmp_path: Path) -> None:
    write(
        tmp_path / "sys/class/devfreq",
        {"17000000.gpu/device/load": "456\n", "17000000.emc/device/load": "999\n"},
    )
    found = Found()
    sensors.embedded_graphics(found, tmp_path)
    assert values(found) == {("hw.gpu.utilization", "17000000.gpu"): 0.456}


def test_monitors_show_temperatures_with_limits_and_powers(tmp_path: Path) -> None:
    write(
        tmp_path / "sys/class/hwmon",
        {
            "hwmon0/name": "k10temp\n",
            "hwmon0/temp1_input": "48250\n",
            "hwmon0/temp1_label": "Tctl\n",
            "hwmon0/temp1_max": "70000\n",
            "hwmon0/temp1_crit": "95000\n",
            "hwmon0/temp2_input": "-5000\n",
            "hwmon1/name": "amdgpu\n",
            "hwmon1/power1_average": "31000000\n",
            "hwmon1/power1_cap": "90000000\n",
            "hwmon1/power2_input": "1500000\n",
        },
    )
    zone = tmp_path / "sys/devices/virtual/thermal/thermal_zone0/hwmon2"
    write(zone, {"name": "acpitz\n", "temp1_input": "20000\n"})
    (tmp_path / "sys/class/hwmon/hwmon2").symlink_to(zone)
    found = Found()
    sensors.monitors(found, tmp_path)
    assert values(found) == {
        ("hw.temperature", "k10temp/hwmon0/Tctl"): 48.25,
        ("edgeai.thermal.limit", "k10temp/hwmon0/Tctl"): 70.0,
        ("hw.temperature", "k10temp/hwmon0/temp2"): -5.0,
        ("hw.power", "amdgpu/hwmon1/power1"): 31.0,
        ("hw.power", "amdgpu/hwmon1/power2"): 1.5,
    }


@pytest.mark.parametrize(
    ("degrees", "trips", "limit", "throttled"),
    [
        ("65000", {"passive": "80000", "critical": "105000"}, 80.0, 0.0),
        ("80000", {"passive": "80000", "critical": "105000"}, 80.0, 1.0),
        ("80000", {"critical": "105000", "hot": "98000"}, 98.0, None),
        ("80000", {"critical": "-274000"}, None, None),
        ("80000", {"active": "50000"}, None, None),
        ("80000", {}, None, None),
    ],
)
def test_zones_show_where_the_kernel_slows_down(
    tmp_path: Path,
    degrees: str,
    trips: dict[str, str],
    limit: float | None,
    throttled: float | None,
) -> None:
    files = {"type": "cpu-thermal\n", "temp": degrees}
    for number, (kind, at) in enumerate(trips.items()):
        files[f"trip_point_{number}_type"] = f"{kind}\n"
        files[f"trip_point_{number}_temp"] = at
    write(tmp_path / "sys/class/thermal/thermal_zone3", files)
    found = Found()
    sensors.zones(found, tmp_path)
    part = "cpu-thermal/thermal_zone3"
    expected = {("hw.temperature", part): float(degrees) / 1000}
    if limit is not None:
        expected["edgeai.thermal.limit", part] = limit
    if throttled is not None:
        expected["edgeai.thermal.throttled", part] = throttled
    assert values(found) == expected


def test_processors_were_slowed_down_when_a_counter_has_grown(tmp_path: Path) -> None:
    folder = tmp_path / "sys/devices/system/cpu"
    write(
        folder,
        {
            "cpu0/thermal_throttle/core_throttle_count": "5\n",
            "cpu1/thermal_throttle/package_throttle_count": "7\n",
        },
    )
    throttle = sensors.CpuThrottle(tmp_path)
    seen = []
    for counts in ("5", "5", "6", "6", "0", "0"):
        (folder / "cpu0/thermal_throttle/core_throttle_count").write_text(counts)
        found = Found()
        throttle(found)
        seen.append([each.value for each in found.readings])
    assert seen == [[], [0.0], [1.0], [0.0], [0.0], [0.0]]
    found = Found()
    nothing = sensors.CpuThrottle(tmp_path / "nothing")
    nothing(found)
    nothing(found)
    assert found.readings == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {
                "BAT0/type": "Battery",
                "BAT0/status": "Discharging",
                "BAT0/capacity": "64",
                "BAT0/power_now": "12500000",
                "AC/type": "Mains",
                "AC/online": "0",
            },
            {
                ("hw.battery.charge", "BAT0"): 0.64,
                ("hw.power", "BAT0"): 12.5,
                ("edgeai.power.on_battery", ""): 1.0,
            },
        ),
        (
            {
                "BAT0/type": "Battery",
                "BAT0/status": "Charging",
                "BAT0/energy_now": "30",
                "BAT0/energy_full": "40",
                "BAT0/power_now": "9",
                "AC/type": "Mains",
                "AC/online": "1",
            },
            {("hw.battery.charge", "BAT0"): 0.75, ("edgeai.power.on_battery", ""): 0.0},
        ),
        (
            {
                "bq/type": "Battery",
                "bq/status": "Discharging",
                "bq/capacity": "9",
                "bq/current_now": "-2000000",
                "bq/voltage_now": "3700000",
            },
            {
                ("hw.battery.charge", "bq"): 0.09,
                ("hw.power", "bq"): 7.4,
                ("edgeai.power.on_battery", ""): 1.0,
            },
        ),
        (
            {"BAT0/type": "Battery", "BAT0/status": "Unknown", "BAT0/capacity": "50"},
            {("hw.battery.charge", "BAT0"): 0.5},
        ),
        (
            {"mouse/type": "Battery", "mouse/scope": "Device", "mouse/capacity": "3"},
            {},
        ),
        ({"AC/type": "Mains", "AC/online": "1"}, {}),
    ],
    ids=["battery", "charging", "negative-current", "unknown", "mouse", "no-battery"],
)
def test_power_supplies(
    tmp_path: Path, files: dict[str, str], expected: dict[tuple[str, str], float]
) -> None:
    write(tmp_path / "sys/class/power_supply", files)
    found = Found()
    sensors.supplies(found, tmp_path)
    assert values(found) == pytest.approx(expected)
    assert not found.broken


def nvidia_tool(folder: Path, body: str) -> str:
    """Write a program that stands in for nvidia-smi."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_nvidia_tool_is_read(tmp_path: Path) -> None:
    tool = nvidia_tool(
        tmp_path,
        'case "$1" in *event*) exit 2;; esac\n'
        "echo 'GPU-1, 45, 1024, 4096, 61, 28.50, 0x0000000000000040'\n"
        "echo 'GPU-2, [N/A], 0, 4096, 35, [Not Supported], 0x0000000000000001'",
    )
    found = Found()
    sensors.nvidia(found, tool)
    assert values(found) == {
        ("hw.gpu.utilization", "GPU-1"): 0.45,
        ("hw.gpu.memory.utilization", "GPU-1"): 0.25,
        ("hw.temperature", "GPU-1"): 61.0,
        ("hw.power", "GPU-1"): 28.5,
        ("edgeai.thermal.throttled", "GPU-1"): 1.0,
        ("hw.gpu.memory.utilization", "GPU-2"): 0.0,
        ("hw.temperature", "GPU-2"): 35.0,
        ("edgeai.thermal.throttled", "GPU-2"): 0.0,
    }


def test_nvidia_tool_that_knows_no_mask_is_read_without(tmp_path: Path) -> None:
    tool = nvidia_tool(
        tmp_path, 'case "$1" in *reasons*) exit 2;; esac\necho "GPU-1, 45, 1, 2, 61, 28.5"'
    )
    found = Found()
    sensors.nvidia(found, tool)
    assert len(found.readings) == 4


def test_file_systems_are_told_once_and_read_only_ones_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def part(device: str, place: str, opts: str) -> Any:
        return psutil._ntuples.sdiskpart(device, place, "ext4", opts)

    parts = [
        part("/dev/a", str(tmp_path / "longer"), "rw"),
        part("/dev/a", str(tmp_path), "rw,relatime"),
        part("/dev/loop0", str(tmp_path), "ro,nodev"),
        part("/dev/b", str(tmp_path / "gone"), "rw"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: parts)
    found = Found()
    sensors.filesystems(found)
    (only,) = found.readings
    assert only.attributes == {"system.filesystem.mountpoint": str(tmp_path)}
    assert only.value == pytest.approx(psutil.disk_usage(str(tmp_path)).percent / 100, abs=0.01)
    assert list(found.broken) == [f"system.filesystem.utilization {tmp_path / 'gone'}"]


def test_share_of_the_processors_is_that_of_the_time_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = type(psutil.cpu_times())
    fields = kind._fields

    def at(user: float, idle: float, iowait: float, guest: float) -> Any:
        given = {"user": user, "idle": idle, "iowait": iowait, "guest": guest}
        return kind(**{name: given.get(name, 0.0) for name in fields})

    rounds = iter([at(10, 20, 0, 0), at(16, 22, 2, 6), at(16, 22, 2, 6)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(rounds))
    cpu, seen = sensors.Cpu(), []
    for _ in range(3):
        found = Found()
        cpu(found)
        seen.append([each.value for each in found.readings])
    assert seen == [[], [pytest.approx(0.6)], []]


@given(st.sampled_from(Name), st.floats())
def test_no_value_outside_its_range_is_sent(name: Name, value: float) -> None:
    found = Found()
    found.add(name, value, hw_id="x")
    _, lowest, highest = KINDS[name]
    fits = math.isfinite(value) and lowest <= value <= highest
    assert bool(found.readings) == fits
    assert bool(found.broken) != fits
