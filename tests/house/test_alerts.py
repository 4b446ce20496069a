"""The alert rules are valid, fire when they should, explain themselves and reach someone."""

import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from gateway.batch import AnomalyKind
from gateway.forward.alerts import ALERT_NAMES, WATCHDOG
from tests.process import AMTOOL, PROMTOOL, ROOT, require

FOLDER: Final = ROOT / "alerts"
RULES: Final = sorted((FOLDER / "rules").glob("*.yml"))
RULE_TESTS: Final = sorted((FOLDER / "tests").glob("*.yml"))
RUNBOOKS: Final = FOLDER / "runbooks"
ROUTES: Final = FOLDER / "alertmanager.yml"

# Alerts that the gateways send by themselves; each has a runbook, none has a rule.
OWN_ALERTS: Final = frozenset({*ALERT_NAMES.values(), WATCHDOG})
SEVERITIES: Final = frozenset({"page", "ticket", "none"})
OWNERS: Final = frozenset({"ml-engineering", "device-ops", "site-ops"})
RUNBOOK_BASE: Final = "https://weir.example/runbooks/"
BOARD_BASE: Final = "https://grafana.example/d/"
HEADINGS: Final = ("## What it means", "## Look", "## Do", "## Over when")
SIDES: Final = ("source_matchers", "target_matchers")
TOOL_S: Final = 60

Rule = Mapping[str, Any]  # a rule as YAML gives it


def alerts() -> list[Rule]:
    """Read every alert rule."""
    found = []
    for path in RULES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            found += [rule for rule in group["rules"] if "alert" in rule]
    return found


