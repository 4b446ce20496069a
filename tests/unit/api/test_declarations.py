"""Rollouts and labels over HTTP: what is declared, what is refused and how, who did it."""

import asyncio
import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from gateway.api import declarations
from gateway.api.declarations import LISTS_BYTES_MAX
from gateway.api.drifts import BaselineState, SupersededState
from gateway.api.forms import LABELS_MAX
from gateway.batch import Json
from gateway.errors import JournalUnavailableError, OverloadedError, RequestError
from gateway.otlp.events import Dismissal, Promotion, RolloutKind, RolloutOutcome, RolloutStart
from tests.unit.api.declared import ROLLOUT
from tests.unit.api.fakes import NOW_NS, World
from tests.unit.api.http import Client

ROLLOUTS = "/api/v1/rollouts"
LABELS = "/api/v1/labels"
TRACE = "0af7651916cd43dd8448eb211c80319c"
START: Json = {"model": "damage-net", "version": "2.1"}


def _lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _make_unwritable(path: Path) -> None:
    path.unlink()
    path.mkdir()  # cannot be opened for writing, not even by root


async def test_a_start_is_declared_audited_and_known(
    client: Client, world: World, audit_path: Path
) -> None:
    body = {
        **START,
        "id": "r-9",
        "previous": "2.0",
        "allocation": 0.5,
        "deadline_s": 60,
        "devices": 3,
        "kind": "retrain",
    }
    async with client.post(ROLLOUTS, json=body) as answer:
        assert answer.status == 202, await answer.text()
        assert await answer.json() == {"id": "r-9", "state": "planned"}
        assert answer.headers["Location"] == f"{ROLLOUTS}/r-9"
    (heard,) = world.declarations.heard
    assert heard.starts == (
        RolloutStart(
            at_ns=NOW_NS,
            rollout="r-9",
            model="damage-net",
            version="2.1",
            previous="2.0",
            allocation=0.5,
            deadline_s=60,
            devices=3,
            kind=RolloutKind.RETRAIN,
        ),
    )
    (line,) = _lines(audit_path)
    assert (line["ev"], line["principal"], line["rollout"]) == ("rollout_start", "local", "r-9")
    async with client.get(ROLLOUTS) as answer:
        found = await answer.json()
    assert [each["id"] for each in found["items"]] == ["r-1", "r-9"]


async def test_a_start_without_an_id_gets_one(client: Client, world: World) -> None:
    made = []
    for _ in range(2):
        async with client.post(ROLLOUTS, json=START) as answer:
            assert answer.status == 202
            made.append((await answer.json())["id"])
    assert len(set(made)) == 2
    assert [heard.starts[0].rollout for heard in world.declarations.heard] == made


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({**START, "id": "r 9"}, "id: Value error, write 1 to 128 letters"),
        ({**START, "version": "a b"}, "version: Value error, write 1 to 64 letters"),
        ({**START, "previous": "2.1"}, "previous: write the version that is replaced"),
        ({**START, "model": "unheard-of"}, "write one of: damage-net, triage-net"),
        ({**START, "model": "a\nb"}, "printable"),
        ({**START, "allocation": 0}, "allocation: Input should be greater than 0"),
        ({**START, "allocation": 1.5}, "allocation: Input should be less than or equal to 1"),
        ({**START, "allocation": "0.5"}, "allocation: Input should be a valid number"),
        ({**START, "deadline_s": 0}, "deadline_s: Input should be greater"),
        ({**START, "devices": 1.5}, "devices: Input should be a valid integer"),
        ({**START, "kind": "party"}, "kind: Input should be 'deploy' or 'retrain'"),
        ({**START, "start": "now"}, "start: Extra inputs"),
        ({"model": "damage-net"}, "version: Field required"),
        ([], "Input should be an object"),
    ],
)
async def test_a_start_that_cannot_be_says_what_to_write(
    client: Client, world: World, audit_path: Path, body: Json, text: str
) -> None:
    async with client.post(ROLLOUTS, json=body) as answer:
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"
        assert text in (await answer.json())["detail"]
    assert not world.declarations.heard
    assert _lines(audit_path) == []


