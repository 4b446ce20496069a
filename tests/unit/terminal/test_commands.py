"""What each command asks, what it shows, and how it ends."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from gateway.api import call, incidents, traces, views
from gateway.api.sources import Check
from gateway.terminal import ask, commands
from tests.process import Json
from tests.unit.api.fakes import NOW_NS, STATUS, TRACE
from tests.unit.terminal.server import PAGES, SECOND_NS, VIEW, Api, Reply, Weir, body, dive

SHOWN: Final = {
    ("status",): ("dock-7", "yes", "cloud", "10", "damage-net", "2027-12-31"),
    ("slo",): ("success", "0.999", "-50.0%", "30d", "5m=14.5, 1h=-, 6h=-"),
    ("drift",): ("brightness", "yes", "7.5", "0.4", "frozen", "class", "learning"),
    ("anomalies",): ("a1", "acknowledged", "page", "2025-10-09 08:53:20Z", "brightness moved"),
    ("anomalies", "show", "a1"): ("drift of brightness", "by ann", "0.4", TRACE, "cam-1", "d1"),
    ("anomalies", "ack", "a1"): ("a1", "acknowledged", "by ann"),
    ("dive", "list"): ("d1", "streaming", "2025-10-09 08:53:20Z", "2/4", "night shift"),
    ("dive", "show", "d1"): ("2 of 4", "1.5 MiB of 8.0 MiB", "cam-1", "uploading"),
}


@pytest.mark.parametrize(
    ("command", "page"), list(zip(SHOWN, PAGES, strict=True)), ids=[" ".join(c) for c in SHOWN]
)
def test_command_shows_its_page_and_prints_the_same_json_to_the_byte(
    api: Api, weir: Weir, command: tuple[str, ...], page: str
) -> None:
    api.put(page, PAGES[page])
    code, out, errors = weir(*command)
    assert (code, errors) == (0, "")
    for text in SHOWN[command]:
        assert text in out
    assert weir(*command, "--json") == (0, PAGES[page].decode() + "\n", "")


def test_readiness_says_what_is_missing(api: Api, weir: Weir) -> None:
    checks = (
        Check(check="disk", ok=False, detail="7 bytes free"),
        Check(check="a", ok=True, detail="b"),
    )
    api.put("GET /api/v1/status", body(dataclasses.replace(STATUS, ready=False)))
    api.put(
        "GET /readyz", Reply(status=503, body=body(views.Readiness(ready=False, checks=checks)))
    )
    code, out, errors = weir("status")
    assert (code, errors) == (0, "")
    assert "no: disk: 7 bytes free " in out


def test_empty_lists_say_so_and_long_ones_what_is_not_shown(api: Api, weir: Weir) -> None:
    api.put("GET /api/v1/dives", body(views.DivePage(items=(), total=0)))
    assert weir("dive", "list") == (0, "no deep dives\n", "")
    api.put("GET /api/v1/anomalies", body(views.AnomalyPage(items=(VIEW,), total=7)))
    _, out, _ = weir("anomalies")
    assert out.endswith("1 of 7 shown\n")


def test_lists_ask_for_the_largest_page_and_for_one_state(api: Api, weir: Weir) -> None:
    for key in ("GET /api/v1/anomalies", "GET /api/v1/dives"):
        api.put(key, PAGES[key])
    weir("anomalies", "--state", "firing")
    weir("dive", "list", "--state", "partial")
    assert [asked.query for asked in api.asked] == [
        {"limit": ["1000"], "state": ["firing"]},
        {"limit": ["1000"], "state": ["partial"]},
    ]
    assert weir("anomalies", "--state", "odd")[0] == 2
    assert weir("anomalies", "--state", "firing", "show", "a1")[0] == 2
    assert len(api.asked) == 2


def test_what_the_commands_know_of_the_api_is_true() -> None:
    assert tuple(commands.AnomalyState) == incidents.ANOMALY_STATES
    assert int(ask.PAGE_MAX) == call.PAGE_MAX
    assert traces.PROBLEMS_HEADER.lower() == commands.PROBLEMS_HEADER
    assert commands.PROTOBUF_TYPE in traces.PROTOBUF_TYPES


# --- deep dives ---------------------------------------------------------------------------------

ACCEPTED: Final = Reply(status=202, body=body(views.Accepted(id="d1", state="queued")))


def started(api: Api, weir: Weir, *arguments: str) -> Json:
    """Start a dive and return the body that was sent."""
    api.put("POST /api/v1/dives", ACCEPTED)
    code, out, errors = weir("dive", "start", *arguments)
    assert code == 0, errors
    assert out == "deep dive d1 is queued\n"
    assert "weir dive show d1" in errors
    (asked,) = api.asked
    assert asked.headers["content-type"] == "application/json"
    return json.loads(asked.body)


def test_dive_of_an_anomaly(api: Api, weir: Weir) -> None:
    sent = started(api, weir, "--anomaly", "a1", "--reason", "why", "--max-bytes", "8MiB")
    assert sent == {"anomaly_id": "a1", "reason": "why", "max_bytes": 8 << 20}


def test_dive_of_traces_writes_ids_whole(api: Api, weir: Weir) -> None:
    sent = started(api, weir, "--trace", "ABC", "--trace", "1" * 32)
    assert sent == {"trace_ids": ["abc".zfill(32), "1" * 32]}


def test_dive_by_model_and_time(api: Api, weir: Weir) -> None:
    before = time.time_ns()
    sent = started(
        api, weir, *("--model", "m", "--version", "2", "--device", "cam-1", "--since", "10m")
    )
    assert before <= sent["query"].pop("from") + 600 * SECOND_NS <= time.time_ns()
    assert sent == {"query": {"model": "m", "version": "2", "device": "cam-1"}}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "three ways"),
        (("--reason", "why"), "three ways"),
        (("--anomaly", "a1", "--since", "10m"), "three ways"),
        (("--trace", "ab", "--model", "m"), "three ways"),
        (("--trace", "xyz"), "hexadecimal"),
        (("--trace", "1" * 33), "hexadecimal"),
        (("--model", "m", "--max-bytes", "8MB"), "64MiB"),
        (("--since", "ten minutes"), "250ms"),
    ],
)
def test_dive_that_makes_no_sense_is_not_sent(
    api: Api, weir: Weir, arguments: Sequence[str], word: str
) -> None:
    code, out, errors = weir("dive", "start", *arguments)
    assert (code, out) == (2, "")
    assert word in errors
    assert not api.asked


def test_waiting_follows_a_dive_to_its_end(api: Api, weir: Weir) -> None:
    api.put("POST /api/v1/dives", ACCEPTED)
    ended = dive("complete", 4)
    api.put("GET /api/v1/dives/d1", dive("queued", 0, traces_wanted=0), dive("pinned", 1), ended)
    code, out, errors = weir("dive", "start", "--anomaly", "a1", "--wait", "--json")
    assert (code, out) == (0, ended.decode() + "\n")
    assert errors == "deep dive d1 is open\n"
    assert len(api.asked) == 4


def test_bar_is_drawn_on_a_terminal_only_and_never_on_standard_output(
    api: Api, weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    api.put("POST /api/v1/dives", ACCEPTED)
    ended = dive("complete", 4)
    api.put("GET /api/v1/dives/d1", dive("streaming", 3), ended)
    code, out, errors = weir("dive", "start", "--anomaly", "a1", "--wait", "--json")
    assert (code, out) == (0, ended.decode() + "\n")
    assert "streaming" in errors
    assert "traces" in errors


@pytest.mark.parametrize("last", ["partial", "expired", "refused"])
def test_waiting_for_a_dive_that_fails_shows_why_and_exits_1(
    api: Api, weir: Weir, last: str
) -> None:
    api.put("POST /api/v1/dives", ACCEPTED)
    api.put("GET /api/v1/dives/d1", dive(last, 1, missing="cam-2 all: device_silent"))
    code, out, _ = weir("dive", "start", "--anomaly", "a1", "--wait")
    assert code == 1
    assert last in out
    assert "cam-2 all: device_silent" in out


def test_dive_that_never_ends_is_given_up(
    api: Api, weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "WAIT_GRACE_S", 0.0)
    api.put("POST /api/v1/dives", ACCEPTED)
    api.put("GET /api/v1/dives/d1", dive("queued", 0, not_after_ns=NOW_NS))
    code, out, errors = weir("dive", "start", "--anomaly", "a1", "--wait")
    assert (code, out) == (1, "")
    assert errors.endswith("weir: deep dive d1 did not end at its limit\n")


def test_interrupted_wait_leaves_the_dive_and_says_so(
    api: Api, weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    api.put("POST /api/v1/dives", ACCEPTED)
    api.put("GET /api/v1/dives/d1", dive("queued", 0))
    code, out, errors = weir("dive", "start", "--anomaly", "a1", "--wait")
    assert (code, out) == (130, "")
    assert "goes on; see it with `weir dive show d1`" in errors


def test_fetch_writes_json_to_standard_output_and_says_what_is_missing(
    api: Api, weir: Weir
) -> None:
    reply = Reply(body=b'{"resourceSpans":[]}', headers={"Weir-Problems": "cam-2 is gone"})
    api.put("GET /api/v1/dives/d1/traces", reply)
    assert weir("dive", "fetch", "d1") == (
        0,
        '{"resourceSpans":[]}\n',
        "not everything is here: cam-2 is gone\n",
    )
    assert api.asked[0].headers["accept"] == "application/json"


def test_fetch_writes_protobuf_to_a_file(api: Api, weir: Weir, tmp_path: Path) -> None:
    api.put("GET /api/v1/dives/d1/traces", b"\n\0\xff")
    path = tmp_path / "traces.pb"
    code, out, errors = weir("dive", "fetch", "d1", "--format", "protobuf", "-o", str(path))
    assert (code, out, errors) == (0, "", f"3 bytes written to {path}\n")
    assert path.read_bytes() == b"\n\0\xff"
    assert api.asked[0].headers["accept"] == "application/x-protobuf"


def test_file_that_cannot_be_written_is_one_sentence(api: Api, weir: Weir, tmp_path: Path) -> None:
    api.put("GET /api/v1/dives/d1/traces", b"{}")
    code, _, errors = weir("dive", "fetch", "d1", "-o", str(tmp_path))
    assert (code, errors) == (1, f"weir: {tmp_path} cannot be written: Is a directory\n")


def test_delete_says_so_and_prints_no_json_because_there_is_none(api: Api, weir: Weir) -> None:
    api.put("DELETE /api/v1/dives/d1", Reply(status=204))
    assert weir("dive", "delete", "d1") == (0, "deep dive d1 is deleted\n", "")
    assert weir("dive", "delete", "d1", "--json") == (0, "", "")


@pytest.mark.parametrize(
    "command",
    [
        *(
            ("anomalies",),
            ("anomalies", "show"),
            ("anomalies", "ack"),
            ("dive",),
            ("dive", "start"),
        ),
        *(("dive", "list"), ("dive", "show"), ("dive", "fetch"), ("dive", "delete")),
        *(("status",), ("slo",), ("drift",)),
    ],
)
def test_every_command_explains_itself(weir: Weir, command: tuple[str, ...]) -> None:
    code, out, errors = weir(*command, "--help")
    assert (code, errors) == (0, "")
    assert "--api" in out or command == ("dive",)
