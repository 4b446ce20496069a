"""Compile the recorder, record a run, and check what every power cut leaves of it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gateway.anonymize import Anonymizer
from gateway.batch import Signal
from gateway.decide import Decide
from gateway.ledger import Balance
from gateway.measure import Measure
from gateway.otlp.decode import OpenBatch
from gateway.pipeline import Stages, run, run_parcel
from gateway.recovery import Reread
from gateway.rooms import Rooms, measure_settings
from tests.powercut.driver import GROUPS, SESSIONS, WAIT_S, open_site
from tests.powercut.model import Call, Choice, Disk, Kind, choices, read_log
from tests.powercut.site import LOGS, ROWS, make_config, make_plan, requests_of
from tests.process import ROOT

RECORDER: Final = Path(__file__).with_name("recorder.c")
RECORD_S: Final = 120.0
START_S_MAX: Final = 5.0
LATER_S: Final = 3_600


def compiled(folder: Path) -> Path:
    """Compile the recorder."""
    library = folder / "recorder.so"
    command = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        [*command, "-o", str(library), str(RECORDER), "-ldl", "-lpthread"], check=True, timeout=60
    )
    return library


def driven(
    folder: Path, library: Path, log: Path | None, *arguments: str, timeout_s: float = RECORD_S
) -> str:
    """Run the driver below the recorder on `folder`, which exists; returns what it printed."""
    environment = os.environ | {"LD_PRELOAD": str(library), "WEIR_RECORD_DIR": str(folder)}
    if log is not None:
        environment["WEIR_RECORD_LOG"] = str(log)
    mode, *rest = arguments
    command = [sys.executable, "-m", "tests.powercut.driver", mode, str(folder / "data"), *rest]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        timeout=timeout_s,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    return done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The state of an uninterrupted run over the first groups. Units: counts of spans."""

    state: dict[str, Any]
    kept: int


def expectations(now_ns: int) -> list[Expected]:
    """Run the pipeline over 0, 1, 2 … groups, each time from the beginning."""
    config = make_config(Path("unused"))
    plan = make_plan(config)
    found = []
    for count in range(GROUPS * SESSIONS + 1):
        stages = Stages(
            measure=Measure(plan, measure_settings(config)),
            decide=Decide(plan),
            anonymize=Anonymizer(plan, config.site.id, bytes(32)),
        )
        kept, open_batch = 0, OpenBatch(plan.slot_keys)
        for number in range(1, count + 1):
            for each in requests_of(number, now_ns):
                open_batch.add(each)
            batch = open_batch.take(number)
            kept += run(batch, stages).kept
            for parcel in batch.parcels:
                run_parcel(parcel, stages)
        found.append(Expected(state=_state(stages, now_ns), kept=kept))
    return found


def _state(stages: Stages, now_ns: int) -> dict[str, Any]:
    stages.measure.advance(now_ns + LATER_S * 1_000_000_000)
    return {**stages.measure.state(), **stages.decide.state()}


def differing(left: dict[str, Any], right: dict[str, Any]) -> set[str]:
    """Name the arrays that are not the same, bit for bit but for the kind of a NaN."""
    assert left.keys() == right.keys()
    return {
        name
        for name in left
        if not np.array_equal(left[name], right[name], equal_nan=left[name].dtype.kind == "f")
    }


@dataclass(slots=True)
class Check:
    """Recovers what power cuts leave, one after the other, in folders below `scratch`."""

    scratch: Path
    now_ns: int
    expected: Sequence[Expected]
    states: int = 0
    slowest_s: float = 0.0

    def cut(self, disk: Disk, acknowledged: int, choice: Choice, *, seal: bool) -> None:
        """Recover one state and compare it with the acknowledged groups, or one more."""
        target = self.scratch / "left"
        shutil.rmtree(target, ignore_errors=True)
        disk.leave(target, choice)
        started = time.perf_counter()
        rooms = open_site(target / "data")
        self.slowest_s = max(self.slowest_s, time.perf_counter() - started)
        self.states += 1
        try:
            # A long replay may have handed a seal to the storage thread.
            rooms.storage.submit(lambda: None).result(WAIT_S)
            groups = self._balanced(rooms, acknowledged)
            if seal:
                rooms.core.seal()
                assert rooms.core.storage_error == ""
                assert self._balanced(rooms, acknowledged) == groups
                assert sum(each.rows for each in rooms.store.segments) == groups * ROWS
            state = _state(rooms.stages, self.now_ns)
            assert differing(state, self.expected[groups].state) == set()
        finally:
            rooms.close()
        if seal:
            again = open_site(target / "data")
            assert self._balanced(again, acknowledged) == groups
            assert again.core.replay(iter(list[Reread]())) == 0
            again.close()

    def _balanced(self, rooms: Rooms, acknowledged: int) -> int:
        balances = rooms.ledger.snapshot().balances()
        by_signal: dict[Signal, Balance] = {each.signal: each for each in balances}
        spans, logs = by_signal[Signal.TRACES], by_signal[Signal.LOGS]
        groups, rest = divmod(spans.received, ROWS)
        assert rest == 0, "a group comes back whole"
        assert groups in (acknowledged, acknowledged + 1), (groups, acknowledged)
        assert logs.received == groups * LOGS
        assert [each.residue for each in balances] == [0] * len(balances)
        assert (spans.quarantined, spans.dropped) == (0, 0)
        assert spans.forwarded + spans.pending == self.expected[groups].kept
        stored = sum(each.rows for each in rooms.store.segments)
        assert stored + rooms.store.pending_rows == groups * ROWS
        assert rooms.journal.damaged == 0 or rooms.journal.torn_bytes
        return groups


def moments(calls: Sequence[Call]) -> Iterator[tuple[int, bool]]:
    """List how many calls happened before each power cut, and whether the last one matters.

    The small writes of a file that has no final name yet differ in nothing that a start reads.
    """
    names: dict[int, str] = {}
    for index, call in enumerate(calls):
        if call.kind is Kind.OPEN:
            names[call.handle] = call.path
        temporary = call.kind is Kind.WRITE and names[call.handle].endswith(".tmp")
        yield index + 1, not temporary and call.kind not in (Kind.CLOSE, Kind.MARK)


def recorded(folder: Path, library: Path, now_ns: int) -> tuple[Path, list[Call]]:
    """Record a run; returns the directory and its calls."""
    disk, log = folder / "disk", folder / "calls"
    disk.mkdir()
    driven(disk, library, log, "record", str(now_ns))
    return disk, read_log(log)


def walk(
    disk_path: Path, calls: Sequence[Call], check: Check, chosen: set[int], *, seed: int, extra: int
) -> None:
    """Cut the power after each chosen count of calls."""
    disk, acknowledged = Disk(str(disk_path)), 0
    for index, call in enumerate(calls, 1):
        if call.kind is Kind.MARK:
            acknowledged += 1
            assert call.path == f"ack {acknowledged}"
        else:
            disk.apply(call)
        if index not in chosen:
            continue
        for number, choice in enumerate(choices(seed + index, extra)):
            try:
                check.cut(disk, acknowledged, choice, seal=(index + number) % 7 == 0)
            except AssertionError as error:
                error.add_note(f"power cut after call {index} {call.kind.name}, choice {number}")
                raise
