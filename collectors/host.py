"""Send how a host is as OTLP gauges: `python -m collectors.host --help`.

Law: what the system does not show is not sent. A source that is missing or broken stops no other
and is logged once. A round costs a few dozen small reads and holds no state but the last counters.
"""

import logging
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import Annotated, Final

import psutil
import typer
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, NumberDataPoint

from collectors import sensors
from collectors.client import Client
from collectors.messages import key_value, resource_of, scope_of
from collectors.options import (
    BUFFER_DEFAULT,
    DRAIN_DEFAULT,
    BufferBytesOption,
    BufferOption,
    CaOption,
    CertOption,
    DrainOption,
    EndpointOption,
    HeaderOption,
    InsecureOption,
    KeyOption,
    ProtocolOption,
    TokenOption,
    access_of,
    duration_s,
    log_to_stderr,
    refusing,
    stop_on_signals,
)
from collectors.readings import KINDS, Found, Name, Reading
from collectors.transport import WireProtocol

logger = logging.getLogger(__name__)

SERVICE: Final = "weir-host"
SCOPE: Final = "collectors.host"
NVIDIA: Final = "nvidia-smi"
# Between the round that only reads counters and the first one that is sent.
WARM_UP_S: Final = 0.5
TOLD_MAX: Final = 1_024
# What a source may meet on a machine that nobody has seen before.
FAILURES: Final = (
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    psutil.Error,
    subprocess.SubprocessError,
)

Source = Callable[[Found], None]


def sources_of(root: Path = Path("/"), nvidia: str | None = None) -> dict[str, Source]:
    """Name all sources. `root` is where the tree of the system begins."""
    found: dict[str, Source] = {
        "processors": sensors.Cpu(),
        "memory": sensors.memory,
        "file systems": sensors.filesystems,
        "graphics": partial(sensors.graphics, root=root),
        "embedded graphics": partial(sensors.embedded_graphics, root=root),
        "monitors": partial(sensors.monitors, root=root),
        "thermal zones": partial(sensors.zones, root=root),
        "throttling": sensors.CpuThrottle(root),
    }
    if (root / "sys/class/power_supply").is_dir():
        found["power supplies"] = partial(sensors.supplies, root=root)
    elif hasattr(psutil, "sensors_battery"):
        found["battery"] = sensors.battery
    if nvidia is not None:
        found["NVIDIA"] = partial(sensors.nvidia, program=nvidia)
    return found


class Host:
    """The sources of one host, and what was said about them."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = dict(sources)
        self._told: set[str] = set()

    def read(self) -> list[Reading]:
        """Ask all sources once."""
        found = Found()
        for name, source in self._sources.items():
            try:
                source(found)
            except FAILURES as error:
                found.broken[name] = f"{type(error).__name__}: {error}"
        self._tell(found.broken)
        return _powers(found.readings)

    def _tell(self, broken: Mapping[str, str]) -> None:
        for what, why in broken.items():
            if what not in self._told and len(self._told) < TOLD_MAX:
                self._told.add(what)
                logger.warning("a source is broken and is left out; source=%s why=%s", what, why)


def _powers(readings: list[Reading]) -> list[Reading]:
    """Let a battery speak alone: what it gives is what all the others take."""
    powers = [each for each in readings if each.name is Name.POWER]
    batteries = [each for each in powers if each.attributes.get("hw.type") == "battery"]
    if not batteries or len(batteries) == len(powers):
        return readings
    return [each for each in readings if each.name is not Name.POWER or each in batteries]


def request_of(
    readings: Iterable[Reading], *, device: str, host: str, time_ns: int
) -> ExportMetricsServiceRequest:
    """Put readings into one OTLP request, one gauge for each name. Units: Unix nanoseconds."""
    points: dict[Name, list[NumberDataPoint]] = {}
    for each in readings:
        points.setdefault(each.name, []).append(
            NumberDataPoint(
                time_unix_nano=time_ns,
                as_double=each.value,
                attributes=[key_value(key, text) for key, text in each.attributes.items()],
            )
        )
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add(
        resource=resource_of({"device.id": device, "host.name": host, "service.name": SERVICE})
    )
    metrics.scope_metrics.add(
        scope=scope_of(SCOPE),
        metrics=[
            Metric(name=name, unit=KINDS[name][0], gauge=Gauge(data_points=found))
            for name, found in points.items()
        ],
    )
    return request


def follow(
    take: Callable[[], None], interval_s: float, stop: Event, *, times: int | None = None
) -> None:
    """Call at even times until stopped; what was missed is not made up for."""
    due_s = time.monotonic()
    while times is None or times > 0:
        if stop.wait(max(0.0, due_s - time.monotonic())):
            return
        take()
        times = None if times is None else times - 1
        due_s = max(due_s + interval_s, time.monotonic())


cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def main(
    endpoint: EndpointOption = None,
    interval: Annotated[
        float,
        typer.Option("--interval", metavar="TIME", parser=duration_s, help="How often, like 15s."),
    ] = "15s",  # type: ignore[assignment]  # typer parses the default as it parses what is written
    device_id: Annotated[
        str | None,
        typer.Option("--device-id", help="The device that this host is; else the host's name."),
    ] = None,
    protocol: ProtocolOption = WireProtocol.HTTP,
    header: HeaderOption = None,
    token_file: TokenOption = None,
    ca: CaOption = None,
    cert: CertOption = None,
    key: KeyOption = None,
    insecure: InsecureOption = False,
    buffer: BufferOption = None,
    buffer_size: BufferBytesOption = BUFFER_DEFAULT,  # type: ignore[assignment]  # parsed
    drain: DrainOption = DRAIN_DEFAULT,  # type: ignore[assignment]  # parsed
    once: Annotated[bool, typer.Option("--once", help="Read and send once, then end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what would be sent as OTLP/JSON; send nothing.")
    ] = False,
    root: Annotated[
        Path, typer.Option("--root", hidden=True, help="Where the system's tree begins.")
    ] = Path("/"),
) -> None:
    """Send processors, memory, file systems, accelerators, heat and power of this host as OTLP.

    What the system does not show is not sent. Exit code 0, 1 when something was not delivered, 2
    for options that cannot be used.
    """
    log_to_stderr()
    name = socket.gethostname()
    host = Host(sources_of(root, shutil.which(NVIDIA)))

    def request() -> ExportMetricsServiceRequest:
        return request_of(host.read(), device=device_id or name, host=name, time_ns=time.time_ns())

    stop = stop_on_signals()
    client: Client | None = None
    if not as_json:
        with refusing():
            access = access_of(
                endpoint,
                protocol=protocol,
                header=header,
                token_file=token_file,
                ca=ca,
                cert=cert,
                key=key,
                insecure=insecure,
            )
            client = Client(access, buffer_bytes_max=buffer_size, buffer_dir=buffer)

    def take() -> None:
        made = request()
        if client is None:
            show(made, indent=2 if once else None)
        elif made.resource_metrics[0].scope_metrics[0].metrics:
            client.send(made)

    # Counters say something only from the second time on.
    host.read()
    if not stop.wait(WARM_UP_S):
        follow(take, interval, stop, times=1 if once else None)
    if client is not None:
        counts = client.close(drain)
        if counts.lost or counts.waiting:
            raise typer.Exit(1)


def show(request: ExportMetricsServiceRequest, *, indent: int | None) -> None:
    """Print a request as OTLP/JSON."""
    sys.stdout.write(f"{json_format.MessageToJson(request, indent=indent)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    cli()
