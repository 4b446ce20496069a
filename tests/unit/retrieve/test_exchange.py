"""Leases, order and repetition in the talk with one device, step by step."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collectors.device.command import parse_command
from collectors.device.manifest import Answer, answer, chunk_plan, envelope, read_chunk
from collectors.device.ring import Ring
from collectors.device.segment import DATA_OFFSET
from gateway.batch import Evidence
from gateway.config import RetrieveSection
from gateway.otlp.opamp import MessageType
from gateway.retrieve.chunks import Chunk
from gateway.retrieve.dive import Command, DiveRequest
from gateway.retrieve.exchange import ChunkAnswer, ChunkStatus
from gateway.retrieve.messages import write
from gateway.retrieve.retriever import Retriever
from gateway.retrieve.states import State

SECOND = 1_000_000_000
LEASE_S = 60
TRACES = 6
CHUNK_BYTES = 1_500  # two traces


def trace(number: int) -> tuple[bytes, bytes]:
    data = TracesData()
    span = data.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id = number.to_bytes(16, "big")
    span.span_id = span.trace_id[8:]
    span.name = "n" * 600
    return span.trace_id, data.SerializeToString()


class Talk:
    """A gateway with one open dive and a ring that holds its traces."""

    def __init__(self, directory: Path, segments: int = 8, traces: int = TRACES) -> None:
        self.now_ns = 1_000 * SECOND
        self.section = RetrieveSection(lease=LEASE_S, not_after=900.0)
        self.retriever = Retriever(directory, self.section, clean=bytes, clock=lambda: self.now_ns)
        self.ring = Ring(
            directory / "ring",
            now_ns=1,
            segments=segments,
            segment_bytes=2 * DATA_OFFSET,
            compress=False,
        )
        bodies = dict(trace(number) for number in range(1, traces + 1))
        for trace_id, body in bodies.items():
            assert self.ring.append(trace_id, body, written_ns=5, first=True, last=True)
        evidence = [Evidence(trace_id=one.hex(), device="cam", reason="test") for one in bodies]
        self.dive = self.retriever.open_dive(DiveRequest(reason="test"), evidence)
        self.answer = Answer()

    @property
    def command(self) -> Command:
        return self.retriever.get(self.dive.id).commands[0]

    def say(self, type_: MessageType, **body: object) -> None:
        data = json.dumps({"request_id": self.command.request_id, **body}).encode()
        self.retriever.on_message("cam", type_, data, self.now_ns)

    def pin(self) -> None:
        asked = self.retriever.on_poll("cam", self.now_ns)
        assert asked is not None
        self.say(MessageType.ACK)
        self.answer = answer(self.ring, parse_command(write(asked)), device="cam", now_ns=6)
        self.say(MessageType.MANIFEST, **envelope(self.answer.manifest, None))

    def upload(self, seq: int) -> ChunkAnswer:
        plan = chunk_plan(self.answer.parts, CHUNK_BYTES)
        body = read_chunk(self.ring, plan[seq])
        digest = hashlib.sha256(body).hexdigest()
        chunk = Chunk(
            request_id=self.command.request_id,
            seq=seq,
            sha256=digest,
            last=seq == len(plan) - 1,
            body=body,
        )
        return self.retriever.on_chunk("cam", chunk, self.now_ns)

    def wait(self, seconds: float) -> State:
        self.now_ns += int(seconds * SECOND)
        self.retriever.tick(self.now_ns)
        return self.command.state

    def close(self) -> None:
        self.ring.close()
        self.retriever.close()


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    made = Talk(tmp_path)
    yield made
    made.close()


def test_a_device_that_confirms_and_stays_silent_is_asked_again(talk: Talk) -> None:
    talk.retriever.on_poll("cam", talk.now_ns)
    talk.say(MessageType.ACK)
    assert talk.wait(LEASE_S - 1) is State.DELIVERED
    assert talk.wait(1) is State.QUEUED
    assert talk.retriever.on_poll("cam", talk.now_ns) is not None


def test_each_chunk_renews_the_lease_and_a_break_ends_it(talk: Talk) -> None:
    talk.pin()
    assert talk.wait(LEASE_S - 1) is State.PINNED
    assert talk.upload(0).state is State.STREAMING
    assert talk.wait(2) is State.STREAMING
    assert talk.retriever.on_poll("cam", talk.now_ns) is None
    assert talk.wait(LEASE_S) is State.PINNED
    assert talk.retriever.on_poll("cam", talk.now_ns) is not None
    assert talk.upload(1).state is State.STREAMING
    assert talk.upload(2).state is State.COMPLETE


def test_a_chunk_that_is_early_is_told_which_one_is_wanted(talk: Talk) -> None:
    talk.pin()
    told = talk.upload(1)
    assert (told.status, told.next_seq) == (ChunkStatus.ANOTHER_FIRST, 0)
    assert talk.upload(0).next_seq == 1


def test_a_chunk_that_comes_again_is_stored_once(talk: Talk) -> None:
    talk.pin()
    for _ in range(2):
        told = talk.upload(0)
        assert (told.status, told.next_seq) == (ChunkStatus.STORED, 1)
    assert len(talk.retriever.traces(talk.dive.id)) == 1
    assert talk.command.next_trace == 2


def test_a_device_that_is_gone_in_the_middle_leaves_a_partial_dive(talk: Talk) -> None:
    talk.pin()
    talk.upload(0)
    assert talk.wait(901) is State.PARTIAL
    missing = talk.retriever.get(talk.dive.id).missing
    assert [one.reason for one in missing] == ["device_gone"] * (TRACES - 2)
    assert talk.upload(1).status is ChunkStatus.FINAL


def test_another_manifest_for_the_same_request_ends_it(talk: Talk) -> None:
    talk.pin()
    manifest = json.loads(talk.answer.manifest)
    manifest["complete"] = False
    talk.say(MessageType.MANIFEST, **envelope(json.dumps(manifest), None))
    assert (talk.command.state, talk.command.reason) == (State.PARTIAL, "manifest_changed")


def test_a_dive_never_pins_more_than_its_share_of_the_ring(tmp_path: Path) -> None:
    talk = Talk(tmp_path, segments=8, traces=5 * 5)
    talk.pin()
    found = talk.ring.find(part.trace_id for part in talk.answer.parts)
    held = {entry.generation for entries in found.values() for entry in entries}
    assert len(held) == talk.ring.pins_max == 3
    assert talk.command.state is State.PINNED
    for seq in range(len(chunk_plan(talk.answer.parts, CHUNK_BYTES))):
        talk.upload(seq)
    dive = talk.retriever.get(talk.dive.id)
    assert dive.state is State.PARTIAL
    assert {one.reason for one in dive.missing} == {"pin_cap"}
    assert len(dive.missing) + dive.commands[0].next_trace == 25
    talk.close()
