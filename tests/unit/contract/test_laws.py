"""What the lines of a contract say must agree, and what could leak is refused."""

from datetime import date
from pathlib import Path

import pytest

from gateway.contract.load import load_contracts
from gateway.errors import InvalidConfigError
from tests.unit.contract.texts import HEAD, SIGNALS, loaded, write


def told(folder: Path, text: str, today: date | None = None) -> list[tuple[str, int]]:
    """List rule and line of each finding; none when the contract is sound."""
    path = write(folder, text)
    try:
        load_contracts([path], today=today)
    except InvalidConfigError as error:
        return [(finding.rule, finding.line) for finding in error.findings]
    return []


def signal(**changes: str) -> str:
    """Write one signal in line 8."""
    keys = {"attribute": "a.b", "type": "double", "role": "feature", **changes}
    inside = ", ".join(f"{key}: {value}" for key, value in keys.items() if value)
    return HEAD + f"signals:\n  x: {{{inside}}}\n"


@pytest.mark.parametrize("key", ["contract", "model", "match", "owner", "purpose", "expires"])
def test_head_must_be_complete(tmp_path: Path, key: str) -> None:
    lines = [line for line in HEAD.splitlines(keepends=True) if not line.startswith(f"{key}:")]
    assert told(tmp_path, "".join(lines)) == [("missing", 1)]


@pytest.mark.parametrize("text", ["ToDo", "tbd", "'?'", "n/a", "<todo>", "'  '", "todo."])
@pytest.mark.parametrize("key", ["owner", "purpose"])
def test_owner_and_purpose_are_real(tmp_path: Path, key: str, text: str) -> None:
    lines = [
        f"{key}: {text}\n" if line.startswith(f"{key}:") else line
        for line in HEAD.splitlines(keepends=True)
    ]
    line = 4 if key == "owner" else 5
    assert told(tmp_path, "".join(lines)) == [("placeholder", line)]


def test_empty_owner_is_missing(tmp_path: Path) -> None:
    assert told(tmp_path, HEAD.replace("vision@example.com", "''")) == [("missing", 4)]


@pytest.mark.parametrize(
    ("today", "found"),
    [
        (date(2027, 12, 30), []),
        (date(2027, 12, 31), []),
        (date(2028, 1, 1), [("expired", 6)]),
        (None, []),
    ],
)
def test_contract_holds_through_its_last_day(
    tmp_path: Path, today: date | None, found: list[tuple[str, int]]
) -> None:
    assert told(tmp_path, HEAD, today) == found


@pytest.mark.parametrize("text", ["soon", "2027-02-30", "3", "2027-12-31T00:00:00"])
def test_expires_is_a_day(tmp_path: Path, text: str) -> None:
    (found,) = told(tmp_path, HEAD.replace("2027-12-31", text))
    assert found in [("invalid-value", 6), ("wrong-type", 6)]


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("а.confidence", "key-script"),  # a Cyrillic letter
        ("a.ⅽlass", "key-script"),
        ("a\u200b.b", "key-script"),
        ("weir.lane", "reserved-key"),
        ("Weir.lane", "reserved-key"),
        ("redaction.summary", "reserved-key"),
        ("a.*", "invalid-value"),
        ("'*'", "invalid-value"),
        ("a b", "invalid-value"),
        ("'.a'", "invalid-value"),
        ("a" * 200, "invalid-value"),
    ],
)
def test_key_that_misleads_is_refused_everywhere(tmp_path: Path, key: str, rule: str) -> None:
    assert told(tmp_path, signal(attribute=f'"{key}"' if "'" not in key else key)) == [(rule, 8)]
    assert told(tmp_path, HEAD + f"resource:\n  {key}: {{}}\n") == [(rule, 8)]
    matched = HEAD.replace("edgeai.model.name: ", f"{key}: ")
    assert told(tmp_path, matched) == [(rule, 3)]


