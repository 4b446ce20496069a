"""SLOs: what is counted, when they burn, and how quiet they are at low traffic."""

import numpy as np
import pytest

from gateway.measure.settings import MeasureSettings
from gateway.measure.slo.judge import Burn
from gateway.measure.slo.objectives import JUDGED_STEPS_MAX, STEP_NS, Objectives
from gateway.measure.state import Int64
from tests.unit.measure.build import SECOND_NS, START_NS, contract, latency, plan, success

SETTINGS = MeasureSettings()


def objectives(*slos: object) -> Objectives:
    return Objectives(plan(contract(slos=slos or (success(), latency()))), SETTINGS)


def turned(board: Objectives, now_ns: int) -> list[Burn]:
    return [burn for _, burns in board.turn(now_ns) for burn in burns]


def add(
    board: Objectives,
    event_ns: Int64,
    *,
    arrival_ns: int,
    failed: bool = False,
    duration_ns: int = 1_000_000,
) -> None:
    size = len(event_ns)
    board.add(
        np.zeros(size, dtype=np.int64),
        event_ns,
        np.full(size, arrival_ns),
        np.full(size, failed),
        np.full(size, duration_ns),
    )


def test_every_window_counts_every_event_at_once() -> None:
    board = objectives()
    turned(board, START_NS)
    add(board, np.full(7, START_NS - SECOND_NS), arrival_ns=START_NS)
    add(board, np.full(3, START_NS - SECOND_NS), arrival_ns=START_NS, failed=True)
    totals = board.totals()
    assert all(totals[window][0].tolist() == [7, 3] for window in board.items[0].windows_s)
    assert all(totals[window][1].tolist() == [10, 0] for window in board.items[1].windows_s)


def test_latency_is_good_up_to_its_threshold() -> None:
    board = objectives()
    turned(board, START_NS)
    for duration_ns in (100_000_000, 100_000_001):
        add(board, np.array([START_NS]), arrival_ns=START_NS, duration_ns=duration_ns)
    assert board.totals()[120][1].tolist() == [1, 1]
    assert board.totals()[300][0].tolist() == [2, 0]


def test_late_events_count_in_the_budget_and_not_in_short_windows() -> None:
    board = objectives()
    turned(board, START_NS)
    late_ns = START_NS - 6 * 3600 * SECOND_NS
    add(board, np.full(50, late_ns), arrival_ns=START_NS, failed=True)
    totals = board.totals()
    assert totals[300][0].tolist() == [0, 0]
    assert totals[259_200][0].tolist() == [0, 50]
    assert totals[2_592_000][0].tolist() == [0, 50]
    assert (board.late.sum(), board.too_late) == (50, 0)
    burns = turned(board, START_NS + 60 * SECOND_NS)
    assert not any(burn.pages for burn in burns)


def test_events_older_than_the_longest_window_are_counted_as_too_late() -> None:
    board = objectives()
    turned(board, START_NS)
    add(board, np.array([START_NS - 40 * 86_400 * SECOND_NS, 0]), arrival_ns=START_NS)
    assert board.too_late == 2
    assert board.totals()[2_592_000][0].tolist() == [0, 0]


def traffic(
    board: Objectives, *, minutes: int, per_minute: int, bad_share: float, seed: int, start: int
) -> list[Burn]:
    rng = np.random.default_rng(seed)
    burns: list[Burn] = []
    for minute in range(start, start + minutes):
        now = START_NS + minute * 60 * SECOND_NS
        burns += turned(board, now)
        size = int(rng.poisson(per_minute))
        bad = int(rng.binomial(size, bad_share))
        add(board, np.full(size - bad, now), arrival_ns=now)
        add(board, np.full(bad, now), arrival_ns=now, failed=True)
    return burns


def test_a_total_outage_pages_within_minutes() -> None:
    board = objectives()
    assert not traffic(board, minutes=180, per_minute=60, bad_share=0, seed=1, start=0)
    burns = traffic(board, minutes=6, per_minute=60, bad_share=1, seed=2, start=180)
    pages = [burn for burn in burns if burn.pages and burn.objective == 0]
    assert pages
    assert pages[0].at_ns - START_NS <= 183 * 60 * SECOND_NS


def test_a_latency_breach_of_everyone_pages_within_five_minutes() -> None:
    board = objectives()
    for minute in range(180):
        now = START_NS + minute * 60 * SECOND_NS
        assert not turned(board, now)
        add(board, np.full(30, now), arrival_ns=now)
    burns: list[Burn] = []
    for minute in range(180, 187):
        now = START_NS + minute * 60 * SECOND_NS
        burns += turned(board, now)
        add(board, np.full(30, now), arrival_ns=now, duration_ns=200_000_000)
    pages = [burn for burn in burns if burn.pages]
    assert {burn.objective for burn in pages} == {1}
    assert pages[0].at_ns - START_NS <= 186 * 60 * SECOND_NS


