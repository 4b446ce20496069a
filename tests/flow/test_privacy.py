"""A random string in every place that no contract names is nowhere in what leaves the gateway.

Law: the needle is in each request, in the store of the site, and in nothing else: not in a byte of
what the sink got, not in `/metrics`, not in the log.
"""

import gzip
import http.client
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from tests.flow.load import fill_inference, new_resource, send_once, set_attribute
from tests.flow.site import settled, site_file, stored
from tests.places import Needles, is_structure, name_of, put_at, text_paths
from tests.servers import Gateway, gateway
from tests.sink import EXPORT_METHOD, PROTOBUF, TRACES_PATH, Sink, otlp_sink

pytestmark = pytest.mark.flow

NEEDLE_BYTES: Final = 16
ANSWER_S: Final = 10.0
PLACES_MIN: Final = 60


def new_span(request: ExportTraceServiceRequest, number: int, *, model: str = "damage-net") -> Span:
    """Make a failed inference, which a rule keeps, of the first span, or a new one."""
    found = request.resource_spans
    spans = found[0] if found else new_resource(request, "cam-1")
    scope = spans.scope_spans[0] if spans.scope_spans else spans.scope_spans.add()
    span = scope.spans[0] if scope.spans else scope.spans.add()
    fill_inference(span, random.Random(number), number)
    for attribute in span.attributes:
        if attribute.key == "edgeai.model.name":
            attribute.value.string_value = model
    span.status.code = Status.STATUS_CODE_ERROR
    return span


def by_descriptor(needles: Needles) -> Iterator[ExportTraceServiceRequest]:
    """Plant the needle in each string and bytes field of the protocol, found by its descriptor."""
    for number, path in enumerate(text_paths(ExportTraceServiceRequest.DESCRIPTOR), 1):
        if is_structure(path):
            continue
        if name_of(path) == "resource_spans.scope_spans.spans.name":
            continue  # planted by hand, in several ways
        request = ExportTraceServiceRequest()
        is_bytes = path[-1].type == path[-1].TYPE_BYTES
        put_at(request, path, needles.raw if is_bytes else needles.text.encode())
        new_span(request, number)
        yield request


def by_hand(needles: Needles) -> Iterator[ExportTraceServiceRequest]:
    """Plant the needle where a declared field is near: names, wrong types, wrong values."""
    text = needles.text

    def one(number: int, model: str = "damage-net") -> tuple[ExportTraceServiceRequest, Span]:
        request = ExportTraceServiceRequest()
        return request, new_span(request, number, model=model)

    for number, name in enumerate((f"inference {text}", f"inference/{text}", text), 10_001):
        request, span = one(number)
        span.name = name
        yield request
    # A text where the contract wants a number, a class that is not in its list.
    for number, key in enumerate(
        ("edgeai.inference.confidence", "edgeai.inference.class", "edgeai.input.brightness"), 10_101
    ):
        request, span = one(number)
        kept = [each for each in span.attributes if each.key != key]
        del span.attributes[:]
        span.attributes.extend(kept)
        set_attribute(span, key, text)
        yield request
    # The same key twice: neither of them is what the contract meant.
    request, span = one(10_201)
    set_attribute(span, "edgeai.inference.class", text)
    yield request
    # Keys that begin or end as a declared one does, and the model that no contract matches.
    request, span = one(10_301)
    set_attribute(span, f"edgeai.inference.confidence.{text}", 0.5)
    set_attribute(span, f"{text}.edgeai.inference.class", text)
    yield request
    request, span = one(10_401, model=f"damage-net-{text}")
    yield request
    # What leaves as a token, and what may not even be stored.
    request, span = one(10_501)
    set_attribute(span, "enduser.id", text)
    set_attribute(request.resource_spans[0].resource, "host.name", text)
    yield request
    request = ExportTraceServiceRequest()
    new_resource(request, text).scope_spans.append(ScopeSpans())
    new_span(request, 10_601)
    yield request


