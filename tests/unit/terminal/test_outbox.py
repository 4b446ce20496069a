"""What the commands about destinations and dead letters ask, show, and how they end."""

import dataclasses
import json
import sys
import time
from typing import Any, Final

import pytest

from gateway.api import letters
from gateway.api.outbox import DeadLetterPage, LettersDone
from gateway.terminal import outbox
from tests.unit.api.fakes import LETTER, STATUS
from tests.unit.terminal.server import Api, Weir, body

LIST: Final = "GET /api/v1/dead-letters"
REPLAY: Final = "POST /api/v1/dead-letters/replay"
DROP: Final = "DELETE /api/v1/dead-letters"
STATUS_PATH: Final = "GET /api/v1/status"

BARE: Final = dataclasses.replace(
    LETTER, id=6, cause="outbox_full", reason="the outbox was full", bytes=0, replayable=False
)
PAGE: Final = DeadLetterPage(
    items=(LETTER, BARE), total=2, total_items=24, total_bytes=3 << 10, newest=7, forgotten_items=0
)


def done(letters: int, items: int, left: int = 0, kept: int = 0) -> bytes:
    return body(LettersDone(letters=letters, items=items, left=left, kept=kept))


def test_letters_are_listed_with_their_reasons(api: Api, weir: Weir) -> None:
    api.put(LIST, body(PAGE))
    code, out, errors = weir("dead-letter", "list")
    assert (code, errors) == (0, "")
    for text in ("cloud", "traces", "12", "3.0 KiB", "refused", "HTTP 400: no tenant", "no replay"):
        assert text in out
    assert "the outbox was full" in out
    given = ("--destination", "cloud", "--signal", "logs", "--reason", "ten", "--json")
    assert weir("dead-letter", "list", *given) == (0, body(PAGE).decode() + "\n", "")
    assert api.asked[1].query == {
        "limit": ["1000"],
        "destination": ["cloud"],
        "signal": ["logs"],
        "reason": ["ten"],
    }


def test_no_letters_and_forgotten_ones_are_told(api: Api, weir: Weir) -> None:
    none = DeadLetterPage(
        items=(), total=0, total_items=0, total_bytes=0, newest=0, forgotten_items=1500
    )
    api.put(LIST, body(none))
    _, out, _ = weir("dead-letter", "list")
    assert out == "no dead letters\nletters of 1,500 items made room for newer ones\n"


def test_letters_are_replayed_by_id(api: Api, weir: Weir) -> None:
    api.put(REPLAY, done(2, 24))
    assert weir("dead-letter", "replay", "4", "5") == (0, "2 letters of 24 items replayed\n", "")
    assert api.asked[0].query == {"ids": ["4,5"]}


def test_many_ids_are_asked_for_in_parts(api: Api, weir: Weir) -> None:
    api.put(REPLAY, done(100, 100), done(20, 20))
    code, out, _ = weir("dead-letter", "replay", *map(str, range(1, 121)))
    assert (code, out) == (0, "120 letters of 120 items replayed\n")
    assert [asked.query["ids"][0].count(",") + 1 for asked in api.asked] == [100, 20]


def test_all_are_replayed_step_by_step_and_never_newer_ones(api: Api, weir: Weir) -> None:
    api.put(LIST, body(PAGE))
    api.put(REPLAY, done(200, 2000, left=150, kept=3), done(150, 1500, kept=3))
    code, out, errors = weir("dead-letter", "replay", "--all", "--reason", "tenant", "--json")
    assert code == 0
    assert json.loads(out) == {"letters": 350, "items": 3500, "left": 0, "kept": 3}
    assert errors.startswith("3 letters stay")
    expected = {"all": ["true"], "through": ["7"], "reason": ["tenant"]}
    assert [asked.query for asked in api.asked[1:]] == [expected, expected]


def test_a_step_that_does_nothing_ends_it(api: Api, weir: Weir) -> None:
    api.put(LIST, body(PAGE))
    api.put(REPLAY, done(0, 0, left=5))
    code, out, _ = weir("dead-letter", "replay", "--all")
    assert (code, out) == (0, "0 letters of 0 items replayed\n")
    assert len(api.asked) == 2


def test_letters_that_are_gone_are_told_and_none_at_all_is_a_failure(api: Api, weir: Weir) -> None:
    api.put(DROP, done(1, 12))
    code, out, errors = weir("dead-letter", "drop", "4", "5", "--yes")
    assert (code, out) == (0, "1 letters of 12 items dropped\n")
    assert errors == "1 letters are not there (any more)\n"
    api.put(REPLAY, done(0, 0))
    assert weir("dead-letter", "replay", "9")[0] == 1


