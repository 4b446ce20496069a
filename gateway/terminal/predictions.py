"""Predictions in files: Parquet, CSV or JSON lines, as the bins in which the gateway counts them.

Law: every row of every file becomes one bin of each signal, in the order of rows and files. No
value is `missing`; a value that is none of the signal's (NaN, infinite, out of range, unseen, of
another kind) is `odd`: both are counted, never dropped. A file that cannot be read is refused with
its name and, where there are lines, its line. Memory is that of one chunk of rows.
"""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from gateway.contract.schema import Signal, SignalType
from gateway.errors import WeirError
from gateway.measure.drift.grid import Grid, bins_of_classes, bins_of_numbers
from gateway.measure.state import Int64

ROWS_PER_CHUNK: Final = 65_536
LINE_BYTES_MAX: Final = 1 << 20
CSV_BLOCK_BYTES: Final = 8 << 20
# No value of an enum has it: contracts refuse control characters.
NO_CLASS: Final = "\0"
# What a column of what was right may hold, in any case.
YES: Final = ("true", "1")
NO: Final = ("false", "0")
TEXT_TYPES: Final = frozenset({SignalType.BOOL, SignalType.ENUM})

# No signal has these names.
_TIME: Final = ""
_TRUTH: Final = " "
# Whether a prediction was right: not, so, or nobody knows.
WRONG, RIGHT, UNLABELLED = 0, 1, -1
# Told how many bytes of a file have been read.
Follow = Callable[[int], None]
_Columns = Mapping[str, pa.Array]
# Columns beside the signals, by the name under which they are read.
_Beside = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some rows.

    Shape: bins by signal (rows,); times_ns and outcomes (rows,), None where none were asked;
    outcomes are RIGHT, WRONG or UNLABELLED.
    """

    rows: int
    bins: Mapping[str, Int64]
    times_ns: Int64 | None
    outcomes: Int64 | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The column that tells what was right.

    Of yes and no where `predicted` is None, else of what `predicted` should have been.
    """

    column: str
    predicted: Signal | None = None


