"""OpenSLO documents say objectives as contracts do, and what they say beyond that is refused."""

import json
from pathlib import Path

import pytest
import yaml

from gateway.batch import Severity
from gateway.config import load_site
from gateway.contract.check import check, inspect
from gateway.contract.load import load_contracts
from gateway.contract.schema import BurnWindow, Indicator, Slo
from gateway.errors import InvalidConfigError
from tests.unit.contract.openslo_texts import (
    ALERTED,
    LABELS,
    RATIO,
    THRESHOLD,
    WRITTEN,
    loaded_with,
    refused,
)
from tests.unit.contract.texts import HEAD, SIGNALS, write


def test_documents_are_the_contract_that_says_the_same(tmp_path: Path) -> None:
    joined = loaded_with(tmp_path / "a", RATIO, THRESHOLD, ALERTED)
    written = loaded_with(tmp_path / "b", contract=HEAD + SIGNALS + WRITTEN)
    assert joined.slos == written.slos
    assert joined.digest == written.digest
    assert joined.slos[1] == Slo(
        name="quick",
        indicator=Indicator.LATENCY,
        objective=0.95,
        window=30 * 86_400.0,
        threshold=0.1,
    )
    assert joined.slos[2].pairs == (
        BurnWindow(long_s=3600, short_s=300, factor=14.4, severity=Severity.PAGE),
        BurnWindow(long_s=259_200, short_s=21_600, factor=1, severity=Severity.TICKET),
    )


def test_order_of_files_and_documents_does_not_matter(tmp_path: Path) -> None:
    one = loaded_with(tmp_path / "a", RATIO, THRESHOLD, ALERTED)
    parts = [*reversed(ALERTED.split("---\n")), *reversed(THRESHOLD.split("---\n"))]
    assert loaded_with(tmp_path / "b", "---\n".join(parts), RATIO).digest == one.digest
    assert loaded_with(tmp_path / "c", *parts, RATIO).digest == one.digest


def test_objectives_join_those_of_the_contract(tmp_path: Path) -> None:
    own = "slos: [{name: z, indicator: integrity}]\n"
    joined = loaded_with(tmp_path, RATIO, contract=HEAD + own)
    assert [slo.name for slo in joined.slos] == ["z", "answers"]


def test_json_is_read_as_well(tmp_path: Path) -> None:
    write(tmp_path, HEAD)
    data = yaml.safe_load(RATIO)
    for number, text in enumerate([json.dumps(data), json.dumps(data, indent=2)]):
        path = write(tmp_path, text, f"{number}/slo.yaml")
        (contract,) = load_contracts([tmp_path / "contract.yaml", path])
        assert [slo.name for slo in contract.slos] == ["answers"]


@pytest.mark.parametrize(
    ("indicator", "more", "threshold"),
    [
        ("success", "", None),
        ("latency", ", threshold: 250ms", 0.25),
        ("cold_start", "", None),
        ("freshness", "", 300.0),
        ("freshness", ", threshold: 10m", 600.0),
        ("deployment", "", None),
        ("label_lag", ", threshold: 12h", 43_200.0),
    ],
)
def test_every_indicator_with_a_budget_maps(
    tmp_path: Path, indicator: str, more: str, threshold: float | None
) -> None:
    text = RATIO.replace("{indicator: success}", f"{{indicator: {indicator}{more}}}", 1)
    text = text.replace("{indicator: success}", f"{{indicator: {indicator}}}")
    (slo,) = loaded_with(tmp_path, text, contract=HEAD + SIGNALS + LABELS).slos
    assert (slo.indicator, slo.threshold) == (indicator, threshold)


