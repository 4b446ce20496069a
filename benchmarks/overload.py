"""Overload: stock exporters ask for twice what the gateway may take, for ten minutes.

Law: no accepted span is lost, no refusal is final, every span is accounted for; a run that breaks
one of these fails. What the clients drop by themselves is counted apart.

Stock Python exporters are far slower than the gateway, so it is the gateway that is made narrow: it
may hold QUEUE_BYTES and commits them every GROUP_S. Its capacity is then measured with the same
exporters in a closed loop, and the run offers FACTOR times as much.
"""

import json
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from benchmarks.exporters import OK, RETRYABLE, UNANSWERED, Device, Order
from benchmarks.ingest import (
    MEBI,
    STOP_S,
    Running,
    child,
    cpu_seconds,
    deadline,
    gateway,
    module_command,
    read_line,
)
from benchmarks.report import MILLION, Report, Table, number
from tests.ledger_check import Scrape, check_identity, parse

QUEUE_BYTES: Final = 1 << 20
MESSAGE_BYTES: Final = 1 << 19  # a batch of a stock exporter has less than half of it
GROUP_S: Final = 0.5
FACTOR: Final = 2.0
DEVICES: Final = 4  # of a process
TRANSPORTS: Final = ("grpc", "http")
PROCESSES: Final = 4  # half of them for each transport
SAMPLE_S: Final = 0.25
SEAL_S: Final = 10.0
SETTLE_S: Final = 120.0
REQUEST_S: Final = 10.0
# Share of the run whose samples stand for its start, its middle and its end.
PART: Final = 0.1

NARROW: Final[dict[str, dict[str, Any]]] = {
    "receive": {
        "grpc": {"listen": "127.0.0.1:0", "message_max": MESSAGE_BYTES},
        "http": {"listen": "127.0.0.1:0", "body_max": MESSAGE_BYTES},
        "queue_max": QUEUE_BYTES,
    },
    "journal": {"fsync": True, "group": f"{GROUP_S:g}s"},
    "store": {"segment_age": f"{SEAL_S:g}s"},
}


