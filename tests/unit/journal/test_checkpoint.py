"""What a transaction wrote is there after it, and damage is noticed."""

import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from gateway.errors import CorruptDataError, JournalUnavailableError, StartError
from gateway.journal.checkpoint import Checkpoint, pack_arrays, unpack_arrays


def arrays_equal(a: dict[str, NDArray[Any]], b: dict[str, NDArray[Any]]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes()
        for k in a
    )


@given(
    st.dictionaries(
        st.text(max_size=20),
        hnp.arrays(
            dtype=st.one_of(hnp.scalar_dtypes(), st.just(np.dtype([("a", "<u8"), ("b", "<i4")]))),
            shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
        ),
        max_size=4,
    )
)
def test_any_arrays_come_back_bit_by_bit(arrays: dict[str, NDArray[Any]]) -> None:
    assert arrays_equal(unpack_arrays(pack_arrays(arrays)), arrays)


def test_objects_are_never_pickled() -> None:
    with pytest.raises(ValueError, match=r"[Oo]bject arrays"):
        pack_arrays({"x": np.array([{}], dtype=object)})


@given(st.binary(max_size=80))
def test_foreign_bytes_are_corrupt_and_nothing_else(blob: bytes) -> None:
    with pytest.raises(CorruptDataError):
        unpack_arrays(blob)


def test_every_flipped_byte_of_a_state_is_noticed() -> None:
    blob = pack_arrays({"counts": np.arange(20), "": np.zeros(0)})
    for index in range(len(blob)):
        with pytest.raises(CorruptDataError):
            unpack_arrays(blob[:index] + bytes([blob[index] ^ 0x10]) + blob[index + 1 :])


def test_a_checkpoint_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.db"
    checkpoint = Checkpoint.open(path)
    assert checkpoint.load() is None
    with checkpoint.transaction() as connection:
        checkpoint.save(connection, 7, {"n": np.array([1.5, 2.5])}, {"series": ["a", {"b": None}]})
        checkpoint.set_outbox_cursor(connection, 9)
    checkpoint.close()
    saved = Checkpoint.open(path).load()
    assert saved is not None
    assert (saved.cursor, saved.outbox_cursor) == (7, 9)
    assert saved.arrays["n"].tolist() == [1.5, 2.5]
    assert saved.meta == {"series": ["a", {"b": None}]}


def test_saving_keeps_the_outbox_cursor_and_it_never_falls(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "state.db")
    with checkpoint.transaction() as connection:
        checkpoint.set_outbox_cursor(connection, 9)
    saved = checkpoint.load()
    assert saved is not None
    assert (saved.cursor, saved.outbox_cursor, saved.arrays) == (0, 9, {})
    with checkpoint.transaction() as connection:
        checkpoint.save(connection, 4, {}, {})
        checkpoint.set_outbox_cursor(connection, 3)
    saved = checkpoint.load()
    assert saved is not None
    assert (saved.cursor, saved.outbox_cursor) == (4, 9)
    checkpoint.close()


def test_a_transaction_that_raises_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "state.db")
    bad = {"x": np.array([{}], dtype=object)}
    checkpoint.connection.execute("CREATE TABLE beside (n INTEGER)")
    with pytest.raises(ValueError, match="bject"), checkpoint.transaction() as connection:  # noqa: PT012
        row = connection.execute("INSERT INTO beside VALUES (1)")
        checkpoint.save(connection, row.rowcount, bad, {})
    assert checkpoint.connection.execute("SELECT count(*) FROM beside").fetchone() == (0,)
    assert checkpoint.load() is None
    assert not checkpoint.connection.in_transaction
    checkpoint.close()


def test_commits_are_synced_and_space_can_be_given_back(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "state.db")
    expected = {"journal_mode": "wal", "synchronous": 2, "auto_vacuum": 2}
    for name, value in expected.items():
        assert checkpoint.connection.execute(f"PRAGMA {name}").fetchone() == (value,)
    checkpoint.close()


def test_a_lock_held_by_another_is_retryable(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "state.db")
    checkpoint.connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalUnavailableError), checkpoint.transaction():
        pass
    other.execute("ROLLBACK")
    other.close()
    with checkpoint.transaction() as connection:
        checkpoint.save(connection, 1, {}, {})
    checkpoint.close()


def test_a_full_database_is_retryable_and_heals(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "state.db")
    checkpoint.connection.execute("PRAGMA max_page_count = 10").fetchone()
    big = {"n": np.frombuffer(np.random.default_rng(1).bytes(200_000), dtype=np.uint8)}
    with pytest.raises(JournalUnavailableError, match="full"), checkpoint.transaction() as c:
        checkpoint.save(c, 1, big, {})
    checkpoint.connection.execute("PRAGMA max_page_count = 1000").fetchone()
    with checkpoint.transaction() as c:
        checkpoint.save(c, 1, big, {})
    checkpoint.close()


def test_an_error_in_a_statement_is_not_hidden(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "state.db")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):  # noqa: SIM117
        with checkpoint.transaction() as connection:
            connection.execute("SELECT * FROM nowhere")
    checkpoint.close()


def test_a_file_that_is_no_database_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StartError, match=r"state\.db"):
        Checkpoint.open(tmp_path / "state.db")


def test_a_reader_in_another_thread_sees_commits_and_cannot_write(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tmp_path / "a ?#%.db")
    reader = checkpoint.readonly()
    with checkpoint.transaction() as connection:
        checkpoint.save(connection, 3, {}, {})
    seen: list[int] = []

    def read() -> None:
        seen.append(reader.execute("SELECT cursor FROM checkpoint").fetchone()[0])
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM checkpoint")

    thread = threading.Thread(target=read)
    thread.start()
    thread.join(10)
    assert seen == [3]
    reader.close()
    checkpoint.close()
