"""Buffers against a list: order, limit, and where every item went, over stops and crashes."""

import random
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.answers import pause_s
from collectors.buffer import (
    BUFFER_BYTES_MIN,
    DiskBuffer,
    Drop,
    MemoryBuffer,
    Waiting,
    open_buffer,
)
from gateway.batch import Signal
from gateway.errors import StartError

PUT: Final = "put"
TAKE: Final = "take"
DONE: Final = "done"
STOP: Final = "stop"
CRASH: Final = "crash"
SIGNALS: Final = (Signal.TRACES, Signal.METRICS, Signal.LOGS)


def body_of(number: int, size: int) -> bytes:
    """Make bytes that do not get smaller and know their number."""
    head = number.to_bytes(8, "big")
    seed = number * 2_654_435_761 % (1 << 32) or 1
    out = bytearray(head)
    while len(out) < size:
        seed = (seed * 1_103_515_245 + 12_345) % (1 << 31)
        out += seed.to_bytes(4, "big")
    return bytes(out[: max(8, size)])


class Books:
    """Dropped items by reason."""

    def __init__(self) -> None:
        self.dropped: Counter[Drop] = Counter()

    def drop(self, reason: Drop, items: int) -> None:
        """Count."""
        self.dropped[reason] += items


@given(st.lists(st.tuples(st.sampled_from([PUT, PUT, PUT, TAKE]), st.integers(8, 400))))
def test_memory_buffer_is_a_list_that_forgets_from_the_front(steps: list[tuple[str, int]]) -> None:
    books, bytes_max = Books(), 1_000
    buffer = MemoryBuffer(bytes_max, books.drop)
    model: list[bytes] = []
    put = taken = 0
    for number, (step, size) in enumerate(steps):
        if step == PUT:
            put += 1
            model.append(body_of(number, size))
            assert buffer.put(Signal.LOGS, 1, model[-1])
            while sum(map(len, model)) > bytes_max:
                model.pop(0)
        else:
            found = buffer.maybe_take()
            assert (found and found.body) == (model.pop(0) if model else None)
            taken += found is not None
        assert buffer.items == len(model)
        assert put == taken + buffer.items + books.dropped[Drop.BUFFER_FULL]
    assert not buffer.close(None)
    assert put == taken + books.dropped.total()


@given(
    st.lists(
        st.tuples(
            st.sampled_from([PUT, PUT, PUT, TAKE, DONE, STOP, CRASH]),
            st.sampled_from([20, 5_000, 30_000]),
        ),
        max_size=40,
    )
)
def test_disk_buffer_gives_again_what_is_not_done_and_nothing_else(
    steps: list[tuple[str, int]],
) -> None:
    with TemporaryDirectory() as folder:
        _replay(Path(folder), steps)


def test_disk_buffer_over_a_long_outage(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    kinds = [PUT] * 12 + [TAKE, DONE] * 3 + [STOP, CRASH]
    steps = [(rng.choice(kinds), rng.choice([20, 5_000, 30_000])) for _ in range(400)]
    assert _replay(tmp_path, steps).dropped[Drop.BUFFER_FULL] > 0


def _replay(folder: Path, steps: list[tuple[str, int]]) -> Books:
    """Run the steps on a buffer that is too small for many, and hold it against a list."""
    books = Books()
    place = folder / "0"
    buffer = DiskBuffer(place, BUFFER_BYTES_MIN, books.drop, clock=lambda: 1)
    waiting: list[int] = []  # numbers that the buffer holds
    taken: list[tuple[int, Waiting]] = []  # taken and not done, at most one
    for number, (step, size) in enumerate(steps):
        if step == PUT:
            before = books.dropped[Drop.BUFFER_FULL]
            assert buffer.put(SIGNALS[number % 3], number + 1, body_of(number, size))
            waiting.append(number)
            gone = books.dropped[Drop.BUFFER_FULL] - before
            while gone > 0:
                gone -= waiting.pop(0) + 1
            assert gone == 0, "the oldest go first, whole"
        elif step == TAKE and not taken:
            found = buffer.maybe_take()
            assert (found is not None) == bool(waiting)
            if found is not None:
                expected = waiting.pop(0)
                assert int.from_bytes(found.body[:8], "big") == expected
                assert (found.signal, found.items) == (SIGNALS[expected % 3], expected + 1)
                taken.append((expected, found))
        elif step == DONE and taken:
            buffer.done(taken.pop()[1])
        elif step in (STOP, CRASH):
            if step == CRASH:
                shutil.copytree(place, folder / str(number + 1))
            last = taken.pop() if taken else None
            kept = buffer.close(last[1] if last else None)
            if last and kept:
                waiting.insert(0, last[0])
            place = place if step == STOP else folder / str(number + 1)
            buffer = DiskBuffer(place, BUFFER_BYTES_MIN, books.drop, clock=lambda: 2)
        assert buffer.items == sum(each + 1 for each in waiting)
    assert set(books.dropped) <= {Drop.BUFFER_FULL}
    buffer.close(None)
    return books


def test_disk_buffer_holds_what_it_says(tmp_path: Path) -> None:
    """All but one segment in sixteen is there for what waits."""
    books, bytes_max = Books(), 4 << 20
    buffer = DiskBuffer(tmp_path, bytes_max, books.drop)
    size, put = 10_000, 0
    while not books.dropped:
        buffer.put(Signal.LOGS, 1, body_of(put, size))
        put += 1
    assert put * size > bytes_max * 0.9
    assert buffer.items * size > bytes_max * 0.8
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("*.seg"))
    assert on_disk == bytes_max
    buffer.close(None)


