"""An API in memory that is served over a real socket, and the command line that asks it.

The answers are made of the API's own dataclasses, so that a change of the API shows here.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Final
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway import __main__ as cli
from gateway.api import views
from gateway.api.sources import AnomalyView, DiveDevice, DiveState
from gateway.batch import AnomalyId, DiveId
from tests.process import Json
from tests.unit.api.fakes import ANOMALY, MEASURE, NOW_NS, STATUS

SECOND_NS: Final = 1_000_000_000

VIEW: Final = AnomalyView(
    anomaly=ANOMALY,
    state="acknowledged",
    acknowledged_by="ann",
    acknowledged_ns=NOW_NS,
    dives=(DiveId("d1"),),
)
DIVE: Final = DiveState(
    id=DiveId("d1"),
    state="streaming",
    anomaly_id=AnomalyId("a1"),
    reason="night shift",
    requested_by="ann",
    created_ns=NOW_NS,
    updated_ns=NOW_NS,
    not_after_ns=NOW_NS + 900 * SECOND_NS,
    bytes_max=8 << 20,
    bytes=3 << 19,
    traces_wanted=4,
    traces_received=2,
    missing="",
    devices=(
        DiveDevice(device="cam-1", state="streaming", traces=2, bytes=3 << 19, detail="uploading"),
    ),
)


def body(value: object) -> bytes:
    """Write a value as the API does."""
    content = views.respond(value).body
    assert isinstance(content, bytes)
    return content


def dive(state: str, received: int, **changes: Json) -> bytes:
    return body(dataclasses.replace(DIVE, state=state, traces_received=received, **changes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer of the server."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None  # when the header shall not tell the truth


def problem(status: int, detail: str, **headers: str) -> Reply:
    kind = {"Content-Type": "application/problem+json; charset=utf-8"}
    document = {"type": "about:blank", "title": "?", "status": status, "detail": detail}
    return Reply(status=status, body=json.dumps(document).encode(), headers=kind | headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Api:
    """Replies by method and path; the last one of a list stays."""

    url: str = ""
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def put(self, key: str, *replies: Reply | bytes) -> None:
        """Answer `GET /path` so."""
        self.replies[key] = [Reply(body=r) if isinstance(r, bytes) else r for r in replies]

    def reply(self, asked: Asked) -> Reply:
        """Take the next reply."""
        self.asked.append(asked)
        waiting = self.replies.get(f"{asked.method} {asked.path}")
        if waiting is None:
            return problem(404, "there is nothing at this path")
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


class Handler(BaseHTTPRequestHandler):
    """Answers from an `Api`."""

    api: Api

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        size = int(self.headers.get("Content-Length", "0"))
        asked = Asked(
            method=self.command,
            path=parts.path,
            query=parse_qs(parts.query),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(size),
        )
        reply = self.api.reply(asked)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        length = len(reply.body) if reply.length is None else reply.length
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


Said = tuple[int, str, str]


@dataclass(frozen=True)
class Weir:
    """Calls the command line as the console script does."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Said:
        """Return exit code, standard output and standard error."""
        self.monkeypatch.setattr(sys, "argv", ["weir", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = self.capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int | None)
        return code or 0, said.out, said.err


PAGES: Final = {
    "GET /api/v1/status": body(STATUS),
    "GET /api/v1/slo": body(views.Slos(items=MEASURE.slos, total=1)),
    "GET /api/v1/drift": body(
        views.Drifts(items=MEASURE.drift, total=2, budget=MEASURE.budget, reported=MEASURE.reported)
    ),
    "GET /api/v1/anomalies": body(views.AnomalyPage(items=(VIEW,), total=1)),
    "GET /api/v1/anomalies/a1": body(VIEW),
    "POST /api/v1/anomalies/a1/ack": body(VIEW),
    "GET /api/v1/dives": body(views.DivePage(items=(DIVE,), total=1)),
    "GET /api/v1/dives/d1": body(DIVE),
}
