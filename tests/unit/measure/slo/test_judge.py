"""What is told of an SLO, by indicator and by rule."""

from dataclasses import replace

import numpy as np
import pytest

from gateway.batch import Severity
from gateway.contract.schema import BurnWindow, Indicator, Slo
from gateway.measure.settings import MeasureSettings
from gateway.measure.slo.burn import Formula, Rule
from gateway.measure.slo.judge import Burn
from gateway.measure.slo.merge import merge
from gateway.measure.slo.objectives import Objectives
from tests.unit.measure.build import DAY_S, SECOND_NS, START_NS, contract, latency, plan, success

HOUR_S = 3600


def slo(indicator: Indicator, objective: float = 0.99, days: int = 30) -> Slo:
    return Slo(name=indicator.value, indicator=indicator, objective=objective, window=days * DAY_S)


def objectives(*slos: Slo) -> Objectives:
    board = Objectives(plan(contract(slos=slos)), MeasureSettings())
    turned(board, START_NS)
    return board


def turned(board: Objectives, now_ns: int) -> list[Burn]:
    return [burn for _, burns in board.turn(now_ns) for burn in burns]


def count(board: Objectives, at_ns: int, good: int, bad: int, objective: int = 0) -> None:
    """Count events of a single SLO at one instant."""
    flags = np.arange(good + bad) < bad
    board.count(objective, np.full(good + bad, at_ns), flags)


def infer(
    board: Objectives,
    at_ns: int,
    good: int,
    bad: int,
    *,
    arrival_ns: int | None = None,
) -> None:
    """Count inferences, of which some failed, at one instant."""
    size = good + bad
    arrivals = np.full(size, at_ns if arrival_ns is None else arrival_ns)
    zeros = np.zeros(size, dtype=np.int64)
    board.add(zeros, np.full(size, at_ns), arrivals, np.arange(size) < bad, zeros + 1_000_000)


def test_each_indicator_has_its_own_bad_inferences() -> None:
    board = objectives(success(), latency(), slo(Indicator.COLD_START), slo(Indicator.FRESHNESS))
    failed, cold, invalid = (np.array(each) == 1 for each in ([1, 0, 0, 0], [0, 0, 1, 0], [0] * 4))
    invalid[3] = True
    duration_ns = np.array([1, 200_000_000, 1, 0])
    expected = [
        [True, False, False, False],
        [False, True, False, True],
        [False, False, True, False],
        [False] * 4,
    ]
    columns = (failed, duration_ns, cold, invalid)
    assert [board.bad(at, *columns).tolist() for at in range(4)] == expected
    times = np.full(4, START_NS)
    any_bad = board.add(np.zeros(4, dtype=np.int64), times, times, *columns)
    assert any_bad is not None
    assert any_bad.tolist() == [True] * 4
    assert board.totals()[2_592_000].tolist() == [[3, 1], [2, 2], [3, 1], [0, 0]]
    assert board.invalid == 1


@pytest.mark.parametrize("age_s", [0, 60, 7_200], ids=["prompt", "staged", "far"])
def test_bad_is_what_add_counts_whatever_the_age(age_s: int) -> None:
    rng = np.random.default_rng(age_s)
    models = ("one", "two", "three")
    slos = ((success(), latency(), latency(0.05)), (slo(Indicator.COLD_START),), ())
    board = Objectives(
        plan(*(contract(model, slos=each) for model, each in zip(models, slos, strict=True))),
        MeasureSettings(),
    )
    turned(board, START_NS)
    size = 1000
    of_contract = rng.integers(0, 3, size)
    failed, cold, invalid = (rng.random(size) < 0.1 for _ in range(3))
    duration_ns = rng.integers(0, 200_000_000, size)
    event_ns = START_NS - age_s * SECOND_NS - rng.integers(0, 10 * SECOND_NS, size)
    arrivals = np.full(size, START_NS)
    any_bad = board.add(of_contract, event_ns, arrivals, failed, duration_ns, cold, invalid)
    expected = np.zeros(size, dtype=np.bool_)
    for at, item in enumerate(board.items):
        mine = of_contract == item.contract
        bad = board.bad(at, failed, duration_ns, cold, invalid) & mine
        expected |= bad
        assert board.totals()[259_200][at].tolist() == [int(mine.sum() - bad.sum()), bad.sum()]
    assert any_bad is not None
    assert np.array_equal(any_bad, expected)


