"""Each benchmark runs at a tiny size and gives figures that agree with one another."""

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks import backlog, decode, durable, ingest, pipeline, signals, slo
from benchmarks.__main__ import BENCHMARKS, Length, main
from benchmarks.load import HttpLane, Order, generate
from benchmarks.report import Report, Table
from benchmarks.sink import Connection

SPANS = 8
ROUND_S = 10.0


def test_decode_runs() -> None:
    report = decode.run(budget_s=0.01, sizes=(1, SPANS))
    assert set(report.figures) == {"1", f"{SPANS}"}
    assert report.figures["8"]["ratio"] > 0
    assert len(report.tables[0].rows) == 2


def test_signals_run() -> None:
    report = signals.run(budget_s=0.01, items=SPANS)
    assert set(report.figures) == {"metrics", "logs"}
    assert all(figure.median > 0 for row in report.figures.values() for figure in row.values())
    assert [len(table.rows) for table in report.tables] == [2, 2]


def test_slo_runs() -> None:
    report = slo.run(budget_s=0.01, batch_spans=(64,), series=SPANS)
    assert report.figures["series"] == SPANS
    assert report.figures["series_bytes"] > 0
    assert 0 < report.figures["64"]["add_ns"].median < report.figures["64"]["observe_ns"].median
    assert [len(table.rows) for table in report.tables] == [1, 4]


def test_backlog_goes_past_its_limit_and_drains() -> None:
    figures = backlog.run(limit_bytes=2 << 20, body_bytes=64 << 10).figures
    assert figures["drain_mb_per_s"] > 0
    assert figures["rss_above_idle_bytes"] > 0
    # The limit is far below what SQLite keeps of its log.
    assert figures["disk_ratio_filling"] > 0.9
    assert 0 < sum(figures["seconds_by_step"].values()) <= 1


def test_pipeline_runs_and_keeps_what_the_rate_says() -> None:
    report = pipeline.run(budget_s=0.01, batch_spans=(256,), segment_spans=1_024)
    sampled, whole = report.figures["256/0.05"], report.figures["256/1"]
    assert 0.0 < sampled["kept_ratio"] < 0.2
    assert whole["kept_ratio"] == 1.0
    assert set(whole["seconds_per_span"]) == set(pipeline.STAGES)
    assert whole["core_spans_per_s"].median > whole["stored_spans_per_s"].median


async def test_http_load_counts_what_was_answered() -> None:
    loop = asyncio.get_running_loop()
    ended: list[asyncio.Future[None]] = []

    class Counted(Connection):
        def __init__(self) -> None:
            super().__init__()
            self.ended = loop.create_future()
            ended.append(self.ended)

        def connection_lost(self, exc: Exception | None) -> None:
            self.ended.set_result(None)

    server = await loop.create_server(Counted, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    order = Order(
        transport="http",
        address=f"127.0.0.1:{port}",
        spans=SPANS,
        lanes=2,
        connections=1,
        warm_s=0.01,
        run_s=0.05,
    )
    async with server, asyncio.timeout(ROUND_S):
        result = await generate(order, lambda: None)
        await asyncio.gather(*ended)
    assert result.requests * SPANS == result.accepted > 0
    assert result.accepted_total >= result.accepted
    assert not result.failed
    assert result.unanswered == 0
    assert 0 < result.latency_s["p50"] <= result.latency_s["p99"] <= result.latency_s["max"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\x0a\x00", "partial success"),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 1\r\n\r\nx", "HTTP 503"),
    ],
)
async def test_http_answer_is_understood_however_it_is_cut(answer: bytes, said: str) -> None:
    class Wire(asyncio.Transport):
        def write(self, data: object) -> None:
            """Take and forget."""

        def is_closing(self) -> bool:
            return False

    for cut in range(1, len(answer)):
        lane = HttpLane()
        lane.connection_made(Wire())
        request = asyncio.create_task(lane.send(b"request"))
        await asyncio.sleep(0)
        lane.data_received(answer[:cut])
        lane.data_received(answer[cut:])
        assert await request == said


@pytest.mark.flow
@pytest.mark.parametrize("transport", ingest.TRANSPORTS)
def test_ingest_agrees_with_the_gateway(transport: str) -> None:
    report = ingest.run(
        run_s=0.3, warm_s=0.05, sizes=(SPANS,), transports=(transport,), open_loop=False
    )
    figures = report.figures[f"{transport}/{SPANS}"]
    assert figures["accepted"] > 0
    assert figures["failed"] == {}
    assert figures["rss_bytes_max"] > 0


@pytest.mark.flow
def test_open_loop_sends_at_the_asked_rate() -> None:
    found = ingest.one_run("http", SPANS, run_s=0.5, warm_s=0.05, requests_per_s=100.0)
    assert 10 <= found.result.requests <= 150
    assert found.refused_ratio == 0.0


@pytest.mark.flow
def test_durability_tells_what_is_written_for_what_is_received() -> None:
    report = durable.run(run_s=0.5, warm_s=0.05, rates=(2_000,))
    figures = report.figures["2000"]
    assert figures["refused_ratio"] == 0.0
    assert 0 < figures["ack_s"]["p50"] <= figures["ack_s"]["p99"]
    shares = figures["written_ratio"]
    assert 0 < shares["journal"] < 2
    assert shares["disk"] == 0 or shares["disk"] >= shares["journal"]


def test_command_line_runs_what_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table(title="Small", columns=("a",), rows=(("1",),))
    report = Report(tables=(table,), figures={"a": 1})
    asked: list[Length] = []

    def benchmark(length: Length) -> Report:
        asked.append(length)
        return report

    monkeypatch.setitem(BENCHMARKS, "decode", benchmark)
    path = tmp_path / "figures.json"
    main(["decode", "--quick", "--json", str(path)])
    main(["decode"])
    assert asked == [Length.QUICK, Length.WHOLE]
    assert "Small" in capsys.readouterr().out
    assert json.loads(path.read_text())["decode"] == {"a": 1}


def test_command_line_refuses_unknown_names() -> None:
    with pytest.raises(SystemExit):
        main(["decoding"])
