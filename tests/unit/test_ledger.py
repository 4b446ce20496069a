"""The ledger balances after every step of any history, and after every restart."""

import json
import threading
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.batch import Json, Signal
from gateway.ledger import NO_DESTINATION, Balance, Delivery, Ledger

ITEMS = st.integers(0, 1000)
TRACES, METRICS = Signal.TRACES, Signal.METRICS
Named = dict[tuple[Signal, str], int]


def traces(**counts: int) -> Named:
    """Count items of traces by name."""
    return {(TRACES, name): count for name, count in counts.items()}


class History(RuleBasedStateMachine):
    """Batches go through a gateway with two destinations that is stopped at any time."""

    def __init__(self) -> None:
        super().__init__()
        nothing = dict.fromkeys(Signal, Delivery())
        self.outbox = {"a": dict(nothing), "b": dict(nothing)}
        self.ledger = Ledger(self.outbox)
        self.queue: list[Named] = []
        self.undelivered: Counter[Signal] = Counter()
        self.received: Counter[Signal] = Counter()
        # What the database holds: the ledger of the last flush and the outbox of its transaction.
        self.saved: Json = self.ledger.state()
        self.after_save: list[Named] = []

    @rule(signal=st.sampled_from(Signal), grpc=ITEMS, http=ITEMS)
    def take(self, signal: Signal, grpc: int, http: int) -> None:
        batch = {(signal, "grpc"): grpc, (signal, "http"): http}
        self.queue.append(batch)
        self.received[signal] += grpc + http
        self.ledger.received(batch)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def process(self, data: st.DataObject) -> None:
        batch = self.queue.pop(0)
        ((signal, _), *_) = batch
        total = sum(batch.values())
        kept = data.draw(st.integers(0, total))
        rule_count = data.draw(st.integers(0, total - kept))
        self.after_save.append(batch)
        self.undelivered[signal] += kept
        sampled_out = {
            (signal, "sampled:a"): rule_count,
            (signal, "sampled:b"): total - kept - rule_count,
        }
        self.ledger.processed(batch, sampled_out, {signal: kept})

    @precondition(lambda self: self.queue)
    @rule()
    def quarantine(self) -> None:
        batch = self.queue.pop(0)
        self.after_save.append(batch)
        self.ledger.quarantined(batch, "ValueError")

    @rule()
    def flush(self) -> None:
        items, self.undelivered = self.undelivered, Counter()
        self.saved, self.after_save = self.ledger.state(), []
        self.outbox = {
            name: {
                signal: Delivery(
                    pending=d.pending + items[signal], forwarded=d.forwarded, dead=d.dead
                )
                for signal, d in by_signal.items()
            }
            for name, by_signal in self.outbox.items()
        }
        self.ledger.flushed(items, self.outbox)

    @rule(name=st.sampled_from(["a", "b"]), signal=st.sampled_from(Signal), data=st.data())
    def deliver(self, name: str, signal: Signal, data: st.DataObject) -> None:
        before = self.outbox[name][signal]
        sent = data.draw(st.integers(0, before.pending))
        dead = data.draw(st.integers(0, before.pending - sent))
        self.outbox[name][signal] = Delivery(
            pending=before.pending - sent - dead,
            forwarded=before.forwarded + sent,
            dead=before.dead + dead,
        )
        self.ledger.flushed({}, self.outbox)

    @rule()
    def restart(self) -> None:
        """End without warning: everything after the last flush is in the journal only."""
        self.ledger = Ledger(self.outbox)
        self.ledger.restore(self.saved)
        self.undelivered = Counter()
        self.queue = [*self.after_save, *self.queue]
        self.after_save = []
        for batch in self.queue:
            self.ledger.received(batch)

    @invariant()
    def every_signal_balances_at_every_destination(self) -> None:
        balances = self.ledger.snapshot().balances()
        expected = [(name, signal) for name in ("a", "b") for signal in Signal]
        assert [(each.destination, each.signal) for each in balances] == expected
        for each in balances:
            assert each.residue == 0
            assert each.received == self.received[each.signal]
            assert each.pending >= 0


TestHistory = History.TestCase


def balance_of(ledger: Ledger, signal: Signal = TRACES) -> Balance:
    """Read the balance of a signal at the only destination."""
    (found,) = [each for each in ledger.snapshot().balances() if each.signal is signal]
    return found


