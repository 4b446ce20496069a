"""What the commands that declare send, what they show, and how they end."""

import json
from pathlib import Path
from typing import Final

import pytest

from gateway.api.declared import LabelsDeclared, RolloutDeclared, RolloutPage
from gateway.terminal import rollouts
from tests.process import Json
from tests.unit.api.declared import MODEL, ROLLOUT
from tests.unit.terminal.server import Api, Weir, body, problem

START: Final = "POST /api/v1/rollouts"
END: Final = "POST /api/v1/rollouts/r-1/end"
DEVICES: Final = "POST /api/v1/rollouts/r-1/devices"
LIST: Final = "GET /api/v1/rollouts"
LABELS: Final = "POST /api/v1/labels"
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PAGE: Final = RolloutPage(items=(ROLLOUT,), total=1, models=(MODEL,), refused={"conflict": 2})


def said(api: Api, number: int = 0) -> Json:
    return json.loads(api.asked[number].body)


def test_a_rollout_is_started(api: Api, weir: Weir) -> None:
    api.put(START, body(RolloutDeclared(id="r-1", state="planned")))
    code, out, errors = weir("rollout", "start", "damage-net", "2.1")
    assert (code, out) == (0, "rollout r-1 is planned\n")
    assert "`weir rollout end r-1`" in errors
    assert said(api) == {"model": "damage-net", "version": "2.1", "kind": "deploy"}
    given = ("--previous", "2.0", "--id", "r-1", "--allocation", "0.5", "--deadline", "2h")
    more = ("--devices", "40", "--kind", "retrain", "--json")
    code, out, errors = weir("rollout", "start", "damage-net", "2.1", *given, *more)
    assert (code, json.loads(out), errors) == (0, {"id": "r-1", "state": "planned"}, "")
    assert said(api, 1) == {
        "id": "r-1",
        "model": "damage-net",
        "version": "2.1",
        "previous": "2.0",
        "allocation": 0.5,
        "deadline_s": 7200,
        "devices": 40,
        "kind": "retrain",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("start", "damage-net"),
        ("start", "damage-net", "2.1", "--allocation", "1.5"),
        ("start", "damage-net", "2.1", "--deadline", "soon"),
        ("start", "damage-net", "2.1", "--devices", "0"),
        ("end", "r-1", "--outcome", "lost"),
        ("device", "r-1"),
    ],
)
def test_what_makes_no_sense_is_not_asked(api: Api, weir: Weir, arguments: tuple[str, ...]) -> None:
    code, _, errors = weir("rollout", *arguments)
    assert code == 2
    assert errors
    assert not api.asked


def test_a_refusal_is_one_sentence(api: Api, weir: Weir) -> None:
    api.put(START, problem(503, "the intake is full", **{"Retry-After": "2"}))
    code, out, errors = weir("rollout", "start", "damage-net", "2.1")
    assert (code, out) == (1, "")
    assert errors == "weir: the intake is full (503 Service Unavailable); try again in 2 s\n"


def test_a_rollout_is_ended_and_devices_report(api: Api, weir: Weir) -> None:
    api.put(END, body(RolloutDeclared(id="r-1", state="ended")))
    assert weir("rollout", "end", "r-1", "--outcome", "rolled_back") == (
        0,
        "rollout r-1 is ended\n",
        "",
    )
    assert said(api) == {"outcome": "rolled_back"}
    api.put(DEVICES, body(RolloutDeclared(id="r-1", state="active")))
    code, out, _ = weir("rollout", "device", "r-1", "cam-1", "cam-2", "--failed")
    assert (code, out) == (0, "rollout r-1 is active\n")
    assert said(api, 1) == {
        "devices": [
            {"device": "cam-1", "succeeded": False},
            {"device": "cam-2", "succeeded": False},
        ]
    }


def test_rollouts_are_listed_with_what_they_spent(api: Api, weir: Weir) -> None:
    api.put(LIST, body(PAGE))
    code, out, errors = weir("rollout", "list")
    assert (code, errors) == (0, "")
    for text in (
        *("r-1", "damage-net", "2.0", "warned", "32 of 40, 2 failed"),
        "success: 15.0% spent of 25.0%, 30 of 1,000 bad, control 9 of 9,000",
        "damage-net, last 30 days: 93.8% of devices deployed, 2 versions, 1 retrained",
        "not used: 2 conflict",
    ):
        assert text in out
    assert weir("rollout", "list", "--json") == (0, body(PAGE).decode() + "\n", "")
    api.put(LIST, body(RolloutPage(items=(), total=0, models=(), refused={})))
    assert weir("rollout", "list") == (0, "no rollouts\n", "")


