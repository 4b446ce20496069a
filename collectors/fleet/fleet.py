"""An emulated, seeded fleet: N devices that send, drift and answer like real ones.

Law: one thread draws inferences for all devices on a fixed schedule, one writes rings, one serves
uplinks; each device has its own SDK, exporter, connection and ring.

Budget: an inference is four spans. Creating, recording and exporting one span costs about 0.2 ms of
one core (2-core virtual machine, 20 devices at 10 inferences a second: 800 spans/s in 0.18 of a
core, the receiving end included). More than SPANS_PER_SECOND_MAX is refused.
"""

import heapq
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcExporter,
)
from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
    OTLPSpanExporter as HttpExporter,
)
from opentelemetry.sdk.trace.export import SpanExporter

from collectors.device.recorder import RingWriter
from collectors.device.serving import UplinkThread
from collectors.fleet.device import SPANS_PER_TRACE, DeviceOptions, EmulatedDevice
from collectors.fleet.scenario import HEALTHY, Phase, assign

SPANS_PER_SECOND_MAX: Final = 4_000.0
DEVICES_MAX: Final = 1_000
SEGMENTS: Final = 16
SEGMENT_BYTES: Final = 256 * 1024
EXPORT_DELAY_S: Final = 1.0
EXPORT_TIMEOUT_S: Final = 10.0
# Behind by more than this, the schedule moves on and says so, instead of catching up in a burst.
BEHIND_MAX_S: Final = 1.0
STOP_TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCounts:
    """What the fleet did; spans_exported were acknowledged by the gateway."""

    inferences: int
    skipped: int
    spans_recorded: int
    spans_exported: int
    spans_failed: int
    null_records: int
    commands: int
    chunks: int


class Fleet:
    """N devices. `endpoint_grpc` is host:port, `endpoint_http` a base URL.

    Units: rate_per_device in inferences per second; shares of all devices.
    """

    def __init__(
        self,
        endpoint_grpc: str,
        endpoint_http: str,
        devices: int,
        seed: int,
        rate_per_device: float,
        ring_dir: Path,
        *,
        drift_share: float = 0.4,
        bad_share: float = 0.2,
        export_delay_s: float = EXPORT_DELAY_S,
        segments: int = SEGMENTS,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Build all devices.

        Raises ValueError when the budget is exceeded, StartError when a ring cannot be made.
        """
        spans_per_second = devices * rate_per_device * SPANS_PER_TRACE
        if not 0 < devices <= DEVICES_MAX or not 0 < spans_per_second <= SPANS_PER_SECOND_MAX:
            raise ValueError(
                f"{devices} devices and {spans_per_second:g} spans/s are outside the budget of"
                f" {DEVICES_MAX} devices and {SPANS_PER_SECOND_MAX:g} spans/s"
            )
        self._period_s = 1.0 / rate_per_device
        self._troubled = assign(devices, seed, drift_share, bad_share)
        self._writer = RingWriter(clock)
        self.devices: Sequence[EmulatedDevice] = [
            EmulatedDevice(
                DeviceOptions(
                    name=f"dock-cam-{index:03d}",
                    index=index,
                    seed=seed,
                    directory=ring_dir / f"dock-cam-{index:03d}",
                    endpoint_http=endpoint_http,
                    export_delay_s=export_delay_s,
                    segments=segments,
                    segment_bytes=segment_bytes,
                ),
                _exporter(endpoint_grpc if index % 2 == 0 else None, endpoint_http),
                self._writer,
                clock,
            )
            for index in range(devices)
        ]
        self._uplinks = UplinkThread([device.uplink for device in self.devices])
        self._stop = threading.Event()
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
        self._skipped = 0
        self._closed = False

    def start(self) -> None:
        """Begin to infer and to serve the uplinks."""
        self._running.set()
        self._uplinks.start()
        self._thread.start()

    def phase(self, name: str) -> None:
        """Change what the fleet is going through: "healthy" or "drift"."""
        troubled = Phase(name) is Phase.DRIFT
        for device, conditions in zip(self.devices, self._troubled, strict=True):
            device.conditions = conditions if troubled else HEALTHY

    def pause(self) -> None:
        """Stop to infer and export what there is; the uplinks stay."""
        self._running.clear()
        self.flush()

    def resume(self) -> None:
        """Go on after a pause."""
        self._running.set()

    def flush(self) -> bool:
        """Write and export everything recorded so far."""
        done = [device.flush() for device in self.devices]
        return all(done)

    def troubled(self) -> dict[str, str]:
        """Name the devices that phase "drift" changes: "drift" or the bad version."""
        return {
            device.name: "drift" if conditions.version == HEALTHY.version else conditions.version
            for device, conditions in zip(self.devices, self._troubled, strict=True)
            if conditions is not HEALTHY
        }

    def counts(self) -> FleetCounts:
        """Sum up all devices."""
        return FleetCounts(
            inferences=sum(device.inferences for device in self.devices),
            skipped=self._skipped,
            spans_recorded=sum(device.recorder.counts.spans for device in self.devices),
            spans_exported=sum(device.exporter.taken for device in self.devices),
            spans_failed=sum(device.exporter.failed for device in self.devices),
            null_records=sum(device.recorder.counts.null_records for device in self.devices),
            commands=sum(device.uplink.counts.commands for device in self.devices),
            chunks=sum(device.uplink.counts.chunks for device in self.devices),
        )

    def stop(self) -> FleetCounts:
        """End everything in order and return the final counts; safe to call twice."""
        self._stop.set()
        self._running.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)
        if not self._closed:
            self._closed = True
            self._uplinks.stop()
            for device in self.devices:
                device.close()
            self._writer.stop()
        return self.counts()

    def _run(self) -> None:
        """Let each device infer at its own even pace, spread over the period."""
        count = len(self.devices)
        begin_s = time.monotonic()
        due = [(begin_s + self._period_s * index / count, index) for index in range(count)]
        while not self._stop.is_set():
            at_s, index = due[0]
            now_s = time.monotonic()
            if now_s < at_s:
                self._stop.wait(at_s - now_s)
                continue
            if now_s - at_s > BEHIND_MAX_S:
                if self._running.is_set():
                    self._skipped += 1
            elif self._running.is_set():
                self.devices[index].infer()
            heapq.heapreplace(due, (at_s + self._period_s, index))


def _exporter(grpc: str | None, http: str) -> SpanExporter:
    if grpc is not None:
        return GrpcExporter(endpoint=grpc, insecure=True, timeout=EXPORT_TIMEOUT_S)
    return HttpExporter(endpoint=f"{http}/v1/traces", timeout=EXPORT_TIMEOUT_S)
