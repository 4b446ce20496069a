"""The ledger: what was received and what became of it, balanced at every instant.

Law: for each signal and destination, `received = forwarded + sampled_out + dropped + quarantined +
pending` in items, in every snapshot. Each term is counted where it happens and moved under one
lock, so the equation is a finding and not a definition; a residue is a defect and is exported as
one.

`pending` is the sum of three places a span can be in: acknowledged but not yet processed, decided
but not yet in the outbox, and in the outbox. The last is counted in the database, in the same
transaction as the frames.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.batch import Json, Signal

# Kept items of a site that forwards to no one are accounted for under this rule.
NO_DESTINATION: Final = "no_destination"
# Refused for good, given up, or kept for a destination that was not there then.
UNDELIVERABLE: Final = "undeliverable"


# Items of a signal by a name: of a transport, a rule, or a reason.
Items = Mapping[tuple[Signal, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Items of one signal at one destination, as the outbox's database counts them.

    `dead_by` divides `dead` by cause.
    """

    pending: int = 0
    forwarded: int = 0
    dead: int = 0
    dead_by: Mapping[str, int] = field(default_factory=dict)


Deliveries = Mapping[str, Mapping[Signal, Delivery]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The identity of one signal at one destination. Units: items."""

    signal: Signal
    destination: str
    received: int
    forwarded: int
    sampled_out: int
    dropped: int
    quarantined: int
    pending: int
    dropped_by: Mapping[str, int]

    @property
    def residue(self) -> int:
        """What is not accounted for; 0 unless there is a defect."""
        settled = self.forwarded + self.sampled_out + self.dropped + self.quarantined
        return self.received - settled - self.pending


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSnapshot:
    """All counters at one instant. Units: items; `received` by transport name."""

    received: Items
    sampled_out: Items
    quarantined: Items
    deliveries: Deliveries
    unprocessed: Mapping[Signal, int]
    undelivered: Mapping[Signal, int]  # decided, not yet in the outbox
    gone: Mapping[Signal, int]  # kept for destinations that a site without any had once

    def balances(self) -> tuple[Balance, ...]:
        """Balance every signal at every destination, or at the site that forwards to no one."""
        deliveries: Deliveries = self.deliveries or {
            "": {signal: Delivery(dead=count) for signal, count in self.gone.items()}
        }
        return tuple(
            self._balance(signal, name, by_signal.get(signal, Delivery()))
            for name, by_signal in deliveries.items()
            for signal in Signal
        )

    def _balance(self, signal: Signal, name: str, delivery: Delivery) -> Balance:
        return Balance(
            signal=signal,
            destination=name,
            received=_total(self.received, signal),
            forwarded=delivery.forwarded,
            sampled_out=_total(self.sampled_out, signal),
            dropped=delivery.dead,
            quarantined=_total(self.quarantined, signal),
            pending=self.unprocessed.get(signal, 0)
            + self.undelivered.get(signal, 0)
            + delivery.pending,
            dropped_by=delivery.dead_by,
        )


class Ledger:
    """The one owner of the accounting counters. Safe to use from any thread."""

    def __init__(self, destinations: Deliveries, gone: Mapping[Signal, int] | None = None) -> None:
        self._gone = dict(gone or {})
        self._lock = threading.Lock()
        self._deliveries = {name: dict(each) for name, each in destinations.items()}
        self._received: Counter[tuple[Signal, str]] = Counter()
        self._processed: Counter[tuple[Signal, str]] = Counter()
        self._sampled_out: Counter[tuple[Signal, str]] = Counter()
        self._quarantined: Counter[tuple[Signal, str]] = Counter()
        self._undelivered: Counter[Signal] = Counter()

    def received(self, items: Items) -> None:
        """Count acknowledged items by transport; they are pending until `processed`."""
        with self._lock:
            self._received.update(items)

    def processed(self, items: Items, sampled_out: Items, kept: Mapping[Signal, int]) -> None:
        """Move items from unprocessed to what was decided about them."""
        with self._lock:
            self._processed.update(items)
            self._sampled_out.update(sampled_out)
            if self._deliveries:
                self._undelivered.update(kept)
            else:
                for signal, count in kept.items():
                    self._sampled_out[signal, NO_DESTINATION] += count

    def quarantined(self, items: Items, reason: str) -> None:
        """Move items that could not be processed."""
        with self._lock:
            self._processed.update(items)
            for (signal, _), count in items.items():
                self._quarantined[signal, reason] += count

    def already_delivered(self, kept: Mapping[Signal, int]) -> None:
        """Take out items whose frames were in the outbox before the replay made them again."""
        with self._lock:
            self._undelivered.subtract(kept)

    def flushed(self, items: Mapping[Signal, int], deliveries: Deliveries) -> None:
        """Replace the outbox's totals after a commit that stored `items`."""
        with self._lock:
            self._undelivered.subtract(items)
            self._deliveries.update({name: dict(each) for name, each in deliveries.items()})

    def snapshot(self) -> LedgerSnapshot:
        """Copy all counters at one instant."""
        with self._lock:
            return LedgerSnapshot(
                received=dict(self._received),
                sampled_out=dict(self._sampled_out),
                quarantined=dict(self._quarantined),
                deliveries={name: dict(each) for name, each in self._deliveries.items()},
                unprocessed={
                    signal: _total(self._received, signal) - _total(self._processed, signal)
                    for signal in Signal
                },
                undelivered=dict(self._undelivered),
                gone=dict(self._gone),
            )

    def state(self) -> Json:
        """Return what a checkpoint keeps: everything about batches that were processed.

        Nothing is undelivered then: a checkpoint puts all frames up to its cursor in the outbox.
        """
        with self._lock:
            return {
                "processed": _by_signal(self._processed),
                "sampled_out": _by_signal(self._sampled_out),
                "quarantined": _by_signal(self._quarantined),
            }

    def restore(self, state: Json) -> None:
        """Continue from a checkpoint, before anything is received."""
        with self._lock:
            self._processed = _counter(state["processed"])
            self._received = _counter(state["processed"])
            self._sampled_out = _counter(state["sampled_out"])
            self._quarantined = _counter(state["quarantined"])


def _total(items: Items, signal: Signal) -> int:
    return sum(count for (each, _), count in items.items() if each is signal)


def _by_signal(items: Items) -> Json:
    """Write counters as JSON: a name under its signal."""
    nested: dict[str, dict[str, int]] = {}
    for (signal, name), count in items.items():
        nested.setdefault(signal, {})[name] = count
    return nested


def _counter(nested: Json) -> Counter[tuple[Signal, str]]:
    return Counter(
        {
            (Signal(signal), name): int(count)
            for signal, names in nested.items()
            for name, count in names.items()
        }
    )
