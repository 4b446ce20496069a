"""The detector against oracle G of the reference, and what it finds and when."""

import numpy as np
import pytest

from gateway.contract.schema import Accumulator
from gateway.measure.drift.baseline import COARSE_BINS_MAX, PLACES, Baseline, freeze
from gateway.measure.drift.bets import BETS, class_bets, fees, name_of, ordered_bets
from gateway.measure.drift.collect import alarms_by_itself
from gateway.measure.drift.detector import (
    COMPONENTS,
    HALF_LIVES,
    HALF_LIVES_TICKS,
    Alarm,
    Bank,
    accumulate,
    accumulate_cusum,
    mixture,
    rounded_down,
)
from gateway.measure.drift.grid import Grid, GridKind, bins_of_numbers
from gateway.measure.drift.learned import adaptive_values, expected_change, plug_in, smooth_plug_in
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
    bet = np.array([[0.5, 1.0, 1.0, 1.5]])
    fee = fees(bet, SHARES_G[None], np.array([delta]))[0]
    log_m = np.array([-np.inf])
    for tick, value in zip(TICKS_G, expected, strict=True):
        log_m = accumulate((np.log(bet) @ tick - tick.sum() * fee) / phi, log_m)
        assert float(log_m[0]) == pytest.approx(value, rel=1e-12)


def test_oracle_g_cusum() -> None:
    log_bet = np.log(np.array([[0.5, 1.0, 1.0, 1.5]]))
    log_m = np.array([-np.inf])
    for tick in TICKS_G:
        log_m = accumulate_cusum(log_bet @ tick, log_m)
    assert float(log_m[0]) == pytest.approx(8.528318303649808, rel=1e-12)


def test_oracle_g_plug_in() -> None:
    ewma = np.zeros((1, HALF_LIVES, 4))
    log_m = np.full((1, HALF_LIVES), -np.inf)
    decay = np.exp2(-1 / np.array(HALF_LIVES_TICKS))
    shares, delta, phi = SHARES_G[None], np.array([0.05]), np.array([1.0])
    values: list[Float64] = []
    for tick in TICKS_G:
        bets = plug_in(expected_change(ewma, shares), shares)
        value, _ = adaptive_values(tick[None], bets, shares, delta, phi)
        log_m = accumulate(value, log_m)
        values.append(value)
        chi = np.sqrt((bets[0, 0] ** 2) @ SHARES_G)
        ewma = ewma * decay[:, None] + tick
    assert [float(value[0, 0]) for value in values[:2]] == [0.0, 0.0]
    assert float(chi) == pytest.approx(0.05168231897283614, rel=1e-12)
    assert 1 - 0.05 / float(chi) == pytest.approx(0.03255115107587092, rel=1e-12)
    assert float(values[2][0, 0]) == pytest.approx(0.03464550419958577, rel=1e-12)
    assert float(log_m[0, 0]) == pytest.approx(1.1332577928676952, rel=1e-12)


def ball(rng: np.random.Generator, shares: Float64, radius: float, count: int) -> Float64:
    """Draw laws whose chi-squared distance from the shares is the radius, or all that fits."""
    ways = rng.normal(size=(count, len(shares)))
    ways -= ways @ shares[:, None] * np.ones(len(shares))
    ways /= np.sqrt(ways**2 @ shares)[:, None]
    fits = np.minimum(radius, 0.999 / np.maximum(-ways.min(axis=1), 1e-9))
    laws: Float64 = shares * (1 + fits[:, None] * ways)
    return laws


def test_no_bet_gains_under_any_law_of_the_ball(seed: int) -> None:
    # Step 1 of the proof, on the numbers that are used: the mean factor of one event.
    rng = np.random.default_rng(seed)
    for baseline in (learned(), learned_classes()):
        shares = np.zeros(PLACES)
        shares[baseline.places] = baseline.shares
        delta = np.array([0.2])
        bets = (ordered_bets() if baseline.is_ordered else class_bets()).factors
        paid = fees(bets, shares[None], delta)[0]
        useful = np.isfinite(paid)
        factors = bets[useful] * np.exp(-paid[useful])[:, None]
        laws = np.zeros((500, PLACES))
        laws[:, baseline.places] = ball(rng, baseline.shares, 0.2, 500)
        assert (factors @ laws.T).max() <= 1 + 1e-12
        worst = shares * (1 + 0.05 * (factors - factors @ shares[:, None]))
        assert useful.sum() >= 30
        assert (worst >= 0).all()


