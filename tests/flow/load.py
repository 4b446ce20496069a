"""A small load of OTLP requests that remembers what was acknowledged and never sends twice.

Law: every span id is used once in the life of a `Load`; metrics and logs are counted. A request is
acknowledged only when its answer came; one whose answer never came may be stored or not, and is
never sent again.
"""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status

from tests.otlp import LOGS, METRICS, PROTOBUF, SIGNALS, TRACES, SignalType
from tests.servers import Gateway

ANSWER_S: Final = 10.0
SPANS_PER_REQUEST_MAX: Final = 24
GRPC_CLIENTS: Final = 2
HTTP_CLIENTS: Final = 2

# Share of the requests that carry metrics or logs, when they are wanted.
OTHERS_SHARE: Final = 0.3

Send = Callable[[bytes, SignalType], bool]


def set_attribute(owner: Any, key: str, value: str | float | bool) -> None:
    """Append an attribute to a span, event, link, scope or resource."""
    attribute = owner.attributes.add()
    attribute.key = key
    if isinstance(value, bool):
        attribute.value.bool_value = value
    elif isinstance(value, str):
        attribute.value.string_value = value
    else:
        attribute.value.double_value = value


def fill_inference(span: Span, rng: random.Random, number: int) -> None:
    """Make a plausible inference of the example model; ids are the caller's number."""
    span.trace_id = rng.randbytes(16)
    span.span_id = number.to_bytes(8, "big")
    span.name = "inference"
    span.end_time_unix_nano = time.time_ns()
    span.start_time_unix_nano = span.end_time_unix_nano - rng.randrange(10**6, 10**8)
    if rng.random() < 0.02:
        span.status.code = Status.STATUS_CODE_ERROR
    set_attribute(span, "edgeai.model.name", "damage-net")
    set_attribute(span, "edgeai.model.version", "3")
    set_attribute(span, "edgeai.inference.confidence", rng.betavariate(8, 2))
    set_attribute(span, "edgeai.inference.class", rng.choice(("ok", "cracked", "wet", "torn")))


def new_resource(request: ExportTraceServiceRequest, device: str) -> ResourceSpans:
    """Add the resource of one device."""
    found = request.resource_spans.add()
    set_attribute(found.resource, "device.id", device)
    set_attribute(found.resource, "service.name", "dock-camera")
    return found


def make_others(signal: SignalType, rng: random.Random) -> tuple[int, bytes]:
    """Build a request of metrics or logs that the example contract lets out; with its items."""
    count = rng.randint(1, SPANS_PER_REQUEST_MAX)
    request: Any
    if signal is METRICS:
        request = ExportMetricsServiceRequest()
        owner = request.resource_metrics.add()
        metric = owner.scope_metrics.add().metrics.add(name="process.memory.usage", unit="By")
        for _ in range(count):
            metric.gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=rng.randrange(10**9))
    else:
        request = ExportLogsServiceRequest()
        owner = request.resource_logs.add()
        scope = owner.scope_logs.add()
        for _ in range(count):
            scope.log_records.add(time_unix_nano=time.time_ns(), event_name="edgeai.model.loaded")
    set_attribute(owner.resource, "device.id", f"cam-{rng.randrange(20)}")
    set_attribute(owner.resource, "edgeai.model.name", "damage-net")
    return count, request.SerializeToString()


