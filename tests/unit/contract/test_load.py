"""Contracts are loaded as written, and every fault of every file is told at its line."""

import re
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.contract.form import REQUIRED, describe_contract
from gateway.contract.load import FILES_MAX, load_contracts
from gateway.contract.schema import (
    Action,
    BaselineFile,
    Contract,
    Indicator,
    KeepRule,
    ProvenanceRequirement,
    ResourceRule,
    Role,
    SignalType,
)
from gateway.errors import Finding, InvalidConfigError
from tests.unit.contract.texts import EXAMPLES, HEAD, SIGNALS, loaded, write


def findings_of(*paths: Path, today: date | None = None) -> tuple[Finding, ...]:
    with pytest.raises(InvalidConfigError) as caught:
        load_contracts(paths, today=today)
    return caught.value.findings


def test_example_of_the_dock_is_read_in_full() -> None:
    (contract,) = load_contracts([EXAMPLES / "damage-net.yaml"], today=date(2026, 1, 1))
    assert contract.model == "damage-net"
    assert contract.match == {"edgeai.model.name": "damage-net"}
    assert contract.expires == date(2027, 12, 31)
    assert contract.span_names == ("inference", "preprocess", "postprocess")
    confidence = contract.signals["confidence"]
    assert confidence.attribute == "edgeai.inference.confidence"
    assert confidence.type is SignalType.DOUBLE
    assert confidence.range == (0.0, 1.0)
    assert confidence.role is Role.CONFIDENCE
    assert (confidence.export, confidence.site) == (Action.PASS, Action.PASS)
    assert contract.signals["class"].values == ("ok", "cracked", "wet", "torn")
    assert contract.signals["note"].site is Action.DROP
    assert contract.resource["device.id"] == ResourceRule(export=Action.TOKEN, site=Action.PASS)
    success, latency = contract.slos
    assert (success.indicator, success.objective, success.threshold) == ("success", 0.999, None)
    assert latency.indicator is Indicator.LATENCY
    assert (latency.threshold, latency.window) == (0.1, 30 * 86_400)
    assert contract.drift.baseline == "learn"
    assert contract.drift.false_alarms_per_s == 1 / 2_592_000
    assert [rule.text for rule in contract.sampling.keep] == [
        "error",
        "confidence < 0.5",
        "duration > 500ms",
    ]
    assert contract.sampling.keep[2].value == 0.5
    assert contract.sampling.rate == 0.05
    assert contract.sampling.bytes_per_second == 20_480
    assert contract.provenance.require is ProvenanceRequirement.NONE
    assert contract.cost is not None
    assert contract.cost.budget_per_month == 40
    assert contract.source == str(EXAMPLES / "damage-net.yaml")


def test_example_of_the_clinic_lets_no_person_out() -> None:
    (contract,) = load_contracts([EXAMPLES / "triage-net.yaml"], today=date(2026, 1, 1))
    for signal in contract.signals.values():
        if signal.role in (Role.IDENTIFIER, Role.TEXT):
            assert signal.export is Action.DROP
            assert signal.site is not Action.PASS
    assert contract.resource["device.id"] == ResourceRule(export=Action.TOKEN, site=Action.TOKEN)
    assert contract.provenance.require is ProvenanceRequirement.SIGNED
    assert contract.sampling.keep[1] == KeepRule(
        text="overridden", subject="overridden", operator="==", value=1.0
    )


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    contract = loaded(tmp_path, HEAD)
    assert contract.signals == {}
    assert contract.resource == {}
    assert contract.slos == ()
    assert contract.drift.tolerance == 0.1
    assert contract.sampling.keep == ()
    assert contract.sampling.rate is None
    assert contract.cost is None


def test_default_of_a_signal_is_to_stay(tmp_path: Path) -> None:
    text = HEAD + "signals:\n  x: {attribute: x, type: bool, role: feature}\nresource: {y: {}}\n"
    contract = loaded(tmp_path, text)
    assert contract.signals["x"].export is Action.DROP
    assert contract.signals["x"].site is Action.PASS
    assert contract.resource["y"] == ResourceRule(export=Action.DROP, site=Action.PASS)


