"""Ingest end to end: a real gateway, a load generator and a destination, three processes.

Law: what is reported was answered with success and is found again in the gateway's own count; if
the two differ the benchmark fails. Every run has a gateway and a data directory of its own, with
fsync on.
"""

import json
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

import psutil
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load import Order, Result
from benchmarks.pipeline import example_contracts
from benchmarks.report import MILLION, Report, Summary, Table, number, spread, summarize

SIZES: Final = (1, 8, 64, 512)
TRANSPORTS: Final = ("grpc", "http")
OPEN_SIZE: Final = 64
OPEN_SHARE: Final = 0.5  # of the rate that the closed loop reached
KEEP_RATE: Final = 0.05
CONNECTIONS: Final = 4
# Requests under way: enough that a group commit never waits for the generator, and not so many
# that an answer waits for its group's turn more than once.
LANES: Final = {1: 256, 8: 192, 64: 96, 512: 24}
WARM_S: Final = 2.0
SAMPLE_S: Final = 0.05
READY_S: Final = 30.0
STOP_S: Final = 60.0
REQUEST_S: Final = 10.0
MEBI: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run. Units: rss_bytes the most that was seen; cpu_s and machine_s, CPU of the gateway and
    of everything that ran on the machine, in the window; stages and disk_bytes, what the gateway
    counted by stage and what it wrote to the disk in all, from its start to the end of the load."""

    result: Result
    rss_bytes: int
    cpu_s: float
    machine_s: float
    stages: Mapping[str, int]
    disk_bytes: int

    @property
    def spans_per_s(self) -> float:
        """Accepted spans a second over the whole window."""
        return self.result.accepted / self.result.seconds

    @property
    def others_cores(self) -> float:
        """Cores that others used meanwhile: the destination, the kernel, and strangers."""
        return (self.machine_s - self.cpu_s - self.result.cpu_s) / self.result.seconds

    @property
    def refused_ratio(self) -> float:
        """Share of the requests that were not accepted."""
        return sum(self.result.failed.values()) / max(1, self.result.requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A gateway that is ready."""

    process: psutil.Process
    addresses: dict[str, str]
    api: str


def module_command(module: str, *arguments: str) -> list[str]:
    """Say how a module is run as a program of this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def read_line(stream: IO[str], what: str) -> str:
    """Read one line, or fail when the process ended instead."""
    line = stream.readline()
    if not line:
        raise RuntimeError(f"the {what} ended without a word")
    return line


@contextmanager
def child(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process; end it with its standard input, then by signal."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    with process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def gateway(
    folder: Path,
    keep_rate: float = KEEP_RATE,
    sections: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Running]:
    """Run a gateway with the example contracts and a destination that takes everything.

    Named sections replace those of the site file.
    """
    with child(module_command("benchmarks.sink"), folder / "sink.log") as sink:
        assert sink.stdout is not None
        port = int(read_line(sink.stdout, "destination"))
        site = {
            "contracts": [str(path) for path in example_contracts(folder, keep_rate)],
            "sampling": {"rate": keep_rate},
            "receive": {
                "grpc": {"listen": "127.0.0.1:0"},
                "http": {"listen": "127.0.0.1:0"},
            },
            "journal": {"fsync": True},
            "forward": [{"name": "cloud", "otlp": {"endpoint": f"http://127.0.0.1:{port}"}}],
            "api": {"listen": "127.0.0.1:0"},
            **(sections or {}),
        }
        path = folder / "site.yaml"
        path.write_text(yaml.safe_dump(site), encoding="utf-8")
        command = module_command(
            "gateway", "run", "--config", str(path), "--data-dir", str(folder / "data")
        )
        with child(command, folder / "gateway.log") as process:
            assert process.stdout is not None
            try:
                ready = json.loads(read_line(process.stdout, "gateway"))
            except RuntimeError as error:
                log = (folder / "gateway.log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"{error}\n{log}") from error
            yield Running(
                process=psutil.Process(process.pid),
                addresses={"grpc": ready["otlp_grpc"], "http": ready["otlp_http"]},
                api=ready["api"],
            )


def counted(api: str, name: str, label: str) -> dict[str, int]:
    """Read a counter of the gateway by the first value of a label."""
    with urllib.request.urlopen(f"http://{api}/metrics", timeout=REQUEST_S) as answer:
        text = answer.read().decode()
    found: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name:
                found.setdefault(sample.labels[label], int(sample.value))
    if not found:
        raise RuntimeError(f"the gateway does not say {name}")
    return found


class _Watch:
    """Sample the gateway's memory in a thread until told to stop."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.rss_bytes = 0

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.rss_bytes = max(self.rss_bytes, self._process.memory_info().rss)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def cpu_seconds(process: psutil.Process) -> float:
    """Read the CPU seconds that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _busy_s() -> float:
    """Read the CPU seconds that the whole machine has spent on work."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def one_run(
    transport: str, spans: int, *, run_s: float, warm_s: float, requests_per_s: float = 0.0
) -> Run:
    """Start everything, send, check the counts, stop everything."""
    with tempfile.TemporaryDirectory(prefix="weir-bench-") as name, gateway(Path(name)) as running:
        order = Order(
            transport=transport,
            address=running.addresses[transport],
            spans=spans,
            lanes=LANES.get(spans, max(LANES.values())),
            connections=CONNECTIONS,
            warm_s=warm_s,
            run_s=run_s,
            requests_per_s=requests_per_s,
        )
        command = module_command("benchmarks.load", json.dumps(asdict(order)))
        log = Path(name) / "load.log"
        with _Watch(running.process) as watch, child(command, log) as load:
            assert load.stdout is not None
            try:
                read_line(load.stdout, "load generator")
                cpu_s, machine_s = cpu_seconds(running.process), _busy_s()
                with deadline(load, run_s + STOP_S):
                    line = read_line(load.stdout, "load generator")
            except RuntimeError as error:
                raise RuntimeError(f"{error}\n{log.read_text(encoding='utf-8')}") from error
            cpu_s, machine_s = cpu_seconds(running.process) - cpu_s, _busy_s() - machine_s
        result = Result(**json.loads(line))
        if not result.accepted:
            said = log.read_text(encoding="utf-8")
            raise RuntimeError(f"nothing was accepted, answers: {result.failed}\n{said}")
        items = counted(running.api, "weir_received_items_total", "transport")[transport]
        stages = counted(running.api, "weir_bytes_total", "stage")
        disk_bytes = running.process.io_counters().write_bytes
        unknown = result.unanswered * spans
        if not result.accepted_total <= items <= result.accepted_total + unknown:
            raise RuntimeError(f"{result.accepted_total} spans accepted, {items} received")
        return Run(
            result=result,
            rss_bytes=watch.rss_bytes,
            cpu_s=cpu_s,
            machine_s=machine_s,
            stages=stages,
            disk_bytes=disk_bytes,
        )