def test_homoglyph_is_named_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD.replace("model.name", "model.nаme"))
    with pytest.raises(InvalidConfigError, match="CYRILLIC SMALL LETTER A as character 15"):
        load_contracts([path])


@pytest.mark.parametrize("text", ["сracked", "a\u202eb", "e\u0301", "' a'", "''", "ｏk"])
def test_text_that_misleads_is_refused(tmp_path: Path, text: str) -> None:
    found = told(tmp_path, signal(type="enum", values=f'[fine, {text}, "ok!"]'))
    assert found == [("mixed-script", 8)]


@pytest.mark.parametrize("text", ["треснул", "検査OK", "größe", "naïve", "濡れ", "5 µm"])
def test_text_of_any_language_is_allowed(tmp_path: Path, text: str) -> None:
    assert told(tmp_path, signal(type="enum", values=f"[ok, {text}]")) == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"range": "[1, 0]"}, "signal-range"),
        ({"range": "[1, 1]"}, "signal-range"),
        ({"range": "[0, 1e300]"}, "signal-range"),
        ({"range": "[0, .inf]"}, "out-of-range"),
        ({"range": "[0]"}, "missing"),
        ({"range": "[0, 1, 2]"}, "limit"),
        ({"type": "int", "range": "[0, 1.5]"}, "signal-range"),
        ({"type": "bool", "range": "[0, 1]"}, "signal-range"),
        ({"role": "confidence", "range": "[0, 100]"}, "signal-range"),
        ({"type": "enum"}, "signal-values"),
        ({"type": "enum", "values": "[]"}, "signal-values"),
        ({"type": "enum", "values": "[a, a]"}, "duplicate-name"),
        ({"values": "[a]"}, "signal-values"),
        ({"type": "enum", "values": "[a, 1]"}, "wrong-type"),
        ({"type": "enum", "values": "[yes, no, true]"}, "wrong-type"),
        ({"type": "float"}, "unknown-value"),
        ({"type": ""}, "missing"),
        ({"role": ""}, "missing"),
        ({"attribute": ""}, "missing"),
        ({"role": "confidence", "type": "int"}, "signal-role"),
        ({"role": "text"}, "signal-role"),
        ({"role": "feature", "type": "string"}, "signal-role"),
        ({"role": "outcome"}, "signal-role"),
        ({"export": "mask"}, "not-available"),
        ({"export": "{generalize: {step: 5}}"}, "not-available"),
        ({"site": "template"}, "not-available"),
        ({"export": "allow"}, "unknown-value"),
        ({"export": "5"}, "unknown-value"),
    ],
)
def test_signal_that_is_not_sane_is_refused(
    tmp_path: Path, changes: dict[str, str], rule: str
) -> None:
    assert told(tmp_path, signal(**changes)) == [(rule, 8)]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"type": "string", "role": "text"}, "text-passed"),
        ({"type": "string", "role": "identifier"}, "identifier-passed"),
        ({"type": "int", "role": "identifier", "range": "[0, 9]"}, "identifier-passed"),
        ({"attribute": "enduser.id", "type": "enum", "values": "[a]"}, "identifier-passed"),
        ({"attribute": "host.name", "type": "enum", "values": "[a]"}, "identifier-passed"),
        ({"attribute": "geo.location.lat", "range": "[-90, 90]"}, "identifier-passed"),
        ({"type": "double"}, "unbounded-number"),
        ({"type": "int"}, "unbounded-number"),
        ({"type": "bool", "site": "drop"}, "looser-export"),
        ({"type": "enum", "values": "[a]", "site": "token"}, "looser-export"),
    ],
)
def test_what_could_leak_is_refused(tmp_path: Path, changes: dict[str, str], rule: str) -> None:
    assert told(tmp_path, signal(**changes, export="pass")) == [(rule, 8)]
    stays = {**changes, "site": changes.get("site", "pass")}
    assert told(tmp_path, signal(**stays, export="drop")) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "enum", "values": "[a, b]", "export": "pass"},
        {"type": "bool", "export": "pass"},
        {"type": "double", "range": "[0, 1]", "export": "pass"},
        {"type": "string", "role": "identifier", "export": "token"},
        {"type": "string", "role": "text", "export": "token"},
        {"type": "int", "role": "identifier", "export": "token"},
    ],
)
def test_what_is_closed_or_hidden_may_leave(tmp_path: Path, changes: dict[str, str]) -> None:
    assert told(tmp_path, signal(**changes)) == []


