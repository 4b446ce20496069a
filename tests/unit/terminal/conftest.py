"""A served API and a command line that finds it."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Final

import pytest

from tests.unit.terminal.server import Api, Handler, Weir

JOIN_S: Final = 10.0


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    found = Api()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"api": found}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("WEIR_API", found.url)
    monkeypatch.delenv("WEIR_TOKEN", raising=False)
    monkeypatch.setenv("COLUMNS", "240")
    yield found
    server.shutdown()
    thread.join(JOIN_S)
    server.server_close()


@pytest.fixture
def weir(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Weir:
    return Weir(monkeypatch, capsys)
