"""Write one segment: a Parquet file and its Bloom filter, complete on disk before they have a name.

Law: both files are written under a temporary name, synced, renamed, and the folder is synced; so a
file with its final name is whole. It becomes part of the store only with its catalogue row.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.errors import RetryableError
from gateway.store import bloom
from gateway.store.catalogue import Segment, summarize
from gateway.store.columns import SCHEMA, Part, build, join, order_by_trace
from gateway.tables import UInt64

ROW_GROUP_ROWS: Final = 8192  # a trace is read by unpacking one group: 1 to 2 ms
ZSTD_LEVEL: Final = 1  # level 3 costs twice the time for about 5 % fewer bytes
SUFFIX: Final = ".parquet"
BLOOM_SUFFIX: Final = ".bloom"
TEMPORARY_SUFFIX: Final = ".tmp"

# What is near to unique in each row gains nothing from a dictionary; times sorted by trace lie
# close together, so their differences are short.
_DELTA: Final = ("start_ns", "duration_ns")
_PLAIN: Final = ("trace_id", "span_id", "parent_span_id", "row", "fields", *_DELTA)
# Random ids do not compress, and the run lengths of the other columns leave nothing to compress.
_PACKED: Final = ("trace_id", "name", "status_message", "row", "resource", "scope", "fields")
# Bounds of a page or group help only where a reader can ask for a range or a value.
_BOUNDED: Final = (
    "trace_id",
    "start_ns",
    "duration_ns",
    "status",
    "model",
    "version",
    "device",
    "failed",
    "kept",
    "arrival_ns",
    "sequence",
)


def _write_parquet(table: Any, path: Path) -> None:
    """Write and sync one Parquet file."""
    with pa.OSFile(str(path), "wb") as sink:
        pq.write_table(
            table,
            sink,
            row_group_size=ROW_GROUP_ROWS,
            compression={
                name: "zstd" if name in (*_PACKED, *_DELTA) else "none" for name in SCHEMA.names
            },
            compression_level=dict.fromkeys((*_PACKED, *_DELTA), ZSTD_LEVEL),
            use_dictionary=[name for name in SCHEMA.names if name not in _PLAIN],
            column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
            write_page_index=True,
            write_statistics=list(_BOUNDED),
            sorting_columns=[pq.SortingColumn(0)],
        )
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _distinct_traces(hi: UInt64, lo: UInt64) -> tuple[UInt64, UInt64]:
    """Keep one of each run of equal ids; the input is sorted."""
    first = np.ones(len(hi), dtype=np.bool_)
    first[1:] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])
    return hi[first], lo[first]


def write(
    directory: Path, parts: Sequence[Part], first_sequence: int, last_sequence: int
) -> Segment:
    """Write the rows of `parts` as one segment; blocks on the disk.

    Raises: RetryableError when the disk does not take it.
    """
    rows = join(parts)
    order = order_by_trace(rows.spans["trace_hi"], rows.spans["trace_lo"])
    table = build(rows, order)
    start = rows.spans["start_ns"]
    hi, lo = _distinct_traces(rows.spans["trace_hi"][order], rows.spans["trace_lo"][order])
    name = f"seg-{first_sequence}-{last_sequence}"
    target = directory / (name + SUFFIX)
    filter_target = directory / (name + BLOOM_SUFFIX)
    temporary = directory / (name + SUFFIX + TEMPORARY_SUFFIX)
    filter_temporary = directory / (name + BLOOM_SUFFIX + TEMPORARY_SUFFIX)
    try:
        filter_temporary.write_bytes(bloom.build(hi, lo))
        _sync(filter_temporary)
        _write_parquet(table, temporary)
        size = temporary.stat().st_size + filter_temporary.stat().st_size
        filter_temporary.rename(filter_target)
        temporary.rename(target)
        _sync(directory)
    except (OSError, pa.ArrowException) as error:
        for path in (temporary, filter_temporary, filter_target):
            with suppress(OSError):  # what stays is deleted at the next start
                path.unlink(missing_ok=True)
        raise RetryableError(f"segment {name} cannot be written: {error}") from error
    return Segment(
        path=target.name,
        first_sequence=first_sequence,
        last_sequence=last_sequence,
        rows=table.num_rows,
        traces=len(hi),
        bytes=size,
        start_ns_min=int(start.min()),
        start_ns_max=int(start.max()),
        arrival_ns_max=max(int(part.arrival_ns.max()) for part in parts),
        summary=summarize(table),
    )