def secret_note(note: str) -> ExportTraceServiceRequest:
    """Put text into the attribute that the contract drops at the site too."""
    request = ExportTraceServiceRequest()
    set_attribute(new_span(request, 10_701), "edgeai.note", note)
    return request


def misuse(target: Gateway, needles: Needles) -> None:
    """Say the needle in requests that are refused: the answers' log must not repeat it."""
    connection = http.client.HTTPConnection(target.otlp_http, timeout=ANSWER_S)
    text = needles.text
    for path, headers, body in (
        (f"/v1/{text}", {"Content-Type": PROTOBUF}, b""),
        (TRACES_PATH, {"Content-Type": f"text/{text}"}, text.encode()),
        (TRACES_PATH, {"Content-Type": PROTOBUF, "X-Note": text}, b"\x0a\x7f" + needles.raw),
        (TRACES_PATH, {"Content-Type": PROTOBUF, "Content-Encoding": "gzip"}, needles.raw),
    ):
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read()
        assert 400 <= answer.status < 500, (path, answer.status)
    connection.close()
    with grpc.insecure_channel(target.otlp_grpc) as channel:
        call = channel.unary_unary(EXPORT_METHOD)
        with pytest.raises(grpc.RpcError):
            call(b"\x0a\x7f" + needles.raw, timeout=ANSWER_S, metadata=(("x-note", text),))


def send_compressed(target: Gateway, body: bytes) -> None:
    """Send over HTTP with gzip, as many exporters do."""
    connection = http.client.HTTPConnection(target.otlp_http, timeout=ANSWER_S)
    headers = {"Content-Type": PROTOBUF, "Content-Encoding": "gzip"}
    connection.request("POST", TRACES_PATH, gzip.compress(body), headers)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    connection.close()


def check_nowhere(target: Gateway, sink: Sink, needles: Needles) -> None:
    """Look for the needle in everything that leaves."""
    for request in sink.requests:
        assert needles.found_in(request.body) == []
        assert needles.found_in(repr(request.headers).encode()) == []
    assert needles.found_in(target.metrics().encode()) == []
    for path in ("/readyz", "/healthz", "/api/v1/status", "/api/v1/devices", "/api/v1/drift"):
        status, body = target.get(path)
        assert (status, needles.found_in(body)) == (200, []), path
    assert needles.found_in(target.server.log_path.read_bytes()) == []


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_undeclared_byte_leaves(tmp_path: Path, protocol: str, seed: int) -> None:
    rng = random.Random(seed)
    needles = Needles(raw=rng.randbytes(NEEDLE_BYTES))
    note = Needles(raw=rng.randbytes(NEEDLE_BYTES))
    requests = [*by_descriptor(needles), *by_hand(needles)]
    assert len(requests) >= PLACES_MIN
    bodies = [request.SerializeToString() for request in requests]
    assert all(needles.raw in body or needles.text.encode() in body for body in bodies)
    bodies.append(secret_note(note.text).SerializeToString())
    with otlp_sink() as sink:
        endpoint = sink.http_url if protocol != "grpc" else f"http://{sink.grpc_address}"
        config = site_file(
            tmp_path, endpoint, protocol=protocol, sampling={"keep": ["error"], "rate": 1.0}
        )
        with gateway(tmp_path, config=config, overrides=("store.segment_age=1s",)) as target:
            for number, body in enumerate(bodies):
                if number % 3 == 0:
                    send_compressed(target, body)
                else:
                    assert send_once(target, body, ("grpc", "http")[number % 2])
            misuse(target, needles)
            terms = settled(target, len(bodies))
            # Every planted span did leave, so the search is not empty.
            assert terms.forwarded == len(sink.spans()) >= len(bodies)
            check_nowhere(target, sink, needles)
            check_nowhere(target, sink, note)
        assert needles.found_in(target.server.log_path.read_bytes()) == []
        rows = stored(target.data_dir).select(["fields", "resource", "name", "status_message"])
        at_site = b"".join(str(row).encode() for row in rows.to_pylist())
        assert "hex" in needles.found_in(at_site)
        assert note.found_in(at_site) == []
