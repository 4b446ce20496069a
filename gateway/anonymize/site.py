"""Build what the site may keep: everything that was sent, less what a contract says to drop.

Law: a dropped attribute is absent from the bytes that are stored, not hidden in them, wherever it
stands: on the span, its resource or its scope; an event or link that carries one is left out whole.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.anonymize.export import RESOURCE_MEMO_MAX, Writer, raw_attributes
from gateway.anonymize.policy import Policy
from gateway.batch import Audience, Batch, Clean
from gateway.otlp.columns import compact
from gateway.otlp.kernel import gather, pack_fields
from gateway.otlp.protobuf import field as wire_field
from gateway.otlp.protobuf import varint
from gateway.tables import (
    CLEAN_SPAN,
    EXTENT,
    NO_RANDOMNESS,
    NO_THRESHOLD,
    Bool,
    Int16,
    Table,
    UInt8,
)

_COPIED = ("trace_hi", "trace_lo", "span_id", "parent_id", "start_ns", "end_ns", "flags", "kind")


class Marks:
    """Which attributes of a batch the site may not keep, by key and by the contract of the owner.

    Shape: dropped (contracts + 1, slots), the last row for spans without a contract: what any
    contract forbids is forbidden there, because such a span may be part of a trace whose model was
    named in another batch.
    """

    def __init__(self, batch: Batch, dropped: Bool, contract: Int16) -> None:
        self._slot_of_key = batch.slot_of_key
        self._dropped = dropped
        self._contract = contract
        # A slot of -1 reads the last place of a row, which is never dropped.
        self._any = dropped[-1][batch.slot_of_key]

    def _hits(self, attributes: Table) -> NDArray[np.intp]:
        if len(attributes) == 0 or not self._any.any():
            return np.zeros(0, dtype=np.intp)
        return np.flatnonzero(self._any[attributes["key"]])

    def attributes(self, attributes: Table, contract: Int16) -> UInt8:
        """Mark attributes; `contract` is that of each owner. Shape: (attributes,)."""
        marks = np.zeros(len(attributes), dtype=np.uint8)
        hits = self._hits(attributes)
        if len(hits):
            slot = self._slot_of_key[attributes["key"][hits]]
            marks[hits] = self._dropped[contract[attributes["owner"][hits]], slot]
        return marks

    def owners(self, attributes: Table, owners: Table) -> UInt8:
        """Mark the events or links that own such an attribute. Shape: (owners,)."""
        marks = np.zeros(len(owners), dtype=np.uint8)
        if len(owners):
            of_owner = self._contract[owners["span"]]
            hits = self.attributes(attributes, of_owner) == 1
            marks[attributes["owner"][hits]] = 1
        return marks

    def anywhere(self, attributes: Table) -> UInt8:
        """Mark attributes that any contract forbids. Shape: (attributes,)."""
        marks = np.zeros(len(attributes), dtype=np.uint8)
        marks[self._hits(attributes)] = 1
        return marks


@dataclass(slots=True)
class SiteBuilder:
    """Builder of what the site keeps; its only state is a memo of encoded resources."""

    policy: Policy
    memo: dict[tuple[int, bytes], bytes] = field(default_factory=dict)

    def build(self, batch: Batch, contract: Int16) -> Clean:
        """Make the clean columns of all rows of a batch."""
        rows = len(batch.spans)
        spans = np.zeros(rows, dtype=CLEAN_SPAN)
        for name in (*_COPIED, "status", "scope"):
            spans[name] = batch.spans[name]
        spans["threshold"] = NO_THRESHOLD
        spans["randomness"] = NO_RANDOMNESS
        writer = Writer([], 0)
        for name in ("name", "message"):
            length = batch.spans[f"{name}_length"]
            text, offset = gather(batch.arena, batch.spans[f"{name}_offset"], length)
            spans[f"{name}_offset"] = offset + np.uint32(writer.add(text))
            spans[f"{name}_length"] = length
        resources = self._resources(batch, contract, spans, writer)
        marks = Marks(batch, self.policy.site_dropped, contract)
        scopes = _extents([_scope(batch, row, marks) for row in range(len(batch.scopes))], writer)
        # The fields are by far the largest part, so the kernel puts all else in front of them.
        text, starts = pack_fields(
            batch.arena,
            batch.spans.view(np.uint8),
            batch.span_attributes.view(np.uint8),
            batch.events.view(np.uint8),
            batch.links.view(np.uint8),
            marks.attributes(batch.span_attributes, contract),
            marks.owners(batch.event_attributes, batch.events),
            marks.owners(batch.link_attributes, batch.links),
            writer.bytes(),
        )
        spans["fields_offset"] = starts[:-1]
        spans["fields_length"] = starts[1:] - starts[:-1]
        return Clean(
            audience=Audience.SITE,
            policy=self.policy.digest,
            text=text,
            spans=spans,
            resources=resources,
            scopes=scopes,
            keys=np.zeros(0, dtype=EXTENT),
            kinds=np.zeros(0, dtype=np.uint8),
            values=np.zeros((0, rows), dtype=np.uint64),
            present=np.zeros((0, rows), dtype=np.uint8),
            source=np.arange(rows, dtype=np.int32),
        )

    def _resources(self, batch: Batch, contract: Int16, spans: Table, writer: Writer) -> Table:
        """Encode each (resource, contract) pair once and point the spans at it."""
        width = len(self.policy.rules)
        pairs, places = compact(
            batch.spans["resource"].astype(np.int64) * width + contract % width,
            len(batch.resources) * width,
        )
        spans["resource"] = places
        encoded = [self._resource(batch, pair // width, pair % width) for pair in pairs]
        return _extents(encoded, writer)

    def _resource(self, batch: Batch, resource: int, rules: int) -> bytes:
        raw = raw_attributes(batch, resource)
        known = self.memo.get((rules, raw))
        if known is None:
            known = _encode_resource(batch, resource, self.policy, rules)
            if len(self.memo) >= RESOURCE_MEMO_MAX:
                self.memo.clear()
            self.memo[rules, raw] = known
        return known


def _extents(encoded: list[bytes], writer: Writer) -> Table:
    extents = np.zeros(max(1, len(encoded)), dtype=EXTENT)
    if encoded:
        extents["length"] = [len(each) for each in encoded]
    start = writer.add(np.frombuffer(b"".join(encoded), dtype=np.uint8))
    extents["offset"][1:] = np.cumsum(extents["length"])[:-1]
    extents["offset"] += np.uint32(start)
    return extents


def _encode_resource(batch: Batch, resource: int, policy: Policy, rules: int) -> bytes:
    row = batch.resources[resource]
    first, count = int(row["attribute_first"]), int(row["attribute_count"])
    attributes = batch.resource_attributes[first : first + count]
    dropped = policy.site_dropped[rules, batch.slot_of_key[attributes["key"]]]
    return b"".join(
        wire_field(0x0A, batch.text(int(raw["raw_offset"]), int(raw["raw_length"])))
        for raw in attributes[~dropped]
    )


def _scope(batch: Batch, scope: int, marks: Marks) -> bytes:
    row = batch.scopes[scope]
    out = b""
    for tag, name in ((0x0A, "name"), (0x12, "version")):
        if row[f"{name}_length"]:
            text = batch.text(int(row[f"{name}_offset"]), int(row[f"{name}_length"]))
            out += wire_field(tag, text)
    first, count = int(row["attribute_first"]), int(row["attribute_count"])
    attributes = batch.scope_attributes[first : first + count]
    for attribute in attributes[marks.anywhere(attributes) == 0]:
        raw = batch.text(int(attribute["raw_offset"]), int(attribute["raw_length"]))
        out += wire_field(0x1A, raw)
    if row["dropped_attributes"]:
        out += b"\x20" + varint(int(row["dropped_attributes"]))
    return out
