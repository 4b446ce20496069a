"""Contract files to contracts: the only way in, for `weir run` and `weir check` alike.

Law: all faults of all files are found in one pass, each with file, line and column; whatever the
bytes are, nothing but InvalidConfigError is raised. Only this file of the room reads files.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final, Literal

from gateway.config.marks import ROOT, Document, Place, finding_at
from gateway.config.rules import FindingRule
from gateway.config.sections import SiteConfig
from gateway.config.site import read_documents, read_file
from gateway.config.validate import Checked, nearest, validate
from gateway.contract.form import ContractForm
from gateway.contract.join import Draft, join
from gateway.contract.laws import check_laws
from gateway.contract.openslo import map_slos
from gateway.contract.openslo_objects import collect
from gateway.contract.plan import clashes
from gateway.contract.schema import BaselineFile, Contract
from gateway.errors import Finding, InvalidConfigError

Kind = Literal["contract", "site", "openslo"]

FILES_MAX: Final = 1000  # YAML files below the named folders
BASELINE_BYTES_MAX: Final = 64 << 20
SUFFIXES: Final = (".yaml", ".yml")
_BASELINE_PREFIX: Final = "file:"
_OPENSLO_PREFIX: Final = "openslo/"
_CONTRACT_KEYS: Final = frozenset(ContractForm.model_fields) - frozenset(SiteConfig.model_fields)
_SITE_KEYS: Final = frozenset(SiteConfig.model_fields) - frozenset(ContractForm.model_fields)
_OPENSLO_LINE: Final = re.compile(
    rb"""^\{?["']?apiVersion["']?[ \t]*:[ \t]*["']?openslo/""", re.MULTILINE
)
_OUR_LINE: Final = re.compile(
    rb"^(?:contract|model|signals|slos|site|receive|journal|forward)[ \t]*:", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One file: its documents with the places of their keys, and the contract when it is one.

    `draft` is None for a contract with findings, and for a file of OpenSLO documents.
    """

    path: Path
    documents: tuple[Document, ...]
    draft: Draft | None = None
    is_openslo: bool = False

    @property
    def findings(self) -> list[Finding]:
        """What the file's own text has."""
        return [finding for document in self.documents for finding in document.findings]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Files that one gateway would load together: what is sound, and what does not fit."""

    members: tuple[Loaded, ...]
    contracts: tuple[Contract, ...]
    findings: tuple[Finding, ...]

    @property
    def is_whole(self) -> bool:
        """Tell whether every file is sound and all fit together."""
        return not self.findings and not any(each.findings for each in self.members)


def load_contracts(paths: Sequence[Path], *, today: date | None = None) -> tuple[Contract, ...]:
    """Load contract files and OpenSLO documents, or folders of them.

    Without `today`, expiry is not judged. Raises: InvalidConfigError with all findings at once.
    """
    files, findings = contract_files(paths)
    gathered = gather([read_loaded(path, today) for path in files])
    for each in gathered.members:
        findings += each.findings
    findings += gathered.findings
    if findings:
        raise InvalidConfigError(tuple(dict.fromkeys(findings)))
    return gathered.contracts


def gather(members: Sequence[Loaded]) -> Gathered:
    """Put files together: contracts against each other, and OpenSLO objectives to their models."""
    # Copies, as a file may be a member of several sets.
    sheets = [
        replace(document, findings=list(document.findings))
        for each in members
        if each.is_openslo
        for document in each.documents
    ]
    mapped = map_slos(collect(sheets))
    drafts = [each.draft for each in members if each.draft]
    contracts, faults = join(drafts, mapped, _unsound(members))
    findings = clash_findings(contracts, members)
    findings += [finding for sheet in sheets for finding in sheet.findings]
    return Gathered(
        members=tuple(members),
        contracts=contracts,
        findings=tuple(dict.fromkeys([*findings, *faults])),
    )


def _unsound(members: Sequence[Loaded]) -> set[str]:
    """List the models that contracts with findings are for."""
    broken = [each.documents[0].data for each in members if not each.draft and not each.is_openslo]
    return {str(data.get("model")) for data in broken if isinstance(data, dict)}


def contract_files(paths: Sequence[Path]) -> tuple[list[Path], list[Finding]]:
    """List the contract and OpenSLO files that are named or lie in named folders, each once."""
    files: dict[Path, Path] = {}
    findings: list[Finding] = []
    for path in paths:
        if not path.is_dir():
            files.setdefault(path.resolve(), path)
            continue
        inside, over = yaml_files(path)
        findings += over
        for each in inside:
            if kind_of_file(each) in ("contract", "openslo"):
                files.setdefault(each.resolve(), each)
    return list(files.values()), findings


def yaml_files(folder: Path) -> tuple[list[Path], list[Finding]]:
    """List the YAML files below a folder, sorted, without hidden folders and links to folders."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(place, name)
            for name in names
            if name.endswith(SUFFIXES) and not name.startswith(".")
        ]
        if len(found) > FILES_MAX:
            message = f"there are more than {FILES_MAX} YAML files below this folder"
            place_of = Place(file=str(folder))
            advice = "name the files or a smaller folder"
            return [], [finding_at(place_of, FindingRule.LIMIT, message, advice)]
    return sorted(found), []


