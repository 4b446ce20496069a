"""The two device routes over a real socket, one odd client at a time."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import pytest

from gateway.batch import Evidence
from gateway.otlp import opamp
from gateway.otlp.opamp import CAPABILITY, AgentToServer, CustomMessage, ErrorType, ServerToAgent
from gateway.retrieve.dive import Dive, DiveRequest
from gateway.retrieve.states import State
from tests.unit.retrieve.harness import IDENTITY_HEADER, TIMEOUT_S, Gateway

UID = b"0123456789abcdef"
TRACE = "ab" * 16


class Client:
    """A device that says what it is told to say."""

    def __init__(self, gateway: Gateway, session: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.session = session

    async def send(self, *, wait_s: int = 0, identity: str = "", **fields: Any) -> ServerToAgent:
        body = opamp.encode_agent(AgentToServer(instance_uid=UID, **fields))
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        if identity:
            headers[IDENTITY_HEADER] = identity
        async with self.session.post(
            self.gateway.endpoint + opamp.PATH, data=body, headers=headers
        ) as response:
            response.raise_for_status()
            return opamp.parse_server(await response.read())

    async def introduce(self, device: str = "cam-1", **fields: Any) -> ServerToAgent:
        return await self.send(
            description={"device.id": device}, custom_capabilities=(CAPABILITY,), **fields
        )

    async def say(self, type_: str, body: Any) -> ServerToAgent:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        message = CustomMessage(capability=CAPABILITY, type=type_, data=data)
        return await self.send(custom_message=message)

    async def upload(self, headers: Mapping[str, str] | None = None) -> aiohttp.ClientResponse:
        body = b"x"
        base = {
            "retrieval-instance-uid": UID.hex(),
            "retrieval-request-id": "00ab",
            "retrieval-chunk-seq": "0",
            "retrieval-chunk-sha256": hashlib.sha256(body).hexdigest(),
        }
        async with self.session.post(
            self.gateway.endpoint + "/v1/retrieval", data=body, headers={**base, **(headers or {})}
        ) as response:
            await response.read()
            return response


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with Gateway(tmp_path).serving() as gateway, aiohttp.ClientSession() as session:
        yield Client(gateway, session)


def open_dive(client: Client) -> Dive:
    evidence = [Evidence(trace_id=TRACE, device="cam-1", reason="test")]
    return client.gateway.retriever.open_dive(DiveRequest(reason="test"), evidence)


async def listening(client: Client) -> None:
    """Wait until a poll has asked the table and is held."""
    doorbell = client.gateway.routes._doorbell
    heard = asyncio.Event()
    listen = doorbell.listen

    def note(device: str) -> asyncio.Future[None]:
        waiter = listen(device)
        heard.set()
        return waiter

    with patch.object(doorbell, "listen", note):
        await heard.wait()


async def test_an_unknown_instance_is_asked_to_introduce_itself(client: Client) -> None:
    assert (await client.send()).flags == opamp.REPORT_FULL_STATE
    reply = await client.introduce()
    assert (reply.flags, reply.custom_capabilities) == (0, (CAPABILITY,))
    assert (await client.send()).flags == 0


async def test_a_device_without_the_capability_is_never_asked(client: Client) -> None:
    open_dive(client)
    reply = await client.send(description={"device.id": "cam-1"})
    assert (reply.custom_message, reply.custom_capabilities) == (None, None)


async def test_a_waiting_command_is_given_at_once_and_again_when_it_was_lost(
    client: Client,
) -> None:
    dive = open_dive(client)
    for attempt in (1, 2):
        reply = await client.introduce(wait_s=5)
        assert reply.custom_message is not None
        command = client.gateway.retriever.get(dive.id).commands[0]
        assert json.loads(reply.custom_message.data)["request_id"] == command.request_id
        assert (command.state, command.attempts) == (State.QUEUED, attempt)


async def test_a_poll_is_held_until_there_is_a_command(client: Client) -> None:
    await client.introduce()
    async with asyncio.timeout(TIMEOUT_S / 2):
        poll = asyncio.create_task(client.send(wait_s=int(TIMEOUT_S)))
        await listening(client)
        assert not poll.done()
        open_dive(client)
        reply = await poll
    assert reply.custom_message is not None
    assert reply.custom_message.type == "retrieve"


async def test_a_newer_poll_replaces_the_one_before(client: Client) -> None:
    await client.introduce()
    async with asyncio.timeout(TIMEOUT_S / 2):
        first = asyncio.create_task(client.send(wait_s=int(TIMEOUT_S)))
        await listening(client)
        second = asyncio.create_task(client.send(wait_s=int(TIMEOUT_S)))
        assert (await first).custom_message is None
        client.gateway.routes.drain()
        assert (await second).custom_message is None


async def test_after_draining_no_poll_is_held(client: Client) -> None:
    await client.introduce()
    client.gateway.routes.drain()
    async with asyncio.timeout(TIMEOUT_S / 2):
        assert (await client.send(wait_s=int(TIMEOUT_S))).custom_message is None


async def test_a_message_that_is_not_understood_is_a_bad_request(client: Client) -> None:
    await client.introduce()
    for type_, body in [
        ("manifest", b"{"),
        ("manifest", {"request_id": "1"}),
        ("done", {"request_id": "1", "reason": "<b>"}),
        ("ack", {"request_id": "1", "more": 1}),
        ("retrieve", {"request_id": "1"}),
        ("unheard-of", {}),
    ]:
        reply = await client.say(type_, body)
        assert reply.error is not None, type_
        assert reply.error.type is ErrorType.BAD_REQUEST
        assert "<b>" not in reply.error.message


async def test_another_capability_is_ignored(client: Client) -> None:
    await client.introduce()
    message = CustomMessage(capability="org.example.other/v1", type="x", data=b"")
    reply = await client.send(custom_message=message)
    assert (reply.error, reply.custom_message) == (None, None)


async def test_an_unknown_request_is_released(client: Client) -> None:
    await client.introduce()
    for type_ in ("ack", "done"):
        reply = await client.say(type_, {"request_id": "00ab"})
        assert reply.custom_message is not None
        assert json.loads(reply.custom_message.data) == {"request_id": "00ab", "state": "unknown"}


async def test_a_device_cannot_speak_for_another(client: Client) -> None:
    command = open_dive(client).commands[0]
    await client.introduce("cam-2")
    for type_ in ("ack", "done"):
        with pytest.raises(aiohttp.ClientResponseError, match="403"):
            await client.say(type_, {"request_id": command.request_id})
    response = await client.upload({"retrieval-request-id": command.request_id})
    assert response.status == 403
    with pytest.raises(aiohttp.ClientResponseError, match="403"):
        await client.introduce("cam-2", identity="cam-3")


async def test_a_session_belongs_to_its_credential(client: Client) -> None:
    await client.introduce("cam-2", identity="cam-2")
    assert (await client.send(identity="cam-3")).flags == opamp.REPORT_FULL_STATE


async def test_an_upload_needs_an_introduction_or_a_credential(client: Client) -> None:
    assert (await client.upload()).status == 401
    assert (await client.upload({IDENTITY_HEADER: "cam-1"})).status == 410
    await client.introduce()
    assert (await client.upload()).status == 410


@pytest.mark.parametrize(
    "headers",
    [
        {"retrieval-request-id": "../../etc"},
        {"retrieval-request-id": ""},
        {"retrieval-chunk-seq": "-1"},
        {"retrieval-chunk-seq": "9" * 10},
        {"retrieval-chunk-sha256": "00"},
    ],
)
async def test_headers_of_an_upload_are_checked(client: Client, headers: dict[str, str]) -> None:
    await client.introduce()
    assert (await client.upload(headers)).status == 400


async def test_a_device_without_a_name_is_refused(client: Client) -> None:
    with pytest.raises(aiohttp.ClientResponseError, match="400"):
        await client.introduce("")
    with pytest.raises(aiohttp.ClientResponseError, match="400"):
        await client.introduce("x" * 257)
