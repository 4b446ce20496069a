"""Real servers for tests: the gateway itself, Prometheus, Alertmanager and a webhook.

Law: a server is ready when its block begins and gone when it ends. Each listens on a free loopback
port and keeps its files in a directory of the test.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tests.ledger_check import check_identity
from tests.monitoring import (
    Alertmanager,
    Prometheus,
    Webhook,
    alertmanager,
    alertmanager_config,
    prometheus,
    webhook,
)
from tests.process import (
    READY_S,
    ROOT,
    Json,
    Server,
    answers,
    free_port,
    get,
    get_json,
    launch,
    wait_until,
)

__all__ = [
    "Alertmanager",
    "Gateway",
    "Prometheus",
    "Server",
    "Webhook",
    "alertmanager",
    "alertmanager_config",
    "free_port",
    "gateway",
    "prometheus",
    "start_gateway",
    "wait_until",
    "webhook",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A running gateway and the addresses of its ready line (`host:port`)."""

    server: Server
    otlp_grpc: str
    otlp_http: str
    api: str
    data_dir: Path

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self.server.pid

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Fetch a path of the API."""
        return get(f"http://{self.api}{path}", headers)

    def get_json(self, path: str) -> Json:
        """Fetch a path of the API that must answer 200 with JSON."""
        return get_json(f"http://{self.api}{path}")

    def metrics(self) -> str:
        """Scrape `/metrics` in the Prometheus text format."""
        status, body = self.get("/metrics", {"Accept": "text/plain"})
        assert status == 200, body
        return body.decode()

    def wait_ready(self) -> None:
        """Wait until `/readyz` answers 200."""
        wait_until(
            lambda: answers(f"http://{self.api}/readyz"),
            timeout_s=READY_S,
            what=lambda: f"readiness\n{self.server.log()}",
        )

    def check(self) -> None:
        """Assert that every item of every signal is accounted for."""
        check_identity(self.metrics())

    def kill(self) -> None:
        """End the gateway as a power failure would; its account must balance to the end."""
        if self.server.running:
            self.check()
        self.server.kill()


LOOPBACK: Final = (
    "receive.grpc.listen=127.0.0.1:0",
    "receive.http.listen=127.0.0.1:0",
    "api.listen=127.0.0.1:0",
)


def _read_ready(stream: IO[bytes], server: Server) -> dict[str, Json]:
    """Read the ready line, and keep reading in the background so that the pipe never fills."""
    lines: queue.Queue[bytes] = queue.Queue()

    def drain() -> None:
        with stream:
            for line in stream:
                lines.put(line)
        lines.put(b"")

    threading.Thread(target=drain, daemon=True).start()
    try:
        line = lines.get(timeout=READY_S)
    except queue.Empty:
        raise AssertionError(f"no ready line within {READY_S:g} s\n{server.log()}") from None
    assert line, f"the gateway ended before it was ready\n{server.log()}"
    ready: dict[str, Json] = json.loads(line)
    assert ready["ready"] is True, ready
    return ready


def start_gateway(
    directory: Path,
    *,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    data_dir: Path | None = None,
) -> Gateway:
    """Start the gateway and wait for its ready line; the caller ends it.

    All listeners take free ports unless an override says otherwise (the last one wins).
    Raises: AssertionError with the log when it does not become ready.
    """
    directory.mkdir(parents=True, exist_ok=True)
    data = data_dir if data_dir is not None else directory / "data"
    command = [sys.executable, "-m", "gateway", "run", "--data-dir", str(data)]
    if config is not None:
        command += ["--config", str(config)]
    for override in (*LOOPBACK, *overrides):
        command += ["--set", override]
    log_path = directory / "gateway.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    server = Server(name="gateway", process=process, log_path=log_path)
    assert process.stdout is not None
    try:
        ready = _read_ready(process.stdout, server)
    except BaseException:
        server.kill()
        raise
    return Gateway(
        server=server,
        otlp_grpc=ready["otlp_grpc"],
        otlp_http=ready["otlp_http"],
        api=ready["api"],
        data_dir=Path(ready["data_dir"]),
    )


@contextmanager
def gateway(
    directory: Path,
    *,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    data_dir: Path | None = None,
) -> Iterator[Gateway]:
    """Run the gateway for a block; at its end it must balance, drain and exit 0, unless killed."""
    running = start_gateway(
        directory,
        config=config,
        overrides=overrides,
        environment=environment,
        data_dir=data_dir,
    )
    try:
        yield running
        if running.server.running:
            running.check()
    except BaseException:
        running.server.kill()
        raise
    if not running.server.killed:
        code = running.server.stop()
        assert code == 0, f"the gateway ended with {code}\n{running.server.log()}"


@contextmanager
def collector(name: str, directory: Path, *arguments: str) -> Iterator[Server]:
    """Run a collector's command for a block; it is asked to end at the end."""
    server = launch(name, [sys.executable, "-m", f"collectors.{name}", *arguments], directory)
    try:
        yield server
    except BaseException:
        server.kill()
        raise
    assert server.stop() == 0, server.log()