def test_damaged_record_is_counted_and_the_next_one_is_given(tmp_path: Path) -> None:
    books = Books()
    buffer = DiskBuffer(tmp_path, BUFFER_BYTES_MIN, books.drop)
    for number in range(3):
        buffer.put(Signal.LOGS, 7, body_of(number, 1_000))
    (path,) = [path for path in tmp_path.glob("*.seg") if body_of(1, 1_000) in path.read_bytes()]
    data = path.read_bytes()
    at = data.index(body_of(1, 1_000)) + 500
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    found = [buffer.maybe_take() for _ in range(3)]
    assert [each and each.body for each in found] == [body_of(0, 1_000), body_of(2, 1_000), None]
    assert books.dropped == {Drop.DAMAGED: 7}
    buffer.close(None)


def test_mark_of_another_ring_hides_nothing(tmp_path: Path) -> None:
    """The ring's files were deleted and the mark was forgotten: all of the new ring is new."""
    (tmp_path / "sent.json").write_text("1000")
    books = Books()
    buffer = DiskBuffer(tmp_path, BUFFER_BYTES_MIN, books.drop)
    buffer.put(Signal.LOGS, 1, b"x" * 100)
    buffer.close(None)
    again = DiskBuffer(tmp_path, BUFFER_BYTES_MIN, books.drop)
    assert again.items == 1
    again.close(None)


def test_request_that_fits_no_segment_is_counted(tmp_path: Path) -> None:
    books = Books()
    buffer = open_buffer(tmp_path, BUFFER_BYTES_MIN, books.drop)
    assert not buffer.put(Signal.LOGS, 3, bytes(64 << 10))
    assert books.dropped == {Drop.TOO_LARGE: 3}
    buffer.close(None)


def test_buffer_of_another_size_is_refused(tmp_path: Path) -> None:
    open_buffer(tmp_path, 8 << 20, Books().drop).close(None)
    with pytest.raises(StartError, match="segments"):
        open_buffer(tmp_path, 4 << 20, Books().drop)


@given(st.integers(1, 100), st.one_of(st.none(), st.floats(0, 1e9)))
def test_pause_is_bounded_and_never_shorter_than_the_hint(
    failures: int, hint_s: float | None
) -> None:
    found = pause_s(failures, hint_s, random.Random(failures), least_s=1.0, most_s=60.0)
    if hint_s is None:
        assert 0.0 <= found <= min(60.0, 2.0 ** (failures - 1))
    else:
        assert min(hint_s, 3_600.0) <= found <= 3_960.0


def test_pauses_spread_over_the_whole_range(seed: int) -> None:
    rng = random.Random(seed)
    found = [pause_s(7, None, rng, least_s=1.0, most_s=60.0) for _ in range(2_000)]
    counts = Counter(int(each // 6) for each in found)
    assert min(counts[part] for part in range(10)) > 120
