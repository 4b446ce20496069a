"""Labels arrive once, over stops, restarts, growing files and refusals."""

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from collectors.client import Access, Client
from collectors.labelfile import Bad, Layout, Reader, ValueType
from collectors.labelrun import Labels, Plan, Report
from collectors.tail import Mark
from tests.otlp import LOGS
from tests.process import ROOT, free_port, wait_until
from tests.sink import Refusal, Sink, otlp_sink

WAIT_S: Final = 20.0
RUN_S: Final = 60
ID: Final = "00112233445566778899aabbccddeeff"


def jsonl(number: int) -> str:
    """Write one label that knows its number."""
    return json.dumps({"trace_id": f"{number + 1:032x}", "value": number})


def arrived(sink: Sink) -> list[int]:
    """List the numbers of the labels that arrived, and check that each is what was written."""
    found = []
    for record in sink.log_records():
        assert record.event_name == "edgeai.label"
        attributes = {pair.key: pair.value for pair in record.attributes}
        number = attributes["edgeai.label.value"].int_value
        assert record.trace_id == (number + 1).to_bytes(16, "big")
        found.append(number)
    return found


@contextmanager
def running(
    sink_url: str, file: Path, stop: threading.Event | None = None, **plan: Any
) -> Iterator[tuple[Labels, Reader]]:
    """Make a run over a file, with a client of its own."""
    client = Client(Access(endpoint=sink_url), backoff_s_min=0.005, backoff_s_max=0.02)
    mark = Mark(file.with_name(f"{file.name}.sent.json"))
    try:
        layout = Layout.CSV if file.suffix == ".csv" else Layout.JSONL
        made = Labels(client, file, mark, Plan(**plan), stop or threading.Event())
        yield made, Reader(layout)
    finally:
        client.close(0.0)


def run(sink_url: str, file: Path, **plan: Any) -> Report:
    """Send a file to its end."""
    with running(sink_url, file, **plan) as (labels, reader):
        return labels.run(reader)


def test_a_file_is_sent_once_and_goes_on_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(f"{jsonl(n)}\n" for n in range(25)) + "\n" + jsonl(25))
    with otlp_sink() as sink:
        report = run(sink.http_url, file, batch=10)
        assert (report.fine, report.labels, report.lines) == (True, 26, 26)
        assert run(sink.http_url, file).labels == 0
        with file.open("a") as more:
            more.write(f"\n{jsonl(26)}\n{jsonl(27)}\n")
        assert run(sink.http_url, file).labels == 2
        assert arrived(sink) == list(range(28))
        assert [len(each.message.resource_logs) for each in sink.requests] == [1] * 4  # type: ignore[union-attr]


def test_bad_lines_are_told_with_their_number_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(f"trace_id,value\n{ID},wet\nx,wet\n{ID},\n{ID},dry\n")
    with otlp_sink() as sink:
        report = run(sink.http_url, file)
        assert (report.labels, report.fine) == (2, False)
        assert report.bad == {Bad.TRACE_ID: 1, Bad.VALUE: 1}
        assert sink.item_count(LOGS) == 2
    told = capsys.readouterr().err
    assert f"{file}:3: trace_id must be" in told
    assert f"{file}:4: value must be" in told


def test_strict_stops_at_the_first_bad_line_and_goes_on_behind_what_was_good(
    tmp_path: Path,
) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(f"{jsonl(0)}\n{jsonl(1)}\nbad\n{jsonl(2)}\n")
    with otlp_sink() as sink:
        report = run(sink.http_url, file, strict=True)
        assert (report.labels, "line 3 is bad" in report.stopped) == (2, True)
        assert arrived(sink) == [0, 1]
        file.write_text(f"{jsonl(0)}\n{jsonl(1)}\n{jsonl(9)}\n{jsonl(2)}\n")
        run(sink.http_url, file, strict=True)
        assert sorted(set(arrived(sink))) == [0, 1, 2, 9]


def test_another_file_under_the_same_name_is_sent_from_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    with otlp_sink() as sink:
        file.write_text(f"{jsonl(0)}\n")
        run(sink.http_url, file)
        file.write_text(f"{jsonl(5)}\n{jsonl(6)}\n")
        assert run(sink.http_url, file).labels == 2
        assert arrived(sink) == [0, 5, 6]


def test_a_refusal_stops_the_run_and_the_next_one_tries_again(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(f"{jsonl(n)}\n" for n in range(6)))
    with otlp_sink() as sink:
        sink.refuse(Refusal(http_status=401, message="who are you"), count=1)
        report = run(sink.http_url, file, batch=2)
        assert "lines 1 to 2 were not taken: HTTP 401: who are you" in report.stopped
        assert run(sink.http_url, file, batch=2).fine
        assert arrived(sink) == list(range(6))


def test_labels_that_the_gateway_rejects_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(f"{jsonl(0)}\n{jsonl(1)}\n")
    with otlp_sink() as sink:
        sink.accept(rejected_items=1)
        report = run(sink.http_url, file)
        assert (report.labels, report.rejected, report.fine) == (1, 1, False)


