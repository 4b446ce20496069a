"""What has to be true: the records that are in the journal, and an uninterrupted run over them.

Law: a record counts from its acknowledgement on, or from the start that finds it although it was
never acknowledged. The run is made of the pure rooms alone and never stops; numbers of items are
counted from the requests as they were made, not as the gateway read them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gateway.batch import Payload, Signal
from gateway.journal.log import GroupRecord
from gateway.ledger import LedgerSnapshot
from gateway.measure.state import Array
from gateway.otlp.decode import OpenBatch
from gateway.pipeline import Stages, run, run_parcel
from tests.simulation.traffic import MODEL, VERSION, Request, numbers_of


@dataclass(slots=True)
class Run:
    """The uninterrupted run: stages, and the numbers that they let out, by signal."""

    stages: Stages
    open_batch: OpenBatch
    kept: dict[Signal, set[int]] = field(
        default_factory=lambda: {signal: set() for signal in Signal}
    )

    def take(self, record: GroupRecord) -> None:
        """Take one record through the pure rooms."""
        offset = 0
        for entry in record.entries:
            body = bytes(record.body[offset : offset + entry.length])
            offset += entry.length
            self.open_batch.add(
                Payload(
                    body=body,
                    signal=entry.signal,
                    transport=entry.transport,
                    identity=entry.identity,
                    arrival_ns=entry.arrival_ns,
                    wire_bytes=entry.wire_bytes,
                )
            )
        batch = self.open_batch.take(record.sequence)
        if not len(batch.requests) and not batch.parcels:
            return
        for chunk in run(batch, self.stages).chunks:
            self.kept[Signal.TRACES].update(numbers_of(Signal.TRACES, chunk.body))
        for parcel in batch.parcels:
            for chunk in run_parcel(parcel, self.stages).chunks:
                self.kept[parcel.signal].update(numbers_of(parcel.signal, chunk.body))


@dataclass(slots=True)
class Model:
    """`by_arrival` names the request of each arrival; arrivals are unique in a schedule."""

    stages_of: Callable[[], Stages]
    slot_keys: Sequence[bytes]
    by_arrival: dict[int, Request] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)  # arrivals whose client was told success
    attempts: dict[int, list[GroupRecord]] = field(default_factory=dict)
    records: dict[int, GroupRecord] = field(default_factory=dict)  # that count, by sequence
    acknowledged: set[int] = field(default_factory=set)  # sequences of them
    aside: set[int] = field(default_factory=set)  # sequences that ended the process twice
    _run: Run | None = None
    _through: int = 0
    _expected: tuple[Any, dict[str, Any]] | None = None  # state of the run, and of when

    # --- what happens ---------------------------------------------------------------------

    def attempt(self, record: GroupRecord) -> None:
        """Note that a record is about to be written."""
        kept = GroupRecord(
            sequence=record.sequence, entries=record.entries, body=bytes(record.body)
        )
        self.attempts.setdefault(record.sequence, []).append(kept)

    def acknowledge(self, sequence: int) -> None:
        """Note that the newest attempt at a sequence is durable."""
        assert sequence not in self.acknowledged, "a sequence is used once"
        self.acknowledged.add(sequence)
        self.records[sequence] = self.attempts[sequence][-1]

    def met(self, replayed: Mapping[int, GroupRecord]) -> list[int]:
        """Compare what a start has read, as far as it came, with what was written.

        Returns the newest arrival of each record that counts from now on.
        """
        new: list[int] = []
        for sequence, record in replayed.items():
            known = self.attempts.get(sequence, [])
            if sequence in self.acknowledged:
                known = [self.records[sequence]]
            assert any(_same(record, each) for each in known), f"record {sequence} is another"
            if sequence not in self.records:
                assert sequence > self._through, "a record comes back behind newer ones"
                self.records[sequence] = record
                new.append(max(entry.arrival_ns for entry in record.entries))
        return new

    def found(self, cursor: int, outbox_cursor: int, replayed: Mapping[int, GroupRecord]) -> None:
        """Compare what a whole start has read with what it had to find."""
        due = {each for each in self.acknowledged if each > cursor}
        assert due <= replayed.keys(), f"acknowledged, and lost: {sorted(due - replayed.keys())}"
        gone = {each for each in self.records if each > cursor} - replayed.keys()
        told = {each for each in gone if each <= outbox_cursor}
        assert not told, f"forwarded, and not in the statistics: {sorted(told)}"
        for sequence in gone:  # never acknowledged, and nothing came of it
            del self.records[sequence]
            self._run = None

    def set_aside(self, sequences: Iterable[int]) -> None:
        """Leave records out of the run, because starts have left them out."""
        new = set(sequences) - self.aside
        if new:
            self.aside |= new
            self._run = None

    # --- what must be ---------------------------------------------------------------------

    def run(self) -> Run:
        """Bring the uninterrupted run to the newest record."""
        if self._run is None:
            self._run, self._through = Run(self.stages_of(), OpenBatch(self.slot_keys)), 0
            self._expected = None
        for sequence in sorted(each for each in self.records if each > self._through):
            if sequence not in self.aside:
                self._run.take(self.records[sequence])
            self._through = sequence
        return self._run

    def requests(self, *, aside: bool = True) -> list[Request]:
        """List the requests of all records that count."""
        return [
            self.by_arrival[entry.arrival_ns]
            for sequence, record in sorted(self.records.items())
            if aside or sequence not in self.aside
            for entry in record.entries
        ]

    def check_answers(self) -> None:
        """Every request whose client was told success is in a record."""
        held = {entry.arrival_ns for each in self.records.values() for entry in each.entries}
        assert self.answered <= held, "a client was told success for what is nowhere"

    def check_ledger(self, snapshot: LedgerSnapshot) -> None:
        """Every item is accounted for, and what was received is what is in the journal."""
        received = Counter(dict.fromkeys(Signal, 0))
        for request in self.requests():
            received[request.signal] += len(request.numbers)
        for balance in snapshot.balances():
            assert balance.residue == 0, balance
            assert balance.received == received[balance.signal], (balance, received)
            assert min(balance.forwarded, balance.pending, balance.dropped) >= 0, balance
            assert self.aside or balance.quarantined == 0, balance

    def check_measure(self, stages: Stages) -> None:
        """The statistics are those of a naive count of the requests."""
        spans = [each for each in self.requests(aside=False) if each.signal is Signal.TRACES]
        views = stages.measure.snapshot().series
        counted = [(each.model, each.version, each.ok + each.failed, each.failed) for each in views]
        total, failed = sum(len(each.numbers) for each in spans), sum(each.failed for each in spans)
        assert counted == ([(MODEL, VERSION, total, failed)] if total else []), (counted, total)
        devices = stages.measure.snapshot().devices
        assert int(devices.spans.sum()) == total

    def check_state(self, stages: Stages, *, steady: bool) -> None:
        """The state is that of the uninterrupted run.

        An idle core tells the measurements a time; if the wall clock was set back after that, then
        later batches are older than it, and only counts that no time divides are the same.
        """
        expected = self.run().stages
        later_ns = max(stages.measure.now_ns, expected.measure.now_ns)
        left = _state(stages, later_ns, self)
        key = (later_ns, self._through, len(self.aside))
        if self._expected is None or self._expected[0] != key or not steady:
            self._expected = key, _state(expected, later_ns, self)
        right = self._expected[1]
        assert left.keys() == right.keys()
        bad = {name for name in left if _differ(left[name], right[name])}
        if not steady:
            bad = {name for name in bad if name.startswith(("series/", "decide/"))}
        assert not bad, f"not as in an uninterrupted run: {sorted(bad)}"


def _differ(left: Array, right: Array) -> bool:
    if left.shape == right.shape and left.tobytes() == right.tobytes():
        return False
    return not np.array_equal(left, right, equal_nan=left.dtype.kind == "f")


def _same(left: GroupRecord, right: GroupRecord) -> bool:
    return left.entries == right.entries and bytes(left.body) == bytes(right.body)


def _state(stages: Stages, now_ns: int, model: Model) -> dict[str, Any]:
    """Copy a state at a time, through a copy of the rooms, which stay as they are."""
    measure, decide = stages.measure.state(), stages.decide.state()
    if stages.measure.now_ns < now_ns:
        other = model.stages_of()
        other.measure.restore(measure)
        other.measure.advance(now_ns + 2_000_000_000)
        measure = other.measure.state()
    return {**measure, **{f"decide/{name}": each for name, each in decide.items()}}
