"""Law: whatever is lost, repeated, reordered, restarted or forged, a command takes only steps of
the table, no acknowledged chunk is lost or doubled, `complete` means every byte, and all ends."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collectors.device.command import parse_command
from collectors.device.manifest import answer, chunk_plan, envelope, read_chunk
from collectors.device.memory import Memory
from collectors.device.ring import Ring
from collectors.device.segment import DATA_OFFSET
from gateway.batch import Evidence
from gateway.config import RetrieveSection
from gateway.errors import CorruptDataError, MalformedPayloadError
from gateway.otlp.opamp import MessageType
from gateway.retrieve.chunks import Chunk, load
from gateway.retrieve.dive import Dive, DiveRequest
from gateway.retrieve.exchange import ChunkStatus
from gateway.retrieve.messages import write
from gateway.retrieve.retriever import Retriever
from gateway.retrieve.states import FINAL, STEPS, State

SECOND = 1_000_000_000
DEVICES = ("cam-0", "cam-1")
TRACES = 8
SEEDS = 16
CHECK_EVERY = 3  # steps; every check reads all dives again
STEPS_PER_SEED = 60
JOIN_SHARE = 0.3


def trace(number: int, size: int) -> tuple[bytes, bytes]:
    """Make a trace: (trace id, OTLP bytes)."""
    data = TracesData()
    span = data.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id = hashlib.sha256(str(number).encode()).digest()[:16]
    span.span_id = span.trace_id[:8]
    span.name = "n" * size
    return span.trace_id, data.SerializeToString()


class Machine:
    """One device without its uplink: the schedule decides what is said and when."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory / name
        self.name = name
        self.clock_ns = 10 * SECOND
        self.recorded: list[bytes] = []
        self.start()

    def start(self) -> None:
        self.ring = Ring(
            self.directory,
            now_ns=self.clock_ns,
            segments=8,
            segment_bytes=2 * DATA_OFFSET,
            compress=False,
        )
        self.memory = Memory(self.directory)

    def restart(self) -> None:
        self.ring.close()
        self.start()


