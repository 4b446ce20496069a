"""Labels, cost by feature and the allocation of rollouts: one bad input for each rule."""

from pathlib import Path

import pytest

from tests.unit.contract.texts import HEAD, SIGNALS, found, loaded


@pytest.mark.parametrize(
    ("text", "rule", "place", "message"),
    [
        ("{signal: klass}", "label-signal", (13, 18), "no signal has the name 'klass'"),
        (
            "{signal: missing}",
            "label-signal",
            (13, 18),
            "the signal 'missing' has the role feature",
        ),
        ("{within: 1h}", "missing", (13, 1), "labels.signal is missing"),
        (
            "{signal: class, within: 31d}",
            "out-of-range",
            (13, 33),
            "labels.within: must be at most 30d, not 31d",
        ),
        (
            "{signal: class, expect: 1.5}",
            "out-of-range",
            (13, 33),
            "labels.expect: must be at most 1, not 1.5",
        ),
    ],
)
def test_labels_that_cannot_be_joined_are_refused(
    tmp_path: Path, text: str, rule: str, place: tuple[int, int], message: str
) -> None:
    finding = found(tmp_path, HEAD + SIGNALS + f"labels: {text}\n")
    assert (finding.rule, finding.message) == (rule, message)
    assert (finding.line, finding.column) == place


def test_label_of_a_double_is_refused(tmp_path: Path) -> None:
    score = "  score: {attribute: a.score, type: double, range: [0, 1], role: prediction}\n"
    finding = found(tmp_path, HEAD + SIGNALS + score + "labels: {signal: score}\n")
    assert (finding.rule, finding.line) == ("label-signal", 14)
    assert finding.instead == "a label is equal to or not: name a signal of bool, enum, int"


def test_faulty_signal_is_told_once(tmp_path: Path) -> None:
    text = HEAD + "signals: {class: {attribute: a, type: emun, role: prediction}}\n"
    assert found(tmp_path, text + "labels: {signal: class}\n").line == 7


COST = "cost: {currency: USD, per_inference: 0.1, feature: app.feature, features: [sorting, a]}\n"


def test_cost_by_feature_has_a_closed_set(tmp_path: Path) -> None:
    contract = loaded(tmp_path, HEAD + COST)
    assert contract.cost is not None
    assert (contract.cost.feature, contract.cost.features) == ("app.feature", ("sorting", "a"))


@pytest.mark.parametrize(
    ("old", "new", "rule", "message"),
    [
        (
            ", features: [sorting, a]",
            "",
            "cost-feature",
            "cost.feature has no closed set of values",
        ),
        ("feature: app.feature, ", "", "cost-feature", "cost.features are values of no attribute"),
        (
            "sorting, a",
            "a, other",
            "cost-feature",
            "'other' is what every value outside the set is counted as",
        ),
        ("sorting", "a", "duplicate-name", "cost.features has 'a' twice"),
        ("app.feature", "weir.feature", "reserved-key", None),
        ("app.feature", "'app.*'", "invalid-value", "'app.*' is no attribute key"),
        ("app.feature", "аpp.feature", "key-script", None),  # a Cyrillic letter
        ("sorting", "sоrting", "mixed-script", None),  # and another one
        (
            "[sorting, a]",
            "[" + ", ".join(f"f{number}" for number in range(65)) + "]",
            "limit",
            "cost.features: must have at most 64 entries or characters",
        ),
    ],
)
def test_cost_by_feature_that_cannot_be_counted_is_refused(
    tmp_path: Path, old: str, new: str, rule: str, message: str | None
) -> None:
    finding = found(tmp_path, HEAD + COST.replace(old, new))
    assert (finding.rule, finding.line) == (rule, 7)
    assert message is None or finding.message == message


@pytest.mark.parametrize("share", ["0", "1.01", "-1"])
def test_allocation_is_a_share_of_the_budget(tmp_path: Path, share: str) -> None:
    finding = found(tmp_path, HEAD + f"rollouts: {{allocation: {share}}}\n")
    assert (finding.rule, finding.line, finding.column) == ("out-of-range", 7, 24)
    assert loaded(tmp_path, HEAD + "rollouts: {allocation: 1}\n").rollouts.allocation == 1.0