@pytest.mark.parametrize("command", ["replay", "drop"])
@pytest.mark.parametrize(
    "arguments", [(), ("4", "--all"), ("4", "--reason", "x"), ("--destination", "cloud")]
)
def test_a_change_that_is_not_clear_is_not_sent(
    api: Api, weir: Weir, command: str, arguments: tuple[str, ...]
) -> None:
    code, out, errors = weir("dead-letter", command, *arguments)
    assert (code, out) == (2, "")
    assert "--all" in errors
    assert not api.asked


def test_nothing_is_dropped_unasked(api: Api, weir: Weir, monkeypatch: pytest.MonkeyPatch) -> None:
    api.put(LIST, body(PAGE))
    api.put(DROP, done(2, 24))
    code, _, errors = weir("dead-letter", "drop", "--all")
    assert (code, "--yes" in errors) == (2, True)
    assert not api.asked
    for answer, code in (("n", 1), ("y", 0)):
        terminal = Terminal(answer)
        monkeypatch.setattr(sys, "stdin", terminal)
        ended, out, errors = weir("dead-letter", "drop", "--all")
        assert ended == code
        assert "drop 2 letters of 24 items for good?" in errors
        assert out == ("2 letters of 24 items dropped\n" if code == 0 else "")
    assert [asked.method for asked in api.asked] == ["GET", "GET", "GET", "DELETE"]


class Terminal:
    """A standard input with a person behind it."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return f"{self.answer}\n"


def test_what_the_commands_know_of_the_api_is_true() -> None:
    assert letters.IDS_MAX == outbox.IDS_MAX


# --- destinations -------------------------------------------------------------------------------


def status(pending: int, forwarded: int, **changes: Any) -> bytes:
    """A status whose only destination has these counts."""
    account = dataclasses.replace(STATUS.accounting[0], pending=pending, forwarded=forwarded)
    destination = dataclasses.replace(STATUS.destinations[0], **changes)
    return body(dataclasses.replace(STATUS, accounting=(account,), destinations=(destination,)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ("failing", "90s", "HTTP 503", "2025-10-09 08:53:20Z")),
        ({"reachable": None, "held": True, "last_error": ""}, ("held",)),
        ({"reachable": True, "oldest_s": None}, ("sending",)),
        ({"reachable": None}, ("new",)),
    ],
)
def test_destinations_are_shown(
    api: Api, weir: Weir, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    answer = status(1234, 4, **changes)
    api.put(STATUS_PATH, answer)
    for command in (("forward", "list"), ("status",)):
        code, out, errors = weir(*command)
        assert (code, errors) == (0, "")
        for word in (*words, "cloud", "1,234"):
            assert word in out
    assert weir("forward", "list", "--json") == (0, answer.decode() + "\n", "")


def test_without_destinations_the_list_says_so(api: Api, weir: Weir) -> None:
    api.put(STATUS_PATH, body(dataclasses.replace(STATUS, destinations=())))
    assert weir("forward", "list")[1].startswith("no destinations")


def test_drain_waits_for_what_was_pending_and_not_for_what_comes(
    api: Api, weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    ended = status(30, 104)
    api.put(STATUS_PATH, status(100, 4), status(80, 44), ended)
    code, out, errors = weir("forward", "drain", "--json")
    assert (code, out) == (0, ended.decode() + "\n")
    assert len(api.asked) == 3
    assert "items" in errors


def test_drain_of_nothing_ends_at_once(api: Api, weir: Weir) -> None:
    api.put(STATUS_PATH, status(0, 4))
    assert weir("forward", "drain")[0] == 0
    assert len(api.asked) == 1


def test_drain_gives_up_at_its_limit(api: Api, weir: Weir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    api.put(STATUS_PATH, status(100, 4), status(70, 34))
    code, out, errors = weir("forward", "drain", "--timeout", "1ms")
    assert (code, out) == (1, "")
    assert errors in (
        "weir: 70 items of 100 still wait after 0.001 s\n",
        "weir: 100 items of 100 still wait after 0.001 s\n",
    )


def test_drain_of_an_unknown_destination_lists_the_known(api: Api, weir: Weir) -> None:
    api.put(STATUS_PATH, status(100, 4))
    code, _, errors = weir("forward", "drain", "--destination", "lake")
    assert code == 1
    assert errors == "weir: there is no destination 'lake'; known: cloud\n"


def test_interrupted_drain_says_that_it_goes_on(
    api: Api, weir: Weir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    api.put(STATUS_PATH, status(100, 4))
    code, _, errors = weir("forward", "drain")
    assert code == 130
    assert "weir forward list" in errors


@pytest.mark.parametrize(
    "command",
    [
        ("dead-letter",),
        ("dead-letter", "list"),
        ("dead-letter", "replay"),
        ("dead-letter", "drop"),
        ("forward",),
        ("forward", "list"),
        ("forward", "drain"),
    ],
)
def test_every_command_explains_itself(weir: Weir, command: tuple[str, ...]) -> None:
    code, out, errors = weir(*command, "--help")
    assert (code, errors) == (0, "")
    assert len(command) == 1 or "--api" in out