@contextmanager
def deadline(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """End a process that says nothing for too long."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def milliseconds(run: Run, quantile: str) -> str:
    """Write a quantile of the time to the acknowledgement."""
    found = run.result.latency_s.get(quantile)
    return "-" if found is None else f"{found * 1e3:.1f}"


def _cells(run: Run) -> tuple[str, ...]:
    accepted = run.result.accepted
    cpu = f"{run.cpu_s / accepted * MILLION:.2f}" if accepted else "-"
    return (
        f"{run.refused_ratio:.2%}",
        milliseconds(run, "p50"),
        milliseconds(run, "p99"),
        f"{run.rss_bytes / MEBI:.0f}",
        cpu,
        f"{run.cpu_s / run.result.seconds:.2f}",
        f"{run.result.cpu_s / run.result.seconds:.2f}",
        f"{run.others_cores:.2f}",
    )


_COLUMNS: Final = (
    "refused",
    "p50 ms",
    "p99 ms",
    "RSS MiB",
    "CPU s/M spans",
    "cores",
    "generator",
    "others",
)


def _figures(run: Run, rate: Summary) -> dict[str, Any]:
    return {
        "spans_per_s": rate,
        "accepted": run.result.accepted,
        "refused_ratio": run.refused_ratio,
        "failed": run.result.failed,
        "ack_s": run.result.latency_s,
        "rss_bytes_max": run.rss_bytes,
        "gateway_cpu_s": run.cpu_s,
        "generator_cpu_s": run.result.cpu_s,
        "others_cores": run.others_cores,
        "seconds": run.result.seconds,
    }


def run(
    *,
    run_s: float,
    warm_s: float = WARM_S,
    sizes: Sequence[int] = SIZES,
    transports: Sequence[str] = TRANSPORTS,
    open_loop: bool = True,
) -> Report:
    """Measure all sizes over all transports; `run_s` is the window of each run."""
    rows, open_rows = [], []
    figures: dict[str, Any] = {}
    for transport in transports:
        for size in sizes:
            found = one_run(transport, size, run_s=run_s, warm_s=warm_s)
            rate = summarize(found.result.spans_per_s)
            figures[f"{transport}/{size}"] = _figures(found, rate)
            rows.append((f"{transport}, {size} spans", spread(rate), *_cells(found)))
            if size != OPEN_SIZE or not open_loop:
                continue
            asked = found.spans_per_s * OPEN_SHARE
            half = one_run(transport, size, run_s=run_s, warm_s=warm_s, requests_per_s=asked / size)
            rate = summarize(half.result.spans_per_s)
            figures[f"{transport}/{size}/open"] = _figures(half, rate) | {"asked": asked}
            open_rows.append(
                (f"{transport}, {size} spans at {number(asked)}/s", spread(rate), *_cells(half))
            )
    tables = [
        Table(
            title="Ingest, end to end on the whole machine, closed loop, fsync on, 5 % forwarded",
            columns=("requests", "accepted, spans/s", *_COLUMNS),
            rows=tuple(rows),
            notes=(
                f"median [quartiles] of half seconds in {run_s:g} s after {warm_s:g} s; acks seen "
                "by the client",
                "cores: CPU a second of the gateway, the load generator and all others; a figure "
                "with more than 0.2 for others was taken on a busy machine",
            ),
        )
    ]
    if open_rows:
        tables.append(
            Table(
                title="Ingest at half of that rate, open loop, random arrivals",
                columns=("requests", "accepted, spans/s", *_COLUMNS),
                rows=tuple(open_rows),
                notes=("time from the instant a request was due",),
            )
        )
    return Report(tables=tuple(tables), figures=figures)
