"""From the SDK of a device to the chunks at the gateway, over real sockets."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collectors.device.manifest import hmac_signer
from collectors.device.memory import Memory
from collectors.device.uplink import Uplink
from gateway.batch import Evidence
from gateway.retrieve.chunks import load
from gateway.retrieve.dive import Dive, DiveRequest
from gateway.retrieve.manifest import DeviceKey
from gateway.retrieve.retriever import Retriever
from gateway.retrieve.states import FINAL, State
from tests.unit.retrieve.harness import IDENTITY_HEADER, TIMEOUT_S, Device, Gateway


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device("cam-1", tmp_path / "cam-1")
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "site"
    directory.mkdir()
    return directory


def ask(retriever: Retriever, device: str, trace_ids: list[str]) -> Dive:
    evidence = [Evidence(trace_id=one, device=device, reason="test") for one in trace_ids]
    return retriever.open_dive(DiveRequest(reason="test", trace_ids=tuple(trace_ids)), evidence)


def final(dive: Dive) -> bool:
    return dive.state in FINAL


def has_moved(dive: Dive, chunks: int) -> bool:
    return final(dive) or dive.commands[0].next_chunk > chunks


async def failed(uplink: Uplink) -> None:
    """Wait until an uplink has failed once."""
    heard = asyncio.Event()
    recover = uplink._recover

    async def note(error: Exception, failures: int) -> None:
        heard.set()
        await recover(error, failures)

    with patch.object(uplink, "_recover", note):
        async with asyncio.timeout(TIMEOUT_S):
            await heard.wait()


def stored(retriever: Retriever, dive: Dive) -> bytes:
    return b"".join(load(path) for path in retriever.traces(dive.id))


async def test_a_dive_brings_the_full_traces_byte_for_byte(device: Device, site: Path) -> None:
    ids = device.infer(20)
    async with Gateway(site).serving() as gateway, device.linked(gateway.endpoint):
        dive = await gateway.wait_for(ask(gateway.retriever, "cam-1", ids).id, final)
        assert dive.state is State.COMPLETE
        assert dive.missing == ()
        assert stored(gateway.retriever, dive) == b"".join(map(device.payload, ids))
        traces = TracesData.FromString(stored(gateway.retriever, dive))
        spans = [
            span
            for resource in traces.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        assert len(spans) == 60
        assert {span.trace_id.hex() for span in spans} == set(ids)


async def test_a_held_poll_is_woken_by_a_new_dive(device: Device, site: Path) -> None:
    ids = device.infer(1)
    async with Gateway(site).serving() as gateway, device.linked(gateway.endpoint) as uplink:
        first = await gateway.wait_for(ask(gateway.retriever, "cam-1", ids).id, final)
        # The device is back in a poll that is held for longer than this test may take.
        second = await gateway.wait_for(ask(gateway.retriever, "cam-1", ids).id, final)
        assert (first.state, second.state) == (State.COMPLETE, State.COMPLETE)
        assert uplink.counts.failures == 0


async def test_a_wrapped_ring_gives_a_partial_dive_that_names_what_is_gone(
    device: Device, site: Path
) -> None:
    old = device.infer(3, "old")
    fresh: list[str] = []
    while device.ring.find(map(bytes.fromhex, old)):
        fresh = device.infer(50, "x" * 200)
    async with Gateway(site).serving() as gateway, device.linked(gateway.endpoint):
        dive = await gateway.wait_for(ask(gateway.retriever, "cam-1", old + fresh[-5:]).id, final)
    assert dive.state is State.PARTIAL
    assert {(one.trace_id, one.reason) for one in dive.missing} == {
        (trace_id, "evicted") for trace_id in old
    }
    assert dive.commands[0].reason == "evicted"
    assert dive.commands[0].next_trace == 5


async def test_a_trace_that_was_never_recorded_is_proven_absent(device: Device, site: Path) -> None:
    device.infer(1)
    async with Gateway(site).serving() as gateway, device.linked(gateway.endpoint):
        dive = await gateway.wait_for(ask(gateway.retriever, "cam-1", ["ab" * 16]).id, final)
    assert dive.state is State.COMPLETE
    assert [one.reason for one in dive.missing] == ["not_recorded"]


async def test_a_device_that_is_gone_leaves_an_expired_dive(site: Path) -> None:
    async with Gateway(site).serving() as gateway:
        dive = ask(gateway.retriever, "cam-9", ["ab" * 16])
        gateway.retriever.tick(dive.not_after_ns - 1)
        assert gateway.retriever.get(dive.id).state is State.QUEUED
        gateway.retriever.tick(dive.not_after_ns)
        dive = gateway.retriever.get(dive.id)
    assert dive.state is State.EXPIRED
    assert [(one.device, one.reason) for one in dive.missing] == [("cam-9", "device_silent")]


async def test_the_byte_cap_cuts_whole_traces_and_says_so(device: Device, site: Path) -> None:
    ids = device.infer(10)
    size = len(device.payload(ids[0]))
    async with Gateway(site).serving() as gateway, device.linked(gateway.endpoint):
        evidence = [Evidence(trace_id=one, device="cam-1", reason="test") for one in ids]
        cap = size * 4 + size // 2
        request = DiveRequest(reason="test", trace_ids=tuple(ids), max_bytes=cap)
        dive = gateway.retriever.open_dive(request, evidence)
        dive = await gateway.wait_for(dive.id, final)
    assert dive.state is State.PARTIAL
    assert dive.commands[0].received_bytes <= cap
    assert [one.reason for one in dive.missing] == ["byte_cap"] * 6


async def test_a_device_may_refuse(tmp_path: Path, site: Path) -> None:
    device = Device("cam-2", tmp_path / "cam-2", policy="privacy_hours")
    ids = device.infer(1)
    async with Gateway(site).serving() as gateway, device.linked(gateway.endpoint):
        dive = await gateway.wait_for(ask(gateway.retriever, "cam-2", ids).id, final)
    device.close()
    assert dive.state is State.REFUSED
    assert [one.reason for one in dive.missing] == ["privacy_hours"]


async def test_a_time_window_selects_without_trace_ids(device: Device, site: Path) -> None:
    begin_ns = device.writer.now_ns()
    ids = device.infer(5)
    async with Gateway(site).serving() as gateway, device.linked(gateway.endpoint):
        request = DiveRequest(
            reason="test", device="cam-1", from_ns=begin_ns, to_ns=device.writer.now_ns()
        )
        dive = await gateway.wait_for(gateway.retriever.open_dive(request).id, final)
        assert dive.state is State.COMPLETE
        manifest = dive.commands[0].manifest
        assert manifest is not None
        assert {one.trace_id for one in manifest.traces} == set(ids)


@pytest.mark.parametrize(
    ("key", "state", "verdict"),
    [(b"k" * 32, State.COMPLETE, "verified"), (b"x" * 32, State.REFUSED, "")],
)
async def test_a_manifest_must_carry_the_signature_of_its_device(
    tmp_path: Path, site: Path, key: bytes, state: State, verdict: str
) -> None:
    device = Device("cam-3", tmp_path / "cam-3", signer=hmac_signer("k1", b"k" * 32))
    ids = device.infer(2)

    def keys_of(name: str) -> list[DeviceKey]:
        return [DeviceKey(key_id="k1", algorithm="hmac-sha256", key=key)] if name else []

    async with (
        Gateway(site, keys_of=keys_of).serving() as gateway,
        device.linked(gateway.endpoint),
    ):
        dive = await gateway.wait_for(ask(gateway.retriever, "cam-3", ids).id, final)
    device.close()
    manifest = dive.commands[0].manifest
    assert dive.state is state
    assert (manifest.verdict if manifest else "") == verdict


async def test_a_credential_of_another_device_is_refused(device: Device, site: Path) -> None:
    ids = device.infer(1)
    async with (
        Gateway(site).serving() as gateway,
        device.linked(gateway.endpoint, {IDENTITY_HEADER: "cam-7"}) as uplink,
    ):
        dive = ask(gateway.retriever, "cam-1", ids)
        await gateway.wait_for_requests(2)
        assert uplink.counts.polls == 0
        assert gateway.retriever.get(dive.id).state is State.QUEUED


async def test_both_sides_may_restart_between_any_two_steps(tmp_path: Path, site: Path) -> None:
    """Cut the upload after each chunk by closing the listener, then go on with new processes."""
    device = Device("cam-4", tmp_path / "cam-4", segments=8, segment_bytes=1 << 20)
    ids = device.infer(200, "y" * 5000)
    expected = b"".join(map(device.payload, ids))
    port = 0
    dive_id = ""
    chunks = 0
    while True:
        async with Gateway(site).serving(port) as gateway:
            port = gateway.port
            if not dive_id:
                evidence = [Evidence(trace_id=one, device="cam-4", reason="test") for one in ids]
                request = DiveRequest(reason="test", trace_ids=tuple(ids))
                dive_id = gateway.retriever.open_dive(request, evidence).id
            async with device.linked(gateway.endpoint):
                moved = partial(has_moved, chunks=chunks)
                dive = await gateway.wait_for(dive_id, moved)
                chunks = dive.commands[0].next_chunk
            if final(dive):
                break
        device.close()
        device = Device("cam-4", tmp_path / "cam-4", segments=8, segment_bytes=1 << 20)
    assert chunks > 2
    device.close()
    retriever = Retriever(site, gateway.section, clean=gateway.clean)
    dive = retriever.get(dive_id)
    assert stored(retriever, dive) == expected
    assert dive.state is State.COMPLETE
    retriever.close()


async def test_a_gateway_that_cannot_store_is_tried_again(device: Device, site: Path) -> None:
    ids = device.infer(3)
    async with Gateway(site).serving() as gateway, device.linked(gateway.endpoint):
        gateway.clean_failures = 1
        dive = await gateway.wait_for(ask(gateway.retriever, "cam-1", ids).id, final)
        assert dive.state is State.COMPLETE
        assert gateway.clean_failures == 0
        assert stored(gateway.retriever, dive) == b"".join(map(device.payload, ids))


async def test_a_device_finds_a_gateway_that_starts_later(device: Device, site: Path) -> None:
    ids = device.infer(1)
    async with Gateway(site).serving() as gateway:
        port, endpoint = gateway.port, gateway.endpoint
        dive_id = ask(gateway.retriever, "cam-1", ids).id
    async with device.linked(endpoint) as uplink:
        await failed(uplink)
        async with Gateway(site).serving(port) as gateway:
            dive = await gateway.wait_for(dive_id, final)
    assert dive.state is State.COMPLETE


async def test_a_released_request_is_unpinned_and_forgotten(device: Device, site: Path) -> None:
    ids = device.infer(3)
    async with Gateway(site).serving() as gateway, device.linked(gateway.endpoint):
        first = await gateway.wait_for(ask(gateway.retriever, "cam-1", ids).id, final)
        # The device takes a second command only after it was released from the first.
        await gateway.wait_for(ask(gateway.retriever, "cam-1", ids[:1]).id, final)
    assert first.commands[0].request_id not in device.ring.pinned()
    assert Memory(device.directory).get(first.commands[0].request_id) is None


async def test_an_upload_goes_on_after_a_restart_of_the_gateway_alone(
    tmp_path: Path, site: Path
) -> None:
    device = Device("cam-1", tmp_path / "cam-1", segment_bytes=1 << 20)
    ids = device.infer(100, "y" * 5000)
    async with Gateway(site).serving() as gateway:
        port = gateway.port
        gateway.clean_budget = 1
        dive_id = ask(gateway.retriever, "cam-1", ids).id
        linked = device.linked(gateway.endpoint)
        uplink = await linked.__aenter__()
        # One chunk is here, the next is on its way and was not taken.
        await failed(uplink)
        assert gateway.retriever.get(dive_id).state is State.STREAMING
    async with Gateway(site).serving(port) as gateway:
        dive = await gateway.wait_for(dive_id, final)
        assert dive.state is State.COMPLETE
        assert stored(gateway.retriever, dive) == b"".join(map(device.payload, ids))
        await linked.__aexit__(None, None, None)
    device.close()
