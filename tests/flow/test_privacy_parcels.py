"""A random string in every place of metrics and logs is nowhere in what leaves the gateway.

Law: the needle is in each request and in nothing else: not in a byte of what the sink got, not in
`/metrics`, not in the log. Every item leaves, or it is counted as one that stays.
"""

import gzip
import http.client
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from tests.flow.site import SETTLED_S, site_file, stored_rows
from tests.flow.test_privacy import ANSWER_S, NEEDLE_BYTES, check_nowhere
from tests.ledger_check import Account, check_identity
from tests.otlp import LOGS, METRICS, PROTOBUF, SignalType
from tests.parcels import (
    add_metric,
    add_point,
    add_record,
    attributes_of,
    complete,
    logs,
    metrics,
    put,
    stays,
)
from tests.places import Needles, add_unknown, is_structure, put_at, text_paths
from tests.servers import Gateway, gateway, wait_until
from tests.sink import otlp_sink

pytestmark = pytest.mark.flow

# A metric and an event that the example contract names.
NAME: Final = "edgeai.inference.duration"
UNIT: Final = "s"
EVENT: Final = "edgeai.model.loaded"
PLACES_MIN: Final = {METRICS.name: 130, LOGS.name: 45}

# A request, and how many of its items leave.
Planted = tuple[Any, int]


def by_descriptor(signal: SignalType, needles: Needles) -> Iterator[Planted]:
    """Plant the needle in each string and bytes field of the protocol, and as unknown fields."""
    for path in text_paths(signal.request.DESCRIPTOR):
        if is_structure(path):
            continue
        request = signal.request()
        is_bytes = path[-1].type == path[-1].TYPE_BYTES
        # An exemplar's span id of another size than 8 bytes would be refused at the door.
        raw = needles.raw[:8] if path[-1].name == "span_id" else needles.raw
        put_at(request, path, raw if is_bytes else needles.text.encode())
        complete(request, path, name=NAME, unit=UNIT)
        yield request, 0 if stays(path) else 1
    request = signal.request()
    complete(request, (signal.request.DESCRIPTOR.fields[0],), name=NAME, unit=UNIT)
    add_unknown(request, needles.raw)
    yield request, 1


def logs_by_hand(needles: Needles) -> Iterator[Planted]:
    """Plant the needle where a declared field is near: names, texts, wrong types, two of a key."""
    text = needles.text
    for fields in (
        {"event_name": f"{EVENT} {text}"},
        {"event_name": text},
        {"severity_text": f"INFO {text}"},
        {"span_id": needles.raw[:8]},
    ):
        request = logs()
        add_record(request, **fields)
        yield request, 1
    request = logs()
    record = add_record(request, event_name=EVENT)
    put(record, "edgeai.inference.confidence", text)
    put(record, "edgeai.inference.class", text)
    put(record, "enduser.id", text)
    put(record, "edgeai.note", text)
    put(record, f"edgeai.inference.class.{text}", "ok")
    yield request, 1
    request = logs()
    put(put(add_record(request), "edgeai.input.brightness", 0.5), "edgeai.input.brightness", text)
    yield request, 1
    request = logs(model=f"damage-net-{text}")
    put(put(add_record(request), "edgeai.inference.class", "ok"), text, text)
    yield request, 1


def metrics_by_hand(needles: Needles) -> Iterator[Planted]:
    """Plant the needle where a declared field is near: names, units, dimensions, devices."""
    text = needles.text
    for name, unit in ((f"{NAME}.{text}", UNIT), (NAME, text), (text, text)):
        request = metrics()
        add_point(add_metric(request, name=name, unit=unit))
        yield request, 0
    for key, value in (
        ("edgeai.inference.class", text),
        ("edgeai.inference.confidence", text),
        (f"edgeai.inference.class.{text}", "ok"),
        ("edgeai.note", text),
    ):
        request = metrics()
        put(add_point(add_metric(request, name=NAME, unit=UNIT)), key, value)
        yield request, 0
    request = metrics()
    put(add_point(add_metric(request, name=NAME, unit=UNIT)), "enduser.id", text)
    yield request, 1
    request = metrics(device=False)
    about = request.resource_metrics[0].resource
    put(put(about, "edgeai.model.name", "damage-net"), "device.id", text)
    add_point(add_metric(request, name=NAME, unit=UNIT))
    yield request, 1
    request = metrics(device=False)
    put(request.resource_metrics[0].resource, "edgeai.model.name", f"damage-net {text}")
    add_point(add_metric(request, name=NAME, unit=UNIT))
    yield request, 0


