"""Findings are told to people, programs and code scanners."""

import json
from pathlib import Path

import pytest

from gateway.contract.check import check, inspect
from gateway.contract.render import FORMATS, Beside, render
from gateway.contract.tell import tell
from gateway.errors import Finding
from tests.unit.contract.texts import HEAD, write

FINDINGS = (
    Finding(
        file="a b/ü.yaml",
        line=3,
        column=5,
        rule="unknown-key",
        message="unknown key 'lisen'",
        instead="did you mean 'listen'?",
    ),
    Finding(
        file="--set x", line=0, column=0, rule="override", message="is no override", instead=""
    ),
    Finding(file="/etc/weir/site.yaml", line=0, column=0, rule="missing", message="m", instead="i"),
)


def test_text_says_where_what_and_what_instead() -> None:
    assert render(FINDINGS, "text") == (
        "a b/ü.yaml:3:5: unknown key 'lisen' [unknown-key]\n"
        "    did you mean 'listen'?\n"
        "--set x: is no override [override]\n"
        "/etc/weir/site.yaml: m [missing]\n"
        "    i\n"
        "3 findings\n"
    )
    assert render((), "text") == "no findings\n"
    assert render(FINDINGS[:1], "text").endswith("1 finding\n")


def test_json_holds_every_field() -> None:
    content = json.loads(render(FINDINGS, "json"))
    assert content["findings"][0] == {
        "file": "a b/ü.yaml",
        "line": 3,
        "column": 5,
        "rule": "unknown-key",
        "message": "unknown key 'lisen'",
        "instead": "did you mean 'listen'?",
    }
    assert json.loads(render((), "json")) == {"findings": []}


def test_sarif_has_rules_results_and_places() -> None:
    log = json.loads(render(FINDINGS, "sarif", "1.2.3"))
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["version"] == "1.2.3"
    assert [rule["id"] for rule in driver["rules"]] == ["missing", "override", "unknown-key"]
    first, second, third = run["results"]
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] == "error"
        assert result["message"]["text"]
    place = first["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "a%20b/%C3%BC.yaml"
    assert place["region"] == {"startLine": 3, "startColumn": 5}
    assert "locations" not in second
    place = third["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "file:///etc/weir/site.yaml"}}


def test_sarif_without_findings_is_a_run() -> None:
    (run,) = json.loads(render((), "sarif"))["runs"]
    assert run["results"] == []


@pytest.mark.parametrize("form", FORMATS)
def test_real_findings_are_rendered_in_every_form(tmp_path: Path, form: str) -> None:
    path = write(tmp_path, HEAD.replace("vision@example.com", "tbd"))
    text = render(check([path]), form)
    assert "placeholder" in text
    assert text.endswith("\n")


def test_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="text, json, sarif"):
        render((), "xml")


def test_objectives_stand_beside_the_findings(tmp_path: Path) -> None:
    slo = "slos: [{name: a, indicator: success, objective: 0.999}]\n"
    seen = inspect([write(tmp_path, HEAD + slo)])
    told = tell(seen.contracts)
    text = render(seen.findings, "text", beside=Beside(slos=told))
    assert text.startswith("no findings\n\ndamage-net a: success, 0.999 over 30d\n")
    content = json.loads(render(seen.findings, "json", beside=Beside(slos=told)))
    assert content["findings"] == []
    assert [each["slo"] for each in content["slos"]] == ["a"]
    assert json.loads(render((), "json", beside=Beside())) == {
        "findings": [],
        "notes": [],
        "slos": [],
    }
    assert render((), "text", beside=Beside()) == "no findings\n"


def test_a_note_is_told_in_every_form_and_is_no_finding() -> None:
    note = Finding(
        file="site.yaml", line=3, column=5, rule="unknown-model", message="no m", instead="write n"
    )
    beside = Beside(notes=(note,))
    assert render((), "text", beside=beside) == (
        "no findings\n\nnote: site.yaml:3:5: no m [unknown-model]\n    write n\n"
    )
    content = json.loads(render((), "json", beside=beside))
    assert (content["findings"], content["notes"][0]["line"]) == ([], 3)
    (run,) = json.loads(render((), "sarif", beside=beside))["runs"]
    (result,) = run["results"]
    assert (result["level"], result["ruleId"], result["ruleIndex"]) == ("note", "unknown-model", 0)
    assert [each["id"] for each in run["tool"]["driver"]["rules"]] == ["unknown-model"]
