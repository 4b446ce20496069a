"""Bombs of every kind against a real gateway, while a good client is served throughout.

Law: whatever the bodies are, the memory of the gateway grows by a bounded amount, every bomb is
answered, and no good request is refused or lost.
"""

import functools
import gzip
import http.client
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from gateway.otlp.limits import DEFAULT_LIMITS
from tests.flow.bombs import (
    ATTACKER,
    INFLATING,
    MIB,
    SCANNED,
    Bombs,
    Http2,
    connect,
    empty_attributes,
    empty_spans,
    fits_one_window,
)
from tests.flow.load import Load
from tests.flow.site import settled, site_file, stored, wait_for_rows
from tests.servers import Gateway, gateway, wait_until
from tests.sink import EXPORT_METHOD, PROTOBUF, TRACES_PATH

pytestmark = pytest.mark.flow

AT_ONCE: Final = 16
ROUNDS: Final = 2
GROWTH_BYTES_MAX: Final = 96 * MIB
# Machines differ and this one is shared: the aim, 0.25 s, is printed and not asserted.
MEDIAN_S_MAX: Final = 2.5
ANSWER_S: Final = 30.0
SLOW_CONNECTIONS: Final = 300
STREAMS: Final = 4_000
WARM_SPANS: Final = 3_000
GOOD_S_MAX: Final = 5.0
SAMPLE_S: Final = 0.005
WITNESS_SPANS: Final = 300


# A resource and a scope are items too.
_ATTRIBUTES: Final = (empty_attributes(DEFAULT_LIMITS.items_max - 2), "identity")


