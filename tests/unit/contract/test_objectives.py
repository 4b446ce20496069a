"""Objectives of all eight indicators: what each needs, and alerts that can fire and be counted."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Severity
from gateway.config.marks import Document
from gateway.contract.form import INDICATORS, AlertForm, SloForm
from gateway.contract.objectives import Written, check_objective, slo_of
from gateway.contract.schema import BurnWindow, Indicator, LabelRule, RolloutRule
from tests.unit.contract.countable import uncountable
from tests.unit.contract.texts import HEAD, SIGNALS, found, loaded

LABELS = "labels: {signal: class, within: 24h, expect: 0.01}\n"
ONE_OF_EACH = """\
slos:
  - {name: a, indicator: success, objective: 0.999}
  - {name: b, indicator: latency, objective: 0.95, threshold: 100ms}
  - {name: c, indicator: cold_start, objective: 0.99}
  - {name: d, indicator: freshness, objective: 0.99}
  - {name: e, indicator: deployment, objective: 0.99}
  - {name: f, indicator: label_lag, objective: 0.99}
  - {name: g, indicator: integrity}
  - {name: h, indicator: bandwidth, allowance: 1GiB, window: 1d}
"""


def slo(*keys: str) -> str:
    """Write a contract whose only objective stands in line 14, from column 5."""
    return HEAD + SIGNALS + f"slos:\n  - {{name: a, {', '.join(keys)}}}\n"


def alerts(*pairs: str, more: str = "") -> str:
    """Write a success objective whose own pairs stand in line 12 and those after it."""
    rows = "".join(f"      - {{{pair}}}\n" for pair in pairs)
    head = "slos:\n  - name: a\n    indicator: success\n    objective: 0.99\n    alerts:\n"
    return HEAD + head + rows + (f"    {more}\n" if more else "")


def test_one_of_each_indicator_is_accepted(tmp_path: Path) -> None:
    contract = loaded(tmp_path, HEAD + SIGNALS + LABELS + ONE_OF_EACH)
    assert [each.indicator for each in contract.slos] == [
        Indicator.SUCCESS,
        Indicator.LATENCY,
        Indicator.COLD_START,
        Indicator.FRESHNESS,
        Indicator.DEPLOYMENT,
        Indicator.LABEL_LAG,
        Indicator.INTEGRITY,
        Indicator.BANDWIDTH,
    ]
    assert [each.threshold for each in contract.slos] == [None, 0.1, None, 300, None, 86_400] + [
        None
    ] * 2
    assert [each.objective for each in contract.slos[-2:]] == [1.0, 1.0]
    assert [each.allowance for each in contract.slos[-2:]] == [None, 1 << 30]
    assert contract.labels == LabelRule(signal="class", within=86_400, expect=0.01)
    assert contract.rollouts == RolloutRule(allocation=0.25)


def test_unknown_indicator_is_told_the_nearest_and_all(tmp_path: Path) -> None:
    finding = found(tmp_path, slo("indicator: latncy", "objective: 0.95"))
    assert (finding.rule, finding.line, finding.column) == ("unknown-value", 14, 26)
    assert finding.message == "slos[0].indicator: 'latncy' is no indicator"
    every = ", ".join(INDICATORS)
    assert finding.instead == f"did you mean 'latency'? possible are: {every}"
    finding = found(tmp_path, slo("indicator: 7", "objective: 0.95"))
    assert finding.instead == f"possible are: {every}"


@pytest.mark.parametrize(
    ("written", "message", "instead"),
    [
        ("0", "0 asks for nothing", "write a share above 0 and below 1, such as 0.999"),
        (
            "1",
            "1 leaves no error budget, so that nothing could be judged",
            "write a share below 1, such as 0.9999, or indicator: integrity for what must never be",
        ),
        (
            "100",
            "100 leaves no error budget, so that nothing could be judged",
            "write a share below 1, such as 0.9999, or indicator: integrity for what must never be",
        ),
        ("99.9", "99.9 is a percentage, not a share", "write 0.999"),
        ("99.95", "99.95 is a percentage, not a share", "write 0.9995"),
        ("95", "95 is a percentage, not a share", "write 0.95"),
        ("-0.5", "-0.5 is no share", "write a share above 0 and below 1, such as 0.999"),
        ("250", "250 is no share", "write a share above 0 and below 1, such as 0.999"),
    ],
)
def test_objective_outside_0_and_1_is_told_what_to_write(
    tmp_path: Path, written: str, message: str, instead: str
) -> None:
    finding = found(tmp_path, slo("indicator: success", f"objective: {written}"))
    assert finding.rule == "out-of-range"
    assert (finding.line, finding.column) == (14, 46)
    assert finding.message == f"slos[0].objective: {message}"
    assert finding.instead == instead


@pytest.mark.parametrize(
    ("keys", "rule", "column", "message"),
    [
        (("indicator: success",), "missing", 5, "slos[0].objective is missing"),
        (
            ("indicator: success", "objective: high"),
            "wrong-type",
            46,
            "slos[0].objective: must be a number, not 'high'",
        ),
        (
            ("indicator: success", "objective: .nan"),
            "out-of-range",
            46,
            "slos[0].objective: must be a finite number, not nan",
        ),
        (
            ("indicator: integrity", "objective: 0.99"),
            "slo-objective",
            48,
            "slos[0].objective: integrity has zero tolerance, not against 0.99",
        ),
        (
            ("indicator: bandwidth", "objective: 1", "allowance: 1GiB"),
            "slo-objective",
            48,
            "slos[0].objective: bandwidth is measured against its allowance, not against 1",
        ),
        (
            ("indicator: bandwidth",),
            "slo-allowance",
            5,
            "bandwidth needs the bytes that may leave in each window",
        ),
        (
            ("indicator: success", "allowance: 1GiB", "objective: 0.99"),
            "slo-allowance",
            35,
            "a success objective has no allowance",
        ),
        (
            ("indicator: integrity", "threshold: 1s"),
            "slo-threshold",
            37,
            "an integrity objective has no threshold",
        ),
        (
            ("indicator: latency", "objective: 0.95"),
            "slo-threshold",
            5,
            "a latency objective needs a threshold",
        ),
        (
            ("indicator: latency", "objective: 0.95", "threshold: 2d"),
            "out-of-range",
            63,
            "slos[0].threshold: the longest good duration lies between 0s and 1d, not at 2d",
        ),
        (
            ("indicator: freshness", "objective: 0.95", "threshold: 5s"),
            "out-of-range",
            65,
            "slos[0].threshold: the oldest good age lies between 1m and 1d, not at 5s",
        ),
        (
            ("indicator: label_lag", "objective: 0.95"),
            "slo-labels",
            5,
            "label lag is counted of labels that are due, and the contract expects none",
        ),
        (
            ("indicator: success", "objective: 0.99", "window: 12h"),
            "out-of-range",
            60,
            "slos[0].window: must be at least 1d, not 12h",
        ),
        (
            ("indicator: bandwidth", "allowance: 1GB"),
            "invalid-value",
            48,
            "slos[0].allowance: '1GB' cannot be read",
        ),
        (
            ("indicator: success", "objective: 0.99", "page: false"),
            "slo-alerts",
            52,
            "slos[0].page: the standard alerts page",
        ),
        (
            ("indicator: integrity", "alerts: [{long: 1h, short: 5m, factor: 2, severity: page}]"),
            "slo-alerts",
            37,
            "slos[0].alerts: integrity has no burn rate",
        ),
    ],
)
def test_key_that_does_not_fit_the_indicator_is_refused(
    tmp_path: Path, keys: tuple[str, ...], rule: str, column: int, message: str
) -> None:
    finding = found(tmp_path, slo(*keys))
    assert (finding.rule, finding.message) == (rule, message)
    assert (finding.line, finding.column) == (14, column)
    assert finding.instead


def test_label_is_late_at_the_latest_when_nobody_waits_for_it(tmp_path: Path) -> None:
    text = "labels: {signal: class, within: 12h, expect: 1}\n"
    text += "slos: [{name: a, indicator: label_lag, objective: 0.99}]\n"
    (one,) = loaded(tmp_path, HEAD + SIGNALS + text).slos
    assert one.threshold == 12 * 3600


def test_label_lag_needs_traces_that_owe_a_label(tmp_path: Path) -> None:
    text = "labels: {signal: class}\nslos: [{name: a, indicator: label_lag, objective: 0.99}]\n"
    finding = found(tmp_path, HEAD + SIGNALS + text)
    assert (finding.rule, finding.line, finding.column) == ("slo-labels", 14, 8)
    assert finding.message.endswith("no trace owes one")


def test_label_lag_cannot_be_longer_than_labels_are_waited_for(tmp_path: Path) -> None:
    text = LABELS + "slos: [{name: a, indicator: label_lag, objective: 0.99, threshold: 2d}]\n"
    finding = found(tmp_path, HEAD + SIGNALS + text)
    assert (finding.rule, finding.line) == ("slo-labels", 14)
    assert "a label is waited for 1d" in finding.message


def test_default_threshold_is_the_same_subject(tmp_path: Path) -> None:
    one = "  - {name: a, indicator: freshness, objective: 0.99}\n"
    two = "  - {name: b, indicator: freshness, objective: 0.95, threshold: 5m}\n"
    finding = found(tmp_path, HEAD + "slos:\n" + one + two)
    assert (finding.rule, finding.line) == ("duplicate-name", 9)
    assert finding.message == "slos[0] counts the same events already"


@pytest.mark.parametrize("keys", ["indicator: integrity", "indicator: bandwidth, allowance: 1GiB"])
def test_budgetless_objectives_stand_once(tmp_path: Path, keys: str) -> None:
    text = f"slos:\n  - {{name: a, {keys}}}\n  - {{name: b, {keys}, window: 7d}}\n"
    assert found(tmp_path, HEAD + text).message == "slos[0] counts the same events already"


GOOD = "long: 1h, short: 5m, factor: 14.4, severity: page"


def test_own_alerts_are_read_fastest_first(tmp_path: Path) -> None:
    slow = "long: 3d, short: 6h, factor: 0.9, severity: ticket"
    (one,) = loaded(tmp_path, alerts(slow, GOOD)).slos
    assert one.pairs == (
        BurnWindow(long_s=3600, short_s=300, factor=14.4, severity=Severity.PAGE),
        BurnWindow(long_s=259_200, short_s=21_600, factor=0.9, severity=Severity.TICKET),
    )


@pytest.mark.parametrize(
    ("pair", "rule", "column", "message"),
    [
        (
            "long: 1h, short: 5m, factor: 100, severity: page",
            "slo-undetectable",
            39,
            "slos[0].alerts[0].factor: at 0.99 the 1h alert would need 100% bad events and could "
            "never fire",
        ),
        (
            "long: 1h, short: 5m, factor: 0.89, severity: page",
            "slo-window",
            39,
            "slos[0].alerts[0].factor: 0.89 fires while the objective is kept",
        ),
        (
            "long: 1h, short: 1h, factor: 2, severity: page",
            "slo-alerts",
            27,
            "slos[0].alerts[0].short: 1h is no part of 1h",
        ),
        (
            "long: 31d, short: 1d, factor: 2, severity: page",
            "slo-alerts",
            16,
            "slos[0].alerts[0].long: 31d is longer than the period of 30d",
        ),
        (
            "long: 1h, short: 40s, factor: 2, severity: page",
            "slo-alerts",
            27,
            "slos[0].alerts[0].short: 40s is counted in slots of 10s, of which a window needs 5",
        ),
        (
            "long: 1h, short: 65s, factor: 2, severity: page",
            "slo-alerts",
            27,
            "slos[0].alerts[0].short: 65s is counted in slots of 10s",
        ),
        (
            "long: 1h, short: 5m, factor: 0, severity: page",
            "out-of-range",
            39,
            "slos[0].alerts[0].factor: must be more than 0, not 0",
        ),
        (
            "long: 1h, short: 5m, factor: 2, severity: call",
            "unknown-value",
            52,
            "slos[0].alerts[0].severity: 'call' is not possible here",
        ),
        (
            "long: 1h, short: 5m, factor: 2, severity: ticket",
            "slo-alerts",
            5,
            "slos[0].alerts: none of them pages",
        ),
    ],
)
def test_own_alert_that_cannot_work_is_refused(
    tmp_path: Path, pair: str, rule: str, column: int, message: str
) -> None:
    finding = found(tmp_path, alerts(pair))
    assert (finding.rule, finding.message, finding.column) == (rule, message, column)
    assert finding.line == (11 if column == 5 else 12)
    assert finding.instead


def test_own_alerts_of_the_same_windows_are_refused(tmp_path: Path) -> None:
    finding = found(tmp_path, alerts(GOOD, GOOD.replace("14.4", "6")))
    assert (finding.rule, finding.line) == ("slo-alerts", 13)
    assert finding.message == "slos[0].alerts[1] has the windows of alerts[0]"
    ticket = GOOD.replace("14.4", "6").replace("page", "ticket")
    assert len(loaded(tmp_path, alerts(GOOD, ticket)).slos[0].pairs) == 2


def test_tickets_alone_are_allowed_when_said(tmp_path: Path) -> None:
    ticket = GOOD.replace("page", "ticket")
    (one,) = loaded(tmp_path, alerts(ticket, more="page: false")).slos
    assert [pair.severity for pair in one.pairs] == [Severity.TICKET]
    finding = found(tmp_path, alerts(GOOD, more="page: false"))
    assert finding.message == "slos[0].alerts[0] pages against page: false"
    assert (finding.line, finding.column) == (12, 55)


@given(
    st.sampled_from([0.9, 0.95, 0.99, 0.999, 0.9995]),
    st.integers(1, 100),
    st.sampled_from([600.0, 3600.0, 21_600.0, 86_400.0]),
)
def test_own_pair_is_refused_exactly_when_it_cannot_fire(
    objective: float, tens: int, long_s: float
) -> None:
    pair = AlertForm(long=long_s, short=long_s / 12, factor=tens * 10.0, severity="page")
    document = Document(file="x")
    written = Written(
        slo=SloForm(name="a", indicator="success", objective=objective, alerts=(pair,)),
        document=document,
        at=(),
        title="x",
        is_sound=lambda key: True,
    )
    check_objective(written)
    # All events bad is a burn rate of 1 / B, and a pair fires above its factor.
    can_fire = tens * 10 < 1 / (1 - Fraction(repr(objective)))
    assert [each.rule for each in document.findings] == ["slo-undetectable"] * (not can_fire)


WINDOWS = st.sampled_from([20.0, 50.0, 65.0, 120.0, 300.0, 930.0, 3600.0, 7201.0, 86_400.0, 3e5])


@given(WINDOWS, WINDOWS)
def test_pair_that_is_accepted_can_be_counted(long_s: float, short_s: float) -> None:
    if long_s < 60:
        return
    pair = AlertForm(long=long_s, short=short_s, factor=2.0, severity="page")
    slo = SloForm(name="a", indicator="success", objective=0.9, window=86_400.0, alerts=(pair,))
    document = Document(file="x")
    check_objective(
        Written(slo=slo, document=document, at=(), title="x", is_sound=lambda key: True)
    )
    assert bool(document.findings) or uncountable(slo_of(slo, None).pairs, slo.window) is None
