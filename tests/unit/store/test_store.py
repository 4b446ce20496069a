"""Rows go in by batch, lie in Parquet files that stand alone, and leave by age and size."""

import sqlite3
import threading
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from gateway.errors import InvalidQueryError, RetryableError, StartError
from gateway.store.columns import SCHEMA
from gateway.store.segment import ROW_GROUP_ROWS
from gateway.store.store import Store
from gateway.tables import NO_THRESHOLD
from tests.unit.store.rows import NOW_NS, SECOND_NS, Row, columns, open_store, seal, trace_id


def test_a_sealed_file_is_read_by_pyarrow_alone(
    store: Store, connection: sqlite3.Connection
) -> None:
    rows = [
        Row(trace=9, span=3, parent=2, message="broken", status=2, failed=True, reason="error"),
        Row(trace=(7 << 64) | 1, threshold=0xF3333333333333, kept=False, contract=1),
        Row(trace=2, model=None, contract=-1, duration_ns=-4, name=""),
    ]
    store.add(*columns(rows, sequence=4))
    path = seal(store, connection, 4, 4)
    assert path.name == "seg-4-4.parquet"
    table = pq.read_table(path)
    assert table.schema.names == SCHEMA.names
    out = table.to_pylist()
    assert [row["trace_id"].hex() for row in out] == [
        trace_id(2),
        trace_id(9),
        trace_id((7 << 64) | 1),
    ]
    assert [row["row"] for row in out] == [2, 0, 1]
    assert [row["sequence"] for row in out] == [4, 4, 4]
    assert [row["parent_span_id"] for row in out] == [None, bytes(7) + b"\2", None]
    assert [row["model"] for row in out] == [None, "damage-net", "damage-net"]
    assert [row["contract"] for row in out] == [None, "damage-net", "triage"]
    assert [row["threshold"] for row in out] == [None, None, 0xF3333333333333]
    assert [row["duration_ns"] for row in out] == [-4, 5_000_000, 5_000_000]
    assert [row["status_message"] for row in out] == ["", "broken", ""]
    assert [row["failed"] for row in out] == [False, True, False]
    assert [row["kept"] for row in out] == [True, True, False]
    assert [row["reason"] for row in out] == ["rate", "error", "rate"]
    assert {row["service"] for row in out} == {"vision"}
    assert {row["arrival_ns"] for row in out} == {NOW_NS}


def test_a_file_is_sorted_in_small_groups_with_index_and_bounds(
    store: Store, connection: sqlite3.Connection
) -> None:
    count = ROW_GROUP_ROWS + 100
    rows = [Row(trace=(n * 2_654_435_761) % (1 << 32) << 96) for n in range(1, count + 1)]
    store.add(*columns(rows))
    file = pq.ParquetFile(seal(store, connection, 1, 1))
    assert [file.metadata.row_group(n).num_rows for n in range(2)] == [ROW_GROUP_ROWS, 100]
    column = file.metadata.row_group(0).column(0)
    assert column.has_column_index
    assert column.has_offset_index
    assert file.metadata.row_group(0).sorting_columns[0].column_index == 0
    ids = file.read().column("trace_id").to_pylist()
    assert ids == sorted(ids)
    assert column.statistics.min == ids[0]
    assert column.statistics.max == ids[ROW_GROUP_ROWS - 1]


def test_a_trace_is_found_pending_sealed_and_in_both(
    store: Store, connection: sqlite3.Connection
) -> None:
    store.add(*columns([Row(trace=1, span=1, start_ns=NOW_NS + 5), Row(trace=2)], sequence=1))
    assert [row["span_id"][-1] for row in store.find_trace("1").table.to_pylist()] == [1]
    seal(store, connection, 1, 1)
    assert len(store.find_trace("1")) == 1
    store.add(*columns([Row(trace=1, span=2, start_ns=NOW_NS)], sequence=2))
    assert [row["span_id"][-1] for row in store.find_trace("1").table.to_pylist()] == [2, 1]
    seal(store, connection, 2, 2)
    assert [row["span_id"][-1] for row in store.find_trace("1").table.to_pylist()] == [2, 1]
    assert len(store.find_trace("3")) == 0
    assert store.find_trace("3").problems == ()


def test_trace_ids_are_read_in_any_case_without_leading_zeros(store: Store) -> None:
    store.add(*columns([Row(trace=0xABC)]))
    for text in ("abc", "ABC", trace_id(0xABC)):
        found = store.find_trace(text)
        assert (found.trace_id, len(found)) == (trace_id(0xABC), 1)
    for text in ("", "xyz", "0" * 33, "-1", "0x1", " 1"):
        with pytest.raises(InvalidQueryError):
            store.find_trace(text)


def test_many_traces_are_found_together(store: Store, connection: sqlite3.Connection) -> None:
    for sequence in range(3):
        rows = [Row(trace=n, span=sequence + 1) for n in range(1, 50)]
        store.add(*columns(rows, sequence=sequence))
        if sequence < 2:
            seal(store, connection, sequence, sequence)
    found = store.find_traces([trace_id(n) for n in (3, 40, 77)])
    assert {key: len(rows) for key, rows in found.items()} == {
        trace_id(3): 3,
        trace_id(40): 3,
        trace_id(77): 0,
    }
    with pytest.raises(InvalidQueryError, match="at most"):
        store.find_traces([trace_id(n) for n in range(1001)])