def test_model_may_be_named_by_a_label(tmp_path: Path) -> None:
    text = RATIO.replace("{team: [vision]}", "{edgeai.model.name: damage-net}")
    assert loaded_with(tmp_path, text.replace("service: damage-net", "service: dock")).slos


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("openslo/v1\n", "openslo/v2alpha\n", (1, 13), "apiVersion: 'openslo/v2alpha' is not read"),
        ("kind: SLO", "kind: Slo", (2, 7), "kind: 'Slo' is not read"),
        (
            "Occurrences",
            "Timeslices",
            (26, 20),
            "the budgeting method 'Timeslices' is not counted here",
        ),
        (
            "Occurrences",
            "RatioTimeslices",
            (26, 20),
            "the budgeting method 'RatioTimeslices' is not counted here",
        ),
        ("Occurrences", "Occurences", (26, 20), "'Occurences' is no budgeting method"),
        (
            "isRolling: true",
            "calendar: {startTime: 2026-01-01 00:00:00, timeZone: Europe/Berlin}",
            (25, 7),
            "a calendar-aligned time window is not counted here",
        ),
        ("isRolling: true", "isRolling: false", (24, 7), "the time window is not said to roll"),
        (
            "4w",
            "1M",
            (24, 17),
            "1M: months, quarters and years have no fixed length",
        ),
        ("4w", "4 weeks", (24, 17), "'4 weeks' is no duration"),
        (
            "isRolling: true\n",
            "isRolling: true\n    - {duration: 1w, isRolling: true}\n",
            (26, 7),
            "an SLO has one time window",
        ),
        (
            "target: 0.999\n",
            "target: 0.999\n    - target: 0.99\n",
            (30, 7),
            "several objectives would count the same events",
        ),
        (
            "target: 0.999",
            "target: 0.999\n      timeSliceTarget: 0.9",
            (30, 7),
            "timeSliceTarget: a time slice is not counted here",
        ),
        (
            "target: 0.999",
            "target: 0.999\n      compositeWeight: 2",
            (30, 7),
            "compositeWeight: a composite SLO is not counted here",
        ),
        (
            "target: 0.999",
            "target: 0.999\n      indicatorRef: other",
            (30, 7),
            "indicatorRef: a composite SLO is not counted here",
        ),
        (
            "target: 0.999",
            "target: 0.999\n      targetPercent: 99",
            (28, 7),
            "an objective has either target or targetPercent",
        ),
        (
            "target: 0.999",
            "target: 0.999\n      op: lte",
            (30, 7),
            "op: a ratio is compared with its target alone",
        ),
        (
            "type: weir",
            "type: Prometheus",
            (17, 19),
            "the metric source 'Prometheus' is not read: Weir counts events by itself",
        ),
        ("            type: weir\n", "", (17, 13), "the metric names no source"),
        ("counter: true", "counter: false", (14, 18), None),
        ("counter: true", "rawType: success", (14, 9), None),
        (
            "        good:",
            "        any:",
            (15, 9),
            "unknown key 'any' in spec.indicator.spec.ratioMetric",
        ),
        (
            "{indicator: success}",
            "{indicator: success, unit: s}",
            (18, 19),
            "a ratio has no unit",
        ),
        (
            "{indicator: success}",
            "{indicator: freshness}",
            (22, 19),
            "good or bad events are a part of all events of the same indicator",
        ),
        (
            "{indicator: success}",
            "{query: up}",
            (18, 13),
            "spec.indicator is missing",
        ),
        (
            "    metadata: {name: answered}\n    spec:\n",
            "    spec:\n      thresholdMetric: {metricSource: {type: weir, spec: {}}}\n",
            (12, 7),
            "an indicator has either ratioMetric or thresholdMetric",
        ),
        ("  service: damage-net\n", "", (7, 1), "spec.service is missing"),
        (
            "service: damage-net",
            "service: damage",
            (9, 12),
            "no contract is for the model 'damage'",
        ),
        ("{team: [vision]}", "{edgeai.model.name: [a]}", (6, 31), None),
        (
            "{team: [vision]}",
            "{edgeai.slo.page: maybe}",
            (6, 29),
            "edgeai.slo.page: 'maybe' is no answer",
        ),
    ],
)
def test_what_cannot_be_mapped_is_refused_by_name(
    tmp_path: Path, old: str, new: str, place: tuple[int, int], message: str | None
) -> None:
    assert old in RATIO
    found = refused(tmp_path, RATIO.replace(old, new, 1))
    first = found[0]
    assert Path(first.file).name == "0.yaml"
    assert first.instead
    if message is not None:
        assert first.message == message
    assert (first.line, first.column) == place


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("indicatorRef: duration", "indicatorRef: duratio", 6, "no SLI has the name 'duratio'"),
        (
            "metricSourceRef: gateway",
            "metricSourceRef: other",
            16,
            "no DataSource has the name 'other'",
        ),
        (
            "type: Weir",
            "type: Datadog",
            21,
            "the metric source 'Datadog' is not read: Weir counts events by itself",
        ),
        (
            "connectionDetails: {}",
            "connectionDetails: {url: x}",
            21,
            "connectionDetails: Weir connects to no source of metrics",
        ),
        ("op: lte", "op: gte", 9, "op: 'gte' is not how a duration is judged"),
        ("value: 0.1, ", "", 9, "a thresholdMetric needs a value"),
        ("value: 0.1", "value: 0", 9, "threshold: must be more than 0s, not '0s'"),
        ("unit: s", "unit: ms", 16, "unit: 'ms' is not the unit of durations here"),
        ("unit: s", "threshold: 1s", 16, None),
        (
            "indicator: latency",
            "indicator: freshness",
            16,
            "a thresholdMetric of freshness is not counted here",
        ),
        (
            "targetPercent: 95",
            "targetPercent: 100",
            9,
            "targetPercent: 100 leaves no budget or asks for nothing",
        ),
        (
            "targetPercent: 95",
            "target: 95",
            9,
            "objective: 95 is a percentage, not a share",
        ),
        (
            "targetPercent: 95",
            "target: 0.8",
            9,
            "at 0.8 the 15m alert would need 120% bad events and could never fire",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(
    tmp_path: Path, old: str, new: str, line: int, message: str | None
) -> None:
    assert old in THRESHOLD
    (finding,) = refused(tmp_path, THRESHOLD.replace(old, new, 1))
    assert (finding.line, Path(finding.file).name) == (line, "0.yaml")
    assert finding.instead
    assert message is None or finding.message == message


def test_objectives_obey_the_laws_between_objectives(tmp_path: Path) -> None:
    own = "slos: [{name: a, indicator: success, objective: 0.99}]\n"
    (finding,) = refused(tmp_path / "a", RATIO, contract=HEAD + own)
    assert (finding.rule, finding.line) == ("duplicate-name", 4)
    assert finding.message.startswith("slos[0] of ")
    assert finding.message.endswith("counts the same events already")
    (finding,) = refused(
        tmp_path / "b",
        RATIO,
        contract=HEAD
        + own.replace("name: a", "name: answers").replace("success, objective: 0.99", "integrity"),
    )
    assert finding.message.startswith("the name 'answers' is that of slos[0] of ")
    (finding,) = refused(tmp_path / "c", RATIO, RATIO)
    assert finding.message.startswith("the SLO 'answers' is in ")
    text = RATIO.replace("indicator: success", "indicator: label_lag")
    (finding,) = refused(tmp_path / "d", text)
    assert (finding.rule, finding.line) == ("slo-labels", 4)


def test_contract_has_room_for_sixteen_objectives(tmp_path: Path) -> None:
    one, *others = THRESHOLD.split("---\n")
    texts = [
        one.replace("quick", f"quick{number:02}").replace("0.1", f"0.{100 + number}")
        for number in range(1, 18)
    ]
    (finding,) = refused(tmp_path, "---\n".join([*texts, *others]))
    assert finding.rule == "limit"
    assert "more than 16 objectives" in finding.message


def test_all_faults_of_an_objective_come_at_once(tmp_path: Path) -> None:
    text = RATIO.replace("0.999", "99.9").replace("4w", "99w")
    found = refused(tmp_path, text)
    assert {(each.rule, each.line) for each in found} == {
        ("out-of-range", 24),
        ("out-of-range", 29),
    }


def test_nameless_objects_are_told_once_each(tmp_path: Path) -> None:
    text = RATIO.replace("  name: answers\n", "")
    assert [each.rule for each in refused(tmp_path, text, text)] == ["missing", "missing"]


def test_model_of_a_faulty_contract_is_not_told_to_be_missing(tmp_path: Path) -> None:
    (finding,) = refused(tmp_path, RATIO, contract=HEAD + "sampling: {rate: 2}\n")
    assert finding.rule == "out-of-range"


def test_faults_of_yaml_are_told_in_any_document(tmp_path: Path) -> None:
    found = refused(tmp_path, RATIO + "---\nkind: SLO\nkind: SLO\n---\na: [\n")
    assert {(each.rule, each.line) for each in found} == {
        ("openslo", 31),
        ("duplicate-key", 32),
        ("yaml-syntax", 35),
    }
    (finding,) = refused(tmp_path, RATIO + "---\n- a\n")
    assert finding.message == "an OpenSLO document is a mapping, not a list"
    assert loaded_with(tmp_path, "---\n" + RATIO + "---\n---\n").slos


def test_run_refuses_what_check_refuses(tmp_path: Path) -> None:
    write(tmp_path, HEAD, "m/contract.yaml")
    write(tmp_path, RATIO.replace("0.999", "99.9"), "m/slo.yaml")
    site = write(tmp_path, "site: {id: a}\ncontracts: [m/]\n", "site.yaml")
    with pytest.raises(InvalidConfigError) as caught:
        load_contracts(load_site(site).contracts)
    assert set(check([site])) == set(caught.value.findings)
    assert set(check([tmp_path])) == set(caught.value.findings)
    assert check([tmp_path / "m" / "slo.yaml", tmp_path / "m" / "contract.yaml"]) == list(
        caught.value.findings
    )
    write(tmp_path, RATIO, "m/slo.yaml")
    (contract,) = inspect([site]).contracts
    assert [slo.name for slo in contract.slos] == ["answers"]


def test_site_with_and_without_documents_are_two_contracts(tmp_path: Path) -> None:
    write(tmp_path, HEAD, "m/contract.yaml")
    write(tmp_path, RATIO, "slo.yaml")
    write(tmp_path, "site: {id: a}\ncontracts: [m/]\n", "a.yaml")
    write(tmp_path, "site: {id: b}\ncontracts: [m/, slo.yaml]\n", "b.yaml")
    inspection = inspect([tmp_path])
    assert inspection.findings == ()
    assert [len(contract.slos) for contract in inspection.contracts] == [0, 1]
