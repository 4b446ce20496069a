"""Anomalies as Alertmanager alerts: the state of every alert, and what it looks like on the wire.

Law: labels are identity only and never change while an alert lives; numbers and links are
annotations. Anomalies with the same labels are one alert, which is resolved when all of them are.
The newest state is what is sent, so nothing is ever queued twice. No clock: time is an argument.

Source: Alertmanager API v2; the Prometheus server's notifier.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, urlsplit

from gateway.batch import Anomaly, AnomalyId, AnomalyKind, Json, Severity
from gateway.errors import Finding, InvalidConfigError

RESEND_S: Final = 60.0
# An alert ends by itself when this many re-sends in a row did not arrive.
END_AFTER_RESENDS: Final = 4
RESOLVED_RESEND_S: Final = 300.0
ALERTS_MAX: Final = 10_000
VALUE_CHARS_MAX: Final = 512
NUMBERS_MAX: Final = 32

WATCHDOG: Final = "Watchdog"
ALERT_NAMES: Final = {
    AnomalyKind.DRIFT: "WeirDrift",
    AnomalyKind.SLO_BURN: "WeirSloBurn",
    AnomalyKind.INTEGRITY: "WeirIntegrity",
    AnomalyKind.SILENCE: "WeirSilence",
    AnomalyKind.CLOCK_SKEW: "WeirClocks",
    AnomalyKind.ACCELERATOR: "WeirAcceleratorFallback",
    AnomalyKind.MODEL_LOAD: "WeirModelLoad",
    AnomalyKind.SATURATION: "WeirSaturation",
    AnomalyKind.POWER: "WeirPower",
    AnomalyKind.ROLLOUT: "WeirRollout",
    AnomalyKind.COST: "WeirCost",
    AnomalyKind.BANDWIDTH: "WeirBandwidth",
    AnomalyKind.MISCALIBRATION: "WeirCalibration",
    AnomalyKind.OVERCONFIDENCE: "WeirOverconfidence",
}
SUBJECT_LABELS: Final = {
    AnomalyKind.DRIFT: "signal",
    AnomalyKind.SLO_BURN: "slo",
    AnomalyKind.ROLLOUT: "rollout",
    AnomalyKind.MISCALIBRATION: "version",
    AnomalyKind.OVERCONFIDENCE: "version",
}
SUBJECT: Final = "subject"

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertContext:
    """Where the alerts come from and what they point at. URLs are bases without a final slash."""

    site: str
    cluster: str = ""
    region: str = ""
    api_url: str = ""
    runbook_url: str = ""
    dashboard_url: str = ""

    def __post_init__(self) -> None:
        """Refuse a URL for which Alertmanager would refuse the whole request."""
        for name in ("api_url", "runbook_url", "dashboard_url"):
            url = getattr(self, name)
            if url and not is_http_url(url):
                finding = Finding(
                    file="",
                    line=0,
                    column=0,
                    rule="alert-url",
                    message=f"{name} is not an http(s) URL: {url}",
                    instead="write http://host:port",
                )
                raise InvalidConfigError([finding])


@dataclass(slots=True)
class _Alert:
    labels: Labels
    severity: Severity
    firing: dict[AnomalyId, Anomaly] = field(default_factory=dict)
    newest: Anomaly | None = None
    starts_ns: int = 0
    resolved_ns: int | None = None
    resolved_at_ns: int = 0  # when this process learnt it


class AlertBook:
    """All alerts that fire or were resolved a short while ago."""

    def __init__(
        self, context: AlertContext, *, started_ns: int, resend_s: float = RESEND_S
    ) -> None:
        self._context = context
        self._started_ns = started_ns
        self._resend_ns = int(resend_s * 1e9)
        self._alerts: dict[Labels, _Alert] = {}
        self._watchdog = _labels(context, {"alertname": WATCHDOG, "severity": "none"})
        self.dropped = 0

    def update(self, anomalies: Iterable[Anomaly], now_ns: int) -> list[Labels]:
        """Take new states of anomalies; returns the labels of the alerts that changed."""
        changed: dict[Labels, None] = {}
        for anomaly in anomalies:
            labels = self._labels_of(anomaly)
            if anomaly.resolved_ns is None:
                self._fire(labels, anomaly)
                changed[labels] = None
            elif self._resolve(labels, anomaly, now_ns):
                changed[labels] = None
        return [labels for labels in changed if labels in self._alerts]

    def everything(self, now_ns: int) -> list[Labels]:
        """Forget what was resolved long ago; returns the labels of all the rest."""
        old = now_ns - int(RESOLVED_RESEND_S * 1e9)
        for labels, alert in tuple(self._alerts.items()):
            if alert.resolved_ns is not None and alert.resolved_at_ns < old:
                del self._alerts[labels]
        return [self._watchdog, *self._alerts]

    def maybe_render(self, labels: Labels, now_ns: int) -> dict[str, Json] | None:
        """Write one alert as it is now; None when it is no longer known."""
        ends_ns = now_ns + END_AFTER_RESENDS * self._resend_ns
        if labels == self._watchdog:
            note = "Fires as long as the gateway of this site can send alerts."
            return self._wire(labels, {"summary": note}, self._started_ns, ends_ns, "")
        alert = self._alerts.get(labels)
        if alert is None or alert.newest is None:
            return None
        # Event time may run ahead of this clock; Alertmanager refuses a start after the end.
        starts_ns = min(alert.starts_ns, now_ns)
        if alert.resolved_ns is not None:
            ends_ns = max(starts_ns, min(alert.resolved_ns, now_ns))
        page = f"/api/v1/anomalies/{quote(alert.newest.id, safe='')}"
        return self._wire(labels, self._annotations(alert.newest), starts_ns, ends_ns, page)

    @property
    def firing(self) -> int:
        """How many alerts fire, without the watchdog."""
        return sum(alert.resolved_ns is None for alert in self._alerts.values())

    def _fire(self, labels: Labels, anomaly: Anomaly) -> None:
        alert = self._alerts.get(labels)
        if alert is None or alert.resolved_ns is not None:
            if alert is None and len(self._alerts) >= ALERTS_MAX and not self._make_room(anomaly):
                self.dropped += 1
                return
            alert = _Alert(labels=labels, severity=anomaly.severity, starts_ns=anomaly.onset_ns)
            self._alerts[labels] = alert
        alert.firing[anomaly.id] = anomaly
        alert.newest = anomaly
        alert.starts_ns = min(alert.starts_ns, anomaly.onset_ns)

    def _resolve(self, labels: Labels, anomaly: Anomaly, now_ns: int) -> bool:
        alert = self._alerts.get(labels)
        if alert is None:
            # Fired by an earlier process: Alertmanager still has to hear of the end.
            self._fire(labels, anomaly)
            alert = self._alerts.get(labels)
        if alert is None or alert.firing.pop(anomaly.id, None) is None or alert.firing:
            return False
        alert.newest = anomaly
        alert.resolved_ns = anomaly.resolved_ns
        alert.resolved_at_ns = now_ns
        return True

    def _make_room(self, anomaly: Anomaly) -> bool:
        """Drop what was resolved, else a ticket for a page; False when neither is there."""
        for labels, alert in self._alerts.items():
            if alert.resolved_ns is not None:
                del self._alerts[labels]
                return True
        if anomaly.severity is Severity.PAGE:
            for labels, alert in self._alerts.items():
                if alert.severity is Severity.TICKET:
                    del self._alerts[labels]
                    self.dropped += 1
                    return True
        return False

    def _labels_of(self, anomaly: Anomaly) -> Labels:
        return _labels(
            self._context,
            {
                "alertname": ALERT_NAMES[anomaly.kind],
                SUBJECT_LABELS.get(anomaly.kind, SUBJECT): anomaly.subject,
                "model": anomaly.model,
                "severity": anomaly.severity.value,
                "owner": anomaly.team.value,
            },
        )

    def _annotations(self, anomaly: Anomaly) -> dict[str, str]:
        context = self._context
        parts = [f"{anomaly.model} {anomaly.version}, {anomaly.subject}:"]
        parts.extend(f"{name}={value:.6g}" for name, value in told_numbers(anomaly))
        notes = {
            "summary": anomaly.summary,
            "description": " ".join(parts),
            "version": anomaly.version,
            "contact": anomaly.owner,
            "anomaly_id": anomaly.id,
            "trace_id": anomaly.evidence[0].trace_id if anomaly.evidence else "",
        }
        name = ALERT_NAMES[anomaly.kind]
        if context.runbook_url:
            notes["runbook_url"] = f"{context.runbook_url}/{name}"
        if context.dashboard_url:
            model = quote(anomaly.model, safe="")
            notes["dashboard_url"] = f"{context.dashboard_url}?var-model={model}"
        if context.api_url:
            anomaly_id = quote(anomaly.id, safe="")
            notes["dive_url"] = f"{context.api_url}/api/v1/dives?anomaly_id={anomaly_id}"
        return {key: text for key, text in notes.items() if text}

    def _wire(
        self, labels: Labels, notes: Mapping[str, str], starts_ns: int, ends_ns: int, page: str
    ) -> dict[str, Json]:
        alert: dict[str, Json] = {
            "labels": dict(labels),
            "annotations": {key: text[:VALUE_CHARS_MAX] for key, text in notes.items()},
            "startsAt": rfc3339(starts_ns),
            "endsAt": rfc3339(ends_ns),
        }
        if self._context.api_url:
            alert["generatorURL"] = self._context.api_url + (page or "/")
        return alert


def told_numbers(anomaly: Anomaly) -> list[tuple[str, float]]:
    """List what is said of an anomaly's numbers outside the API, by name, NUMBERS_MAX at most.

    Those of single bins, `psi_of:0.1 to 0.2`, are in the API alone.
    """
    whole = sorted((name, value) for name, value in anomaly.numbers.items() if ":" not in name)
    return whole[:NUMBERS_MAX]


def rfc3339(time_ns: int) -> str:
    """Write Unix nanoseconds as RFC 3339 in UTC, to the microsecond."""
    seconds, rest_ns = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ns // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def is_http_url(url: str) -> bool:
    """Tell whether a text is an absolute http or https URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _labels(context: AlertContext, own: Mapping[str, str]) -> Labels:
    """Join identity labels; an empty value would be dropped there and change the identity."""
    labels = {"cluster": context.cluster, "site": context.site, "region": context.region, **own}
    return tuple(sorted((key, text[:VALUE_CHARS_MAX]) for key, text in labels.items() if text))
