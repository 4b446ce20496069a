"""Read who is heard in a parcel of metrics or logs, and how its host is.

Law: one Heard per resource, in the order of the body; the bytes of all add up to those of the body.
A reading is taken only when its value is finite, in the unit and in the range of its kind; any
other is counted as invalid. What is not a reading of the closed list costs a look-up of its name
and the times of its first and last point: exporters write in the order of time, and to look at all
points would cost more than all else together.
Where a host has several parts, the reading is that of the part in the worst state: the fullest
file system, the busiest GPU, the least charged battery, the sensor that is nearest to its own
limit. CPUs are averaged and powers added, because one busy core is no busy host.
Source: OpenTelemetry semantic conventions for system and hardware metrics. A battery in use is
`hw.status` of type battery in state discharging. They have no names for what `edgeai.power.
on_battery` and `edgeai.thermal.throttled` say; `edgeai.thermal.limit` is for hosts that know one
limit, not that of a sensor (`hw.temperature.limit`).
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import DataPointFlags, Metric

from gateway.batch import Parcel, Signal

DEVICE_KEY: Final = "device.id"
INSTANCE_KEY: Final = "service.instance.id"


class Reading(IntEnum):
    """What is read of a host. Units: shares in [0, 1], degrees Celsius, watts, 0 or 1."""

    CPU = 0
    MEMORY = 1
    FILESYSTEM = 2
    GPU = 3
    GPU_MEMORY = 4
    TEMPERATURE = 5
    TEMPERATURE_LIMIT = 6
    POWER = 7
    BATTERY_CHARGE = 8
    ON_BATTERY = 9
    THROTTLED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One resource of a parcel.

    `device` is the authenticated sender, else device.id, else service.instance.id, else empty.
    Units: newest_ns Unix nanoseconds of the newest item, of the first and last one of each metric
    or scope, 0 when none has a time; items and invalid are counts; bytes of the body.
    """

    device: str
    newest_ns: int
    items: int
    bytes: int
    readings: Mapping[Reading, float] = field(default_factory=dict)
    invalid: int = 0


@dataclass(frozen=True, slots=True)
class _Rule:
    reading: Reading
    lowest: float
    highest: float
    unit: str


def _share(reading: Reading) -> _Rule:
    return _Rule(reading, 0.0, 1.0, "1")


# The ranges are wider than any device is; what lies outside is a broken sensor or another unit.
_CELSIUS: Final = (-100.0, 300.0, "Cel")
_WATTS: Final = (0.0, 100_000.0, "W")
_RULES: Final[Mapping[str, _Rule]] = {
    "system.cpu.utilization": _share(Reading.CPU),
    "system.memory.utilization": _share(Reading.MEMORY),
    "system.filesystem.utilization": _share(Reading.FILESYSTEM),
    "hw.gpu.utilization": _share(Reading.GPU),
    "hw.gpu.memory.utilization": _share(Reading.GPU_MEMORY),
    "hw.temperature": _Rule(Reading.TEMPERATURE, *_CELSIUS),
    "hw.temperature.limit": _Rule(Reading.TEMPERATURE_LIMIT, *_CELSIUS),
    "edgeai.thermal.limit": _Rule(Reading.TEMPERATURE_LIMIT, *_CELSIUS),
    "hw.power": _Rule(Reading.POWER, *_WATTS),
    "hw.battery.charge": _share(Reading.BATTERY_CHARGE),
    "hw.status": _share(Reading.ON_BATTERY),
    "edgeai.power.on_battery": _share(Reading.ON_BATTERY),
    "edgeai.thermal.throttled": _share(Reading.THROTTLED),
}
_FLAGS: Final = frozenset({Reading.ON_BATTERY, Reading.THROTTLED})
# The state or mode of a share, under its name now and the one that collectors still send.
_STATE_KEYS: Final[Mapping[Reading, tuple[str, ...]]] = {
    Reading.CPU: ("cpu.mode", "system.cpu.state", "state"),
    Reading.MEMORY: ("system.memory.state", "state"),
    Reading.FILESYSTEM: ("system.filesystem.state", "state"),
}
_IDLE: Final = frozenset({"idle", "iowait"})
_USED: Final = "used"
_READ_ONLY: Final = "ro"
_LOW_LIMIT: Final = "low."
_NUMBERS: Final = frozenset({"gauge", "sum"})

