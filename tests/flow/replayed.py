"""The state of a site after any history, against that of one replay of its whole journal.

Law: the state depends on the sequence of groups alone. A gateway gives journal segments back once
they are sealed, so an archive keeps a second name of each while the gateway runs; groups are
numbered without gaps, which proves that none was missed.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.config import load_site
from gateway.contract.load import load_contracts
from gateway.contract.plan import compile_plan
from gateway.core import Hooks
from gateway.journal.log import Journal
from gateway.rooms import Rooms, open_rooms
from tests.servers import LOOPBACK

LOOK_S: Final = 0.01
LATER_NS: Final = 3_600_000_000_000
LIMIT: Final = 1 << 40


def _link_new(journal: Path, archive: Path) -> None:
    for path in journal.glob("*.segment"):
        with suppress(FileExistsError, FileNotFoundError):  # it is known, or it has just gone
            os.link(path, archive / path.name)


@contextmanager
def archived(journal: Path, archive: Path) -> Iterator[None]:
    """Give every segment of a journal a second name while the block runs."""
    archive.mkdir(parents=True)
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(LOOK_S):
            _link_new(journal, archive)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _link_new(journal, archive)


@contextmanager
def opened(config: Path, data_dir: Path) -> Iterator[Rooms]:
    """Recover a data directory in this process."""
    site = load_site(config, [*LOOPBACK, f"data_dir={data_dir}"])
    plan = compile_plan(load_contracts(site.contracts), site.sampling)
    hooks = Hooks(anomalies=lambda _: None, flushed=lambda: None, released=lambda _: None)
    rooms = open_rooms(site, plan, hooks, lambda work, _: work())
    try:
        yield rooms
    finally:
        rooms.close()


def _state(config: Path, data_dir: Path, now_ns: int) -> tuple[dict[str, Any], int]:
    with opened(config, data_dir) as rooms:
        rooms.storage.submit(lambda: None).result()
        rooms.stages.measure.advance(now_ns + LATER_NS)
        stages = rooms.stages
        return {**stages.measure.state(), **stages.decide.state()}, rooms.core.processed


def _fresh(archive: Path, left: Path, target: Path) -> None:
    """Make a data directory of the archived journal alone."""
    shutil.copytree(archive, target / "journal")
    shutil.copy2(left / "journal" / "lock", target / "journal" / "lock")
    shutil.copy2(left / "site.key", target / "site.key")


def check_replayed(config: Path, left: Path, archive: Path, scratch: Path) -> int:
    """Compare what a killed gateway left with a replay of everything; returns the groups."""
    shutil.copytree(left, scratch / "left")
    _fresh(archive, left, scratch / "fresh")
    journal = Journal.open(scratch / "fresh" / "journal", bytes_max=LIMIT)
    sequences = [record.sequence for record in journal.replay(0)]
    journal.close()
    assert sequences == list(range(1, len(sequences) + 1)), "the archive is not whole"
    now_ns = time.time_ns()
    recovered, through = _state(config, scratch / "left", now_ns)
    replayed, last = _state(config, scratch / "fresh", now_ns)
    assert through == last == len(sequences)
    assert recovered.keys() == replayed.keys()
    different = {
        name
        for name in recovered
        if not np.array_equal(
            recovered[name], replayed[name], equal_nan=recovered[name].dtype.kind == "f"
        )
    }
    assert different == set(), "the state depends on more than the groups"
    return len(sequences)
