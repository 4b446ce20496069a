"""`weir check` finds exactly what `weir run` refuses."""

from datetime import date
from pathlib import Path

import pytest

from gateway.config import load_site
from gateway.contract.check import check, exit_code, inspect
from gateway.contract.load import load_contracts
from gateway.contract.plan import compile_plan
from gateway.errors import Finding, InvalidConfigError
from tests.unit.contract.texts import EXAMPLES, HEAD, SIGNALS, write

TODAY = date(2026, 6, 1)


def refused_by_run(path: Path) -> set[Finding]:
    """Collect what the three steps of a start refuse, one after another."""
    try:
        site = load_site(path)
        contracts = load_contracts(site.contracts, today=TODAY)
        compile_plan(contracts, site.sampling)
    except InvalidConfigError as error:
        return set(error.findings)
    return set()


def test_examples_are_clean() -> None:
    inspection = inspect([EXAMPLES], today=TODAY)
    assert inspection.findings == ()
    assert inspection.exit_code == 0
    assert [contract.model for contract in inspection.contracts] == ["damage-net", "triage-net"]
    assert len(inspection.sites) == 1
    assert len(inspection.files) == 3


def test_site_file_brings_its_contracts(tmp_path: Path) -> None:
    write(tmp_path, HEAD + "sampling: {rate: 3}\n", "models/bad.yaml")
    site = write(tmp_path, "contracts: [models/]\nsite: {id: dock}\n", "site.yaml")
    (finding,) = check([site], today=TODAY)
    assert (finding.file, finding.line) == (str(tmp_path / "models" / "bad.yaml"), 7)


@pytest.mark.parametrize(
    ("site", "contracts"),
    [
        ("site: {id: a}\n", {}),
        ("site: {id: a b}\n", {}),
        ("contracts: [m/]\n", {"m/a.yaml": HEAD}),
        ("contracts: [m/]\n", {"m/a.yaml": HEAD, "m/b.yaml": HEAD}),
        ("contracts: [m/]\n", {"m/a.yaml": HEAD + "slos: [\n"}),
        ("contracts: [m/]\n", {"m/a.yaml": HEAD.replace("2027", "2025")}),
        ("contracts: [m/a.yaml]\n", {"m/a.yaml": "x: y\n"}),
        ("contracts: [m/a.yaml]\n", {}),
        ("sampling: {keep: [confidence < 0.5]}\n", {}),
        ("recieve: {}\n", {}),
        ("", {}),
        ("a: [\n", {}),
    ],
)
def test_run_refuses_what_check_refuses(
    tmp_path: Path, site: str, contracts: dict[str, str]
) -> None:
    for name, text in contracts.items():
        write(tmp_path, text, name)
    path = write(tmp_path, site, "site.yaml")
    assert set(check([path], today=TODAY)) == refused_by_run(path)


def test_folder_is_sorted_into_sites_and_contracts(tmp_path: Path) -> None:
    write(tmp_path, "site: {id: 'a b'}\n", "one/site.yaml")
    write(tmp_path, HEAD + "sampling: {rate: 2}\n", "two/contract.yaml")
    write(tmp_path, "on: push\njobs: {}\n", "three/workflow.yaml")
    found = check([tmp_path], today=TODAY)
    assert [(Path(each.file).name, each.rule) for each in found] == [
        ("site.yaml", "invalid-value"),
        ("contract.yaml", "out-of-range"),
    ]


def test_sites_may_each_have_a_contract_of_the_same_model(tmp_path: Path) -> None:
    for site in ("a", "b"):
        write(tmp_path, HEAD, f"{site}/contract.yaml")
        write(tmp_path, "site: {id: x}\ncontracts: [contract.yaml]\n", f"{site}/site.yaml")
    assert check([tmp_path], today=TODAY) == []


def test_contracts_without_a_site_are_one_set(tmp_path: Path) -> None:
    write(tmp_path, HEAD, "a.yaml")
    write(tmp_path, HEAD, "b.yaml")
    (finding,) = check([tmp_path], today=TODAY)
    assert finding.rule == "duplicate-model"


def test_findings_are_in_the_order_of_lines_and_once(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD.replace("contract: 1", "contract: 9") + SIGNALS + "x: 1\n")
    found = check([path, tmp_path, path], today=TODAY)
    assert [finding.line for finding in found] == [1, 13]


def test_input_that_cannot_be_used_has_its_own_exit_code(tmp_path: Path) -> None:
    assert inspect([tmp_path / "none.yaml"]).exit_code == 2
    assert inspect([tmp_path]).exit_code == 2
    assert inspect([write(tmp_path, HEAD + "x: 1\n")]).exit_code == 1
    assert exit_code([]) == 0


def test_expiry_is_judged_by_the_day_that_is_given(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD)
    assert check([path], today=date(2027, 12, 31)) == []
    assert [each.rule for each in check([path], today=date(2028, 1, 1))] == ["expired"]


def hook(folder: Path, models: str, contracts: str = "contracts: [m/]\n") -> Path:
    """Write a site file whose hook is for these models, beside the contract of damage-net."""
    write(folder, HEAD, "m/a.yaml")
    write(folder, "key", "hook.key")
    text = f"retrain:\n  - url: https://train.example/\n    key_file: hook.key\n{models}"
    return write(folder, contracts + text, "site.yaml")


def test_a_training_for_a_model_without_a_contract_is_noted_and_not_refused(
    tmp_path: Path,
) -> None:
    path = hook(tmp_path, "    models:\n      - damage-net\n      - damage-nett\n      - x\n")
    seen = inspect([tmp_path], today=TODAY)
    assert (seen.findings, seen.exit_code) == ((), 0)
    near, far = seen.notes
    assert (near.file, near.line, near.rule) == (str(path), 7, "unknown-model")
    assert near.instead == "did you mean 'damage-net'?"
    assert (far.line, far.instead) == (8, "known here are: damage-net")
    assert refused_by_run(path) == set()


@pytest.mark.parametrize("models", ["    models: [damage-net]\n", "    models: []\n", ""])
def test_a_training_for_known_or_all_models_is_not_noted(tmp_path: Path, models: str) -> None:
    hook(tmp_path, models)
    assert inspect([tmp_path], today=TODAY).notes == ()


def test_without_sound_contracts_nobody_knows_which_models_there_are(tmp_path: Path) -> None:
    hook(tmp_path, "    models: [x]\n")
    write(tmp_path, HEAD + "slos: [\n", "m/b.yaml")
    seen = inspect([tmp_path], today=TODAY)
    assert (seen.exit_code, seen.notes) == (1, ())
