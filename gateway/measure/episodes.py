"""Open anomalies: raised once, told again only when they get louder, resolved when it is over.

Law: there is at most one open anomaly per key. Its id is a digest of what and since when, fixed at
its first telling, so a replay that finds the same thing raises the same id again.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.batch import (
    Anomaly,
    AnomalyId,
    AnomalyKind,
    Evidence,
    Json,
    Severity,
    Team,
)
from gateway.errors import CorruptDataError
from gateway.measure.state import Array, State, pack_json, unpack_json

ID_DIGITS = 32


@dataclass(slots=True, kw_only=True)
class Episode:
    """One open anomaly. Units: quiet_ns since when it is gone, checked_ns the last look."""

    anomaly: Anomaly
    checked_ns: int
    quiet_ns: int | None = None

    def quiet_for_ns(self, is_quiet: bool, at_ns: int) -> int:
        """Take one look; return for how long it has been quiet."""
        self.checked_ns = at_ns
        if not is_quiet:
            self.quiet_ns = None
            return 0
        if self.quiet_ns is None:
            self.quiet_ns = at_ns
        return at_ns - self.quiet_ns


def anomaly_id(
    kind: AnomalyKind, model: str, version: str, subject: str, onset_ns: int
) -> AnomalyId:
    """Make the id of an anomaly."""
    text = "\n".join((kind.value, model, version, subject, str(onset_ns)))
    return AnomalyId(hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS])


class Episodes:
    """Open anomalies by key, and how many were ever raised by kind and model."""

    def __init__(self) -> None:
        self.open: dict[str, Episode] = {}
        self.raised: Counter[tuple[str, str]] = Counter()

    def start(self, key: str, anomaly: Anomaly) -> Anomaly:
        """Open an anomaly."""
        self.open[key] = Episode(anomaly=anomaly, checked_ns=anomaly.raised_ns)
        self.raised[(anomaly.kind.value, anomaly.model)] += 1
        return anomaly

    def escalate(self, key: str, anomaly: Anomaly) -> Anomaly:
        """Tell an open anomaly again, louder and with newer numbers, under its first id."""
        first = self.open[key].anomaly
        louder = dataclasses.replace(
            anomaly,
            id=first.id,
            version=first.version,
            onset_ns=first.onset_ns,
            raised_ns=first.raised_ns,
        )
        self.open[key].anomaly = louder
        return louder

    def resolve(self, key: str, at_ns: int) -> Anomaly:
        """Close an anomaly; one that was told at once ends no earlier than it was raised."""
        anomaly = self.open.pop(key).anomaly
        return dataclasses.replace(anomaly, resolved_ns=max(at_ns, anomaly.raised_ns))

    def state(self) -> State:
        """Write everything as text."""
        episodes = [
            [key, _written(episode.anomaly), episode.checked_ns, episode.quiet_ns]
            for key, episode in self.open.items()
        ]
        raised = [[kind, model, count] for (kind, model), count in self.raised.items()]
        return {"episodes": pack_json(episodes), "raised": pack_json(raised)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Read everything back. Raises: CorruptDataError."""
        for key, anomaly, checked_ns, quiet_ns in unpack_json(state["episodes"]):
            self.open[key] = Episode(
                anomaly=_read(anomaly), checked_ns=checked_ns, quiet_ns=quiet_ns
            )
        for kind, model, count in unpack_json(state["raised"]):
            self.raised[(kind, model)] = count


def merge(first: Mapping[str, Array], second: Mapping[str, Array]) -> State:
    """Join open anomalies and add how many were raised."""
    one, two = Episodes(), Episodes()
    one.restore(first)
    two.restore(second)
    one.open = {**two.open, **one.open}
    one.raised.update(two.raised)
    return one.state()


def _written(anomaly: Anomaly) -> Json:
    fields = {
        field.name: getattr(anomaly, field.name)
        for field in dataclasses.fields(anomaly)
        if field.name != "evidence"
    }
    fields["numbers"] = dict(anomaly.numbers)
    fields["evidence"] = [[each.trace_id, each.device, each.reason] for each in anomaly.evidence]
    return fields


def _read(fields: Json) -> Anomaly:
    try:
        return Anomaly(
            **{
                **fields,
                "kind": AnomalyKind(fields["kind"]),
                "severity": Severity(fields["severity"]),
                "team": Team(fields["team"]),
                "evidence": tuple(
                    Evidence(trace_id=trace_id, device=device, reason=reason)
                    for trace_id, device, reason in fields["evidence"]
                ),
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"an open anomaly in the state cannot be read: {error}") from error
