"""The emulated fleet against real OTLP receivers on free ports."""

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collectors.fleet import Fleet
from collectors.fleet.__main__ import main
from collectors.fleet.scenario import BAD_RELEASE, DRIFTED, HEALTHY, assign, draw

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TIMEOUT_S = 10.0


class Sink:
    """OTLP/gRPC and OTLP/HTTP receivers that keep what they get."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.more = threading.Condition()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(
            self.export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        service, method = EXPORT.strip("/").split("/")
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
        self.grpc = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.http = ""

    def keep(self, transport: str, request: ExportTraceServiceRequest) -> None:
        with self.more:
            self.requests.append((transport, request))
            self.more.notify_all()

    def export(self, request: ExportTraceServiceRequest, _: object) -> ExportTraceServiceResponse:
        self.keep("grpc", request)
        return ExportTraceServiceResponse()

    async def post(self, request: web.Request) -> web.Response:
        self.keep("http", ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(content_type="application/x-protobuf")

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        app = web.Application()
        app.router.add_post("/v1/traces", self.post)
        runner = web.AppRunner(app)
        self.loop.run_until_complete(runner.setup())
        self.loop.run_until_complete(web.TCPSite(runner, "127.0.0.1", 0).start())
        self.http = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())
        self.loop.close()

    def spans(self) -> Iterator[tuple[str, str, dict[str, object]]]:
        """Walk (transport, device, attributes) of all spans."""
        with self.more:
            requests = list(self.requests)
        for transport, request in requests:
            for resource in request.resource_spans:
                named = {one.key: one.value for one in resource.resource.attributes}
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        yield (
                            transport,
                            named["device.id"].string_value,
                            {
                                one.key: getattr(one.value, one.value.WhichOneof("value") or "")
                                for one in span.attributes
                            },
                        )

    def wait_for_spans(self, count: int) -> None:
        with self.more:
            assert self.more.wait_for(lambda: len(list(self.spans())) >= count, TIMEOUT_S)

    def start(self) -> "Sink":
        self.server.start()
        self.thread.start()
        assert self.ready.wait(TIMEOUT_S)
        return self

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(TIMEOUT_S)
        self.server.stop(0).wait(TIMEOUT_S)


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink().start()
    yield made
    made.stop()


def make_fleet(sink: Sink, directory: Path, seed: int = 7) -> Fleet:
    return Fleet(
        sink.grpc,
        sink.http,
        4,
        seed,
        50.0,
        directory,
        export_delay_s=0.05,
        segments=4,
        segment_bytes=65_536,
    )


def test_every_root_arrives_once_over_both_transports(sink: Sink, tmp_path: Path) -> None:
    fleet = make_fleet(sink, tmp_path)
    fleet.start()
    sink.wait_for_spans(40)
    counts = fleet.stop()
    seen = list(sink.spans())
    assert counts.spans_exported == counts.inferences == len(seen)
    assert counts.spans_recorded == 4 * counts.inferences
    assert (counts.spans_failed, counts.null_records) == (0, 0)
    assert {device: transport for transport, device, _ in seen} == {
        "dock-cam-000": "grpc",
        "dock-cam-001": "http",
        "dock-cam-002": "grpc",
        "dock-cam-003": "http",
    }
    assert all(one["edgeai.model.name"] == "damage-net" for _, _, one in seen)
    assert all(str(one["edgeai.provenance.pointer"]).startswith("ring:") for _, _, one in seen)
    assert fleet.stop() == counts


def test_the_ring_of_each_device_holds_the_full_traces(sink: Sink, tmp_path: Path) -> None:
    fleet = make_fleet(sink, tmp_path)
    device = fleet.devices[0]
    device.infer()
    assert device.flush()
    (entries,) = device.ring.find_written(0, (1 << 63) - 1).values()
    traces = TracesData.FromString(device.ring.read(entries[0]))
    spans = traces.resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == [
        "preprocess",
        "inference",
        "postprocess",
        "inference",
    ]
    assert all(len(span.events) == 1 for span in spans[:3])
    fleet.stop()


def test_a_seed_gives_the_same_traces_again(sink: Sink, tmp_path: Path) -> None:
    drawn = []
    for directory in ("a", "b"):
        fleet = make_fleet(sink, tmp_path / directory)
        for device in fleet.devices:
            device.infer()
        assert fleet.flush()
        drawn.append(
            [
                (key, sorted(device.ring.find_written(0, (1 << 63) - 1)))
                for key, device in enumerate(fleet.devices)
            ]
        )
        fleet.stop()
    assert drawn[0] == drawn[1]


def test_the_drift_phase_changes_the_chosen_devices_only(sink: Sink, tmp_path: Path) -> None:
    fleet = make_fleet(sink, tmp_path)
    fleet.phase("drift")
    conditions = {device.name: device.conditions for device in fleet.devices}
    assert Counter(conditions.values()) == {HEALTHY: 1, DRIFTED: 2, BAD_RELEASE: 1}
    assert set(fleet.troubled()) == {name for name, one in conditions.items() if one is not HEALTHY}
    fleet.phase("healthy")
    assert all(device.conditions is HEALTHY for device in fleet.devices)
    fleet.stop()


def test_the_budget_is_refused_when_exceeded(sink: Sink, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="budget"):
        Fleet(sink.grpc, sink.http, 100, 1, 100.0, tmp_path)


def test_distributions_are_what_the_scenario_says() -> None:
    rng = random.Random(3)
    healthy = [draw(HEALTHY, rng) for _ in range(4000)]
    drifted = [draw(DRIFTED, rng) for _ in range(4000)]
    bad = [draw(BAD_RELEASE, rng) for _ in range(4000)]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    assert mean([one.confidence for one in healthy]) == pytest.approx(0.8, abs=0.01)
    assert mean([one.confidence for one in drifted]) == pytest.approx(5 / 9, abs=0.01)
    assert mean([one.brightness for one in drifted]) < mean([one.brightness for one in healthy])
    assert mean([one.label == "wet" for one in drifted]) > 0.2
    assert mean([one.failed for one in healthy]) < 0.001
    assert mean([one.failed for one in bad]) == pytest.approx(0.08, abs=0.02)
    assert mean([one.duration_ns > 100e6 for one in healthy]) < 0.001
    assert mean([one.duration_ns > 100e6 for one in bad]) > 0.3
    assert {one.version for one in bad} == {"1.5.0"}


def test_devices_are_assigned_by_seed_and_never_twice() -> None:
    assert assign(20, 1, 0.4, 0.2) == assign(20, 1, 0.4, 0.2)
    assert Counter(assign(20, 2, 0.9, 0.9)) == {DRIFTED: 18, BAD_RELEASE: 2}


def test_the_command_line_prints_the_counts(
    sink: Sink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--grpc", sink.grpc, "--http", sink.http, "--devices", "2", "--rate", "50"]
    arguments += ["--seconds", "0.2", "--drift-after", "0.1", "--ring-dir", str(tmp_path)]
    assert main(arguments) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["inferences"] == counts["spans_exported"] > 0
    assert main(["--devices", "5000"]) == 1
