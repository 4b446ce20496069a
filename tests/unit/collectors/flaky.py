"""A server on loopback that misbehaves as told: hangs, drips, redirects, answers with a page."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

WAIT_S: Final = 20.0
HANG: Final = 0
HANG_UP: Final = -1


@dataclass(slots=True)
class Script:
    """What to do with the next requests, one entry each; after the last one all are taken."""

    statuses: list[int]
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = "text/html"
    requests: int = 0
    url: str = ""
    seen: list[dict[str, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


def _handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            script.requests += 1
            script.seen.append({name.lower(): value for name, value in self.headers.items()})
            status = script.statuses.pop(0) if script.statuses else 200
            if status == HANG:
                script.over.wait(WAIT_S)
            if status in (HANG, HANG_UP):
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            body = b"" if status == 200 and not script.headers else script.body
            self.send_response(status)
            for name, value in script.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", script.content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: tests look at what was kept."""

    return Handler


@contextmanager
def flaky(*statuses: int, **how: Any) -> Iterator[Script]:
    """Run the server for a block."""
    script = Script(list(statuses), **how)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(script)) as server:
        server.daemon_threads = True
        script.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield script
        finally:
            script.over.set()
            server.shutdown()
            thread.join()