def test_one_failure_at_low_traffic_does_not_page() -> None:
    board = objectives()
    traffic(board, minutes=120, per_minute=1, bad_share=0, seed=3, start=0)
    now = START_NS + 120 * 60 * SECOND_NS
    add(board, np.array([now]), arrival_ns=now, failed=True)
    burns = turned(board, now + 120 * SECOND_NS)
    assert burns
    assert not any(burn.pages for burn in burns)
    assert not any(burn.confident for burn in burns)


def test_the_onset_is_where_the_failures_begin() -> None:
    board = objectives()
    traffic(board, minutes=180, per_minute=60, bad_share=0, seed=1, start=0)
    burns = traffic(board, minutes=6, per_minute=60, bad_share=1, seed=2, start=180)
    page = next(burn for burn in burns if burn.pages)
    assert abs(board.onset_ns(burns[-1]) - (START_NS + 180 * 60 * SECOND_NS)) <= 60 * SECOND_NS
    assert board.onset_ns(page) <= page.at_ns


def test_idle_steps_judge_the_same_slots_in_the_same_order() -> None:
    eager, lazy = objectives(), objectives()
    told: list[list[Burn]] = [[], []]
    for board, sink in zip((eager, lazy), told, strict=True):
        for minute in range(60):
            now = START_NS + minute * 180 * SECOND_NS
            if board is eager:
                for extra in (-100, -50, -3):
                    sink += turned(board, now + extra * SECOND_NS)
            sink += turned(board, now)
            add(board, np.full(40, now), arrival_ns=now, failed=minute > 40)
    assert told[0] == told[1]
    assert told[0]
    assert all(np.array_equal(value, lazy.state()[key]) for key, value in eager.state().items())


def test_the_state_comes_back_and_goes_on() -> None:
    board, other = objectives(), objectives()
    traffic(board, minutes=60, per_minute=30, bad_share=0.02, seed=5, start=0)
    other.restore(board.state())
    one = traffic(board, minutes=60, per_minute=30, bad_share=0.05, seed=6, start=60)
    two = traffic(other, minutes=60, per_minute=30, bad_share=0.05, seed=6, start=60)
    assert one == two
    assert all(np.array_equal(value, other.state()[key]) for key, value in board.state().items())


def test_an_slo_that_is_new_starts_empty_and_the_old_one_stays() -> None:
    board = objectives(success())
    turned(board, START_NS)
    add(board, np.full(5, START_NS), arrival_ns=START_NS)
    other = objectives(latency(), success())
    other.restore(board.state())
    assert other.totals()[300][1].tolist() == [5, 0]
    assert other.totals()[300][0].tolist() == [0, 0]


@pytest.mark.parametrize("ahead_s", [1, 60, 120])
def test_an_event_ahead_of_time_is_counted_when_it_is_due(ahead_s: int) -> None:
    board = objectives()
    turned(board, START_NS)
    add(board, np.array([START_NS + ahead_s * SECOND_NS]), arrival_ns=START_NS, failed=True)
    assert board.totals()[300][0].tolist() == [0, 1]
    turned(board, START_NS + (ahead_s + 60) * SECOND_NS)
    assert board.counts(0, 300) == (0, 1)


def test_after_a_long_pause_the_last_six_hours_are_judged() -> None:
    board = objectives()
    turned(board, START_NS)
    add(board, np.array([START_NS, START_NS + 60 * SECOND_NS]), arrival_ns=START_NS, failed=True)
    add(board, np.array([START_NS - 600 * SECOND_NS]), arrival_ns=START_NS)
    now_ns = START_NS + 36_000 * SECOND_NS
    judged = [at_ns for at_ns, _ in board.turn(now_ns)]
    assert len(judged) == JUDGED_STEPS_MAX
    assert judged[-1] == now_ns - 30 * SECOND_NS
    assert board.counts(0, 86_400) == (1, 2)
    assert board.counts(0, 21_600) == (0, 0)


def test_a_plan_without_slos_works() -> None:
    board = Objectives(plan(contract(slos=())), SETTINGS)
    assert turned(board, START_NS + STEP_NS) == []
    add(board, np.array([START_NS]), arrival_ns=START_NS)
    assert board.totals()[2_592_000].shape == (0, 2)
