"""A store in a temporary folder with a catalogue in memory."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store.store import Store
from tests.unit.store.rows import open_store


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    yield connection
    connection.close()


@pytest.fixture
def store(tmp_path: Path, connection: sqlite3.Connection) -> Store:
    return open_store(tmp_path / "store", connection)
