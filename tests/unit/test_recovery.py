"""A start never trips twice over the same thing: records, entries, disks and keys that are ill."""

import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway import core, rooms
from gateway.batch import Signal, Transport
from gateway.config import SiteConfig
from gateway.config.sections import EncryptionSection, JournalSection
from gateway.core import Core
from gateway.errors import JournalUnavailableError, RetryableError, StartError, WeirError
from gateway.journal.cipher import key_id
from gateway.journal.log import Entry, GroupRecord
from gateway.otlp.count import count_items
from gateway.recovery import ATTEMPTS_MAX, FATAL, Attempts
from gateway.store.store import Store
from tests.plans import add_span
from tests.unit.test_core import (
    ROWS,
    Bench,
    crash,
    different,
    make_config,
    opened,
    pending_frames,
)

GOOD: Final = 2


class EndError(BaseException):
    """The process ends here; nothing may catch this on the way."""


def spans_body(count: int) -> bytes:
    request = ExportTraceServiceRequest()
    for number in range(1, count + 1):
        add_span(request, number)
    return request.SerializeToString()


def append_raw(bench: Bench, *bodies: bytes) -> int:
    """Make bodies durable that no scanner has seen."""
    sequence = bench.rooms.journal.next_sequence
    entries = tuple(
        Entry(arrival_ns=1, transport=Transport.HTTP, identity="", length=len(body))
        for body in bodies
    )
    record = GroupRecord(sequence=sequence, entries=entries, body=b"".join(bodies))
    bench.rooms.journal.append(record)
    return sequence


def unzip(path: Path) -> bytes:
    return zstandard.ZstdDecompressor().decompress(path.read_bytes())


def ending_at(sequence: int) -> Callable[[Callable[[], Any], Any], Any]:
    """Make a guard under which the process ends at the batch of one sequence, counted from 1."""
    calls = iter(range(1, 1_000))

    def guard(work: Callable[[], Any], _: Any) -> Any:
        if next(calls) == sequence:
            raise EndError
        return work()

    return guard


def test_an_entry_that_does_not_scan_is_kept_and_counted(tmp_path: Path) -> None:
    # Three whole spans, and a fourth whose length is a lie.
    broken = spans_body(3) + b"\x0a\x7f"
    with opened(make_config(tmp_path / "data")) as bench:
        bench.journal(1)
        sequence = append_raw(bench, spans_body(GOOD), broken)
        bench.journal(2)
        config = crash(bench, tmp_path / "crash")
    for _ in range(2):
        with opened(config) as again:
            assert again.balance.received == 2 * ROWS + GOOD + 3
            assert again.balance.quarantined == 3
            assert again.balance.residue == 0
            (kept,) = again.rooms.home.quarantine.iterdir()
            assert kept.name == f"{sequence:016d}-1.traces.unreadable.zst"
            assert unzip(kept) == broken
            snapshot = again.rooms.ledger.snapshot()
            assert snapshot.quarantined == {(Signal.TRACES, "MalformedPayloadError"): 3}
            with again.running():
                pass
            assert again.rows() == 2 * ROWS + GOOD
            before = again.balance
    with opened(config) as last:
        assert last.balance == before, "counted once, although it was met twice"


