"""Anomalies become alerts whose identity and times Alertmanager takes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import AnomalyKind, Severity
from gateway.errors import InvalidConfigError
from gateway.forward import alerts
from gateway.forward.alerts import AlertBook, AlertContext, Labels, rfc3339
from tests.unit.forward.anomalies import NOW_NS, SECOND_NS, anomaly

CONTEXT = AlertContext(
    site="dock-7",
    cluster="dock",
    region="eu-west",
    api_url="http://127.0.0.1:9464",
    runbook_url="https://runbooks.example/weir",
    dashboard_url="http://127.0.0.1:3000/d/model",
)


def book(context: AlertContext = CONTEXT) -> AlertBook:
    return AlertBook(context, started_ns=NOW_NS - 100 * SECOND_NS, resend_s=60.0)


def rendered(one: AlertBook, labels: Labels, now_ns: int = NOW_NS) -> dict[str, object]:
    alert = one.maybe_render(labels, now_ns)
    assert alert is not None
    return alert


def test_an_alert_says_who_what_and_where_to_look() -> None:
    one = book()
    [labels] = one.update([anomaly()], NOW_NS)
    assert rendered(one, labels) == {
        "labels": {
            "alertname": "WeirDrift",
            "cluster": "dock",
            "model": "damage-net",
            "owner": "ml-engineering",
            "region": "eu-west",
            "severity": "page",
            "signal": "brightness",
            "site": "dock-7",
        },
        "annotations": {
            "summary": "brightness of damage-net drifts",
            "description": "damage-net 2.1.0, brightness: events_count=4000 psi_ratio=0.3125",
            "version": "2.1.0",
            "contact": "vision@example.com",
            "anomaly_id": "a1",
            "trace_id": "ab" * 16,
            "runbook_url": "https://runbooks.example/weir/WeirDrift",
            "dashboard_url": "http://127.0.0.1:3000/d/model?var-model=damage-net",
            "dive_url": "http://127.0.0.1:9464/api/v1/dives?anomaly_id=a1",
        },
        "startsAt": rfc3339(NOW_NS - 30 * SECOND_NS),
        "endsAt": rfc3339(NOW_NS + 240 * SECOND_NS),
        "generatorURL": "http://127.0.0.1:9464/api/v1/anomalies/a1",
    }


def test_an_slo_alert_carries_the_slo() -> None:
    one = book(AlertContext(site="s"))
    changed = one.update(
        [anomaly(kind=AnomalyKind.SLO_BURN, severity=Severity.TICKET, subject="latency", owner="")],
        NOW_NS,
    )
    alert = rendered(one, changed[0])
    assert alert["labels"] == {
        "alertname": "WeirSloBurn",
        "model": "damage-net",
        "owner": "ml-engineering",
        "severity": "ticket",
        "site": "s",
        "slo": "latency",
    }
    assert "generatorURL" not in alert


def test_the_watchdog_always_fires() -> None:
    one = book()
    [labels] = one.everything(NOW_NS)
    alert = rendered(one, labels)
    assert dict(labels)["alertname"] == "Watchdog"
    assert dict(labels)["site"] == "dock-7"
    assert alert["startsAt"] == rfc3339(NOW_NS - 100 * SECOND_NS)
    assert alert["endsAt"] == rfc3339(NOW_NS + 240 * SECOND_NS)
    assert one.firing == 0


def test_a_resolved_alert_ends_then_and_is_forgotten_later() -> None:
    one = book()
    one.update([anomaly()], NOW_NS)
    ended_ns = NOW_NS - 5 * SECOND_NS
    [labels] = one.update([anomaly(resolved_ns=ended_ns)], NOW_NS)
    assert rendered(one, labels)["endsAt"] == rfc3339(ended_ns)
    assert one.firing == 0
    assert labels in one.everything(NOW_NS + 300 * SECOND_NS)
    assert labels not in one.everything(NOW_NS + 301 * SECOND_NS)
    assert one.maybe_render(labels, NOW_NS) is None


def test_an_end_that_an_earlier_process_fired_is_told() -> None:
    one = book()
    [labels] = one.update([anomaly(resolved_ns=NOW_NS - SECOND_NS)], NOW_NS)
    assert rendered(one, labels)["endsAt"] == rfc3339(NOW_NS - SECOND_NS)
    assert one.update([anomaly(resolved_ns=NOW_NS - SECOND_NS)], NOW_NS) == []


def test_anomalies_with_the_same_labels_are_one_alert_until_the_last_is_resolved() -> None:
    one = book()
    early = NOW_NS - 90 * SECOND_NS
    one.update([anomaly("a1"), anomaly("a2", onset_ns=early)], NOW_NS)
    assert one.firing == 1
    assert one.update([anomaly("a1", resolved_ns=NOW_NS)], NOW_NS) == []
    assert one.firing == 1
    [labels] = one.update([anomaly("a2", resolved_ns=NOW_NS)], NOW_NS)
    assert one.firing == 0
    assert rendered(one, labels)["startsAt"] == rfc3339(early)


def test_an_alert_that_fires_again_starts_again() -> None:
    one = book()
    one.update([anomaly(), anomaly(resolved_ns=NOW_NS)], NOW_NS)
    [labels] = one.update([anomaly("a2", onset_ns=NOW_NS - SECOND_NS)], NOW_NS)
    assert rendered(one, labels)["startsAt"] == rfc3339(NOW_NS - SECOND_NS)
    assert one.firing == 1


@given(
    onset_ns=st.integers(0, 4_000_000_000 * SECOND_NS),
    resolved_ns=st.none() | st.integers(0, 4_000_000_000 * SECOND_NS),
)
def test_no_alert_ends_before_it_starts(onset_ns: int, resolved_ns: int | None) -> None:
    one = book()
    [labels] = one.update([anomaly(onset_ns=onset_ns, resolved_ns=resolved_ns)], NOW_NS)
    alert = rendered(one, labels)
    assert str(alert["startsAt"]) <= str(alert["endsAt"])
    assert str(alert["startsAt"]) <= rfc3339(NOW_NS)


def test_when_the_table_is_full_pages_replace_tickets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "ALERTS_MAX", 3)
    one = book()
    one.update([anomaly("r", subject="r"), anomaly("r", subject="r", resolved_ns=NOW_NS)], NOW_NS)
    ticket = [anomaly(f"t{n}", subject=f"t{n}", severity=Severity.TICKET) for n in range(2)]
    one.update(ticket, NOW_NS)
    assert len(one.update([anomaly("p0", subject="p0")], NOW_NS)) == 1
    assert one.firing == 3, "the resolved one went first"
    assert one.dropped == 0
    assert len(one.update([anomaly("p1", subject="p1")], NOW_NS)) == 1
    assert one.dropped == 1
    late = anomaly("t9", subject="t9", severity=Severity.TICKET)
    assert one.update([late], NOW_NS) == []
    one.update([anomaly("p2", subject="p2")], NOW_NS)
    assert one.update([anomaly("p3", subject="p3")], NOW_NS) == []
    assert [dict(labels)["severity"] for labels in one.everything(NOW_NS)[1:]] == ["page"] * 3


@given(subject=st.text(max_size=600), owner=st.text(max_size=600))
def test_any_text_makes_labels_that_alertmanager_takes(subject: str, owner: str) -> None:
    one = book()
    for kind in AnomalyKind:
        [labels] = one.update([anomaly(kind=kind, subject=subject, owner=owner)], NOW_NS)
        for name, value in labels:
            assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name)
            assert 0 < len(value) <= 512


@pytest.mark.parametrize("url", ["dock:9464", "ftp://x", "http://", "http://[::1"])
def test_a_url_that_would_cost_the_whole_request_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfigError, match="api_url"):
        AlertContext(site="s", api_url=url)


def test_times_are_written_in_utc_to_the_microsecond() -> None:
    assert rfc3339(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