@pytest.mark.parametrize("kind", ["double", "bool"])
def test_token_of_a_value_that_it_does_not_hide_is_refused(tmp_path: Path, kind: str) -> None:
    assert told(tmp_path, signal(type=kind, export="token")) == [("token-type", 8)]


@pytest.mark.parametrize("key", ["device.id", "host.name", "enduser.id", "service.instance.id"])
def test_resource_that_identifies_leaves_as_token_or_not(tmp_path: Path, key: str) -> None:
    text = HEAD + f"resource:\n  {key}: {{export: pass}}\n"
    assert told(tmp_path, text) == [("identifier-passed", 8)]
    assert told(tmp_path, text.replace("pass", "token")) == []


def test_one_attribute_is_one_signal(tmp_path: Path) -> None:
    entry = "{attribute: a, type: bool, role: feature}"
    text = HEAD + f"signals:\n  x: {entry}\n  y: {entry}\n"
    assert told(tmp_path, text) == [("duplicate-name", 9)]


def test_there_is_one_confidence(tmp_path: Path) -> None:
    entry = "{{attribute: {0}, type: double, role: confidence}}"
    text = HEAD + f"signals:\n  x: {entry.format('a')}\n  y: {entry.format('b')}\n"
    assert told(tmp_path, text) == [("signal-role", 9)]


@pytest.mark.parametrize("name", ["error", "duration", "a b", "1st", "a.b", "é"])
def test_signal_name_can_stand_in_a_rule(tmp_path: Path, name: str) -> None:
    text = HEAD + f"signals:\n  {name}: {{attribute: a, type: bool, role: feature}}\n"
    assert told(tmp_path, text) == [("invalid-value", 8)]


@pytest.mark.parametrize(
    ("slo", "rule"),
    [
        ("{name: a, indicator: success, objective: 1}", "out-of-range"),
        ("{name: a, indicator: success, objective: 0}", "out-of-range"),
        ("{name: a, indicator: success, objective: 99.9}", "out-of-range"),
        ("{name: a, indicator: success, objective: 0.83}", "slo-undetectable"),
        ("{name: a, indicator: latency, objective: 0.83, threshold: 1s}", "slo-undetectable"),
        ("{name: a, indicator: latency, objective: 0.95}", "slo-threshold"),
        ("{name: a, indicator: success, objective: 0.99, threshold: 1s}", "slo-threshold"),
        ("{name: a, indicator: latency, objective: 0.95, threshold: 0s}", "out-of-range"),
        ("{name: a, indicator: success, objective: 0.99, window: 12h}", "out-of-range"),
        ("{name: a, indicator: success, objective: 0.99, window: 91d}", "out-of-range"),
        ("{name: a, indicator: success, objective: 0.99, window: 30}", "invalid-value"),
        ("{name: a, indicator: fresh, objective: 0.99}", "unknown-value"),
        ("{name: 'a b', indicator: success, objective: 0.99}", "invalid-value"),
        ("{indicator: success, objective: 0.99}", "missing"),
    ],
)
def test_objective_that_cannot_work_is_refused(tmp_path: Path, slo: str, rule: str) -> None:
    assert told(tmp_path, HEAD + f"slos:\n  - {slo}\n") == [(rule, 8)]


