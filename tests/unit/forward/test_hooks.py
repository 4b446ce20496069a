"""A hook is called for what it asks for, and nothing that stays at the site is said to it."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from gateway.batch import Anomaly, AnomalyKind, Evidence, Severity
from gateway.config import RetrainSection, SiteConfig
from gateway.errors import InvalidConfigError
from gateway.forward.alerts import AlertBook, AlertContext
from gateway.forward.hooks import Hook, body_of, load_hooks, make_hook
from tests.unit.forward.anomalies import NOW_NS, anomaly

KEY = bytes(range(32))
URL = "https://train.example/v1/start?token=s3cret"


def hook(url: str = URL, **knobs: Any) -> Hook:
    """Make a hook from knobs of its section."""
    section = {"url": url, "key_file": Path("hook.key"), **knobs}
    return make_hook(RetrainSection.model_validate(section), KEY)


@pytest.mark.parametrize(
    ("knobs", "kind", "severity", "wanted"),
    [
        ({}, AnomalyKind.DRIFT, Severity.TICKET, True),
        ({}, AnomalyKind.DRIFT, Severity.PAGE, True),
        ({}, AnomalyKind.SLO_BURN, Severity.PAGE, False),
        ({"kinds": ("drift", "slo_burn")}, AnomalyKind.SLO_BURN, Severity.PAGE, True),
        ({"severity": "page"}, AnomalyKind.DRIFT, Severity.TICKET, False),
        ({"severity": "page"}, AnomalyKind.DRIFT, Severity.PAGE, True),
        ({"models": ("damage-net",)}, AnomalyKind.DRIFT, Severity.TICKET, True),
        ({"models": ("triage-net",)}, AnomalyKind.DRIFT, Severity.PAGE, False),
    ],
)
def test_a_hook_is_called_for_its_kinds_models_and_severity(
    knobs: dict[str, Any], kind: AnomalyKind, severity: Severity, wanted: bool
) -> None:
    assert hook(**knobs).wants(anomaly(kind=kind, severity=severity)) is wanted


def test_a_body_says_what_is_wrong_and_where_to_look() -> None:
    told = json.loads(body_of(anomaly("0a1b"), "dock-7"))
    assert told == {
        "type": "weir.drift",
        "timestamp": "2027-01-15T07:59:31.000000Z",
        "data": {
            "id": "0a1b",
            "kind": "drift",
            "site": "dock-7",
            "model": "damage-net",
            "version": "2.1.0",
            "signal": "brightness",
            "severity": "page",
            "onset": "2027-01-15T07:59:30.000000Z",
            "raised": "2027-01-15T07:59:31.000000Z",
            "summary": "brightness of damage-net drifts",
            "numbers": {"events_count": 4000.0, "psi_ratio": 0.3125},
            "links": {"anomaly": "/api/v1/anomalies/0a1b"},
        },
    }


def test_no_device_trace_or_person_is_in_a_body() -> None:
    evidence = tuple(
        Evidence(trace_id=f"{n:032x}", device=f"cam-{n}", reason=f"why-{n}") for n in range(4)
    )
    text = body_of(dataclasses.replace(anomaly(), evidence=evidence), "dock-7")
    for each in evidence:
        assert each.trace_id not in text
        assert each.device not in text
        assert each.reason not in text
    assert "vision@example.com" not in text


def test_a_body_is_bounded_and_always_json() -> None:
    numbers = {"a_ratio": math.nan, "b_ratio": math.inf}
    numbers |= {f"n{n:03}_count": float(n) for n in range(100)}
    large = dataclasses.replace(anomaly(), summary="\udc80é" * 5000, numbers=numbers)
    text = body_of(large, "dock-7")
    assert len(text.encode()) < 20_000
    told = json.loads(text, parse_constant=pytest.fail)["data"]
    assert (told["numbers"]["a_ratio"], told["numbers"]["b_ratio"]) == (None, None)
    assert len(told["numbers"]) == 32


def test_what_is_said_of_single_bins_does_not_crowd_out_the_rest() -> None:
    whole = {f"n{n:02}_count": float(n) for n in range(20)}
    whole |= {"relative_drift_index": 2.5, "window_events": 900.0}
    bins = {f"{what}:cracked {n}": 0.5 for what in ("psi_of", "current_of") for n in range(8)}
    many = dataclasses.replace(anomaly(), numbers=bins | whole)
    assert json.loads(body_of(many, "dock-7"))["data"]["numbers"] == whole
    [alert] = rendered(many)
    assert "relative_drift_index=2.5" in alert
    assert "window_events=900" in alert
    assert "cracked" not in alert


def rendered(one: Anomaly) -> list[str]:
    book = AlertBook(AlertContext(site="dock-7"), started_ns=NOW_NS)
    found = [book.maybe_render(labels, NOW_NS) for labels in book.update([one], NOW_NS)]
    return [json.dumps(each) for each in found]


def test_other_kinds_name_their_subject_as_alerts_do() -> None:
    told = json.loads(body_of(anomaly(kind=AnomalyKind.SILENCE, subject="all"), "dock-7"))
    assert (told["type"], told["data"]["subject"]) == ("weir.silence", "all")


def test_a_hook_is_known_without_its_secrets() -> None:
    made = hook("https://train.example:8443/v1/s3cret?token=s3cret")
    assert made.endpoint == "https://train.example:8443"
    for text in (made.endpoint, made.id, repr(made), str([made])):
        assert "s3cret" not in text
        assert KEY.hex() not in text
        assert repr(KEY) not in text
    assert hook().id == hook(severity="page").id != hook(URL + "2").id


def test_all_key_files_that_cannot_be_used_are_told_at_once(tmp_path: Path) -> None:
    for name in ("a.key", "b.key"):
        (tmp_path / name).write_text("whsec_short")
    sections = [
        {"url": f"https://train.example/{name}", "key_file": tmp_path / name}
        for name in ("a.key", "b.key")
    ]
    config = SiteConfig.model_validate({"retrain": tuple(sections)})
    with pytest.raises(InvalidConfigError) as caught:
        load_hooks(config)
    assert [Path(each.file).name for each in caught.value.findings] == ["a.key", "b.key"]