def test_a_record_of_which_nothing_scans_does_not_stop_the_start(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        append_raw(bench, b"\x0a\x7f")
        config = crash(bench, tmp_path / "crash")
    with opened(config) as again:
        with again.running():
            pass
        assert (again.balance.received, again.balance.residue) == (0, 0)
        (kept,) = again.rooms.home.quarantine.iterdir()
        assert unzip(kept) == b"\x0a\x7f"
    with opened(config) as last:
        assert last.rooms.journal.next_sequence == 2


def test_a_record_that_ends_the_process_is_set_aside_at_last(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        bench.journal(1)
        fatal = bench.journal(2)
        bench.journal(3)
        config = crash(bench, tmp_path / "crash")
    for attempt in range(ATTEMPTS_MAX):
        # A directory of its own each time, because this process still holds the lock.
        following = config.model_copy(update={"data_dir": tmp_path / f"after-{attempt}"})
        with pytest.raises(EndError), opened(config, guard=ending_at(2)):
            raise AssertionError("it started")
        shutil.copytree(config.data_dir, following.data_dir)
        config = following
    caplog.set_level(logging.ERROR)
    for run in range(2):
        with opened(config) as again:
            assert again.balance.received == 3 * ROWS
            assert again.balance.quarantined == ROWS
            assert again.balance.residue == 0
            assert again.rooms.ledger.snapshot().quarantined == {(Signal.TRACES, FATAL): ROWS}
            (kept,) = again.rooms.home.quarantine.iterdir()
            assert unzip(kept) == fatal.arena.tobytes()
            assert not (again.rooms.home.root / "replaying").exists()

            assert f"sequence={fatal.sequence}" in caplog.text
            if run == 0:
                config = crash(again, tmp_path / "crash-again")
    with opened(config) as again, again.running():
        pass
    assert again.rows() == 2 * ROWS
    with opened(config) as last:
        assert last.rooms.checkpoint.aside() == frozenset(), "forgotten once a seal is past it"
        assert last.balance == again.balance


def test_one_end_of_the_process_sets_nothing_aside(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        bench.journal(1)
        bench.journal(2)
        config = crash(bench, tmp_path / "crash")
    with pytest.raises(EndError), opened(config, guard=ending_at(2)):
        raise AssertionError("it started")
    shutil.copytree(config.data_dir, tmp_path / "after")
    with opened(config.model_copy(update={"data_dir": tmp_path / "after"})) as again:
        assert (again.balance.received, again.balance.quarantined) == (2 * ROWS, 0)


def test_ends_while_the_disk_is_waited_for_set_nothing_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start on a hanging disk is killed again and again at one record, which is not to blame."""

    def hanging(_core: Core, **_: bool) -> None:
        raise EndError

    with opened(make_config(tmp_path / "data")) as bench:
        bench.journal(1)
        config = crash(bench, tmp_path / "crash")
    for _ in range(ATTEMPTS_MAX + 1):
        with monkeypatch.context() as patch:
            patch.setattr(Core, "_store_if_due", hanging)
            with pytest.raises(EndError), opened(config):
                raise AssertionError("it started")
    with opened(config) as again:
        assert (again.balance.received, again.balance.quarantined) == (ROWS, 0)


def test_ends_at_different_records_set_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "replaying"
    for sequence in (4, 5, 4, 5):
        attempts = Attempts(path)
        assert attempts.fatal is None
        attempts.begin(3)
        attempts.begin(sequence)
    again = Attempts(path)
    again.begin(5)
    assert Attempts(path).fatal == 5
    Attempts(path).end()
    assert Attempts(path).fatal is None


@pytest.mark.parametrize("content", [b"", b"x", bytes(16), bytes(15), bytes(40)])
def test_a_damaged_note_is_no_note(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "replaying"
    path.write_bytes(content)
    assert Attempts(path).fatal is None


def test_a_note_that_cannot_be_written_costs_only_itself(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "none" / "replaying")
    attempts.begin(1)
    attempts.end()


def test_a_disk_that_fails_during_the_start_bounds_memory_and_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path / "data")
    small = config.model_copy(
        update={"store": config.store.model_copy(update={"segment_rows": ROWS})}
    )
    batches = 12
    with opened(config) as bench:
        for number in range(1, batches + 1):
            bench.journal(number)
        config = crash(bench, tmp_path / "crash")
    small = small.model_copy(update={"data_dir": config.data_dir})
    most = [0]

    def failing(store: Store, _first: int, _last: int) -> Any:
        most[0] = max(most[0], store.pending_rows)
        raise RetryableError("disk full")

    monkeypatch.setattr(core, "RETRY_S", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_segment", failing)
        for _ in range(ATTEMPTS_MAX + 1):
            with pytest.raises(StartError, match="disk full; nothing is lost"), opened(small):
                raise AssertionError("it started")
    assert most[0] <= (core.BACKLOG_SEGMENTS_MAX + 1) * ROWS
    with opened(small) as again:
        assert again.balance.received == batches * ROWS
        assert again.balance.quarantined == 0, "a full disk is not the fault of a record"
        with again.running():
            pass
        assert again.rows() == batches * ROWS
        assert sum(pending_frames(again)) == again.balance.pending


def test_the_journal_leaves_room_for_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "FREE_BYTES_MIN", 1 << 62)
    with opened(make_config(tmp_path / "data")) as bench:
        with pytest.raises(JournalUnavailableError, match="bytes are free on the disk"):
            bench.journal(1)
        assert bench.rooms.journal.bytes_used == 0


def encrypted(config: SiteConfig, *paths: Path) -> SiteConfig:
    section = EncryptionSection(key_files=paths)
    return config.model_copy(update={"journal": JournalSection(encryption=section)})


def test_keys_of_the_site_file_reach_the_journal(tmp_path: Path) -> None:
    keys = {name: bytes([number]) * 32 for number, name in enumerate(("old", "new"))}
    for name, key in keys.items():
        (tmp_path / name).write_text(key.hex())
        (tmp_path / name).chmod(0o400)
    plain = make_config(tmp_path / "data")
    with opened(encrypted(plain, tmp_path / "old")) as bench:
        bench.journal(1)
        crash(bench, tmp_path / "crash")
    left = plain.model_copy(update={"data_dir": tmp_path / "crash"})
    for lacking in (left, encrypted(left, tmp_path / "new")):
        with pytest.raises(StartError, match=key_id(keys["old"]).hex()), opened(lacking):
            raise AssertionError("it started")
    with opened(encrypted(left, tmp_path / "new", tmp_path / "old")) as again:
        assert again.balance.received == ROWS
        assert again.rooms.journal.damaged == 0
        with again.running():
            pass
    with opened(left) as sealed:
        assert sealed.balance.received == ROWS, "a stopped gateway's journal needs no key"
        assert different(sealed.state(), again.state()) == set()


def test_items_of_any_signal_are_counted_up_to_the_damage() -> None:
    logs = ExportLogsServiceRequest()
    for _ in range(3):
        logs.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "x"
    assert count_items(Signal.LOGS, logs.SerializeToString()) == 3
    metrics = ExportMetricsServiceRequest()
    scope = metrics.resource_metrics.add().scope_metrics.add()
    scope.metrics.add().gauge.data_points.add().as_int = 1
    total = scope.metrics.add().sum
    total.data_points.add().as_double = 1.0
    total.data_points.add().as_double = 2.0
    scope.metrics.add().histogram.data_points.add().count = 1
    scope.metrics.add().exponential_histogram.data_points.add().scale = 1
    scope.metrics.add().summary.data_points.add().count = 1
    scope.metrics.add().name = "empty"
    assert count_items(Signal.METRICS, metrics.SerializeToString()) == 6
    whole = spans_body(4)
    assert count_items(Signal.TRACES, whole) == 4
    for size in range(len(whole)):
        assert 0 <= count_items(Signal.TRACES, whole[:size]) <= 4
    assert count_items(Signal.TRACES, b"\xff" * 40) == 0


def test_a_cursor_ahead_of_the_journal_goes_on_above_it(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        bench.feed(1, 2)
        with bench.running():
            pass
        before = bench.balance
    shutil.rmtree(bench.rooms.home.journal)
    with opened(bench.config) as again:
        assert again.balance == before
        assert again.rooms.journal.next_sequence == 3
        again.feed(3)
        with again.running():
            pass
    with opened(bench.config) as last:
        assert last.balance.received == 3 * ROWS
        assert last.balance.residue == 0
        assert last.rows() == 3 * ROWS


def test_a_cursor_behind_the_journal_replays_from_it(tmp_path: Path) -> None:
    """An older copy of the database, put back, costs nothing that the journal still has."""
    config = make_config(tmp_path / "data")
    with opened(config) as bench:
        bench.feed(1)
        with bench.running():
            pass
    older = (tmp_path / "data" / "state.db").read_bytes()
    with opened(config) as bench:
        bench.journal(2)
        bench.journal(3)
        kept = crash(bench, tmp_path / "crash")
    with opened(kept) as again:
        with again.running():
            pass
        state = again.state()
    shutil.rmtree(tmp_path / "data" / "store")
    shutil.copytree(kept.data_dir / "store", tmp_path / "data" / "store")
    (tmp_path / "data" / "state.db").write_bytes(older)
    with opened(config) as last:
        assert last.balance.received == 3 * ROWS
        assert last.balance.residue == 0
        with last.running():
            pass
        assert last.rows() == 3 * ROWS, "what the older catalogue did not know was made again"
        assert different(last.state(), state) == set()


def test_no_database_means_that_all_is_replayed(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        bench.journal(1)
        bench.journal(2)
        config = crash(bench, tmp_path / "crash")
    for path in config.data_dir.glob("state.db*"):
        path.unlink()
    with opened(config) as again:
        assert (again.balance.received, again.balance.residue) == (2 * ROWS, 0)
        assert again.rooms.journal.next_sequence == 3


def test_a_clock_that_jumps_changes_nothing_of_a_replay(tmp_path: Path) -> None:
    """A group's number is its arrival in seconds: a day ahead, back, an hour ahead, back."""
    numbers = (1, 86_400, 2, 3_600, 3)
    with opened(make_config(tmp_path / "data")) as bench, bench.running():
        bench.feed(*numbers)
        bench.wait_flushed(len(numbers) * ROWS)
        before = bench.balance
        config = crash(bench, tmp_path / "crash")
    with opened(config) as again:
        assert again.balance == before
        assert different(again.state(), bench.state()) == set()


def test_a_damaged_database_opens_or_says_so(tmp_path: Path, seed: int) -> None:
    """SQLite keeps no checksums: a flipped bit may pass, but never as a foreign exception."""
    with opened(make_config(tmp_path / "data")) as bench:
        bench.feed(1, 2)
        with bench.running():
            pass
        config = bench.config
    database = config.data_dir / "state.db"
    whole = database.read_bytes()
    rng, refused = random.Random(seed), list[str]()
    places = [*range(0, 100, 3), *(rng.randrange(len(whole)) for _ in range(60))]
    for number, place in enumerate(places):
        target = tmp_path / f"damaged-{number}"
        shutil.copytree(config.data_dir, target)
        content = bytearray(whole)
        content[place] ^= 1 << rng.randrange(8)
        (target / "state.db").write_bytes(content)
        try:
            with opened(config.model_copy(update={"data_dir": target})) as again:
                assert again.balance.received in (0, 2 * ROWS)
        except WeirError as error:
            refused.append(str(error))
        shutil.rmtree(target)
    assert refused
    assert not any("\n" in each for each in refused), "one sentence each"
