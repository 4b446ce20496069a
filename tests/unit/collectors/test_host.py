"""A host is sent as gauges; what is missing or broken stops nothing."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from threading import Event
from typing import Any, Final

import psutil
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from collectors import sensors
from collectors.host import Host, follow, request_of, sources_of
from collectors.readings import Found, Name, Reading
from tests.process import ROOT
from tests.sink import otlp_sink
from tests.unit.collectors.test_sensors import nvidia_tool, write

RUN_S: Final = 60


@pytest.mark.parametrize("body", ["exit 9", "sleep 60"], ids=["fails", "hangs"])
def test_broken_nvidia_tool_stops_no_other_source_and_is_logged_once(
    tmp_path: Path, body: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "PROGRAM_S", 0.2)
    write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "40000"})
    host = Host(sources_of(tmp_path, nvidia_tool(tmp_path, f"exec {body}")))
    for _ in range(3):
        assert Name.TEMPERATURE in {each.name for each in host.read()}
    assert caplog.text.count("source=NVIDIA") == 1


def test_every_broken_source_is_told_once_and_the_rest_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)

    def fails() -> Any:
        raise NotImplementedError("no such thing here")

    monkeypatch.setattr(psutil, "virtual_memory", fails)
    zone = tmp_path / "sys/class/thermal"
    write(
        zone,
        {
            "thermal_zone0/temp": "rain\n",
            "thermal_zone1/temp": "999999999\n",
            "thermal_zone2/temp": "51000\n",
        },
    )
    (zone / "thermal_zone3/temp").mkdir(parents=True)  # reading it fails as a dead sensor does
    host = Host(sources_of(tmp_path))
    for _ in range(3):
        read = host.read()
    degrees = [each.value for each in read if each.name is Name.TEMPERATURE]
    assert degrees == [51.0]
    assert Name.MEMORY not in {each.name for each in read}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 4
    for said in ("source=memory", "not a number", "out of range", "thermal_zone3"):
        assert sum(said in message for message in messages) == 1


def test_nothing_is_said_about_what_is_not_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(sources_of(tmp_path))
    host.read()
    names = {each.name for each in host.read()}
    assert names <= {
        Name.CPU,
        Name.MEMORY,
        Name.FILESYSTEM,
        Name.CHARGE,
        Name.ON_BATTERY,
    }
    assert caplog.records == []


def test_a_battery_that_gives_power_speaks_alone() -> None:
    def battery(found: Found) -> None:
        found.add(Name.POWER, 9.0, hw_id="BAT0", hw_type="battery")

    def card(found: Found) -> None:
        found.add(Name.POWER, 5.0, hw_id="card0", hw_type="gpu")

    both = Host({"battery": battery, "card": card}).read()
    assert [(each.name, each.value) for each in both] == [(Name.POWER, 9.0)]
    assert [each.value for each in Host({"card": card}).read()] == [5.0]


def test_request_has_names_units_and_resource() -> None:
    readings = [Reading(name=name, value=1.0, attributes={"hw.id": "a"}) for name in Name]
    readings.append(Reading(name=Name.POWER, value=2.0, attributes={"hw.id": "b"}))
    request = request_of(readings, device="cam-7", host="dock", time_ns=5)
    (metrics,) = request.resource_metrics
    resource = {pair.key: pair.value.string_value for pair in metrics.resource.attributes}
    assert resource == {"device.id": "cam-7", "host.name": "dock", "service.name": "weir-host"}
    found = {each.name: each for each in metrics.scope_metrics[0].metrics}
    assert {name: each.unit for name, each in found.items()} == {
        "system.cpu.utilization": "1",
        "system.memory.utilization": "1",
        "system.filesystem.utilization": "1",
        "hw.gpu.utilization": "1",
        "hw.gpu.memory.utilization": "1",
        "hw.temperature": "Cel",
        "hw.power": "W",
        "hw.battery.charge": "1",
        "edgeai.power.on_battery": "1",
        "edgeai.thermal.throttled": "1",
        "edgeai.thermal.limit": "Cel",
    }
    points = found["hw.power"].gauge.data_points
    assert [(point.as_double, point.time_unix_nano) for point in points] == [(1.0, 5), (2.0, 5)]


def test_rounds_end_when_asked() -> None:
    stop = Event()
    taken: list[int] = []

    def take() -> None:
        taken.append(len(taken))
        if len(taken) == 3:
            stop.set()

    follow(take, 0.001, stop)
    assert taken == [0, 1, 2]
    stop.clear()
    follow(lambda: taken.append(9), 60.0, stop, times=1)
    assert taken[-1] == 9


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "collectors.host", *arguments],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def test_command_prints_what_it_would_send(tmp_path: Path) -> None:
    write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "40000"})
    done = command("--once", "--json", "--device-id", "cam-7", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    request = json_format.ParseDict(json.loads(done.stdout), ExportMetricsServiceRequest())
    names = {each.name for each in request.resource_metrics[0].scope_metrics[0].metrics}
    assert {"system.cpu.utilization", "hw.temperature"} <= names


def test_command_sends_once(tmp_path: Path) -> None:
    with otlp_sink() as sink:
        done = command("--once", "--endpoint", sink.http_url, "--device-id", "cam-7")
        assert done.returncode == 0, done.stderr
        assert sink.data_points()
        assert sink.contains(b"cam-7")


def test_command_says_what_to_write_instead() -> None:
    done = command("--endpoint", "http://10.0.0.7:4318")
    assert done.returncode == 2
    assert "write https://, or --insecure" in done.stderr
