"""Dead letters: selected, counted, replayed at their place, and forgotten only by their limits."""

import sqlite3
from collections.abc import Iterator

import pytest

from gateway.batch import Frame, Signal
from gateway.forward import letters
from gateway.forward.outbox import Counts, Outbox, Selection, Want
from gateway.forward.records import Cause, Done

NOW_NS = 1_000_000
ALL = Want(bytes_max=1 << 20)


def frame(signal: Signal, items: int) -> Frame:
    return Frame(
        signal=signal,
        items=items,
        body=bytes([items]) * 50,
        raw_bytes=200,
        first_sequence=1,
        last_sequence=1,
    )


class Bench:
    """An outbox with two destinations in memory, and a clock that each reading moves."""

    def __init__(self) -> None:
        self.now_ns = NOW_NS
        self.box = Outbox(["cloud", "lake"], now_ns=self.tick)
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.box.prepare(self.connection)

    def tick(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def refuse(self, name: str, reason: str, *frames: Frame) -> None:
        """Add frames and let one destination refuse them; the other takes them."""
        for each in frames:
            self.box.add(self.connection, [each])
            for destination in self.box.destinations:
                [pending] = self.box.next(self.connection, destination, ALL)
                if destination == name:
                    self.box.dead(self.connection, name, pending.id, reason)
                else:
                    self.box.delivered(self.connection, destination, [pending.id])

    def reject(self, name: str, items: int, reason: str) -> None:
        """Let a destination reject some items of its oldest frame."""
        [pending, *_] = self.box.next(self.connection, name, ALL)
        self.box.delivered(self.connection, name, [pending.id], {pending.id: (items, reason)})

    def counts(self, name: str, signal: Signal) -> Counts:
        return self.box.counts(self.connection)[name][signal]

    def items(self, selection: Selection) -> list[int]:
        found = self.box.dead_letters(self.connection, selection, 100)
        return [letter.items for letter in found.letters]


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    found.connection.close()


@pytest.fixture
def three(bench: Bench) -> Bench:
    """Three refused frames of three signals and two destinations."""
    bench.refuse("cloud", "HTTP 400: no tenant", frame(Signal.TRACES, 1))
    bench.refuse("cloud", "HTTP 403", frame(Signal.METRICS, 2))
    bench.refuse("lake", "gRPC INVALID_ARGUMENT: Tenant", frame(Signal.LOGS, 4))
    return bench


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), [4, 2, 1]),
        (Selection(destination="cloud"), [2, 1]),
        (Selection(signal="logs"), [4]),
        (Selection(reason="tenant"), [4, 1]),
        (Selection(reason="REFUSED"), [4, 2, 1]),
        (Selection(reason="tenant", destination="lake"), [4]),
        (Selection(ids=(1, 3, 99)), [4, 1]),
        (Selection(through=2), [2, 1]),
        (Selection(ids=()), []),
        (Selection(destination="nobody"), []),
    ],
)
def test_letters_are_selected(three: Bench, selection: Selection, expected: list[int]) -> None:
    assert three.items(selection) == expected
    page = three.box.dead_letters(three.connection, selection, 1, 1)
    assert [letter.items for letter in page.letters] == expected[1:2]
    assert (page.total, page.total_items) == (len(expected), sum(expected))
    assert page.total_bytes == 50 * len(expected)


@pytest.mark.parametrize("signal", list(Signal))
def test_a_letter_of_any_signal_is_replayed_at_its_place(bench: Bench, signal: Signal) -> None:
    bench.refuse("cloud", "HTTP 400", frame(signal, 3), frame(signal, 5))
    bench.box.add(bench.connection, [frame(signal, 9)])
    assert bench.counts("cloud", signal) == Counts(pending_items=9, dead_items=8)
    done = bench.box.replay(bench.connection, Selection(signal=signal), 1)
    assert done == Done(letters=1, items=3, left=1, kept=0)
    assert [each.items for each in bench.box.next(bench.connection, "cloud", ALL)] == [3, 9]
    done = bench.box.replay(bench.connection, Selection(), 10)
    assert done == Done(letters=1, items=5, left=0, kept=0)
    pending = bench.box.next(bench.connection, "cloud", ALL)
    assert [each.items for each in pending] == [3, 5, 9]
    assert [each.body[0] for each in pending] == [3, 5, 9]
    assert bench.counts("cloud", signal) == Counts(pending_items=17)
    assert bench.box.causes(bench.connection)["cloud", signal] == {Cause.REFUSED: 0}
    bench.box.delivered(bench.connection, "cloud", [each.id for each in pending])
    bench.box.delivered(bench.connection, "lake", [pending[-1].id])
    assert bench.box.bytes_stored(bench.connection) == 0


