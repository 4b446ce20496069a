"""The webhooks of a site: which anomalies each is called for, and what is said to it.

Law: no device, no trace and no person is named in a body: evidence stays at the site. A hook is
known by a digest of its URL, and to people by scheme, host and port, because a path or query may
hold a secret.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from gateway.batch import Anomaly, Json, Severity
from gateway.config import RetrainSection, SiteConfig
from gateway.errors import Finding, InvalidConfigError
from gateway.forward.alerts import (
    SUBJECT,
    SUBJECT_LABELS,
    VALUE_CHARS_MAX,
    rfc3339,
    told_numbers,
)
from gateway.forward.signing import read_key

TYPE_PREFIX: Final = "weir."
DIGEST_DIGITS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One webhook of the site file, with its key."""

    id: str
    url: str
    endpoint: str
    key: bytes
    models: frozenset[str]  # empty: all
    kinds: frozenset[str]
    severity: Severity

    def __repr__(self) -> str:
        """Name the hook without what is secret."""
        return f"Hook({self.id} {self.endpoint})"

    def wants(self, anomaly: Anomaly) -> bool:
        """Tell whether this hook is called for an anomaly."""
        loud = anomaly.severity is Severity.PAGE or self.severity is Severity.TICKET
        of_model = not self.models or anomaly.model in self.models
        return loud and of_model and anomaly.kind.value in self.kinds


def load_hooks(config: SiteConfig) -> tuple[Hook, ...]:
    """Make the hooks of a site file and read their keys.

    Raises: InvalidConfigError with what is wrong with all key files.
    """
    findings: list[Finding] = []
    hooks: list[Hook] = []
    for section in config.retrain:
        try:
            hooks.append(make_hook(section, read_key(section.key_file)))
        except InvalidConfigError as error:
            findings += error.findings
    if findings:
        raise InvalidConfigError(findings)
    return tuple(hooks)


def make_hook(section: RetrainSection, key: bytes) -> Hook:
    """Make one hook."""
    parts = urlsplit(section.url)
    # Without the user that a URL may name.
    place = parts.netloc.rpartition("@")[2]
    return Hook(
        id=hashlib.sha256(section.url.encode()).hexdigest()[:DIGEST_DIGITS],
        url=section.url,
        endpoint=f"{parts.scheme}://{place}",
        key=key,
        models=frozenset(section.models),
        kinds=frozenset(section.kinds),
        severity=Severity(section.severity),
    )


def body_of(anomaly: Anomaly, site: str) -> str:
    """Write what a hook is told of an anomaly, as compact JSON.

    The link is a path of the site's own API, which the receiver may or may not reach.
    """
    name = quote(anomaly.id, safe="")
    data: dict[str, Json] = {
        "id": anomaly.id,
        "kind": anomaly.kind.value,
        "site": site,
        "model": anomaly.model,
        "version": anomaly.version,
        SUBJECT_LABELS.get(anomaly.kind, SUBJECT): anomaly.subject,
        "severity": anomaly.severity.value,
        "onset": rfc3339(anomaly.onset_ns),
        "raised": rfc3339(anomaly.raised_ns),
        "summary": anomaly.summary[:VALUE_CHARS_MAX],
        "numbers": dict(_numbers(told_numbers(anomaly))),
        "links": {"anomaly": f"/api/v1/anomalies/{name}"},
    }
    body = {
        "type": TYPE_PREFIX + anomaly.kind.value,
        "timestamp": rfc3339(anomaly.raised_ns),
        "data": data,
    }
    return json.dumps(body, separators=(",", ":"), allow_nan=False)


def _numbers(numbers: Iterable[tuple[str, float]]) -> Iterable[tuple[str, float | None]]:
    """Give null for what JSON has no number for."""
    for name, value in numbers:
        yield name, value if math.isfinite(value) else None
