"""The detector against oracle G of the reference, and what it finds and when."""

import numpy as np
import pytest

from gateway.measure.baseline import COARSE_BINS_MAX, Baseline, freeze
from gateway.measure.bets import BETS_MAX, bets_of, log_table
from gateway.measure.collect import alarms_by_itself
from gateway.measure.drift import (
    ADAPTIVE,
    HALF_LIVES_TICKS,
    Alarm,
    Bank,
    accumulate,
    accumulate_cusum,
    plug_in,
)
from gateway.measure.grid import Grid, GridKind, bins_of_numbers
from gateway.measure.state import Int64
from gateway.tables import Float64

SCORE = Grid(kind=GridKind.LOGIT)
CLASSES = Grid(kind=GridKind.CLASSES, values=("ok", "cracked", "wet", "torn"))
TICKS_G = np.array([[10, 10, 10, 10], [5, 10, 10, 15], [2, 8, 12, 18]], dtype=np.float64)
SHARES_G = np.full(4, 0.25)
LOG_A = float(np.log(259_200))
TICK_NS = 10_000_000_000


@pytest.mark.parametrize(
    ("delta", "phi", "expected"),
    [
        (0.0, 1.0, (-2.8768207245178092, 2.671025748973437, 8.64999648031517)),
        (0.05, 1.0, (-3.577750199708495, 1.942866568028266, 7.287927024894543)),
        (0.05, 2.0, (-1.7888750998542475, 1.1122188641233226, 4.002090664906901)),
    ],
)
def test_oracle_g_fixed_bet(delta: float, phi: float, expected: tuple[float, ...]) -> None:
    table = log_table(np.array([[0.5, 1.0, 1.0, 1.5]]), SHARES_G, delta)
    log_m = np.array([-np.inf])
    for tick, value in zip(TICKS_G, expected, strict=True):
        log_m = accumulate(table @ tick / phi, log_m)
        assert float(log_m[0]) == pytest.approx(value, rel=1e-12)


def test_oracle_g_cusum() -> None:
    table = log_table(np.array([[0.5, 1.0, 1.0, 1.5]]), SHARES_G, 0.0)
    log_m = np.array([-np.inf])
    for tick in TICKS_G:
        log_m = accumulate_cusum(table @ tick, log_m)
    assert float(log_m[0]) == pytest.approx(8.528318303649808, rel=1e-12)


def test_oracle_g_plug_in() -> None:
    ewma = np.zeros((1, ADAPTIVE, 4))
    log_m = np.full((1, ADAPTIVE), -np.inf)
    decay = np.exp2(-1 / np.array(HALF_LIVES_TICKS))
    values: list[Float64] = []
    for tick in TICKS_G:
        value = plug_in(tick[None], ewma, SHARES_G[None], np.array([0.05]), np.array([1.0]))
        log_m = accumulate(value, log_m)
        values.append(value)
        ewma = ewma * decay[:, None] + tick
    assert [float(value[0, 0]) for value in values[:2]] == [0.0, 0.0]
    assert float(values[2][0, 0]) == pytest.approx(0.03464550419958577, rel=1e-10)
    assert float(log_m[0, 0]) == pytest.approx(1.1332577928676952, rel=1e-12)


def counted(values: Float64) -> Int64:
    bins = bins_of_numbers(SCORE, values, np.zeros(len(values), dtype=np.bool_))
    return np.bincount(bins, minlength=SCORE.width)


def learned(seed: int = 1, size: int = 4_000) -> Baseline:
    rng = np.random.default_rng(seed)
    parts = [counted(part) for part in np.split(rng.beta(8, 2, size), 8)]
    return freeze(SCORE, np.sum(parts, axis=0), parts)


def armed(baseline: Baseline, tolerance: float = 0.0) -> Bank:
    bank = Bank()
    bank.reserve(1)
    bank.arm(0, baseline, tolerance, LOG_A)
    return bank


def run(bank: Bank, baseline: Baseline, ticks: list[Int64], first: int = 1) -> list[Alarm]:
    row = np.zeros(1, dtype=np.int64)
    alarms: list[Alarm] = []
    for number, tick in enumerate(ticks, first):
        end = np.array([number * TICK_NS])
        alarms += bank.step(row, baseline.coarse(tick)[None, :], end)
    return alarms


def scores(rng: np.random.Generator, a: float, b: float, ticks: int, size: int) -> list[Int64]:
    return [counted(rng.beta(a, b, size)) for _ in range(ticks)]


