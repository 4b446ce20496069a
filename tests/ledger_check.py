"""Check a scrape of `/metrics` against the accounting identity.

Law: for each signal and destination,
received = forwarded + sampled_out + dropped + quarantined + pending.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The terms of one signal at one destination; all in items."""

    destination: str
    received: int
    forwarded: int
    sampled_out: int
    dropped: int
    quarantined: int
    pending: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """All samples of one scrape."""

    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]

    def total(self, name: str, **labels: str) -> float:
        """Add all series of a name that carry the given labels; 0 when there is none."""
        wanted = set(labels.items())
        return sum(
            value
            for (sample, carried), value in self.samples.items()
            if sample == name and wanted <= carried
        )

    def values_of(self, name: str, label: str) -> set[str]:
        """List the values that a label takes in the series of a name."""
        return {dict(carried).get(label, "") for sample, carried in self.samples if sample == name}


def parse(text: str) -> Scrape:
    """Read the Prometheus text format; a series that occurs twice is an error."""
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, f"{key} occurs twice"
            samples[key] = sample.value
    return Scrape(samples=samples)


def _items(scrape: Scrape, name: str, **labels: str) -> int:
    value = scrape.total(name, **labels)
    assert value == int(value) >= 0, f"{name}{labels} = {value}"
    return int(value)


def check_identity(text: str) -> dict[tuple[str, str], Account]:
    """Assert that every received item is accounted for; returns the terms by destination, signal.

    Raises: AssertionError that shows the terms.
    """
    scrape = parse(text)
    destinations = scrape.values_of("weir_pending_items", "destination") or {""}
    destinations |= scrape.values_of("weir_forwarded_items_total", "destination")
    signals = scrape.values_of("weir_received_items_total", "signal")
    accounts = {}
    for name, signal in product(sorted(destinations), sorted(signals)):
        # A missing label and an empty one are the same to Prometheus.
        of_signal = {"signal": signal}
        labels = {"destination": name, **of_signal} if name else of_signal
        account = Account(
            destination=name,
            received=_items(scrape, "weir_received_items_total", **of_signal),
            forwarded=_items(scrape, "weir_forwarded_items_total", **labels),
            sampled_out=_items(scrape, "weir_sampled_out_items_total", **of_signal),
            dropped=_items(scrape, "weir_dropped_items_total", **labels),
            quarantined=_items(scrape, "weir_quarantined_items_total", **of_signal),
            pending=_items(scrape, "weir_pending_items", **labels),
        )
        settled = account.forwarded + account.sampled_out + account.dropped + account.quarantined
        residue = account.received - settled - account.pending
        assert residue == 0, f"{signal} at {name or 'no destination'}: residue {residue}\n{account}"
        accounts[name, signal] = account
    return accounts
