"""Give every distinct text a small integer that stays.

Law: an index never changes and never means another text; past the limit a text gets OVERFLOW.
Texts come out of the arena by rows; only a text that is seen for the first time becomes a Python
object. Amortised cost: one hash per row.
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from gateway.otlp.kernel import Literals, factorize
from gateway.tables import Bool, Bytes, Int32, UInt32

# What a text that is not allowed counts as: devices choose these texts freely.
UNNAMED: Final = b"~other"
ABSENT: Final = -1
OVERFLOW: Final = -2
# Names of devices and versions are short; a longer text counts by its beginning.
TEXT_BYTES_MAX: Final = 256
CHARACTER_BYTES_MAX: Final = 4  # of UTF-8
# The compiled table is built anew when this many texts are not in it, or an eighth of them.
REBUILD_MIN: Final = 16


class Interner:
    """Texts and their indices, in order of first occurrence."""

    def __init__(self, texts_max: int, allowed: re.Pattern[bytes] | None = None) -> None:
        """Make an empty one; a text that is not `allowed` is UNNAMED to all that read it."""
        self._texts_max = texts_max
        self._allowed = allowed
        self._index: dict[bytes, int] = {}
        self._names: tuple[str, ...] = ()
        self._literals = Literals([])
        self._compiled = 0

    def __len__(self) -> int:
        return len(self._index)

    @property
    def names(self) -> tuple[str, ...]:
        """All texts by index. The tuple is made once per change."""
        if len(self._names) != len(self._index):
            fresh = list(self._index)[len(self._names) :]
            self._names += tuple(text.decode(errors="replace") for text in fresh)
        return self._names

    @property
    def texts(self) -> list[bytes]:
        """All texts by index, as received."""
        return list(self._index)

    def load(self, texts: Sequence[bytes]) -> None:
        """Start anew with these texts as indices 0, 1, 2, …."""
        self._index = {text: at for at, text in enumerate(texts)}
        self._names = ()
        self._literals = Literals(list(self._index))
        self._compiled = len(self._index)

    def index(self, text: bytes) -> int:
        """Return the index of one text, a new one if there is room, else OVERFLOW."""
        if len(text) > TEXT_BYTES_MAX:
            # Not within a character: the text would not come back from a saved state as it was.
            text = text[:TEXT_BYTES_MAX].decode(errors="ignore").encode()
        if self._allowed is not None and self._allowed.fullmatch(text) is None:
            text = UNNAMED
        known = self._index.get(text)
        if known is not None:
            return known
        if len(self._index) >= self._texts_max:
            return OVERFLOW
        self._index[text] = len(self._index)
        return len(self._index) - 1

    def indices(self, arena: Bytes, offset: UInt32, length: UInt32, present: Bool) -> Int32:
        """Return the index of each row's text: ABSENT where not present or empty."""
        length = _cut(arena, offset, length)
        found = self._literals.codes(arena, offset, length)
        wanted = present & (length > 0)
        missed = (wanted & (found < 0)).nonzero()[0]
        if len(missed):
            codes, first = factorize(arena, offset[missed], length[missed])
            heads = missed[first]
            known = [
                self.index(arena[begin : begin + size].tobytes())
                for begin, size in zip(offset[heads].tolist(), length[heads].tolist(), strict=True)
            ]
            found[missed] = np.array(known, dtype=np.int32)[codes]
            self._rebuild()
        found[~wanted] = ABSENT
        return found

    def _rebuild(self) -> None:
        fresh = len(self._index) - self._compiled
        if fresh > max(REBUILD_MIN, self._compiled // 8) or (fresh and self._compiled == 0):
            self._literals = Literals(list(self._index))
            self._compiled = len(self._index)


def _cut(arena: Bytes, offset: UInt32, length: UInt32) -> UInt32:
    """Shorten long texts to TEXT_BYTES_MAX, and further to where a character begins."""
    long = (length > TEXT_BYTES_MAX).nonzero()[0]
    if len(long) == 0:
        return length
    length = np.minimum(length, np.uint32(TEXT_BYTES_MAX))
    for _ in range(CHARACTER_BYTES_MAX - 1):
        inside = arena[offset[long] + length[long]] & 0xC0 == 0x80
        length[long[inside]] -= 1
    return length
