"""Release manifests: what a version is expected to cost in a month, against its contract's budget.

Law: the prediction is exact decimal arithmetic over what is written, so that a release which costs
its budget to the cent passes and one above it never does. A day counts as the thirty-first part of
the longest month. Findings stand at the manifest's lines. Pure, but for reading the manifest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from gateway.config.knobs import ModelName, Section
from gateway.config.marks import ROOT, Document
from gateway.config.rules import FindingRule
from gateway.config.site import Knob, describe, read_file
from gateway.config.validate import nearest, validate
from gateway.contract.form import Text
from gateway.contract.laws import OTHER_FEATURE
from gateway.contract.schema import Contract, Cost
from gateway.errors import Finding

MONTH_DAYS: Final = 31
WARN_SHARE: Final = Fraction(8, 10)
COUNT_MAX: Final = 1e15
COST_MAX: Final = 1e12

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class BatchJobForm(Section):
    """One batch job."""

    name: Text = Field(min_length=1, description="name of the job")
    runs_per_month: float = Field(ge=0.0, le=1e6, description="how often it runs in a month")
    cost_per_run: float = Field(ge=0.0, le=COST_MAX, description="cost of one run")


class ManifestForm(Section):
    """The whole manifest."""

    model: ModelName = Field(description="name of the model")
    version: Text = Field(
        min_length=1, description="version that is released, in quotes if it looks like a number"
    )
    currency: str = Field(
        pattern=r"^[A-Z]{3}$", description="ISO 4217 code, that of the contract's cost"
    )
    expected_inferences_per_month: float | None = Field(
        default=None, ge=0.0, le=COUNT_MAX, description="inferences expected in a month"
    )
    expected_inferences_per_day: float | None = Field(
        default=None, ge=0.0, le=COUNT_MAX, description="the same for a day; a month has 31"
    )
    growth: float = Field(
        default=0.0, ge=0.0, le=100.0, description="share that is expected on top, such as 0.1"
    )
    per_inference: float | None = Field(
        default=None, ge=0.0, le=1e6, description="cost of one inference, else the contract's"
    )
    features: dict[str, Share] = Field(
        default_factory=dict, max_length=65, description="share of the inferences by feature"
    )
    batch_jobs: tuple[BatchJobForm, ...] = Field(
        default=(), max_length=64, description="batch jobs that come with this version"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a release is expected to cost in a month. Units: costs in `currency`.

    `share` is the total over the budget, None when the budget is nothing.
    """

    model: str
    version: str
    currency: str
    inferences: float
    inference_cost: float
    features: tuple[tuple[str, float], ...]
    batch_jobs: tuple[tuple[str, float], ...]
    total: float
    budget: float
    share: float | None
    is_near: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A judged manifest."""

    predictions: tuple[Prediction, ...]
    findings: tuple[Finding, ...]


def describe_manifest() -> list[Knob]:
    """List every key of a manifest with type, range, default and meaning."""
    return describe(ManifestForm)


def judge_release(path: Path, contracts: Sequence[Contract]) -> Release:
    """Read a manifest and judge it by the contracts of its model."""
    document = read_file(path)
    if document.findings and not document.values:
        return Release(predictions=(), findings=tuple(document.findings))
    checked = validate(ManifestForm, document)
    predictions: list[Prediction] = []
    if checked.value is not None and not document.findings:
        predictions = _judge(checked.value, document, contracts)
    return Release(predictions=tuple(predictions), findings=tuple(document.findings))


def _judge(
    form: ManifestForm, document: Document, contracts: Sequence[Contract]
) -> list[Prediction]:
    has_month = form.expected_inferences_per_month is not None
    if has_month == (form.expected_inferences_per_day is not None):
        message = "a manifest has expected_inferences_per_month or expected_inferences_per_day"
        advice = "write one of them, such as expected_inferences_per_month: 1200000"
        document.add(ROOT, FindingRule.RELEASE, message, advice)
        return []
    if has_month and form.growth:
        message = "growth: what is expected in a month has its growth in it"
        advice = "delete growth, or write expected_inferences_per_day"
        document.add(("growth",), FindingRule.RELEASE, message, advice, of_key=True)
        return []
    own = [contract for contract in contracts if contract.model == form.model]
    if not own:
        message = f"no sound contract that is checked is for the model {form.model!r}"
        known = tuple(dict.fromkeys(contract.model for contract in contracts))
        advice = nearest(form.model, known, what="there are contracts for")
        if not known:
            advice = "name the contracts beside the manifest: weir check --release FILE contracts/"
        document.add(("model",), FindingRule.UNKNOWN_MODEL, message, advice)
    found = [_predict(form, document, contract) for contract in own]
    return [each for each in found if each is not None]


def _predict(form: ManifestForm, document: Document, contract: Contract) -> Prediction | None:
    cost = contract.cost
    if cost is None or cost.budget_per_month is None:
        what = "cost" if cost is None else "cost.budget_per_month"
        message = f"the contract of {form.model!r} has no {what} to judge by"
        advice = f"add to {contract.source}: cost: {{…, budget_per_month: 100}}"
        document.add(("model",), FindingRule.RELEASE, message, advice)
        return None
    if cost.currency != form.currency:
        message = f"currency: the cost of {contract.source} is in {cost.currency}"
        advice = f"write {cost.currency}, with all costs in it"
        document.add(("currency",), FindingRule.RELEASE, message, advice)
        return None
    if not _has_features(form, document, cost):
        return None
    inferences = _inferences(form)
    unit = _exact(cost.per_inference if form.per_inference is None else form.per_inference)
    served = inferences * unit
    jobs = [
        (job.name, _exact(job.runs_per_month) * _exact(job.cost_per_run)) for job in form.batch_jobs
    ]
    total = served + sum(each for _, each in jobs)
    budget = _exact(cost.budget_per_month)
    if total > budget:
        key = "per_month" if form.expected_inferences_per_day is None else "per_day"
        # Rounded, a total that is above by less than a cent would look like the budget.
        told = _money(total) if _money(total) != _money(budget) else f"{float(total):.12g}"
        message = (
            f"{form.model} {form.version} is expected to cost {told} {form.currency} a "
            f"month ({_money(served)} for inferences, {_money(total - served)} for batch jobs), "
            f"above the budget of {_money(budget)} in {contract.source}"
        )
        advice = f"release what costs less, or agree with {contract.owner} on cost.budget_per_month"
        path = (f"expected_inferences_{key}",)
        document.add(path, FindingRule.RELEASE_COST, message, advice)
    shares = {**form.features, OTHER_FEATURE: float(_rest(form))} if form.features else {}
    return Prediction(
        model=form.model,
        version=form.version,
        currency=form.currency,
        inferences=float(inferences),
        inference_cost=float(served),
        features=tuple((name, float(served * _exact(share))) for name, share in shares.items()),
        batch_jobs=tuple((name, float(each)) for name, each in jobs),
        total=float(total),
        budget=cost.budget_per_month,
        share=float(total / budget) if budget else None,
        is_near=total > 0 and total >= WARN_SHARE * budget,
    )


def _has_features(form: ManifestForm, document: Document, cost: Cost) -> bool:
    is_sound = True
    for name in form.features:
        if cost.feature is None:
            message = "the contract counts no features"
            advice = "delete features, or add to the contract's cost: feature and features"
            document.add(("features",), FindingRule.RELEASE, message, advice, of_key=True)
            return False
        if name not in (*cost.features, OTHER_FEATURE):
            message = f"features: the contract has no feature {name!r}"
            advice = nearest(name, (*cost.features, OTHER_FEATURE), what="write one of")
            document.add(("features", name), FindingRule.RELEASE, message, advice, of_key=True)
            is_sound = False
    if _rest(form) < 0 or (OTHER_FEATURE in form.features and _rest(form) != _other(form)):
        told = float(sum((_exact(share) for share in form.features.values()), Fraction()))
        message = f"features: the shares add up to {told:g}"
        advice = f"write shares that add up to 1; what is not named is {OTHER_FEATURE}"
        document.add(("features",), FindingRule.RELEASE, message, advice, of_key=True)
        is_sound = False
    return is_sound


def _rest(form: ManifestForm) -> Fraction:
    """Tell the share of the features that are not named."""
    named = (share for name, share in form.features.items() if name != OTHER_FEATURE)
    return 1 - sum((_exact(share) for share in named), Fraction())


def _other(form: ManifestForm) -> Fraction:
    return _exact(form.features[OTHER_FEATURE])


def _inferences(form: ManifestForm) -> Fraction:
    """Tell the inferences of a month, growth included."""
    if form.expected_inferences_per_month is not None:
        return _exact(form.expected_inferences_per_month)
    assert form.expected_inferences_per_day is not None
    return _exact(form.expected_inferences_per_day) * MONTH_DAYS * (1 + _exact(form.growth))


def _exact(number: float) -> Fraction:
    """Read a number as its decimal text says it."""
    return Fraction(repr(float(number)))


def _money(amount: Fraction | float) -> str:
    return f"{float(amount):.2f}"


def releases_text(predictions: Sequence[Prediction]) -> str:
    """Write each prediction with its parts, and a warning when it is near the budget."""
    lines: list[str] = []
    for each in predictions:
        share = "" if each.share is None else f", {each.share:.1%} of it"
        lines.append(
            f"release {each.model} {each.version}: {_money(each.total)} {each.currency} a month "
            f"expected; the budget is {_money(each.budget)}{share}"
        )
        lines.append(f"    {_money(each.inference_cost)} for {each.inferences:.0f} inferences")
        lines += [f"        {_money(cost)} for {name}" for name, cost in each.features]
        lines += [f"    {_money(cost)} for batch job {name}" for name, cost in each.batch_jobs]
        if each.is_near:
            lines.append(f"    warning: {float(WARN_SHARE):.0%} of the budget are reached")
    return "\n".join(lines) + "\n" if lines else ""


def releases_json(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Write the same as plain data. Units: costs in `currency`."""
    return [
        {
            "model": each.model,
            "version": each.version,
            "currency": each.currency,
            "inferences_per_month": each.inferences,
            "inference_cost": each.inference_cost,
            "features": dict(each.features),
            "batch_jobs": [{"name": name, "cost": cost} for name, cost in each.batch_jobs],
            "total": each.total,
            "budget": each.budget,
            "budget_ratio": each.share,
            "warning": each.is_near,
        }
        for each in predictions
    ]
