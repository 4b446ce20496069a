"""Events that wait until the watermark passes them, and late ones on their way to the rings.

Law: what is put in is taken out exactly once, at the slot it was put in. Slots up to the head are
late, those after it wait. Inferences of a contract are seen by all its SLOs, so they are counted
once for the contract and only bad ones for each SLO.

Shape: seen (slots, contracts + 1), bad (slots, slos + 1), own (slots, slos, 2); the row of slot s
is s modulo the count of slots. The last contract has no inference: SLOs that are about
other events see that one. The last SLO is for inferences of contracts that have none.
Complexity: taking costs slots that are not empty x slos.
"""

from typing import Final

import numpy as np

from gateway.measure.state import Int64
from gateway.tables import Bool

# Late slots that are held for each one that waits: late by minutes is cheap, by hours dear.
LATE_FOR_WAITING: Final = 2


class Stage:
    """Slots around the head. `ahead` counts those that wait.

    Shape: `sees` (slos,) is the contract whose inferences are the events of each SLO.
    """

    def __init__(self, sees: Int64, contracts: int, ahead: int) -> None:
        slots = 1 << (ahead * (1 + LATE_FOR_WAITING) - 1).bit_length()
        self.ahead = ahead
        self._behind = slots - ahead
        self._mask = slots - 1
        self.head = 0
        self._sees = sees
        slos = len(sees)
        self._seen = np.zeros((slots, contracts + 1), dtype=np.int64)
        self._bad = np.zeros((slots, slos + 1), dtype=np.int64)
        self._own = np.zeros((slots, slos, 2), dtype=np.int64)

    @property
    def oldest(self) -> int:
        """The oldest slot that is held."""
        return self.head - self._behind + 1

    @property
    def newest(self) -> int:
        """The newest slot that is held."""
        return self.head + self.ahead

    def see(self, slot: Int64, contract: Int64) -> None:
        """Count inferences of contracts, as good. Shape: both (rows,)."""
        width = self._seen.shape[1]
        np.add.at(self._seen.reshape(-1), (slot & self._mask) * width + contract, 1)

    def mark(self, slot: Int64, slo: Int64) -> None:
        """Count bad ones among the inferences that were seen. Shape: both (rows,)."""
        width = self._bad.shape[1]
        np.add.at(self._bad.reshape(-1), (slot & self._mask) * width + slo, 1)

    def count(self, slot: Int64, slo: Int64, bad: Bool) -> None:
        """Count events of single SLOs. Shape: all (rows,)."""
        np.add.at(self._own, (slot & self._mask, slo, bad.astype(np.int64)), 1)

    def waiting(self) -> Int64:
        """Copy what waits, nearest slot first. Shape: (ahead, slos, 2)."""
        return self._counts(self.head + 1 + np.arange(self.ahead))

    def take_late(self) -> tuple[Int64, Int64]:
        """Take all late slots. Shape: slots (k,), counts (k, slos, 2)."""
        return self._take(self.oldest, self.head)

    def take_to(self, head: int) -> tuple[Int64, Int64]:
        """Move the head and take what it passes. Shape: as take_late, which must come before."""
        first, self.head = self.head + 1, head
        return self._take(first, min(head, first - 1 + self.ahead))

    def _take(self, first: int, last: int) -> tuple[Int64, Int64]:
        slots = np.arange(first, last + 1)
        rows = slots & self._mask
        # A bad inference is seen as well, so it needs no look of its own.
        used = self._seen[rows].any(axis=1) | self._own[rows].any(axis=(1, 2))
        slots, rows = slots[used], rows[used]
        counts = self._counts(slots)
        for held in (self._seen, self._bad, self._own):
            held[rows] = 0
        return slots, counts

    def _counts(self, slots: Int64) -> Int64:
        rows = slots & self._mask
        counts: Int64 = self._own[rows]
        bad = self._bad[rows, :-1]
        counts[:, :, 0] += self._seen[rows][:, self._sees] - bad
        counts[:, :, 1] += bad
        return counts

    def restore(self, head: int, waiting: Int64, slos: list[tuple[int, int]]) -> None:
        """Put back what waited. `slos` pairs an index of the state with one of this stage."""
        self.head = head
        kept = waiting[: self.ahead].copy()
        # With a shorter limit for clocks that are ahead, what is beyond it counts at the limit.
        kept[-1] += waiting[self.ahead :].sum(axis=0)
        rows = (head + 1 + np.arange(len(kept))) & self._mask
        for theirs, ours in slos:
            self._own[rows, ours] = kept[:, theirs]