@dataclass(slots=True)
class Memory:
    """Resident memory of a process, sampled. Units: bytes."""

    pid: int
    base: int = 0
    peak: int = 0

    def now(self) -> int:
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * 4096

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample while the block runs."""
        self.base = self.peak = self.now()
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(SAMPLE_S):
                self.peak = max(self.peak, self.now())

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.peak = max(self.peak, self.now())

    @property
    def growth(self) -> int:
        return self.peak - self.base


@dataclass(slots=True)
class Figures:
    """What came out of one attack."""

    name: str
    statuses: dict[int, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def add(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.seconds.append(seconds)

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    def line(self, growth: int) -> str:
        return (
            f"{self.name:24} median {self.median_s * 1e3:7.1f} ms, "
            f"worst {max(self.seconds) * 1e3:7.1f} ms, answers {self.statuses}, "
            f"growth so far {growth / MIB:.1f} MiB"
        )


def post(target: Gateway, body: bytes, encoding: str) -> tuple[int, float]:
    """Send a bomb; return the status and how long the answer took."""
    connection = http.client.HTTPConnection(
        target.otlp_http, timeout=ANSWER_S, source_address=(ATTACKER, 0)
    )
    with closing(connection):
        headers = {"Content-Type": PROTOBUF, "Content-Encoding": encoding}
        begin = time.monotonic()
        connection.request("POST", TRACES_PATH, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, time.monotonic() - begin


def call(target: Gateway, body: bytes) -> tuple[int, float]:
    """Send a bomb over gRPC; the status is not read, only that the call ends."""
    with closing(Http2(target.otlp_grpc, ANSWER_S)) as connection:
        begin = time.monotonic()
        stream = connection.open(EXPORT_METHOD, encoding="gzip")
        connection.message(stream, body, compressed=True)
        assert connection.wait_end(stream)
        return 0, time.monotonic() - begin


def at_once(name: str, attack: Callable[[], tuple[int, float]]) -> Figures:
    """Run an attack from many threads at the same moment."""
    figures, gate = Figures(name), threading.Barrier(AT_ONCE)

    def one() -> tuple[int, float]:
        gate.wait(ANSWER_S)
        return attack()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for _ in range(ROUNDS):
            for each in [threads.submit(one) for _ in range(AT_ONCE)]:
                figures.add(*each.result())
    return figures


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Gateway]:
    # Rows that wait for their file are memory too, and not the bombs'.
    overrides = ("store.segment_age=500ms",)
    with gateway(tmp_path, config=site_file(tmp_path, None), overrides=overrides) as running:
        yield running
    assert b"Traceback" not in running.server.log_path.read_bytes()


@contextmanager
def besieged(target: Gateway, seed: int) -> Iterator[Memory]:
    """Serve good clients while the block runs; none of their requests may be refused."""
    load = Load(seed)
    with load.running(target):
        load.wait_for(WARM_SPANS)
        wait_for_rows(target, WARM_SPANS)
        memory = Memory(target.pid)
        with memory.watched():
            yield memory
        before = len(load.acknowledged)
        load.wait_for(before + WITNESS_SPANS)
    assert load.refused == set()
    assert load.unknown == set()
    assert settled(target, len(load.acknowledged)).received >= len(load.acknowledged)
    print(f"growth {memory.growth / MIB:.1f} MiB over {memory.base / MIB:.0f} MiB")  # noqa: T201


def check(figures: Sequence[Figures], memory: Memory) -> None:
    assert memory.growth <= GROWTH_BYTES_MAX, f"{memory.growth / MIB:.1f} MiB"
    for each in figures:
        assert each.median_s <= MEDIAN_S_MAX, each.line(memory.growth)


@pytest.mark.parametrize("bombs", [INFLATING, SCANNED], ids=["inflating", "scanned"])
def test_bombs_over_http_are_answered_in_bounded_memory(
    target: Gateway, seed: int, bombs: Bombs
) -> None:
    made = [(name, encoding, make()) for name, encoding, make in bombs]
    figures = []
    with besieged(target, seed) as memory:
        for name, encoding, body in made:
            attack = functools.partial(post, target, body, encoding)
            figures.append(at_once(name, attack))
            print(figures[-1].line(memory.growth))  # noqa: T201
    check(figures, memory)
    for each in figures:
        assert set(each.statuses) <= {400, 413, 415, 429, 503}, each.line(memory.growth)


def test_as_many_attributes_as_are_allowed_are_taken_in_bounded_memory(
    target: Gateway, seed: int
) -> None:
    """Just below the limit of items a body is accepted, and its megabyte becomes rows."""
    with besieged(target, seed) as memory:
        figures = at_once("attributes allowed", functools.partial(post, target, *_ATTRIBUTES))
        print(figures.line(memory.growth))  # noqa: T201
    assert 200 in figures.statuses
    assert set(figures.statuses) <= {200, 503}
    assert memory.growth <= GROWTH_BYTES_MAX, f"{memory.growth / MIB:.1f} MiB"


def test_bombs_over_grpc_are_answered_in_bounded_memory(target: Gateway, seed: int) -> None:
    made = [(name, make()) for name, encoding, make in INFLATING if encoding == "gzip"]
    figures = []
    with besieged(target, seed) as memory:
        for name, body in made:
            if fits_one_window(body):
                figures.append(at_once(f"gRPC {name}", functools.partial(call, target, body)))
                print(figures[-1].line(memory.growth))  # noqa: T201
    check(figures, memory)
    assert len(figures) >= 4


def test_refused_messages_leave_no_memory_behind(target: Gateway, seed: int) -> None:
    """A hundred and more messages of 4 MiB, each refused after its scan."""
    body = gzip.compress(empty_spans())
    with besieged(target, seed) as memory:
        for _ in range(4):
            figures = at_once("gRPC empty spans", functools.partial(call, target, body))
        print(figures.line(memory.growth))  # noqa: T201
    check([figures], memory)


def test_slow_connections_hold_nothing_up(target: Gateway, seed: int) -> None:
    head = f"POST {TRACES_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\n".encode()
    starts = (
        head,
        head + b"X-Slow: " + b"x" * 4_000,
        head + b"Content-Length: 1048576\r\n\r\n" + bytes(1_000),
        head + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + bytes(500),
    )
    with besieged(target, seed) as memory, ExitStack() as stack:
        for number in range(SLOW_CONNECTIONS):
            slow = stack.enter_context(connect(target.otlp_http, ANSWER_S))
            slow.sendall(starts[number % len(starts)])
        idle = [stack.enter_context(closing(Http2(target.otlp_grpc, ANSWER_S))) for _ in range(8)]
        for connection in idle:
            for _ in range(64):
                connection.open(EXPORT_METHOD)
        status, seconds = post(target, b"", "identity")
        assert status == 200
        print(f"beside {SLOW_CONNECTIONS} slow connections: {seconds * 1e3:.1f} ms")  # noqa: T201
        assert seconds < GOOD_S_MAX
        # Those whose head never came are closed by the gateway.
        mute = stack.enter_context(connect(target.otlp_http, ANSWER_S))
        mute.sendall(starts[0])
        assert mute.recv(1) == b""
    check([], memory)


@pytest.mark.parametrize("reset", [False, True])
def test_thousands_of_streams_on_one_connection_hold_nothing_up(
    target: Gateway, seed: int, reset: bool
) -> None:
    with besieged(target, seed) as memory:
        with closing(Http2(target.otlp_grpc, ANSWER_S)) as connection:
            begin = time.monotonic()
            try:
                connection.flood(EXPORT_METHOD, STREAMS, reset=reset)
                alive = connection.ping()
            except ConnectionError:
                alive = False
            seconds = time.monotonic() - begin
        print(f"{STREAMS} calls, reset {reset}: alive {alive} after {seconds:.2f} s")  # noqa: T201
    check([], memory)


def test_nothing_of_a_bomb_is_stored(tmp_path: Path) -> None:
    with gateway(tmp_path, config=site_file(tmp_path, None)) as running:
        for _, encoding, make in (*INFLATING, *SCANNED):
            post(running, make(), encoding)
        wait_until(
            lambda: running.get_json("/api/v1/status")["ready"],
            timeout_s=ANSWER_S,
            what="readiness",
        )
    kept = stored(running.data_dir)
    assert kept is None or len(kept) <= 1