def test_traces_that_share_the_high_word_stay_apart(
    store: Store, connection: sqlite3.Connection
) -> None:
    rows = [Row(trace=(5 << 64) | low, span=low) for low in (3, 1, 2, 1, 3)]
    store.add(*columns(rows))
    table = pq.read_table(seal(store, connection, 1, 1))
    assert [value[-1] for value in table.column("trace_id").to_pylist()] == [1, 1, 2, 3, 3]
    assert len(store.find_trace(trace_id((5 << 64) | 3))) == 2


def test_batches_with_different_name_tables_are_brought_together(
    store: Store, connection: sqlite3.Connection
) -> None:
    store.add(
        *columns(
            [Row(trace=1, device="a", model=("m", "1")), Row(trace=2, device="b", model=None)],
            sequence=1,
        )
    )
    store.add(
        *columns(
            [
                Row(trace=3, device="c", model=("n", "1"), service="other", name="x"),
                Row(trace=4, device="b", model=("m", "2"), reason="error"),
            ],
            sequence=2,
            arrival_ns=NOW_NS + 7,
        )
    )
    out = pq.read_table(seal(store, connection, 1, 2)).to_pylist()
    assert [row["device"] for row in out] == ["a", "b", "c", "b"]
    assert [(row["model"], row["version"]) for row in out] == [
        ("m", "1"),
        (None, None),
        ("n", "1"),
        ("m", "2"),
    ]
    assert [row["service"] for row in out] == ["vision", "vision", "other", "vision"]
    assert [row["name"] for row in out] == ["inference", "inference", "x", "inference"]
    assert [row["reason"] for row in out] == ["rate", "rate", "rate", "error"]
    assert [row["arrival_ns"] - NOW_NS for row in out] == [0, 0, 7, 7]
    assert [row["sequence"] for row in out] == [1, 1, 2, 2]


def test_only_the_named_batches_are_sealed(store: Store, connection: sqlite3.Connection) -> None:
    for sequence in (1, 2, 3):
        store.add(*columns([Row(trace=sequence)], sequence=sequence))
    assert store.pending_rows == 3
    assert store.pending_bytes > 0
    segment = store.write_segment(1, 2)
    assert segment is not None
    assert (segment.rows, segment.traces, store.pending_rows) == (2, 2, 1)
    store.publish(connection, segment)
    store.settle(segment)
    assert store.pending_rows == 1
    assert all(len(store.find_trace(str(n))) == 1 for n in (1, 2, 3))


def test_an_empty_range_and_an_empty_batch_write_nothing(store: Store) -> None:
    store.add(*columns([], sequence=1))
    assert store.write_segment(0, 9) is None
    assert list(store._directory.iterdir()) == []


def test_a_failed_transaction_loses_no_row(store: Store, connection: sqlite3.Connection) -> None:
    store.add(*columns([Row(trace=1)], sequence=1))
    first = store.write_segment(1, 1)
    assert first is not None
    connection.execute("BEGIN")
    store.publish(connection, first)
    connection.execute("ROLLBACK")
    assert len(store.find_trace("1")) == 1
    store.add(*columns([Row(trace=2)], sequence=2))
    seal(store, connection, 1, 2)
    assert store.recover(connection).deleted == ("seg-1-1.bloom", "seg-1-1.parquet")
    assert len(store.find_trace("1")) == 1


def test_a_disk_that_fails_leaves_rows_pending_and_no_file(
    store: Store, connection: sqlite3.Connection
) -> None:
    store.add(*columns([Row(trace=1)], sequence=1))
    blocker = store._directory / "seg-1-1.parquet"
    blocker.mkdir()
    (blocker / "x").touch()  # a rename onto a folder with content fails
    with pytest.raises(RetryableError, match="cannot be written"):
        store.write_segment(1, 1)
    assert store.pending_rows == 1
    assert len(store.find_trace("1")) == 1
    (blocker / "x").unlink()
    blocker.rmdir()
    seal(store, connection, 1, 1)
    assert len(store.find_trace("1")) == 1


def test_a_full_disk_is_a_retryable_error(tmp_path: Path, connection: sqlite3.Connection) -> None:
    store = open_store(tmp_path / "store", connection)
    store.add(*columns([Row(trace=1)], sequence=1))
    store._directory.rmdir()
    with pytest.raises(RetryableError, match="cannot be written"):
        store.write_segment(1, 1)
    assert store.pending_rows == 1