def test_site_without_a_destination_accounts_for_kept_items_under_a_rule() -> None:
    ledger = Ledger({})
    ledger.received(traces(grpc=5, http=2))
    ledger.processed(traces(grpc=5, http=2), {(TRACES, "sampled:default"): 3}, {TRACES: 4})
    snapshot = ledger.snapshot()
    assert snapshot.sampled_out == {(TRACES, "sampled:default"): 3, (TRACES, NO_DESTINATION): 4}
    balance = balance_of(ledger)
    assert (balance.destination, balance.residue, balance.pending) == ("", 0, 0)


def test_what_an_earlier_destination_had_stays_counted_by_signal() -> None:
    ledger = Ledger({}, gone={METRICS: 7})
    assert (balance_of(ledger, METRICS).dropped, balance_of(ledger).dropped) == (7, 0)


def test_items_are_pending_until_they_are_processed_stored_and_delivered() -> None:
    ledger = Ledger({"cloud": {TRACES: Delivery()}})

    def pending() -> int:
        balance = balance_of(ledger)
        assert balance.residue == 0
        return balance.pending

    ledger.received(traces(grpc=10))
    assert pending() == 10
    ledger.processed(traces(grpc=10), {(TRACES, "sampled:default"): 4}, {TRACES: 6})
    assert pending() == 6
    ledger.flushed({TRACES: 6}, {"cloud": {TRACES: Delivery(pending=6)}})
    assert pending() == 6
    ledger.flushed({}, {"cloud": {TRACES: Delivery(forwarded=5, dead=1)}})
    assert pending() == 0


def test_replayed_frames_that_are_in_the_outbox_are_not_counted_again() -> None:
    ledger = Ledger({"cloud": {TRACES: Delivery(forwarded=6)}})
    ledger.received(traces(grpc=10))
    ledger.processed(traces(grpc=10), {(TRACES, "sampled:default"): 4}, {TRACES: 6})
    ledger.already_delivered({TRACES: 6})
    balance = balance_of(ledger)
    assert (balance.residue, balance.pending, balance.forwarded) == (0, 0, 6)


def test_a_residue_is_shown_and_not_hidden() -> None:
    for received, residue in ((5, 0), (7, 2)):
        found = Balance(
            signal=TRACES,
            destination="cloud",
            received=received,
            forwarded=1,
            sampled_out=1,
            dropped=1,
            quarantined=1,
            pending=1,
            dropped_by={},
        )
        assert found.residue == residue


def test_a_snapshot_is_a_copy() -> None:
    ledger = Ledger({"cloud": {TRACES: Delivery()}})
    before = ledger.snapshot()
    ledger.received(traces(grpc=1))
    assert before.received == {}
    assert before.unprocessed[TRACES] == 0


def test_state_survives_json_and_leaves_out_what_was_not_processed() -> None:
    ledger = Ledger({"cloud": {TRACES: Delivery()}})
    ledger.received({**traces(grpc=3, http=4), (METRICS, "http"): 2})
    ledger.processed(traces(grpc=3), {(TRACES, "sampled:default"): 3}, {})
    ledger.quarantined({(METRICS, "http"): 2}, "ValueError")
    state = json.loads(json.dumps(ledger.state()))
    ledger.received(traces(grpc=100))
    assert state == {
        "processed": {"traces": {"grpc": 3}, "metrics": {"http": 2}},
        "sampled_out": {"traces": {"sampled:default": 3}},
        "quarantined": {"metrics": {"ValueError": 2}},
    }
    again = Ledger({"cloud": {TRACES: Delivery()}})
    again.restore(state)
    assert again.snapshot().received == {**traces(grpc=3), (METRICS, "http"): 2}
    assert set(again.snapshot().unprocessed.values()) == {0}


def test_every_snapshot_balances_while_threads_count() -> None:
    ledger = Ledger({"cloud": {TRACES: Delivery()}})
    rounds = 2_000
    done = threading.Event()

    def work() -> None:
        for number in range(rounds):
            ledger.received(traces(grpc=number))
            kept = -(-number // 2)
            lost = {(TRACES, "sampled:default"): number // 2}
            ledger.processed(traces(grpc=number), lost, {TRACES: kept})
            ledger.flushed({TRACES: kept}, {})
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        while not done.is_set():
            snapshot = ledger.snapshot()
            assert snapshot.unprocessed[TRACES] >= 0
            assert snapshot.undelivered.get(TRACES, 0) >= 0
    finally:
        thread.join()
    assert ledger.snapshot().received == traces(grpc=sum(range(rounds)))
