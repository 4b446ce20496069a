"""What the routes answer, as dataclasses, and how any dataclass becomes JSON.

Law: a number that is not finite becomes null, because JSON has no such number. The OpenAPI document
is made from these classes, so that it cannot say anything else than the answers.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass

from aiohttp import web

from gateway.api.drifts import BaselineState, DriftBudget, DriftReport, DriftState
from gateway.api.operations import AccuracyState, BandwidthState, CostState, DeviceState
from gateway.api.sources import (
    AnomalyView,
    Check,
    DiveState,
    Quantiles,
    SloState,
    Weights,
)
from gateway.batch import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether the gateway takes data, and which condition fails."""

    ready: bool
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """One model and version; durations are null where there were no inferences."""

    model: str
    version: str
    succeeded: int
    failed: int
    success_ratio: float | None
    cold_starts: int
    recent: Quantiles | None
    all_time: Quantiles | None
    classes: Mapping[str, int]
    last_event_ns: int
    weights: Weights | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """A page of models."""

    items: tuple[ModelView, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """A page of devices, the stalest first."""

    items: tuple[DeviceState, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slos:
    """A page of objectives."""

    items: tuple[SloState, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracies:
    """A page of models and versions that have labels."""

    items: tuple[AccuracyState, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """A page of models that have a cost, and all allowances of bytes."""

    items: tuple[CostState, ...]
    bandwidth: tuple[BandwidthState, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifts:
    """A page of drift streams, and what is said of all of them together."""

    items: tuple[DriftState, ...]
    total: int
    budget: DriftBudget
    reported: DriftReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """A page of baselines."""

    items: tuple[BaselineState, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyPage:
    """A page of anomalies, the newest first."""

    items: tuple[AnomalyView, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DivePage:
    """A page of deep dives, the newest first."""

    items: tuple[DiveState, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A deep dive that was queued."""

    id: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenanceClaim:
    """What the spans of one device and model say of themselves; an empty text is not known.

    Nothing here is verified: a claim is what the device wrote into the trace.
    """

    device: str
    service: str
    service_version: str
    model: str
    model_version: str
    model_digest: str
    artifact_hash: str
    attestation_hash: str
    pointer: str
    rollout: str
    runtime: str
    accelerator: str
    spans: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What is known of the origin of a trace."""

    trace_id: str
    claims: tuple[ProvenanceClaim, ...]
    problems: tuple[str, ...]


def plain(value: object) -> Json:
    """Turn dataclasses into what the JSON encoder knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def respond(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer with JSON."""
    text = json.dumps(plain(value), separators=(",", ":"), allow_nan=False)
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)
