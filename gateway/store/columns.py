"""What one batch leaves in memory until it is sealed, and the Arrow table that is made of it.

Law: a row of the table says everything that the site may read of one span; the columns and their
types are SCHEMA, and nothing else is written. Text becomes a Python string once per distinct value
and never per row. `add` keeps references and gathers small columns; the table is built on the
storage thread, once per segment, already in the order of the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from gateway.batch import Audience, Batch, Clean, Findings, Verdict
from gateway.otlp import kernel
from gateway.tables import NO_THRESHOLD, Bool, Bytes, Int16, Int32, Table, UInt8, UInt32, UInt64

TEXT_BYTES_MAX: Final = (1 << 32) - 1  # offsets into a segment's text are 32 bits wide

_TEXT: Final = pa.dictionary(pa.int32(), pa.string())
_BLOB: Final = pa.dictionary(pa.int32(), pa.binary())

SCHEMA: Final = pa.schema(
    [
        ("trace_id", pa.binary(16)),  # big-endian, as on the wire
        ("span_id", pa.binary(8)),
        ("parent_span_id", pa.binary(8)),  # null when the span is a root
        ("start_ns", pa.uint64()),  # Unix
        ("duration_ns", pa.int64()),  # end - start as sent, negative when the device said so
        ("name", _TEXT),
        ("kind", pa.int32()),
        ("status", pa.int32()),
        ("status_message", _TEXT),
        ("flags", pa.uint32()),
        ("service", _TEXT),  # service.name of the resource
        ("model", _TEXT),
        ("version", _TEXT),
        ("device", _TEXT),
        ("contract", _TEXT),  # null for the built-in default
        ("failed", pa.bool_()),
        ("kept", pa.bool_()),  # left the site too
        ("reason", _TEXT),  # why it was kept or not
        ("threshold", pa.uint64()),  # 56-bit rejection threshold, null when none
        ("arrival_ns", pa.uint64()),  # Unix
        ("sequence", pa.uint64()),  # journal sequence of the batch
        ("row", pa.uint32()),  # row in that batch
        ("resource", _BLOB),  # OTLP Resource
        ("scope", _BLOB),  # OTLP InstrumentationScope
        ("fields", pa.large_binary()),  # OTLP Span fields: attributes, events, links
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The rows of one batch that wait for their segment.

    Shape: all arrays (rows,), in the row order of `clean`.
    """

    sequence: int
    clean: Clean
    arrival_ns: UInt64
    contract: Int16
    series: Int32
    device: Int32
    failed: Bool
    kept: Bool
    reason: UInt8
    threshold: UInt64
    contracts: tuple[str, ...]
    series_names: tuple[tuple[str, str], ...]
    devices: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(self.clean.spans)

    @property
    def bytes(self) -> int:
        """Memory of this part: span table, text and about 28 bytes of columns a row."""
        return int(self.clean.spans.nbytes + self.clean.text.nbytes + 28 * self.rows)


