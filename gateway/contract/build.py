"""Forms without findings to contracts, and the digest of what they say.

Law: pure; the same form gives the same contract, except for `source`, and the same digest.
"""

import hashlib
import json
from types import MappingProxyType
from typing import Any, Final, Literal

from gateway.config.keep import KeepRule
from gateway.contract.form import ContractForm, CostForm
from gateway.contract.laws import signals_of
from gateway.contract.objectives import slo_of
from gateway.contract.schema import (
    Accumulator,
    BaselineFile,
    Contract,
    Cost,
    DriftRule,
    LabelRule,
    MetricRule,
    ProvenanceRequirement,
    ProvenanceRule,
    ResourceRule,
    RolloutRule,
    SamplingRule,
    Season,
)

# Keys that came later than the form's first version, with what they are when they say nothing.
_LATER_KEYS: Final[dict[str, Any]] = {
    "event_names": [],
    "metrics": {},
    "labels": None,
    "rollouts": {"allocation": 0.25},
}
_LATER_SLO_KEYS: Final[dict[str, Any]] = {"allowance": None, "alerts": [], "page": True}
_LATER_DRIFT_KEYS: Final[dict[str, Any]] = {
    "accumulator": "shiryaev-roberts",
    "season": "none",
    "rate_tolerance": None,
    "conditional_classes": 8,
}
_LATER_COST_KEYS: Final[dict[str, Any]] = {"feature": None, "features": []}


def digest(form: ContractForm, baseline: BaselineFile | Literal["learn"] = "learn") -> str:
    """Compute the sha256 hex of the canonical form.

    Canonical: what was parsed, defaults filled in, as JSON with sorted keys, no spaces and ASCII
    only. Comments, layout and units do not change it; an order of values does. Keys that came
    later than the form's first version are left out while they say nothing. Of a baseline file its
    content counts, not where it lies.
    """
    content = form.model_dump(mode="json")
    if baseline != "learn":
        content["drift"]["baseline"] = f"sha256:{baseline.digest}"
    _leave_out(content, _LATER_KEYS)
    _leave_out(content["drift"], _LATER_DRIFT_KEYS)
    for slo in content["slos"]:
        _leave_out(slo, _LATER_SLO_KEYS)
    if content["cost"] is not None:
        _leave_out(content["cost"], _LATER_COST_KEYS)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _leave_out(content: dict[str, Any], silent: dict[str, Any]) -> None:
    for key, value in silent.items():
        if content[key] == value:
            del content[key]


def build(
    form: ContractForm,
    keep: tuple[KeepRule, ...],
    baseline: BaselineFile | Literal["learn"],
    source: str,
) -> Contract:
    """Make the contract of a form without findings."""
    assert form.model is not None
    assert form.owner is not None
    assert form.purpose is not None
    assert form.expires is not None
    resource = {
        key: ResourceRule(export=rule.export, site=rule.site) for key, rule in form.resource.items()
    }
    return Contract(
        model=form.model,
        match=MappingProxyType(dict(form.match)),
        owner=form.owner,
        purpose=form.purpose,
        expires=form.expires,
        span_names=form.span_names,
        event_names=form.event_names,
        metrics=MappingProxyType(
            {name: MetricRule(unit=rule.unit) for name, rule in form.metrics.items()}
        ),
        signals=MappingProxyType(dict(signals_of(form))),
        resource=MappingProxyType(resource),
        slos=tuple(slo_of(slo, form.labels) for slo in form.slos),
        drift=DriftRule(
            baseline=baseline,
            tolerance=form.drift.tolerance,
            false_alarms_per_s=form.drift.false_alarms,
            accumulator=Accumulator(form.drift.accumulator),
            season=Season(form.drift.season),
            rate_tolerance=form.drift.rate_tolerance,
            conditional_classes=form.drift.conditional_classes,
        ),
        sampling=SamplingRule(
            keep=keep,
            rate=form.sampling.rate,
            bytes_per_second=form.sampling.bytes_per_second,
        ),
        provenance=ProvenanceRule(require=ProvenanceRequirement(form.provenance.require)),
        cost=_cost(form.cost) if form.cost is not None else None,
        labels=LabelRule(
            signal=form.labels.signal, within=form.labels.within, expect=form.labels.expect
        )
        if form.labels is not None
        else None,
        rollouts=RolloutRule(allocation=form.rollouts.allocation),
        digest=digest(form, baseline),
        source=source,
    )


def _cost(form: CostForm) -> Cost:
    return Cost(
        currency=form.currency,
        per_inference=form.per_inference,
        budget_per_month=form.budget_per_month,
        feature=form.feature,
        features=form.features,
    )
