"""The ledger balances after every step of any history, and after every restart."""

import threading
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.batch import Json
from gateway.ledger import NO_DESTINATION, Balance, Delivery, Ledger

ITEMS = st.integers(0, 1000)


class History(RuleBasedStateMachine):
    """Batches go through a gateway with two destinations that is stopped at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = {"a": Delivery(), "b": Delivery()}
        self.ledger = Ledger(self.outbox)
        self.queue: list[dict[str, int]] = []
        self.undelivered = 0
        self.received = 0
        # What the database holds: the ledger of the last flush and the outbox of its transaction.
        self.saved: Json = self.ledger.state()
        self.after_save: list[dict[str, int]] = []

    @rule(grpc=ITEMS, http=ITEMS)
    def take(self, grpc: int, http: int) -> None:
        batch = {"grpc": grpc, "http": http}
        self.queue.append(batch)
        self.received += grpc + http
        self.ledger.received(batch)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def process(self, data: st.DataObject) -> None:
        batch = self.queue.pop(0)
        total = sum(batch.values())
        kept = data.draw(st.integers(0, total))
        rule_count = data.draw(st.integers(0, total - kept))
        self.after_save.append(batch)
        self.undelivered += kept
        self.ledger.processed(
            batch, {"sampled:a": rule_count, "sampled:b": total - kept - rule_count}, kept
        )

    @precondition(lambda self: self.queue)
    @rule()
    def quarantine(self) -> None:
        batch = self.queue.pop(0)
        self.after_save.append(batch)
        self.ledger.quarantined(batch, "ValueError")

    @rule()
    def flush(self) -> None:
        items, self.undelivered = self.undelivered, 0
        self.saved, self.after_save = self.ledger.state(), []
        self.outbox = {
            name: Delivery(pending=d.pending + items, forwarded=d.forwarded, dead=d.dead)
            for name, d in self.outbox.items()
        }
        self.ledger.flushed(items, self.outbox)

    @rule(name=st.sampled_from(["a", "b"]), data=st.data())
    def deliver(self, name: str, data: st.DataObject) -> None:
        before = self.outbox[name]
        sent = data.draw(st.integers(0, before.pending))
        dead = data.draw(st.integers(0, before.pending - sent))
        self.outbox[name] = Delivery(
            pending=before.pending - sent - dead,
            forwarded=before.forwarded + sent,
            dead=before.dead + dead,
        )
        self.ledger.flushed(0, dict(self.outbox))

    @rule()
    def restart(self) -> None:
        """End without warning: everything after the last flush is in the journal only."""
        self.ledger = Ledger(self.outbox)
        self.ledger.restore(self.saved)
        self.undelivered = 0
        self.queue = [*self.after_save, *self.queue]
        self.after_save = []
        for batch in self.queue:
            self.ledger.received(batch)

    @invariant()
    def every_destination_balances(self) -> None:
        balances = self.ledger.snapshot().balances()
        assert [each.destination for each in balances] == ["a", "b"]
        for each in balances:
            assert each.residue == 0
            assert each.received == self.received
            assert each.pending >= 0


TestHistory = History.TestCase


def test_site_without_a_destination_accounts_for_kept_items_under_a_rule() -> None:
    ledger = Ledger({})
    ledger.received({"grpc": 5, "http": 2})
    ledger.processed({"grpc": 5, "http": 2}, {"sampled:default": 3}, 4)
    snapshot = ledger.snapshot()
    assert snapshot.sampled_out == {"sampled:default": 3, NO_DESTINATION: 4}
    (balance,) = snapshot.balances()
    assert (balance.destination, balance.residue, balance.pending) == ("", 0, 0)


def test_items_are_pending_until_they_are_processed_stored_and_delivered() -> None:
    ledger = Ledger({"cloud": Delivery()})

    def pending() -> int:
        (balance,) = ledger.snapshot().balances()
        assert balance.residue == 0
        return balance.pending

    ledger.received({"grpc": 10})
    assert pending() == 10
    ledger.processed({"grpc": 10}, {"sampled:default": 4}, 6)
    assert pending() == 6
    ledger.flushed(6, {"cloud": Delivery(pending=6)})
    assert pending() == 6
    ledger.flushed(0, {"cloud": Delivery(forwarded=5, dead=1)})
    assert pending() == 0


def test_replayed_frames_that_are_in_the_outbox_are_not_counted_again() -> None:
    ledger = Ledger({"cloud": Delivery(forwarded=6)})
    ledger.received({"grpc": 10})
    ledger.processed({"grpc": 10}, {"sampled:default": 4}, 6)
    ledger.already_delivered(6)
    (balance,) = ledger.snapshot().balances()
    assert (balance.residue, balance.pending, balance.forwarded) == (0, 0, 6)


def test_a_residue_is_shown_and_not_hidden() -> None:
    terms = {"forwarded": 1, "sampled_out": 1, "dropped": 1, "quarantined": 1, "pending": 1}
    assert Balance(destination="cloud", received=5, **terms).residue == 0
    assert Balance(destination="cloud", received=7, **terms).residue == 2


def test_a_snapshot_is_a_copy() -> None:
    ledger = Ledger({"cloud": Delivery()})
    before = ledger.snapshot()
    ledger.received({"grpc": 1})
    assert before.received == {}
    assert before.unprocessed == 0


def test_state_survives_json_and_leaves_out_what_was_not_processed() -> None:
    ledger = Ledger({"cloud": Delivery()})
    ledger.received({"grpc": 3, "http": 4})
    ledger.processed({"grpc": 3}, {"sampled:default": 3}, 0)
    state = ledger.state()
    ledger.received({"grpc": 100})
    assert state == {"processed": {"grpc": 3}, "sampled_out": {"sampled:default": 3}} | {
        "quarantined": {}
    }
    again = Ledger({"cloud": Delivery()})
    again.restore(state)
    assert again.snapshot().received == {"grpc": 3}
    assert again.snapshot().unprocessed == 0


def test_every_snapshot_balances_while_threads_count() -> None:
    ledger = Ledger({"cloud": Delivery()})
    rounds, total = 2_000, Counter[str]()
    done = threading.Event()

    def work() -> None:
        for number in range(rounds):
            ledger.received({"grpc": number})
            ledger.processed({"grpc": number}, {"sampled:default": number // 2}, -(-number // 2))
            ledger.flushed(-(-number // 2), {})
            total["grpc"] += number
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        while not done.is_set():
            snapshot = ledger.snapshot()
            assert snapshot.unprocessed >= 0
            assert snapshot.undelivered >= 0
    finally:
        thread.join()
    assert ledger.snapshot().received == total