async def test_an_id_that_is_known_is_a_conflict(client: Client) -> None:
    async with client.post(ROLLOUTS, json={**START, "id": "r-1"}) as answer:
        assert answer.status == 409
        assert "leave it out" in (await answer.json())["detail"]


async def test_an_end_may_have_no_body(client: Client, world: World) -> None:
    async with client.post(f"{ROLLOUTS}/r-1/end") as answer:
        assert answer.status == 202, await answer.text()
        assert await answer.json() == {"id": "r-1", "state": "ended"}
    (end,) = world.declarations.heard[0].ends
    assert (end.rollout, end.outcome, end.at_ns) == ("r-1", RolloutOutcome.COMPLETED, NOW_NS)
    async with client.post(f"{ROLLOUTS}/r-1/end") as answer:
        assert answer.status == 409
    async with client.post(f"{ROLLOUTS}/r-7/end") as answer:
        assert answer.status == 404


async def test_an_end_is_never_before_its_start(client: Client, world: World) -> None:
    world.declarations.known["r-1"] = replace(ROLLOUT, start_ns=NOW_NS + 5)
    async with client.post(f"{ROLLOUTS}/r-1/end", json={"outcome": "rolled_back"}) as answer:
        assert answer.status == 202
    (end,) = world.declarations.heard[0].ends
    assert (end.outcome, end.at_ns) == (RolloutOutcome.ROLLED_BACK, NOW_NS + 5)


async def test_devices_report_together(client: Client, world: World) -> None:
    body = {
        "devices": [
            {"device": "cam-1", "succeeded": True},
            {"device": "cam-2", "succeeded": False},
        ]
    }
    async with client.post(f"{ROLLOUTS}/r-1/devices", json=body) as answer:
        assert answer.status == 202, await answer.text()
        assert await answer.json() == {"id": "r-1", "state": "warned"}
    told = [(each.device, each.succeeded) for each in world.declarations.heard[0].outcomes]
    assert told == [("cam-1", True), ("cam-2", False)]
    async with client.post(f"{ROLLOUTS}/r-1/devices", json={"devices": []}) as answer:
        assert answer.status == 400
    async with client.post(f"{ROLLOUTS}/r-7/devices", json=body) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("value", ["torn", 3, 0.25, True])
async def test_one_label_is_declared_as_it_is(client: Client, world: World, value: Json) -> None:
    body = {"trace_id": TRACE.upper(), "value": value, "model": "damage-net"}
    async with client.post(LABELS, json=body) as answer:
        assert answer.status == 202, await answer.text()
        assert await answer.json() == {"labels": 1}
    (label,) = world.declarations.heard[0].labels
    assert (label.trace_id.hex(), label.value, label.model) == (TRACE, value, "damage-net")
    assert type(label.value) is type(value)


async def test_many_labels_are_one_request(client: Client, world: World, audit_path: Path) -> None:
    body = [{"trace_id": f"{number + 1:032x}", "value": number} for number in range(LABELS_MAX)]
    async with client.post(LABELS, json=body) as answer:
        assert answer.status == 202, await answer.text()
        assert await answer.json() == {"labels": LABELS_MAX}
    assert len(world.declarations.heard[0].labels) == LABELS_MAX
    (line,) = _lines(audit_path)
    assert (line["ev"], line["labels"]) == ("labels", LABELS_MAX)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"trace_id": "abc", "value": 1}, "trace_id: Value error, write a trace id of 32"),
        ({"trace_id": "0" * 32, "value": 1}, "not all 0"),
        ({"trace_id": TRACE, "value": None}, "value"),
        ({"trace_id": TRACE, "value": 1 << 63}, "at most 64 bits"),
        ({"trace_id": TRACE, "value": "a\nb"}, "printable"),
        ({"trace_id": TRACE, "value": "x", "model": "unheard-of"}, "write one of"),
        ([{"trace_id": TRACE, "value": 1}, {"trace_id": TRACE}], "1.value: Field required"),
        ([], "at least 1"),
        ([{"trace_id": TRACE, "value": 1}] * (LABELS_MAX + 1), f"at most {LABELS_MAX}"),
        ("text", "Input should be an object"),
    ],
)
async def test_labels_that_cannot_be_are_refused_together(
    client: Client, world: World, body: Json, text: str
) -> None:
    async with client.post(LABELS, json=body) as answer:
        assert answer.status == 400
        assert text in (await answer.json())["detail"]
    assert not world.declarations.heard


