"""The load generator: a process of its own that sends spans as fast as asked and times the answers.

Law: an answer counts as accepted only when it says so; everything else is counted under what it
said. In an open loop a request's time starts when it was due, not when a connection was free, so
that a stall of the gateway is seen by every request that it delays.

It is cheap, because it shares the machine with the gateway: bodies are encoded beforehand, HTTP is
spoken on bare sockets, and gRPC through `grpc.aio`, which here costs the same CPU per request as
futures of the blocking client, without their lock.

Usage: `python -m benchmarks.load '{"transport": …}'`; one line of JSON when the warm-up is over,
one with the result.
"""

import asyncio
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

import grpc
import numpy as np
import uvloop

from benchmarks.traffic import Body, headed_body, make_body, pool_size

EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
# A refused client of this generator comes back after this, which is ruder than any exporter.
REFUSED_PAUSE_S: Final = 0.02
# Requests under way at the end are waited for this long.
DRAIN_S: Final = 10.0
BIN_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the generator is asked to do.

    Units: warm_s, run_s seconds; requests_per_s 0 is a closed loop: every lane sends again as soon
    as it has its answer.
    """

    transport: str  # "grpc" or "http"
    address: str
    spans: int
    lanes: int  # requests under way at a time
    connections: int  # of gRPC; HTTP has one for each lane
    warm_s: float
    run_s: float
    requests_per_s: float = 0.0
    seed: int = 1


@dataclass(slots=True, kw_only=True)
class Result:
    """What came of it. `accepted_total` includes warm-up and drain; the rest is the window's.

    Units: latency in seconds, by quantile; spans_per_s of each half second.
    """

    accepted: int = 0  # spans
    accepted_total: int = 0
    requests: int = 0
    failed: dict[str, int] = field(default_factory=dict)  # requests by what was said
    unanswered: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    latency_s: dict[str, float] = field(default_factory=dict)
    spans_per_s: list[float] = field(default_factory=list)


Close = Callable[[], Awaitable[None]]
Send = Callable[[bytes], Awaitable[str]]  # gives "" when all was accepted, else what was said


class HttpLane(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""
        self._answer: asyncio.Future[str] | None = None
        self._verdicts: dict[bytes, tuple[str, int]] = {}
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast(asyncio.WriteTransport, transport)

    async def close(self) -> None:
        """Close the connection and wait until it is closed."""
        assert self._transport is not None
        self._transport.close()
        await self._closed.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the request that is under way."""
        self._closed.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result("connection lost")

    async def send(self, request: bytes) -> str:
        """Send a whole request and wait for its answer."""
        assert self._transport is not None
        if self._transport.is_closing():
            return "connection lost"
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """Take an answer, in one piece as a rule."""
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end]
        known = self._verdicts.get(head)
        if known is None:
            known = self._verdicts[head] = _verdict(head)
            if len(self._verdicts) > 64:  # heads with a date change
                self._verdicts.clear()
        said, length = known
        if len(self._buffer) < end + 4 + length:
            return
        self._buffer = b""
        # A body behind a 200 is a partial success.
        assert self._answer is not None
        self._answer.set_result(said or ("partial success" if length else ""))


def _verdict(head: bytes) -> tuple[str, int]:
    """Read status and body length of an HTTP answer."""
    lines = head.split(b"\r\n")
    status = lines[0].split(b" ", 2)[1]
    length = 0
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    return "" if status == b"200" else f"HTTP {status.decode()}", length


async def _http_lanes(order: Order) -> tuple[list[Send], list[Close]]:
    host, _, port = order.address.rpartition(":")
    loop = asyncio.get_running_loop()
    lanes = []
    for _ in range(order.lanes):
        _, lane = await loop.create_connection(HttpLane, host, int(port))
        lanes.append(lane)
    return [lane.send for lane in lanes], [lane.close for lane in lanes]


def _grpc_lanes(order: Order) -> tuple[list[Send], list[Close]]:
    # Channels with equal arguments would share one connection.
    channels = [
        grpc.aio.insecure_channel(
            order.address,
            options=[("grpc.use_local_subchannel_pool", 1), ("weir.bench.channel", number)],
        )
        for number in range(order.connections)
    ]
    calls = [channel.unary_unary(EXPORT) for channel in channels]

    def sender(call: Any) -> Send:
        async def send(request: bytes) -> str:
            try:
                answer: bytes = await call(request)
            except grpc.aio.AioRpcError as error:
                return f"gRPC {error.code().name}"
            return "partial success" if answer else ""

        return send

    sends = [sender(calls[lane % len(calls)]) for lane in range(order.lanes)]
    return sends, [channel.close for channel in channels]