def test_an_slo_is_found_by_contract_and_indicator() -> None:
    board = Objectives(
        plan(contract(), contract("other", slos=(success(), success(0.99), latency()))),
        MeasureSettings(),
    )
    assert board.of(0, Indicator.LATENCY) == (1,)
    assert board.of(1, Indicator.SUCCESS) == (2, 3)
    assert board.of(1, Indicator.INTEGRITY) == ()


@pytest.mark.parametrize("indicator", [Indicator.INTEGRITY, Indicator.BANDWIDTH])
def test_what_has_no_budget_is_counted_and_never_burns(indicator: Indicator) -> None:
    board = objectives(slo(indicator, 1.0))
    with np.errstate(all="raise"):
        count(board, START_NS, 0, 50)
        count(board, START_NS - HOUR_S * SECOND_NS, 0, 50)
        assert turned(board, START_NS + 600 * SECOND_NS) == []
        outlook = board.outlook(0, HOUR_S)
    assert board.totals()[2_592_000].tolist() == [[0, 100]]
    assert board.counts(0, HOUR_S)[1] == 50
    assert (outlook.remaining_ratio, outlook.exhaustion_s) == (None, None)
    assert board.items[0].pairs == ()


@pytest.mark.parametrize(
    ("good", "bad", "rule"),
    [
        (18, 2, Rule.UNSUPPORTED),  # P(X >= 2 | 20) is 0.017
        (17, 3, Rule.COUNT),  # 0.001
        (47, 3, Rule.TICKET),  # 0.014
        (297, 3, Rule.NONE),
        (0, 1, Rule.UNSUPPORTED),
        (0, 2, Rule.COUNT),
        (95, 5, Rule.COUNT),  # 0.003, and no pair that fires
        (0, 0, Rule.NONE),
    ],
)
def test_rare_events_page_by_their_exact_probability(good: int, bad: int, rule: Rule) -> None:
    board = objectives(slo(Indicator.DEPLOYMENT))
    count(board, START_NS, good, bad)
    burns = turned(board, START_NS + 60 * SECOND_NS)
    assert (burns[-1].rule if burns else Rule.NONE) is rule
    assert bool(burns and burns[-1].pages) == (rule is Rule.COUNT)


def test_late_events_that_spend_a_tenth_of_the_budget_at_once_are_a_ticket() -> None:
    board = objectives(success())
    day_ns = DAY_S * SECOND_NS
    for day in range(9, 1, -1):
        infer(board, START_NS - day * day_ns, 10_000, 0, arrival_ns=START_NS)
    assert turned(board, START_NS + 20 * SECOND_NS) == []
    # The whole budget is 80; with these it is 80.008 to 80.014.
    infer(board, START_NS - 5 * day_ns, 0, 7, arrival_ns=START_NS + 20 * SECOND_NS)
    assert turned(board, START_NS + 40 * SECOND_NS) == []
    assert board.late_counts(0) == (80_000, 7)
    infer(board, START_NS - 4 * day_ns, 0, 2, arrival_ns=START_NS + 40 * SECOND_NS)
    burns = turned(board, START_NS + 60 * SECOND_NS)
    assert {burn.rule for burn in burns} == {Rule.BACKFILL}
    assert not burns[-1].pages
    assert burns[-1].pair is board.items[0].pairs[-1]
    # They are over when they came more than an hour ago.
    later = turned(board, START_NS + (HOUR_S + 180) * SECOND_NS)
    assert later[-1].at_ns < START_NS + (HOUR_S + 120) * SECOND_NS
    assert board.late_counts(0) == (0, 0)


def test_late_events_beyond_the_period_spend_nothing_of_it() -> None:
    board = objectives(success(window=DAY_S), success(0.99))
    infer(board, START_NS - 2 * DAY_S * SECOND_NS, 0, 50, arrival_ns=START_NS)
    turned(board, START_NS + 20 * SECOND_NS)
    assert board.late_counts(0) == (0, 0)
    assert board.late_counts(1) == (0, 50)