@pytest.mark.parametrize(
    "slo",
    [
        "{name: a, indicator: success, objective: 0.931}",
        "{name: a, indicator: success, objective: 0.93, window: 7d}",
        "{name: a, indicator: success, objective: 0.99, window: 14d}",
        "{name: a, indicator: success, objective: 0.999, window: 10d}",
        "{name: a, indicator: success, objective: 0.999, window: 90d}",
        "{name: a, indicator: latency, objective: 0.95, window: 14d, threshold: 1s}",
        "{name: a, indicator: latency, objective: 0.84, threshold: 1s}",
    ],
)
def test_objective_whose_alerts_can_fire_is_accepted(tmp_path: Path, slo: str) -> None:
    assert told(tmp_path, HEAD + f"slos:\n  - {slo}\n") == []


def test_objectives_differ_in_name_and_subject(tmp_path: Path) -> None:
    one = "  - {name: a, indicator: success, objective: 0.99}\n"
    assert told(tmp_path, HEAD + "slos:\n" + one + one) == [
        ("duplicate-name", 9),
        ("duplicate-name", 9),
    ]


def test_two_thresholds_are_two_objectives(tmp_path: Path) -> None:
    one = "  - {name: a, indicator: latency, objective: 0.95, threshold: 1s}\n"
    two = "  - {name: b, indicator: latency, objective: 0.99, threshold: 5s}\n"
    assert told(tmp_path, HEAD + "slos:\n" + one + two) == []


@pytest.mark.parametrize(
    "rule",
    [
        "confidenc < 0.5",
        "confidence",
        "confidence == 0.5",
        "confidence < 1.5",
        "confidence < 0",
        "confidence > 1",
        "confidence < low",
        "class == torn",
        "class < ok",
        "class",
        "overridden > 1",
        "overridden == maybe",
        "missing == 40",
        "error == true",
        "duration > 500",
    ],
)
def test_keep_rule_that_does_not_fit_is_refused(tmp_path: Path, rule: str) -> None:
    text = HEAD + SIGNALS + f"sampling:\n  keep:\n    - error\n    - {rule}\n"
    assert told(tmp_path, text) == [("keep-rule", 16)]


def test_keep_rules_are_bound_to_the_type_of_their_signal(tmp_path: Path) -> None:
    rules = ["confidence <= 0.5", "class == wet", "class != ok", "missing >= 3", "missing == 3"]
    rules += ["overridden", "overridden == false", "overridden != true", "operator == bob"]
    listed = "".join(f"    - {rule}\n" for rule in rules)
    contract = loaded(tmp_path, HEAD + SIGNALS + f"sampling:\n  keep:\n{listed}")
    assert [(rule.operator, rule.value) for rule in contract.sampling.keep] == [
        ("<=", 0.5),
        ("==", "wet"),
        ("!=", "ok"),
        (">=", 3.0),
        ("==", 3.0),
        ("==", 1.0),
        ("==", 0.0),
        ("!=", 1.0),
        ("==", "bob"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "drift: {tolerance: 0}\n",
        "drift: {accumulator: sum}\n",
        "drift: {season: daily}\n",
        "drift: {rate_tolerance: 1}\n",
        "drift: {conditional_classes: 21}\n",
        "drift: {false_alarms: 30d}\n",
        "drift: {false_alarms: 1}\n",
        "drift: {false_alarms: 100/1s}\n",
        "sampling: {rate: -0.1}\n",
        "sampling: {bytes_per_second: 0}\n",
        "provenance: {require: some}\n",
        "cost: {currency: dollar, per_inference: 1}\n",
        "cost: {currency: USD, per_inference: -1}\n",
        "cost: {currency: USD}\n",
        "span_names: [a, a]\n",
        "span_names: inference\n",
        "signal: {}\n",
        "match: {a: 1}\n",
    ],
)
def test_faulty_section_is_refused_at_its_line(tmp_path: Path, text: str) -> None:
    head = "".join(line for line in HEAD.splitlines(keepends=True) if not text.startswith(line[:5]))
    (found,) = told(tmp_path, head + text)
    assert found[1] == head.count("\n") + 1


DEVICE = "resource:\n  device.id: {export: token}\n"