class BrokenPromiseError(RuntimeError):
    """An accepted span was lost, a refusal was final, or the accounts do not balance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The gateway's memory. Units: rss_* bytes; slope_per_minute bytes, of the second half."""

    rss_start: float
    rss_middle: float
    rss_end: float
    slope_per_minute: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The gateway at one instant of the run. Units: at_s seconds, rss bytes, received spans."""

    at_s: float
    rss: int
    received: int


class _Watch:
    """Sample the gateway in a thread for the time that clients make spans, and no longer."""

    def __init__(self, running: Running, run_s: float) -> None:
        self._running = running
        self._run_s = run_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[Sample] = []

    def _run(self) -> None:
        start = time.monotonic()
        while (now := time.monotonic() - start) <= self._run_s:
            rss = self._running.process.memory_info().rss
            self.samples.append(Sample(now, rss, _received(parse(_page(self._running)))))
            if self._stop.wait(SAMPLE_S):
                return

    def start(self) -> None:
        """Begin, when the clients do."""
        self._thread.start()

    def end(self) -> None:
        """End, also before the time is over."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def accepted_per_s(self) -> float:
        """Say how many spans a second were received, without the first quarter of the time."""
        window = self.samples[len(self.samples) // 4 :]
        first, last = window[0], window[-1]
        return (last.received - first.received) / max(last.at_s - first.at_s, SAMPLE_S)

    def memory(self) -> Memory:
        """Reduce the samples."""
        return memory_of([(each.at_s, each.rss) for each in self.samples])


def memory_of(samples: Sequence[tuple[float, int]]) -> Memory:
    """Say where memory was at three times, and the slope of a line through the second half.

    Units: samples are pairs of seconds and bytes.
    """
    seconds, rss = np.array(samples, dtype=np.float64).T
    part = max(1, int(len(rss) * PART))
    middle = (len(rss) - part) // 2
    half = len(rss) // 2
    slope = float(np.polyfit(seconds[half:] / 60, rss[half:], 1)[0]) if len(rss) > 2 else 0.0
    return Memory(
        rss_start=float(np.median(rss[:part])),
        rss_middle=float(np.median(rss[middle : middle + part])),
        rss_end=float(np.median(rss[-part:])),
        slope_per_minute=slope,
    )


def _page(running: Running) -> str:
    with urllib.request.urlopen(f"http://{running.api}/metrics", timeout=REQUEST_S) as answer:
        return str(answer.read().decode())


def _received(page: Scrape) -> int:
    return int(page.total("weir_received_items_total", signal="traces"))


def _add(devices: Sequence[Device]) -> Device:
    total = Device()
    for each in devices:
        total.made += each.made
        total.exported += each.exported
        total.given_up += each.given_up
        total.unanswered += each.unanswered
        total.sent_bytes += each.sent_bytes
        total.accepted_bytes += each.accepted_bytes
        for said, requests in each.answers.items():
            total.answers[said] = total.answers.get(said, 0) + requests
    return total


Found: TypeAlias = list[tuple[str, list[Device]]]


def _send(
    running: Running, folder: Path, *, run_s: float, spans_per_s: float, processes: int
) -> tuple[Found, _Watch]:
    """Run all exporter processes at the same time; returns transport and devices of each."""
    transports = [TRANSPORTS[place % len(TRANSPORTS)] for place in range(processes)]
    with ExitStack() as stack:
        watch = _Watch(running, run_s)
        stack.callback(watch.end)
        children = []
        for place, transport in enumerate(transports):
            order = Order(
                transport=transport,
                address=running.addresses[transport],
                devices=DEVICES,
                first=place * DEVICES,
                run_s=run_s,
                spans_per_s=spans_per_s / processes,
            )
            asked = module_command("benchmarks.exporters", json.dumps(asdict(order)))
            process = stack.enter_context(child(asked, folder / "exporters.log"))
            stack.enter_context(deadline(process, run_s + STOP_S + SETTLE_S))
            children.append(process)
        try:
            for process in children:
                _answer(process)  # it has started to send
            watch.start()
            listed = [_devices(_answer(process)) for process in children]
            return list(zip(transports, listed, strict=True)), watch
        except RuntimeError as error:
            log = (folder / "exporters.log").read_text(encoding="utf-8")
            raise RuntimeError(f"{error}\n{log}") from error


def _answer(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(read_line(process.stdout, "exporter process"))


def _devices(listed: Sequence[dict[str, Any]]) -> list[Device]:
    return [Device(**each) for each in listed]


def _settle(running: Running, at_least: int) -> Scrape:
    """Wait until nothing is on its way, and check the accounting identity."""
    pause, waited_s = threading.Event(), 0.0
    while True:
        text = _page(running)
        try:
            accounts = check_identity(text)
        except AssertionError as error:
            raise BrokenPromiseError(str(error)) from error
        traces = [each for (_, signal), each in accounts.items() if signal == "traces"]
        if all(each.pending == 0 and each.received >= at_least for each in traces):
            return parse(text)
        if waited_s >= SETTLE_S:
            raise BrokenPromiseError(f"not settled within {SETTLE_S:g} s: {traces}")
        pause.wait(SAMPLE_S)
        waited_s += SAMPLE_S


def check_promises(total: Device, received: int) -> None:
    """Check that nothing accepted is missing and that no refusal was final.

    A request whose answer never came may have been accepted, so its spans widen the count.
    Raises: BrokenPromiseError.
    """
    final = {
        said: n
        for said, n in total.answers.items()
        if said not in OK and said not in RETRYABLE and said not in UNANSWERED
    }
    if final:
        raise BrokenPromiseError(f"refused for good: {final}")
    if not total.exported <= received <= total.exported + total.unanswered:
        raise BrokenPromiseError(
            f"{total.exported} spans accepted, {total.unanswered} without an answer, "
            f"{received} received"
        )


@contextmanager
def _narrow_gateway() -> Iterator[tuple[Running, Path]]:
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as name:
        folder = Path(name)
        with gateway(folder, sections=NARROW) as running:
            yield running, folder


def capacity(
    running: Running, folder: Path, *, run_s: float, processes: int
) -> tuple[float, Device]:
    """Measure accepted spans a second with every device in a closed loop; tells its sums too."""
    before = _received(parse(_page(running)))
    found, watch = _send(running, folder, run_s=run_s, spans_per_s=0.0, processes=processes)
    total = _add([device for _, devices in found for device in devices])
    check_promises(total, _received(_settle(running, before + total.exported)) - before)
    return watch.accepted_per_s(), total


def _refusals(answers: Mapping[str, int]) -> str:
    listed = [f"{n} {said}" for said, n in sorted(answers.items()) if said not in OK]
    return "; ".join(listed) or "none"


def _client_rows(found: Found, run_s: float) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for transport in TRANSPORTS:
        devices = [each for name, listed in found if name == transport for each in listed]
        total = _add(devices)
        shares = [device.exported / max(1, device.made) for device in devices]
        dropped = total.made - total.exported - total.given_up
        rows.append(
            (
                f"{transport}, {len(devices)} devices",
                number(total.made / run_s),
                f"{total.exported / max(1, total.made):.1%}",
                f"{total.given_up / max(1, total.made):.1%}",
                f"{dropped / max(1, total.made):.1%}",
                f"{min(shares):.0%} to {max(shares):.0%}",
                f"{total.sent_bytes / MILLION:.0f}",
                f"{total.accepted_bytes / MILLION:.0f}",
                _refusals(total.answers),
            )
        )
    return rows


def _client_table(found: Found, run_s: float, capacity_per_s: float) -> Table:
    return Table(
        title=(
            f"Overload: {FACTOR:g} x the capacity of {number(capacity_per_s)} spans/s for "
            f"{run_s:g} s, stock Python SDK exporters"
        ),
        columns=(
            *("clients", "made, spans/s", "accepted", "exporter gave up", "queue dropped"),
            *("accepted of a device", "sent MB", "accepted MB", "refusals, requests"),
        ),
        rows=tuple(_client_rows(found, run_s)),
        notes=(
            f"the gateway is made narrow: it holds {QUEUE_BYTES / MEBI:g} MiB at most and commits "
            f"every {GROUP_S:g} s, with fsync; capacity is what a closed loop of the same "
            "exporters gets",
            "gave up and queue dropped are the clients' own limits: 10 s or 6 tries for a batch, "
            "2,048 spans of queue; hint: the refusal said when to come back",
        ),
    )


def _gateway_table(watch: _Watch, page: Scrape, cores: float) -> Table:
    memory = watch.memory()

    def megabytes(stage: str) -> str:
        return f"{page.total('weir_bytes_total', stage=stage) / MILLION:.1f}"

    stages = ("wire", "inflated", "journal", "store", "forward")
    return Table(
        title="The gateway meanwhile",
        columns=(
            *("received spans", "spans/s", "lost", "residue", "RSS MiB start", "middle", "end"),
            *("slope MiB/min", "cores", *(f"{stage} MB" for stage in stages)),
        ),
        rows=(
            (
                f"{_received(page)}",
                number(watch.accepted_per_s()),
                "0",
                "0",
                f"{memory.rss_start / MEBI:.1f}",
                f"{memory.rss_middle / MEBI:.1f}",
                f"{memory.rss_end / MEBI:.1f}",
                f"{memory.slope_per_minute / MEBI:+.2f}",
                f"{cores:.2f}",
                *(megabytes(stage) for stage in stages),
            ),
        ),
        notes=(
            f"start, middle and end are medians of {PART:.0%} of the run; the slope is a line "
            f"through its second half; the store seals every {SEAL_S:g} s, so that a short run has "
            "several of its waves",
            "lost and residue: the run fails when one of them is not zero; received spans and "
            "bytes include the measuring of the capacity",
        ),
    )


def run(*, run_s: float, calibrate_s: float, processes: int = PROCESSES) -> Report:
    """Measure the capacity, then offer twice as much."""
    with _narrow_gateway() as (running, folder):
        capacity_per_s, closed = capacity(running, folder, run_s=calibrate_s, processes=processes)
        before = _received(parse(_page(running)))
        used_s = cpu_seconds(running.process)
        offered = FACTOR * capacity_per_s
        found, watch = _send(running, folder, run_s=run_s, spans_per_s=offered, processes=processes)
        used_s = cpu_seconds(running.process) - used_s
        total = _add([device for _, devices in found for device in devices])
        page = _settle(running, before + total.exported)
        received = _received(page) - before
        check_promises(total, received)
    memory = watch.memory()
    figures = {
        "accepted_spans_per_s": watch.accepted_per_s(),
        "capacity_spans_per_s": capacity_per_s,
        "closed_loop": asdict(closed),
        "seconds": run_s,
        "received": received,
        "total": asdict(total),
        "queue_dropped": total.made - total.exported - total.given_up,
        "devices": [asdict(device) for _, devices in found for device in devices],
        "memory_bytes": asdict(memory),
        "gateway_cpu_s": used_s,
    }
    tables = (
        _client_table(found, run_s, capacity_per_s),
        _gateway_table(watch, page, used_s / run_s),
    )
    return Report(tables=tables, figures=figures)
