"""The core with metrics and logs: frames and accounts of their own, once each, over crashes."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gateway.batch import Batch, Payload, Signal, Transport
from gateway.forward.records import Want
from gateway.journal.commit import record_of
from gateway.ledger import Balance
from gateway.pipeline import batch_items
from tests.flow.load import fill_inference, new_resource
from tests.parcels import add_metric, add_point, add_record, items_of, logs, metrics, put
from tests.process import wait_until
from tests.unit.test_core import (
    NOW_NS,
    WAIT_S,
    Bench,
    crash,
    different,
    make_config,
    opened,
)

SPANS = 50
RECORDS = 5
POINTS = 7  # of which one has no rule to leave by
REQUESTS: dict[Signal, type[Any]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
RECEIVED = {Signal.TRACES: SPANS, Signal.METRICS: POINTS, Signal.LOGS: RECORDS}

Requests = list[tuple[Signal, bytes]]


def traces(number: int) -> bytes:
    rng = random.Random(number)
    request = ExportTraceServiceRequest()
    scope = new_resource(request, f"cam-{number}").scope_spans.add()
    for row in range(SPANS):
        span = scope.spans.add()
        fill_inference(span, rng, number * 1000 + row + 1)
        span.end_time_unix_nano = NOW_NS + number
        span.start_time_unix_nano = NOW_NS + number - 5_000_000
    return request.SerializeToString()


def points(number: int) -> bytes:
    request = metrics()
    metric = add_metric(request, "histogram", name="edgeai.inference.duration", unit="s")
    for row in range(POINTS):
        point = add_point(metric, count=number, time_unix_nano=NOW_NS + row)
        put(point, "edgeai.inference.class" if row else "undeclared", "ok")
    return request.SerializeToString()


def records(number: int) -> bytes:
    request = logs()
    for row in range(RECORDS):
        add_record(
            request, event_name="edgeai.model.loaded", time_unix_nano=NOW_NS + 100 * number + row
        )
    return request.SerializeToString()


def mixed(number: int) -> Requests:
    """Write one request of each signal, in an order that changes."""
    found = [
        (Signal.METRICS, points(number)),
        (Signal.TRACES, traces(number)),
        (Signal.LOGS, records(number)),
    ]
    return found[number % 3 :] + found[: number % 3]


def journal(bench: Bench, number: int, requests: Requests) -> Batch:
    """Make one group durable, as the group commit would."""
    for place, (signal, body) in enumerate(requests):
        bench.rooms.open_batch.add(
            Payload(
                body=body,
                signal=signal,
                transport=(Transport.GRPC, Transport.HTTP)[place % 2],
                identity="",
                arrival_ns=NOW_NS + number * 1_000_000_000,
                wire_bytes=len(body) + place,
            )
        )
    batch = bench.rooms.open_batch.take(bench.rooms.journal.next_sequence)
    bench.rooms.journal.append(record_of(batch))
    return batch


def feed(bench: Bench, *numbers: int) -> None:
    for number in numbers:
        bench.rooms.core.hand_over(journal(bench, number, mixed(number)))


def balances(bench: Bench) -> dict[Signal, Balance]:
    found = {each.signal: each for each in bench.rooms.ledger.snapshot().balances()}
    assert found.keys() == set(Signal)
    assert [each.residue for each in found.values()] == [0, 0, 0]
    return found


def frames(bench: Bench) -> list[tuple[Signal, int, bytes]]:
    """List signal, items and raw body of all frames; each says what it holds."""
    connection = bench.rooms.checkpoint.connection
    found = []
    for each in bench.rooms.outbox.next(connection, "cloud", Want(bytes_max=1 << 30)):
        raw = zstandard.ZstdDecompressor().decompress(each.body)
        assert len(raw) == each.raw_bytes
        message = REQUESTS[each.signal].FromString(raw)
        if each.signal is not Signal.TRACES:
            assert items_of(message) == each.items
        found.append((each.signal, each.items, raw))
    return found


def joined(found: list[tuple[Signal, int, bytes]]) -> dict[Signal, bytes]:
    """Join the frames of each signal: where they are cut depends on when they were flushed."""
    return {
        signal: b"".join(raw for each, _, raw in found if each is signal) for signal in REQUESTS
    }


def wait_flushed(bench: Bench, groups: int) -> None:
    """Wait until all frames are in the outbox."""

    def done() -> bool:
        now = bench.rooms.ledger.snapshot()
        received = {each.signal: each.received for each in now.balances()}
        return (
            received == {signal: groups * count for signal, count in RECEIVED.items()}
            and not any(now.undelivered.values())
            and not any(now.unprocessed.values())
        )

    wait_until(done, timeout_s=WAIT_S, what=lambda: f"flushed {bench.rooms.ledger.snapshot()}")


def check_settled(bench: Bench, groups: int) -> None:
    """Check the accounts of groups that were processed and flushed."""
    found = balances(bench)
    for signal, count in RECEIVED.items():
        assert found[signal].received == groups * count
        pending = sum(items for each, items, _ in frames(bench) if each is signal)
        assert found[signal].pending == pending > 0
    assert found[Signal.LOGS].pending == groups * RECORDS, "every record leaves"
    sampled_out = bench.rooms.ledger.snapshot().sampled_out
    withheld = {name: n for (signal, name), n in sampled_out.items() if signal is Signal.METRICS}
    assert withheld == {"undeclared_dimension": groups}


def test_each_signal_has_its_frames_and_its_account(tmp_path: Path) -> None:
    config = make_config(tmp_path / "data")
    with opened(config) as bench:
        feed(bench, 1, 2, 3)
        with bench.running():
            pass
        check_settled(bench, 3)
        assert bench.rows() == 3 * SPANS, "only spans are stored"
        request = ExportLogsServiceRequest.FromString(joined(frames(bench))[Signal.LOGS])
        times = [
            record.time_unix_nano
            for resource in request.resource_logs
            for record in resource.scope_logs[0].log_records
        ]
        assert times == [NOW_NS + 100 * number + row for number in (1, 2, 3) for row in range(5)]
        before, sent = balances(bench), frames(bench)
    with opened(config) as again:
        assert (balances(again), frames(again)) == (before, sent)
        check_settled(again, 3)


def test_group_without_spans_is_processed_released_and_sealed(tmp_path: Path) -> None:
    config = make_config(tmp_path / "data")
    with opened(config) as bench:
        batch = journal(bench, 1, [(Signal.LOGS, records(1)), (Signal.METRICS, points(1))])
        bench.rooms.core.hand_over(batch)
        with bench.running():
            pass
        assert bench.released == [len(records(1)) + len(points(1))]
        found = balances(bench)
        assert [found[s].received for s in REQUESTS] == [0, POINTS, RECORDS]
        assert [found[s].pending for s in REQUESTS] == [0, POINTS - 1, RECORDS]
        sizes = bench.rooms.tally.bytes
        assert sizes["inflated"] == batch.held_bytes
        assert sizes["wire"] == batch.held_bytes + 1
        saved = bench.rooms.checkpoint.load()
        assert saved is not None
        assert saved.cursor == batch.sequence
        before, sent = found, frames(bench)
    with opened(config) as again:
        assert (balances(again), frames(again)) == (before, sent)
        assert again.rooms.journal.next_sequence == 2


def test_crash_between_flush_and_seal_repeats_nothing(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench, bench.running():
        feed(bench, 1, 2)
        wait_flushed(bench, 2)
        before, sent = balances(bench), frames(bench)
        config = crash(bench, tmp_path / "crash")
        assert bench.rows() == 0, "nothing was sealed yet"
    with opened(config) as again:
        assert (balances(again), frames(again)) == (before, sent)
        assert different(again.state(), bench.state()) == set()
        with again.running():
            pass
        assert (balances(again), frames(again)) == (before, sent)
        check_settled(again, 2)
        assert again.rows() == 2 * SPANS


def test_replay_makes_the_frames_of_an_uninterrupted_run(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        batches = [journal(bench, number, mixed(number)) for number in (1, 2, 3)]
        config = crash(bench, tmp_path / "crash")
        for batch in batches:
            bench.rooms.core.hand_over(batch)
        with bench.running():
            pass
        wanted, accounts = joined(frames(bench)), balances(bench)
        released = bench.released
    assert released == [batch.held_bytes for batch in batches]
    with opened(config) as again:
        with again.running():
            pass
        assert joined(frames(again)) == wanted
        assert balances(again) == accounts
        assert again.rooms.tally.bytes == bench.rooms.tally.bytes


def test_replay_under_other_contracts_keeps_what_was_decided(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench, bench.running():
        feed(bench, 1, 2)
        wait_flushed(bench, 2)
        before, sent = balances(bench), frames(bench)
        late = journal(bench, 3, mixed(3))  # acknowledged, and then the crash
        config = crash(bench, tmp_path / "crash")
        bench.rooms.core.hand_over(late)
    with opened(config, contracts=()) as again:
        with again.running():
            pass
        found = balances(again)
        assert frames(again)[: len(sent)] == sent
        assert found[Signal.METRICS].pending == before[Signal.METRICS].pending
        assert found[Signal.LOGS].pending == 3 * RECORDS
        sampled_out = again.rooms.ledger.snapshot().sampled_out
        assert sampled_out[Signal.METRICS, "undeclared_dimension"] == 2
        assert sampled_out[Signal.METRICS, "no_contract"] == POINTS


Guarding = Callable[[Callable[[], Any], Callable[[Exception], None]], Any]


def failing_at(*calls: int) -> Guarding:
    """Make a guard that sets aside the steps with these running numbers."""
    count = iter(range(1_000))

    def guard(work: Callable[[], Any], set_aside: Callable[[Exception], None]) -> Any:
        if next(count) not in calls:
            return work()
        set_aside(ValueError("a value of the data"))
        return None

    return guard


@pytest.mark.parametrize("signal", [Signal.METRICS, Signal.LOGS])
def test_parcel_that_raises_is_set_aside_alone(tmp_path: Path, signal: Signal) -> None:
    parcels: list[Signal] = [each for each, _ in mixed(1) if each is not Signal.TRACES]
    guard = failing_at(1 + parcels.index(signal))  # the spans of a batch come first
    with opened(make_config(tmp_path / "data"), guard=guard) as bench:
        feed(bench, 1, 2)
        with bench.running():
            pass
        found = balances(bench)
        quarantined = {each: found[each].quarantined for each in Signal}
        assert quarantined == {each: RECEIVED[each] * (each is signal) for each in Signal}
        assert bench.rooms.ledger.snapshot().quarantined == {
            (signal, "ValueError"): RECEIVED[signal]
        }
        assert bench.rows() == 2 * SPANS
        others = Counter(each for each, _, _ in frames(bench))
        assert others.keys() == set(Signal), "the second batch went through"
        (aside,) = bench.rooms.home.quarantine.iterdir()
        assert aside.name.startswith("0000000000000001-")
        assert aside.name.endswith(f".{signal}.otlp.zst")
        raw = zstandard.ZstdDecompressor().decompress(aside.read_bytes())
        assert raw == dict(mixed(1))[signal]
        before = found
    with opened(bench.config) as again:
        assert balances(again) == before


def test_spans_that_raise_are_set_aside_without_the_parcels(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data"), guard=failing_at(0)) as bench:
        feed(bench, 1)
        with bench.running():
            pass
        found = balances(bench)
        assert {each: found[each].quarantined for each in Signal} == {
            Signal.TRACES: SPANS,
            Signal.METRICS: 0,
            Signal.LOGS: 0,
        }
        assert {each for each, _, _ in frames(bench)} == {Signal.METRICS, Signal.LOGS}
        (aside,) = bench.rooms.home.quarantine.iterdir()
        raw = zstandard.ZstdDecompressor().decompress(aside.read_bytes())
        assert raw == dict(mixed(1))[Signal.TRACES]


def test_two_parcels_that_raise_are_both_kept(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data"), guard=failing_at(1, 2)) as bench:
        bodies = [records(1), records(2)]
        batch = journal(bench, 1, [(Signal.LOGS, body) for body in bodies])
        bench.rooms.core.hand_over(batch)
        with bench.running():
            pass
        kept = [
            zstandard.ZstdDecompressor().decompress(each.read_bytes())
            for each in bench.rooms.home.quarantine.iterdir()
        ]
        assert sorted(kept) == sorted(bodies)
        assert balances(bench)[Signal.LOGS].quarantined == 2 * RECORDS


def test_items_are_counted_by_signal_and_transport(tmp_path: Path) -> None:
    with opened(make_config(tmp_path / "data")) as bench:
        requests = [
            (Signal.LOGS, records(1)),
            (Signal.METRICS, points(1)),
            (Signal.LOGS, records(2)),
            (Signal.LOGS, records(3)),
            (Signal.TRACES, traces(1)),
        ]
        batch = journal(bench, 1, requests)
        assert {each: n for each, n in batch_items(batch).items() if n} == {
            (Signal.LOGS, "grpc"): 2 * RECORDS,
            (Signal.LOGS, "http"): RECORDS,
            (Signal.METRICS, "http"): POINTS,
            (Signal.TRACES, "grpc"): SPANS,
        }
        bench.rooms.core.replay(())
