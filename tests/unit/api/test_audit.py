"""The audit chain notices every change, and goes on after crashes and moves."""

import json
import os
import threading
from pathlib import Path

import pytest

from gateway.api import audit
from gateway.api.access import Principal, Role
from gateway.api.audit import AuditLog, verify
from gateway.errors import RetryableError, StartError
from tests.unit.api.fakes import NOW_NS

WHO = Principal(name="anna", role=Role.AUDITOR)


def _log(path: Path, lines: int) -> AuditLog:
    log = AuditLog.open(path, lambda: NOW_NS)
    for number in range(lines):
        log.record("trace_read", WHO, path=f"/{number}", traces=["ab"])
    return log


def test_a_line_says_who_saw_what_when(tmp_path: Path) -> None:
    _log(tmp_path / "log", 1)
    line = json.loads((tmp_path / "log").read_text())
    assert line["ts"] == "2025-10-09T08:53:20.123456789Z"
    assert (line["principal"], line["role"], line["ev"]) == ("anna", "auditor", "trace_read")
    assert (line["path"], line["traces"], line["seq"], line["prev"]) == ("/0", ["ab"], 1, "0" * 64)


def test_an_untouched_log_is_good_also_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "log"
    _log(path, 3)
    _log(path, 2)
    found = verify(path)
    assert (found.lines, found.problems) == (5, ())
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [1, 2, 3, 4, 5]


def test_change_removal_and_reordering_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    _log(path, 5)
    lines = path.read_text().splitlines(keepends=True)
    for damaged in (
        [*lines[:2], lines[2].replace("anna", "otto"), *lines[3:]],
        [*lines[:2], *lines[3:]],
        [lines[0], lines[2], lines[1], *lines[3:]],
        [*lines[:2], "{}\n", *lines[2:]],
        [*lines[:1], lines[1].replace('"seq":2', '"seq":9'), *lines[2:]],
    ):
        path.write_text("".join(damaged))
        assert verify(path).problems


def test_every_flipped_character_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    _log(path, 2)
    raw = path.read_bytes()
    for place in range(len(raw) - 1):
        changed = bytearray(raw)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        assert verify(path).problems, place


def test_a_line_torn_by_a_crash_stays_visible_and_the_chain_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    _log(path, 2)
    with path.open("ab") as file:
        file.write(b'{"ts":"half')
    _log(path, 2)
    found = verify(path)
    assert found.problems == ("line 3 is torn or no record",)
    assert found.lines == 5


def test_a_log_that_was_moved_away_is_continued_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = _log(path, 2)
    path.rename(tmp_path / "old")
    log.record("trace_read", WHO, path="/")
    assert json.loads(path.read_text())["prev"] == verify(tmp_path / "old").last.hex()
    assert verify(path).problems == ()


def test_threads_keep_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = _log(path, 0)

    def write() -> None:
        for _ in range(20):
            log.record("trace_read", WHO, path="/")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    found = verify(path)
    assert (found.lines, found.problems) == (80, ())


def test_a_full_log_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    log = _log(path, 1)
    monkeypatch.setattr(audit, "AUDIT_BYTES_MAX", path.stat().st_size)
    with pytest.raises(RetryableError, match="audit log cannot be written"):
        log.record("trace_read", WHO, path="/")
    assert verify(path).lines == 1


def test_a_failed_sync_leaves_no_line_and_an_intact_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    log = _log(path, 1)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(RetryableError, match="Input/output error"):
            log.record("trace_read", WHO, path="/")
    log.record("trace_read", WHO, path="/")
    found = verify(path)
    assert (found.lines, found.problems) == (2, ())


def test_long_lists_and_paths_are_cut_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = AuditLog.open(path, lambda: NOW_NS)
    log.record("trace_read", WHO, path="/" + "ü" * 9000, traces=["f" * 32] * 1500)
    line = json.loads(path.read_text())
    assert (len(line["traces"]), line["traces_count"]) == (1000, 1500)
    assert verify(path).problems == ()


def test_a_log_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="audit log"):
        AuditLog.open(tmp_path, lambda: NOW_NS)