_Texts = Mapping[str, str]
# The part of the host that a point is about: its id, and its state if it has one.
_Part = tuple[str, str]


def heard(parcel: Parcel) -> tuple[Heard, ...]:
    """List who is heard in a parcel."""
    resources: list[Any]
    if parcel.signal is Signal.LOGS:
        resources = list(ExportLogsServiceRequest.FromString(parcel.body).resource_logs)
    else:
        resources = list(ExportMetricsServiceRequest.FromString(parcel.body).resource_metrics)
    read = _logs if parcel.signal is Signal.LOGS else _metrics
    found = [read(each) for each in resources]
    sizes = _apportioned(len(parcel.body), [each.ByteSize() for each in resources])
    return tuple(
        Heard(
            device=parcel.identity or _device(each.resource.attributes),
            newest_ns=newest_ns,
            items=items,
            bytes=size,
            readings={} if host is None else host.readings(),
            invalid=0 if host is None else host.invalid,
        )
        for each, size, (newest_ns, items, host) in zip(resources, sizes, found, strict=True)
    )


def _apportioned(total: int, sizes: list[int]) -> list[int]:
    """Share out a total by sizes, in whole numbers that add up to it."""
    whole = max(1, sum(sizes))
    shares, before, seen = [], 0, 0
    for size in sizes:
        seen += size
        after = total * seen // whole
        shares.append(after - before)
        before = after
    return shares


def _device(attributes: Iterable[KeyValue]) -> str:
    named: dict[str, list[KeyValue]] = {DEVICE_KEY: [], INSTANCE_KEY: []}
    for pair in attributes:
        if pair.key in named:
            named[pair.key].append(pair)
    for pairs in named.values():
        # A key that occurs twice is absent, as it is of a span.
        if len(pairs) == 1 and pairs[0].value.string_value:
            return pairs[0].value.string_value
    return ""


def _logs(resource: Any) -> tuple[int, int, "_Host | None"]:
    newest_ns, items = 0, 0
    for scope in resource.scope_logs:
        records = scope.log_records
        items += len(records)
        for record in (records[0], records[-1]) if records else ():
            newest_ns = max(newest_ns, record.time_unix_nano or record.observed_time_unix_nano)
    return newest_ns, items, None


def _metrics(resource: Any) -> tuple[int, int, "_Host | None"]:
    newest_ns, items = 0, 0
    host: _Host | None = None
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            kind = metric.WhichOneof("data")
            if kind is None:
                continue
            points = getattr(metric, kind).data_points
            items += len(points)
            if points:
                ends = points[0].time_unix_nano, points[-1].time_unix_nano
                newest_ns = max(newest_ns, *ends)
            rule = _RULES.get(metric.name)
            if rule is not None:
                host = host or _Host()
                host.take(metric, rule, points if kind in _NUMBERS else None)
    return newest_ns, items, host


