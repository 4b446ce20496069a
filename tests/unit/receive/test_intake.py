"""From an admitted body to an acknowledgement: who owns the bytes at each moment."""

import asyncio
import random

import pytest

from gateway.batch import Payload, Receipt, Signal, Transport
from gateway.errors import MalformedPayloadError
from gateway.receive.admission import Admission, Reason
from gateway.receive.identity import Gate
from gateway.receive.intake import NOTHING, Intake
from tests.unit.receive.support import NOW_NS, Commit


def intake(commit: Commit) -> Intake:
    return Intake(
        submit=commit,
        now_ns=lambda: NOW_NS,
        admission=Admission(bytes_max=1_000, rng=random.Random(1)),
        gate=Gate(now_ns=lambda: NOW_NS),
    )


async def accept(made: Intake, body: bytes, signal: Signal = Signal.TRACES) -> Receipt:
    with made.admission.enter("camera", 7) as hold:
        hold.grow(len(body))
        return await made.accept(signal, body, Transport.HTTP, "camera", 7, hold)


@pytest.mark.parametrize("signal", Signal)
async def test_a_payload_carries_what_was_known_at_the_socket(signal: Signal) -> None:
    commit = Commit()
    commit.receipt = Receipt(accepted=1, rejected=0, reason="")
    assert await accept(intake(commit), b"body", signal) is commit.receipt
    assert commit.payloads == [
        Payload(
            body=b"body",
            signal=signal,
            transport=Transport.HTTP,
            identity="camera",
            arrival_ns=NOW_NS,
            wire_bytes=7,
            ticket=1,
        )
    ]


async def test_accepted_bytes_stay_with_the_core() -> None:
    commit = Commit()
    commit.receipt = Receipt(accepted=3, rejected=0, reason="")
    made = intake(commit)
    await accept(made, b"body")
    assert made.admission.held_bytes == 4
    assert made.counters.accepted_items == [0, 3]
    assert (made.counters.wire_bytes, made.counters.inflated_bytes) == (7, 4)


async def test_refused_bytes_come_back() -> None:
    commit = Commit()
    commit.error = MalformedPayloadError("bad")
    made = intake(commit)
    with pytest.raises(MalformedPayloadError):
        await accept(made, b"body")
    assert made.admission.held_bytes == 0


async def test_bytes_of_a_cancelled_request_stay_because_they_will_be_committed() -> None:
    commit = Commit()
    commit.gate = asyncio.Event()
    made = intake(commit)
    task = asyncio.create_task(accept(made, b"body"))
    await commit.entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made.admission.held_bytes == 4


async def test_rejected_items_are_told_and_counted() -> None:
    commit = Commit()
    commit.receipt = Receipt(accepted=1, rejected=2, reason="span_id is all zero")
    made = intake(commit)
    assert await accept(made, b"body") is commit.receipt
    assert made.counters.rejected_items == [0, 2]
    assert made.counters.refused["traces", Reason.INVALID_ITEM] == 2


async def test_an_empty_request_succeeds_without_a_commit() -> None:
    commit = Commit()
    assert await accept(intake(commit), b"") == NOTHING
    assert commit.payloads == []
