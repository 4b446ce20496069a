"""Processes that tests start, and waiting for what they do.

Law: a process is only ever ended by its id, and a failure message carries the end of its log.
"""

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent

PROMETHEUS: Final = Path("/usr/bin/prometheus")
PROMTOOL: Final = Path("/usr/bin/promtool")
ALERTMANAGER: Final = Path("/usr/bin/prometheus-alertmanager")
AMTOOL: Final = Path("/usr/bin/amtool")
PACKAGES: Final = {
    PROMETHEUS: "prometheus",
    PROMTOOL: "prometheus",
    ALERTMANAGER: "prometheus-alertmanager",
    AMTOOL: "prometheus-alertmanager",
}
# Where tools/clients.sh puts npm packages, and where it says why it could not.
CLIENTS: Final = ROOT / "build" / "clients"

READY_S: Final = 30.0
STOP_S: Final = 30.0
POLL_S: Final = 0.05
REQUEST_S: Final = 10.0
LOG_TAIL_BYTES: Final = 4000
# Between finding a free port and binding it another process may take it.
START_ATTEMPTS: Final = 3

_PAUSE: Final = threading.Event()

T = TypeVar("T")

Json = Any  # JSON value as the standard library makes it


def require(program: Path) -> Path:
    """Return the program, or skip the test and name the Debian package that holds it."""
    if not program.exists():
        pytest.skip(f"{program} is missing; Debian package: {PACKAGES[program]}")
    return program


def require_javascript() -> tuple[str, Path]:
    """Return node and the folder of the npm packages, or skip the test and say what is missing."""
    node, why = shutil.which("node"), CLIENTS / "missing"
    if node is None or not (CLIENTS / "installed.json").exists():
        pytest.skip(why.read_text() if why.exists() else "run `make clients` first")
    return node, CLIENTS / "node_modules"


def free_port() -> int:
    """Ask the system for a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(
    attempt: Callable[[], T | None], *, timeout_s: float, what: str | Callable[[], str]
) -> T:
    """Repeat until the attempt gives something true, and return it.

    Raises: AssertionError after timeout_s, naming what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        result = attempt()
        if result:
            return result
        if time.monotonic() >= deadline:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {timeout_s:g} s: {told}")
        _PAUSE.wait(POLL_S)


def get(url: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Fetch a URL and return status and body; an HTTP error status is no exception."""
    request = urllib.request.Request(url, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_S) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def get_json(url: str) -> Json:
    """Fetch a URL that must answer 200 with JSON."""
    status, body = get(url)
    assert status == 200, f"{url}: {status} {body[:LOG_TAIL_BYTES]!r}"
    return json.loads(body)


def answers(url: str) -> bool:
    """Tell whether a URL answers with 200 now."""
    try:
        return get(url)[0] == 200
    except OSError:
        return False


@dataclass(slots=True, kw_only=True)
class Server:
    """One process of a test, with its log file."""

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path
    killed: bool = False

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Tell whether the process has not ended."""
        return self.process.poll() is None

    def log(self) -> str:
        """Return the end of the log, for a failure message."""
        text = self.log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return f"--- end of the log of {self.name} (pid {self.pid}) ---\n{text}"

    def kill(self) -> None:
        """End the process as a power failure would, and wait until it is gone."""
        self.killed = True
        if self.running:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_S)

    def stop(self) -> int:
        """Ask the process to end, and return its exit code."""
        if self.running:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.name} did not end within {STOP_S:g} s\n{self.log()}"
            ) from None

    def wait_ready(self, url: str) -> bool:
        """Wait until the URL answers 200; False when the process ended before that."""
        wait_until(
            lambda: not self.running or answers(url),
            timeout_s=READY_S,
            what=lambda: f"{self.name} ready\n{self.log()}",
        )
        return self.running


def launch(name: str, command: Sequence[str], directory: Path) -> Server:
    """Start a program whose output goes to a log file in the directory."""
    log_path = directory / f"{name}.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    return Server(name=name, process=process, log_path=log_path)


def start_listener(
    name: str, command_for: Callable[[int], Sequence[str]], directory: Path
) -> tuple[Server, str]:
    """Start a server that has `/-/ready` on a free port; returns it and its base URL."""
    for _ in range(START_ATTEMPTS):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        server = launch(name, command_for(port), directory)
        if server.wait_ready(f"{url}/-/ready"):
            return server, url
    raise AssertionError(f"{name} did not start {START_ATTEMPTS} times\n{server.log()}")
