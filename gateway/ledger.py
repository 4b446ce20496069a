"""The ledger: what was received and what became of it, balanced at every instant.

Law: for each destination, `received = forwarded + sampled_out + dropped + quarantined + pending`
in items, in every snapshot. Each term is counted where it happens and moved under one lock, so the
equation is a finding and not a definition; a residue is a defect and is exported as one.

`pending` is the sum of three places a span can be in: acknowledged but not yet processed, decided
but not yet in the outbox, and in the outbox. The last is counted in the database, in the same
transaction as the frames.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.batch import Json, Signal

# Kept spans of a site that forwards to no one are accounted for under this rule.
NO_DESTINATION: Final = "no_destination"
# Refused for good, given up, or kept for a destination that was not there then.
UNDELIVERABLE: Final = "undeliverable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Items of one destination, as the outbox's database counts them."""

    pending: int = 0
    forwarded: int = 0
    dead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The identity of one destination. Units: items."""

    destination: str
    received: int
    forwarded: int
    sampled_out: int
    dropped: int
    quarantined: int
    pending: int

    @property
    def residue(self) -> int:
        """What is not accounted for; 0 unless there is a defect."""
        settled = self.forwarded + self.sampled_out + self.dropped + self.quarantined
        return self.received - settled - self.pending


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSnapshot:
    """All counters at one instant. Units: items; `received` by transport name."""

    received: Mapping[str, int]
    sampled_out: Mapping[str, int]
    quarantined: Mapping[str, int]
    deliveries: Mapping[str, Delivery]
    unprocessed: int
    undelivered: int  # decided, not yet in the outbox
    gone: int = 0  # kept for destinations that a site without any had once

    def balances(self) -> tuple[Balance, ...]:
        """Balance every destination, or the site alone when it forwards to no one."""
        deliveries = self.deliveries or {"": Delivery(dead=self.gone)}
        return tuple(
            Balance(
                destination=name,
                received=sum(self.received.values()),
                forwarded=each.forwarded,
                sampled_out=sum(self.sampled_out.values()),
                dropped=each.dead,
                quarantined=sum(self.quarantined.values()),
                pending=self.unprocessed + self.undelivered + each.pending,
            )
            for name, each in deliveries.items()
        )


class Ledger:
    """The one owner of the accounting counters. Safe to use from any thread."""

    signal: Final = Signal.TRACES

    def __init__(self, destinations: Mapping[str, Delivery], gone: int = 0) -> None:
        self._gone = gone
        self._lock = threading.Lock()
        self._deliveries = dict(destinations)
        self._received: Counter[str] = Counter()
        self._processed: Counter[str] = Counter()
        self._sampled_out: Counter[str] = Counter()
        self._quarantined: Counter[str] = Counter()
        self._undelivered = 0

    def received(self, by_transport: Mapping[str, int]) -> None:
        """Count acknowledged items; they are pending until `processed`."""
        with self._lock:
            self._received.update(by_transport)

    def processed(
        self, by_transport: Mapping[str, int], sampled_out: Mapping[str, int], kept: int
    ) -> None:
        """Move the items of one batch from unprocessed to what was decided about them."""
        with self._lock:
            self._processed.update(by_transport)
            self._sampled_out.update(sampled_out)
            if self._deliveries:
                self._undelivered += kept
            else:
                self._sampled_out[NO_DESTINATION] += kept

    def quarantined(self, by_transport: Mapping[str, int], reason: str) -> None:
        """Move the items of a batch that could not be processed."""
        with self._lock:
            self._processed.update(by_transport)
            self._quarantined[reason] += sum(by_transport.values())

    def already_delivered(self, items: int) -> None:
        """Take out items whose frames were in the outbox before the replay made them again."""
        with self._lock:
            self._undelivered -= items

    def flushed(self, items: int, deliveries: Mapping[str, Delivery]) -> None:
        """Replace the outbox's totals after a commit that stored `items`."""
        with self._lock:
            self._undelivered -= items
            self._deliveries.update(deliveries)

    def snapshot(self) -> LedgerSnapshot:
        """Copy all counters at one instant."""
        with self._lock:
            return LedgerSnapshot(
                received=dict(self._received),
                sampled_out=dict(self._sampled_out),
                quarantined=dict(self._quarantined),
                deliveries=dict(self._deliveries),
                unprocessed=self._received.total() - self._processed.total(),
                undelivered=self._undelivered,
                gone=self._gone,
            )

    def state(self) -> Json:
        """Return what a checkpoint keeps: everything about batches that were processed.

        Nothing is undelivered then: a checkpoint puts all frames up to its cursor in the outbox.
        """
        with self._lock:
            return {
                "processed": dict(self._processed),
                "sampled_out": dict(self._sampled_out),
                "quarantined": dict(self._quarantined),
            }

    def restore(self, state: Json) -> None:
        """Continue from a checkpoint, before anything is received."""
        with self._lock:
            self._received = Counter(state["processed"])
            self._processed = Counter(state["processed"])
            self._sampled_out = Counter(state["sampled_out"])
            self._quarantined = Counter(state["quarantined"])
