"""Real Prometheus and Alertmanager for tests, and the webhook that Alertmanager tells.

Law: a server is ready when its block begins and gone when it ends. Each listens on a free loopback
port and keeps its files in a directory of the test.
"""

import json
import threading
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.process import (
    ALERTMANAGER,
    POLL_S,
    PROMETHEUS,
    READY_S,
    Json,
    Server,
    get_json,
    require,
    start_listener,
    wait_until,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One series of an instant query."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """A running Prometheus."""

    server: Server
    url: str

    def api(self, path: str, **parameters: str) -> Json:
        """Call `/api/v1/` and return `data` of a successful answer."""
        query = urllib.parse.urlencode(parameters)
        answer = get_json(f"{self.url}/api/v1/{path}?{query}")
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[Sample]:
        """Evaluate an expression now."""
        data = self.api("query", query=expression)
        assert data["resultType"] == "vector", data
        return [
            Sample(labels=row["metric"], value=float(row["value"][1])) for row in data["result"]
        ]

    def query_range(self, expression: str, *, start_s: float, end_s: float, step_s: float) -> Json:
        """Evaluate an expression over a range; returns `result` as Prometheus gives it."""
        return self.api(
            "query_range", query=expression, start=str(start_s), end=str(end_s), step=str(step_s)
        )["result"]

    def exemplars(self, expression: str, *, start_s: float, end_s: float) -> list[Json]:
        """Return all exemplars of the series that the expression selects."""
        data = self.api("query_exemplars", query=expression, start=str(start_s), end=str(end_s))
        return [exemplar for series in data for exemplar in series["exemplars"]]

    def alerts(self) -> list[Json]:
        """Return pending and firing alerts."""
        alerts: list[Json] = self.api("alerts")["alerts"]
        return alerts

    def wait_for(self, expression: str, *, timeout_s: float = READY_S) -> list[Sample]:
        """Wait until an expression gives at least one series, and return them."""
        return wait_until(
            lambda: self.query(expression),
            timeout_s=timeout_s,
            what=lambda: f"a result of {expression}\n{self.server.log()}",
        )


def prometheus_config(
    *,
    targets: Sequence[str],
    labels: Mapping[str, str],
    rules: Sequence[Path],
    alertmanagers: Sequence[str],
    interval: str,
) -> dict[str, Json]:
    """Make a Prometheus configuration that scrapes `/metrics` of the targets as job `weir`."""
    static = {"targets": list(targets), "labels": dict(labels)}
    managers = {"static_configs": [{"targets": list(alertmanagers)}]}
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [{"job_name": "weir", "static_configs": [static]}],
        "alerting": {"alertmanagers": [managers] if alertmanagers else []},
    }


@contextmanager
def prometheus(
    directory: Path,
    *,
    targets: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    rules: Sequence[Path] = (),
    alertmanagers: Sequence[str] = (),
    interval: str = "1s",
) -> Iterator[Prometheus]:
    """Run Prometheus with exemplar storage and a remote-write receiver.

    `targets` and `alertmanagers` are `host:port`; skips when the Debian package is missing.
    """
    program = require(PROMETHEUS)
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "prometheus.yml"
    config.write_text(
        yaml.safe_dump(
            prometheus_config(
                targets=targets,
                labels=labels or {},
                rules=rules,
                alertmanagers=alertmanagers,
                interval=interval,
            )
        )
    )

    def command_for(port: int) -> Sequence[str]:
        return (
            str(program),
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
        )

    server, url = start_listener("prometheus", command_for, directory)
    try:
        yield Prometheus(server=server, url=url)
    finally:
        server.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alertmanager:
    """A running Alertmanager."""

    server: Server
    url: str

    @property
    def address(self) -> str:
        """Return `host:port`."""
        return self.url.removeprefix("http://")

    def alerts(self) -> list[Json]:
        """Return all alerts it holds."""
        alerts: list[Json] = get_json(f"{self.url}/api/v2/alerts")
        return alerts

    def wait_for(self, alertname: str, *, timeout_s: float = READY_S, **labels: str) -> list[Json]:
        """Wait until it holds an alert of this name and labels, and return all such."""
        wanted = {"alertname": alertname, **labels}
        return wait_until(
            lambda: [a for a in self.alerts() if wanted.items() <= a["labels"].items()],
            timeout_s=timeout_s,
            what=lambda: f"alert {wanted} among {self.alerts()}\n{self.server.log()}",
        )


def alertmanager_config(webhook_url: str) -> dict[str, Json]:
    """Make a configuration that tells every alert to one webhook almost at once."""
    return {
        "route": {
            "receiver": "webhook",
            "group_by": ["alertname"],
            "group_wait": "100ms",
            "group_interval": "200ms",
            "repeat_interval": "1h",
        },
        "receivers": [
            {
                "name": "webhook",
                "webhook_configs": [{"url": webhook_url, "send_resolved": True}],
            }
        ],
    }


@contextmanager
def alertmanager(directory: Path, config: Mapping[str, Json]) -> Iterator[Alertmanager]:
    """Run one Alertmanager without a cluster; skips when the Debian package is missing."""
    program = require(ALERTMANAGER)
    directory.mkdir(parents=True, exist_ok=True)
    config_path = directory / "alertmanager.yml"
    config_path.write_text(yaml.safe_dump(dict(config)))

    def command_for(port: int) -> Sequence[str]:
        return (
            str(program),
            f"--config.file={config_path}",
            f"--storage.path={directory / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        )

    server, url = start_listener("alertmanager", command_for, directory)
    try:
        yield Alertmanager(server=server, url=url)
    finally:
        server.stop()


@dataclass(slots=True, kw_only=True)
class Webhook:
    """Receives what Alertmanager tells a person; `notifications` in order of arrival."""

    url: str
    notifications: list[Json] = field(default_factory=list)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(
        self, alertname: str, *, status: str = "firing", timeout_s: float = READY_S
    ) -> Json:
        """Wait for a notification that has an alert of this name and status; returns the alert."""

        def found() -> Json | None:
            for notification in self.notifications:
                for alert in notification["alerts"]:
                    if alert["labels"]["alertname"] == alertname and alert["status"] == status:
                        return alert
            return None

        with self.arrived:
            self.arrived.wait_for(lambda: found() is not None, timeout_s)
            alert = found()
            assert alert is not None, f"no {status} {alertname} in {self.notifications}"
            return alert


@contextmanager
def webhook() -> Iterator[Webhook]:
    """Listen on a free port for notifications of Alertmanager."""
    hook = Webhook(url="")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with hook.arrived:
                hook.notifications.append(json.loads(body))
                hook.arrived.notify_all()
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the test prints notifications when it fails."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        hook.url = f"http://127.0.0.1:{listener.server_port}/"
        thread = threading.Thread(target=listener.serve_forever, args=(POLL_S,))
        thread.start()
        try:
            yield hook
        finally:
            listener.shutdown()
            thread.join()