class _Host:
    """The newest value of each part of one host."""

    def __init__(self) -> None:
        self.invalid = 0
        self._newest: dict[Reading, dict[_Part, tuple[int, float]]] = {}

    def take(self, metric: Metric, rule: _Rule, points: Any) -> None:
        """Take the points of one metric; None for points that are no numbers."""
        if points is None or metric.unit not in ("", rule.unit):
            self.invalid += max(1, len(points or ()))
            return
        kept = self._newest.setdefault(rule.reading, {})
        for point in points:
            if point.flags & DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK:
                continue
            texts = {pair.key: _plain(pair) for pair in point.attributes}
            part = _maybe_part(metric.name, rule.reading, texts)
            if part is None:
                continue
            value = _number(point)
            fits = rule.lowest <= value <= rule.highest  # false for NaN
            if not fits or (rule.reading in _FLAGS and value not in (0.0, 1.0)):
                self.invalid += 1
            elif point.time_unix_nano >= kept.get(part, (0, 0.0))[0]:
                kept[part] = (point.time_unix_nano, value)

    def readings(self) -> dict[Reading, float]:
        """Sum up the parts of the host."""
        found: dict[Reading, float] = {}
        for reading, parts in self._newest.items():
            values = {part: value for part, (_, value) in parts.items()}
            if not values:
                continue
            if reading is Reading.CPU:
                found[reading] = _busy(values)
            elif reading is Reading.POWER:
                found[reading] = math.fsum(values.values())
            elif reading in (Reading.BATTERY_CHARGE, Reading.TEMPERATURE_LIMIT):
                found[reading] = min(values.values())
            else:
                found[reading] = max(values.values())
        self._nearest_limit(found)
        return found

    def _nearest_limit(self, found: dict[Reading, float]) -> None:
        """Choose the sensor that is nearest to its own limit, where sensors have limits."""
        limits: dict[str, float] = {}
        for (sensor, _), (_, value) in self._newest.get(Reading.TEMPERATURE_LIMIT, {}).items():
            limits[sensor] = min(value, limits.get(sensor, value))
        pairs = [
            (limits.get(sensor, limits.get("", math.inf)), value)
            for (sensor, _), (_, value) in self._newest.get(Reading.TEMPERATURE, {}).items()
        ]
        known = [(limit, value) for limit, value in pairs if limit < math.inf]
        if known:
            limit, value = min(known, key=lambda pair: pair[0] - pair[1])
            found[Reading.TEMPERATURE], found[Reading.TEMPERATURE_LIMIT] = value, limit


def _maybe_part(name: str, reading: Reading, texts: _Texts) -> _Part | None:
    """Name the part of the host; None when the point says something that is not read."""
    if name == "hw.status" and (texts.get("hw.type"), texts.get("hw.state")) != (
        "battery",
        "discharging",
    ):
        return None
    state = next((texts[key] for key in _STATE_KEYS.get(reading, ()) if key in texts), "")
    if reading is Reading.CPU:
        keys: Iterator[str] = iter(("cpu.logical_number", "system.cpu.logical_number", "cpu"))
        return next((texts[key] for key in keys if key in texts), ""), state
    if reading is Reading.MEMORY:
        return ("", "") if state in ("", _USED) else None
    if reading is Reading.FILESYSTEM:
        if state not in ("", _USED) or texts.get("system.filesystem.mode") == _READ_ONLY:
            return None  # a read-only image is always full
        return texts.get("system.filesystem.mountpoint", texts.get("mountpoint", "")), ""
    limit = texts.get("hw.limit_type", "")
    if reading is Reading.TEMPERATURE_LIMIT and limit.startswith(_LOW_LIMIT):
        return None
    return texts.get("hw.id", ""), limit or texts.get("hw.gpu.task", "")


def _busy(values: Mapping[_Part, float]) -> float:
    """Average over CPUs what is not idle; a CPU that does not say how idle it is adds its modes."""
    modes: dict[str, dict[str, float]] = {}
    for (cpu, mode), value in values.items():
        modes.setdefault(cpu, {})[mode] = value
    busy = [
        1 - math.fsum(each[mode] for mode in each if mode in _IDLE)
        if "idle" in each
        else math.fsum(value for mode, value in each.items() if mode not in _IDLE)
        for each in modes.values()
    ]
    return min(1.0, max(0.0, math.fsum(busy) / len(busy)))


def _plain(pair: KeyValue) -> str:
    kind = pair.value.WhichOneof("value")
    return str(pair.value.int_value) if kind == "int_value" else pair.value.string_value


def _number(point: Any) -> float:
    kind = point.WhichOneof("value")
    return float(getattr(point, kind)) if kind is not None else math.nan
