"""An OpenSLO policy is a pair of windows; what it says beyond that is refused by name."""

from pathlib import Path

import pytest

from gateway.batch import Severity
from tests.unit.contract.openslo_texts import ALERTED, loaded_with, refused


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("alertPolicyRef: fast", "alertPolicyRef: fst", 10, "no AlertPolicy has the name 'fst'"),
        ("conditionRef: hour", "conditionRef: day", 32, "no AlertCondition has the name 'day'"),
        (
            "targetRef: on-call",
            "targetRef: x",
            33,
            "no AlertNotificationTarget has the name 'x'",
        ),
        (
            "[{conditionRef: hour}]",
            "[{conditionRef: hour}, {conditionRef: hour}]",
            32,
            "a policy has one condition, not 2",
        ),
        ("[{conditionRef: hour}]", "[]", 30, "a policy has one condition, not 0"),
        ("alertAfter: 0m", "alertAfter: 5m", 40, "alertAfter: an alert is not held back for 5m"),
        ("op: gt,", "op: lt,", 40, "op: 'lt' would fire while nothing burns"),
        ("kind: burnrate, op: gt,", "kind: budget,", 40, None),
        ("severity: page", "severity: sev1", 39, "severity: 'sev1' is not one of Weir's"),
        ("lookbackWindow: 1h", "lookbackWindow: 1Q", 40, None),
        (
            "threshold: 14.4",
            "threshold: 100",
            40,
            "alerts[0].factor: at 0.99 the 1h alert would need 100% bad events and could never "
            "fire",
        ),
        ("alertWhenResolved: false", "alertWhenResolved: true", 31, None),
        ("alertWhenResolved: false", "alertWhenNoData: true", 31, None),
        (
            "alertWhenBreaching: true\n  alertWhenResolved",
            "alertWhenResolved",
            29,
            "the policy alerts of nothing",
        ),
        ("spec: {target: alertmanager}\n---\n", "spec: {target: slack}\n---\n", 24, None),
        ("kind: AlertCondition\n            meta", "kind: SLI\n            meta", 16, None),
        ("severity: page", "severity: ticket", 10, "alerts: none of them pages"),
    ],
)
def test_alerts_beyond_pairs_of_windows_are_refused(
    tmp_path: Path, old: str, new: str, line: int, message: str | None
) -> None:
    assert old in ALERTED
    (finding,) = refused(tmp_path, ALERTED.replace(old, new, 1))
    assert finding.line == line
    assert finding.instead
    assert message is None or finding.message == message


def test_tickets_alone_are_allowed_by_a_note(tmp_path: Path) -> None:
    text = ALERTED.replace("severity: page", "severity: ticket").replace(
        "{name: warm}", '{name: warm, annotations: {edgeai.slo.page: "false"}}'
    )
    (slo,) = loaded_with(tmp_path, text).slos
    assert {pair.severity for pair in slo.pairs} == {Severity.TICKET}


@pytest.mark.parametrize(
    ("lookback", "short_s"), [("10m", 50), ("7m", 50), ("25m", 130), ("1h", 300), ("2d", 14_400)]
)
def test_short_window_is_a_twelfth_in_whole_slots(
    tmp_path: Path, lookback: str, short_s: int
) -> None:
    text = ALERTED.replace("lookbackWindow: 1h", f"lookbackWindow: {lookback}")
    (slo,) = loaded_with(tmp_path, text).slos
    assert slo.pairs[0].short_s == short_s