class Schedule:
    """A random schedule of everything that may happen, drawn from one seed."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.rng = random.Random(seed)
        self.asked: list[tuple[str, bytes]] = []  # (device, retrieve body) as polls were answered
        self.now_ns = 1_000 * SECOND
        self.section = RetrieveSection(dive_bytes_max=2048, lease=10.0, not_after=100.0)
        self.acked: dict[tuple[str, int], bytes] = {}
        self.seen: dict[str, State] = {}
        self.ends: Counter[tuple[State, str]] = Counter()
        self.ids = 0
        self.devices = {name: Machine(self.directory, name) for name in DEVICES}
        self.truth: dict[bytes, bytes] = {}
        self.written = 0
        self.open_retriever()
        for name in DEVICES:
            self.record(name, 6, 300)

    def open_retriever(self) -> None:
        self.retriever = Retriever(
            self.directory,
            self.section,
            clean=bytes,
            on_change=self.changed,
            clock=lambda: self.now_ns,
            new_id=self.new_id,
        )

    def new_id(self, now_ns: int) -> str:
        self.ids += 1
        return f"{self.ids:08x}"

    def changed(self, dive: Dive) -> None:
        for command in dive.commands:
            before = self.seen.get(command.request_id, State.QUEUED)
            assert before not in FINAL or before is command.state
            self.seen[command.request_id] = command.state

    def record(self, device: str, count: int, size: int) -> None:
        machine = self.devices[device]
        for _ in range(count):
            number, self.written = self.written, self.written + 1
            trace_id, body = trace(number, size)
            machine.clock_ns += SECOND
            machine.ring.append(trace_id, body, written_ns=machine.clock_ns, first=True, last=True)
            self.truth[trace_id] = body
            machine.recorded.append(trace_id)

    def dive(self, device: str, ages: list[int]) -> None:
        recorded = self.devices[device].recorded
        open_dives = [one for one in self.retriever.list() if one.state not in FINAL]
        # An age of 0 is a trace that this device never saw.
        ids = [
            (recorded[-min(age, len(recorded))] if age else trace(-1, 1)[0]).hex() for age in ages
        ]
        if open_dives and self.rng.random() < JOIN_SHARE:
            command = self.rng.choice(open_dives).commands[0]
            device, ids = command.device, list(command.selector.trace_ids)
        evidence = [Evidence(trace_id=one, device=device, reason="law") for one in ids]
        dive = self.retriever.open_dive(
            DiveRequest(reason="law", trace_ids=tuple(ids), kind="law"), evidence
        )
        assert dive.state in (State.REFUSED, *STEPS)

    def poll(self, device: str) -> tuple[str, bytes] | None:
        body = self.retriever.on_poll(device, self.now_ns)
        if body is None:
            return None
        self.asked.append((device, write(body)))
        return self.asked[-1]

    def confirm(self, asked: tuple[str, bytes]) -> None:
        self.say(asked[0], MessageType.ACK, {"request_id": json.loads(asked[1])["request_id"]})

    def manifest(self, asked: tuple[str, bytes]) -> None:
        machine, command = self.devices[asked[0]], parse_command(asked[1])
        known = machine.memory.get(command.request_id)
        if known is None:
            known = answer(machine.ring, command, device=machine.name, now_ns=machine.clock_ns)
            machine.memory.put(command.request_id, known)
            self.check_claim(machine, known.manifest, command.trace_ids)
        if known.refusal is not None:
            body = {"request_id": command.request_id, "reason": known.refusal}
            self.say(machine.name, MessageType.REFUSE, body)
        else:
            body = {"request_id": command.request_id, **envelope(known.manifest, None)}
            self.say(machine.name, MessageType.MANIFEST, body)

    def check_claim(self, machine: Machine, manifest: str, wanted: tuple[bytes, ...]) -> None:
        """`complete` may be claimed only if nothing wanted was ever recorded and is gone."""
        if not manifest or not json.loads(manifest)["complete"]:
            return
        found = machine.ring.find(wanted)
        listed = {one["trace_id"] for one in json.loads(manifest)["traces"]}
        assert listed == {key.hex() for key in found}
        if machine.ring.evicted():
            assert listed == {key.hex() for key in wanted}

    def chunk(self, asked: tuple[str, bytes], seq: int, change: str) -> None:
        machine, request_id = self.devices[asked[0]], json.loads(asked[1])["request_id"]
        known = machine.memory.get(request_id)
        plan = chunk_plan(known.parts, 600) if known is not None else []
        if seq >= len(plan):
            return
        try:
            body = read_chunk(machine.ring, plan[seq])
        except CorruptDataError:
            self.say(machine.name, MessageType.DONE, {"request_id": request_id})
            return
        if change == "bytes":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if change == "foreign":
            body = trace(10**6, 5)[1]
        digest = hashlib.sha256(body).hexdigest()
        chunk = Chunk(
            request_id=request_id,
            seq=seq,
            sha256="0" * 64 if change == "digest" else digest,
            last=seq == len(plan) - 1,
            body=body,
        )
        was_open = self.seen.get(request_id) not in FINAL
        try:
            told = self.retriever.on_chunk(machine.name, chunk, self.now_ns)
        except MalformedPayloadError:
            assert change == "digest"
            return
        if change == "" and was_open:
            assert told.status is not ChunkStatus.NOT_AS_PROMISED
        if told.status is ChunkStatus.STORED:
            assert change == ""
            assert self.acked.setdefault((request_id, seq), body) == body

    def go_on(self, device: str, steps: int) -> None:
        """Do what an honest device does next, up to a break of the connection."""
        asked = self.poll(device)
        if asked is None:
            return
        self.confirm(asked)
        if steps > 1:
            self.manifest(asked)
        for seq in range(steps - 2):
            self.chunk(asked, seq, "")

    def give_up(self, asked: tuple[str, bytes]) -> None:
        body = {"request_id": json.loads(asked[1])["request_id"], "reason": "pin_lost"}
        self.say(asked[0], MessageType.DONE, body)

    def say(self, device: str, type_: MessageType, body: Mapping[str, object]) -> None:
        said = self.retriever.on_message(device, type_, json.dumps(body).encode(), self.now_ns)
        if said is not None and said[0] is MessageType.RELEASE:
            request_id = json.loads(said[1])["request_id"]
            assert json.loads(said[1])["state"] in {*FINAL, "unknown"}
            self.devices[device].ring.unpin(request_id)
            self.devices[device].memory.drop(request_id)

    def wait(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND
        self.retriever.tick(self.now_ns)

    def restart_gateway(self) -> None:
        self.retriever.close()
        self.open_retriever()

    def delete(self, index: int) -> None:
        dives = self.retriever.list()
        if index < len(dives):
            self.retriever.delete(dives[index].id)

    def acknowledged_chunks_are_there_once_and_whole(self) -> None:
        for dive in self.retriever.list():
            expected = b""
            for command in dive.commands:
                for seq in range(command.next_chunk):
                    body = self.acked[command.request_id, seq]
                    expected += body
                assert (command.request_id, command.next_chunk) not in self.acked
            assert b"".join(load(path) for path in self.retriever.traces(dive.id)) == expected

    def complete_means_every_byte(self) -> None:
        for dive in self.retriever.list():
            for command in dive.commands:
                if command.state is not State.COMPLETE:
                    continue
                assert command.manifest is not None
                body = b"".join(
                    self.acked[command.request_id, seq] for seq in range(command.next_chunk)
                )
                assert body == b"".join(
                    self.truth[bytes.fromhex(one.trace_id)] for one in command.manifest.traces
                )
            if dive.state in FINAL and dive.state is not State.COMPLETE:
                assert dive.missing or dive.refusal

    def only_steps_of_the_table_were_taken(self) -> None:
        for dive in self.retriever.list():
            for command in dive.commands:
                state = ""
                for _, before, after, _, _ in self.retriever.history(command.request_id):
                    assert before == state
                    assert not before or State(after) in STEPS[State(before)]
                    state = after
                assert state == command.state

    def step(self) -> None:
        """Do one thing at random; an old command may come again at any time."""
        rng, device = self.rng, self.rng.choice(DEVICES)
        asked = rng.choice(self.asked) if self.asked else None
        action = rng.choices(
            ["record", "dive", "go_on", "poll", "message", "chunk", "wait", "restart", "delete"],
            [3, 4, 6, 2, 3, 3, 2, 2, 0.3],
        )[0]
        if action == "record":
            self.record(device, rng.randint(1, 9), rng.randint(1, 1500))
        elif action == "dive":
            self.dive(device, rng.sample(range(TRACES + 1), rng.randint(1, 6)))
        elif action == "go_on":
            self.go_on(device, rng.randint(1, 9))
        elif action == "poll":
            self.poll(device)
        elif action == "wait":
            self.wait(rng.randint(0, 25))
        elif action == "restart":
            rng.choice([self.restart_gateway, self.devices[device].restart])()
        elif action == "delete":
            self.delete(rng.randint(0, 3))
        elif asked is not None and action == "message":
            rng.choice([self.confirm, self.manifest, self.manifest, self.give_up])(asked)
        elif asked is not None:
            self.chunk(asked, rng.randint(0, 3), rng.choice(["", "", "bytes", "digest", "foreign"]))

    def check(self) -> None:
        """Check every invariant."""
        self.acknowledged_chunks_are_there_once_and_whole()
        self.complete_means_every_byte()
        self.only_steps_of_the_table_were_taken()

    def end(self) -> None:
        """Let time run out; everything must end."""
        self.now_ns += 1_000 * SECOND
        self.retriever.tick(self.now_ns)
        for dive in self.retriever.list():
            assert dive.state in FINAL
            self.ends.update((command.state, command.reason) for command in dive.commands)
        self.check()

    def close(self) -> None:
        self.retriever.close()
        for machine in self.devices.values():
            machine.ring.close()


def run(directory: Path, seed: int) -> Counter[tuple[State, str]]:
    schedule = Schedule(directory, seed)
    for number in range(STEPS_PER_SEED):
        schedule.step()
        if number % CHECK_EVERY == 0:
            schedule.check()
    schedule.end()
    schedule.close()
    return schedule.ends


def test_every_schedule_keeps_the_law_and_all_ends_are_reached(tmp_path: Path) -> None:
    ends: Counter[tuple[State, str]] = Counter()
    for seed in range(SEEDS):
        (tmp_path / str(seed)).mkdir()
        try:
            ends += run(tmp_path / str(seed), seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
    # The schedules are worth something only if they reach every kind of end.
    assert ends.keys() >= {
        (State.COMPLETE, ""),
        (State.EXPIRED, "device_silent"),
        (State.PARTIAL, "device_gone"),
        (State.PARTIAL, "evicted"),
        (State.PARTIAL, "byte_cap"),
        (State.PARTIAL, "not_as_promised"),
        (State.PARTIAL, "pin_lost"),
    }, ends