@pytest.mark.parametrize(
    ("value", "options", "expected"),
    [
        ("torn", (), "torn"),
        ("3", (), 3),
        ("0.5", (), 0.5),
        ("true", (), True),
        ("null", (), "null"),
        ("3", ("--text",), "3"),
    ],
)
def test_one_label_is_declared(
    api: Api, weir: Weir, value: str, options: tuple[str, ...], expected: Json
) -> None:
    api.put(LABELS, body(LabelsDeclared(labels=1)))
    code, out, errors = weir("label", "abc", value, *options)
    assert (code, out, errors) == (0, "1 label declared\n", "")
    assert said(api) == [{"trace_id": "abc".zfill(32), "value": expected}]


def test_labels_of_a_table_go_in_steps(
    api: Api, weir: Weir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "STEP_LABELS", 2)
    file = tmp_path / "labels.csv"
    file.write_text(f'value,trace_id,model\n"a, b",{TRACE},\n1,2,triage-net\n\ntorn,3,\n')
    api.put(LABELS, body(LabelsDeclared(labels=2)), body(LabelsDeclared(labels=1)))
    code, out, errors = weir("label", "--file", str(file), "--model", "damage-net", "--json")
    assert (code, out, errors) == (0, '{"labels":3}\n', "")
    assert said(api) == [
        {"trace_id": TRACE, "value": "a, b", "model": "damage-net"},
        {"trace_id": "2".zfill(32), "value": 1, "model": "triage-net"},
    ]
    assert said(api, 1) == [{"trace_id": "3".zfill(32), "value": "torn", "model": "damage-net"}]


def test_labels_of_json_lines_keep_their_types(api: Api, weir: Weir, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    rows = [{"trace_id": TRACE, "value": value} for value in ("1", 1, 1.5, False)]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    api.put(LABELS, body(LabelsDeclared(labels=4)))
    assert weir("label", "-f", str(file))[0] == 0
    assert said(api) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trace_id,value\nxyz,1\n", "line 2: 'xyz' is no trace id"),
        ("trace_id,value\n1,2,3\n", "line 2 has 3 values, not 2"),
        ("trace_id,truth\n1,2\n", "line 2 has 'truth'"),
        ("1,2\n", "line 1 names no columns"),
        ("", "line 1 names no columns"),
        ('trace_id,value\n1,"a\n', "is not CSV"),
        ('{"trace_id": "1", "value": 2}\n{"trace_id"\n', "line 2 is not JSON"),
        ('{"trace_id": "1", "value": 2}\n[]\n', "line 2 is no object"),
        ('{"trace_id": "1"}\n', "line 1 lacks trace_id or value"),
        ("trace_id,value\n" + "x" * 20_000, "a line of more than"),
    ],
)
def test_a_line_that_is_no_label_is_named_and_nothing_is_sent(
    api: Api, weir: Weir, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "labels"
    file.write_text(text)
    code, out, errors = weir("label", "--file", str(file))
    assert (code, out) == (1, "")
    assert message in errors
    assert not api.asked


def test_files_that_cannot_be_read_are_told(api: Api, weir: Weir, tmp_path: Path) -> None:
    assert "cannot be read" in weir("label", "--file", str(tmp_path / "none"))[2]
    file = tmp_path / "labels"
    file.write_bytes(b"trace_id,value\n\xff\xfe\n")
    assert "is not UTF-8" in weir("label", "--file", str(file))[2]
    assert not api.asked


@pytest.mark.parametrize("arguments", [(), ("1",), ("1", "2", "--file", "x")])
def test_a_label_is_said_in_one_way(api: Api, weir: Weir, arguments: tuple[str, ...]) -> None:
    code, _, errors = weir("label", *arguments)
    assert code == 2
    assert "--file" in errors
    assert not api.asked


def test_what_was_declared_before_a_refusal_is_told(
    api: Api, weir: Weir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "STEP_LABELS", 1)
    file = tmp_path / "labels.csv"
    file.write_text("trace_id,value\n1,a\n2,b\n")
    api.put(LABELS, body(LabelsDeclared(labels=1)), problem(503, "the disk is full"))
    code, out, errors = weir("label", "--file", str(file))
    assert (code, out) == (1, "")
    assert errors.endswith("; 1 labels were declared before\n")
