"""Superseded baselines in the shadow: each judges as a detector of its own would, for its time."""

import dataclasses
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract.schema import DriftRule
from gateway.errors import CorruptDataError
from gateway.measure.drift.baseline import Baseline, freeze
from gateway.measure.drift.detector import Bank
from gateway.measure.drift.grid import Grid, GridKind, bins_of_numbers
from gateway.measure.drift.shadow import SHADOW_NS, Shadows, saved
from gateway.measure.settings import SECOND_NS
from gateway.measure.state import Int64, pack_json

SCORE: Final = Grid(kind=GridKind.LOGIT)
CLASSES: Final = Grid(kind=GridKind.CLASSES, values=tuple(f"class {n}" for n in range(40)))
RULE: Final = DriftRule()
LOG_A: Final = float(np.log(259_200))
TICK_NS: Final = 10 * SECOND_NS


def scores(rng: np.random.Generator, size: int, a: float = 8, b: float = 2) -> Int64:
    """Fine counts of scores."""
    bins = bins_of_numbers(SCORE, rng.beta(a, b, size), np.zeros(size, dtype=np.bool_))
    return np.bincount(bins, minlength=SCORE.width).astype(np.int64)


def scored(seed: int, a: float = 8, b: float = 2) -> Baseline:
    rng = np.random.default_rng(seed)
    blocks = [scores(rng, 500, a, b) for _ in range(8)]
    return freeze(SCORE, np.sum(blocks, axis=0), blocks)


def begin(shadows: Shadows, number: int, baseline: Baseline, until_ns: int = SHADOW_NS) -> None:
    shadows.begin(number, baseline, RULE, log_bound=LOG_A, until_ns=until_ns, now_ns=0)


def step(shadows: Shadows, number: int, counts: Int64, end_ns: int) -> None:
    shadows.step(np.array([number]), counts[None, :], np.array([end_ns]), hour=0)


def evidence(shadows: Shadows, number: int) -> float:
    shadow = shadows.maybe_of(number)
    assert shadow is not None
    return float(shadows.bank.evidence[shadow.slot])


@settings(max_examples=25)
@given(st.integers(0, 1 << 30))
def test_every_shadow_is_a_detector_of_its_own(seed: int) -> None:
    """Whatever else begins and ends, a shadow has the evidence of a lone detector."""
    rng = np.random.default_rng(seed)
    shadows, alone, alarms = Shadows(), dict[int, tuple[Baseline, Bank]](), dict[int, int]()
    for tick in range(1, 25):
        number = int(rng.integers(0, 6))
        if rng.random() < 0.3:
            baseline = scored(int(rng.integers(0, 4)), *rng.choice([2.0, 8.0], 2))
            begin(shadows, number, baseline)
            bank = Bank()
            bank.reserve(1)
            bank.arm(0, baseline, RULE.tolerance, LOG_A, RULE.accumulator)
            bank.clear(0, 0)
            alone[number], alarms[number] = (baseline, bank), 0
        elif rng.random() < 0.1:
            shadows.end(number)
            alone.pop(number, None)
        numbers = np.flatnonzero(rng.random(6) < 0.7)
        counts = np.array([scores(rng, 60) for _ in numbers]).reshape(len(numbers), SCORE.width)
        end_ns = np.full(len(numbers), tick * TICK_NS)
        shadows.step(numbers, counts, end_ns, hour=0)
        for place, each in enumerate(numbers.tolist()):
            if each in alone:
                baseline, bank = alone[each]
                coarse = baseline.coarse(counts[place])[None, :]
                row, end = np.zeros(1, dtype=np.int64), end_ns[:1]
                alarms[each] += len(bank.step(row, coarse, end))
    assert len(shadows) == len(alone)
    for number, (_, bank) in alone.items():
        assert evidence(shadows, number) == bank.evidence[0]
        shadow = shadows.maybe_of(number)
        assert shadow is not None
        assert shadow.alarms == alarms[number]


def test_a_shadow_counts_its_alarms_and_tells_of_the_first() -> None:
    rng = np.random.default_rng(3)
    shadows, baseline = Shadows(), scored(1)
    begin(shadows, 5, baseline)
    for tick in range(1, 41):
        step(shadows, 5, scores(rng, 800, 4, 3), tick * TICK_NS)
    shadow = shadows.maybe_of(5)
    assert shadow is not None
    assert shadow.alarms >= 5
    assert shadow.last_alarm_ns is not None
    assert shadow.last_alarm_ns % TICK_NS == 0
    assert shadows.take_told() == [(5, baseline.digest)]
    assert shadows.take_told() == []