def metric(name: str, body: str = "{}") -> str:
    """Write one metric in line 10, of a device that keeps its name."""
    return HEAD + DEVICE + f"metrics:\n  {name}: {body}\n"


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("latency", True),
        ("edgeai.inference.duration", True),
        ("http.server.request.duration", True),
        ("a_b-c/d.9", True),
        ("a" * 255, True),
        ("a" * 256, False),
        ("'9a'", False),
        ("_a", False),
        ("'a b'", False),
        ("'a*'", False),
        ("größe", False),
        ("lаtency", False),  # a Cyrillic letter
        ("'a{b=1}'", False),
    ],
)
def test_metric_is_named_as_an_instrument(tmp_path: Path, name: str, fine: bool) -> None:
    assert told(tmp_path, metric(name)) == ([] if fine else [("invalid-value", 10)])


@pytest.mark.parametrize("unit", ["''", "ms", "By", "'1'", "'{inference}'", "'By/s'", "'%'"])
def test_unit_in_ucum_is_taken(tmp_path: Path, unit: str) -> None:
    contract = loaded(tmp_path, metric("latency", f"{{unit: {unit}}}"))
    assert contract.metrics["latency"].unit == unit.strip("'")


@pytest.mark.parametrize("unit", ["µs", '"m\\ts"', '"m\\u200bs"', "мс"])
def test_unit_that_is_not_plain_is_refused(tmp_path: Path, unit: str) -> None:
    assert told(tmp_path, metric("latency", f"{{unit: {unit}}}")) == [("invalid-value", 10)]


@pytest.mark.parametrize("body", ["{unit: 1}", "{unti: ms}", "ms", f"{{unit: {'m' * 65}}}"])
def test_metric_says_its_unit_and_nothing_else(tmp_path: Path, body: str) -> None:
    (found,) = told(tmp_path, metric("latency", body))
    assert found[1] == 10


@pytest.mark.parametrize(
    ("resource", "fine"),
    [
        ("", False),
        ("resource:\n  service.name: {export: pass}\n", False),
        ("resource:\n  device.id: {export: drop}\n", False),
        ("resource:\n  device.id: {}\n", False),
        (DEVICE, True),
        ("resource:\n  service.instance.id: {export: token}\n", True),
        ("resource:\n  host.name: {export: token}\n", True),
        ("resource:\n  k8s.pod.uid: {export: token}\n", True),
    ],
)
def test_series_of_devices_are_kept_apart(tmp_path: Path, resource: str, fine: bool) -> None:
    text = HEAD + "metrics:\n  latency: {unit: ms}\n" + resource
    assert told(tmp_path, text) == ([] if fine else [("metric-stream", 7)])


def test_metric_stream_says_what_to_write(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "metrics: {latency: {unit: ms}}\n")
    with pytest.raises(InvalidConfigError, match="one and the same series") as caught:
        load_contracts([path])
    (finding,) = caught.value.findings
    assert (finding.file, finding.line, finding.column) == (str(path), 7, 1)
    assert "device.id: {export: token}" in finding.instead


def test_metric_twice_is_refused(tmp_path: Path) -> None:
    text = metric("latency") + "  latency: {unit: s}\n"
    (found,) = told(tmp_path, text)
    assert found[1] == 11


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("[edgeai.model.loaded, edgeai.model.unloaded]", []),
        ("[geladen, 検査]", []),
        ("[a, b, a]", [("duplicate-name", 7)]),
        ("[lоaded]", [("mixed-script", 7)]),  # a Cyrillic letter
        ('["a\\u202eb"]', [("mixed-script", 7)]),
        ("[' a']", [("mixed-script", 7)]),
        ("['']", [("mixed-script", 7)]),
    ],
)
def test_event_names_are_a_closed_set_that_does_not_mislead(
    tmp_path: Path, names: str, found: list[tuple[str, int]]
) -> None:
    assert told(tmp_path, HEAD + f"event_names: {names}\n") == found
