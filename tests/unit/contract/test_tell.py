"""What `weir check` tells of an objective is what the closed forms of its alerts give."""

import json
import math
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gateway.batch import Severity
from gateway.contract.schema import BurnWindow, Contract, Indicator, Slo
from gateway.contract.tell import (
    COUNT_PROBABILITY_MAX,
    PAGE_S_MAX,
    Told,
    count_of,
    slos_json,
    slos_text,
    tell,
)
from gateway.measure.slo.burn import is_improbable
from tests.unit.contract.texts import HEAD, SIGNALS, loaded

DAY_S = 86_400.0
LABELS = "labels: {signal: class, within: 24h, expect: 0.01}\n"


def contract(folder: Path, *slos: str) -> Contract:
    text = "".join(f"  - {{{slo}}}\n" for slo in slos)
    return loaded(folder, HEAD + SIGNALS + LABELS + f"slos:\n{text}")


def told(folder: Path, slo: str) -> Told:
    (one,) = tell([contract(folder, slo)])
    return one


@pytest.mark.parametrize(
    ("objective", "minutes", "counts"),
    [
        (0.999, [0.864, 2.16, 4.32, 4.32], [69, 166, 333, 999]),
        (0.99, [8.64, 21.6, 43.2, 43.2], [6, 16, 33, 99]),
    ],
)
def test_standard_alerts_are_those_of_the_published_table(
    tmp_path: Path, objective: float, minutes: list[float], counts: list[int]
) -> None:
    alerts = told(tmp_path, f"name: a, indicator: success, objective: {objective}").alerts
    assert [each.total_s / 60 for each in alerts] == pytest.approx(minutes)
    assert [each.single_event_count for each in alerts] == counts
    assert [each.budget_ratio for each in alerts] == pytest.approx([0.02, 0.05, 0.1, 0.1])


def test_latency_finds_a_total_breach_in_five_minutes(tmp_path: Path) -> None:
    one = told(tmp_path, "name: a, indicator: latency, objective: 0.95, threshold: 100ms")
    assert [each.total_s / 60 for each in one.alerts] == pytest.approx([4.5, 12, 36, 216])
    assert [each.error_ratio for each in one.alerts] == pytest.approx([0.3, 0.2, 0.1, 0.05])
    assert one.notes == ()


PAIRS = st.builds(
    BurnWindow,
    long_s=st.sampled_from([900.0, 3600.0, 21_600.0, 86_400.0]),
    short_s=st.just(120.0),
    factor=st.floats(0.9, 19.0),
    severity=st.sampled_from(list(Severity)),
)


@given(PAIRS, st.sampled_from([0.95, 0.99, 0.999]), st.integers(1, 90))
def test_own_alerts_follow_the_closed_forms(pair: BurnWindow, objective: float, days: int) -> None:
    slo = Slo(
        name="a",
        indicator=Indicator.SUCCESS,
        objective=objective,
        window=days * DAY_S,
        pairs=(pair,),
    )
    (told_,) = tell([_bare(slo)])
    (alert,) = told_.alerts
    needed = pair.factor * (1 - objective)
    assert alert.error_ratio == pytest.approx(needed)
    assert alert.total_s == pytest.approx(needed * pair.long_s)
    if abs(needed - 0.1) > 1e-9:
        tenth = needed * pair.long_s / 0.1 if needed < 0.1 else math.inf
        assert alert.tenth_s == pytest.approx(tenth)
    assert alert.budget_ratio == pytest.approx(pair.factor * pair.long_s / (days * DAY_S))
    count = alert.single_event_count
    assert count == 0 or 1 / count > needed * (1 - 1e-12)
    assert 1 / (count + 1) <= needed * (1 + 1e-12)
    is_late = alert.total_s > PAGE_S_MAX
    pages = pair.severity is Severity.PAGE
    assert bool(told_.notes) == (is_late or not pages)


def _bare(slo: Slo) -> Contract:
    return Contract(
        model="m",
        match={},
        owner="o",
        purpose="p",
        expires=date(2030, 1, 1),
        signals={},
        slos=(slo,),
        digest="",
        source="x",
    )


def test_freshness_and_label_lag_are_late_by_their_threshold(tmp_path: Path) -> None:
    one = told(tmp_path, "name: a, indicator: freshness, objective: 0.999")
    assert one.delay_s == 300
    assert one.alerts[0].total_s == pytest.approx(300 + 51.84)
    assert one.notes == ("a silent device is bad after 5m, and counts once a minute",)
    one = told(tmp_path, "name: a, indicator: label_lag, objective: 0.999")
    assert one.alerts[0].total_s == pytest.approx(DAY_S + 51.84)
    assert one.notes == ("a label is bad 1d after its inference, not before",)