def test_a_letter_that_was_dropped_stays_counted(three: Bench) -> None:
    done = three.box.drop(three.connection, Selection(destination="cloud"), 1)
    assert done == Done(letters=1, items=1, left=1, kept=0)
    assert three.items(Selection()) == [4, 2]
    assert three.counts("cloud", Signal.TRACES) == Counts(dead_items=1)
    assert three.box.causes(three.connection)["cloud", Signal.TRACES] == {Cause.REFUSED: 1}
    assert three.box.replay(three.connection, Selection(ids=(1,)), 9).letters == 0
    three.box.drop(three.connection, Selection(), 9)
    assert three.box.bytes_stored(three.connection) == 0


def test_a_replay_does_not_take_what_was_refused_meanwhile(three: Bench) -> None:
    newest = three.box.dead_letters(three.connection, Selection(), 1).newest
    three.box.replay(three.connection, Selection(through=newest, destination="lake"), 9)
    [again] = three.box.next(three.connection, "lake", ALL)
    three.box.dead(three.connection, "lake", again.id, "HTTP 400")
    done = three.box.replay(three.connection, Selection(through=newest, destination="lake"), 9)
    assert done.letters == done.left == 0


def test_rejected_items_with_one_reason_are_one_letter_with_its_times(bench: Bench) -> None:
    for items in (5, 6, 7):
        bench.box.add(bench.connection, [frame(Signal.METRICS, items)])
    added = bench.now_ns
    for reason in ("out of order", "out of order", ""):
        bench.reject("cloud", 2, reason)
    newest, oldest = bench.box.dead_letters(bench.connection, Selection(), 9).letters
    assert (newest.items, newest.reason) == (2, letters.NO_REASON)
    assert (oldest.items, oldest.reason, oldest.cause) == (4, "out of order", "rejected")
    assert (oldest.first_ns, oldest.last_ns) == (added - 2, added - 1)
    assert oldest.time_ns > added
    assert oldest.body_bytes == 0
    done = bench.box.replay(bench.connection, Selection(), 9)
    assert done == Done(letters=0, items=0, left=0, kept=2)
    assert bench.counts("cloud", Signal.METRICS) == Counts(forwarded_items=12, dead_items=6)


def test_a_shared_body_stays_until_the_last_letter_is_gone(bench: Bench) -> None:
    bench.box.add(bench.connection, [frame(Signal.LOGS, 3)])
    for name in bench.box.destinations:
        [pending] = bench.box.next(bench.connection, name, ALL)
        bench.box.dead(bench.connection, name, pending.id, "no")
    bench.box.drop(bench.connection, Selection(destination="cloud"), 9)
    assert bench.box.replay(bench.connection, Selection(destination="lake"), 9).items == 3
    [pending] = bench.box.next(bench.connection, "lake", ALL)
    assert pending.body == bytes([3]) * 50


def test_letters_without_bodies_make_room_too_and_bodies_first_when_bytes_are_short(
    bench: Bench,
) -> None:
    bench.refuse("cloud", "b", frame(Signal.TRACES, 9))
    bench.box.add(bench.connection, [frame(Signal.TRACES, 9), frame(Signal.TRACES, 8)])
    bench.reject("cloud", 1, "a")
    bench.box._limits = letters.Limits(letters_max=9, bytes_max=50)
    [pending] = bench.box.next(bench.connection, "cloud", ALL)
    bench.box.dead(bench.connection, "cloud", pending.id, "c")
    page = bench.box.dead_letters(bench.connection, Selection(), 9)
    assert [letter.reason for letter in page.letters] == ["c", "a"]
    assert page.forgotten_items == 9
    assert bench.counts("cloud", Signal.TRACES) == Counts(forwarded_items=8, dead_items=18)
