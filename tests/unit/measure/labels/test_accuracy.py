"""Intervals against their equation, windows and classes against a recount."""

import math
from collections import Counter

import numpy as np
import pytest

from gateway.measure.labels import accuracy
from gateway.measure.labels.accuracy import (
    CLASSES_MAX,
    HOUR_NS,
    Z_TWO_SIDED_95,
    Accuracy,
    maybe_estimate,
)
from gateway.measure.labels.predictions import UNSEEN_CLASS
from tests.conftest import FUZZ

EVENTS = 100_000 if FUZZ else 4000
HEAD = 500_000


@pytest.mark.parametrize(
    ("right", "wrong"), [(0, 1), (1, 0), (1, 1), (9, 1), (99, 1), (3, 4000), (10**9, 10**9), (7, 0)]
)
def test_the_interval_ends_where_the_score_test_does(right: int, wrong: int) -> None:
    found = maybe_estimate(right, wrong)
    assert found is not None
    n, share = right + wrong, right / (right + wrong)
    assert found.accuracy == share
    for end in (found.low, found.high):
        # Wilson's ends solve (share - p)^2 = z^2 p (1 - p) / n.
        assert math.isclose(
            (share - end) ** 2, Z_TWO_SIDED_95**2 * end * (1 - end) / n, rel_tol=1e-7, abs_tol=1e-12
        )
    assert 0 <= found.low <= share <= found.high <= 1


def test_there_is_no_estimate_without_labels() -> None:
    assert maybe_estimate(0, 0) is None


def test_the_interval_holds_the_truth_as_often_as_it_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for truth, n in ((0.9, 50), (0.99, 300), (0.5, 20)):
        right = rng.binomial(n, truth, 4000)
        ends = [maybe_estimate(int(each), n - int(each)) for each in right]
        held = np.mean([each is not None and each.low <= truth <= each.high for each in ends])
        # The exact coverage of Wilson's interval at these lies within [0.92, 0.98].
        assert 0.92 < held < 0.985


def play(
    counts: Accuracy, rng: np.random.Generator, events: int
) -> list[tuple[int, int, int, int]]:
    """Count random outcomes over 40 days, a tenth of them changed later."""
    counts.reserve(3)
    head, played = HEAD, []
    for _ in range(events):
        head += int(rng.random() < 960 / events)
        counts.advance(head * HOUR_NS)
        late = int(min(rng.geometric(0.01), 2000))
        row = [
            int(rng.integers(3)),
            (head - late) * HOUR_NS,
            int(rng.integers(4)),
            int(rng.integers(4)),
        ]
        count(counts, row, 1)
        if rng.random() < 0.1:
            count(counts, row, -1)
            row[3] = (row[3] + 1) % 4
            count(counts, row, 1)
        played.append((row[0], row[1], row[2], row[3]))
    return played


def count(counts: Accuracy, row: list[int], by: int) -> None:
    group, event_ns, predicted, label = row
    counts.add(group=group, contract=0, event_ns=event_ns, predicted=predicted, label=label, by=by)


def test_windows_equal_a_recount(seed: int) -> None:
    counts = Accuracy()
    played = play(counts, np.random.default_rng(seed), EVENTS)
    head = counts.head
    for group in range(3):
        mine = [row for row in played if row[0] == group]
        assert counts.counts[group, 0] == sum(row[2] == row[3] for row in mine)
        for hours in (24, 720):
            inside = [row for row in mine if row[1] // HOUR_NS > head - hours]
            right = sum(row[2] == row[3] for row in inside)
            assert counts.window(group, hours) == (right, len(inside) - right)
    pairs = Counter((row[0], row[2], row[3]) for row in played)
    assert {pair: many for pair, many in counts.pairs.items() if many} == dict(pairs)


def test_parts_merge_to_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [Accuracy(), Accuracy()]
    whole = Accuracy()
    whole.reserve(3)
    rows = []
    for part, head in zip(parts, (HEAD, HEAD + 30), strict=True):
        part.reserve(3)
        part.advance(head * HOUR_NS)
        for _ in range(500):
            late = int(rng.integers(0, 900))
            rows.append(
                (
                    part,
                    [
                        int(rng.integers(3)),
                        (head - late) * HOUR_NS,
                        *rng.integers(0, 3, 2).tolist(),
                    ],
                )
            )
    whole.advance((HEAD + 30) * HOUR_NS)
    for part, row in rows:
        count(part, row, 1)
        count(whole, row, 1)
    states = [part.state(3, lambda _, code: str(code)) for part in (*parts, whole)]
    fresh = []
    for state in (accuracy.merge(states[0], states[1], [0, 1, 2]), states[2]):
        each = Accuracy()
        each.restore(state, np.zeros(3, dtype=np.int64), lambda _, text: int(text or 0))
        fresh.append(each)
    merged, expected = fresh
    assert merged.pairs == expected.pairs
    assert np.array_equal(merged.counts, expected.counts)
    for group in range(3):
        for hours in (24, 720):
            assert merged.window(group, hours) == expected.window(group, hours)


def test_classes_are_bounded_and_no_count_is_lost() -> None:
    counts = Accuracy()
    counts.reserve(1)
    for code in range(1000):
        count(counts, [0, 0, code, (code * 7) % 1000], 1)
    codes = {code for _, *both in counts.pairs for code in both}
    assert len(codes) <= CLASSES_MAX + 1
    assert UNSEEN_CLASS in codes
    assert sum(counts.pairs.values()) == 1000
    for code in range(1000):
        count(counts, [0, 0, code, (code * 7) % 1000], -1)
    assert not any(counts.pairs.values())


def test_pairs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy, "PAIRS_MAX", 5)
    counts = Accuracy()
    counts.reserve(2)
    for at in range(100):
        count(counts, [at % 2, 0, at % 3, at % 4], 1)
    assert len(counts.pairs) <= 5 + 2
    assert sum(counts.pairs.values()) == 100


def test_an_event_ahead_of_the_clock_counts_as_now() -> None:
    counts = Accuracy()
    counts.reserve(1)
    counts.advance(HEAD * HOUR_NS)
    count(counts, [0, (HEAD + 90_000) * HOUR_NS, 1, 1], 1)
    assert counts.window(0, 24) == (1, 0)
    counts.advance((HEAD + 24) * HOUR_NS)
    assert counts.window(0, 24) == (1, 0)
    counts.advance((HEAD + 25) * HOUR_NS)
    assert counts.window(0, 24) == (0, 0)
