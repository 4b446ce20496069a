"""Who is heard in a parcel, and how its host is."""

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, NumberDataPoint

from gateway.batch import Parcel, Signal, Transport
from gateway.otlp.readings import Heard, Reading, heard
from tests.signals import draw
from tests.unit.measure.build import attribute

NOW_NS = 1_900_000_800_000_000_000
MS_NS = 1_000_000

Point = tuple[float, Mapping[str, Any]]


def point(value: float, attributes: Mapping[str, Any] | None = None, at: int = 0) -> Any:
    pairs = [attribute(key, each) for key, each in (attributes or {}).items()]
    made = NumberDataPoint(time_unix_nano=NOW_NS + at, attributes=pairs)
    if isinstance(value, int):
        made.as_int = value
    else:
        made.as_double = value
    return made


def gauge(name: str, *points: Any, unit: str = "") -> Metric:
    metric = Metric(name=name, unit=unit)
    metric.gauge.data_points.extend(points)
    return metric


def metrics(*items: Metric, resource: Mapping[str, Any] | None = None) -> bytes:
    request = ExportMetricsServiceRequest()
    one = request.resource_metrics.add()
    for key, value in (resource or {"device.id": "edge-1"}).items():
        one.resource.attributes.append(attribute(key, value))
    one.scope_metrics.add().metrics.extend(items)
    return request.SerializeToString()


def parcel(body: bytes, signal: Signal = Signal.METRICS, identity: str = "") -> Parcel:
    return Parcel(
        signal=signal,
        transport=Transport.HTTP,
        identity=identity,
        arrival_ns=NOW_NS,
        wire_bytes=len(body),
        held_bytes=len(body),
        items=1,
        body=body,
    )


def of(*items: Metric) -> Heard:
    (found,) = heard(parcel(metrics(*items)))
    return found


@pytest.mark.parametrize(
    ("identity", "resource", "device"),
    [
        ("cert", {"device.id": "d", "service.instance.id": "i"}, "cert"),
        ("", {"device.id": "d", "service.instance.id": "i"}, "d"),
        ("", {"service.instance.id": "i"}, "i"),
        ("", {"device.id": 7, "service.instance.id": "i"}, "i"),
        ("", {"device.id": ""}, ""),
        ("", {"host.name": "h"}, ""),
    ],
)
def test_a_device_is_named_as_that_of_a_span(
    identity: str, resource: Mapping[str, Any], device: str
) -> None:
    (found,) = heard(parcel(metrics(resource=resource), identity=identity))
    assert found.device == device


def test_a_device_id_that_occurs_twice_names_nobody() -> None:
    request = ExportMetricsServiceRequest.FromString(metrics(resource={"device.id": "a"}))
    request.resource_metrics[0].resource.attributes.append(attribute("device.id", "b"))
    assert heard(parcel(request.SerializeToString()))[0].device == ""


@pytest.mark.parametrize("times", [(9, 5, 7), (5, 7, 9), (8, 1, 8)])
def test_the_newer_end_of_the_newest_metric_counts(times: tuple[int, ...]) -> None:
    late = gauge("some.metric", *(point(1.0, at=at) for at in times))
    found = of(gauge("other.metric", point(1.0, at=4)), late)
    assert (found.newest_ns, found.items) == (NOW_NS + max(times), 4)


def test_logs_are_heard_by_their_time_else_by_when_they_were_observed() -> None:
    request = ExportLogsServiceRequest()
    for device, times in (("a", (5, 0)), ("b", (0, 7)), ("c", (0, 0))):
        one = request.resource_logs.add()
        one.resource.attributes.append(attribute("device.id", device))
        record = one.scope_logs.add().log_records.add()
        record.time_unix_nano, record.observed_time_unix_nano = times
    found = heard(parcel(request.SerializeToString(), Signal.LOGS))
    assert [(each.device, each.newest_ns, each.items) for each in found] == [
        ("a", 5, 1),
        ("b", 7, 1),
        ("c", 0, 1),
    ]


