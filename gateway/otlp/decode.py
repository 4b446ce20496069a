"""Take OTLP request bodies into the open batch, and close it.

Law: `OpenBatch.add` either takes a request whole (refused items counted) or leaves the batch as it
was. Traces are copied once, into the arena that the journal writes and all columns point into;
metrics and logs are screened and kept as they are, less the items that were refused.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from gateway.batch import Batch, Parcel, Payload, Receipt, Signal
from gateway.otlp.kernel import REJECTIONS, Scanner, pivot
from gateway.otlp.limits import DEFAULT_LIMITS, Limits
from gateway.otlp.screen import screen
from gateway.tables import Int32


class OpenBatch:
    """The one open batch of the intake.

    `slot_keys` are the attribute keys that contracts name; they are interned first, so that no
    stream of strange keys can push them out of the table.
    """

    def __init__(self, slot_keys: Sequence[bytes], limits: Limits = DEFAULT_LIMITS) -> None:
        self._scanner = Scanner(
            keys_max=limits.keys_max,
            depth_max=limits.depth_max,
            spans_max=limits.spans_max,
            items_max=limits.items_max,
            text_bytes_max=limits.text_bytes_max,
            arena_bytes_max=limits.arena_bytes_max,
        )
        self._slot_of_key = np.full(limits.keys_max + 1, -1, dtype=np.int32)
        self._slots = len(slot_keys)
        for slot, key in enumerate(slot_keys):
            number = self._scanner.intern(key)
            assert number >= 0, "contracts name more keys than the table holds"
            self._slot_of_key[number] = slot
        self._identities: dict[str, int] = {}
        self._parcels: list[Parcel] = []
        self._parcel_bytes = 0
        self._arrival_ns = 0

    @property
    def spans(self) -> int:
        """Count of spans taken so far."""
        return self._scanner.spans

    @property
    def bytes(self) -> int:
        """Size of the bodies taken so far, in bytes."""
        return self._scanner.bytes + self._parcel_bytes

    @property
    def rows(self) -> int:
        """Count of rows in all tables taken so far."""
        return self._scanner.rows

    def key_text(self, key: int) -> str:
        """Return the text of an interned key."""
        return self._scanner.key_text(key).decode()

    def add(self, payload: Payload) -> Receipt:
        """Take one request into the batch.

        Raises: MalformedPayloadError, PayloadTooLargeError; the batch is unchanged then.
        """
        if payload.signal is not Signal.TRACES:
            return self._keep(payload)
        identity = self._identities.get(payload.identity)
        if identity is None:
            identity = len(self._identities)
        accepted, rejected, reason, mismatched = self._scanner.scan(
            payload.body,
            payload.arrival_ns,
            identity,
            payload.transport,
            payload.wire_bytes,
            payload.identity.encode(),
        )
        self._identities[payload.identity] = identity
        self._arrival_ns = max(self._arrival_ns, payload.arrival_ns)
        return Receipt(
            accepted=accepted,
            rejected=rejected,
            reason=REJECTIONS[reason],
            mismatched=mismatched,
        )

    def _keep(self, payload: Payload) -> Receipt:
        found = screen(payload)
        self._parcels.append(found.parcel)
        self._parcel_bytes += len(found.parcel.body)
        self._arrival_ns = max(self._arrival_ns, payload.arrival_ns)
        return found.receipt

    def take(self, sequence: int) -> Batch:
        """Close the batch under its journal sequence and start an empty one."""
        tables = self._scanner.take()

        def slots(attributes: str, owners: str) -> Int32:
            table = tables[attributes].view(np.uint8)
            return pivot(table, self._slot_of_key, self._slots, len(tables[owners]))

        batch = Batch(
            sequence=sequence,
            arrival_ns=self._arrival_ns,
            identities=tuple(self._identities),
            slots=slots("span_attributes", "spans"),
            resource_slots=slots("resource_attributes", "resources"),
            scope_slots=slots("scope_attributes", "scopes"),
            slot_of_key=self._slot_of_key,
            parcels=tuple(self._parcels),
            **tables,
        )
        self._identities = {}
        self._parcels, self._parcel_bytes = [], 0
        self._arrival_ns = 0
        return batch


def decode(
    payloads: Iterable[Payload],
    slot_keys: Sequence[bytes] = (),
    sequence: int = 1,
    limits: Limits = DEFAULT_LIMITS,
) -> Batch:
    """Scan payloads into a batch of their own; for replay, retrieval and tests."""
    open_batch = OpenBatch(slot_keys, limits)
    for payload in payloads:
        open_batch.add(payload)
    return open_batch.take(sequence)