def test_a_run_gives_up_when_it_was_told_to(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(f"{jsonl(0)}\n")
    report = run(f"http://127.0.0.1:{free_port()}", file, give_up_s=0.1)
    assert report.stopped.startswith("given up behind line 0: no connection")


def test_any_number_of_stops_and_answers_misses_no_line(tmp_path: Path, seed: int) -> None:
    """Whatever is stopped, refused or answered late: all lines arrive, and few of them twice."""
    rng = random.Random(seed)
    file, total, runs = tmp_path / "labels.jsonl", 300, 0
    file.write_text("".join(f"{jsonl(n)}\n" for n in range(total)))
    with otlp_sink() as sink:
        while True:
            runs += 1
            assert runs < 200
            if rng.random() < 0.7:
                status = rng.choice([400, 503, 429])
                sink.refuse(Refusal(http_status=status), count=rng.randrange(1, 4))
            report = run(sink.http_url, file, batch=rng.randrange(1, 60), give_up_s=WAIT_S)
            if not report.stopped:
                break
        assert arrived(sink) == list(range(total))


def test_a_growing_and_rotated_file_is_followed(tmp_path: Path) -> None:
    file, stop = tmp_path / "labels.csv", threading.Event()
    file.write_text("trace_id,value\n")
    row = "{:032x},{}\n".format
    with otlp_sink() as sink, running(sink.http_url, file, stop, follow=True) as (labels, reader):
        reader = Reader(Layout.CSV, ValueType.INT)
        thread = threading.Thread(target=labels.run, args=(reader,))
        thread.start()
        try:
            with file.open("a") as more:
                more.write(row(1, 0))
                more.write(row(2, 1)[:20])
            sink.wait_for_items(LOGS, 1, WAIT_S)
            with file.open("a") as more:
                more.write(row(2, 1)[20:])
            sink.wait_for_items(LOGS, 2, WAIT_S)
            file.rename(tmp_path / "labels.1.csv")
            file.write_text("value,trace_id\n" + "".join(f"{n},{n + 1:032x}\n" for n in (2, 3)))
            sink.wait_for_items(LOGS, 4, WAIT_S)
            file.write_text("trace_id,value\n" + row(5, 4))  # cut and written again
            sink.wait_for_items(LOGS, 5, WAIT_S)
        finally:
            stop.set()
            thread.join()
        assert arrived(sink) == [0, 1, 2, 3, 4]
        assert labels.report.fine
    with otlp_sink() as sink:
        with file.open("a") as more:
            more.write(row(6, 5))
        with running(sink.http_url, file) as (labels, _):
            labels.run(Reader(Layout.CSV, ValueType.INT))
        assert arrived(sink) == [5]


def test_a_slow_rate_makes_small_batches(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(f"{jsonl(n)}\n" for n in range(60)))
    with otlp_sink() as sink:
        run(sink.http_url, file, rate=200.0, batch=30)
        assert [len(list(sink.log_records())), len(sink.requests)] == [60, 2]


def command(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "collectors.labels", *arguments],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def test_command_reads_a_pipe_and_says_what_was_bad() -> None:
    with otlp_sink() as sink:
        done = command(
            "-", "--format", "jsonl", "--endpoint", sink.http_url, "--json",
            stdin=f"{jsonl(0)}\nbad\n{jsonl(1)}\n",
        )  # fmt: skip
        assert done.returncode == 1
        assert arrived(sink) == [0, 1]
    told = json.loads(done.stdout)
    assert (told["labels"], told["bad"], told["stopped"]) == (2, {"not_csv_or_json": 1}, None)
    assert "stdin:2: not a JSON object" in done.stderr


def test_command_draws_a_bar_on_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(f"{jsonl(n)}\n" for n in range(50)))
    terminal, end = os.openpty()
    pieces: list[bytes] = []

    def read() -> None:
        # A terminal whose other end was closed gives an error instead of an end.
        with suppress(OSError):
            while piece := os.read(terminal, 65_536):
                pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with otlp_sink() as sink:
            done = subprocess.run(
                [sys.executable, "-m", "collectors.labels", str(file), "--endpoint", sink.http_url],
                cwd=ROOT,
                env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
                stderr=end,
                timeout=RUN_S,
                check=False,
            )
    finally:
        os.close(end)
        reader.join()
        os.close(terminal)
    told = b"".join(pieces).decode()
    assert done.returncode == 0
    size = f"{file.stat().st_size / 1000:.1f}"
    assert f"{size}/{size} kB" in told
    assert "50 labels were taken" in told


def test_command_ends_with_0_when_all_was_taken(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text(f"{jsonl(0)}\n")
    with otlp_sink() as sink:
        done = command(str(file), "--endpoint", sink.http_url)
        assert (done.returncode, arrived(sink)) == (0, [0])
    assert "1 labels were taken" in done.stderr


def test_command_that_is_stopped_goes_on_later(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(f"{jsonl(n)}\n" for n in range(1_000)))
    with otlp_sink() as sink:
        arguments = (str(file), "--rate", "40", "--endpoint", sink.http_url)
        process = subprocess.Popen(
            [sys.executable, "-m", "collectors.labels", *arguments],
            cwd=ROOT,
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: sink.item_count(LOGS), timeout_s=WAIT_S, what="labels")
        process.terminate()
        _, told = process.communicate(timeout=RUN_S)
        assert process.returncode == 1
        assert b"stopped by a signal behind line" in told
        assert command(str(file), "--endpoint", sink.http_url).returncode == 0
        assert arrived(sink) == list(range(1_000))


def test_command_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    done = command(str(tmp_path / "gone.csv"), "--endpoint", "http://127.0.0.1:1")
    assert done.returncode == 2
    assert "is no file" in done.stderr