class Generator:
    """Lanes that send from one pool of bodies."""

    def __init__(self, order: Order, sends: list[Send]) -> None:
        self._order = order
        self._sends = sends
        rng = np.random.default_rng(order.seed)
        head = (
            f"POST /v1/traces HTTP/1.1\r\nHost: {order.address}\r\n"
            "Content-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n"
        ).encode()
        self._bodies: list[Body] = [
            headed_body(order.spans, rng, head)
            if order.transport == "http"
            else make_body(order.spans, rng)
            for _ in range(pool_size(order.spans))
        ]
        self._rng = rng
        self._next = 0
        self._counting = False
        self._ended = False
        self._times: list[float] = []
        self._ends: list[float] = []
        self._failed: Counter[str] = Counter()
        self._total = 0
        self.under_way = 0

    def _request(self) -> bytes:
        number = self._next
        self._next = number + 1
        body = self._bodies[number % len(self._bodies)]
        body.renew(number)
        return bytes(body.data)

    async def _exchange(self, send: Send, since: float) -> str:
        """Send one request and count what was said."""
        self.under_way += 1
        said = await send(self._request())
        self.under_way -= 1
        if not said:
            self._total += self._order.spans
        if self._counting:
            if said:
                self._failed[said] += 1
            else:
                now = time.perf_counter()
                self._times.append(now - since)
                self._ends.append(now)
        return said

    async def closed(self, send: Send) -> None:
        """Send again as soon as there is an answer, until the end."""
        while not self._ended:
            said = await self._exchange(send, time.perf_counter())
            if said:
                if said == "connection lost":
                    return
                await asyncio.sleep(REFUSED_PAUSE_S)

    async def open(self) -> None:
        """Send at random instants of the asked rate, on whichever lane is free."""
        free = deque(self._sends)
        freed = asyncio.Event()
        rate = self._order.requests_per_s
        due = time.perf_counter()
        tasks: set[asyncio.Task[None]] = set()

        async def one(send: Send, since: float) -> None:
            if await self._exchange(send, since) != "connection lost":
                free.append(send)
                freed.set()

        while not self._ended:
            due += float(self._rng.exponential(1.0 / rate))
            wait_s = due - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            while not free and not self._ended:
                freed.clear()
                await freed.wait()
            if free:
                task = asyncio.create_task(one(free.popleft(), due))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def run(self, on_warm: Callable[[], None]) -> Result:
        """Warm up, measure, and wait for what is under way."""
        order = self._order
        if order.requests_per_s:
            tasks = [asyncio.create_task(self.open())]
        else:
            tasks = [asyncio.create_task(self.closed(send)) for send in self._sends]
        await asyncio.sleep(order.warm_s)
        on_warm()
        start, cpu_start = time.perf_counter(), time.process_time()
        self._counting = True
        await asyncio.sleep(order.run_s)
        self._counting = False
        result = Result(seconds=time.perf_counter() - start, cpu_s=time.process_time() - cpu_start)
        times, failed = np.array(self._times), dict(self._failed)
        bins = max(1, int(result.seconds / BIN_S))
        edges = np.linspace(start, start + result.seconds, bins + 1)
        counts, _ = np.histogram(self._ends, edges)
        result.spans_per_s = (counts * order.spans * bins / result.seconds).tolist()
        self._ended = True
        _, pending = await asyncio.wait(tasks, timeout=DRAIN_S)
        for task in pending:
            task.cancel()
        result.unanswered = self.under_way
        result.accepted = len(times) * order.spans
        result.accepted_total = self._total
        result.requests = len(times) + sum(failed.values())
        result.failed = failed
        if len(times):
            quantiles = np.percentile(times, (50, 99, 100)).tolist()
            result.latency_s = dict(zip(("p50", "p99", "max"), quantiles, strict=True))
        return result


async def generate(order: Order, on_warm: Callable[[], None]) -> Result:
    """Connect, send, and report."""
    http = order.transport == "http"
    sends, closes = await _http_lanes(order) if http else _grpc_lanes(order)
    result = await Generator(order, sends).run(on_warm)
    for close in closes:
        await close()
    return result


def main() -> None:
    """Take an order from the command line."""
    order = Order(**json.loads(sys.argv[1]))
    result = uvloop.run(generate(order, lambda: print('{"warm": true}', flush=True)))
    print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
