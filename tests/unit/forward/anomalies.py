"""Anomalies for the alert tests."""

from gateway.batch import Anomaly, AnomalyId, AnomalyKind, Evidence, Severity

SECOND_NS = 1_000_000_000
NOW_NS = 1_800_000_000 * SECOND_NS


def anomaly(
    name: str = "a1",
    *,
    kind: AnomalyKind = AnomalyKind.DRIFT,
    severity: Severity = Severity.PAGE,
    subject: str = "brightness",
    owner: str = "vision@example.com",
    onset_ns: int = NOW_NS - 30 * SECOND_NS,
    resolved_ns: int | None = None,
) -> Anomaly:
    """Build an anomaly of damage-net."""
    return Anomaly(
        id=AnomalyId(name),
        kind=kind,
        severity=severity,
        owner=owner,
        model="damage-net",
        version="2.1.0",
        subject=subject,
        summary="brightness of damage-net drifts",
        onset_ns=onset_ns,
        raised_ns=onset_ns + SECOND_NS,
        numbers={"psi_ratio": 0.3125, "events_count": 4000.0},
        evidence=(Evidence(trace_id="ab" * 16, device="cam-1", reason="largest term"),),
        resolved_ns=resolved_ns,
    )