def run(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a checking tool; skips when its Debian package is missing."""
    return subprocess.run(
        [require(program), *arguments], capture_output=True, text=True, timeout=TOOL_S, check=False
    )


def incomplete(rule: Rule) -> list[str]:
    """List what an alert does not say about itself."""
    name, labels, notes = rule["alert"], rule.get("labels", {}), rule.get("annotations", {})
    found = []
    if not re.fullmatch(r"Weir[A-Z][A-Za-z]+", name):
        found.append("name")
    if labels.get("severity") not in SEVERITIES:
        found.append("severity")
    if labels.get("owner") not in OWNERS:
        found.append("owner")
    # The summary is that of the whole group of alerts; numbers belong in the description.
    if not notes.get("summary", "").endswith(".") or "{{" in notes["summary"]:
        found.append("summary")
    if not notes.get("description"):
        found.append("description")
    if notes.get("runbook_url") != f"{RUNBOOK_BASE}{name}":
        found.append("runbook_url")
    if not notes.get("dashboard_url", "").startswith(BOARD_BASE):
        found.append("dashboard_url")
    return found


def test_rules_pass_the_linter() -> None:
    done = run(PROMTOOL, "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_linter_refuses_a_duplicate_rule(tmp_path: Path) -> None:
    twice = tmp_path / "twice.yml"
    rule = "{record: a, expr: up}"
    twice.write_text(f"groups: [{{name: g, rules: [{rule}, {rule}]}}]")
    assert run(PROMTOOL, "check", "rules", "--lint=all", "--lint-fatal", twice).returncode == 3


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should(path: Path) -> None:
    done = run(PROMTOOL, "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rule_test_notices_a_changed_threshold(tmp_path: Path) -> None:
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
        for path in (FOLDER / folder).glob("*.yml"):
            text = path.read_text(encoding="utf-8").replace("seconds > 300", "seconds > 900")
            (tmp_path / folder / path.name).write_text(text)
    assert run(PROMTOOL, "test", "rules", tmp_path / "tests" / "models.yml").returncode != 0


def test_every_alert_is_tested() -> None:
    tested = {
        case["alertname"]
        for path in RULE_TESTS
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in alerts()}


def test_every_alert_says_what_a_person_needs() -> None:
    found = {rule["alert"]: gaps for rule in alerts() if (gaps := incomplete(rule))}
    assert not found


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == (
        {rule["alert"] for rule in alerts()} | OWN_ALERTS
    )


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_runbook_has_its_sections(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.stem}\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == list(HEADINGS)


def test_boards_that_alerts_point_at_exist() -> None:
    boards = {path.stem for path in (ROOT / "dashboards" / "json").glob("*.json")}
    named = {
        rule["annotations"]["dashboard_url"].removeprefix(BOARD_BASE).split("?")[0]
        for rule in alerts()
    }
    assert named <= boards


def test_incomplete_alert_is_found() -> None:
    assert set(incomplete({"alert": "Rain", "annotations": {"summary": "{{ $value }}."}})) == {
        "name",
        "severity",
        "owner",
        "summary",
        "description",
        "runbook_url",
        "dashboard_url",
    }


def test_prometheus_configuration_is_valid() -> None:
    done = run(PROMTOOL, "check", "config", FOLDER / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_routing_is_valid() -> None:
    done = run(AMTOOL, "check-config", ROUTES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("severity=page owner=device-ops", "device-ops"),
        ("severity=page owner=device-ops rollout=r7", "device-ops"),
        ("severity=page owner=ml-engineering", "ml-engineering"),
        ("severity=page owner=site-ops", "site-ops"),
        ("severity=page owner=vision@example.com", "on-call"),
        ("severity=page", "on-call"),
        ("severity=ticket owner=site-ops", "tickets"),
        ("severity=none alertname=Watchdog", "watchdog"),
    ],
)
def test_alert_reaches_its_owner(labels: str, receiver: str) -> None:
    done = run(AMTOOL, "config", "routes", "test", f"--config.file={ROUTES}", *labels.split())
    assert (done.returncode, done.stdout.strip()) == (0, receiver)


def covers(source: Mapping[str, str], target: Mapping[str, str]) -> bool:
    """Tell whether a rule of the routing lets one alert cover another one. Regexes are anchored."""
    rules = yaml.safe_load(ROUTES.read_text(encoding="utf-8"))["inhibit_rules"]
    return any(
        _fits(rule["source_matchers"], source)
        and _fits(rule["target_matchers"], target)
        and all(source.get(label, "") == target.get(label, "") for label in rule["equal"])
        for rule in rules
    )


def _fits(matchers: Iterable[str], labels: Mapping[str, str]) -> bool:
    for matcher in matchers:
        label, how, value = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', matcher).groups()  # type: ignore[union-attr]  # no match is a failure too
        found = labels.get(label, "")
        is_it = bool(re.fullmatch(value, found)) if "~" in how else found == value
        if is_it == ("!" in how):
            return False
    return True


@pytest.mark.parametrize(
    ("own", "rule", "labels"),
    [
        (AnomalyKind.INTEGRITY, "WeirIntegrityViolated", {}),
        (AnomalyKind.ROLLOUT, "WeirRolloutHalt", {"rollout": "r7"}),
        (AnomalyKind.COST, "WeirCostBudget", {}),
        (AnomalyKind.BANDWIDTH, "WeirBandwidthSpent", {}),
        (AnomalyKind.MODEL_LOAD, "WeirModelLoadsFailing", {}),
        (AnomalyKind.SLO_BURN, "WeirBudgetSoon", {"slo": "success"}),
        (AnomalyKind.DRIFT, "WeirDriftEvidence", {"signal": "class"}),
        (AnomalyKind.DRIFT, "WeirEventRateEvidence", {"signal": "event_rate"}),
    ],
)
def test_what_the_gateway_tells_is_not_told_twice(
    own: AnomalyKind, rule: str, labels: Mapping[str, str]
) -> None:
    place = {"cluster": "dock", "model": "m", "severity": "page", **labels}
    source = {**place, "alertname": ALERT_NAMES[own]}
    (target,) = [each["labels"] for each in alerts() if each["alert"] == rule]
    assert covers(source, {**place, **target, "alertname": rule})
    assert not covers(source, {**place, **target, "alertname": rule, "model": "other"})
    assert not covers({**source, "alertname": "WeirOther"}, {**target, "alertname": rule})


def test_a_ticket_of_the_gateway_does_not_cover_the_page_of_a_rule() -> None:
    place = {"cluster": "dock", "model": "m", "rollout": "r7"}
    for own, rule in (
        (AnomalyKind.ROLLOUT, "WeirRolloutHalt"),
        (AnomalyKind.BANDWIDTH, "WeirBandwidthSpent"),
    ):
        source = {**place, "alertname": ALERT_NAMES[own], "severity": "ticket"}
        assert not covers(source, {**place, "alertname": rule, "severity": "page"})


def test_a_planned_deployment_covers_neither_its_halt_nor_safety() -> None:
    plan = {
        "alertname": "PlannedDeployment",
        "cluster": "dock",
        "rollout": "r7",
        "severity": "none",
    }
    page = {"cluster": "dock", "rollout": "r7", "severity": "page"}
    assert covers(plan, {**page, "alertname": "WeirSloBurnPage"})
    assert not covers(plan, {**page, "alertname": "WeirSloBurnPage", "safety": "true"})
    assert not covers(plan, {**page, "alertname": "WeirRollout"})
    assert not covers(plan, {**page, "alertname": "WeirRolloutHalt"})


def test_every_alert_that_covers_or_is_covered_exists() -> None:
    names = {rule["alert"] for rule in alerts()} | OWN_ALERTS | {"PlannedDeployment"}
    rules = yaml.safe_load(ROUTES.read_text(encoding="utf-8"))["inhibit_rules"]
    for matcher in [each for rule in rules for side in SIDES for each in rule[side]]:
        found = re.fullmatch(r'alertname(?:=~|!~|=)"(.*)"', matcher)
        for pattern in found[1].split("|") if found else ():
            assert any(re.fullmatch(pattern, name) for name in names), matcher