def test_a_shadow_of_the_same_law_stays_silent() -> None:
    rng = np.random.default_rng(4)
    shadows = Shadows()
    begin(shadows, 0, scored(1))
    for tick in range(1, 401):
        step(shadows, 0, scores(rng, 800), tick * TICK_NS)
    shadow = shadows.maybe_of(0)
    assert shadow is not None
    assert (shadow.alarms, shadow.last_alarm_ns) == (0, None)
    assert shadows.take_told() == []


def test_a_shadow_judges_classes_in_its_own_bins() -> None:
    rng = np.random.default_rng(5)
    often = np.r_[np.full(20, 40), np.zeros(22, dtype=np.int64)]
    blocks = [rng.multinomial(400, often / often.sum()) for _ in range(8)]
    shadows = Shadows()
    begin(shadows, 0, freeze(CLASSES, np.sum(blocks, axis=0), blocks))
    # Classes that the superseded baseline never saw are unusual to it, whoever is in force.
    for tick in range(1, 6):
        step(shadows, 0, np.roll(often, 20), tick * TICK_NS)
    shadow = shadows.maybe_of(0)
    assert shadow is not None
    assert shadow.alarms > 0


def test_a_tick_that_ends_after_the_time_is_not_judged() -> None:
    rng = np.random.default_rng(6)
    shadows = Shadows()
    begin(shadows, 0, scored(1), until_ns=10 * TICK_NS)
    step(shadows, 0, scores(rng, 30), 10 * TICK_NS)
    judged = evidence(shadows, 0)
    assert judged != 0
    step(shadows, 0, scores(rng, 30), 11 * TICK_NS)
    assert evidence(shadows, 0) == judged


def test_memory_is_given_back_when_the_time_is_over() -> None:
    shadows = Shadows()
    for number in range(6):
        begin(shadows, number, scored(number), until_ns=(number + 1) * TICK_NS)
    assert shadows.bank.state(np.arange(6))["ticks"].shape == (6,)
    shadows.expire(3 * TICK_NS)
    assert [number for number, _ in shadows.baselines()] == [3, 4, 5]
    # Rows that are free are used again before there are more.
    begin(shadows, 9, scored(9))
    shadow = shadows.maybe_of(9)
    assert shadow is not None
    assert shadow.slot == 0
    shadows.expire(SHADOW_NS)
    assert len(shadows) == 0
    assert len(shadows.bank.ticks) == 0


def filled(keys: dict[int, list[str]]) -> Shadows:
    rng = np.random.default_rng(7)
    shadows = Shadows()
    for number in (2, 0):
        begin(shadows, number, scored(number), until_ns=(number + 7) * TICK_NS)
        for tick in range(1, 6):
            step(shadows, number, scores(rng, 900, 5, 3), tick * TICK_NS)
    assert len(keys) == 3
    return shadows


KEYS: Final = {number: ["m", "1", name, SCORE.name] for number, name in enumerate("abc")}


def test_a_state_gives_the_same_shadows() -> None:
    shadows, again = filled(KEYS), Shadows()
    state = shadows.state(KEYS)
    for each in saved(state):
        number = list(KEYS.values()).index(each.key)
        begin(again, number, each.baseline(SCORE, {}), each.until_ns)
        again.resume(number, each)
    other = again.state(KEYS)
    assert state.keys() == other.keys()
    assert all(np.array_equal(state[name], other[name]) for name in state)
    assert list(saved(Shadows().state(KEYS))) == []
    assert list(saved({})) == []


def test_a_damaged_state_is_refused() -> None:
    state = filled(KEYS).state(KEYS)
    with pytest.raises(CorruptDataError, match="do not fit their list"):
        list(saved({**state, "counts": state["counts"][:-1]}))
    damaged = state["counts"].copy()
    damaged[40] += 1
    first = next(saved({**state, "counts": damaged}))
    with pytest.raises(CorruptDataError, match="does not match its counts"):
        first.baseline(SCORE, {})
    whole = next(saved(state))
    other = dataclasses.replace(whole, described=[1.5, False, whole.described[2], 0.0])
    with pytest.raises(CorruptDataError, match="does not match its counts"):
        other.baseline(SCORE, {})
    with pytest.raises(CorruptDataError):
        list(saved({**state, "items": pack_json(0)[:0]}))
