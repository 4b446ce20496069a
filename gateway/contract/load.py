"""Contract files to contracts: the only way in, for `weir run` and `weir check` alike.

Law: all faults of all files are found in one pass, each with file, line and column; whatever the
bytes are, nothing but InvalidConfigError is raised. Only this file of the room reads files.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, Literal

from gateway.config.marks import ROOT, Document, Place, finding_at
from gateway.config.rules import FindingRule
from gateway.config.sections import SiteConfig
from gateway.config.site import read_file
from gateway.config.validate import Checked, nearest, validate
from gateway.contract.build import build
from gateway.contract.form import ContractForm
from gateway.contract.laws import check_laws
from gateway.contract.plan import clashes
from gateway.contract.schema import Contract
from gateway.errors import Finding, InvalidConfigError

FILES_MAX: Final = 1000  # YAML files below the named folders
SUFFIXES: Final = (".yaml", ".yml")
_BASELINE_PREFIX: Final = "file:"
_CONTRACT_KEYS: Final = frozenset(ContractForm.model_fields) - frozenset(SiteConfig.model_fields)
_SITE_KEYS: Final = frozenset(SiteConfig.model_fields) - frozenset(ContractForm.model_fields)
_OUR_LINE: Final = re.compile(
    rb"^(?:contract|model|signals|slos|site|receive|journal|forward)[ \t]*:", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """One contract file: the contract when it is sound, and the places of its keys."""

    path: Path
    contract: Contract | None
    document: Document


def load_contracts(paths: Sequence[Path], *, today: date | None = None) -> tuple[Contract, ...]:
    """Load contract files, or folders of them; without `today`, expiry is not judged.

    Raises: InvalidConfigError with all findings at once.
    """
    files, findings = contract_files(paths)
    loaded = [read_contract(path, today) for path in files]
    for each in loaded:
        findings += each.document.findings
    findings += clash_findings(loaded)
    if findings:
        raise InvalidConfigError(findings)
    return tuple(each.contract for each in loaded if each.contract is not None)


def contract_files(paths: Sequence[Path]) -> tuple[list[Path], list[Finding]]:
    """List the contract files that are named or lie in named folders, each once."""
    files: dict[Path, Path] = {}
    findings: list[Finding] = []
    for path in paths:
        if not path.is_dir():
            files.setdefault(path.resolve(), path)
            continue
        inside, over = yaml_files(path)
        findings += over
        for each in inside:
            if kind_of_file(each) == "contract":
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


def kind_of_file(path: Path) -> Literal["contract", "site"] | None:
    """Tell what a file of a folder is, by its keys; a broken one by the lines it begins with."""
    document = read_file(path)
    if isinstance(document.data, dict):
        return kind_of_data(document.data)
    if not document.findings:
        return None
    try:
        with path.open("rb") as stream:
            head = stream.read(65_536)
    except OSError:
        return None
    found = _OUR_LINE.search(head)
    if found is None:
        return None
    word = found[0].decode().rstrip(" \t:")
    return "site" if word in _SITE_KEYS else "contract"


def kind_of_data(data: dict[str, object]) -> Literal["contract", "site"] | None:
    """Tell what a file is by its top-level keys."""
    if "contract" in data:
        return "contract"
    contract, site = len(_CONTRACT_KEYS & set(data)), len(_SITE_KEYS & set(data))
    if "site" in data or site > contract:
        return "site" if "site" in data or site > 1 else None
    return "contract" if contract > 1 else None


def read_contract(path: Path, today: date | None) -> Loaded:
    """Read and check one contract file; findings are in the document."""
    document = read_file(path)
    if not document.values:
        if not document.findings:
            message, advice = "the file is empty", "write contract: 1 and the keys of a contract"
            document.add(ROOT, FindingRule.MISSING, message, advice)
        return Loaded(path=path, contract=None, document=document)
    checked = validate(ContractForm, document)
    keep = check_laws(checked, document, today)
    form = checked.value
    baseline = _baseline(checked, document, path.parent)
    if form is None or document.findings:
        return Loaded(path=path, contract=None, document=document)
    contract = build(form, keep, baseline, str(path))
    return Loaded(path=path, contract=contract, document=document)


def clash_findings(loaded: Sequence[Loaded]) -> list[Finding]:
    """Find contracts of one set that claim the same model or spans, with their lines."""
    documents = {each.contract.source: each.document for each in loaded if each.contract}
    contracts = [each.contract for each in loaded if each.contract is not None]
    return clashes(contracts, lambda contract, key: documents[contract.source].place((key,)))


def _baseline(
    checked: Checked[ContractForm], document: Document, folder: Path
) -> Path | Literal["learn"]:
    """Resolve the baseline beside the contract file, or note why it cannot be."""
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
        advice = "correct the path, or write learn"
        document.add(at, FindingRule.NO_SUCH_FILE, message, advice)
    else:
        message = "a baseline from a file is not available yet"
        document.add(at, FindingRule.NOT_AVAILABLE, message, "write learn")
    return path