def test_contract_cannot_be_changed(tmp_path: Path) -> None:
    contract = loaded(tmp_path, HEAD + SIGNALS)
    with pytest.raises(AttributeError):
        contract.model = "other"  # type: ignore[misc]  # that it cannot be is the claim
    with pytest.raises(TypeError):
        contract.signals["x"] = contract.signals["class"]  # type: ignore[index]  # as above


def test_digest_is_of_the_meaning_not_of_the_text(tmp_path: Path) -> None:
    plain = loaded(tmp_path, HEAD + "sampling: {rate: 0.5, bytes_per_second: 20KiB}\n")
    same = loaded(
        tmp_path,
        "# a comment\nsampling:\n  bytes_per_second: 20480\n  rate: 5e-1\n"
        + HEAD.replace("expires: 2027-12-31", 'expires: "2027-12-31"'),
    )
    other = loaded(tmp_path, HEAD + "sampling: {rate: 0.25, bytes_per_second: 20KiB}\n")
    assert re.fullmatch("[0-9a-f]{64}", plain.digest)
    assert plain.digest == same.digest
    assert plain.digest != other.digest


def test_digest_stays_what_it_was(tmp_path: Path) -> None:
    # Digests are in manifests and journals: a change of the canonical form needs a new version.
    golden = "1da60e04bf4c6bff25242fa74c6127c084642225a34fcffca35f4637d3ed5857"
    assert loaded(tmp_path, HEAD + SIGNALS).digest == golden


def test_digest_of_a_contract_without_the_later_keys_does_not_change(tmp_path: Path) -> None:
    plain = loaded(tmp_path, HEAD + SIGNALS).digest
    assert loaded(tmp_path, HEAD + SIGNALS + "metrics: {}\nevent_names: []\n").digest == plain
    silent = "accumulator: shiryaev-roberts, season: none, conditional_classes: 8"
    assert loaded(tmp_path, HEAD + SIGNALS + f"drift: {{{silent}}}\n").digest == plain
    device = "resource: {device.id: {export: token}}\n"
    texts = [
        "drift: {accumulator: cusum}\n",
        "drift: {season: hour-of-week}\n",
        "drift: {rate_tolerance: 0.5}\n",
        "drift: {conditional_classes: 0}\n",
        device,
        device + "event_names: [loaded]\n",
        device + "event_names: [unloaded]\n",
        device + "metrics: {latency: {}}\n",
        device + "metrics: {latency: {unit: ms}}\n",
        device + "metrics: {queue: {}}\n",
    ]
    digests = [loaded(tmp_path, HEAD + SIGNALS + text).digest for text in texts]
    assert len({plain, *digests}) == 1 + len(texts)


FIRST_FORM = """\
slos:
  - {name: success, indicator: success, objective: 0.999, window: 30d}
  - {name: latency, indicator: latency, threshold: 100ms, objective: 0.95}
cost: {currency: USD, per_inference: 0.00002, budget_per_month: 40}
"""


def test_later_keys_of_objectives_and_cost_do_not_change_a_digest(tmp_path: Path) -> None:
    golden = "603ac99512dcda20805768d469a0a2a21556f03b75a47f96f171282014fb132a"
    assert loaded(tmp_path, HEAD + SIGNALS + FIRST_FORM).digest == golden
    silent = FIRST_FORM.replace("30d}", "30d, alerts: [], page: true}").replace(
        "40}", "40, features: []}\nrollouts: {allocation: 0.25}"
    )
    assert loaded(tmp_path, HEAD + SIGNALS + silent).digest == golden
    pair = "{long: 1h, short: 5m, factor: 14.4, severity: page}"
    texts = [
        FIRST_FORM.replace("30d}", f"30d, alerts: [{pair}]}}"),
        FIRST_FORM.replace("40}", "40, feature: app.use, features: [a]}"),
        FIRST_FORM.replace("40}", "40, feature: app.use, features: [b]}"),
        FIRST_FORM + "labels: {signal: class}\n",
        FIRST_FORM + "rollouts: {allocation: 0.5}\n",
    ]
    digests = [loaded(tmp_path, HEAD + SIGNALS + text).digest for text in texts]
    assert len({golden, *digests}) == 1 + len(texts)


def test_digests_of_the_examples_stay_what_they_were() -> None:
    digests = [contract.digest for contract in load_contracts([EXAMPLES])]
    assert digests == [
        "bed5bd144f92a82be6aab47c40730014ebec7bdfd4929928bec4b5a6be9fd0bc",
        "9dce9521303179344e8e994e2cbfd1faa9fbf442e8ff0dd7f8473fadb895ee5b",
    ]


