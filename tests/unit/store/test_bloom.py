"""The filter never forgets, rarely invents, and notices damage."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import CorruptDataError
from gateway.store import bloom

WORD = st.integers(0, (1 << 64) - 1)


def _filter(path: Path, ids: list[tuple[int, int]]) -> bloom.Bloom:
    hi = np.array([pair[0] for pair in ids], dtype=np.uint64)
    lo = np.array([pair[1] for pair in ids], dtype=np.uint64)
    path.write_bytes(bloom.build(hi, lo))
    return bloom.Bloom.open(path)


@settings(max_examples=50, deadline=None)
@given(ids=st.lists(st.tuples(WORD, WORD), min_size=1, max_size=200))
def test_what_was_added_is_always_found(
    ids: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = _filter(tmp_path_factory.mktemp("bloom") / "f", ids)
    assert all(found.maybe_holds(ids))


@pytest.mark.parametrize("kind", ["random", "counted", "high word only"])
def test_false_positives_stay_below_the_stated_ratio(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(20)
    if kind == "random":
        words = rng.integers(0, 1 << 64, size=(40_000, 2), dtype=np.uint64)
    else:
        column = 1 if kind == "counted" else 0
        words = np.zeros((40_000, 2), dtype=np.uint64)
        words[:, column] = np.arange(40_000)
    ids = [(int(hi), int(lo)) for hi, lo in words]
    found = _filter(tmp_path / "f", ids[:20_000])
    assert found.blocks * bloom.BLOCK_BITS <= 20_000 * bloom.BITS_PER_TRACE + bloom.BLOCK_BITS
    assert sum(found.maybe_holds(ids[20_000:])) / 20_000 <= bloom.FALSE_POSITIVE_RATIO_MAX


@pytest.mark.parametrize("place", [0, 8, 12, 40])
def test_a_flipped_byte_is_noticed(place: int, tmp_path: Path) -> None:
    path = tmp_path / "f"
    raw = bytearray(bloom.build(np.array([1], np.uint64), np.array([2], np.uint64)))
    raw[place] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(CorruptDataError, match="checksum"):
        bloom.Bloom.open(path)


def test_a_cut_file_and_a_missing_file_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with pytest.raises(CorruptDataError, match="not readable"):
        bloom.Bloom.open(path)
    path.write_bytes(b"WEIR")
    with pytest.raises(CorruptDataError, match="too short"):
        bloom.Bloom.open(path)
