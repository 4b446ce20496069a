"""Interned texts keep their index for good."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.measure.texts import ABSENT, OVERFLOW, TEXT_BYTES_MAX, Interner
from gateway.tables import Bytes, UInt32


def arena_of(texts: list[bytes]) -> tuple[Bytes, UInt32, UInt32]:
    length = np.array([len(text) for text in texts], dtype=np.uint32)
    offset = (np.cumsum(length) - length).astype(np.uint32)
    return np.frombuffer(b"".join(texts) + b"?", dtype=np.uint8), offset, length


def indices(known: Interner, texts: list[bytes]) -> list[int]:
    arena, offset, length = arena_of(texts)
    found = known.indices(arena, offset, length, np.ones(len(texts), dtype=np.bool_))
    return [int(each) for each in found]


@given(st.lists(st.lists(st.binary(min_size=1, max_size=3), max_size=40), max_size=8))
def test_indices_are_those_of_a_dictionary(groups: list[list[bytes]]) -> None:
    known = Interner(10_000)
    plain: dict[bytes, int] = {}
    for group in groups:
        expected = [plain.setdefault(text, len(plain)) for text in group]
        assert indices(known, group) == expected
    assert known.texts == list(plain)


def test_the_limit_holds_and_known_texts_stay() -> None:
    known = Interner(2)
    assert indices(known, [b"a", b"b", b"c"]) == [0, 1, OVERFLOW]
    assert indices(known, [b"c", b"b", b"a"]) == [OVERFLOW, 1, 0]
    assert len(known) == 2


def test_absent_and_empty_texts_have_no_index() -> None:
    known = Interner(4)
    arena, offset, length = arena_of([b"a", b"", b"b"])
    present = np.array([True, True, False])
    assert known.indices(arena, offset, length, present).tolist() == [0, ABSENT, ABSENT]


def test_a_long_text_counts_by_its_beginning() -> None:
    known = Interner(4)
    head = b"x" * TEXT_BYTES_MAX
    assert indices(known, [head + b"1", head + b"2"]) == [0, 0]
    assert known.names == ("x" * TEXT_BYTES_MAX,)


@pytest.mark.parametrize("character", ["é", "€", "😀"])
@pytest.mark.parametrize("short", range(5))
def test_a_long_text_is_not_cut_within_a_character(character: str, short: int) -> None:
    """Two texts that differ in such a cut would have one name, and one index after a restart."""
    known = Interner(8)
    head = "x" * (TEXT_BYTES_MAX - short)
    texts = [f"{head}{character}yyyy{end}".encode() for end in "12"]
    found = indices(known, texts)
    (name,) = {known.names[index] for index in found}
    assert name.encode() == known.texts[found[0]]
    assert len(name.encode()) <= TEXT_BYTES_MAX
    assert texts[0].decode().startswith(name)
    assert known.index(texts[0]) == found[0]


def test_names_are_text_even_when_the_bytes_are_not() -> None:
    known = Interner(4)
    known.index(b"\xff")
    assert known.names == ("\N{REPLACEMENT CHARACTER}",)


def test_loaded_texts_have_their_indices() -> None:
    known = Interner(1_000)
    known.load([b"b", b"a"])
    assert indices(known, [b"a", b"b", b"c"]) == [1, 0, 2]