def make_part(
    clean: Clean, batch: Batch, findings: Findings, verdict: Verdict, contracts: tuple[str, ...]
) -> Part:
    """Pick the columns of a batch that belong to the rows of `clean`."""
    assert clean.audience is Audience.SITE
    assert len(clean.keys) == 0, "site attributes are encoded in `fields`"
    source = clean.source
    return Part(
        sequence=batch.sequence,
        clean=clean,
        arrival_ns=batch.requests["arrival_ns"][batch.spans["request"][source]],
        contract=findings.contract[source],
        series=findings.series[source],
        device=findings.device[source],
        failed=findings.failed[source],
        kept=verdict.keep[source],
        reason=verdict.reason[source],
        threshold=verdict.threshold[source],
        contracts=contracts,
        series_names=findings.series_names,
        devices=findings.devices,
        reasons=verdict.reasons,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of several parts as one table, before Arrow.

    Shape: `part` (rows,) says which part a row came from, `resource_part` and `scope_part` the same
    for the tables of messages. Offsets point into the text of that part: the texts are copied once,
    when a column is made of them in the order of the file.
    """

    parts: Sequence[Part]
    texts: list[Bytes]
    spans: Table
    resources: Table
    scopes: Table
    part: Int32
    resource_part: Int32
    scope_part: Int32


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _joined_table(tables: Sequence[Table]) -> Table:
    """Copy tables end to end as plain bytes: numpy would copy a structure field by field."""
    width = tables[0].dtype.itemsize
    flat = np.concatenate([np.ascontiguousarray(table).view(np.uint8) for table in tables])
    assert len(flat) == width * sum(len(table) for table in tables)
    return flat.view(tables[0].dtype)


def _owners(counts: Sequence[int]) -> Int32:
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def join(parts: Sequence[Part]) -> Rows:
    """Lay the rows of several parts end to end; row numbers of resources and scopes move along."""
    resource_counts = [len(part.clean.resources) for part in parts]
    scope_counts = [len(part.clean.scopes) for part in parts]
    single = parts[0].clean
    spans, resources, scopes = single.spans, single.resources, single.scopes
    part = _owners([each.rows for each in parts])
    if len(parts) > 1:  # the concatenated tables are ours to change
        spans = _joined_table([each.clean.spans for each in parts])
        resources = _joined_table([each.clean.resources for each in parts])
        scopes = _joined_table([each.clean.scopes for each in parts])
        for name, counts in (("resource", resource_counts), ("scope", scope_counts)):
            first = np.cumsum([0, *counts[:-1]]).astype(np.int32)
            spans[name] += first[part]
    return Rows(
        parts=parts,
        texts=[each.clean.text for each in parts],
        spans=spans,
        resources=resources,
        scopes=scopes,
        part=part,
        resource_part=_owners(resource_counts),
        scope_part=_owners(scope_counts),
    )


def _plain(kind: Any, values: NDArray[Any], valid: Bool | None = None) -> Any:
    """Wrap a numpy column as an Arrow array without a copy."""
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    data = np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [bitmap, pa.py_buffer(data)])


def _ids(*words: UInt64) -> NDArray[Any]:
    """Lay the words of ids side by side in network byte order."""
    out = np.empty((len(words[0]), len(words)), dtype=">u8")
    for index, word in enumerate(words):
        out[:, index] = word
    return out


def _binary(texts: list[Bytes], part: Int32, offset: UInt32, length: UInt32, kind: Any) -> Any:
    """Copy extents of several arenas into one Arrow binary array."""
    data, bounds = kernel.gather_parts(texts, part, offset, length)
    assert len(data) <= TEXT_BYTES_MAX, "a segment's text is above 4 GiB"
    if not pa.types.is_large_binary(kind):
        bounds = bounds.astype(np.int32)
    return pa.Array.from_buffers(
        kind, len(length), [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    )


def _texts(texts: list[Bytes], part: Int32, offset: UInt32, length: UInt32) -> Any:
    """Make a dictionary column of text; bytes that are not UTF-8 become replacement signs."""
    found = _binary(texts, part, offset, length, pa.binary()).dictionary_encode()
    words = [value.decode("utf-8", "replace") for value in found.dictionary.to_pylist()]
    return pa.DictionaryArray.from_arrays(found.indices, pa.array(words, pa.string()))


def _codes(codes: Int32, names: Sequence[str | None]) -> Any:
    """Make a dictionary column from indices into `names`; -1 and a name of None are null."""
    known = np.array([name is not None for name in names] + [False])
    indices = _plain(pa.int32(), codes, known[codes])
    words = pa.array([name or "" for name in names], pa.string())
    return pa.DictionaryArray.from_arrays(indices, words)


def _interned(
    parts: Sequence[Part], columns: Sequence[NDArray[Any]], tables: Sequence[Sequence[Any]]
) -> tuple[Int32, list[Any]]:
    """Bring the per-part indices of several parts onto one list of names.

    Complexity: one dictionary lookup per distinct name of a part, not per row.
    """
    seen: dict[Any, int] = {}
    out: list[Int32] = []
    for column, table in zip(columns, tables, strict=True):
        present = np.zeros(len(table) + 1, dtype=np.bool_)
        present[column] = True  # -1 marks the last place, which stands for "none"
        onto = np.full(len(table) + 1, -1, dtype=np.int32)
        for index in np.flatnonzero(present[:-1]).tolist():
            onto[index] = seen.setdefault(table[index], len(seen))
        out.append(onto[column])
    return _joined(out), list(seen)


def _blobs(codes: Int32, distinct: Any) -> Any:
    return pa.DictionaryArray.from_arrays(_plain(pa.int32(), codes, codes >= 0), distinct)


def maybe_service_name(resource: bytes) -> str | None:
    """Read `service.name` from an encoded Resource."""
    message = Resource()
    try:
        message.ParseFromString(resource)
    except DecodeError:
        return None
    for attribute in message.attributes:
        if attribute.key == "service.name":
            return attribute.value.string_value
    return None


def _context(texts: list[Bytes], part: Int32, table: Table, row: Int32) -> tuple[Int32, Any]:
    """Index the distinct encoded messages of `table` by span; -1 when a span has none."""
    found = _binary(texts, part, table["offset"], table["length"], pa.binary())
    distinct = found.dictionary_encode()
    codes = np.append(distinct.indices.to_numpy(), np.int32(-1)).astype(np.int32)
    return codes[np.where(row < 0, len(table), row)], distinct.dictionary


def _context_columns(rows: Rows, spans: Table) -> dict[str, Any]:
    """Make the columns that come from the resource and the scope of each row."""
    scope, scopes = _context(rows.texts, rows.scope_part, rows.scopes, spans["scope"])
    resource, resources = _context(
        rows.texts, rows.resource_part, rows.resources, spans["resource"]
    )
    services: dict[str, int] = {}
    service: list[int] = []  # per distinct resource
    for value in resources.to_pylist():
        name = maybe_service_name(value)
        service.append(-1 if name is None else services.setdefault(name, len(services)))
    return {
        "resource": _blobs(resource, resources),
        "scope": _blobs(scope, scopes),
        "service": _codes(np.array([*service, -1], dtype=np.int32)[resource], list(services)),
    }


def _finding_columns(rows: Rows, order: NDArray[np.intp] | None) -> dict[str, Any]:
    """Make the columns that the measuring and deciding rooms found."""
    parts = rows.parts

    def column(name: str) -> NDArray[Any]:
        joined = _joined([getattr(part, name) for part in parts])
        return joined if order is None else joined.take(order)

    def names(column_name: str, table_name: str) -> tuple[Int32, list[Any]]:
        columns = [getattr(part, column_name) for part in parts]
        codes, found = _interned(parts, columns, [getattr(part, table_name) for part in parts])
        return (codes if order is None else codes.take(order)), found

    series, series_names = names("series", "series_names")
    device, devices = names("device", "devices")
    contract, contracts = names("contract", "contracts")
    reason, reasons = names("reason", "reasons")
    threshold = column("threshold")
    part = rows.part if order is None else rows.part.take(order)
    sequences = np.array([item.sequence for item in parts], dtype=np.uint64)
    source = _joined([item.clean.source for item in parts])
    return {
        "model": _codes(series, [name[0] for name in series_names]),
        "version": _codes(series, [name[1] for name in series_names]),
        "device": _codes(device, devices),
        "contract": _codes(contract, contracts),
        "reason": _codes(reason, reasons),
        "failed": pa.array(column("failed")),
        "kept": pa.array(column("kept")),
        "threshold": _plain(pa.uint64(), threshold, threshold != np.uint64(NO_THRESHOLD)),
        "arrival_ns": _plain(pa.uint64(), column("arrival_ns")),
        "sequence": _plain(pa.uint64(), sequences[part]),
        "row": _plain(
            pa.uint32(), (source if order is None else source.take(order)).astype(np.uint32)
        ),
    }


def build(rows: Rows, order: NDArray[np.intp] | None = None, *, fields: bool = True) -> Any:
    """Make the Arrow table of some rows, in `order`; without `fields` when it is only searched."""
    spans = rows.spans if order is None else rows.spans.take(order)
    part = rows.part if order is None else rows.part.take(order)
    texts = rows.texts
    parent = spans["parent_id"]
    columns: dict[str, Any] = {
        "trace_id": _plain(pa.binary(16), _ids(spans["trace_hi"], spans["trace_lo"])),
        "span_id": _plain(pa.binary(8), _ids(spans["span_id"])),
        "parent_span_id": _plain(pa.binary(8), _ids(parent), parent != 0),
        "start_ns": _plain(pa.uint64(), spans["start_ns"]),
        "duration_ns": _plain(pa.int64(), (spans["end_ns"] - spans["start_ns"]).view(np.int64)),
        "name": _texts(texts, part, spans["name_offset"], spans["name_length"]),
        "kind": _plain(pa.int32(), spans["kind"]),
        "status": _plain(pa.int32(), spans["status"]),
        "status_message": _texts(texts, part, spans["message_offset"], spans["message_length"]),
        "flags": _plain(pa.uint32(), spans["flags"]),
        **_context_columns(rows, spans),
        **_finding_columns(rows, order),
    }
    if fields:
        columns["fields"] = _binary(
            texts, part, spans["fields_offset"], spans["fields_length"], pa.large_binary()
        )
    schema = SCHEMA if fields else SCHEMA.remove(SCHEMA.get_field_index("fields"))
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def order_by_trace(hi: UInt64, lo: UInt64) -> NDArray[np.intp]:
    """Sort by trace id: the high word decides alone unless two traces share it."""
    order = np.argsort(hi)
    high, low = hi[order], lo[order]
    if bool(np.any((high[1:] == high[:-1]) & (low[1:] < low[:-1]))):
        order = np.lexsort((lo, hi))
    return order
