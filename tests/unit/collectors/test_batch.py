"""A batch job ends as one span with links and one event with its cost, however it ends."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collectors import batch
from collectors.client import Access, Client
from gateway.errors import StartError
from tests.process import ROOT, free_port, wait_until
from tests.sink import Sink, otlp_sink

WAIT_S: Final = 20.0
RUN_S: Final = 60
ID: Final = "00112233445566778899aabbccddeeff"
JOB: Final[dict[str, Any]] = {"id": "nightly-7", "model": "damage-net", "cost_per_hour": 3.6}


def values(attributes: Any) -> dict[str, Any]:
    """Read attributes with their types."""
    found: list[KeyValue] = list(attributes)
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in found}


def told(sink: Sink) -> tuple[Span, dict[str, Any]]:
    """Return the span and the attributes of the event of the only job."""
    (span,) = [each for each in sink.spans() if each.name == "batch"]
    (record,) = sink.log_records()
    assert record.event_name == "edgeai.batch.job"
    assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)
    assert record.time_unix_nano == span.end_time_unix_nano
    attributes = values(record.attributes)
    duration_s = attributes["edgeai.batch.duration_s"]
    spent_s = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    assert duration_s == pytest.approx(spent_s, abs=1e-6)
    return span, attributes


def client_of(sink: Sink) -> Client:
    """Make a client."""
    return Client(Access(endpoint=sink.http_url))


def test_a_job_is_a_span_with_links_and_an_event_with_its_cost() -> None:
    with otlp_sink() as sink:
        with client_of(sink) as client, batch.job(client, **JOB, version="1.4.0") as job:
            job.enriched(ID)
            job.enriched(bytes.fromhex(ID), "0011223344556677")
            job.cost(0.5)
            job.cost(0.25)
            job.inferences(40)
            job.inferences(2)
        span, event = told(sink)
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [
        (ID, ""),
        (ID, "0011223344556677"),
    ]
    assert span.status.code == Status.STATUS_CODE_OK
    assert values(span.attributes) == {"edgeai.batch.job.id": "nightly-7"}
    duration_s = event.pop("edgeai.batch.duration_s")
    assert event.pop("edgeai.batch.cost") == pytest.approx(0.75 + duration_s * 0.001)
    assert event == {
        "edgeai.batch.job.id": "nightly-7",
        "edgeai.model.name": "damage-net",
        "edgeai.model.version": "1.4.0",
        "edgeai.batch.currency": "USD",
        "edgeai.batch.inferences": 42,
    }


def _lose(client: Client) -> None:
    with batch.job(client, **JOB) as job:
        job.enriched(ID)
        raise KeyError("lost")


def test_a_job_that_fails_is_told_and_fails() -> None:
    with otlp_sink() as sink:
        with client_of(sink) as client, pytest.raises(KeyError, match="lost"):
            _lose(client)
        span, event = told(sink)
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert values(span.attributes)["error.type"] == "KeyError"
    assert event["edgeai.batch.inferences"] == 1


def test_a_closed_client_does_not_hide_what_the_job_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with otlp_sink() as sink:
        client = client_of(sink)
        client.close()
        with pytest.raises(KeyError, match="lost"):
            _lose(client)
    assert "a job is not told" in caplog.text


@pytest.mark.parametrize("count", [0, 1, batch.LINKS_MAX, batch.LINKS_MAX + 1, 2_500])
def test_links_that_fit_no_span_are_in_its_children(count: int) -> None:
    ids = [f"{number + 1:032x}" for number in range(count)]
    with otlp_sink() as sink:
        with client_of(sink) as client, batch.job(client, **JOB) as job:
            for each in ids:
                job.enriched(each)
        root, event = told(sink)
        spans = sink.spans()
    assert event["edgeai.batch.inferences"] == count
    assert {each.trace_id for each in spans} == {root.trace_id}
    assert len({each.span_id for each in spans}) == len(spans) == max(1, -(-count // 1_000))
    assert all(each.parent_span_id == root.span_id for each in spans if each.name != "batch")
    assert [link.trace_id.hex() for each in spans for link in each.links] == ids


def test_more_traces_than_the_limit_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "TRACES_MAX", 3)
    with otlp_sink() as sink:
        with client_of(sink) as client, batch.job(client, **JOB) as job:
            for number in range(5):
                job.enriched(f"{number + 1:032x}")
        span, event = told(sink)
    assert (len(span.links), span.dropped_links_count) == (3, 2)
    assert event["edgeai.batch.inferences"] == 5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"id": ""}, "write nightly-7"),
        ({"id": "a b"}, "write nightly-7"),
        ({"model": ""}, "has a model"),
        ({"model": "x" * 257}, "has a model"),
        ({"version": "1 4"}, "write 1.4.0"),
        ({"currency": "usd"}, "write USD"),
        ({"cost_per_hour": -1.0}, "write 1.20"),
        ({"cost_per_hour": float("nan")}, "write 1.20"),
    ],
)
def test_a_job_that_the_gateway_would_not_read_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(StartError, match=said):
        batch.Job(**{**JOB, **wrong})


def test_numbers_that_are_none_are_refused() -> None:
    job = batch.Job(**JOB)
    for cost in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="a cost is"):
            job.cost(cost)
    with pytest.raises(ValueError, match="inferences are"):
        job.inferences(-1)
    for wrong in ("", "x", "0" * 32, ID[:-1], b"", bytes(16)):
        with pytest.raises(ValueError, match="an id must be"):
            job.enriched(wrong)
    with pytest.raises(ValueError, match="an id must be"):
        job.enriched(ID, "77")


def command(
    endpoint: str, *arguments: str, script: str = "", more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the command around a shell script."""
    return subprocess.run(
        [*WRAPPER, "--endpoint", endpoint, *arguments, "--", "sh", "-c", script, *more],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


WRAPPER: Final = (
    *(sys.executable, "-m", "collectors.batch", "--job", "nightly-7", "--model", "damage-net"),
    *("--cost-per-hour", "1.20", "--currency", "EUR"),
)


def test_command_tells_what_its_command_did_and_ends_like_it(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    script = f'echo "out $1"; printf "{ID}\\n{ID}-0011223344556677\\nrain\\n\\n" >{traces}; exit 3'
    with otlp_sink() as sink:
        done = command(
            sink.http_url, "--traces", str(traces), "--cost", "2", script=script, more=("x", "--y")
        )
        assert (done.returncode, done.stdout) == (3, "out --y\n"), done.stderr
        span, event = told(sink)
    assert len(span.links) == 2
    assert values(span.attributes) == {
        "edgeai.batch.job.id": "nightly-7",
        "error.type": "exit_3",
        "process.exit.code": 3,
    }
    assert event["edgeai.batch.cost"] == pytest.approx(2, abs=0.1)
    assert (event["edgeai.batch.currency"], event["edgeai.batch.inferences"]) == ("EUR", 2)
    assert f"{traces}:3: an id must be" in done.stderr


def test_command_without_a_gateway_ends_like_its_command_and_tells_it_later(
    tmp_path: Path,
) -> None:
    port, place = free_port(), str(tmp_path / "buffer")
    where = f"http://127.0.0.1:{port}"
    done = command(where, "--buffer", place, "--drain", "100ms", script="exit 0")
    assert done.returncode == 0
    assert "not everything was delivered" in done.stderr
    with otlp_sink(http_port=port) as sink:
        again = command(where, "--buffer", place, script="exit 0")
        assert again.returncode == 0
        assert (len(sink.spans()), len(sink.log_records())) == (2, 2)


def test_command_passes_signals_on() -> None:
    script = 'trap "exit 7" TERM; echo ready; while :; do sleep 0.05; done'
    with otlp_sink() as sink:
        process = subprocess.Popen(
            [*WRAPPER, "--endpoint", sink.http_url, "--", "sh", "-c", script],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(RUN_S) == 7
        process.stdout.close()
        span, _ = told(sink)
        assert span.status.code == Status.STATUS_CODE_ERROR
        wait_until(lambda: sink.log_records(), timeout_s=WAIT_S, what="the event")


def test_command_that_is_not_there_and_one_that_a_signal_ended() -> None:
    assert batch.run(["/nowhere/at-all"]) == 127
    assert batch.run(["sh", "-c", "kill -9 $$"]) == 137


def test_wrong_options_end_before_the_command_runs(tmp_path: Path) -> None:
    done = command("http://10.0.0.7:4318", script=f"touch {tmp_path / 'ran'}")
    assert done.returncode == 2
    assert "--insecure" in done.stderr
    assert not (tmp_path / "ran").exists()