def test_late_page_is_noted(tmp_path: Path) -> None:
    pair = "long: 3h, short: 30m, factor: 6, severity: page"
    one = told(tmp_path, f"name: a, indicator: success, objective: 0.95, alerts: [{{{pair}}}]")
    (note,) = one.notes
    assert note.startswith("a total breach pages in 54.0 min, later than 15m")


def test_objective_without_pages_is_noted(tmp_path: Path) -> None:
    pair = "long: 1h, short: 5m, factor: 6, severity: ticket"
    keys = f"name: a, indicator: success, objective: 0.95, page: false, alerts: [{{{pair}}}]"
    assert told(tmp_path, keys).notes == ("a total breach never pages",)


@given(st.integers(1, 2000), st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999, 0.9999]))
def test_count_rule_is_the_exact_binomial(size: int, objective: float) -> None:
    bad = count_of(size, objective)
    chance = stats.binom(size, 1 - objective)
    assert bad >= 2
    if bad <= size:
        assert chance.sf(bad - 1) < COUNT_PROBABILITY_MAX * (1 + 1e-6)
    budget = np.array([1 - objective])
    sizes = np.array([size, size])
    fires = is_improbable(np.array([bad - 1, bad]), sizes, np.repeat(budget, 2))
    if bad <= size:  # as the engine judges it
        assert fires.tolist() == [False, True]
    if bad > 2:
        assert chance.sf(bad - 2) >= COUNT_PROBABILITY_MAX * (1 - 1e-6)


def test_count_rule_is_that_of_the_reference() -> None:
    # P(X >= 2 | 20) = 0.0169, P(X >= 3 | 20) = 0.0010, P(X >= 5 | 100) = 0.0034.
    assert (count_of(20, 0.99), count_of(100, 0.99)) == (3, 5)


def test_deployments_page_by_count(tmp_path: Path) -> None:
    one = told(tmp_path, "name: a, indicator: deployment, objective: 0.99")
    assert one.counts == ((10, 2), (100, 5), (1000, 19))
    assert {each.window.severity for each in one.alerts} == {Severity.TICKET}
    assert "    page   when 5 devices of 100 fail\n" in slos_text([one])


def test_every_indicator_has_its_text(tmp_path: Path) -> None:
    text = slos_text(
        tell(
            [
                contract(
                    tmp_path,
                    "name: a, indicator: success, objective: 0.999",
                    "name: b, indicator: latency, objective: 0.95, threshold: 100ms",
                    "name: g, indicator: integrity",
                    "name: h, indicator: bandwidth, allowance: 1GiB, window: 1d",
                )
            ]
        )
    )
    lines = text.splitlines()
    assert lines[:2] == [
        "damage-net a: success, 0.999 over 30d",
        "    page    1h at 14.4x: needs 1.44% bad, finds total failure in 52 s, one tenth in "
        "8.6 min, at 2.00% of the budget; one bad event of up to 69 fires it",
    ]
    assert lines[5:7] == [
        "damage-net b: latency within 100ms, 0.95 over 30d",
        "    page   15m at 6x: needs 30.00% bad, finds total failure in 4.5 min, one tenth "
        "never, at 0.21% of the budget; one bad event of up to 3 fires it",
    ]
    assert lines[10:] == [
        "damage-net g: integrity, zero tolerance",
        "    page   at the first event, until it is acknowledged",
        "damage-net h: bandwidth, 1GiB over 1d",
        "    projected from the bytes that leave: 12428 B/s last the whole window, twice as many "
        "12h",
    ]
    assert slos_text(()) == ""


def test_json_has_null_for_never(tmp_path: Path) -> None:
    keys = "name: b, indicator: latency, objective: 0.95, threshold: 100ms"
    (one,) = slos_json(tell([contract(tmp_path, keys)]))
    json.dumps(one, allow_nan=False)
    assert one["alerts"][0] == {
        "severity": "page",
        "long_s": 900.0,
        "short_s": 120.0,
        "factor": 6.0,
        "error_ratio_min": pytest.approx(0.3),
        "total_failure_s": pytest.approx(270),
        "tenth_failure_s": None,
        "budget_ratio": pytest.approx(0.0020833333),
        "single_event_count": 3,
    }
    (one,) = slos_json(tell([contract(tmp_path, "name: g, indicator: integrity")]))
    assert (one["alerts"], one["pages_at_first_event"]) == ([], True)