@pytest.mark.parametrize("signal", [Signal.METRICS, Signal.LOGS])
def test_items_and_bytes_add_up_to_those_of_the_body(signal: Signal, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        request = draw(rng, signal)
        body = request.SerializeToString()
        found = heard(parcel(body, signal))
        resources = getattr(request, f"resource_{signal.value}")
        assert len(found) == len(resources)
        assert sum(each.bytes for each in found) == (len(body) if resources else 0)
        for each, resource in zip(found, resources, strict=True):
            assert each.items == _items(resource)
            assert all(math.isfinite(value) for value in each.readings.values())


def _items(resource: Any) -> int:
    if resource.DESCRIPTOR.name == "ResourceLogs":
        return sum(len(scope.log_records) for scope in resource.scope_logs)
    return sum(
        len(getattr(metric, kind).data_points)
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if (kind := metric.WhichOneof("data")) is not None
    )


@pytest.mark.parametrize(
    ("name", "unit", "reading"),
    [
        ("system.cpu.utilization", "1", Reading.CPU),
        ("system.memory.utilization", "1", Reading.MEMORY),
        ("system.filesystem.utilization", "1", Reading.FILESYSTEM),
        ("hw.gpu.utilization", "1", Reading.GPU),
        ("hw.gpu.memory.utilization", "1", Reading.GPU_MEMORY),
        ("hw.temperature", "Cel", Reading.TEMPERATURE),
        ("hw.temperature.limit", "Cel", Reading.TEMPERATURE_LIMIT),
        ("edgeai.thermal.limit", "Cel", Reading.TEMPERATURE_LIMIT),
        ("hw.power", "W", Reading.POWER),
        ("hw.battery.charge", "1", Reading.BATTERY_CHARGE),
        ("edgeai.power.on_battery", "1", Reading.ON_BATTERY),
        ("edgeai.thermal.throttled", "1", Reading.THROTTLED),
    ],
)
def test_every_name_is_read_in_its_unit_only(name: str, unit: str, reading: Reading) -> None:
    assert of(gauge(name, point(1.0), unit=unit)).readings == {reading: 1.0}
    assert of(gauge(name, point(1), unit="")).readings == {reading: 1.0}
    other = of(gauge(name, point(1.0), unit="%"))
    assert (other.readings, other.invalid) == ({}, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("system.cpu.utilization", each) for each in (math.nan, math.inf, -0.01, 1.01, 85)),
        *(("hw.temperature", each) for each in (math.nan, -math.inf, -101.0, 301.0)),
        *(("hw.power", each) for each in (-1.0, 1e9)),
        *(("hw.battery.charge", each) for each in (-0.1, 85.0)),
        *(("edgeai.thermal.throttled", each) for each in (0.5, 2, -1)),
        *(("edgeai.power.on_battery", each) for each in (0.5, math.nan)),
    ],
)
def test_what_cannot_be_is_counted_and_not_taken(name: str, value: float) -> None:
    found = of(gauge(name, point(value)))
    assert (found.readings, found.invalid) == ({}, 1)


def test_points_that_are_no_numbers_are_invalid() -> None:
    metric = Metric(name="system.cpu.utilization")
    metric.histogram.data_points.add(count=3)
    assert of(metric).invalid == 1
    assert of(gauge("hw.power", NumberDataPoint(time_unix_nano=NOW_NS))).invalid == 1


def test_a_point_without_a_recorded_value_is_neither_taken_nor_invalid() -> None:
    empty = NumberDataPoint(time_unix_nano=NOW_NS, flags=1)
    found = of(gauge("hw.power", empty))
    assert (found.readings, found.invalid) == ({}, 0)


def test_the_newest_value_of_a_part_counts() -> None:
    found = of(gauge("hw.power", point(5.0, at=2), point(9.0, at=1)))
    assert found.readings == {Reading.POWER: 5.0}