def test_baseline_beside_the_contract_is_read_and_part_of_its_digest(tmp_path: Path) -> None:
    text = HEAD + "drift: {baseline: 'file:baselines/damage.json'}\n"
    path = write(tmp_path, text, "models/contract.yaml")
    digests = []
    for content in ("{}", "{ }"):
        file = write(tmp_path, content, "models/baselines/damage.json")
        (contract,) = load_contracts([path])
        assert contract.drift.baseline == BaselineFile(path=file, content=content.encode())
        digests.append(contract.digest)
    # Where the same baseline lies does not matter.
    write(tmp_path, "{}", "models/other.json")
    path.write_text(text.replace("baselines/damage", "other"))
    digests.append(load_contracts([path])[0].digest)
    assert digests[0] != digests[1]
    assert digests[0] == digests[2]


def test_baseline_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.contract.load.BASELINE_BYTES_MAX", 1 << 20)
    write(tmp_path, " " * ((1 << 20) + 1), "big.json")
    (finding,) = findings_of(write(tmp_path, HEAD + "drift: {baseline: 'file:big.json'}\n"))
    assert (finding.rule, finding.line, finding.column) == ("limit", 7, 19)
    assert "more than 1 MiB" in finding.message


@pytest.mark.parametrize(
    ("baseline", "rule"),
    [
        ("file:none.json", "no-such-file"),
        ("file:", "invalid-value"),
        ("none.json", "invalid-value"),
        ("lern", "invalid-value"),
    ],
)
def test_baseline_that_is_not_there_is_told(tmp_path: Path, baseline: str, rule: str) -> None:
    (finding,) = findings_of(write(tmp_path, HEAD + f"drift: {{baseline: '{baseline}'}}\n"))
    assert (finding.rule, finding.line, finding.column) == (rule, 7, 19)


def test_folders_are_searched_for_contracts(tmp_path: Path) -> None:
    write(tmp_path, HEAD, "a/one.yaml")
    write(tmp_path, HEAD.replace("damage-net", "triage-net"), "a/b/two.yml")
    write(tmp_path, "site: {id: x}\n", "a/site.yaml")
    write(tmp_path, "services: {web: {}}\n", "a/compose.yaml")
    write(tmp_path, HEAD.replace("damage-net", "hidden"), "a/.hidden/three.yaml")
    contracts = load_contracts([tmp_path / "a"])
    assert [contract.model for contract in contracts] == ["triage-net", "damage-net"]


def test_file_that_is_named_twice_is_loaded_once(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD)
    assert len(load_contracts([path, tmp_path, path])) == 1


def test_broken_contract_in_a_folder_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, HEAD + "signals: [\n")
    (finding,) = findings_of(tmp_path)
    assert finding.rule == "yaml-syntax"
    write(tmp_path, HEAD.replace("contract: 1\n", ""))
    (finding,) = findings_of(tmp_path)
    assert finding.message == "contract is missing"


def test_broken_yaml_of_others_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "{{ template }}: [\n", "other.yaml")
    write(tmp_path, HEAD)
    assert len(load_contracts([tmp_path])) == 1


def test_folder_with_too_many_files_is_refused(tmp_path: Path) -> None:
    for number in range(FILES_MAX + 1):
        (tmp_path / f"{number}.yaml").touch()
    (finding,) = findings_of(tmp_path)
    assert finding.rule == "limit"


def test_files_are_judged_together(tmp_path: Path) -> None:
    first = write(tmp_path, HEAD + "sampling: {rate: 2}\n", "a.yaml")
    second = write(tmp_path, HEAD + "slos: 3\n", "b.yaml")
    found = findings_of(first, second, tmp_path / "none.yaml")
    assert [(finding.file, finding.rule) for finding in found] == [
        (str(first), "out-of-range"),
        (str(second), "wrong-type"),
        (str(tmp_path / "none.yaml"), "unreadable"),
    ]


def test_two_contracts_of_one_model_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path, HEAD, "a.yaml")
    second = write(tmp_path, HEAD.replace("match: {", "match: {x: y, "), "b.yaml")
    (finding,) = findings_of(first, second)
    assert (finding.file, finding.line, finding.rule) == (str(second), 2, "duplicate-model")
    assert str(first) in finding.message


