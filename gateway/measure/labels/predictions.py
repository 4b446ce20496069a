"""Predictions of recent traces, kept until their labels can come.

Law: one row for each trace and contract, the first one that came; a further span of the same is
counted as repeated. Bounded in rows: when there is no room, first rows go that are over, and then
the threshold is raised that the randomness of a trace id must reach. Every trace above it is kept,
so what is kept is a uniform sample of traces whatever their predictions were, and a label tells
from its trace id alone whether its trace was left out.
Source: OpenTelemetry, "TraceState: Probability Sampling": R is the low 56 bits of the trace id.

Rows are appended to columns and hashed later, many at once: open addressing, triangular probing,
at least two slots for a row. A row that finds no slot within PROBES_MAX is left out and counted:
random ids never get there, and ids made to collide cost no more than that.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from gateway.measure.groups import Groups
from gateway.measure.state import Array, Int64, State
from gateway.tables import Bool, Int32, UInt64

RANGE: Final = 1 << 56
RANDOM_MASK: Final = np.uint64(RANGE - 1)
NEVER_NS: Final = (1 << 63) - 1
# Codes of classes are above these.
NO_LABEL: Final = -(1 << 31)
NO_PREDICTION: Final = NO_LABEL + 1
UNSEEN_CLASS: Final = NO_LABEL + 2
CODE_MIN: Final = NO_LABEL + 3
CODE_MAX: Final = (1 << 31) - 1
# Stages below these count the deadlines of a row that have passed.
OVERDUE: Final = 254
GONE: Final = 255
NEVER_GOOD: Final = 255
NO_SCORE: Final = 255
ANY_CONTRACT: Final = -1

PROBES_MAX: Final = 64
# Rows that are hashed at once, such that their columns stay in the cache.
CHUNK_ROWS: Final = 8_192
SLOTS_MIN: Final = 1 << 10
_EMPTY: Final = -1
_MIX_HI: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = np.uint64(0xD6E8FEB86659FD93)
_COLUMNS: Final[Mapping[str, type]] = {
    "hi": np.uint64,
    "lo": np.uint64,
    "due_ns": np.int64,
    "group": np.int32,
    "code": np.int32,
    "label": np.int32,
    "stage": np.uint8,
    "good_from": np.uint8,
    "score": np.uint8,
}
ROW_BYTES: Final = sum(np.dtype(each).itemsize for each in _COLUMNS.values())


def is_kept(lo: UInt64, threshold: int) -> Bool:
    """Say which traces reach a threshold; none reaches RANGE. Shape: (rows,)."""
    kept: Bool = (lo & RANDOM_MASK) >= np.uint64(threshold)
    return kept


class Predictions:
    """Rows by order of coming.

    Shape: columns (rows,), of which the first `count` are used. Units: due_ns is the next time at
    which something is to be done about a row, NEVER_NS for none. `label` is NO_LABEL until one
    came; `good_from` is the first stage whose deadline the label kept, NEVER_GOOD if none; `score`
    is the bin of the confidence, NO_SCORE if none.
    """

    hi: UInt64
    lo: UInt64
    due_ns: Int64
    group: Array
    code: Array
    label: Array
    stage: Array
    good_from: Array
    score: Array

    def __init__(self, groups: Groups, rows_max: int) -> None:
        self._groups = groups
        self.rows_max = max(2, rows_max)
        for name, kind in _COLUMNS.items():
            setattr(self, name, np.zeros(0, dtype=kind))
        self.count = 0
        self._hashed = 0
        self._slots = np.full(SLOTS_MIN, _EMPTY, dtype=np.int32)
        self.threshold = 0
        # Rows that were ever appended, by which one sees whether there are new ones.
        self.appended = 0
        self.repeated = 0
        self.thinned = 0
        self.crowded = 0
        self.next_due_ns = NEVER_NS

    @property
    def probability(self) -> float:
        """Share of traces that are kept."""
        return (RANGE - self.threshold) / RANGE

    def append(
        self,
        hi: UInt64,
        lo: UInt64,
        group: Int64,
        due_ns: Int64,
        code: Array,
        score: Array | None = None,
    ) -> None:
        """Add rows that reach the threshold, without scores for None. Shape: all (rows,)."""
        columns = {"hi": hi, "lo": lo, "group": group, "due_ns": due_ns, "code": code}
        columns["score"] = np.full(len(lo), NO_SCORE, np.uint8) if score is None else score
        if self.count + len(lo) > self.rows_max:
            self._make_room(lo)
            kept = is_kept(lo, self.threshold)
            self.thinned += int(len(lo) - np.count_nonzero(kept))
            columns = {name: each[kept] for name, each in columns.items()}
        size = len(columns["lo"])
        if size == 0:
            return
        first, last = self.count, self.count + size
        if last > len(self.lo):
            self._grow(last)
        for name, each in columns.items():
            getattr(self, name)[first:last] = each
        self.label[first:last] = NO_LABEL
        self.stage[first:last] = 0
        self.good_from[first:last] = NEVER_GOOD
        self.count = last
        self.appended += size
        self.next_due_ns = min(self.next_due_ns, int(columns["due_ns"].min()))

    def _grow(self, rows: int) -> None:
        size = min(self.rows_max, max(rows, 2 * len(self.lo), SLOTS_MIN))
        for name, kind in _COLUMNS.items():
            larger: Array = np.zeros(size, dtype=kind)
            larger[: self.count] = getattr(self, name)[: self.count]
            setattr(self, name, larger)

    def settle(self) -> None:
        """Hash the rows that wait for it, and leave out those of traces that are known."""
        if self._hashed == self.count:
            return
        first = self._hashed
        if 2 * self.count > len(self._slots):
            size = max(SLOTS_MIN, 1 << (2 * self.count - 1).bit_length())
            self._slots = np.full(size, _EMPTY, dtype=np.int32)
            first = 0
        size = self.count - first
        slot, is_out = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.bool_)
        contracts = self._groups.contract
        several = bool((contracts != contracts[0]).any())
        for begin in range(first, self.count, CHUNK_ROWS):
            rows = np.arange(begin, min(begin + CHUNK_ROWS, self.count), dtype=np.int32)
            at = slice(begin - first, begin - first + len(rows))
            slot[at], is_out[at] = self._hash(rows, several=several)
        self._close_up(first, slot, is_out)

    def _hash(self, rows: Int32, *, several: bool) -> tuple[Int64, Bool]:
        """Find a slot for rows: (slot, whether it is left out). Shape: all (rows,)."""
        hi, lo = self.hi[rows[0] : rows[-1] + 1], self.lo[rows[0] : rows[-1] + 1]
        slot = self._first_slots(hi, lo)
        tries = np.zeros(len(rows), dtype=np.int64)
        is_out = np.zeros(len(rows), dtype=np.bool_)
        pending = np.flatnonzero(self.stage[rows[0] : rows[-1] + 1] != GONE)
        mask = len(self._slots) - 1
        # A row that loses a slot finds it taken in the next pass, and goes on.
        for _ in range(2 * PROBES_MAX):
            if len(pending) == 0:
                break
            here = slot[pending]
            held = self._slots[here]
            is_free = held == _EMPTY
            taken = np.flatnonzero(~is_free)
            mine, held = pending[taken], held[taken]
            is_same = self.lo[held] == lo[mine]
            if is_same.any():
                is_same &= self.hi[held] == hi[mine]
                if several:
                    group = self.group
                    contracts = self._groups.contract
                    is_same &= contracts[group[held]] == contracts[group[rows[mine]]]
                is_gone = is_same & (self.stage[held] == GONE)
                is_out[mine[is_same & ~is_gone]] = True
                is_free[taken[is_gone]] = True
            claims = np.flatnonzero(is_free)
            claiming, wanted = rows[pending[claims]], here[claims]
            # Written backwards, so that the first one of a trace wins.
            self._slots[wanted[::-1]] = claiming[::-1]
            lost = pending[claims[self._slots[wanted] != claiming]]
            onward = mine[~is_same]
            tries[onward] += 1
            slot[onward] = (slot[onward] + tries[onward]) & mask
            ended = tries[onward] >= PROBES_MAX
            if ended.any():
                is_out[onward[ended]] = True
                self.crowded += int(np.count_nonzero(ended))
                self.repeated -= int(np.count_nonzero(ended))
                onward = onward[~ended]
            pending = onward if len(lost) == 0 else np.sort(np.concatenate((lost, onward)))
        self.repeated += int(np.count_nonzero(is_out))
        return slot, is_out

    def _close_up(self, begin: int, slot: Int64, is_out: Bool) -> None:
        """Close the gaps of rows that are left out. Shape: slot, is_out (rows from begin on,)."""
        self._hashed = self.count
        if not is_out.any():
            return
        gap = int(is_out.argmax())
        first = begin + gap
        kept = ~is_out[gap:]
        last = first + int(np.count_nonzero(kept))
        is_hashed = self.stage[first : self.count][kept] != GONE
        self._slots[slot[gap:][kept][is_hashed]] = np.arange(first, last)[is_hashed]
        for name in _COLUMNS:
            column = getattr(self, name)
            column[first:last] = column[first : self.count][kept]
        self.count = self._hashed = last

    def _first_slots(self, hi: UInt64, lo: UInt64) -> Int64:
        mixed = (lo ^ (hi * _MIX_HI)) * _MIX
        mixed ^= mixed >> np.uint64(32)
        return (mixed & np.uint64(len(self._slots) - 1)).astype(np.int64)

    def find(self, hi: UInt64, lo: UInt64, contract: Int64) -> tuple[Int64, Bool]:
        """Find the rows of traces: (row or -1, whether more than one contract has the trace).

        Shape: all (traces,); contract ANY_CONTRACT for whichever has it. Rows must be settled.
        """
        found = np.full(len(lo), -1, dtype=np.int64)
        several = np.zeros(len(lo), dtype=np.bool_)
        slot = self._first_slots(hi, lo)
        pending = np.arange(len(lo))
        mask = len(self._slots) - 1
        for probe in range(1, PROBES_MAX + 1):
            at = self._slots[slot[pending]]
            held = at != _EMPTY
            pending, at = pending[held], at[held]
            if len(pending) == 0:
                break
            is_same = (self.lo[at] == lo[pending]) & (self.hi[at] == hi[pending])
            is_same &= self.stage[at] != GONE
            wanted = contract[pending]
            is_any = wanted == ANY_CONTRACT
            is_same &= is_any | (self._groups.contract[self.group[at]] == wanted)
            hit = pending[is_same]
            several[hit] = found[hit] >= 0
            fresh = is_same & (found[pending] < 0)
            found[pending[fresh]] = at[fresh]
            pending = pending[(is_any & ~several[pending]) | (found[pending] < 0)]
            slot[pending] = (slot[pending] + probe) & mask
        return found, several

    def due(self, now_ns: int) -> Int64:
        """Return the rows about which something is to be done by now. Rows must be settled."""
        if now_ns < self.next_due_ns:
            return np.zeros(0, dtype=np.int64)
        due: Int64 = np.flatnonzero(self.due_ns[: self.count] <= now_ns)
        return due

    def rest(self) -> None:
        """Find out when something is to be done next."""
        self.next_due_ns = int(self.due_ns[: self.count].min(initial=NEVER_NS))

    def _make_room(self, lo: UInt64) -> None:
        """Let rows go until half of the room is free for these and others to come."""
        stage = self.stage[: self.count]
        for limit in (GONE, OVERDUE):
            kept = stage < limit
            if np.count_nonzero(kept) + len(lo) <= self.rows_max * 3 // 4:
                self.keep(kept)
                return
        wanted = self.rows_max // 2
        random = np.concatenate((self.lo[: self.count][kept], lo)) & RANDOM_MASK
        random.partition(len(random) - wanted)
        threshold = int(random[len(random) - wanted])
        if np.count_nonzero(random >= np.uint64(threshold)) > wanted:
            threshold += 1
        self.threshold = threshold
        fits = kept & is_kept(self.lo[: self.count], threshold)
        self.thinned += int(np.count_nonzero(kept & ~fits))
        self.keep(fits)

    def keep(self, kept: Bool) -> None:
        """Forget all rows but these. Shape: (count,)."""
        last = int(np.count_nonzero(kept))
        for name in _COLUMNS:
            column = getattr(self, name)
            column[:last] = column[: self.count][kept]
        self.count = last
        self._hashed = 0
        self._slots[:] = _EMPTY
        self.rest()

    def relax(self, open_rows: int) -> None:
        """Lower the threshold, for so many rows that are open, to where half the room is used."""
        wanted = self.rows_max // 2
        if self.threshold == 0 or open_rows > wanted // 2:
            return
        share = min(RANGE, (RANGE - self.threshold) * wanted // max(open_rows, 1))
        self.threshold = RANGE - share

    def state(self) -> State:
        """Copy all rows and counts."""
        numbers = [self.threshold, self.appended]
        counts = [self.repeated, self.thinned, self.crowded]
        return {
            **{name: getattr(self, name)[: self.count].copy() for name in _COLUMNS},
            "numbers": np.array(numbers, dtype=np.int64),
            "counts": np.array(counts, dtype=np.int64),
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Put rows and counts back; a merged state has no rows."""
        self.repeated, self.thinned, self.crowded = state["counts"].tolist()
        if "lo" not in state:
            return
        self.threshold, self.appended = state["numbers"].tolist()
        for name, kind in _COLUMNS.items():
            if name in state:
                setattr(self, name, state[name].astype(kind, copy=True))
        self.count = len(self.lo)
        if "score" not in state:  # an older state
            self.score = np.full(self.count, NO_SCORE, dtype=np.uint8)
        self.rest()