@pytest.mark.parametrize(
    ("a", "b", "events_max"),
    [(7.0, 3.0, 400), (5.0, 1.0, 1_500), (40.0, 1.0, 400), (2.0, 4.0, 200)],
    ids=["location", "spread", "overconfident", "collapse"],
)
def test_a_change_of_any_shape_is_found_soon(a: float, b: float, events_max: int) -> None:
    baseline = learned()
    bank = armed(baseline)
    rng = np.random.default_rng(7)
    assert run(bank, baseline, scores(rng, 8, 2, 60, 50)) == []
    alarms = run(bank, baseline, scores(rng, a, b, events_max // 50, 50), first=61)
    assert alarms
    assert alarms[0].end_ns <= (60 + events_max // 50) * TICK_NS


def test_the_onset_is_near_the_change() -> None:
    baseline = learned()
    bank = armed(baseline)
    rng = np.random.default_rng(8)
    run(bank, baseline, scores(rng, 8, 2, 100, 50))
    alarm = run(bank, baseline, scores(rng, 6, 3, 20, 50), first=101)[0]
    assert abs(alarm.onset_ns / TICK_NS - 100) <= 5


def test_a_change_inside_the_tolerance_is_never_found() -> None:
    baseline = learned(size=40_000)
    bank = armed(baseline, tolerance=0.3)
    rng = np.random.default_rng(9)
    assert run(bank, baseline, scores(rng, 7.8, 2.2, 400, 200)) == []


def test_missing_scores_are_found() -> None:
    baseline = learned()
    bank = armed(baseline, tolerance=0.1)
    rng = np.random.default_rng(10)
    ticks = scores(rng, 8, 2, 10, 95)
    for tick in ticks:
        tick[SCORE.missing] = 5
    alarms = run(bank, baseline, ticks)
    assert alarms
    assert "unusual" in alarms[0].bet or "recent" in alarms[0].bet


def test_a_shift_of_classes_and_an_unseen_class_are_found() -> None:
    rng = np.random.default_rng(3)
    truth = np.array([0.9, 0.06, 0.03, 0.01, 0.0, 0.0])
    parts = [rng.multinomial(500, truth) for _ in range(8)]
    baseline = freeze(CLASSES, np.sum(parts, axis=0), parts)
    for shares in ([0.75, 0.21, 0.03, 0.01, 0, 0], [0.85, 0.06, 0.03, 0.01, 0.05, 0]):
        bank = armed(baseline, tolerance=0.1)
        ticks = [rng.multinomial(50, truth) for _ in range(50)]
        assert run(bank, baseline, ticks) == []
        assert run(bank, baseline, [rng.multinomial(50, shares) for _ in range(30)], first=51)


def test_an_alarm_begins_the_evidence_anew() -> None:
    baseline = learned()
    bank = armed(baseline)
    alarms = run(bank, baseline, scores(np.random.default_rng(4), 2, 4, 1, 300))
    assert len(alarms) == 1
    assert alarms[0].log_evidence >= LOG_A
    assert np.isneginf(bank.log_m[0]).all()


def test_many_streams_step_like_each_one_alone() -> None:
    rng = np.random.default_rng(5)
    baselines = [learned(seed) for seed in range(20, 25)]
    together = Bank()
    together.reserve(5)
    alone = [armed(baseline, 0.1) for baseline in baselines]
    for row, baseline in enumerate(baselines):
        together.arm(row, baseline, 0.1, LOG_A)
    for number in range(1, 6):
        ticks = np.array([counted(rng.beta(8, 2, 40)) for _ in range(5)])
        coarse = np.array([each.coarse(tick) for each, tick in zip(baselines, ticks, strict=True)])
        ends = np.full(5, number * TICK_NS)
        together.step(np.arange(5), coarse, ends)
        for bank, row in zip(alone, coarse, strict=True):
            bank.step(np.zeros(1, dtype=np.int64), row[None], ends[:1])
    for row, bank in enumerate(alone):
        assert np.allclose(together.log_m[row], bank.log_m[0], rtol=1e-12)
        assert np.array_equal(together.ewma[row], bank.ewma[0])


def test_the_window_since_onset_holds_the_ticks_after_it() -> None:
    baseline = learned()
    bank = armed(baseline)
    ticks = scores(np.random.default_rng(6), 8, 2, 10, 30)
    run(bank, baseline, ticks)
    assert np.array_equal(bank.since(0, 7 * TICK_NS), baseline.coarse(np.array(ticks[7:])).sum(0))


def test_the_ewma_window_knows_its_effective_size() -> None:
    baseline = learned()
    bank = armed(baseline)
    run(bank, baseline, scores(np.random.default_rng(6), 8, 2, 400, 30))
    decay = 2 ** (-1 / 32)
    _, size = bank.window(np.zeros(1, dtype=np.int64))
    assert float(size[0]) * baseline.phi == pytest.approx(30 * (1 + decay) / (1 - decay), rel=0.01)


def test_weights_and_bets_fit_the_tables() -> None:
    bets, names = bets_of(learned())
    assert len(bets) == len(names) <= BETS_MAX
    assert bets.shape[1] <= COARSE_BINS_MAX
    assert (bets > 0).all()
    assert len(set(names)) == len(names)


def test_a_reference_that_changed_half_way_alarms_by_itself() -> None:
    rng = np.random.default_rng(2)
    steady = scores(rng, 8, 2, 8, 500)
    changed = scores(rng, 8, 2, 4, 500) + scores(rng, 5, 3, 4, 500)
    assert not alarms_by_itself(SCORE, steady, 0.1, LOG_A)
    assert alarms_by_itself(SCORE, changed, 0.1, LOG_A)


def test_the_state_comes_back_exactly() -> None:
    baseline = learned()
    bank = armed(baseline)
    ticks = scores(np.random.default_rng(6), 7.9, 2.1, 40, 30)
    run(bank, baseline, ticks[:20])
    other = armed(baseline)
    rows = np.zeros(1, dtype=np.int64)
    other.restore(rows, bank.state(rows))
    assert run(bank, baseline, ticks[20:], 21) == run(other, baseline, ticks[20:], 21)
    for name, array in bank.state(rows).items():
        assert np.array_equal(array, other.state(rows)[name]), name