async def test_numbers_that_are_none_are_refused(client: Client) -> None:
    raw = f'{{"trace_id": "{TRACE}", "value": NaN}}'
    headers = {"Content-Type": "application/json"}
    async with client.post(LABELS, data=raw, headers=headers) as answer:
        assert answer.status == 400


async def test_other_types_and_long_bodies_are_refused(client: Client) -> None:
    async with client.post(LABELS, data=b"trace_id,value") as answer:
        assert answer.status == 415
    headers = {"Content-Type": "application/json"}
    body = io.BytesIO(b" " * (LISTS_BYTES_MAX + 1))
    async with client.post(LABELS, data=body, headers=headers) as answer:
        assert answer.status == 413
        assert "send several" in (await answer.json())["detail"]


@pytest.mark.parametrize(
    "error", [OverloadedError("the intake is full"), JournalUnavailableError("the disk is full")]
)
async def test_what_is_not_durable_is_refused_with_a_delay(
    client: Client, world: World, error: RequestError
) -> None:
    world.declarations.error = error
    async with client.post(ROLLOUTS, json=START) as answer:
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await answer.json())["detail"] == str(error)


async def test_nothing_is_declared_that_cannot_be_audited(
    client: Client, world: World, audit_path: Path
) -> None:
    _make_unwritable(audit_path)
    async with client.post(ROLLOUTS, json=START) as answer:
        assert answer.status == 503
    assert not world.declarations.heard


async def test_a_slow_core_does_not_hold_the_answer_for_long(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declarations, "SETTLE_TRIES", 2)
    known = world.declarations.known

    async def later(body: bytes) -> None:
        assert body

    monkeypatch.setattr(type(world.declarations), "declare", lambda _, body: later(body))
    async with client.post(f"{ROLLOUTS}/r-1/end") as answer:
        assert (answer.status, (await answer.json())["state"]) == (202, "ended")
    assert known["r-1"].state == "warned"