def test_start_deletes_unknown_files_and_names_missing_ones(
    store: Store, connection: sqlite3.Connection
) -> None:
    for sequence in (1, 2):
        store.add(*columns([Row(trace=sequence)], sequence=sequence))
        path = seal(store, connection, sequence, sequence)
    path.unlink()
    for name in ("seg-3-4.parquet", "seg-3-4.bloom", "seg-5-6.parquet.tmp", "seg-5-6.bloom.tmp"):
        (store._directory / name).touch()
    again = open_store(store._directory, connection)
    found = again.recover(connection)
    assert found.segments == 1
    assert found.missing == ("seg-2-2.parquet",)
    assert len(found.deleted) == 4
    assert sorted(path.name for path in store._directory.iterdir()) == [
        "seg-1-1.bloom",
        "seg-1-1.parquet",
        "seg-2-2.bloom",
    ]
    assert len(again.find_trace("1")) == 1
    assert len(again.find_trace("2")) == 0


def test_the_catalogue_survives_a_restart(store: Store, connection: sqlite3.Connection) -> None:
    far = (1 << 64) - 5  # a clock that is wrong by centuries
    store.add(*columns([Row(trace=1, start_ns=far - 100, duration_ns=1)], sequence=1))
    seal(store, connection, 1, 1)
    again = open_store(store._directory, connection)
    again.recover(connection)
    assert again.segments == store.segments
    assert again.bytes_used == sum(path.stat().st_size for path in store._directory.iterdir())
    assert again.operations() == store.operations()


def test_retention_by_bytes_removes_the_oldest(
    tmp_path: Path, connection: sqlite3.Connection
) -> None:
    store = open_store(tmp_path / "store", connection)
    for sequence in (1, 2, 3):
        store.add(*columns([Row(trace=sequence)], sequence=sequence))
        seal(store, connection, sequence, sequence)
    sizes = [segment.bytes for segment in store.segments]
    store._bytes_max = sizes[1] + sizes[2]
    retired = store.retain(connection, NOW_NS)
    assert (retired.segments, retired.rows, retired.bytes) == (1, 1, sizes[0])
    assert [len(store.find_trace(str(n))) for n in (1, 2, 3)] == [0, 1, 1]
    assert store.find_trace("1").problems == ()
    assert len(list(store._directory.iterdir())) == 4
    assert connection.execute("SELECT count(*) FROM segments").fetchone() == (2,)
    assert store.retain(connection, NOW_NS).segments == 0
    assert store.retired == retired


def test_retention_by_age_counts_from_arrival(
    tmp_path: Path, connection: sqlite3.Connection
) -> None:
    store = open_store(tmp_path / "store", connection, age_max_s=10.0)
    for sequence in (1, 2):
        arrival = NOW_NS + sequence * 8 * SECOND_NS
        store.add(*columns([Row(trace=sequence)], sequence=sequence, arrival_ns=arrival))
        seal(store, connection, sequence, sequence)
    assert store.retain(connection, NOW_NS + 18 * SECOND_NS).segments == 0
    assert store.retain(connection, NOW_NS + 19 * SECOND_NS).segments == 1
    assert [segment.first_sequence for segment in store.segments] == [2]


def test_a_damaged_file_is_named_and_the_rest_is_answered(
    store: Store, connection: sqlite3.Connection
) -> None:
    for sequence in (1, 2):
        store.add(*columns([Row(trace=1, span=sequence)], sequence=sequence))
        path = seal(store, connection, sequence, sequence)
    path.write_bytes(b"PAR1 not really PAR1")
    found = store.find_trace("1")
    assert len(found) == 1
    assert any("seg-2-2.parquet is damaged" in problem for problem in found.problems)
    path.unlink()
    assert any("missing" in problem for problem in store.find_trace("1").problems)


def test_a_damaged_filter_never_hides_a_trace(store: Store, connection: sqlite3.Connection) -> None:
    store.add(*columns([Row(trace=1)], sequence=1))
    path = seal(store, connection, 1, 1).with_suffix(".bloom")
    path.write_bytes(bytes(len(path.read_bytes())))
    found = store.find_trace("1")
    assert len(found) == 1
    assert any("checksum" in problem for problem in found.problems)


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="store folder"):
        Store.open(tmp_path / "file" / "store", bytes_max=1, age_max_s=1.0)


def test_questions_during_sealing_and_retention_see_each_row_once_or_not(
    store: Store, connection: sqlite3.Connection
) -> None:
    """A reader in another thread never sees a row twice and never fails."""
    seen: list[int] = []
    problems: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = store.find_trace("1")
            seen.append(len(found))
            problems.extend(found.problems)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for sequence in range(20):
            store.add(*columns([Row(trace=1, threshold=NO_THRESHOLD)], sequence=sequence))
            seal(store, connection, sequence, sequence)
            store._bytes_max = 0
            store.retain(connection, NOW_NS)
    finally:
        stop.set()
        reader.join(timeout=10)
    assert set(seen) <= {0, 1}
    assert problems == []


def test_text_that_is_not_utf8_is_still_stored(
    store: Store, connection: sqlite3.Connection
) -> None:
    clean, batch, findings, verdict = columns([Row(trace=1, name="abc")])
    text = clean.text.copy()
    text[int(clean.spans["name_offset"][0])] = 0xFF
    object.__setattr__(clean, "text", text)
    store.add(clean, batch, findings, verdict)
    table = pq.read_table(seal(store, connection, 1, 1))
    assert table.column("name").to_pylist() == ["\ufffdbc"]
    assert pc.count(table.column("resource")).as_py() == 1
