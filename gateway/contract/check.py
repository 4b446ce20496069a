"""`weir check`: site files and contracts, judged by the code that `weir run` starts with.

Law: `inspect` finds exactly what `load_site`, `load_contracts` and `compile_plan` refuse for the
same files, and lists it all at once, ordered by file and line. What is odd and refused by none of
them is a note, which leaves a check clean.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from gateway.config.marks import Document, Place, finding_at
from gateway.config.rules import FindingRule
from gateway.config.sections import SiteConfig
from gateway.config.site import read_site
from gateway.config.validate import nearest
from gateway.contract.load import (
    Gathered,
    Loaded,
    contract_files,
    gather,
    kind_of_file,
    read_loaded,
    yaml_files,
)
from gateway.contract.plan import compile_plan
from gateway.contract.schema import Contract
from gateway.errors import Finding, InvalidConfigError

CLEAN: Final = 0
FINDINGS: Final = 1
UNUSABLE: Final = 2
_UNUSABLE_RULES: Final = frozenset({FindingRule.UNREADABLE.value, FindingRule.UNKNOWN_FILE.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a check saw. `sites` and `contracts` hold what is sound; `notes` refuse nothing."""

    files: tuple[Path, ...]
    sites: tuple[SiteConfig, ...]
    contracts: tuple[Contract, ...]
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...] = ()

    @property
    def exit_code(self) -> int:
        """Tell the exit code: 0 clean, 1 findings, 2 unusable input."""
        return exit_code(self.findings)


def exit_code(findings: Sequence[Finding]) -> int:
    """Tell the exit code of findings: 0 none, 1 some, 2 when a file could not even be read."""
    if any(finding.rule in _UNUSABLE_RULES for finding in findings):
        return UNUSABLE
    return FINDINGS if findings else CLEAN


def check(paths: Sequence[Path], *, today: date | None = None) -> list[Finding]:
    """Check files and folders; without `today`, expiry is not judged."""
    return list(inspect(paths, today=today).findings)


def inspect(paths: Sequence[Path], *, today: date | None = None) -> Inspection:
    """Check files and folders, and keep what is sound."""
    site_files, own_files, findings = _sort(paths)
    loaded: dict[Path, Loaded] = {}
    sites: list[SiteConfig] = []
    contracts: list[Contract] = []
    claimed: set[Path] = set()
    notes: list[Finding] = []
    for path in site_files:
        site, document = read_site(path)
        findings += document.findings
        if site is None:
            continue
        sites.append(site)
        members, faults = contract_files([each for each in site.contracts if each.exists()])
        findings += faults
        claimed |= {each.resolve() for each in members}
        gathered, faults = _inspect_set(members, site, loaded, today)
        contracts += gathered.contracts
        findings += faults
        if gathered.is_whole:
            notes += _without_contract(site, document, gathered.contracts)
    alone = [path for path in own_files if path.resolve() not in claimed]
    gathered, faults = _inspect_set(alone, None, loaded, today)
    contracts += gathered.contracts
    findings += faults
    for each in loaded.values():
        findings += each.findings
    unique = dict.fromkeys(findings)
    return Inspection(
        files=(*site_files, *(each.path for each in loaded.values())),
        sites=tuple(sites),
        contracts=tuple({(each.source, each.digest): each for each in contracts}.values()),
        findings=tuple(sorted(unique, key=lambda each: (each.file, each.line, each.column))),
        notes=tuple(notes),
    )


def _without_contract(
    site: SiteConfig, document: Document, contracts: Sequence[Contract]
) -> Iterator[Finding]:
    """Note the models for which a training is asked and which no contract is for.

    Nothing is refused: contracts can be loaded while the gateway runs, hooks cannot.
    """
    known = tuple(sorted(each.model for each in contracts))
    for index, hook in enumerate(site.retrain):
        for at, model in enumerate(hook.models):
            if model not in known:
                yield finding_at(
                    document.place(("retrain", index, "models", at)),
                    FindingRule.UNKNOWN_MODEL,
                    f"no contract is for the model {model!r}, so no training is ever asked for it",
                    nearest(model, known),
                )


def _inspect_set(
    files: Sequence[Path],
    site: SiteConfig | None,
    loaded: dict[Path, Loaded],
    today: date | None,
) -> tuple[Gathered, list[Finding]]:
    """Check files that one gateway would load together."""
    members: list[Loaded] = []
    for path in files:
        key = path.resolve()
        if key not in loaded:
            loaded[key] = read_loaded(path, today)
        members.append(loaded[key])
    gathered = gather(members)
    findings = list(gathered.findings)
    if site is not None and gathered.is_whole:
        try:
            compile_plan(gathered.contracts, site.sampling)
        except InvalidConfigError as error:
            # The rules of the site file have their findings with a line already.
            findings += [
                each for each in error.findings if each.rule != FindingRule.KEEP_RULE.value
            ]
    return gathered, findings


def _sort(paths: Sequence[Path]) -> tuple[list[Path], list[Path], list[Finding]]:
    """Tell apart site files, contracts, and what cannot be checked."""
    sites: dict[Path, Path] = {}
    contracts: dict[Path, Path] = {}
    findings: list[Finding] = []
    for path in paths:
        if path.is_dir():
            inside, over = yaml_files(path)
            kinds = {each: kind_of_file(each) for each in inside}
            findings += over
            if not over and not any(kinds.values()):
                message = "there is no site file and no contract below this folder"
                place = Place(file=str(path))
                advice = "name a file, or a folder that has one"
                findings.append(finding_at(place, FindingRule.UNKNOWN_FILE, message, advice))
        else:
            # What is named and is no contract is judged as `weir run --config` would judge it.
            kinds = {path: kind_of_file(path) or "site"}
        for each, kind in kinds.items():
            if kind is not None:
                table = sites if kind == "site" else contracts
                table.setdefault(each.resolve(), each)
    return list(sites.values()), list(contracts.values()), findings