def kind_of_file(path: Path) -> Kind | None:
    """Tell what a file of a folder is, by its keys; a broken one by the lines it begins with."""
    try:
        with path.open("rb") as stream:
            head = stream.read(65_536)
    except OSError:
        return None
    if _OPENSLO_LINE.search(head) is not None:
        return "openslo"
    document = read_file(path)
    if isinstance(document.data, dict):
        return kind_of_data(document.data)
    found = _OUR_LINE.search(head)
    if not document.findings or found is None:
        return None
    word = found[0].decode().rstrip(" \t:")
    return "site" if word in _SITE_KEYS else "contract"


def kind_of_data(data: dict[str, object]) -> Kind | None:
    """Tell what a file is by its top-level keys."""
    if str(data.get("apiVersion", "")).startswith(_OPENSLO_PREFIX):
        return "openslo"
    if "contract" in data:
        return "contract"
    contract, site = len(_CONTRACT_KEYS & set(data)), len(_SITE_KEYS & set(data))
    if "site" in data or site > contract:
        return "site" if "site" in data or site > 1 else None
    return "contract" if contract > 1 else None


def read_loaded(path: Path, today: date | None) -> Loaded:
    """Read one file as what it is; what is no OpenSLO is judged as a contract."""
    if kind_of_file(path) == "openslo":
        return Loaded(path=path, documents=tuple(read_documents(path)), is_openslo=True)
    document = read_file(path)
    if not document.values:
        if not document.findings:
            message, advice = "the file is empty", "write contract: 1 and the keys of a contract"
            document.add(ROOT, FindingRule.MISSING, message, advice)
        return Loaded(path=path, documents=(document,))
    checked = validate(ContractForm, document)
    keep = check_laws(checked, document, today)
    form = checked.value
    baseline = _baseline(checked, document, path.parent)
    if form is None or document.findings:
        return Loaded(path=path, documents=(document,))
    draft = Draft(form=form, keep=keep, baseline=baseline, document=document)
    return Loaded(path=path, documents=(document,), draft=draft)


def clash_findings(contracts: Sequence[Contract], members: Sequence[Loaded]) -> list[Finding]:
    """Find contracts of one set that claim the same model or spans, with their lines."""
    documents = {each.draft.document.file: each.draft.document for each in members if each.draft}
    return clashes(contracts, lambda contract, key: documents[contract.source].place((key,)))


def _baseline(
    checked: Checked[ContractForm], document: Document, folder: Path
) -> BaselineFile | Literal["learn"]:
    """Read the baseline beside the contract file, or note why it cannot be.

    What stands in it is judged by the room that counts, which knows the grids.
    """
    at = ("drift", "baseline")
    text = checked.value.drift.baseline if checked.value is not None else "learn"
    if text == "learn":
        return "learn"
    name = text.removeprefix(_BASELINE_PREFIX)
    if not text.startswith(_BASELINE_PREFIX) or not name:
        message = f"drift.baseline: {text!r} is neither learn nor a file"
        advice = nearest(text, ("learn", "file:baselines/model.json"), what="write one of")
        document.add(at, FindingRule.INVALID_VALUE, message, advice)
        return "learn"
    path = folder / name
    if not path.is_file():
        message = f"there is no baseline {str(path)!r}"
        advice = "correct the path, or write learn; `weir baseline build` makes one"
        document.add(at, FindingRule.NO_SUCH_FILE, message, advice)
        return "learn"
    try:
        with path.open("rb") as stream:
            content = stream.read(BASELINE_BYTES_MAX + 1)
    except OSError as error:
        message = f"the baseline {str(path)!r} cannot be read: {error.strerror}"
        document.add(at, FindingRule.UNREADABLE, message, "let this user read the file")
        return "learn"
    if len(content) > BASELINE_BYTES_MAX:
        message = f"the baseline {str(path)!r} has more than {BASELINE_BYTES_MAX >> 20} MiB"
        document.add(at, FindingRule.LIMIT, message, "keep the versions that are in use")
        return "learn"
    return BaselineFile(path=path, content=content)