@pytest.mark.parametrize("mode", ["cpu.mode", "system.cpu.state", "state"])
def test_a_cpu_is_busy_with_what_is_not_idle(mode: str) -> None:
    shares = {"user": 0.2, "system": 0.1, "iowait": 0.3, "idle": 0.4}
    points = [point(value, {"cpu": "0", mode: key}) for key, value in shares.items()]
    points += [point(value, {"cpu": "1", mode: key}) for key, value in shares.items()]
    whole = of(gauge("system.cpu.utilization", *points)).readings[Reading.CPU]
    busy = [each for each in points if each.attributes[1].value.string_value != "idle"]
    assert whole == pytest.approx(0.3)
    assert of(gauge("system.cpu.utilization", *busy)).readings[Reading.CPU] == pytest.approx(0.3)


def test_one_busy_core_is_no_busy_host() -> None:
    points = [point(1.0, {"cpu.logical_number": 0}), point(0.0, {"cpu.logical_number": 1})]
    assert of(gauge("system.cpu.utilization", *points)).readings == {Reading.CPU: 0.5}


def test_the_worst_part_speaks_for_the_host() -> None:
    found = of(
        gauge(
            "system.filesystem.utilization",
            point(0.2, {"system.filesystem.mountpoint": "/"}),
            point(0.7, {"system.filesystem.mountpoint": "/data"}),
            point(
                0.9, {"system.filesystem.mountpoint": "/data", "system.filesystem.state": "free"}
            ),
            point(1.0, {"mountpoint": "/snap", "system.filesystem.mode": "ro"}),
        ),
        gauge("hw.gpu.utilization", point(0.1, {"hw.id": "0"}), point(0.8, {"hw.id": "1"})),
        gauge("hw.battery.charge", point(0.9, {"hw.id": "0"}), point(0.3, {"hw.id": "1"})),
        gauge("hw.power", point(3.0, {"hw.id": "0"}), point(4.0, {"hw.id": "1"})),
        gauge(
            "system.memory.utilization", point(0.6, {"state": "used"}), point(0.4, {"state": "x"})
        ),
    )
    assert found.readings == {
        Reading.FILESYSTEM: 0.7,
        Reading.GPU: 0.8,
        Reading.BATTERY_CHARGE: 0.3,
        Reading.POWER: 7.0,
        Reading.MEMORY: 0.6,
    }
    assert found.invalid == 0


def test_the_sensor_nearest_to_its_own_limit_is_shown() -> None:
    found = of(
        gauge("hw.temperature", point(85.0, {"hw.id": "cpu"}), point(72.0, {"hw.id": "disk"})),
        gauge(
            "hw.temperature.limit",
            point(100.0, {"hw.id": "cpu", "hw.limit_type": "high.degraded"}),
            point(70.0, {"hw.id": "disk", "hw.limit_type": "high.degraded"}),
            point(80.0, {"hw.id": "disk", "hw.limit_type": "high.critical"}),
            point(0.0, {"hw.id": "disk", "hw.limit_type": "low.critical"}),
        ),
    )
    assert found.readings == {Reading.TEMPERATURE: 72.0, Reading.TEMPERATURE_LIMIT: 70.0}


def test_one_limit_holds_for_all_sensors() -> None:
    found = of(
        gauge("hw.temperature", point(85.0, {"hw.id": "cpu"}), point(72.0, {"hw.id": "disk"})),
        gauge("edgeai.thermal.limit", point(90.0)),
    )
    assert found.readings == {Reading.TEMPERATURE: 85.0, Reading.TEMPERATURE_LIMIT: 90.0}


def test_a_battery_in_use_is_one_that_discharges() -> None:
    def status(kind: str, state: str, value: int) -> Metric:
        metric = Metric(name="hw.status", unit="1")
        metric.sum.data_points.append(point(value, {"hw.type": kind, "hw.state": state}))
        return metric

    assert of(status("battery", "discharging", 1)).readings == {Reading.ON_BATTERY: 1.0}
    assert of(status("battery", "discharging", 0)).readings == {Reading.ON_BATTERY: 0.0}
    other = of(status("fan", "ok", 1), status("battery", "charging", 1))
    assert (other.readings, other.invalid) == ({}, 0)