def read(
    path: Path,
    wanted: Sequence[tuple[Signal, Grid]],
    time: str | None,
    follow: Follow,
    truth: Truth | None = None,
) -> Iterator[Chunk]:
    """Read a file in chunks; a signal without a column is left out. Raises: WeirError."""
    named = {_TIME: time, _TRUTH: None if truth is None else truth.column}
    beside = {key: name for key, name in named.items() if name is not None}
    kinds: Mapping[str, Callable[[], Iterator[_Columns]]] = {
        ".parquet": lambda: _parquet(path, wanted, beside, follow),
        ".csv": lambda: _csv(path, wanted, beside, follow),
        ".jsonl": lambda: _json_lines(path, wanted, beside, follow),
        ".ndjson": lambda: _json_lines(path, wanted, beside, follow),
    }
    if path.suffix not in kinds:
        raise WeirError(f"{path}: write a file that ends in {', '.join(kinds)}")
    with _refused(path):
        for columns in kinds[path.suffix]():
            rows = len(next(iter(columns.values()))) if columns else 0
            bins = {
                signal.name: bins_of(signal, grid, columns[signal.name])
                for signal, grid in wanted
                if signal.name in columns
            }
            times_ns = None if time is None else _times(columns[_TIME])
            outcomes = None if truth is None else _outcomes(columns, truth)
            yield Chunk(rows=rows, bins=bins, times_ns=times_ns, outcomes=outcomes)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Read a file in a block. Raises: WeirError with its name."""
    try:
        yield
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        why = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0]
        raise WeirError(f"{path} cannot be read: {why}") from error


def bins_of(signal: Signal, grid: Grid, column: pa.Array) -> Int64:
    """Find the bin of each value of a column. Shape: (rows,)."""
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if signal.type not in TEXT_TYPES:
        return bins_of_numbers(grid, _numbers(column), missing)
    texts = _texts(column, signal.type)
    found = pc.index_in(texts, value_set=pa.array(grid.values, pa.string()))
    codes = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return bins_of_classes(grid, codes, missing)


def _numbers(column: pa.Array) -> Any:
    """Read a column as doubles, NaN where a value is none."""
    kind = column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if is_number:
        return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.full(len(column), np.nan)


def _texts(column: pa.Array, kind: SignalType) -> pa.Array:
    """Read a column as texts, NO_CLASS where a value is none; booleans may be written as texts."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_bool = kind is SignalType.BOOL
    if is_bool and pa.types.is_boolean(column.type):
        return column.cast(pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return pa.array([NO_CLASS] * len(column), pa.string())
    texts = column.cast(pa.string())
    return pc.utf8_lower(texts) if is_bool else texts


def _outcomes(columns: _Columns, truth: Truth) -> Int64:
    """Say of each row whether it was right. Raises: ValueError where a value is none."""
    known = columns[_TRUTH]
    if pa.types.is_dictionary(known.type):
        known = known.cast(known.type.value_type)
    missing = known.is_null().to_numpy(zero_copy_only=False)
    texts = pc.fill_null(known.cast(pa.string()), "")
    if truth.predicted is None:
        lower = pc.utf8_lower(texts)
        right = pc.is_in(lower, pa.array(YES)).to_numpy(zero_copy_only=False)
        said = right | pc.is_in(lower, pa.array(NO)).to_numpy(zero_copy_only=False)
        if not (said | missing).all():
            raise ValueError(f"{truth.column!r} holds more than {', '.join((*YES, *NO))}")
    else:
        if truth.predicted.name not in columns:
            raise ValueError(f"it has no column of {truth.predicted.name}, which labels are of")
        predicted = _texts(columns[truth.predicted.name], truth.predicted.type)
        if truth.predicted.type is SignalType.BOOL:
            texts = pc.utf8_lower(texts)
        right = pc.fill_null(pc.equal(predicted, texts), False).to_numpy(zero_copy_only=False)
    found: Int64 = np.where(missing, UNLABELLED, np.where(right, RIGHT, WRONG))
    return found


def _times(column: pa.Array) -> Int64:
    """Read times as Unix nanoseconds. Raises: ValueError where one is missing or is none."""
    if column.null_count:
        raise ValueError("a row has no time")
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = _times_of_text(column)
    elif not (pa.types.is_timestamp(kind) or pa.types.is_integer(kind)):
        raise ValueError(f"times are {kind}; write timestamps or Unix nanoseconds")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", column.type.tz))
    times: Int64 = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return times


def _times_of_text(column: pa.Array) -> pa.Array:
    for kind in (pa.int64(), pa.timestamp("ns", "UTC"), pa.timestamp("ns")):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    raise ValueError(
        "times are neither Unix nanoseconds nor as 2026-01-31T08:00:00Z, all of one form"
    )


def _chosen(
    there: Iterable[str], wanted: Sequence[tuple[Signal, Grid]], beside: _Beside
) -> dict[str, str]:
    """Return the column of each signal: that of its attribute, else that of its name."""
    names = list(there)
    chosen = {
        signal.name: next(each for each in (signal.attribute, signal.name) if each in names)
        for signal, _ in wanted
        if signal.attribute in names or signal.name in names
    }
    twice = sorted({each for each in chosen.values() if names.count(each) > 1})
    if twice:
        raise ValueError(f"two columns are named {twice[0]!r}")
    for key, name in beside.items():
        if names.count(name) != 1:
            what = "the time" if key == _TIME else "what was right"
            raise ValueError(f"it has no column {name!r} for {what}; it has {', '.join(names)}")
    return chosen | dict(beside)


def _parquet(
    path: Path, wanted: Sequence[tuple[Signal, Grid]], beside: _Beside, follow: Follow
) -> Iterator[_Columns]:
    size = path.stat().st_size
    with pa.parquet.ParquetFile(path) as file:
        chosen = _chosen(file.schema_arrow.names, wanted, beside)
        rows, total = 0, file.metadata.num_rows
        needed = list(dict.fromkeys(chosen.values()))
        for batch in file.iter_batches(batch_size=ROWS_PER_CHUNK, columns=needed):
            yield {name: batch.column(column) for name, column in chosen.items()}
            rows += len(batch)
            follow(size * rows // max(total, 1))


def _csv(
    path: Path, wanted: Sequence[tuple[Signal, Grid]], beside: _Beside, follow: Follow
) -> Iterator[_Columns]:
    with path.open(encoding="utf-8-sig", newline="") as text:
        names = next(csv.reader(text), [])
    if not names:
        raise ValueError("the first line names no columns")
    chosen = _chosen(names, wanted, beside)
    if not chosen:
        return
    types = {signal.name: signal.type for signal, _ in wanted}
    options = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(chosen.values(), pa.string()),
        include_columns=list(dict.fromkeys(chosen.values())),
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    with path.open("rb") as raw:
        reader = pa.csv.open_csv(
            raw,
            read_options=pa.csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=options,
        )
        for batch in reader:
            yield {
                name: _typed(batch.column(column), types.get(name))
                for name, column in chosen.items()
            }
            follow(raw.tell())


def _typed(column: pa.Array, kind: SignalType | None) -> pa.Array:
    """Read the texts of a CSV column of numbers; NaN where one is none."""
    if kind is None or kind in TEXT_TYPES:
        return column
    trimmed = pc.utf8_trim_whitespace(column)
    try:
        return trimmed.cast(pa.float64())
    except pa.ArrowInvalid:
        values = [None if text is None else _number(text) for text in trimmed.to_pylist()]
        return pa.array(values, pa.float64())


def _number(text: str) -> float:
    try:
        return float(text) if "_" not in text else math.nan
    except ValueError:
        return math.nan


def _json_lines(
    path: Path, wanted: Sequence[tuple[Signal, Grid]], beside: _Beside, follow: Follow
) -> Iterator[_Columns]:
    there: list[tuple[Signal, Grid]] | None = None
    with path.open("rb") as lines:
        numbered = _objects(lines)
        while rows := list(islice(numbered, ROWS_PER_CHUNK)):
            keys = set().union(*rows)
            seen = [each for each in wanted if keys & {each[0].attribute, each[0].name}]
            there = seen if there is None else there
            new = [signal.name for signal, grid in seen if (signal, grid) not in there]
            if new:
                raise ValueError(
                    f"the first {ROWS_PER_CHUNK} rows lack {new[0]}, later ones do not"
                )
            columns = {signal.name: _column(signal, rows) for signal, _ in there}
            for key, name in beside.items():
                columns[key] = pa.array([row.get(name) for row in rows])
            yield columns
            follow(lines.tell())


def _objects(lines: BinaryIO) -> Iterator[dict[str, Any]]:
    for number in count(1):
        line = lines.readline(LINE_BYTES_MAX + 1)
        if not line:
            return
        if len(line) > LINE_BYTES_MAX:
            raise ValueError(f"line {number} is longer than {LINE_BYTES_MAX} bytes")
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON") from error
        if not isinstance(found, dict):
            raise ValueError(f"line {number} is no JSON object")
        yield found


def _column(signal: Signal, rows: Sequence[Mapping[str, Any]]) -> pa.Array:
    """Take a signal's values out of rows; null and no key are missing, another kind is odd."""
    values = [row.get(signal.attribute, row.get(signal.name)) for row in rows]
    if signal.type is SignalType.BOOL:
        values = [str(each).lower() if isinstance(each, bool) else each for each in values]
    if signal.type in TEXT_TYPES:
        texts = [each if each is None or isinstance(each, str) else NO_CLASS for each in values]
        return pa.array(texts, pa.string())
    return pa.array([_json_number(each) for each in values], pa.float64())


def _json_number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf
