"""The small site that is run, cut off and recovered: its configuration and its groups."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.batch import Payload, Signal
from gateway.config import (
    ForwardSection,
    OtlpSection,
    SamplingSection,
    SiteConfig,
    StoreSection,
)
from gateway.contract.load import load_contracts
from gateway.contract.plan import Plan, compile_plan
from tests.flow.load import fill_inference, new_resource
from tests.oracle import payload

DESTINATION: Final = "cloud"
EXAMPLE: Final = Path(__file__).resolve().parents[2] / "gateway/contract/examples/damage-net.yaml"
REQUESTS: Final = 2
SPANS: Final = 8  # of a request
ROWS: Final = REQUESTS * SPANS  # of a group
LOGS: Final = 3  # of a group
SEAL_ROWS: Final = 3 * ROWS


def make_config(data_dir: Path) -> SiteConfig:
    """Make a site that seals every third group; below what a site file may say."""
    config = SiteConfig(
        data_dir=data_dir,
        store=StoreSection(segment_age=3600.0),
        sampling=SamplingSection(rate=0.4),
        forward=(
            ForwardSection(name=DESTINATION, otlp=OtlpSection(endpoint="http://127.0.0.1:1")),
        ),
    )
    store = config.store.model_copy(update={"segment_rows": SEAL_ROWS})
    return config.model_copy(update={"store": store})


def make_plan(config: SiteConfig) -> Plan:
    """Compile the example contract."""
    return compile_plan(load_contracts([EXAMPLE]), config.sampling)


def requests_of(number: int, now_ns: int) -> list[Payload]:
    """Make the requests of one group; the same for the same arguments."""
    rng = random.Random(number)
    arrival_ns = now_ns + number * 1_000_000_000
    made = []
    for index in range(REQUESTS):
        request = ExportTraceServiceRequest()
        scope = new_resource(request, f"cam-{index}").scope_spans.add()
        for row in range(SPANS):
            span = scope.spans.add()
            fill_inference(span, rng, number * 1_000 + index * 100 + row + 1)
            span.end_time_unix_nano = arrival_ns
            span.start_time_unix_nano = arrival_ns - 5_000_000
        made.append(payload(request.SerializeToString(), arrival_ns=arrival_ns))
    logs = ExportLogsServiceRequest()
    scope_logs = logs.resource_logs.add().scope_logs.add()
    for _ in range(LOGS):
        scope_logs.log_records.add().body.string_value = "text"
    of_logs = payload(logs.SerializeToString(), arrival_ns=arrival_ns)
    made.append(replace(of_logs, signal=Signal.LOGS))
    return made
