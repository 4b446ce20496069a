"""Law: every window of every SLO counts exactly the events whose slot is in it.

The oracle keeps all events and counts them again. Events are up to a day late, come in any order,
from clocks that are ten years off, and to sites whose states are merged.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from gateway.contract.schema import Indicator, Slo
from gateway.contract.slo import slot_s_of
from gateway.measure.settings import MeasureSettings
from gateway.measure.slo.judge import Burn
from gateway.measure.slo.merge import merge
from gateway.measure.slo.objectives import LATE_EDGES_S, STEP_NS, STEP_S, Objectives
from gateway.measure.state import Array, Int64
from gateway.tables import Bool
from tests.conftest import FUZZ
from tests.unit.measure.build import DAY_S, SECOND_NS, START_NS, contract, latency, plan, success

EVENTS = 100_000 if FUZZ else 10_000
BATCH = 250
TEN_YEARS_NS = 3_652 * DAY_S * SECOND_NS
SETTINGS = MeasureSettings()
THRESHOLD_NS = 100_000_000


def slo(indicator: Indicator, objective: float, days: int = 30) -> Slo:
    return Slo(
        name=f"{indicator.value}-{days}",
        indicator=indicator,
        objective=objective,
        window=days * DAY_S,
    )


PLAN = plan(
    contract(slos=(success(), latency(), slo(Indicator.COLD_START, 0.99))),
    contract(
        "other",
        slos=(
            slo(Indicator.SUCCESS, 0.99, 7),
            slo(Indicator.SUCCESS, 0.999, 90),
            slo(Indicator.FRESHNESS, 0.99, 1),
            slo(Indicator.INTEGRITY, 1.0),
        ),
    ),
)
TICKS, VIOLATIONS = 5, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferences:
    """One batch, and the ticks and violations that come with it. Shape: all (rows,)."""

    now_ns: int
    contract: Int64
    event_ns: Int64
    failed: Bool
    duration_ns: Int64
    cold: Bool
    invalid: Bool
    extra_ns: Int64
    extra_bad: Bool

    def take(self, rows: Array, extra: Array) -> "Inferences":
        """Return some of the rows."""
        names = ("contract", "event_ns", "failed", "duration_ns", "cold", "invalid")
        return Inferences(
            now_ns=self.now_ns,
            **{name: getattr(self, name)[rows] for name in names},
            extra_ns=self.extra_ns[extra],
            extra_bad=self.extra_bad[extra],
        )


def event_times(rng: np.random.Generator, now_ns: int, size: int) -> Int64:
    """Draw event times: prompt, minutes late, a day late, and from clocks that lie."""
    kind = rng.choice(4, size, p=[0.6, 0.2, 0.17, 0.03])
    age_s = np.select(
        [kind == 0, kind == 1, kind == 2],
        [rng.uniform(-100, 60, size), rng.uniform(0, 900, size), rng.uniform(0, DAY_S, size)],
        0.0,
    )
    age_ns = (age_s * SECOND_NS).astype(np.int64)
    lies = rng.choice(np.array([-TEN_YEARS_NS, TEN_YEARS_NS, now_ns]), size)
    return now_ns - np.where(kind == 3, lies, age_ns)


def story(seed: int) -> list[Inferences]:
    """Batches over a day or so, with pauses."""
    rng = np.random.default_rng(seed)
    now_ns = START_NS
    batches = []
    for _ in range(EVENTS // BATCH):
        pause_s = rng.choice([0.2, 7, 60, 700, 9_000], p=[0.3, 0.3, 0.2, 0.17, 0.03])
        now_ns += int(pause_s * SECOND_NS * rng.uniform(0.5, 1.5))
        size = int(rng.integers(1, 2 * BATCH))
        extra = int(rng.integers(0, 5))
        is_outage = rng.random() < 0.1
        batches.append(
            Inferences(
                now_ns=now_ns,
                contract=rng.integers(0, 2, size),
                event_ns=event_times(rng, now_ns, size),
                failed=rng.random(size) < (0.5 if is_outage else 0.001),
                duration_ns=rng.integers(1, 2 * THRESHOLD_NS, size),
                cold=rng.random(size) < 0.02,
                invalid=rng.random(size) < 0.01,
                extra_ns=event_times(rng, now_ns, extra),
                extra_bad=rng.random(extra) < 0.3,
            )
        )
    return batches


def feed(board: Objectives, one: Inferences) -> None:
    """Count a batch."""
    arrival_ns = np.full(len(one.contract), one.now_ns)
    board.add(
        one.contract,
        one.event_ns,
        arrival_ns,
        one.failed,
        one.duration_ns,
        one.cold if one.cold.any() else None,
        one.invalid if one.invalid.any() else None,
    )
    board.count(TICKS, one.extra_ns, one.extra_bad)
    board.count(VIOLATIONS, one.extra_ns, np.ones(len(one.extra_ns), dtype=np.bool_))


def head_of(now_ns: int) -> int:
    """Return the newest slot that the watermark has passed."""
    return (now_ns - round(SETTINGS.lateness_s) * SECOND_NS) // STEP_NS - 1


# Two minutes ahead of the clock, thirty seconds behind which the watermark is, and three slots.
AHEAD = 18


@dataclass(slots=True)
class Ledger:
    """Every event of every SLO: the slot it counts in, and whether it is bad."""

    slots: list[list[Int64]] = field(default_factory=lambda: [[] for _ in range(7)])
    bads: list[list[Bool]] = field(default_factory=lambda: [[] for _ in range(7)])

    def write(self, one: Inferences) -> None:
        """Note a batch."""
        newest = head_of(one.now_ns) + AHEAD
        slot = np.minimum(one.event_ns // STEP_NS, newest)
        slow = (one.duration_ns > THRESHOLD_NS) | one.invalid
        bads = (one.failed, slow, one.cold, one.failed, one.failed)
        for at, (of_contract, bad) in enumerate(zip((0, 0, 0, 1, 1), bads, strict=True)):
            mine = one.contract == of_contract
            self._write(at, slot[mine], bad[mine])
        extra = np.minimum(one.extra_ns // STEP_NS, newest)
        self._write(TICKS, extra, one.extra_bad)
        self._write(VIOLATIONS, extra, np.ones(len(extra), dtype=np.bool_))

    def _write(self, at: int, slot: Int64, bad: Bool) -> None:
        self.slots[at].append(slot)
        self.bads[at].append(bad)

    def windows(self, board: Objectives, head: int, newest: int) -> dict[int, list[list[int]]]:
        """Count good and bad of each window of each SLO again, up to a newest slot."""
        found: dict[int, list[list[int]]] = {}
        all_windows = [window for ring in board.rings for window in ring.windows_s]
        for at in range(7):
            slot = np.concatenate(self.slots[at]) if self.slots[at] else np.empty(0, np.int64)
            bad = np.concatenate(self.bads[at]) if self.bads[at] else np.empty(0, np.bool_)
            for window in all_windows:
                slot_s = slot_s_of(window)
                oldest = head * STEP_S // slot_s - -(-window // slot_s)
                inside = (slot * STEP_S // slot_s > oldest) & (slot <= newest)
                total, wrong = int(inside.sum()), int((inside & bad).sum())
                found.setdefault(window, []).append([total - wrong, wrong])
        return found


def judged(board: Objectives) -> dict[int, list[list[int]]]:
    """Read the windows as they were judged."""
    return {
        window: [list(board.counts(at, window)) for at in range(len(board.items))]
        for ring in board.rings
        for window in ring.windows_s
    }


def shown(board: Objectives) -> dict[int, list[list[int]]]:
    """Read the windows with all events."""
    return {window: counts.tolist() for window, counts in board.totals().items()}


def turned(board: Objectives, now_ns: int) -> Iterator[int]:
    """Turn a board; yield each head that is judged, while it is."""
    for at_ns, _ in board.turn(now_ns):
        yield at_ns // STEP_NS - 1


def same(one: Mapping[str, Array], two: Mapping[str, Array]) -> None:
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert np.array_equal(array, two[name]), name


@pytest.mark.parametrize("number", [0, 1])
def test_windows_are_recounted_at_any_watermark(seed: int, number: int) -> None:
    rng = np.random.default_rng((seed, number))
    board, ledger = Objectives(PLAN, SETTINGS), Ledger()
    checked = 0
    batches = story(seed + number)
    for one in batches:
        look = rng.random() < 12 / len(batches)
        for head in turned(board, one.now_ns):
            if look and rng.random() < 0.3:
                assert judged(board) == ledger.windows(board, head, head)
                checked += 1
        feed(board, one)
        ledger.write(one)
    last = head_of(batches[-1].now_ns)
    assert shown(board) == ledger.windows(board, last, last + AHEAD)
    assert checked >= 3
    assert board.clamped > 0
    assert board.too_late > 0
    assert board.invalid > 0
    assert all(board.late[:6] > 0)


def test_the_order_of_events_changes_no_window(seed: int) -> None:
    batches = story(seed)
    now_ns = batches[-1].now_ns
    shuffled = np.random.default_rng(seed).permutation(len(batches))
    boards = []
    for order in (np.arange(len(batches)), shuffled):
        board = Objectives(PLAN, SETTINGS)
        list(board.turn(now_ns))
        for at in order.tolist():
            one = batches[at]
            rows = np.arange(len(one.contract))
            rows = rows if order is not shuffled else rows[::-1]
            feed(board, one.take(rows, np.arange(len(one.extra_ns))))
        boards.append(board)
    same(boards[0].state(), boards[1].state())


@pytest.mark.parametrize("parts", [2, 3, 4, 5] if FUZZ else [2, 5])
def test_merged_parts_are_the_whole(seed: int, parts: int) -> None:
    rng = np.random.default_rng((seed, parts))
    whole = Objectives(PLAN, SETTINGS)
    sites = [Objectives(PLAN, SETTINGS) for _ in range(parts)]
    batches = story(seed + parts)
    stop = int(rng.integers(1, len(batches)))
    for number, one in enumerate(batches):
        # From some batch on the last site hears of nothing more, not even the time.
        running = parts - (number >= stop)
        of_row = rng.integers(0, running, len(one.contract))
        of_extra = rng.integers(0, running, len(one.extra_ns))
        for at, board in enumerate([*sites[:running], whole]):
            list(board.turn(one.now_ns))
            feed(board, one if board is whole else one.take(of_row == at, of_extra == at))
    states = [board.state() for board in sites]
    order = rng.permutation(parts).tolist()
    merged = states[order[0]]
    for at in order[1:]:
        merged = merge(merged, states[at])
    same(merged, whole.state())
    restored = Objectives(PLAN, SETTINGS)
    restored.restore(merged)
    assert shown(restored) == shown(whole)
    # Both go on alike.
    more = story(seed + 100)[:20]
    shift = whole_pause(batches, more)
    for one in more:
        later = Inferences(
            **{
                **{name: getattr(one, name) for name in one.__slots__},
                "now_ns": one.now_ns + shift,
                "event_ns": one.event_ns + shift,
                "extra_ns": one.extra_ns + shift,
            }
        )
        for board in (restored, whole):
            list(board.turn(later.now_ns))
            feed(board, later)
    same(restored.state(), whole.state())


def whole_pause(first: list[Inferences], second: list[Inferences]) -> int:
    """Return how far the second story has to move to follow the first."""
    return first[-1].now_ns - second[0].now_ns + 10 * SECOND_NS


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_restart_changes_nothing(seed: int, share: float) -> None:
    batches = story(seed)
    plain, before, after = (Objectives(PLAN, SETTINGS) for _ in range(3))
    stop = int(share * len(batches))
    told: list[list[tuple[int, list[Burn]]]] = [[], []]
    for number, one in enumerate(batches):
        if number == stop:
            after.restore(before.state())
        for board, sink in ((plain, told[0]), (before if number < stop else after, told[1])):
            sink += list(board.turn(one.now_ns))
            feed(board, one)
    assert told[0] == told[1]
    assert any(burns for _, burns in told[0])
    same(plain.state(), after.state())


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_that_lies_moves_no_window_of_others(years: int) -> None:
    honest, board = Objectives(PLAN, SETTINGS), Objectives(PLAN, SETTINGS)
    batches = story(7)[:20]
    for one in batches:
        for each in (honest, board):
            list(each.turn(one.now_ns))
            feed(each, one)
        size = 50
        lie_ns = np.full(size, one.now_ns + years * TEN_YEARS_NS // 10)
        zeros = np.zeros(size, dtype=np.int64)
        board.add(
            zeros + 1, lie_ns, zeros + one.now_ns, zeros == 1, zeros + 1, zeros == 1, zeros == 1
        )
    ours, theirs = shown(honest), shown(board)
    others = (0, 1, 2, TICKS, VIOLATIONS)
    assert all(ours[window][at] == theirs[window][at] for window in ours for at in others)
    counted = board.clamped - honest.clamped, board.too_late - honest.too_late
    assert counted == ((50 * 20, 0) if years > 0 else (0, 50 * 20))


def test_late_events_are_counted_by_how_late_they_are() -> None:
    board = Objectives(PLAN, SETTINGS)
    list(board.turn(START_NS))
    ages_s = (1, 30, 31, 60, 61, 300, 1800, 7200, 21_600, 86_400, 172_800, 172_801, 604_801)
    age_ns = np.array(ages_s) * SECOND_NS
    zeros = np.zeros(len(age_ns), dtype=np.int64)
    board.add(zeros, START_NS - age_ns, zeros + START_NS, zeros == 1, zeros + 1)
    assert board.late.tolist() == [2, 2, 1, 1, 1, 1, 1, 1, 1]
    assert len(board.late) == len(LATE_EDGES_S) + 1
    assert board.too_late == 0
