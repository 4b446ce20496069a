"""Address, token, and one sentence for everything that goes wrong on the way."""

import dataclasses
import socket
import threading
from pathlib import Path
from typing import Final

import pytest

from gateway.api import views
from gateway.api.sources import AnomalyView
from gateway.errors import InvalidConfigError
from gateway.terminal import client
from tests.process import free_port
from tests.unit.api.fakes import ANOMALY
from tests.unit.terminal.server import PAGES, Api, Reply, Weir, body, problem

JOIN_S: Final = 10.0


def test_option_wins_over_the_environment_before_and_after_the_subcommand(
    api: Api, weir: Weir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    api.put("GET /api/v1/anomalies/a1", PAGES["GET /api/v1/anomalies/a1"])
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    monkeypatch.setenv("WEIR_API", "http://127.0.0.1:1")
    monkeypatch.setenv("WEIR_TOKEN", "from-the-environment")
    given = ("--json", "--api", api.url, "--token-file", str(file))
    expected = PAGES["GET /api/v1/anomalies/a1"].decode() + "\n"
    assert weir("anomalies", "show", "a1", *given) == (0, expected, "")
    assert weir("anomalies", *given, "show", "a1") == (0, expected, "")
    assert weir("anomalies", "show", "--api", api.url, "a1")[0] == 0
    assert [asked.headers.get("authorization") for asked in api.asked] == [
        "Bearer from-the-file",
        "Bearer from-the-file",
        "Bearer from-the-environment",
    ]


def test_without_a_token_none_is_sent(api: Api, weir: Weir) -> None:
    api.put("GET /api/v1/status", PAGES["GET /api/v1/status"])
    weir("status")
    assert "authorization" not in api.asked[0].headers


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe", b"a\nb", b"x" * 5000])
def test_file_without_a_token_is_refused_and_not_shown(
    api: Api, weir: Weir, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    code, out, errors = weir("status", "--token-file", str(file))
    assert (code, out) == (2, "")
    assert "holds no bearer token" in errors
    assert "words" not in errors
    assert not api.asked


def test_token_file_that_is_not_there_is_named(weir: Weir, tmp_path: Path) -> None:
    code, _, errors = weir("status", "--token-file", str(tmp_path / "gone"))
    assert code == 2
    assert "gone" in errors
    assert "No such file" in errors


def test_token_of_the_environment_is_checked() -> None:
    with pytest.raises(InvalidConfigError, match="WEIR_TOKEN"):
        client.check_token("a\r\nHost: b", "WEIR_TOKEN")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", "http://127.0.0.1:9464"),
        ("http://localhost:1/", "http://localhost:1"),
        ("https://weir.example", "https://weir.example:443"),
        ("https://proxy.example:8443/dock 7/", "https://proxy.example:8443/dock%207"),
        ("[::1]:9464", "http://[::1]:9464"),
    ],
)
def test_address_is_a_url_or_as_in_the_ready_line(text: str, address: str) -> None:
    assert str(client.read_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("file:///etc/passwd", "http://", "a:b", "a:99999", "u:p@h:1", "h:1?x=1", "h:1#x"),
        *("münchen:1", "a..b:1", f"{'a' * 64}.example:1"),
    ],
)
def test_other_addresses_are_refused(weir: Weir, text: str) -> None:
    code, out, errors = weir("status", "--api", text)
    assert (code, out) == (2, "")
    assert "127.0.0.1:9464" in errors


def test_ids_are_quoted(api: Api, weir: Weir) -> None:
    weir("dive", "show", "a/b?c#d é")
    assert api.asked[0].path == "/api/v1/dives/a%2Fb%3Fc%23d%20%C3%A9"


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (
            problem(404, "there is no deep dive with this id"),
            "weir: there is no deep dive with this id (404 Not Found)\n",
        ),
        (
            problem(429, "no dives left today", **{"Retry-After": "60"}),
            "weir: no dives left today (429 Too Many Requests); try again in 60 s\n",
        ),
        (
            problem(401, "a bearer token is required"),
            "weir: a bearer token is required (401 Unauthorized); give a token with --token-file"
            " or WEIR_TOKEN\n",
        ),
        (problem(409, "a\nb\x1b[2Jc"), "weir: a b\N{REPLACEMENT CHARACTER}[2Jc (409 Conflict)\n"),
    ],
    ids=["404", "429", "401", "409"],
)
def test_problem_is_one_sentence(api: Api, weir: Weir, reply: Reply, sentence: str) -> None:
    api.put("GET /api/v1/dives/d1", reply)
    assert weir("dive", "show", "d1") == (1, "", sentence)
    assert weir("dive", "show", "d1", "--json") == (1, "", sentence)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500, body=b"<html>oops"),
        Reply(status=302, headers={"Location": "http://elsewhere.example/"}),
        Reply(status=599),
        problem(400, " "),
        Reply(status=400, body=b"[]", headers={"Content-Type": "application/problem+json"}),
    ],
    ids=["html", "redirect", "no phrase", "no detail", "no object"],
)
def test_refusal_without_a_reason_names_address_and_status(
    api: Api, weir: Weir, reply: Reply
) -> None:
    api.put("GET /api/v1/status", reply)
    code, out, errors = weir("status")
    assert (code, out) == (1, "")
    assert errors.startswith(f"weir: {api.url} answered {reply.status}")
    assert len(errors.splitlines()) == 1
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        (Reply(body=b"oops"), "not JSON"),
        (Reply(body=b'{"items": [{}], "total": 1}'), "form"),
        (Reply(body=b"[]"), "form"),
        (Reply(body=b'{"items"', length=900), "broke off"),
    ],
    ids=["text", "other keys", "list", "cut"],
)
def test_answer_that_is_none_is_one_sentence(api: Api, weir: Weir, reply: Reply, word: str) -> None:
    api.put("GET /api/v1/anomalies", reply)
    code, _, errors = weir("anomalies")
    assert code == 1
    assert word in errors
    assert len(errors.splitlines()) == 1


def test_nobody_there_says_which_address_and_what_to_start(weir: Weir) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    code, out, errors = weir("slo", "--api", address)
    assert (code, out) == (1, "")
    assert address in errors
    assert "`weir run`" in errors


def test_something_else_there_is_told(weir: Weir) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"220 mail\r\n")

        thread = threading.Thread(target=hang_up)
        thread.start()
        code, out, errors = weir("drift", "--api", f"127.0.0.1:{server.getsockname()[1]}")
        thread.join(JOIN_S)
    assert (code, out) == (1, "")
    assert "does not speak HTTP" in errors


def test_plain_port_is_told_when_tls_was_asked_for(api: Api, weir: Weir) -> None:
    code, _, errors = weir("status", "--api", api.url.replace("http:", "https:"))
    assert code == 1
    assert "does not speak TLS" in errors


def test_answer_cannot_move_the_cursor_or_use_markup(api: Api, weir: Weir) -> None:
    nasty = dataclasses.replace(ANOMALY, summary="\x1b]0;x\x07 [red]a[/nothing]", model="\x9b2J")
    view = AnomalyView(anomaly=nasty, state="firing")
    api.put("GET /api/v1/anomalies", body(views.AnomalyPage(items=(view,), total=1)))
    api.put("GET /api/v1/anomalies/a1", body(view))
    for command in (("anomalies",), ("anomalies", "show", "a1")):
        code, out, _ = weir(*command)
        assert code == 0
        assert not set(out) & set("\x1b\x07\x9b")
        assert "[red]a[/nothing]" in out