def all_planted(needles: Needles) -> list[tuple[SignalType, Any, int]]:
    """Make every request, and say how many of its items leave."""
    made = {
        METRICS: [*by_descriptor(METRICS, needles), *metrics_by_hand(needles)],
        LOGS: [*by_descriptor(LOGS, needles), *logs_by_hand(needles)],
    }
    for signal, planted in made.items():
        assert len(planted) >= PLACES_MIN[signal.name]
        for request, _ in planted:
            assert needles.found_in(request.SerializeToString())
    return [(signal, *each) for signal, planted in made.items() for each in planted]


def send(target: Gateway, planted: list[tuple[SignalType, Any, int]], rng: random.Random) -> None:
    """Send over HTTP, with gzip and without, and over gRPC, in any order."""
    rng.shuffle(planted)
    connection = http.client.HTTPConnection(target.otlp_http, timeout=ANSWER_S)
    with grpc.insecure_channel(target.otlp_grpc) as channel:
        for number, (signal, request, _) in enumerate(planted):
            body = request.SerializeToString()
            if number % 3 == 0:
                channel.unary_unary(signal.method)(body, timeout=ANSWER_S)
                continue
            headers = {"Content-Type": PROTOBUF}
            if number % 3 == 1:
                headers["Content-Encoding"], body = "gzip", gzip.compress(body)
            connection.request("POST", signal.path, body, headers)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
    connection.close()


def misuse(target: Gateway, signal: SignalType, needles: Needles) -> None:
    """Say the needle in requests that are refused: the log must not repeat it."""
    connection = http.client.HTTPConnection(target.otlp_http, timeout=ANSWER_S)
    for headers, body in (
        ({"Content-Type": f"text/{needles.text}"}, needles.raw),
        ({"Content-Type": PROTOBUF, "X-Note": needles.text}, b"\x0a\x7f" + needles.raw),
        ({"Content-Type": PROTOBUF, "Content-Encoding": "gzip"}, needles.raw),
    ):
        connection.request("POST", signal.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        assert 400 <= answer.status < 500
        assert needles.found_in(content) == []
    connection.close()
    with grpc.insecure_channel(target.otlp_grpc) as channel:
        call = channel.unary_unary(signal.method)
        with pytest.raises(grpc.RpcError):
            call(b"\x0a\x7f" + needles.raw, timeout=ANSWER_S, metadata=(("x-note", needles.text),))


def settled(target: Gateway, received: dict[str, int]) -> dict[str, Account]:
    """Wait until so many items of each signal were received and none is on its way."""

    def accounts() -> dict[str, Account]:
        return {signal: each for (_, signal), each in check_identity(target.metrics()).items()}

    def done() -> dict[str, Account] | None:
        now = accounts()
        arrived = all(name in now and now[name].received >= n for name, n in received.items())
        return now if arrived and not any(now[name].pending for name in received) else None

    return wait_until(
        done,
        timeout_s=SETTLED_S,
        what=lambda: f"{received} settled: {accounts()}\n{target.server.log()}",
    )


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_undeclared_byte_of_metrics_and_logs_leaves(
    tmp_path: Path, protocol: str, seed: int
) -> None:
    rng = random.Random(seed)
    needles = Needles(raw=rng.randbytes(NEEDLE_BYTES))
    planted = all_planted(needles)
    with otlp_sink() as sink:
        endpoint = sink.http_url if protocol != "grpc" else f"http://{sink.grpc_address}"
        config = site_file(tmp_path, endpoint, protocol=protocol)
        with gateway(tmp_path, config=config, overrides=("store.segment_age=1s",)) as target:
            send(target, planted, rng)
            for signal in (METRICS, LOGS):
                misuse(target, signal, needles)
            sent = {
                signal.name: sum(1 for each, _, _ in planted if each is signal)
                for signal in (METRICS, LOGS)
            }
            accounts = settled(target, sent)
            for signal in (METRICS, LOGS):
                # What may leave did, so the search is not empty.
                leaving = sum(count for each, _, count in planted if each is signal)
                assert accounts[signal.name].received == sent[signal.name]
                assert accounts[signal.name].forwarded == sink.item_count(signal) == leaving > 0
                assert accounts[signal.name].sampled_out == sent[signal.name] - leaving
                assert accounts[signal.name].quarantined == 0
            check_nowhere(target, sink, needles)
        assert needles.found_in(target.server.log_path.read_bytes()) == []
        assert stored_rows(target.data_dir) == 0, "metrics and logs are not stored"
    devices = {
        attributes_of(resource.resource).get("device.id")
        for message in sink.messages(ExportMetricsServiceRequest)
        for resource in message.resource_metrics
    }
    assert len(devices) == 2, "of two devices, each under its token"
    assert all(str(each).startswith("t1.") for each in devices)
    names = {
        record.event_name
        for message in sink.messages(ExportLogsServiceRequest)
        for resource in message.resource_logs
        for record in resource.scope_logs[0].log_records
    }
    assert names == {"", "other", EVENT}