@dataclass(slots=True)
class Load:
    """Span ids by what became of their requests. Thread-safe.

    With `others` it sends metrics and logs too, of which it counts the items by signal.
    """

    seed: int
    others: bool = False
    acknowledged_items: Counter[str] = field(default_factory=Counter)
    unknown_items: Counter[str] = field(default_factory=Counter)
    acknowledged: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    _next: int = 1
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def make(self, rng: random.Random) -> tuple[set[int], bytes]:
        """Build a request of new spans; until its answer comes its fate is unknown."""
        count = rng.randint(1, SPANS_PER_REQUEST_MAX)
        with self._changed:
            numbers = range(self._next, self._next + count)
            self._next += count
            self.unknown.update(numbers)
        request = ExportTraceServiceRequest()
        resource = new_resource(request, f"cam-{rng.randrange(20)}")
        scope = resource.scope_spans.add()
        for number in numbers:
            fill_inference(scope.spans.add(), rng, number)
        return set(numbers), request.SerializeToString()

    def settle(self, numbers: set[int], accepted: bool) -> None:
        """Note the answer of one request."""
        with self._changed:
            self.unknown -= numbers
            (self.acknowledged if accepted else self.refused).update(numbers)
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        """Wait until so many spans in all were acknowledged."""
        with self._changed:
            reached = self._changed.wait_for(lambda: len(self.acknowledged) >= count, ANSWER_S)
        assert reached, f"{len(self.acknowledged)} of {count} acknowledged"

    def wait_for_refusal(self) -> None:
        """Wait until at least one more span was refused."""
        with self._changed:
            before = len(self.refused)
            reached = self._changed.wait_for(lambda: len(self.refused) > before, ANSWER_S)
        assert reached, "nothing was refused"

    def check_stored(self, ids: Iterable[bytes]) -> None:
        """Check the span ids at the site: each acknowledged one once, and none that was refused."""
        times = Counter(int.from_bytes(each) for each in ids)
        assert {number: n for number, n in times.items() if n > 1} == {}
        assert self.acknowledged - times.keys() == set(), "acknowledged and missing"
        strange = times.keys() - self.acknowledged - self.unknown
        assert strange == set(), "refused or never sent, and stored"

    def _client(self, send: Send, seed: int, stop: threading.Event) -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            try:
                if self.others and rng.random() < OTHERS_SHARE:
                    self._send_others(send, rng)
                    continue
                numbers, body = self.make(rng)
                accepted = send(body, TRACES)
            except (OSError, http.client.HTTPException, grpc.RpcError):
                return  # the gateway is gone, and with it the answer
            self.settle(numbers, accepted)

    def _send_others(self, send: Send, rng: random.Random) -> None:
        signal = rng.choice((METRICS, LOGS))
        count, body = make_others(signal, rng)
        with self._changed:
            self.unknown_items[signal.name] += count
        accepted = send(body, signal)
        with self._changed:
            self.unknown_items[signal.name] -= count
            self.acknowledged_items[signal.name] += count if accepted else 0

    @contextmanager
    def running(self, gateway: Gateway) -> Iterator[None]:
        """Send from several clients at once while the block runs, or until the gateway is gone."""
        stop = threading.Event()
        with _senders(gateway) as senders:
            threads = []
            for send in senders:
                self.seed += 1
                threads.append(threading.Thread(target=self._client, args=(send, self.seed, stop)))
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                stop.set()
                for thread in threads:
                    thread.join()


@contextmanager
def _senders(gateway: Gateway) -> Iterator[list[Send]]:
    channels = [
        grpc.insecure_channel(gateway.otlp_grpc, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(GRPC_CLIENTS)
    ]
    connections = [
        http.client.HTTPConnection(gateway.otlp_http, timeout=ANSWER_S) for _ in range(HTTP_CLIENTS)
    ]
    try:
        yield [
            *(_over_grpc(channel) for channel in channels),
            *(_over_http(connection) for connection in connections),
        ]
    finally:
        for channel in channels:
            channel.close()
        for connection in connections:
            connection.close()


def _over_grpc(channel: Any) -> Send:
    calls = {signal: channel.unary_unary(signal.method) for signal in SIGNALS}

    def send(body: bytes, signal: SignalType) -> bool:
        try:
            answer = signal.response.FromString(calls[signal](body, timeout=ANSWER_S))
        except grpc.RpcError as error:
            # A refusal carries a Status; a connection that broke does not.
            details = dict(error.trailing_metadata() or ())
            if "grpc-status-details-bin" in details:
                return False
            raise
        assert getattr(answer.partial_success, signal.rejected_field) == 0
        return True

    return send


def _over_http(connection: http.client.HTTPConnection) -> Send:
    def send(body: bytes, signal: SignalType) -> bool:
        connection.request("POST", signal.path, body, {"Content-Type": PROTOBUF})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status in (200, 503), (answer.status, content)
        return answer.status == 200

    return send


def send_once(gateway: Gateway, body: bytes, transport: str) -> bool:
    """Send one request over "grpc" or "http"; tells whether it was acknowledged."""
    with _senders(gateway) as senders:
        return senders[0 if transport == "grpc" else -1](body, TRACES)