async def test_bodies_are_described(client: Client) -> None:
    async with client.get("/api/v1/openapi.json") as answer:
        document = await answer.json()
    start = document["paths"][ROLLOUTS]["post"]
    assert start["x-role"] == "operator"
    assert document["paths"][ROLLOUTS]["get"]["x-role"] == "viewer"
    reference = start["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    assert schema["required"] == ["model", "version"]
    assert "LabelsBody" in document["components"]["schemas"]
    assert "RolloutPage" in document["components"]["schemas"]


def _baselines(state: str, source: str = "site") -> tuple[BaselineState, ...]:
    made = BaselineState(
        id="b-7",
        model="damage-net",
        version="2.0",
        signal="class",
        state=state,
        events=4_000,
        events_wanted=4_000,
        source=source,
    )
    return (replace(made, id="", state="collecting", signal="size"), made)


async def test_a_promotion_is_declared_audited_and_waited_for(
    client: Client, world: World, audit_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.measure = replace(world.measure, baselines=_baselines("candidate"))
    sleep = asyncio.sleep

    async def core_is_done(delay_s: float) -> None:
        world.measure = replace(world.measure, baselines=_baselines("frozen"))
        await sleep(delay_s)

    monkeypatch.setattr("gateway.api.declarations.asyncio.sleep", core_is_done)
    async with client.post("/api/v1/baselines/b-7/promote") as answer:
        assert answer.status == 202, await answer.text()
        assert await answer.json() == {"id": "b-7", "state": "frozen"}
    (heard,) = world.declarations.heard
    assert heard.promotions == (Promotion(at_ns=NOW_NS, baseline="b-7"),)
    (line,) = _lines(audit_path)
    assert (line["ev"], line["baseline"], line["signal"]) == ("baseline_promotion", "b-7", "class")


async def test_a_baseline_in_the_shadow_is_promoted_back(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (learning, made) = _baselines("superseded")
    beside = SupersededState(
        id=made.id,
        events=made.events,
        until_ns=NOW_NS + 1,
        log_evidence=0.0,
        log_evidence_bound=12.5,
        alarms=2,
        last_alarm_ns=NOW_NS,
    )
    shaded = (learning, replace(made, superseded=beside))
    world.measure = replace(world.measure, baselines=shaded)
    sleep, asked = asyncio.sleep, list[float]()

    async def core_is_done(delay_s: float) -> None:
        asked.append(delay_s)
        world.measure = replace(world.measure, baselines=_baselines("frozen"))
        await sleep(delay_s)

    monkeypatch.setattr("gateway.api.declarations.asyncio.sleep", core_is_done)
    async with client.get("/api/v1/baselines") as answer:
        (_, row) = (await answer.json())["items"]
        assert row["superseded"] == asdict(beside)
    async with client.post("/api/v1/baselines/b-7/promote") as answer:
        assert answer.status == 202, await answer.text()
        assert await answer.json() == {"id": "b-7", "state": "frozen"}
    assert asked, "it waits until the state is another"
    (heard,) = world.declarations.heard
    assert heard.promotions == (Promotion(at_ns=NOW_NS, baseline="b-7"),)


async def test_a_promotion_that_is_only_on_disk_says_so(
    client: Client, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declarations, "SETTLE_S", 0.0)
    world.measure = replace(world.measure, baselines=_baselines("candidate"))
    async with client.post("/api/v1/baselines/b-7/promote") as answer:
        assert await answer.json() == {"id": "b-7", "state": "candidate"}


@pytest.mark.parametrize(
    ("name", "state", "source", "status", "text"),
    [
        ("b-8", "candidate", "site", 404, "list them at /api/v1/baselines"),
        ("b-7", "frozen", "site", 409, "is frozen, no candidate; promote the id of a candidate"),
        ("b-7", "frozen", "file", 409, "build another file with `weir baseline build`"),
        ("b-7", "superseded", "site", 409, "is superseded, no candidate"),
    ],
)
async def test_only_a_candidate_is_promoted(
    client: Client, world: World, name: str, state: str, source: str, status: int, text: str
) -> None:
    world.measure = replace(world.measure, baselines=_baselines(state, source))
    async with client.post(f"/api/v1/baselines/{name}/promote") as answer:
        assert answer.status == status
        assert text in (await answer.json())["detail"]
    assert not world.declarations.heard


async def test_a_dismissal_is_declared_and_audited(
    client: Client, world: World, audit_path: Path
) -> None:
    async with client.post("/api/v1/devices/dismiss", json={"devices": ["cam-1"]}) as answer:
        assert (answer.status, await answer.json()) == (202, {"devices": 1})
    (heard,) = world.declarations.heard
    assert heard.dismissals == (Dismissal(at_ns=NOW_NS, device="cam-1"),)
    (line,) = _lines(audit_path)
    assert (line["ev"], line["devices"]) == ("devices_dismissed", ["cam-1"])


async def test_who_was_never_heard_is_not_dismissed(client: Client, world: World) -> None:
    names = ["cam-1", *(f"dock-{each}" for each in range(12))]
    async with client.post("/api/v1/devices/dismiss", json={"devices": names}) as answer:
        assert answer.status == 404
        assert "dock-7 and 4 more" in (await answer.json())["detail"]
    bad: list[Json] = [{}, {"devices": []}, {"devices": ["a\nb"]}]
    for body in bad:
        async with client.post("/api/v1/devices/dismiss", json=body) as answer:
            assert answer.status == 400
    assert not world.declarations.heard
