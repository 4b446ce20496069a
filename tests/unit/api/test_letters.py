"""Dead letters over HTTP: what is asked, by whom, and that a change is written down first."""

import json
from pathlib import Path

import pytest

from gateway.api.outbox import LetterSelection
from gateway.batch import Json
from tests.unit.api.fakes import LETTER, World
from tests.unit.api.http import Client

PATH = "/api/v1/dead-letters"


async def test_letters_are_listed_with_filters_and_without_an_audit(
    client: Client, world: World, audit_path: Path
) -> None:
    query = {"destination": "cloud", "signal": "logs", "reason": "ten", "limit": "5", "offset": "2"}
    async with client.get(PATH, params=query) as answer:
        assert answer.status == 200
        page = await answer.json()
    assert page["total_items"] == 12
    [letter] = page["items"]
    assert letter["reason"] == LETTER.reason
    assert letter["replayable"] is True
    chosen = LetterSelection(destination="cloud", signal="logs", reason="ten")
    assert world.letters.chosen == [("list 5 2", chosen)]
    assert _lines(audit_path) == []


def _lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _make_unwritable(path: Path) -> None:
    path.unlink()
    path.mkdir()  # cannot be opened for writing, not even by root


@pytest.mark.parametrize(
    ("method", "path", "event"),
    [
        ("POST", f"{PATH}/replay", "dead_letters_replay"),
        ("DELETE", PATH, "dead_letters_drop"),
    ],
)
async def test_a_change_names_its_letters_and_is_audited(
    client: Client, world: World, audit_path: Path, method: str, path: str, event: str
) -> None:
    for query in ("ids=4,5", "all=true&destination=cloud&through=9"):
        async with client.request(method, f"{path}?{query}") as answer:
            assert answer.status == 200, await answer.text()
            assert await answer.json() == {"letters": 1, "items": 12, "left": 0, "kept": 0}
    word = event.removeprefix("dead_letters_")
    assert world.letters.chosen == [
        (word, LetterSelection(ids=(4, 5))),
        (word, LetterSelection(destination="cloud", through=9)),
    ]
    lines = _lines(audit_path)
    assert [(line["ev"], line["principal"]) for line in lines] == [(event, "local")] * 2
    assert lines[0]["path"] == f"{path}?ids=4,5"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "destination=cloud",
        "all=false",
        "ids=4&all=true",
        "ids=a",
        "ids=4,,5",
        "ids=-1",
        "all=yes",
        "all=true&signal=spans",
        "all=true&through=x",
        "ids=" + ",".join(["1"] * 101),
        "ids=99999999999999999999",
    ],
)
async def test_a_change_that_is_not_clear_changes_nothing(
    client: Client, world: World, audit_path: Path, query: str
) -> None:
    for method, path in (("POST", f"{PATH}/replay"), ("DELETE", PATH)):
        async with client.request(method, f"{path}?{query}") as answer:
            assert answer.status == 400, query
    assert world.letters.chosen == []
    assert _lines(audit_path) == []


async def test_nothing_is_changed_when_it_cannot_be_written_down(
    client: Client, world: World, audit_path: Path
) -> None:
    _make_unwritable(audit_path)
    async with client.request("DELETE", f"{PATH}?all=true") as answer:
        assert answer.status == 503
        assert "nothing is done" in await answer.text()
    assert world.letters.chosen == []
