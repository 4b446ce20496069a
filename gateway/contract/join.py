"""Contracts and the OpenSLO objectives that name their models.

Law: a contract with mapped objectives is the contract that one gets by writing them into the file,
behind those that are there, in the order of their names: same laws, same limits, same digest. Pure.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gateway.config.keep import KeepRule
from gateway.config.marks import Document
from gateway.config.rules import FindingRule
from gateway.config.validate import nearest
from gateway.contract.build import build
from gateway.contract.form import SLOS_MAX, ContractForm
from gateway.contract.objectives import (
    Written,
    check_distinct,
    check_labelled,
    check_objective,
    written_in,
)
from gateway.contract.openslo import Mapped
from gateway.contract.schema import BaselineFile, Contract
from gateway.errors import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A contract file without findings, before objectives from elsewhere join it."""

    form: ContractForm
    keep: tuple[KeepRule, ...]
    baseline: BaselineFile | Literal["learn"]
    document: Document

    def build(self, more: Sequence[Written] = ()) -> Contract:
        """Make the contract, with more objectives behind its own."""
        slos = (*self.form.slos, *(each.slo for each in more))
        form = self.form.model_copy(update={"slos": slos})
        return build(form, self.keep, self.baseline, self.document.file)


def join(
    drafts: Sequence[Draft], mapped: Sequence[Mapped], unsound: Collection[str]
) -> tuple[tuple[Contract, ...], list[Finding]]:
    """Build contracts with the objectives that name their models, and list what does not fit.

    `unsound` are models whose contracts have findings of their own.
    """
    models = {draft.form.model: draft for draft in drafts}
    for each in mapped:
        _judge_alone(each, models, unsound)
    contracts = []
    for draft in drafts:
        more = [each.written for each in mapped if models.get(each.model) is draft]
        if more:
            check_distinct([*_own(draft), *more])
            _check_count(draft, more)
        if not any(each.document.findings for each in more):
            contracts.append(draft.build(more))
    findings = [finding for each in mapped for finding in each.written.document.findings]
    return tuple(contracts), findings


def _judge_alone(mapped: Mapped, models: dict[str | None, Draft], unsound: Collection[str]) -> None:
    check_objective(mapped.written)
    draft = models.get(mapped.model)
    if draft is not None:
        check_labelled(mapped.written, draft.form.labels)
    elif mapped.model not in unsound:
        message = f"no contract is for the model {mapped.model!r}"
        known = tuple(str(model) for model in models)
        advice = nearest(mapped.model, known, what="there are contracts for")
        if not known:
            advice = "load its contract beside this file"
        mapped.model_at.refuse(message, advice, rule=FindingRule.UNKNOWN_MODEL)


def _own(draft: Draft) -> list[Written]:
    """List the objectives of the contract itself: they come first, and get no finding."""
    listed = written_in(None, draft.form, draft.document)
    return [replace(each, title=f"{each.title} of {draft.document.file}") for each in listed]


def _check_count(draft: Draft, more: Sequence[Written]) -> None:
    room = SLOS_MAX - len(draft.form.slos)
    for each in more[room:]:
        message = f"the contract of {draft.form.model!r} would have more than {SLOS_MAX} objectives"
        each.add(("name",), FindingRule.LIMIT, message, "keep the ones that somebody acts on")