def test_no_adaptive_bet_gains_under_any_law_of_the_ball(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = np.zeros(PLACES)
    shares[learned().places] = learned().shares
    past = rng.multinomial(300, rng.dirichlet(shares + 1e-3), size=(1, HALF_LIVES))
    change = expected_change(past * (shares > 0).astype(float), shares[None])
    used = np.flatnonzero(shares)
    delta, phi = np.array([0.1]), np.array([1.0])
    for bets in (plug_in(change, shares[None]), smooth_plug_in(change, shares[None])):
        each = [
            adaptive_values(np.eye(PLACES)[place][None], bets, shares[None], delta, phi)[0][0]
            for place in used.tolist()
        ]
        laws = ball(rng, shares[used], 0.1, 500)
        assert (laws @ np.exp(np.array(each))).max() <= 1 + 1e-12
        assert np.abs(bets @ shares).max() < 1e-12


def test_peace_is_no_evidence() -> None:
    # Bets that learned nothing have the value 1; if they were accumulated they would alarm for
    # certain after 2 A ticks without any change.
    baseline = learned(size=40_000)
    bank = Bank()
    bank.reserve(1)
    bank.arm(0, baseline, 0.1, float(np.log(100)))
    bank.clear(0, 0)
    steady = np.round(baseline.shares * 400).astype(np.int64)
    tick = np.zeros(COARSE_BINS_MAX, dtype=np.int64)
    tick[: baseline.bins] = steady
    row = np.zeros(1, dtype=np.int64)
    for number in range(1, 1_001):
        assert bank.step(row, tick[None], np.array([number])) == []
    assert bank.log_m[0, BETS:].max() < 0


def test_what_is_stored_is_rounded_down() -> None:
    values = np.array([-np.inf, -3.3, 0.0, 1e-9, 12.466355, 1 / 3])
    stored = rounded_down(values)
    assert (stored <= values).all()
    assert np.allclose(stored, values, rtol=3e-7)


def test_cusum_is_never_above(seed: int) -> None:
    baseline = learned()
    banks = []
    for accumulator in Accumulator:
        bank = Bank()
        bank.reserve(1)
        bank.arm(0, baseline, 0.0, np.inf, accumulator)
        banks.append(bank)
    rng = np.random.default_rng(seed)
    for number, tick in enumerate(scores(rng, 7.9, 2.1, 60, 40), 1):
        for bank in banks:
            run(bank, baseline, [tick], number)
        assert (banks[1].log_m <= banks[0].log_m + 1e-4).all()
    assert banks[1].evidence[0] < banks[0].evidence[0]


def counted(values: Float64) -> Int64:
    bins = bins_of_numbers(SCORE, values, np.zeros(len(values), dtype=np.bool_))
    return np.bincount(bins, minlength=SCORE.width)


def learned(seed: int = 1, size: int = 4_000) -> Baseline:
    rng = np.random.default_rng(seed)
    parts = [counted(part) for part in np.split(rng.beta(8, 2, size), 8)]
    return freeze(SCORE, np.sum(parts, axis=0), parts)


def learned_classes() -> Baseline:
    rng = np.random.default_rng(3)
    parts = [rng.multinomial(500, [0.9, 0.06, 0.03, 0.01, 0.0, 0.0]) for _ in range(8)]
    return freeze(CLASSES, np.sum(parts, axis=0), parts)


def armed(baseline: Baseline, tolerance: float = 0.0) -> Bank:
    bank = Bank()
    bank.reserve(1)
    bank.arm(0, baseline, tolerance, LOG_A)
    bank.clear(0, 0)
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
    baseline = learned_classes()
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


def test_a_stream_steps_to_the_same_bits_in_any_company() -> None:
    streams = 7
    rng = np.random.default_rng(5)
    baselines = [learned(seed) for seed in range(20, 20 + streams)]
    banks = [Bank(), Bank(), Bank()]
    for bank in banks:
        bank.reserve(streams)
        for row, baseline in enumerate(baselines):
            bank.arm(row, baseline, 0.02, LOG_A)
    for number in range(1, 60):
        ticks = np.array([counted(rng.beta(7.8, 2, 40)) for _ in range(streams)])
        coarse = np.array([each.coarse(tick) for each, tick in zip(baselines, ticks, strict=True)])
        ends = np.full(streams, number * TICK_NS)
        for bank, step in zip(banks, (streams, 1, 3), strict=True):
            for first in range(0, streams, step):
                some = slice(first, first + step)
                bank.step(np.arange(streams)[some], coarse[some], ends[some])
    rows = np.arange(streams)
    states = [bank.state(rows) for bank in banks]
    assert states[0]["evidence"].max() > 1
    for other in states[1:]:
        for name, array in states[0].items():
            assert array.tobytes() == other[name].tobytes(), name


def test_the_ewma_window_knows_its_effective_size() -> None:
    baseline = learned()
    bank = armed(baseline)
    run(bank, baseline, scores(np.random.default_rng(6), 8, 2, 400, 30))
    decay = 2 ** (-1 / 32)
    _, size = bank.window(np.zeros(1, dtype=np.int64))
    assert float(size[0]) * baseline.phi == pytest.approx(30 * (1 + decay) / (1 - decay), rel=0.01)


def test_bets_fit_the_table_and_have_names() -> None:
    for bets in (ordered_bets(), class_bets()):
        assert bets.log_factors.shape == (BETS, PLACES)
        assert np.isfinite(bets.log_factors).all()
        assert len(set(bets.names)) == len(bets.names) == len(bets.weights) == BETS
        assert bets.weights.sum() == pytest.approx(1)
        assert (bets.weights > 0).all()
    assert "more ok 0.3" in [name_of(learned_classes(), bet) for bet in range(BETS)]
    assert name_of(learned(), BETS - 1) == "unusual values x512"


def test_weights_add_up_to_one_whatever_bets_are_of_use() -> None:
    steady = counted(np.full(4_000, 0.5))
    for baseline in (learned(), learned_classes(), freeze(SCORE, steady, [steady])):
        bank = armed(baseline)
        run(bank, baseline, [baseline.counts], 1)
        bank.log_m[0] = np.where(np.isfinite(bank.log_m[0]), 0.0, -np.inf)
        log_m = bank.log_m[0].astype(np.float64)
        weights = (ordered_bets() if baseline.is_ordered else class_bets()).weights
        found, _ = mixture(log_m[None], bank._log_weight[:1], weights)
        assert found[0] == pytest.approx(0, abs=1e-12)


def test_a_stream_costs_little_memory() -> None:
    bank = armed(learned())
    state = bank.state(np.zeros(1, dtype=np.int64))
    assert len(state["log_m"][0]) == COMPONENTS
    assert sum(array.nbytes for array in state.values()) <= 1_536
    # And 10,000 streams with what is computed from their baselines in 20 MB.
    held = [each for each in vars(bank).values() if isinstance(each, np.ndarray)]
    assert sum(array.nbytes // len(array) for array in held) <= 2_000


def test_a_reference_of_the_hour_is_judged_against() -> None:
    baseline = learned(size=40_000)
    rng = np.random.default_rng(12)
    night = baseline.coarse(counted(rng.beta(7, 3, 100_000)))[: baseline.bins] / 100_000
    moved = night + 1e-6
    row = np.zeros(1, dtype=np.int64)
    for is_told in (True, False):
        bank = armed(baseline, 0.1)
        if is_told:
            bank.refer(row, (moved / moved.sum())[None], np.array([baseline.delta(0.1)]))
        ticks = scores(rng, 7, 3, 40, 50)
        assert bool(run(bank, baseline, ticks)) is not is_told


def test_what_is_recent_is_carried_to_other_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    baseline, bank, row = learned(size=40_000), Bank(), np.zeros(1, dtype=np.int64)
    bank.reserve(1)
    bank.arm(0, baseline, 0.1, LOG_A)
    seen = np.zeros((1, COARSE_BINS_MAX), dtype=np.int64)
    seen[0, : baseline.bins] = rng.multinomial(100_000, baseline.shares)
    bank.step(row, seen, row)
    log_m, before = bank.log_m.copy(), bank.window(row)[0][0, : baseline.bins]
    moved = baseline.shares * np.linspace(0.2, 3, baseline.bins)
    moved /= moved.sum()
    bank.refer(row, moved[None], np.array([0.1]))
    bank.carry(row, baseline.shares[None])
    after = bank.window(row)[0][0, : baseline.bins]
    ratio = (after / after.sum() / moved) / (before / before.sum() / baseline.shares)
    # The same times as often as expected, up to one factor for all.
    assert ratio == pytest.approx(np.full(baseline.bins, ratio[0]), rel=1e-5)
    assert after.sum() == pytest.approx(100_000, rel=1e-5)
    assert np.array_equal(bank.log_m, log_m)


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
