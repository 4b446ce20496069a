"""A backlog after an outage: how fast it leaves, how much memory and disk it takes meanwhile.

Law: three processes: this one watches, one fills an outbox to its limit and drains it, one is the
destination. The fill goes past the limit, so that the disk is seen at its fullest; every item is
forwarded or counted as given up, or the benchmark fails.
"""

import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks.drain import Order
from benchmarks.ingest import child, module_command, read_line
from benchmarks.report import Report, Table, number
from gateway.journal.checkpoint import WAL_BYTES_KEPT

MEBI: Final = 1 << 20
# A frame holds 1 MiB of protobuf, of which zstd leaves about this much.
BODY_BYTES: Final = 160 << 10
PAST_LIMIT: Final = 1.05
SAMPLE_S: Final = 0.02

RSS_MIB_MAX: Final = 256
DISK_RATIO_MAX: Final = 1.05


@dataclass(slots=True)
class Peak:
    """The most that was seen since the last look. Units: bytes."""

    rss: int = 0
    disk: int = 0


class Watch:
    """Sample the memory of a process and the disk that a folder takes."""

    def __init__(self, pid: int, folder: Path) -> None:
        self._process = psutil.Process(pid)
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._peak = Peak()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.sample()

    def sample(self) -> Peak:
        """Look now."""
        now = Peak(rss=self._process.memory_info().rss, disk=disk_bytes(self._folder))
        self._peak.rss = max(self._peak.rss, now.rss)
        self._peak.disk = max(self._peak.disk, now.disk)
        return now

    def peak(self) -> Peak:
        """Return the most since the last call."""
        self.sample()
        found, self._peak = self._peak, Peak()
        return found

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def disk_bytes(folder: Path) -> int:
    """Add up what the database and its log take on disk."""
    size = 0
    for path in folder.glob("state.db*"):
        try:
            size += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return size


@contextmanager
def _processes(folder: Path, order: Order) -> Iterator[subprocess.Popen[str]]:
    with child(module_command("benchmarks.sink"), folder / "sink.log") as sink:
        assert sink.stdout is not None
        port = int(read_line(sink.stdout, "destination"))
        with child(module_command("benchmarks.drain"), folder / "drain.log") as process:
            _say(process, json.dumps({**asdict(order), "url": f"http://127.0.0.1:{port}"}))
            yield process


def _say(process: subprocess.Popen[str], text: str = "") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()


def _phase(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(read_line(process.stdout, "drain"))
    return found


def run(*, limit_bytes: int, body_bytes: int = BODY_BYTES) -> Report:
    """Fill and drain once."""
    with tempfile.TemporaryDirectory(prefix="weir-backlog-") as name:
        folder = Path(name)
        order = Order(
            folder=name,
            url="",
            body_bytes=body_bytes,
            fill_bytes=int(limit_bytes * PAST_LIMIT),
            limit_bytes=limit_bytes,
        )
        with _processes(folder, order) as process:
            assert _phase(process)["phase"] == "idle"
            with Watch(process.pid, folder) as watch:
                idle = watch.sample().rss
                watch.peak()
                _say(process)
                full = _phase(process)
                filling = watch.peak()
                _say(process)
                drained = _phase(process)
                draining = watch.peak()
                after = watch.sample()
                _say(process)
    if drained["pending"] or drained["forwarded"] != full["pending"]:
        raise RuntimeError(f"items were lost: {full} {drained}")
    frames = full["pending"] / (full["pending"] + full["dead"])
    sent_mb = frames * (order.fill_bytes // body_bytes) * body_bytes / 1e6
    return _report(order, idle, filling, draining, after, full, drained, sent_mb)


def _report(
    order: Order,
    idle: int,
    filling: Peak,
    draining: Peak,
    after: Peak,
    full: dict[str, Any],
    drained: dict[str, Any],
    sent_mb: float,
) -> Report:
    figures = {
        "limit_bytes": order.limit_bytes,
        "fill_mb_per_s": order.fill_bytes / 1e6 / full["seconds"],
        "drain_mb_per_s": sent_mb / drained["seconds"],
        "idle_rss_bytes": idle,
        "rss_above_idle_bytes": max(filling.rss, draining.rss) - idle,
        "disk_ratio_filling": filling.disk / order.limit_bytes,
        "disk_ratio_draining": draining.disk / order.limit_bytes,
        "disk_bytes_after": after.disk,
        "seconds_by_step": {
            each: drained[f"{each}_s"] / drained["seconds"] for each in ("fetch", "mark", "vacuum")
        },
    }
    shares = ", ".join(f"{n} {100 * s:.0f} %" for n, s in figures["seconds_by_step"].items())
    rss = figures["rss_above_idle_bytes"] / MEBI
    ratio = max(figures["disk_ratio_filling"], figures["disk_ratio_draining"])
    rows = (
        ("fill", f"{number(figures['fill_mb_per_s'])} MB/s", ""),
        ("drain", f"{number(figures['drain_mb_per_s'])} MB/s", shares),
        ("memory above idle", f"{number(rss)} MiB", f"aim {RSS_MIB_MAX} MiB"),
        ("disk at most", f"{100 * ratio:.1f} % of the limit", f"aim {100 * DISK_RATIO_MAX:.0f} %"),
        ("disk afterwards", f"{after.disk / MEBI:.1f} MiB", ""),
    )
    title = (
        f"backlog of {order.limit_bytes / MEBI:.0f} MiB in frames of"
        f" {order.body_bytes / 1024:.0f} KiB, synced"
    )
    note = f"SQLite's log takes up to {WAL_BYTES_KEPT / MEBI:.0f} MiB of the disk beside the limit"
    table = Table(title=title, columns=("", "measured", ""), rows=rows, notes=(note,))
    return Report(tables=(table,), figures=figures)
