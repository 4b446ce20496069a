"""Build what may leave the site, from classified fields only.

Law: no input byte reaches the output unless a rule of the row's contract copied it. Ids, parent,
times, kind and status code are structure and leave; names leave only from the contract's list;
events, links, status messages, scopes, trace state and undeclared attributes have no rule and do
not leave. A value of the wrong type, out of range, too long or sent twice is left out.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.anonymize.policy import PASSED_TEXT_BYTES_MAX, Field, Policy, ResourceField
from gateway.anonymize.tokens import TOKEN_LENGTH, Tokens
from gateway.batch import Audience, Batch, Clean, Verdict
from gateway.contract.schema import SignalType
from gateway.otlp.columns import compact
from gateway.otlp.kernel import factorize, gather
from gateway.otlp.protobuf import key_value, varint
from gateway.tables import (
    CLEAN_SPAN,
    EXTENT,
    Bool,
    Bytes,
    Int16,
    Int32,
    Table,
    UInt8,
    UInt32,
    UInt64,
    ValueKind,
)

# W3C flags and the two "remote" bits of OTLP; the reserved ones could carry anything.
FLAGS_KNOWN: Final = 0x3FF
SPAN_KIND_MAX: Final = 5
STATUS_CODE_MAX: Final = 2
# Encoded resources of a site repeat for days; the memo is emptied when full.
RESOURCE_MEMO_MAX: Final = 20_000

_STRUCTURE: Final = ("trace_hi", "trace_lo", "span_id", "parent_id", "start_ns", "end_ns")


@dataclass(slots=True)
class Writer:
    """The growing text arena of one `Clean`."""

    pieces: list[Bytes]
    size: int

    def add(self, piece: Bytes) -> int:
        """Append bytes and return where they start."""
        start = self.size
        self.pieces.append(piece)
        self.size += len(piece)
        return start

    def bytes(self) -> Bytes:
        """Return everything end to end."""
        return np.concatenate(self.pieces)


@dataclass(frozen=True, slots=True)
class Grid:
    """Typed attribute columns. Shape: values, present (columns, rows)."""

    values: UInt64
    present: UInt8


@dataclass(slots=True)
class Exporter:
    """Builder of exports; its only state is a memo of encoded resources."""

    policy: Policy
    memo: dict[tuple[int, bytes], bytes] = field(default_factory=dict)

    def build(self, batch: Batch, contract: Int16, verdict: Verdict) -> Clean:
        """Make the clean columns of the rows that the verdict keeps."""
        rows = np.flatnonzero(verdict.keep).astype(np.int32)
        policy = self.policy
        writer = Writer([np.frombuffer(policy.static, dtype=np.uint8)], len(policy.static))
        spans = np.zeros(len(rows), dtype=CLEAN_SPAN)
        picked = batch.spans.take(rows)
        for name in _STRUCTURE:
            spans[name] = picked[name]
        spans["threshold"] = verdict.threshold[rows]
        spans["randomness"] = verdict.randomness[rows]
        spans["flags"] = picked["flags"] & np.uint32(FLAGS_KNOWN)
        spans["kind"] = _known(picked["kind"], SPAN_KIND_MAX)
        spans["status"] = _known(picked["status"], STATUS_CODE_MAX)
        grid = Grid(
            np.zeros((len(policy.columns), len(rows)), dtype=np.uint64),
            np.zeros((len(policy.columns), len(rows)), dtype=np.uint8),
        )
        of_contract = contract[rows]
        spans["name_offset"] = policy.other.offset[-1]
        spans["name_length"] = policy.other.length[-1]
        present, _ = compact(of_contract % len(policy.rules), len(policy.rules))
        for index in present:
            if index == len(policy.rules) - 1:
                continue  # the built-in default names nothing
            mine = np.flatnonzero(of_contract == index)
            rules = policy.rules[index]
            names = rules.names.literals.codes(
                batch.arena, picked["name_offset"][mine], picked["name_length"][mine]
            )
            spans["name_offset"][mine] = rules.names.offset[names]
            spans["name_length"][mine] = rules.names.length[names]
            for declared in rules.fields:
                _fill(batch, declared, rows[mine], mine, grid, writer)
        resources = self._resources(batch, picked["resource"], of_contract, spans, writer)
        return Clean(
            audience=Audience.EXPORT,
            policy=policy.digest,
            text=writer.bytes(),
            spans=spans,
            resources=resources,
            scopes=np.zeros(1, dtype=EXTENT),
            keys=_key_extents(policy),
            kinds=np.array([kind for _, kind in policy.columns], dtype=np.uint8),
            values=grid.values,
            present=grid.present,
            source=rows,
        )

    def _resources(
        self, batch: Batch, resource: Int32, contract: Int16, spans: Table, writer: Writer
    ) -> Table:
        """Encode each (resource, contract) pair once and point the spans at it.

        The same resource may have several rows: the scanner's cache misses as its seed, which is
        another one in each process, has it. What leaves must be the same after a replay.
        """
        width = len(self.policy.rules)
        pairs, places = compact(
            resource.astype(np.int64) * width + contract % width, len(batch.resources) * width
        )
        distinct: dict[tuple[int, bytes], int] = {}
        encoded: list[bytes] = []
        renumbered = np.zeros(len(pairs), dtype=np.int32)
        for at, pair in enumerate(pairs):
            row, rules = divmod(pair, width)
            raw = raw_attributes(batch, row)
            renumbered[at] = distinct.setdefault((rules, raw), len(encoded))
            if renumbered[at] == len(encoded):
                encoded.append(self._resource(batch, row, rules, raw))
        spans["resource"] = renumbered[places]
        extents = np.zeros(len(encoded), dtype=EXTENT)
        extents["length"] = [len(each) for each in encoded]
        start = writer.add(np.frombuffer(b"".join(encoded), dtype=np.uint8))
        extents["offset"][1:] = np.cumsum(extents["length"])[:-1]
        extents["offset"] += np.uint32(start)
        return extents

    def _resource(self, batch: Batch, resource: int, rules: int, raw: bytes) -> bytes:
        declared = self.policy.rules[rules].resource
        if not declared:
            return b""
        known = self.memo.get((rules, raw))
        if known is None:
            known = b"".join(_resource_field(batch, resource, each) for each in declared)
            if len(self.memo) >= RESOURCE_MEMO_MAX:
                self.memo.clear()
            self.memo[rules, raw] = known
        return known


def raw_attributes(batch: Batch, resource: int) -> bytes:
    """Copy the attributes of a resource as received: the key of memos."""
    row = batch.resources[resource]
    first, count = int(row["attribute_first"]), int(row["attribute_count"])
    if count == 0:
        return b""
    raw = batch.resource_attributes[first : first + count]
    start = int(raw["raw_offset"].min())
    last = raw[-1]
    return batch.text(start, int(last["raw_offset"]) + int(last["raw_length"]) - start)


def _resource_field(batch: Batch, resource: int, declared: ResourceField) -> bytes:
    row = int(batch.resource_slots[declared.slot, resource])
    if row < 0:
        return b""
    attribute = batch.resource_attributes[row]
    length = int(attribute["length"])
    if attribute["kind"] != ValueKind.STRING or length > PASSED_TEXT_BYTES_MAX:
        return b""
    value = batch.text(int(attribute["offset"]), length)
    if declared.tokens is not None:
        value = declared.tokens.token(value)
    pair = key_value(declared.key, value)
    return b"\x0a" + varint(len(pair)) + pair


def _known(values: Int32, highest: int) -> Int32:
    """Turn enum numbers that the specification does not name into 0."""
    return np.where((values >= 0) & (values <= highest), values, 0).astype(np.int32)


def _key_extents(policy: Policy) -> Table:
    extents = np.zeros(len(policy.columns), dtype=EXTENT)
    for index, (key, _) in enumerate(policy.columns):
        extents[index] = (policy.static.index(key), len(key))
    return extents


def _fill(
    batch: Batch, declared: Field, rows: Int32, places: NDArray[np.intp], grid: Grid, writer: Writer
) -> None:
    """Fill one declared attribute for the rows of one contract."""
    slot = batch.slots[declared.slot][rows]
    there = slot >= 0
    if not there.any():
        return
    attributes = batch.span_attributes.take(slot[there])
    places = places[there]
    if declared.tokens is not None:
        values, fine = _token_values(batch, declared.tokens, attributes, writer)
    elif declared.signal.type in (SignalType.ENUM, SignalType.STRING):
        values, fine = _text_values(batch, declared, attributes, writer)
    else:
        values, fine = _number_values(declared, attributes)
    grid.values[declared.column, places[fine]] = values[fine]
    grid.present[declared.column, places[fine]] = 1


def _number_values(declared: Field, attributes: Table) -> tuple[UInt64, Bool]:
    kind = attributes["kind"]
    bits = np.ascontiguousarray(attributes["number"])
    if declared.signal.type is SignalType.BOOL:
        return bits, kind == ValueKind.BOOL
    as_double = np.where(
        kind == ValueKind.INT, bits.view(np.int64).astype(np.float64), bits.view(np.float64)
    )
    if declared.signal.type is SignalType.INT:
        fine = kind == ValueKind.INT
    else:
        fine = (kind == ValueKind.DOUBLE) | (kind == ValueKind.INT)
        # Adding zero makes -0.0 plain; a sign of zero or a NaN's bits could carry a message.
        bits = (as_double + 0.0).view(np.uint64)
    fine &= np.isfinite(as_double)
    if declared.signal.range is not None:
        low, high = declared.signal.range
        fine &= (as_double >= low) & (as_double <= high)
    return bits, fine


def _packed(offset: UInt32, length: UInt32) -> UInt64:
    return (offset.astype(np.uint64) << np.uint64(32)) | length.astype(np.uint64)


def _text_values(
    batch: Batch, declared: Field, attributes: Table, writer: Writer
) -> tuple[UInt64, Bool]:
    fine = attributes["kind"] == ValueKind.STRING
    offset = np.where(fine, attributes["offset"], 0).astype(np.uint32)
    length = np.where(fine, attributes["length"], 0).astype(np.uint32)
    if declared.choice is not None:
        codes = declared.choice.literals.codes(batch.arena, offset, length)
        return _packed(declared.choice.offset[codes], declared.choice.length[codes]), fine
    fine &= length <= PASSED_TEXT_BYTES_MAX
    length = np.where(fine, length, 0).astype(np.uint32)
    text, starts = gather(batch.arena, offset, length)
    return _packed(starts + np.uint32(writer.add(text)), length), fine


def _token_values(
    batch: Batch, tokens: Tokens, attributes: Table, writer: Writer
) -> tuple[UInt64, Bool]:
    """Make tokens of texts and integers, once per distinct value."""
    kind = attributes["kind"]
    is_text = kind == ValueKind.STRING
    is_int = kind == ValueKind.INT
    fine = is_text | is_int
    start = np.zeros(len(attributes), dtype=np.uint64)
    base = writer.size
    made: list[bytes] = []
    if is_text.any():
        texts = attributes.take(np.flatnonzero(is_text))
        text_codes, first = factorize(batch.arena, texts["offset"], texts["length"])
        values = [batch.text(int(r["offset"]), int(r["length"])) for r in texts.take(first)]
        start[is_text] = text_codes.astype(np.uint64) * np.uint64(TOKEN_LENGTH)
        made += [tokens.token(value) for value in values]
    if is_int.any():
        numbers, codes = np.unique(attributes["number"][is_int], return_inverse=True)
        start[is_int] = (codes + len(made)).astype(np.uint64) * np.uint64(TOKEN_LENGTH)
        made += [tokens.token(b"int:" + int(n).to_bytes(8, "big")) for n in numbers.tolist()]
    writer.add(np.frombuffer(b"".join(made), dtype=np.uint8))
    return ((start + np.uint64(base)) << np.uint64(32)) | np.uint64(TOKEN_LENGTH), fine
