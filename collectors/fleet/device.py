"""One emulated device: real SDK, real exporter, real ring, real uplink; only the camera is missing.

Law: ids and values come from the device's own seeded generator, so that a run can be repeated;
times are those of the machine.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from collectors.device.recorder import RingSpanProcessor, RingWriter
from collectors.device.ring import Ring
from collectors.device.uplink import Uplink, UplinkOptions
from collectors.fleet.scenario import HEALTHY, MODEL_NAME, STAGES, Conditions, Inference, draw

SERVICE_NAME: Final = "dock-vision"
SERVICE_VERSION: Final = "3.2.1"
SPANS_PER_TRACE: Final = 1 + len(STAGES)
EXPORT_QUEUE_SPANS: Final = 8_192
FLUSH_TIMEOUT_MS: Final = 10_000


class SeededIds(IdGenerator):
    """Draw ids from a seeded generator."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def generate_span_id(self) -> int:
        """Draw 64 bits that are not all zero."""
        return self._rng.randrange(1, 1 << 64)

    def generate_trace_id(self) -> int:
        """Draw 128 bits that are not all zero."""
        return self._rng.randrange(1, 1 << 128)

    def is_trace_id_random(self) -> bool:
        """Tell samplers that they may use the id's bits."""
        return True


class CountingExporter(SpanExporter):
    """Pass spans on and count what the gateway took."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.taken = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export one batch."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.taken += len(spans)
        else:
            self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = FLUSH_TIMEOUT_MS) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """What makes one device. Units: export_delay_s is the pause between exports."""

    name: str
    index: int
    seed: int
    directory: Path
    endpoint_http: str
    export_delay_s: float
    segments: int
    segment_bytes: int


class EmulatedDevice:
    """One camera at the dock."""

    def __init__(
        self,
        options: DeviceOptions,
        exporter: SpanExporter,
        writer: RingWriter,
        clock: Callable[[], int],
    ) -> None:
        self.name = options.name
        self.conditions: Conditions = HEALTHY
        self.inferences = 0
        self.exporter = CountingExporter(exporter)
        self._clock = clock
        seeded = f"{options.seed}:{options.index}"
        self._rng = random.Random(seeded)  # noqa: S311 - a scenario, not a secret
        instance = hashlib.sha256(f"instance:{seeded}".encode()).digest()[:16]
        self.ring = Ring(
            options.directory,
            now_ns=clock(),
            segments=options.segments,
            segment_bytes=options.segment_bytes,
        )
        self.recorder = RingSpanProcessor(
            self.ring,
            BatchSpanProcessor(
                self.exporter,
                max_queue_size=EXPORT_QUEUE_SPANS,
                schedule_delay_millis=options.export_delay_s * 1e3,
            ),
            writer,
        )
        self._provider = TracerProvider(
            resource=_resource(options, instance),
            id_generator=SeededIds(
                # A ring that was used before has seen this seed's ids; new ones must differ.
                random.Random(  # noqa: S311 - a scenario, not a secret
                    f"ids:{seeded}:{self.ring.next_sequence}"
                )
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self.recorder)
        self._tracer = self._provider.get_tracer("dock-vision.pipeline", SERVICE_VERSION)
        self.uplink = Uplink(
            self.ring,
            options.directory,
            UplinkOptions(
                endpoint=options.endpoint_http,
                device=options.name,
                instance_uid=instance,
                description={"service.name": SERVICE_NAME, "service.version": SERVICE_VERSION},
            ),
            clock=clock,
        )

    def infer(self) -> None:
        """Look at one parcel: a root span and its three stages, ending now."""
        drawn = draw(self.conditions, self._rng)
        end_ns = self._clock()
        start_ns = end_ns - drawn.duration_ns
        root = self._tracer.start_span(
            "inference",
            kind=SpanKind.SERVER,
            start_time=start_ns,
            attributes={
                "edgeai.model.name": MODEL_NAME,
                "edgeai.model.version": drawn.version,
                "edgeai.inference.confidence": drawn.confidence,
                "edgeai.inference.class": drawn.label,
                "edgeai.inference.cold_start": self.inferences == 0,
                "edgeai.inference.seq": self.inferences,
                "edgeai.input.brightness": drawn.brightness,
                "enduser.id": drawn.operator,
                "edgeai.note": drawn.note,
                "edgeai.accelerator.type": "npu",
            },
        )
        self.inferences += 1
        at_ns = start_ns
        for stage, share in STAGES:
            at_ns = self._stage(root, stage, at_ns, int(drawn.duration_ns * share), drawn)
        if drawn.failed:
            root.set_attribute("error.type", "AcceleratorTimeout")
            root.set_status(Status(StatusCode.ERROR, "accelerator did not answer"))
        root.end(end_ns)

    def flush(self) -> bool:
        """Write and export everything that was recorded."""
        return self._provider.force_flush(FLUSH_TIMEOUT_MS)

    def close(self) -> None:
        """Export what is left and close the ring."""
        self._provider.shutdown()
        self.ring.close()

    def _stage(
        self, root: Span, stage: str, start_ns: int, duration_ns: int, drawn: Inference
    ) -> int:
        span = self._tracer.start_span(
            stage,
            context=set_span_in_context(root),
            start_time=start_ns,
            attributes={"edgeai.stage": stage},
        )
        end_ns = start_ns + duration_ns
        if stage == "preprocess":
            span.add_event("resize", {"width": 640, "height": 480}, start_ns + duration_ns // 2)
        elif stage == "inference":
            span.set_attribute("edgeai.inference.batch_size", 1)
            if drawn.failed:
                span.add_event("exception", {"exception.type": "AcceleratorTimeout"}, end_ns)
                span.set_status(Status(StatusCode.ERROR))
            else:
                span.add_event("scores", {"top": drawn.confidence}, end_ns)
        else:
            span.add_event("label", {"class": drawn.label}, end_ns)
        span.end(end_ns)
        return end_ns


def _resource(options: DeviceOptions, instance: bytes) -> Resource:
    return Resource(
        {
            "device.id": options.name,
            "device.model.name": "DockCam 4",
            "host.arch": "arm64",
            "service.name": SERVICE_NAME,
            "service.version": SERVICE_VERSION,
            "service.instance.id": instance.hex(),
            "edgeai.runtime.name": "tflite",
            "edgeai.runtime.version": "2.19.0",
        }
    )