def test_an_outage_is_told_early_then_as_a_page() -> None:
    board = objectives(success())
    at_ns = START_NS
    for _ in range(180):
        at_ns += 60 * SECOND_NS
        assert turned(board, at_ns) == []
        infer(board, at_ns, 300, 0)
    told: list[Burn] = []
    for _ in range(30):
        at_ns += 60 * SECOND_NS
        told += turned(board, at_ns)
        infer(board, at_ns, 290, 10)
    rules = [burn.rule for burn in told]
    assert rules.index(Rule.EARLY) < rules.index(Rule.PAGE)
    # Between them the pairs of tickets fire, and after them nothing quieter is told.
    assert set(rules) == {Rule.EARLY, Rule.TICKET, Rule.PAGE}
    assert set(rules[rules.index(Rule.PAGE) :]) == {Rule.PAGE}
    assert told[-1].pair.severity is Severity.PAGE


@pytest.mark.parametrize(("after_s", "formula"), [(0, Formula.FILLING), (DAY_S, Formula.ROLLING)])
def test_the_outlook_says_how_it_was_worked_out(after_s: int, formula: Formula) -> None:
    board = objectives(replace(success(), window=float(DAY_S)))
    infer(board, START_NS - 60 * SECOND_NS, 9_990, 0)
    turned(board, START_NS + after_s * SECOND_NS)
    at_ns = START_NS + after_s * SECOND_NS
    infer(board, at_ns, 9_985, 5)
    turned(board, at_ns + 50 * SECOND_NS)
    outlook = board.outlook(0, 600)
    total = 9_990 * (2 if after_s == 0 else 1)
    assert outlook.formula is formula
    assert outlook.remaining_ratio == pytest.approx(1 - 5 / (0.001 * total), rel=1e-12)
    events_s = (total if after_s == 0 else 9_990) / 600
    spent_s = 5 / 600 - (0.001 * events_s if formula is Formula.FILLING else 0)
    left = 0.001 * total - 5
    if spent_s > 0:
        assert outlook.exhaustion_s == pytest.approx(left / spent_s, rel=1e-9)
    else:
        assert outlook.exhaustion_s is None


def test_the_diurnal_budget_is_that_of_its_events() -> None:
    board = Objectives(plan(contract(slos=(success(),))), MeasureSettings())
    for minute in range(2 * 1440):
        at_ns = START_NS + minute * 60 * SECOND_NS
        list(board.turn(at_ns))
        is_night = minute % 1440 >= 960
        # Ten per cent of one a minute.
        bad = int(is_night and minute % 10 == 0)
        infer(board, at_ns, 1 - bad if is_night else 1000, bad)
    list(board.turn(START_NS + 2 * DAY_S * SECOND_NS + 60 * SECOND_NS))
    assert board.counts(0, 30 * DAY_S) == (1_920_864, 96)
    remaining = board.outlook(0, HOUR_S).remaining_ratio
    assert remaining == pytest.approx(0.9500249875062469, rel=1e-12)


def test_a_counter_that_is_born_large_burns_by_what_was_counted() -> None:
    board = objectives(success())
    infer(board, START_NS - 50 * SECOND_NS, 86_400, 500)
    turned(board, START_NS + 20 * SECOND_NS)
    good, bad = board.counts(0, HOUR_S)
    assert bad / (good + bad) / board.items[0].budget == pytest.approx(5.753739930955121, rel=1e-12)


def test_own_pairs_are_judged_in_their_own_windows() -> None:
    pair = BurnWindow(long_s=1800, short_s=50, factor=2, severity=Severity.PAGE)
    board = objectives(replace(success(), pairs=(pair,)))
    infer(board, START_NS, 990, 10)
    burns = turned(board, START_NS + 50 * SECOND_NS)
    assert burns[0].pair is pair
    assert burns[0].rule is Rule.PAGE
    assert board.items[0].windows_s == (50, 1800, 30 * DAY_S)


def test_a_site_that_waits_is_merged_into_one_that_went_on() -> None:
    one, two = objectives(success()), objectives(success())
    infer(one, START_NS + 60 * SECOND_NS, 3, 4, arrival_ns=START_NS)
    turned(two, START_NS + 3_000 * SECOND_NS)
    merged = objectives(success())
    merged.restore(merge(one.state(), two.state()))
    assert merged.counts(0, HOUR_S) == (3, 4)
    assert merged.counts(0, 300) == (0, 0)
    turned(one, START_NS + 3_000 * SECOND_NS)
    for key, array in merged.state().items():
        assert np.array_equal(array, one.state()[key]), key