def test_two_contracts_of_the_same_spans_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path, HEAD, "a.yaml")
    second = write(tmp_path, HEAD.replace("model: damage-net", "model: other"), "b.yaml")
    (finding,) = findings_of(first, second)
    assert (finding.line, finding.rule) == (3, "duplicate-match")


def test_all_faults_of_a_contract_come_at_once(tmp_path: Path) -> None:
    text = (
        "contract: 2\n"
        "modle: damage-net\n"
        "match: {edgeai.model.name: damage-net}\n"
        "owner: tbd\n"
        "expires: 2026-02-30\n"
        "signals:\n"
        "  note: {attribute: n, type: string, role: text, export: pass}\n"
        "  odd: {attribute: o, type: doubel, role: feature, export: {generalize: 1}}\n"
        "slos: [{name: s, indicator: success, objective: 0.8}]\n"
        "sampling: {keep: [nte < 1, odd < 1]}\n"
    )
    found = sorted((each.line, each.rule) for each in findings_of(write(tmp_path, text)))
    assert found == [
        (1, "missing"),
        (1, "missing"),
        (1, "unknown-value"),
        (2, "unknown-key"),
        (4, "placeholder"),
        (5, "invalid-value"),
        (7, "text-passed"),
        (8, "not-available"),
        (8, "unknown-value"),
        (9, "slo-undetectable"),
        (10, "keep-rule"),
    ]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "missing"),
        ("# only a comment\n", "missing"),
        ("- contract: 1\n", "wrong-type"),
        ("3\n", "wrong-type"),
        ("contract: 1\ncontract: 1\n", "duplicate-key"),
    ],
)
def test_file_that_is_no_contract_is_refused(tmp_path: Path, text: str, rule: str) -> None:
    assert rule in {finding.rule for finding in findings_of(write(tmp_path, text))}


def test_every_key_is_described() -> None:
    table = {knob.path: knob for knob in describe_contract()}
    assert {path for path, knob in table.items() if knob.default == "required"} >= set(REQUIRED)
    assert all(knob.description for knob in table.values())
    assert table["signals.<name>.export"].default == "drop"
    assert table["slos[].window"].type == "duration, 1d to 90d"
    assert table["drift.false_alarms"].default == "1/30d"
    assert table["sampling.rate"].type == "number, 0 to 1"
    assert table["contract"].type == "1"


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["pass", "drop", "5s", "1/30d", "error", "double", "2027-12-31", "learn"])
)
KEYS = st.text(max_size=4) | st.sampled_from(
    [
        "contract",
        "model",
        "match",
        "owner",
        "expires",
        "signals",
        "resource",
        "slos",
        "drift",
        "sampling",
        "keep",
        "attribute",
        "type",
        "role",
        "range",
        "values",
        "export",
        "site",
        "name",
        "indicator",
        "objective",
        "window",
        "threshold",
        "baseline",
        "cost",
        "feature",
        "features",
        "allowance",
        "alerts",
        "long",
        "short",
        "factor",
        "severity",
        "page",
        "labels",
        "signal",
        "within",
        "expect",
        "rollouts",
        "allocation",
    ]
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


def attempt(folder: Path, content: bytes) -> None:
    path = folder / "contract.yaml"
    path.write_bytes(content)
    with suppress(InvalidConfigError):
        for contract in load_contracts([path], today=date(2026, 1, 1)):
            assert isinstance(contract, Contract)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(KEYS, TREES, max_size=6))
def test_any_yaml_is_a_contract_or_an_invalid_config(tmp_path: Path, tree: Any) -> None:
    base = yaml.safe_load(HEAD + SIGNALS)
    attempt(tmp_path, yaml.safe_dump(tree, allow_unicode=True).encode())
    attempt(tmp_path, yaml.safe_dump({**base, **tree}, allow_unicode=True).encode())


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 2000), st.integers(0, 20), st.binary(max_size=4))
def test_any_change_of_bytes_is_a_contract_or_an_invalid_config(
    tmp_path: Path, at: int, removed: int, inserted: bytes
) -> None:
    content = (HEAD + SIGNALS).encode()
    at %= len(content)
    attempt(tmp_path, content[:at] + inserted + content[at + removed :])
