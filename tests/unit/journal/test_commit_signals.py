"""Groups of several signals: one record of the journal, and every request back from it."""

from collections.abc import Callable, Sequence
from typing import Final

import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import Batch, Payload, Receipt, Signal, Transport
from gateway.errors import MalformedPayloadError
from gateway.journal.commit import record_of
from gateway.journal.frame import FRAME_HEADER_BYTES, maybe_frame, pack_frame, unpack_payload
from gateway.journal.log import GroupRecord
from gateway.otlp.decode import OpenBatch
from gateway.pipeline import batch_items
from tests.oracle import payload
from tests.parcels import add_metric, add_point, add_record, logs, metrics
from tests.unit.journal.test_commit import Bench, body, finished


def _traces(number: int) -> bytes:
    return body(*range(1, 1 + number))


def _metrics(number: int) -> bytes:
    request = metrics()
    for each in range(number):
        add_point(add_metric(request), as_int=each)
    return request.SerializeToString()


def _logs(number: int) -> bytes:
    request = logs()
    for _ in range(number):
        add_record(request)
    return request.SerializeToString()


BODIES: Final[dict[Signal, Callable[[int], bytes]]] = {
    Signal.TRACES: _traces,
    Signal.METRICS: _metrics,
    Signal.LOGS: _logs,
}
MIXED: Final = st.lists(
    st.builds(
        lambda signal, number, transport, identity, arrival_ns: Payload(
            body=BODIES[signal](number),
            signal=signal,
            transport=transport,
            identity=identity,
            arrival_ns=arrival_ns,
            wire_bytes=7 + number,
        ),
        st.sampled_from(list(Signal)),
        st.integers(0, 3),
        st.sampled_from(list(Transport)),
        st.sampled_from(("", "cam-1")),  # the device that the bodies name
        st.integers(1, 2**63),
    ),
    max_size=8,
)


def packed(record: GroupRecord) -> GroupRecord:
    """Write a record as the journal does, and read it back."""
    frame = pack_frame(record, 7, zstandard.ZstdCompressor())
    header = maybe_frame(frame[:FRAME_HEADER_BYTES], 7)
    assert header is not None
    return unpack_payload(header, frame[FRAME_HEADER_BYTES:])


def taken(open_batch: OpenBatch, requests: Sequence[Payload]) -> Batch:
    for each in requests:
        open_batch.add(each)
    return open_batch.take(9)


@given(requests=MIXED)
def test_record_of_mixed_signals_gives_every_request_back(requests: list[Payload]) -> None:
    """Traces first, then the parcels, each in order: that is how a batch holds them."""
    batch = taken(OpenBatch(()), requests)
    record = packed(record_of(batch))
    assert record.sequence == 9
    found, offset = [], 0
    for entry in record.entries:
        found.append(
            Payload(
                body=bytes(record.body[offset : offset + entry.length]),
                signal=entry.signal,
                transport=entry.transport,
                identity=entry.identity,
                arrival_ns=entry.arrival_ns,
                wire_bytes=entry.wire_bytes,
            )
        )
        offset += entry.length
    traces = [each for each in requests if each.signal is Signal.TRACES]
    parcels = [each for each in requests if each.signal is not Signal.TRACES]
    assert found == traces + parcels
    again = taken(OpenBatch(()), found)
    assert packed(record_of(again)) == record
    assert again.parcels == batch.parcels
    assert (again.arena == batch.arena).all()
    assert len(again.spans) == len(batch.spans)
    assert batch_items(again) == batch_items(batch)


async def test_signals_of_one_moment_are_one_group() -> None:
    bench = Bench()
    requests = [
        Payload(
            body=BODIES[signal](2),
            signal=signal,
            transport=Transport.HTTP,
            identity="cam-1",
            arrival_ns=number,
            wire_bytes=number,
        )
        for number, signal in enumerate((Signal.LOGS, Signal.TRACES, Signal.METRICS), start=1)
    ]
    async with bench.running():
        receipts = await finished(await bench.start(*requests))
    assert [each.accepted for each in receipts if isinstance(each, Receipt)] == [2, 2, 2]
    (record,), (batch,) = bench.records, bench.batches
    assert [each.signal for each in record.entries] == [Signal.TRACES, Signal.LOGS, Signal.METRICS]
    assert bench.bodies == [requests[1].body + requests[0].body + requests[2].body]
    assert batch.arrival_ns == 3


async def test_malformed_metrics_are_refused_and_their_neighbours_pass() -> None:
    bench = Bench()
    async with bench.running():
        good, bad = await finished(
            await bench.start(
                payload(body(1)),
                Payload(
                    body=_metrics(1)[:-3],
                    signal=Signal.METRICS,
                    transport=Transport.GRPC,
                    identity="",
                    arrival_ns=1,
                    wire_bytes=1,
                ),
            )
        )
    assert isinstance(good, Receipt)
    assert isinstance(bad, MalformedPayloadError)
    assert [each.signal for each in bench.records[0].entries] == [Signal.TRACES]
